import dataclasses
import hashlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

import common
from common.data import phantom_workers, phantoms
from common.data.hand import HAND_LANDMARKS, WRIST_LANDMARKS
from common.data.phantom_hand import draw_hand
from common.data.phantom_xray import polygon_mask, smooth_outline
from common.data.phantoms import phantom_dataset
from common.errors import InputError

INDEX = {name: i for i, name in enumerate(HAND_LANDMARKS)}
FINGERS = ("index", "middle", "ring", "little")
TINY = {"training": 3, "validation": 1, "test": 1}
REPOSITORY = Path(common.__file__).parents[1]


@pytest.fixture(scope="module")
def hands():
    return [draw_hand(np.random.default_rng([1, k]), age=5.0 + 1.4 * k) for k in range(10)]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A registry with a hand set of five small pictures, and an empty cache folder."""
    monkeypatch.setenv("MONAI_DATA_DIRECTORY", str(tmp_path))
    hand = dataclasses.replace(phantoms.ANATOMIES["hand"], sizes={"tiny": ((120, 168), TINY)})
    monkeypatch.setitem(phantoms.ANATOMIES, "hand", hand)
    return tmp_path / "landmark_phantoms"


def profile(image, point, direction, reach, step=0.25, width=2.0):
    """Mean grey values across `width` pixels to each side, along a line through the point."""
    direction = direction / np.linalg.norm(direction)
    along = np.arange(-reach, reach + step / 2, step)
    across = np.arange(-width, width + 0.1, 0.5)
    aside = np.array([-direction[1], direction[0]])
    places = point[:, None, None] + along[:, None] * direction[:, None, None] + across * aside[:, None, None]
    return along, map_coordinates(image.astype(float), places, order=1, mode="nearest").mean(-1)


def towards(points, name, other):
    return points[INDEX[other]] - points[INDEX[name]]


def test_the_landmarks_have_37_unique_names_with_the_styloids_as_wrist():
    assert len(HAND_LANDMARKS) == len(set(HAND_LANDMARKS)) == 37
    assert [HAND_LANDMARKS[i] for i in WRIST_LANDMARKS] == ["ulna_styloid", "radius_styloid"]
    assert INDEX["thumb_tip"] == 20 and INDEX["index_mcp"] == 21 and INDEX["little_tip"] == 36


def test_the_same_seed_draws_the_same_bytes_and_another_seed_does_not():
    image, points = draw_hand(np.random.default_rng(4), (160, 224))
    again, points_again = draw_hand(np.random.default_rng(4), (160, 224))
    other, _ = draw_hand(np.random.default_rng(5), (160, 224))
    assert image.shape == (160, 224) and image.dtype == np.uint8 and points.dtype == np.float64
    assert image.tobytes() == again.tobytes() and np.array_equal(points, points_again)
    assert image.tobytes() != other.tobytes()


def test_all_points_lie_inside_the_picture(hands):
    for image, points in hands:
        assert points.shape == (37, 2) and np.isfinite(points).all()
        assert (points >= 4).all() and (points <= np.array(image.shape) - 5).all()


def test_it_is_a_left_hand_with_the_thumb_to_the_right_and_fingers_up(hands):
    for _, points in hands:
        mcp = [points[INDEX[f"{name}_mcp"], 0] for name in ("little", "ring", "middle", "index", "thumb")]
        assert mcp == sorted(mcp)
        assert points[INDEX["ulna_styloid"], 0] < points[INDEX["radius_styloid"], 0]
        assert (points[13:, 1] < points[:6, 1].min()).all()


def test_the_joints_of_a_finger_lie_in_line_with_shrinking_phalanges(hands):
    for _, points in hands:
        for name in FINGERS:
            joints = points[[INDEX[f"{name}_{joint}"] for joint in ("mcp", "pip", "dip", "tip")]]
            bones = np.diff(joints, axis=0)
            length = np.linalg.norm(bones, axis=1)
            assert length[0] > length[1] > 0.75 * length[2]
            cosines = (bones[1:] * bones[:-1]).sum(1) / (length[1:] * length[:-1])
            assert (cosines > 0.9).all()
            assert length[0] < np.linalg.norm(towards(points, f"{name}_mcp", f"{name}_metacarpal_base"))


def test_joint_gaps_are_darker_than_the_bone_ends_beside_them(hands):
    for image, points in hands:
        unit = np.linalg.norm(towards(points, "middle_metacarpal_base", "middle_mcp"))
        for name in FINGERS:
            for joint, following in (("pip", "dip"), ("dip", "tip")):
                direction = towards(points, f"{name}_{joint}", f"{name}_{following}")
                along, grey = profile(image, points[INDEX[f"{name}_{joint}"]], direction, 0.1 * unit)
                head = grey[(along > -0.04 * unit) & (along < -0.01 * unit)].mean()
                gap = grey[(along > 0) & (along < 0.05 * unit)].min()
                base = grey[(along > 0.02 * unit) & (along < 0.1 * unit)].max()
                assert gap < head - 3 and gap < base - 3


def test_the_edge_of_bone_lies_within_a_pixel_of_the_points_that_end_a_bone(hands):
    ends = [("tip", "dip"), ("dip", "pip"), ("pip", "mcp"), ("mcp", "pip")]
    offsets = []
    for image, points in hands:
        for name in FINGERS:
            for joint, inwards in ends:
                outwards = -towards(points, f"{name}_{joint}", f"{name}_{inwards}")
                along, grey = profile(image, points[INDEX[f"{name}_{joint}"]], outwards, 4)
                smooth = np.convolve(grey, np.ones(5) / 5, "same")
                offsets.append(along[4:-4][np.gradient(smooth)[4:-4].argmin()])
    assert abs(np.median(offsets)) <= 0.5
    assert np.mean(np.abs(offsets) <= 1.0) > 0.9


def test_carpal_points_have_bone_above_and_less_of_it_below_in_a_child_of_seven():
    for seed in range(4):
        image, points = draw_hand(np.random.default_rng([2, seed]), age=7)
        up = towards(points, "middle_metacarpal_base", "middle_mcp")
        for name in ("triquetrum", "lunate", "capitate", "hamate"):
            along, grey = profile(image, points[INDEX[f"{name}_proximal"]], up, 6, width=1)
            assert grey[along > 2].mean() > grey[along < -1].mean() + 4, name


def test_growth_plates_are_open_in_the_child_and_closed_in_the_adult():
    def depth(age):
        depths = []
        for seed in range(4):
            image, points = draw_hand(np.random.default_rng([3, seed]), age=age)
            unit = np.linalg.norm(towards(points, "middle_metacarpal_base", "middle_mcp"))
            up = towards(points, "middle_mcp", "middle_pip")
            along, grey = profile(image, points[INDEX["middle_mcp"]], up, 0.12 * unit)
            bone = grey[along > 0.015 * unit]
            depths.append(np.median(bone) - bone.min())
        return np.mean(depths)

    assert depth(8) > 3 * depth(19)


def test_neighbouring_joints_look_alike(hands):
    def patch(image, points, joint, following):
        up = towards(points, joint, following)
        up = up / np.linalg.norm(up)
        steps = np.arange(-12, 13)
        right = np.array([-up[1], up[0]])
        places = points[INDEX[joint]][:, None, None] + steps[:, None] * up[:, None, None]
        places = places + steps * right[:, None, None]
        grey = map_coordinates(image.astype(float), places, order=1, mode="nearest")
        return (grey - grey.mean()) / grey.std()

    def likeness(first, second):
        return np.median([(patch(i, p, *first) * patch(i, p, *second)).mean() for i, p in hands])

    index_pip = ("index_pip", "index_dip")
    assert likeness(index_pip, ("ring_pip", "ring_dip")) > 0.85
    assert likeness(index_pip, ("index_dip", "index_tip")) > 0.7
    assert likeness(index_pip, ("capitate_proximal", "middle_metacarpal_base")) < 0.6


def test_a_polygon_covers_the_pixels_whose_centres_it_contains():
    mask = polygon_mask(np.array([(1.5, 2.5), (5.5, 2.5), (5.5, 4.2), (1.5, 4.2)]), (8, 7))
    assert np.argwhere(mask).tolist() == [[x, y] for x in (2, 3, 4, 5) for y in (3, 4)]


def test_a_smooth_outline_passes_through_its_control_points():
    control = np.array([(0, 0), (4, 0.5), (5, 3), (1, 4)], dtype=float)
    assert np.allclose(smooth_outline(control, samples=5)[::5], control)


def test_a_phantom_set_is_made_as_a_labelled_datalist_with_its_pictures(tiny, caplog):
    with caplog.at_level(logging.WARNING, "common.data"):
        folder = Path(phantom_dataset("hand", "tiny"))
    assert folder.parent == tiny and folder.name.startswith("hand_tiny_")
    assert caplog.text.count("SYNTHETIC PHANTOMS, NOT PATIENTS") == 1
    datalist = json.loads((folder / "datalist.json").read_text())
    assert datalist["phantom"] is True and "synthetic" in datalist["name"]
    assert datalist["landmarks"] == list(HAND_LANDMARKS)
    assert {section: len(datalist[section]) for section in TINY} == TINY
    for item in datalist["training"]:
        picture = Image.open(folder / item["image"])
        assert picture.mode == "L" and picture.size == (120, 168)
        points = np.array(item["landmarks"])
        assert points.shape == (37, 2) and np.array_equal(points, points.round(3))
    # The stored picture is the drawn one, first axis x.
    image, points = draw_hand(np.random.default_rng([1, 1, 0]), (120, 168))
    assert np.array_equal(np.asarray(Image.open(folder / "images/validation_000.png")).T, image)
    assert np.allclose(datalist["validation"][0]["landmarks"], points, atol=5.1e-4)
    for line in (folder / "sha256").read_text().splitlines():
        digest, file = line.split("  ")
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest
    assert not list(tiny.glob("*.tmp"))


def test_a_kept_set_is_used_again(tiny, monkeypatch, caplog):
    folder = phantom_dataset("hand", "tiny")
    monkeypatch.setattr(phantoms, "draw_in_processes", pytest.fail)
    assert phantom_dataset("hand", "tiny") == folder
    assert phantom_dataset("hand", "tiny") == folder
    assert caplog.text.count("SYNTHETIC PHANTOMS, NOT PATIENTS") == 3


@pytest.mark.parametrize("checked_before", [False, True])
def test_a_damaged_set_is_made_anew_with_a_warning(tiny, caplog, checked_before):
    folder = Path(phantom_dataset("hand", "tiny"))
    if checked_before:
        phantom_dataset("hand", "tiny")
    picture = folder / "images/test_000.png"
    intact = picture.read_bytes()
    picture.write_bytes(intact[:-40])
    caplog.clear()
    assert Path(phantom_dataset("hand", "tiny")) == folder
    assert "images/test_000.png has changed" in caplog.text
    assert picture.read_bytes() == intact


@pytest.mark.parametrize("file", ["sha256", "datalist.json", "images/training_000.png"])
def test_a_set_with_a_missing_file_is_made_anew(tiny, caplog, file):
    folder = Path(phantom_dataset("hand", "tiny"))
    (folder / file).unlink()
    phantom_dataset("hand", "tiny")
    assert f"{Path(file).name} is missing" in caplog.text
    assert (folder / file).exists()


def test_worker_processes_draw_all_of_it_without_torch(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(phantom_workers, "draw_one", pytest.fail)
    monkeypatch.setattr(phantom_workers, "worker_count", lambda pictures: 2)
    folder = Path(phantom_dataset("hand", "tiny"))
    assert len(list(folder.glob("images/*.png"))) == 5
    probe = phantom_workers._WORKER.replace("work()", "print('torch' in sys.modules)")
    answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path)
    assert answer.stdout.strip() == "False"


def test_without_worker_processes_the_set_is_drawn_serially_and_equal(tiny, monkeypatch):
    folder = Path(phantom_dataset("hand", "tiny"))
    parallel = (folder / "sha256").read_bytes()
    (folder / "sha256").unlink()
    monkeypatch.setattr(phantom_workers.sys, "executable", str(tiny / "no_python_here"))
    monkeypatch.setattr(phantom_workers, "worker_count", lambda pictures: 2)
    phantom_dataset("hand", "tiny")
    assert (folder / "sha256").read_bytes() == parallel


def test_two_processes_that_need_a_set_at_once_both_get_it(tiny):
    # An unguarded main: nothing may run it a second time.
    script = (
        "import dataclasses, sys, types\n"
        "data = sys.modules['common.data'] = types.ModuleType('common.data')  # saves the import of torch\n"
        f"data.__path__ = [{str(REPOSITORY / 'common' / 'data')!r}]\n"
        "from common.data import phantoms, phantom_workers\n"
        "phantom_workers.worker_count = lambda pictures: 2\n"
        f"hand = dataclasses.replace(phantoms.ANATOMIES['hand'], sizes={{'tiny': ((120, 168), {TINY})}})\n"
        "phantoms.ANATOMIES['hand'] = hand\n"
        "print(phantoms.phantom_dataset('hand', 'tiny'))\n"
    )
    path = tiny.parent / "unguarded.py"
    path.write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    both = [
        subprocess.Popen([sys.executable, str(path)], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1] == [phantom_dataset("hand", "tiny")]
    assert [path.name for path in tiny.iterdir() if not path.name.startswith(".")] == [Path(answers[0][0]).name]


def test_an_interrupted_drawing_leaves_nothing_behind(tiny, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(phantoms, "draw_in_processes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        phantom_dataset("hand", "tiny")
    assert not [path for path in tiny.iterdir() if not path.name.startswith(".")]


def test_a_cache_folder_that_cannot_be_written_is_named_with_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MONAI_DATA_DIRECTORY", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"file/landmark_phantoms .*MONAI_DATA_DIRECTORY"):
        phantom_dataset("hand", "quick")


def test_unknown_anatomies_and_sizes_are_answered_with_the_choices():
    with pytest.raises(InputError, match="'foot'.*hand"):
        phantom_dataset("foot")
    with pytest.raises(InputError, match="'huge'.*default, quick"):
        phantom_dataset("hand", "huge")


def test_other_settings_make_another_folder():
    hand = phantoms.ANATOMIES["hand"]
    newer = dataclasses.replace(hand, version=hand.version + 1)
    assert newer.folder("hand", "quick") != hand.folder("hand", "quick")
