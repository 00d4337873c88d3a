import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data import HAND_LANDMARKS, load_datalist
from common.data.hand_atlas import import_hand_atlas, read_annotations
from common.errors import InputError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "digital_hand_atlas"
TRAIN, TEST = [f"30{i:02d}" for i in range(20)], ["4001", "4002"]


def row(image_id, first):
    """Of all.csv: points (first, 1), (first + 2, 3), ..."""
    return f"{image_id}," + ",".join(str(first + value) for value in range(74))


@pytest.fixture
def atlas(tmp_path):
    """The layout in which the owners publish, with 23 small pictures; one listed image and one annotation lack."""
    root = tmp_path / "atlas"
    (root / "images").mkdir(parents=True)
    for number, image_id in enumerate([*TRAIN, *TEST, "5000"]):
        Image.fromarray(np.full((6, 5), number, np.uint8)).save(root / "images" / f"{image_id}.png")
    ids = [*TRAIN, "4001", "4003", "5000"]
    (root / "all.csv").write_text("\n".join(row(i, int(i) / 8) for i in ids) + "\n")
    for fold in (1, 2, 3):
        (root / "cv" / f"set{fold}").mkdir(parents=True)
        (root / "cv" / f"set{fold}" / "train.txt").write_text("\n".join([*TRAIN, "3999"]) + "\n")
        (root / "cv" / f"set{fold}" / "test.txt").write_text("\n".join([*TEST, "4003"]) + "\n\n")
    return root


def ids(items):
    return [Path(item["image"]).stem for item in items]


def test_a_fold_becomes_lists_of_what_is_there(atlas, tmp_path, capsys):
    """4002 has no annotation, 3999 and 4003 no image, 5000 is in no list of the fold."""
    counts = import_hand_atlas(str(atlas), str(tmp_path / "new" / "set"))
    content = json.loads((tmp_path / "new" / "set" / "datalist.json").read_text())
    assert sorted(ids(content["training"] + content["validation"])) == TRAIN
    assert ids(content["test"]) == ["4001"]
    assert ids(content["all"]) == [*TRAIN, "4001", "5000"]
    assert counts == {name: len(content[name]) for name in ("training", "validation", "test", "all")}
    told = capsys.readouterr().out
    assert "21 images listed, 20 there" in told and "3 images listed, 2 there, 1 of them without annotation" in told
    assert "1 annotated images are in neither list" in told


def test_points_are_those_of_the_table_in_its_order(atlas, tmp_path):
    import_hand_atlas(str(atlas), str(tmp_path / "set"))
    item = load_datalist(tmp_path / "set", "test", HAND_LANDMARKS)[0]
    assert item["image"] == str(atlas / "images" / "4001.png")
    assert item["landmarks"][0] == [500.125, 501.125] and item["landmarks"][36] == [572.125, 573.125]
    assert "spacing" not in item and item["group"] == "4001"


def test_the_data_set_says_what_it_is(atlas, tmp_path):
    import_hand_atlas(str(atlas), str(tmp_path / "set"), fold=2)
    content = json.loads((tmp_path / "set" / "datalist.json").read_text())
    assert content["name"] == "Digital Hand Atlas, fold 2" and content["phantom"] is False
    assert content["landmarks"] == list(HAND_LANDMARKS) and len(content["landmarks"]) == 37


def test_images_are_pointed_to_from_wherever_the_datalist_lies_or_copied(atlas, tmp_path):
    import_hand_atlas(str(atlas), str(tmp_path / "a" / "b"))
    path = json.loads((tmp_path / "a" / "b" / "datalist.json").read_text())["test"][0]["image"]
    assert path == "../../atlas/images/4001.png"
    import_hand_atlas(str(atlas), str(tmp_path / "copy"), copy=True)
    shutil.rmtree(atlas)
    assert all(Path(item["image"]).is_file() for item in load_datalist(tmp_path / "copy", "all"))


