import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, decollate_batch
from monai.transforms import Compose, LoadImaged
from PIL import Image
from scipy.ndimage import gaussian_filter

import common
from common.data import CEPHALOMETRIC_LANDMARKS, LandmarkImageReader, isbi2015, load_datalist
from common.data.isbi2015 import import_isbi2015
from common.errors import InputError
from common.transforms import LoadLandmarksd, MillimetreScaled

REAL = Path(common.__file__).resolve().parents[2] / "shared" / "data" / "isbi2015_cephalometric"
SIZE = (60, 80)
SENIOR = np.arange(38.0).reshape(19, 2)
JUNIOR = SENIOR + [3, 4]  # 5 pixels, 0.5 mm away


def film(path, seed, brightness=1.0):
    rough = np.random.default_rng(seed).normal(size=SIZE[::-1])
    smooth = gaussian_filter(rough, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.uint8(np.clip(brightness * (128 + 50 * smooth / smooth.std()), 0, 255))).save(path)


def annotate(root, film, points=SENIOR, classes="1\n2\n3\n"):
    for doctor, places in (("senior", points), ("junior", points + [3, 4])):
        folder = root / "AnnotationsByMD" / f"400_{doctor}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{film}.txt").write_text("".join(f"{x:g},{y:g}\n" for x, y in places) + classes)


@pytest.fixture
def challenge(tmp_path, monkeypatch):
    """Small films in the published layout; 152 and 301 repeat training films 003 and 004, one of them darker."""
    monkeypatch.setattr(isbi2015, "FILM_SIZE", SIZE)
    root = tmp_path / "isbi"
    for folder, numbers in (("TrainingData", range(1, 11)), ("Test1Data", (151, 152)), ("Test2Data", (301,))):
        for number in numbers:
            ending = "bmp" if number % 2 else "jpg"
            film(root / "RawImage" / folder / f"{number:03d}.{ending}", {152: 3, 301: 4}.get(number, number))
            annotate(root, f"{number:03d}")
    film(root / "RawImage" / "Test2Data" / "301.bmp", 4, brightness=0.7)
    return root


def items(folder, name):
    return {Path(item["image"]).stem: item for item in load_datalist(folder, name, CEPHALOMETRIC_LANDMARKS)}


def test_the_truth_is_the_mean_of_the_doctors_and_both_stay_with_the_film(challenge, tmp_path, capsys):
    counts = import_isbi2015(str(challenge), str(tmp_path / "set"), validation=0)
    assert counts == {"training": 10, "test1": 2, "test2": 1}
    item = items(tmp_path / "set", "test1")["151"]
    assert item["landmarks"] == (SENIOR + [1.5, 2]).tolist() and item["spacing"] == [0.1, 0.1]
    assert item["senior"] == SENIOR.tolist() and item["junior"] == JUNIOR.tolist()
    assert json.loads((tmp_path / "set" / "datalist.json").read_text())["truth"] == "mean of the two doctors"
    told = capsys.readouterr().out
    assert "140 missing (011-150)" in told and "differ by 0.50 mm" in told


@pytest.mark.parametrize(("truth", "points"), [("senior", SENIOR), ("junior", JUNIOR)])
def test_one_doctor_can_be_the_truth(challenge, tmp_path, truth, points):
    import_isbi2015(str(challenge), str(tmp_path / "set"), truth=truth)
    assert items(tmp_path / "set", "test1")["151"]["landmarks"] == points.tolist()


def test_test_films_that_repeat_training_films_are_marked_by_what_they_show(challenge, tmp_path):
    import_isbi2015(str(challenge), str(tmp_path / "set"), validation=0.999)
    test = items(tmp_path / "set", "test1") | items(tmp_path / "set", "test2")
    assert {name: item["duplicate"] for name, item in test.items()} == {"151": False, "152": True, "301": True}
    assert test["301"]["duplicate_of"] == "004" and test["301"]["group"] == "004"
    # Choosing a checkpoint on a film of the test set is what validation must not do.
    assert set(items(tmp_path / "set", "training")) == {"003", "004"}
    assert len(items(tmp_path / "set", "validation")) == 8


def test_listed_pairs_are_taken_also_where_the_pictures_differ(challenge, tmp_path, capsys):
    (challenge / "duplicate_pairs.csv").write_text("a,b,note\n001,151,train/Test1\n")
    import_isbi2015(str(challenge), str(tmp_path / "set"))
    assert items(tmp_path / "set", "test1")["151"]["duplicate_of"] == "001"
    assert "by their pictures also: 003/152 004/301" in capsys.readouterr().out


