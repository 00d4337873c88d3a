import json
import math
import re
import subprocess
import sys
from pathlib import Path

import itk
import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from common.data.__main__ import main
from common.data.check import check
from common.data.contact_sheet import contact_sheet, flat_picture, volume_picture
from common.errors import InputError

NAMES = ["sella", "nasion", "orbitale", "porion", "menton", "gonion", "pogonion", "articulare"]
# A shape that no rotation brings onto its mirror image.
SHAPE = np.array([[0, 0], [10, 1], [14, 8], [3, 6], [9, 20], [-2, 15], [12, 15], [-5, 4]], dtype=float)
SIZE = (64, 72)


def film(seed, size=SIZE):
    """A smooth random image, unlike that of any other seed."""
    rough = np.random.default_rng(seed).normal(size=size[::-1])
    smooth = ndimage.gaussian_filter(rough, 2)
    return np.uint8(np.clip(128 + 60 * smooth / smooth.std(), 0, 255))


def points(seed):
    """The shape, turned by up to 20 degrees, scaled, moved and a little deformed."""
    rng = np.random.default_rng(seed)
    angle, scale = rng.uniform(-0.35, 0.35), rng.uniform(1.2, 1.5)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return (scale * (SHAPE + rng.normal(0, 0.3, SHAPE.shape)) @ turn.T + rng.uniform(24, 28, 2)).tolist()


def clean(folder, count=10, name="cephalograms"):
    """A sound data set of ten films in three lists."""
    folder.mkdir(exist_ok=True)
    items = []
    for seed in range(count):
        Image.fromarray(film(seed)).save(folder / f"{seed}.png")
        items.append({"image": f"{seed}.png", "landmarks": points(seed), "group": f"patient {seed}"})
    lists = {"training": items[:6], "validation": items[6:8], "test": items[8:]}
    return {"name": name, "landmarks": NAMES, **lists}


def findings(folder, content, capsys, **options):
    """What is found in a data set, by kind, as "image: text", the error if any, and everything that was printed."""
    (folder / "datalist.json").write_text(json.dumps(content))
    error = None
    try:
        check(str(folder), sheet=str(folder / "sheet" / "sheet.png"), **options)
    except InputError as raised:
        error = str(raised)
    told = capsys.readouterr().out
    found, kind = {}, None
    for line in told.splitlines():
        if re.fullmatch(r"[a-z ]+:", line):
            kind = line[:-1]
        elif line.startswith("    "):
            found.setdefault(kind, []).append(line.strip().replace(f"{folder}/", ""))
    return found, error, told


def test_nothing_is_found_in_a_sound_data_set(tmp_path, capsys):
    found, error, told = findings(tmp_path, clean(tmp_path), capsys)
    assert (found, error) == ({}, None)
    assert "cephalograms: 6 images in training, 2 images in validation, 2 images in test" in told
    assert "nothing that would ruin a training was found" in told


def test_swapped_labels_are_found_with_their_names(tmp_path, capsys):
    content = clean(tmp_path)
    place = content["training"][2]["landmarks"]
    place[1], place[4] = place[4], place[1]
    found, error, _ = findings(tmp_path, content, capsys)
    assert found == {"swapped labels": ["2.png: nasion and menton fit after an exchange"]}
    assert "1 findings must be mended" in error and str(tmp_path) in error


def test_two_swaps_in_one_image_are_both_found(tmp_path, capsys):
    content = clean(tmp_path)
    place = content["training"][2]["landmarks"]
    place[1], place[4], place[5], place[2] = place[4], place[1], place[2], place[5]
    found, _, _ = findings(tmp_path, content, capsys)
    assert {kind: {line.split(": ")[1] for line in lines} for kind, lines in found.items()} == {
        "swapped labels": {"nasion and menton fit after an exchange", "orbitale and gonion fit after an exchange"}
    }


def test_a_mirrored_shape_is_found(tmp_path, capsys):
    content = clean(tmp_path)
    item = content["test"][0]
    item["landmarks"] = [[SIZE[0] - 1 - x, y] for x, y in item["landmarks"]]
    found, error, _ = findings(tmp_path, content, capsys)
    assert list(found) == ["mirrored"] and found["mirrored"][0].startswith("8.png: ") and error


