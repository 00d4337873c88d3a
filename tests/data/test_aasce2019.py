import csv
import json
from pathlib import Path

import numpy as np
import pytest
from monai.data import DataLoader, Dataset, decollate_batch
from monai.transforms import Compose, LoadImaged
from PIL import Image
from scipy.io import savemat
from scipy.ndimage import gaussian_filter

import common
from common.data import SPINE_LANDMARKS, LandmarkImageReader, load_datalist
from common.data.aasce2019 import import_aasce2019, order_corners, read_mat
from common.errors import InputError
from common.transforms import LoadLandmarksd

REAL = Path(common.__file__).resolve().parents[2] / "shared" / "data" / "aasce2019_spine"
SIZE = (100, 400)
NAMES = [f"sunhl-1th-{10 + i}-Jan-2017-{i // 2} {'AB'[i % 2]} AP.jpg" for i in range(10)]
NAMES += ["sunhl-1th-20-Jul-2016-coronal1.jpg", "sunhl-1th-20-Jul-2016-coronal11.jpg"]


def spine(tilt=0.0):
    """68 x 2 pixels: 17 vertebrae 30 wide and 14 high, turned by degrees."""
    x, y = np.array([[-15, -7], [15, -7], [-15, 7], [15, 7]]).T
    c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    corners = np.stack([c * x - s * y, s * x + c * y], -1)
    return (corners + np.array([[[50, 20 + 22 * k]] for k in range(17)])).reshape(68, 2)


def write_labels(root, points, names=NAMES, part="training", mat=True, table=True):
    images, labels = root / "data" / part, root / "labels" / part
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    (labels / "filenames.csv").write_text("\n".join(names) + "\n")
    rows = [np.concatenate([p[:, 0] / SIZE[0], p[:, 1] / SIZE[1]]) for p in points]
    if table:
        (labels / "landmarks.csv").write_text("\n".join(",".join(f"{v:.6f}" for v in row) for row in rows) + "\n")
    (labels / "angles.csv").write_text("\n".join(f"{i},{i / 2},0.5" for i in range(len(names))) + "\n")
    for name, p in zip(names, points):
        Image.new("L", SIZE, 90).save(images / name)
        if mat:
            savemat(labels / f"{name}.mat", {"p2": p})
    return root


def items(folder, name):
    return {Path(item["image"]).name: item for item in load_datalist(folder, name, SPINE_LANDMARKS)}


@pytest.mark.parametrize("source", ["mat", "table"])
def test_points_in_pixels_and_angles_come_from_mat_files_or_from_the_table(tmp_path, source):
    root = write_labels(tmp_path / "aasce", [spine()] * 12, mat=source == "mat", table=source == "table")
    import_aasce2019(str(root), str(tmp_path / "set"), validation=0)
    films = items(tmp_path / "set", "training") | items(tmp_path / "set", "test")
    assert np.allclose(films[NAMES[3]]["landmarks"], spine(), atol=1e-3)
    assert films[NAMES[3]]["cobb_angles"] == [3, 1.5, 0.5]


def test_films_of_one_number_stay_in_one_fold_and_every_film_is_tested_once(tmp_path):
    root = write_labels(tmp_path / "aasce", [spine()] * 12)
    counts = import_aasce2019(str(root), str(tmp_path / "set"), folds=3, fold=2, validation=0.4)
    folds = [items(tmp_path / "set", f"fold{k}") for k in (1, 2, 3)]
    assert sorted(name for fold in folds for name in fold) == sorted(NAMES) and len(folds[0]) == 4
    assert items(tmp_path / "set", "test").keys() == folds[1].keys()
    for first, second in zip(NAMES[:10:2], NAMES[1:10:2]):
        assert sum(first in fold and second in fold for fold in folds) == 1
    assert counts["training"] + counts["validation"] + counts["test"] == counts["all"] == 12
    content = json.loads((tmp_path / "set" / "datalist.json").read_text())
    groups = [{item["group"] for item in content[name]} for name in ("training", "validation", "test")]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    assert {item["group"] for item in content["fold1"] + content["fold2"] + content["fold3"]} >= {"patient 0"}


def test_one_film_under_two_numbers_makes_one_patient(tmp_path, capsys):
    root = write_labels(tmp_path / "aasce", [spine()] * 12)
    picture = gaussian_filter(np.random.default_rng(0).normal(size=SIZE[::-1]), 4)
    picture = np.uint8(np.clip(128 + 60 * picture / picture.std(), 0, 255))
    Image.fromarray(picture).save(root / "data" / "training" / NAMES[0])
    Image.fromarray(picture[4:]).resize(SIZE).save(root / "data" / "training" / NAMES[10])
    import_aasce2019(str(root), str(tmp_path / "set"), folds=2)
    films = items(tmp_path / "set", "fold1") | items(tmp_path / "set", "fold2")
    assert films[NAMES[0]]["group"] == films[NAMES[1]]["group"] == films[NAMES[10]]["group"]
    assert f"(1):\n    {NAMES[0]}, {NAMES[10]}" in capsys.readouterr().out


@pytest.mark.parametrize("tilt", [-29, 0, 15, 29])
def test_any_order_of_vertebrae_and_corners_is_mended(tilt):
    rng = np.random.default_rng(0)
    shuffled = spine(tilt).reshape(17, 4, 2)[rng.permutation(17)]
    shuffled = np.stack([corners[rng.permutation(4)] for corners in shuffled])
    mended, told = order_corners(shuffled.reshape(68, 2))
    assert np.array_equal(mended, spine(tilt))
    assert "vertebrae" in told and "corners" in told


