"""Bad input through the commands themselves: what a user sees of it, and that the rest goes on."""

import csv
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import itk
import numpy as np
import pytest
import torch
from monai.bundle import run
from PIL import Image

import common
from common.data import HAND_LANDMARKS
from common.data.check import check
from common.errors import InputError
from common.handlers import read_checkpoint

CONFIGS = Path(common.__file__).resolve().parents[1] / "bundles" / "scn_hand" / "configs"
TINY = {
    "device": "$torch.device('cpu')",
    "image_size": [32, 32],
    "num_filters": 2,
    "num_levels": 2,
    "spatial_filters": 2,
    "spatial_kernel_size": 3,
    "spatial_downsampling": 8,
}
SIZE = (32, 40)
HAND = np.random.default_rng(0).uniform(4, 28, (37, 2))


def film(path, seed=0, size=SIZE):
    pixels = np.random.default_rng(seed).integers(0, 255, size[::-1], dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def truncated(path, seed=0):
    content = film(path, seed).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def volume(path):
    itk.imwrite(itk.image_from_array(np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)), str(path))
    return path


@pytest.fixture
def hands(tmp_path):
    """A sound data set of four small films, in two training, one validation and one test image."""
    folder = tmp_path / "hands"
    folder.mkdir()
    items = []
    for seed in range(4):
        film(folder / f"{seed}.png", seed)
        points = HAND + np.random.default_rng(seed).normal(0, 0.3, HAND.shape)
        items.append({"image": f"{seed}.png", "landmarks": points.tolist()})
    content = {"name": "hands", "phantom": True, "landmarks": list(HAND_LANDMARKS),
               "training": items[:2], "validation": items[2:3], "test": items[3:]}  # fmt: skip
    write(folder, content)
    return folder, content


def write(folder, content):
    (folder / "datalist.json").write_text(json.dumps(content))


def train(dataset_dir, output_dir, *overlays, **overrides):
    files = [str(CONFIGS / f"{name}.json") for name in ("train", *overlays)]
    settings = {"iterations": 1, "validation_iterations": 1, "batch_size": 2, **TINY, **overrides}
    run(config_file=files, logging_file=False, dataset_dir=str(dataset_dir), output_dir=str(output_dir), **settings)


def evaluate(dataset_dir, output_dir, **overrides):
    train(dataset_dir, output_dir, "evaluate", **overrides)


def predict(path, output_dir, ckpt_path, **overrides):
    run(
        config_file=str(CONFIGS / "inference.json"), logging_file=False, dataset_dir=str(path), prediction_lists=None,
        output_dir=str(output_dir), ckpt_path=str(ckpt_path), **{**TINY, **overrides},
    )  # fmt: skip