def test_a_shape_upside_down_is_only_turned(tmp_path, capsys):
    content = clean(tmp_path)
    item = content["test"][0]
    item["landmarks"] = [[SIZE[0] - 1 - x, SIZE[1] - 1 - y] for x, y in item["landmarks"]]
    assert findings(tmp_path, content, capsys)[0] == {}


def test_an_outlying_landmark_is_shown_but_is_no_error(tmp_path, capsys):
    content = clean(tmp_path)
    content["training"][3]["landmarks"][6][1] += 14
    found, error, told = findings(tmp_path, content, capsys)
    assert list(found) == ["outlying shape"] and error is None
    assert found["outlying shape"][0].startswith("3.png: pogonion (") and "look at the findings" in told


def test_a_point_off_the_image_is_found(tmp_path, capsys):
    content = clean(tmp_path)
    shift = SIZE[0] - 0.4 - max(x for x, _ in content["training"][4]["landmarks"])
    content["training"][4]["landmarks"] = [[x + shift, y] for x, y in content["training"][4]["landmarks"]]
    found, error, _ = findings(tmp_path, content, capsys)
    assert list(found) == ["off the image"] and error
    assert found["off the image"][0].startswith("4.png: ") and "outside the image of size (64, 72)" in str(found)


def test_a_point_on_the_border_pixel_is_on_the_image(tmp_path, capsys):
    content = clean(tmp_path)
    shift = SIZE[0] - 0.6 - max(x for x, _ in content["training"][4]["landmarks"])
    content["training"][4]["landmarks"] = [[x + shift, y] for x, y in content["training"][4]["landmarks"]]
    assert findings(tmp_path, content, capsys)[0] == {}


def test_two_landmarks_on_one_place_are_found(tmp_path, capsys):
    content = clean(tmp_path)
    content["validation"][1]["landmarks"][3] = content["validation"][1]["landmarks"][7]
    found, error, _ = findings(tmp_path, content, capsys)
    assert found["same place"] == ["7.png: porion and articulare have the same coordinates"]
    assert error is None  # a film of the Digital Hand Atlas is published so


def test_missing_and_absent_landmarks_are_listed_and_disturb_nothing_else(tmp_path, capsys):
    content = clean(tmp_path)
    content["training"][0]["landmarks"][0] = None
    content["training"][1]["landmarks"][7] = "absent"
    content["test"][0]["landmarks"][:] = [None] * 8
    content["test"][1]["landmarks"][:] = ["absent"] * 8
    found, error, _ = findings(tmp_path, content, capsys)
    assert error is None
    everything = ", ".join(NAMES)
    lines = ["0.png: sella", "1.png: articulare", f"8.png: {everything}", f"9.png: {everything}"]
    assert found == {"without coordinate": lines}


def test_the_same_pixels_under_another_name_are_found(tmp_path, capsys):
    content = clean(tmp_path)
    Image.open(tmp_path / "1.png").save(tmp_path / "copy.bmp")
    content["test"].append({"image": "copy.bmp", "landmarks": points(1)})
    found, error, _ = findings(tmp_path, content, capsys)
    assert list(found) == ["duplicate film"] and error
    assert found["duplicate film"] == ["1.png: and copy.bmp (training and test): equal pixels"]


def test_the_same_film_compressed_anew_is_found(tmp_path, capsys):
    content = clean(tmp_path)
    Image.open(tmp_path / "1.png").save(tmp_path / "a.jpg", quality=95)
    Image.open(tmp_path / "1.png").save(tmp_path / "b.jpg", quality=60)
    content["training"][1]["image"] = "a.jpg"
    content["test"].append({"image": "b.jpg", "landmarks": points(1)})
    found, _, _ = findings(tmp_path, content, capsys)
    assert found == {"duplicate film": ["a.jpg: and b.jpg (training and test): look alike"]}


