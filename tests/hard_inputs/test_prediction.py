"""Every file of the corpus ends in a right prediction or in one sentence, alone and beside all others."""

import os
import re
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from common.data import list_images, read_image
from common.errors import InputError

from .corpus import FILMS, VOLUMES, mha
from .writers import png

BUNDLE = {2: "scn_hand", 3: "patch_regression_ccta"}
ENTRIES = [pytest.param(2, name, id=ascii(name)[:60]) for name in FILMS]
ENTRIES += [pytest.param(3, name, id=name) for name in VOLUMES]


def corpus(dims):
    return FILMS if dims == 2 else VOLUMES


def shown(path):
    """A path as a message shows it."""
    return os.fsencode(path).decode(errors="backslashreplace")


def expected(entry, meta, dims, predict, folder):
    """Landmarks of an entry by a plain file of the same pixels: in its pixels (N, dims), and in world RAS (N, 3).

    `meta` has the entry's affines to all digits: grids of networks jump by a part of a voxel with the seventh digit.
    """
    grey, affine = entry.turn(entry.grey), meta["original_affine"]
    if dims == 2:
        sides = np.linalg.norm(meta["affine"][:2, :2], axis=0)
        mha(folder / "twin.mha", grey.astype("<f4"), f"ElementSpacing = {' '.join(map(str, sides))}\n")
        file = points = predict(folder / "twin.mha").rows[str(folder / "twin.mha")].pixels
        back = entry.turn(np.moveaxis(np.indices(entry.grey.shape), 0, -1).astype(float))  # places in the file
        if back.shape[:2] != grey.shape or not np.array_equal(back, np.moveaxis(np.indices(grey.shape), 0, -1)):
            around = corners(points, np.array(grey.shape) - 1)
            file = sum(weight[:, None] * back[tuple(corner.T)] for weight, corner in around)
        return file, np.c_[file, np.zeros(len(file)), np.ones(len(file))] @ entry.affine[:3].T
    matrix = np.diag([-1, -1, 1]) @ affine[:3, :3]
    spacing = np.linalg.norm(matrix, axis=0)
    directions = " ".join(f"{number:.15g}" for number in (matrix / spacing).T.ravel())
    place = " ".join(f"{number:.15g}" for number in affine[:3, 3] * [-1, -1, 1])
    header = f"TransformMatrix = {directions}\nOffset = {place}\nElementSpacing = {' '.join(map(str, spacing))}\n"
    mha(folder / "twin.mha", grey.astype("<f4"), header)
    world = predict(folder / "twin.mha").rows[str(folder / "twin.mha")].world
    return (world - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T, world


def corners(points, last):
    """Weights and places of the pixels around points, so that a map of pixels can be interpolated, also beyond it."""
    low = np.clip(np.floor(points), 0, np.maximum(last - 1, 0)).astype(int)
    part = points - low
    for corner in np.ndindex(*[2] * points.shape[1]):
        corner = np.array(corner)
        yield np.where(corner, part, 1 - part).prod(1), np.minimum(low + corner, last)


@pytest.fixture(autouse=True)
def no_hang():
    """A file that hangs ends its test after five minutes."""

    def fail(number, frame):
        pytest.fail("hangs")  # not an Exception: nothing takes it for a bad file

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("dims, name", ENTRIES)
def test_a_hard_file_is_predicted_rightly_or_refused_in_one_sentence(dims, name, predictor, tmp_path):
    entry, predict = corpus(dims)[name], predictor(BUNDLE[dims])
    path = tmp_path / name
    entry.make(path)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = predict(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 5e5  # kB
    if entry.sentence is not None:
        (reason,) = told.failures.values()
        assert list(told.failures) == [shown(path)] and told.rows == {}
        check_sentence(reason, shown(path), entry.sentence)
        return
    assert told.failures == {}
    array, meta = read_image(path)
    assert np.allclose(meta.get("plane_affine", meta["original_affine"]), entry.affine, atol=1e-4)
    assert np.allclose(array, entry.turn(entry.grey), atol=entry.tolerance, rtol=1e-6)
    pixels, world = expected(entry, meta, dims, predict, tmp_path)
    assert np.allclose(told.rows[str(path)].pixels, pixels, atol=0.01 if entry.tolerance < 1 else 0.2)
    assert np.allclose(told.rows[str(path)].world, world, atol=0.05)
    warnings = [line for line in told.log if "is unlikely to show" not in line]  # the weights are random
    assert bool(warnings) == bool(entry.warning) and all(re.search(entry.warning, line) for line in warnings[:1])


def check_sentence(reason, path, pattern):
    """One sentence that names the file, what is wrong and what to do."""
    assert reason.startswith(path), reason
    said = reason.removeprefix(path)
    assert re.search(pattern, said) and "; " in said and said.endswith(".") and "\n" not in said, reason
    assert "Error" not in said and "Traceback" not in said


@pytest.mark.parametrize("dims", [2, 3])
def test_one_folder_of_all_hard_files_loses_no_result_and_names_each_bad_one(dims, predictor, tmp_path):
    folder, predict = tmp_path / "all", predictor(BUNDLE[dims])
    folder.mkdir()
    entries = corpus(dims)
    for name, entry in entries.items():
        entry.make(folder / name)
    told = predict(folder)
    wrong = {shown(folder / name) for name, entry in entries.items() if entry.sentence is not None}
    assert set(told.failures) == wrong
    assert set(told.rows) == {str(folder / name) for name, entry in entries.items() if entry.sentence is None}
    for name, entry in entries.items():
        if entry.sentence is not None:
            check_sentence(told.failures[shown(folder / name)], shown(folder / name), entry.sentence)
    skipped = [line for line in told.log if line.startswith("skipped: ")]
    assert len(skipped) == len(wrong)
    # each as alone
    alone = predict(folder / ("grey.png" if dims == 2 else "sform.nii"))
    (path,) = alone.rows
    assert np.array_equal(alone.rows[path].pixels, told.rows[path].pixels)


def test_the_command_on_a_folder_of_hard_films_has_no_traceback_and_a_status(predictor, tmp_path):
    """In a process of its own, where a hang would be seen, and what the interpreter prints; some files of each kind."""
    folder, predict = tmp_path / "some", predictor(BUNDLE[2])
    folder.mkdir()
    names = [*list(FILMS)[::12], *(name for name in FILMS if len(name) > 200 or not name.isascii()), "pipe.png"]
    names = list(dict.fromkeys(names))
    for name in names:
        FILMS[name].make(folder / name)
    settings = {**predict.settings, "dataset_dir": folder, "output_dir": tmp_path / "out", "prediction_lists": []}
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(predict.config)]
    command += [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    done = subprocess.run(command, cwd=predict.config.parents[3], capture_output=True, timeout=300)
    text = done.stderr.decode(errors="replace")
    assert done.returncode == 1 and "Traceback" not in text and "Logging error" not in text
    wrong = [name for name in names if FILMS[name].sentence is not None]
    last = text.strip().splitlines()[-1]
    assert last.startswith(f"error: {len(wrong)} of {len(names)} images have no prediction"), last
    good = len(names) - len(wrong)
    assert len(list((tmp_path / "out").glob("*.mrk.json"))) == good >= 5 <= len(wrong)
    assert len(list((tmp_path / "out").glob("overlays/*.png"))) == good


def test_the_corpus_is_large():
    assert len(FILMS) + len(VOLUMES) >= 60
    assert sum(entry.sentence is None for entry in [*FILMS.values(), *VOLUMES.values()]) >= 30


def test_a_file_that_disappears_is_told_of(predictor, tmp_path):
    predict = predictor(BUNDLE[2])
    for name in ("a.png", "b.png"):
        FILMS["grey.png"].make(tmp_path / name)
    items = list_images(tmp_path)
    (tmp_path / "a.png").unlink()
    predict.dataset.data = predict.dataset.pending = items
    assert len(list(predict.dataset)) == 1
    check_sentence(predict.dataset.failures[str(tmp_path / "a.png")], str(tmp_path / "a.png"), "there is no such file")


@pytest.mark.parametrize("name, told", [
    ("nowhere.png", "there is no such file"), ("y" * 300 + ".png", "there is no such file|name too long"),
])  # fmt: skip
def test_a_path_that_leads_nowhere_is_told_of(tmp_path, name, told):
    with pytest.raises(InputError, match=told):
        read_image(tmp_path / name)
    with pytest.raises(InputError, match=told):
        list_images(tmp_path / name)


def test_a_file_without_permission_is_told_of(tmp_path_factory):
    """As root, who may read everything, by giving up the rights for a moment."""
    folder = tmp_path_factory.mktemp("closed")
    png(folder / "closed.png", np.zeros((3, 3), np.uint8))
    (folder / "closed.png").chmod(0)
    root = os.geteuid() == 0
    opened = [parent for parent in [folder, *folder.parents] if not parent.stat().st_mode & 0o001] if root else []
    modes = {parent: parent.stat().st_mode for parent in opened}
    try:
        for parent in opened:
            parent.chmod(modes[parent] | 0o711)
        if root:
            try:
                os.seteuid(65534)
            except PermissionError:
                pytest.skip("root may read everything here and cannot give that up")
        with pytest.raises(InputError) as caught:
            read_image(folder / "closed.png")
    finally:
        if root:
            os.seteuid(0)
        for parent, mode in modes.items():
            parent.chmod(mode)
    check_sentence(str(caught.value), str(folder / "closed.png"), r"cannot be opened \(permission denied\)")