def refused(capfd, command, *arguments, **overrides):
    """The one line that a user sees of a command that fails, as the interpreter prints it."""
    with pytest.raises(Exception) as raised:
        command(*arguments, **overrides)
    capfd.readouterr()
    sys.excepthook(raised.type, raised.value, raised.tb)
    *before, told = capfd.readouterr().err.splitlines()
    assert told.startswith("error: ") and all(line.startswith("training: ") for line in before if line), before
    assert "; " in told, "it says no cure"
    return told


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network of the tiny settings, untrained."""
    network = common.networks.SpatialConfigurationNet(
        spatial_dims=2, in_channels=1, num_landmarks=37, num_filters=2, num_levels=2, spatial_filters=2,
        spatial_kernel_size=3, downsampling=8,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(network.state_dict(), path)
    return path


def landmarks(content, item=0, section="training"):
    return content[section][item]["landmarks"]


def an_empty_list(folder, content):
    content["training"] = []


def no_validation_list(folder, content):
    del content["validation"]


def a_missing_film(folder, content):
    (folder / "1.png").unlink()


def one_landmark_too_few(folder, content):
    del landmarks(content)[5]


def one_landmark_too_many(folder, content):
    landmarks(content).append([1.0, 1.0])


def an_unknown_name(folder, content):
    content["landmarks"][3] = "kneecap"


def a_name_that_is_there_twice(folder, content):
    content["landmarks"][3] = content["landmarks"][4]


def a_coordinate_that_is_no_number(folder, content):
    landmarks(content)[7] = [3.0, float("nan")]


def an_infinite_coordinate(folder, content):
    landmarks(content)[7] = [float("inf"), 3.0]


def a_coordinate_as_text(folder, content):
    landmarks(content)[7] = ["3", "4"]


def points_in_space_on_a_film(folder, content):
    landmarks(content)[:] = [[x, y, 0.0] for x, y in landmarks(content)]


def a_truncated_film(folder, content):
    truncated(folder / "1.png")


def an_empty_file(folder, content):
    (folder / "1.png").write_bytes(b"")


def a_text_with_the_ending_of_a_film(folder, content):
    (folder / "1.png").write_text("not a picture at all")


def a_volume_among_the_films(folder, content):
    volume(folder / "head.nii.gz")
    content["training"][1]["image"] = "head.nii.gz"


def a_film_that_stands_twice_in_a_list(folder, content):
    content["training"][1]["image"] = "0.png"


def no_landmarks_at_all(folder, content):
    del content["training"][1]["landmarks"]


def a_markups_file_of_another_anatomy(folder, content):
    control = {"label": "sella", "position": [1.0, 2.0, 0.0]}
    markup = {"markups": [{"coordinateSystem": "LPS", "controlPoints": [control]}]}
    (folder / "1.mrk.json").write_text(json.dumps(markup))
    content["training"][1]["landmarks"] = "1.mrk.json"


def a_csv_without_a_header(folder, content):
    (folder / "1.csv").write_text("3,4\n5,6\n")
    content["training"][1]["landmarks"] = "1.csv"


def a_missing_landmark_file(folder, content):
    content["training"][1]["landmarks"] = "1.csv"


def a_spacing_of_zero(folder, content):
    content["training"][1]["spacing"] = [0, 0.1]


BAD_DATA = [  # what is done to a sound data set, the file that is to be named, and what is to be said of it
    (an_empty_list, "datalist.json", "'training' is empty"),
    (no_validation_list, "datalist.json", "no list 'validation'"),
    (a_missing_film, "1.png", "cannot be found"),
    (one_landmark_too_few, "0.png", "36 landmarks where 37"),
    (one_landmark_too_many, "0.png", "38 landmarks where 37"),
    (an_unknown_name, "datalist.json", "kneecap"),
    (a_name_that_is_there_twice, "datalist.json", "more than once"),
    (a_coordinate_that_is_no_number, "0.png", "landmark 7 "),
    (an_infinite_coordinate, "0.png", "landmark 7 "),
    (a_coordinate_as_text, "0.png", "landmark 7 "),
    (points_in_space_on_a_film, "0.png", "3 coordinates where 2"),
    (a_truncated_film, "1.png", "truncated"),
    (an_empty_file, "1.png", "empty file"),
    (a_text_with_the_ending_of_a_film, "1.png", "cannot be read as an image"),
    (a_volume_among_the_films, "head.nii.gz", "is a volume of 7 x 6 x 5"),
    (a_film_that_stands_twice_in_a_list, "0.png", "more than once"),
    (no_landmarks_at_all, "1.png", "has no landmarks"),
    (a_markups_file_of_another_anatomy, "1.mrk.json", "'sella'"),
    (a_csv_without_a_header, "1.csv", "header"),
    (a_missing_landmark_file, "1.csv", "cannot be found"),
    (a_spacing_of_zero, "1.png", "spacing [0, 0.1]"),
]


@pytest.mark.parametrize("damage, file, told", BAD_DATA, ids=[damage.__name__ for damage, *_ in BAD_DATA])
def test_training_refuses_bad_data_in_one_sentence_that_names_the_file_and_a_cure(
    hands, tmp_path, capfd, damage, file, told
):
    folder, content = hands
    damage(folder, content)
    write(folder, content)
    message = refused(capfd, train, folder, tmp_path / "out")
    assert str(folder / file) in message and told in message
    assert not (tmp_path / "out" / "model.pt").exists() and not (tmp_path / "out" / "checkpoint.pt").exists()


@pytest.mark.parametrize("make, told", [
    (lambda folder: None, "no such data set"),
    (lambda folder: folder.mkdir(), "holds no datalist.json"),
    (lambda folder: (folder.mkdir(), (folder / "datalist.json").write_text('{"training": [')), "no well-formed JSON"),
    (lambda folder: (folder.mkdir(), (folder / "datalist.json").write_text("[]")), "no named lists"),
])  # fmt: skip
def test_a_folder_that_is_no_data_set_is_an_error_and_never_a_phantom(tmp_path, capfd, make, told):
    make(tmp_path / "data")
    message = refused(capfd, train, tmp_path / "data", tmp_path / "out")
    assert str(tmp_path / "data") in message and told in message


def test_points_outside_the_film_are_warned_of_with_their_names_and_training_goes_on(hands, tmp_path, caplog):
    folder, content = hands
    landmarks(content)[7] = [SIZE[0] + 10.0, 3.0]
    write(folder, content)
    train(folder, tmp_path / "out")
    told = [record.getMessage() for record in caplog.records if "outside the image" in record.getMessage()]
    assert len(told) == 1 and told[0].startswith(f"{folder / '0.png'}: {HAND_LANDMARKS[7]} lies outside")
    assert (tmp_path / "out" / "model.pt").is_file()


def test_the_check_before_training_calls_points_outside_an_error(hands):
    folder, content = hands
    landmarks(content)[7] = [SIZE[0] + 10.0, 3.0]
    write(folder, content)
    with pytest.raises(InputError, match="findings must be mended"):
        check(str(folder), sheet=str(folder / "sheet.png"))


def test_missing_and_absent_landmarks_are_allowed_and_counted(hands, tmp_path, weights):
    folder, content = hands
    for section in ("training", "test"):
        landmarks(content, section=section)[7] = None
        landmarks(content, section=section)[20:22] = ["absent", "absent"]
    write(folder, content)
    train(folder, tmp_path / "out")
    assert all(value.isfinite().all() for value in read_checkpoint(tmp_path / "out" / "model.pt").values())
    evaluate(folder, tmp_path / "out")
    counts = json.loads((tmp_path / "out" / "evaluation_test" / "metrics.json").read_text())["counts"]
    assert counts == {
        "images": 1, "measured": 34, "missed": 0, "false_detection": 2, "absent": 0, "not_annotated": 1,
    }  # fmt: skip


def test_a_film_with_no_annotated_landmark_at_all_spoils_no_training(hands, tmp_path, caplog):
    folder, content = hands
    landmarks(content)[:] = [None] * 37
    landmarks(content, section="validation")[:] = [None] * 37
    write(folder, content)
    train(folder, tmp_path / "out")
    assert all(value.isfinite().all() for value in read_checkpoint(tmp_path / "out" / "model.pt").values())


def test_a_constant_film_is_warned_of_and_training_goes_on(hands, tmp_path, caplog):
    folder, _ = hands
    Image.fromarray(np.full(SIZE[::-1], 90, np.uint8)).save(folder / "1.png")
    train(folder, tmp_path / "out")
    assert f"{folder / '1.png'}: all its pixels have the value 90" in caplog.text
    assert all(value.isfinite().all() for value in read_checkpoint(tmp_path / "out" / "model.pt").values())


@pytest.mark.parametrize("command", [train, evaluate, predict])
def test_an_output_folder_that_cannot_be_written_is_named(hands, tmp_path, capfd, weights, command):
    """Below a file no folder can be made, not even by who may do everything."""
    (tmp_path / "file").write_text("")
    arguments = {train: {}, evaluate: {"ckpt_path": str(weights)}, predict: {"ckpt_path": weights}}[command]
    message = refused(capfd, command, hands[0], tmp_path / "file" / "out", **arguments)
    assert str(tmp_path / "file" / "out") in message
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(hands, tmp_path, capfd):
    (tmp_path / "out").mkdir(mode=0o500)
    assert str(tmp_path / "out") in refused(capfd, train, hands[0], tmp_path / "out")


def test_a_disk_that_is_full_at_a_checkpoint_keeps_the_last_one(hands, tmp_path, capfd, monkeypatch):
    folder, _ = hands
    train(folder, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.pt")}
    save = torch.save

    def full(content, file, **options):
        save(content, file, **options)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        message = refused(capfd, train, folder, tmp_path / "out", iterations=2)
    assert str(tmp_path / "out") in message and "No space left" in message and "free space" in message
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert files == before
    train(folder, tmp_path / "out", iterations=2)  # goes on once there is space
    assert read_checkpoint(tmp_path / "out" / "checkpoint.pt")["progress"][0] == 2


@pytest.mark.parametrize("change, told", [
    ({"num_filters": 4}, "another network"),
    ({"network_def": {"_target_": "common.networks.HeatmapUNet", "spatial_dims": 2, "in_channels": 1,
                      "num_landmarks": 37, "num_filters": 2, "num_levels": 2}}, "another network"),
    ({"training_list": "test"}, "other images or landmarks"),
])  # fmt: skip
def test_a_checkpoint_of_another_run_is_neither_taken_nor_overwritten(hands, tmp_path, capfd, change, told):
    folder, _ = hands
    train(folder, tmp_path / "out")
    before = (tmp_path / "out" / "checkpoint.pt").read_bytes()
    message = refused(capfd, train, folder, tmp_path / "out", iterations=2, **change)
    assert str(tmp_path / "out" / "checkpoint.pt") in message and told in message
    assert "--output_dir" in message and "--resume False" in message
    assert (tmp_path / "out" / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("command", [evaluate, predict])
@pytest.mark.parametrize("make, told", [
    (lambda path: None, "no such file"),
    (lambda path: path.write_bytes(b"weights"), "give a file of weights"),
    (lambda path: torch.save({"weight": torch.ones(3)}, path), "another network"),
    (lambda path: torch.save({"model": {}}, path), "no weights"),
])  # fmt: skip
def test_weights_that_do_not_fit_are_named(hands, tmp_path, capfd, command, make, told):
    make(tmp_path / "model.pt")
    message = refused(capfd, command, hands[0], tmp_path / "out", ckpt_path=str(tmp_path / "model.pt"))
    assert str(tmp_path / "model.pt") in message and told in message
    assert not list((tmp_path / "out").rglob("*.csv"))


@pytest.mark.parametrize("make, told", [
    (lambda path: None, "no such file or folder"),
    (lambda path: path.mkdir(), "holds no image files"),
])  # fmt: skip
def test_nothing_to_predict_is_told(tmp_path, capfd, weights, make, told):
    make(tmp_path / "films")
    message = refused(capfd, predict, tmp_path / "films", tmp_path / "out", weights)
    assert str(tmp_path / "films") in message and told in message


@pytest.fixture
def mixed(tmp_path):
    """A folder of two sound films, and one of each kind that cannot be predicted."""
    folder = tmp_path / "films"
    folder.mkdir()
    film(folder / "a.png")
    film(folder / "z.png", 1)
    bad = [truncated(folder / "cut.png"), volume(folder / "head.nii.gz"), folder / "empty.png", folder / "text.jpg"]
    bad[2].write_bytes(b"")
    bad[3].write_text("text")
    return folder, bad


def predicted(folder):
    return sorted(path.name for path in folder.glob("*.mrk.json"))


def test_a_batch_goes_on_without_the_files_that_cannot_be_read_and_ends_with_an_error(
    mixed, tmp_path, capfd, caplog, weights
):
    folder, bad = mixed
    message = refused(capfd, predict, folder, tmp_path / "out", weights)
    assert message.startswith("error: 4 of 6 images have no prediction")
    skipped = [record.getMessage() for record in caplog.records if record.getMessage().startswith("skipped: ")]
    assert len(skipped) == 4
    for path in bad:
        assert str(path) in message
        assert [line for line in skipped if str(path) in line and "; " in line and "\n" not in line]
    with open(tmp_path / "out" / "failures.csv", newline="") as file:
        failures = {row["image"]: row["reason"] for row in csv.DictReader(file)}
    assert sorted(failures) == sorted(map(str, bad))
    assert sorted(f"skipped: {reason}" for reason in failures.values()) == sorted(skipped)
    assert predicted(tmp_path / "out") == ["a.mrk.json", "z.mrk.json"]
    assert len((tmp_path / "out" / "landmarks.csv").read_text().splitlines()) == 1 + 2 * 37


def test_a_single_film_that_cannot_be_read_leaves_its_reason_alone_behind(tmp_path, capfd, weights):
    message = refused(capfd, predict, truncated(tmp_path / "cut.png"), tmp_path / "out", weights)
    assert str(tmp_path / "cut.png") in message and message.startswith("error: 1 of 1 images")
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["failures.csv"]


def test_a_film_of_one_pixel_and_a_constant_one_are_predicted_with_a_warning(tmp_path, caplog, weights):
    (tmp_path / "films").mkdir()
    Image.new("L", (1, 1), 5).save(tmp_path / "films" / "pixel.png")
    Image.new("L", SIZE, 90).save(tmp_path / "films" / "constant.png")
    predict(tmp_path / "films", tmp_path / "out", weights)
    assert "pixel.png: all its pixels have the value 5" in caplog.text
    assert "constant.png: all its pixels have the value 90" in caplog.text
    assert predicted(tmp_path / "out") == ["constant.mrk.json", "pixel.mrk.json"]


def test_the_status_of_the_command_says_that_a_file_could_not_be_read(mixed, tmp_path, weights):
    settings = {**TINY, "dataset_dir": mixed[0], "prediction_lists": [], "output_dir": tmp_path / "out",
                "ckpt_path": weights}  # fmt: skip
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(CONFIGS / "inference.json")]
    command += [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    done = subprocess.run(command, cwd=CONFIGS.parents[2], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and done.stderr.strip().splitlines()[-1].startswith("error: 4 of 6 images")
    assert predicted(tmp_path / "out") == ["a.mrk.json", "z.mrk.json"]