def test_images_of_any_of_the_endings_are_taken(atlas, tmp_path):
    Image.open(atlas / "images" / "4001.png").convert("L").save(atlas / "images" / "4001.JPG")
    (atlas / "images" / "4001.png").unlink()
    (atlas / "images" / "4001.txt").write_text("no image")
    import_hand_atlas(str(atlas), str(tmp_path / "set"))
    assert Path(load_datalist(tmp_path / "set", "test")[0]["image"]).name == "4001.JPG"


def test_the_share_of_the_validation_can_be_chosen_and_is_the_same_every_time(atlas, tmp_path):
    lists = {}
    for share in (0.0, 0.1, 0.5, 0.5):
        import_hand_atlas(str(atlas), str(tmp_path / "set"), validation=share)
        content = json.loads((tmp_path / "set" / "datalist.json").read_text())
        assert lists.setdefault(share, ids(content["validation"])) == ids(content["validation"])
    assert lists[0.0] == [] and set(lists[0.1]) <= set(lists[0.5]) and 4 <= len(lists[0.5]) <= 16


@pytest.mark.parametrize("missing", ["all.csv", "images", "cv/set1/train.txt", "cv/set1/test.txt"])
def test_a_missing_part_of_the_layout_is_named(atlas, tmp_path, missing):
    path = atlas / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError) as raised:
        import_hand_atlas(str(atlas), str(tmp_path / "set"))
    assert str(raised.value).startswith(f"{path}: not there; give the folder")
    assert not (tmp_path / "set").exists()


def test_a_fold_that_does_not_exist_is_told(atlas, tmp_path):
    with pytest.raises(InputError, match="a fold of 1 to 3"):
        import_hand_atlas(str(atlas), str(tmp_path / "set"), fold=4)


def test_a_folder_without_images_of_the_fold_writes_no_datalist(atlas, tmp_path):
    for image_id in TEST:
        (atlas / "images" / f"{image_id}.png").unlink()
    with pytest.raises(InputError, match="holds no image of fold 1"):
        import_hand_atlas(str(atlas), str(tmp_path / "set"))
    assert not (tmp_path / "set" / "datalist.json").exists()


@pytest.mark.parametrize("line, told", [
    ("4001,1,2,3", "line 2 has 4 values, not 75"),
    (row("4001", 1).replace(",30", ",thirty"), "line 2 holds no numbers"),
])  # fmt: skip
def test_a_damaged_table_is_told_with_its_line(atlas, line, told):
    (atlas / "all.csv").write_text(row("3000", 1) + "\n" + line + "\n")
    with pytest.raises(InputError) as raised:
        read_annotations(atlas / "all.csv")
    assert str(raised.value).startswith(f"{atlas / 'all.csv'}: {told}")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not (REAL / "all.csv").is_file():
        pytest.skip(f"the Digital Hand Atlas is not in {REAL}")
    target = tmp_path_factory.mktemp("real")
    import_hand_atlas(str(REAL), str(target))
    return json.loads((target / "datalist.json").read_text())


def test_fold_1_of_the_real_atlas_has_78_and_32_images(real):
    assert len(real["training"]) + len(real["validation"]) == 78 and len(real["test"]) == 32
    assert len(real["validation"]) >= 4 and len(real["all"]) == 113


def test_no_real_image_stands_in_two_lists(real):
    training, validation, test = (set(ids(real[name])) for name in ("training", "validation", "test"))
    assert not training & validation and not training & test and not validation & test
    assert training | validation | test < set(ids(real["all"]))
    for name, published in (("train", training | validation), ("test", test)):
        assert published <= set((REAL / "cv" / "set1" / f"{name}.txt").read_text().split())


def test_real_points_are_those_of_the_published_table(real):
    table = np.genfromtxt(REAL / "all.csv", delimiter=",", dtype=str)
    published = {line[0]: line[1:].astype(float).reshape(37, 2) for line in table}
    assert len(published) == 910
    for item in real["all"]:
        assert np.array_equal(item["landmarks"], published[item["group"]])
        assert Path(item["image"]).stem == item["group"]