def test_the_same_film_in_another_size_is_found(tmp_path, capsys):
    content = clean(tmp_path)
    Image.open(tmp_path / "1.png").resize((128, 144), Image.Resampling.BICUBIC).save(tmp_path / "large.png")
    content["test"].append({"image": "large.png", "landmarks": (2 * np.array(points(1)) + 0.5).tolist()})
    found, _, _ = findings(tmp_path, content, capsys)
    assert found == {"duplicate film": ["1.png: and large.png (training and test): look alike"]}


def test_a_patient_in_two_lists_is_found(tmp_path, capsys):
    content = clean(tmp_path)
    content["training"][1]["group"] = content["training"][2]["group"] = content["test"][0]["group"]
    found, error, _ = findings(tmp_path, content, capsys)
    assert found == {"in two lists": ["group patient 8: stands in test, training"]} and error


def test_an_image_in_two_lists_is_found_unless_the_list_repeats_on_purpose(tmp_path, capsys):
    content = clean(tmp_path)
    content["all"] = [{**item} for item in content["training"] + content["test"]]
    assert findings(tmp_path, content, capsys)[0] == {}
    found, _, _ = findings(tmp_path, content, capsys, exempt_lists=())
    assert len([line for line in found["in two lists"] if line.startswith("image ")]) == 8
    assert findings(tmp_path, {**content, "all": [], "again": content["all"]}, capsys, exempt_lists="again")[0] == {}


def test_a_name_that_holds_the_name_of_an_exempt_list_is_not_exempt(tmp_path, capsys):
    content = clean(tmp_path)
    content["training"][0]["landmarks"][3] = content["training"][0]["landmarks"][7]
    found, _, _ = findings(tmp_path, content, capsys, exempt_lists="training_10")
    assert "same place" in found