@pytest.mark.parametrize("tilt", [-55, 0, 55])
def test_points_in_order_are_left_as_they_are_also_when_steep(tilt):
    mended, told = order_corners(spine(tilt))
    assert np.array_equal(mended, spine(tilt)) and told == ""


def test_what_is_odd_is_told(tmp_path, capsys):
    turned, off = spine(), spine()
    turned[[0, 1]] = turned[[1, 0]]
    off[67] = [150, 380]
    root = write_labels(tmp_path / "aasce", [turned, off] + [spine()] * 10)
    savemat(root / "labels" / "training" / f"{NAMES[2]}.mat", {"p2": spine() + 9})
    savemat(root / "labels" / "training" / f"{NAMES[3]}.mat", {"p1": spine()})
    (root / "data" / "training" / NAMES[4]).unlink()
    Image.new("L", SIZE).save(root / "data" / "training" / "more.jpg")
    counts = import_aasce2019(str(root), str(tmp_path / "set"), folds=2)
    told = capsys.readouterr().out
    assert sum(counts[f"fold{k}"] for k in (1, 2)) == 10
    for line in (
        f"put in order (1):\n    {NAMES[0]}: corners of T1",
        f"points outside the image (1):\n    {NAMES[1]}: L5_bottom_right",
        f"{NAMES[2]} (9 pixels)",
        "holds no points 'p2'",
        f"{NAMES[4]}: its image is not there",
        "images without labels (1):\n    more.jpg",
        "12 films listed, 10 taken",
    ):
        assert line in told


def test_the_published_test_films_are_a_list_of_their_own(tmp_path, capsys):
    root = write_labels(tmp_path / "aasce", [spine()] * 12)
    write_labels(root, [spine()] * 2, ["x-01-Jan-2017-1 C AP.jpg", "x-01-Jan-2017-99 A AP.jpg"], part="test")
    assert import_aasce2019(str(root), str(tmp_path / "set"))["published_test"] == 2
    assert "numbers of the training films (1):\n    patient 1" in capsys.readouterr().out


def test_items_collate(tmp_path):
    root = write_labels(tmp_path / "aasce", [spine()] * 12)
    import_aasce2019(str(root), str(tmp_path / "set"), validation=0)
    data = load_datalist(tmp_path / "set", "training", SPINE_LANDMARKS)
    load = Compose([
        LoadImaged("image", reader=LandmarkImageReader(), ensure_channel_first=True, image_only=True),
        LoadLandmarksd("label", names=SPINE_LANDMARKS),
    ])  # fmt: skip
    batch = next(iter(DataLoader(Dataset(data, load), batch_size=2)))
    assert batch["label"].shape == (2, 1, 68, 2)
    first = decollate_batch(batch)[0]
    assert [float(angle) for angle in first["cobb_angles"]] == data[0]["cobb_angles"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda labels: (labels / "landmarks.csv").write_text("1,2\n"), "line 1 does not hold 136"),
        (lambda labels: (labels / "angles.csv").write_text("1,2,3\n"), "has 1 rows"),
        (lambda labels: (labels / "filenames.csv").unlink(), "have no names"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, damage, message):
    root = write_labels(tmp_path / "aasce", [spine()] * 12)
    damage(root / "labels" / "training")
    with pytest.raises(InputError, match=message):
        import_aasce2019(str(root), str(tmp_path / "set"))
    assert not (tmp_path / "set").exists()


def test_folds_that_cannot_be_are_refused(tmp_path):
    root = write_labels(tmp_path / "aasce", [spine()] * 12)
    for settings, message in (({"fold": 6}, "fold 6 of 5"), ({"folds": 20}, "of 7 patients")):
        with pytest.raises(InputError, match=message):
            import_aasce2019(str(root), str(tmp_path / "set"), **settings)
    with pytest.raises(InputError, match="not there"):
        import_aasce2019(str(tmp_path), str(tmp_path / "set"))


def test_the_26_real_films_out_of_order_are_mended_as_by_hand(tmp_path, capsys):
    if not (REAL / "labels").is_dir():
        pytest.skip(f"the AASCE 2019 films are not in {REAL}")
    with open(REAL / "labels" / "training_px_sorted.csv", newline="") as file:
        rows = {row["filename"]: row for row in csv.DictReader(file)}
    odd = [row for row in rows.values() if row["reordered"] == "1"]
    even = [row for row in rows.values() if row["reordered"] != "1"][::20]
    for row in odd + even:
        points, told = order_corners(read_mat(REAL / "labels" / "training" / f"{row['filename']}.mat"))
        by_hand = [[float(row[f"x{i}"]), float(row[f"y{i}"])] for i in range(1, 69)]
        assert np.abs(points - by_hand).max() < 0.1 and bool(told) == (row["reordered"] == "1")
    counts = import_aasce2019(str(REAL), str(tmp_path), find_duplicates=False)
    assert sum(counts[f"fold{k}"] for k in range(1, 6)) == 481
    assert max(counts[f"fold{k}"] for k in range(1, 6)) <= 97
    told = capsys.readouterr().out
    assert "put in order (26)" in told and "points outside the image (1)" in told