def test_the_choice_of_validation_films_is_the_same_everywhere(challenge, tmp_path):
    import_isbi2015(str(challenge), str(tmp_path / "a"), validation=0.3)
    import_isbi2015(str(challenge), str(tmp_path / "b"), validation=0.3)
    chosen = set(items(tmp_path / "a", "validation"))
    assert chosen == set(items(tmp_path / "b", "validation"))
    assert not chosen & set(items(tmp_path / "a", "training"))


def test_items_load_and_collate_with_both_doctors_and_without(challenge, tmp_path):
    import_isbi2015(str(challenge), str(tmp_path / "set"), validation=0)
    data = load_datalist(tmp_path / "set", "training", CEPHALOMETRIC_LANDMARKS)
    load = [
        LoadImaged("image", reader=LandmarkImageReader(), ensure_channel_first=True, image_only=True),
        LoadLandmarksd("label", names=CEPHALOMETRIC_LANDMARKS, outside="ignore"),
        MillimetreScaled(),
    ]
    doctors = LoadLandmarksd(
        ["senior", "junior"], names=CEPHALOMETRIC_LANDMARKS, outside="ignore", allow_missing_keys=True
    )
    for transforms in (load, [*load, doctors]):
        batch = next(iter(DataLoader(Dataset(data, Compose(transforms)), batch_size=3)))
        assert batch["label"].shape == (3, 1, 19, 2) and batch["duplicate"].tolist() == [False] * 3
    assert torch.equal((batch["senior"] + batch["junior"]) / 2, batch["label"])
    assert len(decollate_batch(batch)) == 3


def test_observers_follow_the_order_of_the_bundle(challenge, tmp_path):
    import_isbi2015(str(challenge), str(tmp_path / "set"))
    item = load_datalist(tmp_path / "set", "test1", CEPHALOMETRIC_LANDMARKS[::-1])[0]
    assert item["senior"] == SENIOR[::-1].tolist() and item["landmarks"] == (SENIOR + [1.5, 2])[::-1].tolist()


def test_bad_films_are_dropped_and_named(challenge, tmp_path, capsys):
    (challenge / "AnnotationsByMD" / "400_junior" / "001.txt").unlink()
    (challenge / "AnnotationsByMD" / "400_senior" / "002.txt").write_text("1,2\n3,x\n")
    Image.new("L", (30, 40)).save(challenge / "RawImage" / "TrainingData" / "003.bmp")
    (challenge / "RawImage" / "TrainingData" / "005.bmp").write_bytes(b"BM")
    assert import_isbi2015(str(challenge), str(tmp_path / "set"), validation=0)["training"] == 6
    told = capsys.readouterr().out
    for reason in (
        "400_junior/001.txt: cannot be read",
        "19 lines of x,y",
        "30 x 40 pixels",
        "005.bmp: cannot be read",
    ):
        assert reason in told


def test_wrong_folders_and_settings_are_refused(challenge, tmp_path):
    with pytest.raises(InputError, match="RawImage/TrainingData: not there"):
        import_isbi2015(str(tmp_path), str(tmp_path / "set"))
    with pytest.raises(InputError, match="truth 'both'"):
        import_isbi2015(str(challenge), str(tmp_path / "set"), truth="both")
    for path in (challenge / "AnnotationsByMD" / "400_senior").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no training film"):
        import_isbi2015(str(challenge), str(tmp_path / "set"))
    assert not (tmp_path / "set").exists()


def test_the_real_films_are_taken_with_their_20_listed_pairs(tmp_path, monkeypatch, capsys):
    if not (REAL / "RawImage").is_dir():
        pytest.skip(f"the ISBI 2015 films are not in {REAL}")
    monkeypatch.setattr(isbi2015, "read_film", lambda path: None)  # all films would take a minute
    counts = import_isbi2015(str(REAL), str(tmp_path))
    assert counts["training"] + counts["validation"] == 150 and counts["test1"] == 150
    assert sum(item["duplicate"] for item in items(tmp_path, "test1").values()) == 17
    assert "differ by 2.36 mm" in capsys.readouterr().out


def test_a_real_film_in_another_exposure_looks_the_same_and_another_patient_does_not():
    if not (REAL / "RawImage").is_dir():
        pytest.skip(f"the ISBI 2015 films are not in {REAL}")
    thumbnails = [
        isbi2015.read_film(REAL / "RawImage" / part / f"{number}.jpg")
        for part, number in (("TrainingData", "056"), ("TrainingData", "001"), ("Test1Data", "280"))
    ]
    assert isbi2015.same_films(thumbnails) == [(0, 2)]