def test_a_truncated_file_is_found_and_the_others_are_checked(tmp_path, capsys):
    content = clean(tmp_path)
    whole = (tmp_path / "5.png").read_bytes()
    (tmp_path / "5.png").write_bytes(whole[: len(whole) // 2])
    content["test"][0]["landmarks"][3] = content["test"][0]["landmarks"][7]
    found, error, _ = findings(tmp_path, content, capsys)
    assert len(found["unreadable"]) == 1 and found["unreadable"][0].startswith("5.png: ")
    assert "truncated" in found["unreadable"][0] and "same place" in found and error


def test_a_constant_image_is_shown_but_is_no_error(tmp_path, capsys):
    content = clean(tmp_path)
    for number in (5, 6):  # two of them are no duplicates
        Image.fromarray(np.full(SIZE[::-1], 90, np.uint8)).save(tmp_path / f"{number}.png")
    found, error, _ = findings(tmp_path, content, capsys)
    assert list(found) == ["constant image"] and error is None and len(found["constant image"]) == 2


def test_landmarks_that_lie_on_another_kind_of_image_are_found(tmp_path, capsys):
    content = clean(tmp_path)
    content["training"][0]["landmarks"] = [[x, y, 0.0] for x, y in content["training"][0]["landmarks"]]
    found, error, _ = findings(tmp_path, content, capsys)
    assert list(found) == ["unreadable"] and "coordinates" in found["unreadable"][0] and error


def test_few_images_and_few_landmarks_are_checked_as_far_as_they_go(tmp_path, capsys):
    content = clean(tmp_path, count=10)
    one = {"name": "one", "landmarks": ["tip"], "training": [{"image": "0.png", "landmarks": [[500.0, 3.0]]}]}
    assert list(findings(tmp_path, one, capsys)[0]) == ["off the image"]
    two = {**content, "training": content["training"][:1], "validation": [], "test": content["test"][:1]}
    assert findings(tmp_path, two, capsys)[:2] == ({}, None)


@pytest.mark.parametrize("change, told", [
    ({"landmarks": None}, "names no landmarks"),
    ({"training": [], "validation": [], "test": []}, "lists no image"),
])  # fmt: skip
def test_a_datalist_with_nothing_to_check_is_told(tmp_path, capsys, change, told):
    _, error, _ = findings(tmp_path, {**clean(tmp_path), **change}, capsys)
    assert str(tmp_path) in error and told in error


def test_volumes_are_checked_too(tmp_path, capsys):
    """Ten volumes of anisotropic voxels with five landmarks; one has two labels swapped, one is mirrored."""
    shape = np.array([[2.0, 2, 2], [12, 3, 4], [4, 12, 6], [7, 8, 16], [13, 12, 15]])
    items = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        volume = itk.image_from_array(np.float32(ndimage.gaussian_filter(rng.normal(size=(12, 20, 20)), 2)))
        volume.SetSpacing([1.0, 1.0, 2.0])
        itk.imwrite(volume, str(tmp_path / f"{seed}.nii.gz"))
        place = (shape + rng.normal(0, 0.1, shape.shape)) / [1, 1, 2]
        if seed == 3:
            place[[0, 3]] = place[[3, 0]]
        if seed == 7:
            place[:, 0] = 19 - place[:, 0]
        items.append({"image": f"{seed}.nii.gz", "landmarks": place.tolist()})
    content = {"name": "volumes", "landmarks": NAMES[:5], "training": items}
    found, _, _ = findings(tmp_path, content, capsys)
    assert found["swapped labels"] == ["3.nii.gz: sella and porion fit after an exchange"]
    assert [line.split(":")[0] for line in found["mirrored"]] == ["7.nii.gz"]
    assert set(found) == {"swapped labels", "mirrored"}
    assert (tmp_path / "sheet" / "sheet.png").is_file()


def brains(folder, count=8, landmarks=2, spacing=(1.0, 1.0, 2.0)):
    """Volumes of random texture, with landmarks on the patient's right and left (and above, before) around a centre."""
    items = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        texture = ndimage.gaussian_filter(rng.normal(size=(20, 20, 12)), 2).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(texture, np.diag([*spacing, 1])), folder / f"{seed}.nii.gz")
        place = np.array([[15.0, 10, 6], [4, 10, 6], [10, 10, 10], [10, 17, 6]])[:landmarks]
        items.append({"image": f"{seed}.nii.gz", "landmarks": (place + rng.normal(0, 0.3, place.shape)).tolist()})
    return {"name": "brains", "landmarks": NAMES[:landmarks], "training": items[:-2], "test": items[-2:]}


def test_two_landmarks_of_a_volume_that_are_exchanged_are_found_by_their_direction(tmp_path, capsys):
    content = brains(tmp_path)
    assert findings(tmp_path, content, capsys)[:2] == ({}, None)
    content["training"][2]["landmarks"] = content["training"][2]["landmarks"][::-1]
    found, error, _ = findings(tmp_path, content, capsys)
    text = "sella and nasion lie the other way round than in the other volumes: exchanged labels, or orientation"
    assert found == {"reversed direction": [f"2.nii.gz: {text}"]} and error


def test_neighbours_that_lie_a_little_otherwise_are_not_exchanged(tmp_path, capsys):
    content = brains(tmp_path)
    right, left = content["training"][2]["landmarks"]
    content["training"][2]["landmarks"][0] = [left[0] - 4, *left[1:]]  # 4 mm to the other side, where 11 are usual
    assert findings(tmp_path, content, capsys)[:2] == ({}, None)
    content["training"][2]["landmarks"][0] = [left[0] - 9, *left[1:]]
    assert set(findings(tmp_path, content, capsys)[0]) >= {"reversed direction"}


@pytest.mark.parametrize("exchanged", [0, 2, 8])
def test_sides_against_the_names_are_found_by_the_world(tmp_path, capsys, exchanged):
    """Of most volumes; of two of eight, the others tell."""
    content = {**brains(tmp_path), "landmarks": ["ear_right", "ear_left"]}
    for item in (content["training"] + content["test"])[:exchanged]:
        item["landmarks"] = item["landmarks"][::-1]
    found, error, told = findings(tmp_path, content, capsys)
    if exchanged == 8:
        (text,) = found["side against its name"]
        assert "ear_right lies further towards the patient's left than ear_left in 8 of 8 volumes: exchanged" in text
        assert set(found) == {"side against its name"} and error is None and "look at the findings" in told
    else:
        assert set(found) == ({"reversed direction"} if exchanged else set())


def test_the_directions_of_volumes_are_compared_in_the_world_not_in_the_file(tmp_path, capsys):
    """The same place of the patient in a file whose axes run to the left and back."""
    content = brains(tmp_path)
    image = nibabel.load(tmp_path / "1.nii.gz")
    turned = nibabel.Nifti1Image(np.asarray(image.dataobj)[::-1, ::-1].copy(), image.affine @ flip_xy(image.shape))
    nibabel.save(turned, tmp_path / "1.nii.gz")
    for point in content["training"][1]["landmarks"]:
        point[:2] = [19 - point[0], 19 - point[1]]
    found, error, told = findings(tmp_path, content, capsys)
    assert found == {"unusual orientation": ["1.nii.gz: its axes run to LPS, those of 7 others to RAS"]}
    assert error is None and "orientation of the axes: RAS in 7, LPS in 1 volumes" in told


def flip_xy(shape):
    flip = np.diag([-1.0, -1, 1, 1])
    flip[:2, 3] = np.array(shape[:2]) - 1
    return flip


def test_a_volume_stored_in_another_orientation_is_known_again(tmp_path, capsys):
    content = brains(tmp_path)
    image = nibabel.load(tmp_path / "1.nii.gz")
    turned = nibabel.Nifti1Image(np.asarray(image.dataobj)[::-1, ::-1].copy(), image.affine @ flip_xy(image.shape))
    nibabel.save(turned, tmp_path / "copy.nii.gz")
    points = [[19 - x, 19 - y, z] for x, y, z in content["training"][1]["landmarks"]]
    content["test"].append({"image": "copy.nii.gz", "landmarks": points})
    found, error, _ = findings(tmp_path, content, capsys)
    assert found["duplicate film"] == ["1.nii.gz: and copy.nii.gz (training and test): equal pixels"] and error


def test_spacings_and_points_off_a_volume_are_findings(tmp_path, capsys):
    content = brains(tmp_path)
    for number, spacing in ((3, (1, 1, 5)), (4, (1, 1, 25))):
        image = nibabel.load(tmp_path / f"{number}.nii.gz")
        nibabel.save(
            nibabel.Nifti1Image(np.asarray(image.dataobj), np.diag([*spacing, 1])), tmp_path / f"{number}.nii.gz"
        )
    content["training"][5]["landmarks"][0][2] = 11.7
    found, error, _ = findings(tmp_path, content, capsys)
    assert found["unusual spacing"][0].startswith("3.nii.gz: 1 x 1 x 5 mm (right, anterior, superior), the median")
    assert found["unreadable"][0].split("4.nii.gz: ")[-1].startswith("has voxels of 1 x 1 x 25 mm where 0.01 to 20 mm")
    assert found["off the image"] == ["5.nii.gz: sella: outside the image of size (20, 20, 12)"]
    assert "2 findings must be mended" in error


def test_a_volume_is_shown_in_two_views_of_true_proportions():
    """A bright spot around the landmark, in a file with its axes in another order."""
    affine = np.array([[0, 0, -2.0, 30], [1, 0, 0, -5], [0, 4, 0, 7], [0, 0, 0, 1]])  # axes run to A, S, L
    voxels = np.zeros((30, 10, 20), np.float32)
    voxels[5:8, 7:10, 14:17] = 1
    world = (affine @ [6, 8, 15, 1])[None, :3]
    picture = volume_picture(voxels, np.vstack([world, [[np.nan] * 3]]), affine)
    # 40 mm left-right, 30 mm front-back, 40 mm head-foot: 6 pixels per mm
    assert picture.pixels.shape == (240 + 6 + 180, 240) and picture.landmarks.tolist() == [0, 1, 0, 1]
    left, back, down = 15 * 2, (29 - 6) * 1, (9 - 8) * 4  # mm from the first voxel in each direction
    expected = 6 * np.array([[left + 1, back + 0.5], [back + 0.5 + 41, down + 2]]) - 0.5
    np.testing.assert_allclose(picture.points[[0, 2]], expected)
    assert np.isnan(picture.points[[1, 3]]).all()
    for x, y in picture.points[[0, 2]]:
        around = [picture.pixels[round(x) + i, round(y) + j] for i, j in ((-24, 0), (24, 0), (0, -54), (0, 54))]
        assert picture.pixels[round(x), round(y)] > 0 == max(around)


def test_the_contact_sheet_shows_a_sample_of_a_large_set(tmp_path):
    pictures = {str(i): flat_picture(np.full((4, 4), i, np.float32), np.zeros((0, 2))) for i in range(100)}
    with pytest.MonkeyPatch.context() as patch:
        shown = []
        patch.setattr("matplotlib.axes.Axes.set_title", lambda axes, title, **_: shown.append(title.split("\n")[0]))
        contact_sheet(pictures, {"77": ["mirrored"]}, tmp_path / "sheet.png", limit=10)
    assert len(shown) == 10 and shown[0] == "77" and int(shown[1]) == 0 and int(shown[-1]) > 85


def test_the_contact_sheet_lies_in_the_data_folder(tmp_path, capsys, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "datalist.json").write_text(json.dumps(clean(tmp_path / "data", 8)))
    monkeypatch.chdir(tmp_path)
    check(str(tmp_path / "data"))
    assert f"contact sheet: {tmp_path / 'data' / 'contact_sheet.png'}\n" in capsys.readouterr().out
    assert (tmp_path / "data" / "contact_sheet.png").is_file() and len(list(tmp_path.iterdir())) == 1


def test_the_contact_sheet_of_data_that_cannot_be_written_lies_in_a_temporary_folder(tmp_path, capsys, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "datalist.json").write_text(json.dumps(clean(tmp_path / "data", 8)))

    def read_only(dir=None, **_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    check(str(tmp_path / "data" / "datalist.json"))
    sheet = next((tmp_path / "elsewhere").rglob("contact_sheet.png"))
    assert f"contact sheet: {sheet}\n" in capsys.readouterr().out
    assert not (tmp_path / "data" / "contact_sheet.png").exists()
    with pytest.raises(InputError, match="data: cannot be written .* give another --sheet"):
        check(str(tmp_path / "data"), sheet=str(tmp_path / "data" / "sheet.png"))


def test_the_contact_sheet_shows_each_film_and_marks_those_with_findings(tmp_path, capsys):
    """Titles are grey letters on white, red where something was found; the marked film comes first."""
    findings(tmp_path, clean(tmp_path), capsys)
    plain = np.asarray(Image.open(tmp_path / "sheet" / "sheet.png").convert("RGB")).astype(int)
    content = clean(tmp_path)
    content["test"][1]["landmarks"][3] = content["test"][1]["landmarks"][7]
    findings(tmp_path, content, capsys)
    marked = np.asarray(Image.open(tmp_path / "sheet" / "sheet.png").convert("RGB")).astype(int)
    assert plain.shape == marked.shape == (520, 1600, 3)  # two rows of eight

    def red_title(sheet):
        upper = sheet[:40]
        red = (upper[..., 0] > 200) & (upper[..., 1] < 60) & (upper[..., 2] < 60)
        return red[:, :200].sum(), red[:, 200:].sum()

    assert red_title(plain) == (0, 0)
    assert red_title(marked)[0] > 20 and red_title(marked)[1] == 0


@pytest.mark.parametrize("sound", [True, False])
def test_the_command_ends_with_an_error_where_something_must_be_mended(tmp_path, monkeypatch, sound):
    content = clean(tmp_path)
    if not sound:
        content["test"][1]["group"] = content["training"][0]["group"] = "the same patient"
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    command = ["common.data", "check", str(tmp_path), "--sheet", str(tmp_path / "sheet.png")]
    monkeypatch.setattr(sys, "argv", command)
    if sound:
        main()
    else:
        with pytest.raises(SystemExit, match="^error: .*1 findings must be mended"):
            main()
    assert (tmp_path / "sheet.png").is_file()


def test_the_status_of_the_command_is_1_and_its_message_one_line(tmp_path):
    command = [sys.executable, "-m", "common.data", "check", str(tmp_path / "nowhere")]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr == f"error: {tmp_path / 'nowhere'}: there is no such data set; check the path.\n"
