import json
import os

import numpy as np
import pytest

from common.data import datalist_info, list_images, load_datalist, write_datalist
from common.errors import InputError

NAMES = ["a", "b", "c"]
POINTS = [[1, 2], None, "absent"]


def dataset(folder, landmarks=NAMES, files=("x.png", "y.png"), **lists):
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    lists = lists or {"training": [{"image": "x.png", "landmarks": POINTS}, {"image": "y.png"}]}
    return write_datalist(folder, name="set", phantom=True, landmarks=landmarks, **lists).parent


def test_a_list_comes_with_absolute_paths_and_all_keys(tmp_path):
    item = {"image": "x.png", "landmarks": "y.png", "spacing": [0.1, 0.1], "group": "patient"}
    folder = dataset(tmp_path, training=[item], fold3=[{"image": "y.png", "landmarks": POINTS}])
    expected = {**item, "image": str(tmp_path / "x.png"), "landmarks": str(tmp_path / "y.png")}
    assert load_datalist(folder) == [expected]
    assert load_datalist(folder / "datalist.json", "fold3", NAMES)[0]["landmarks"] == POINTS


def test_a_relative_folder_gives_absolute_paths(tmp_path, monkeypatch):
    dataset(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load_datalist(".")[0]["image"] == str(tmp_path / "x.png")


def test_inline_points_are_brought_to_the_order_of_the_bundle(tmp_path):
    (first, second) = load_datalist(dataset(tmp_path), landmarks=["c", "a", "b"])
    assert first["landmarks"] == ["absent", [1, 2], None] and "landmarks" not in second


UNNAMED = "# CoordinateSystem = RAS\n# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"


@pytest.mark.parametrize("labels", [("F-1", "F-2"), ("", "")])
def test_a_file_without_names_is_not_taken_in_the_order_of_the_bundle(tmp_path, labels):
    points = [f"{i},{-i},-2,0,0,0,0,1,1,1,0,{label},,\n" for i, label in enumerate(labels)]
    (tmp_path / "x.fcsv").write_text(UNNAMED + "".join(points))
    dataset(tmp_path, files=("x.png",), training=[{"image": "x.png", "landmarks": "x.fcsv"}])
    assert load_datalist(tmp_path, "training", NAMES)[0]["landmarks"] == str(tmp_path / "x.fcsv")
    with pytest.raises(InputError, match="x.fcsv: does not name its landmarks, .* in another order .*; name them"):
        load_datalist(tmp_path, "training", NAMES[::-1])


def test_the_information_of_a_data_set(tmp_path):
    info = datalist_info(dataset(tmp_path))
    truth = "landmarks of the datalist"
    assert info == {"name": "set", "phantom": True, "landmarks": NAMES, "truth": truth, "lists": {"training": 2}}
    (tmp_path / "datalist.json").write_text('{"training": [], "truth": "mean of the two doctors"}')
    expected = {"name": tmp_path.name, "phantom": False, "landmarks": None, "lists": {"training": 0}}
    assert datalist_info(tmp_path) == {**expected, "truth": "mean of the two doctors"}


def listed(*items):
    return {"training": list(items)}


BAD_CONTENT = {
    "malformed": ("{", "is no well-formed JSON"),
    "an array": ("[]", "holds no named lists"),
    "binary": ("\udcff", "is no well-formed JSON"),
    "other list": ({"test": [], "validation": []}, "no list 'training'; take one of test, validation"),
    "no list": ({"name": "x"}, "it has no list"),
    "empty list": (listed(), "'training' is empty"),
    "names": ({**listed({"image": "x.png"}), "landmarks": [1]}, "no list of names"),
    "names twice": ({**listed({"image": "x.png"}), "landmarks": ["a", "a"]}, "'a' more than once"),
    "text item": (listed("x.png"), "item 0 of 'training' names no image"),
    "no image": (listed({"image": "x.png"}, {"label": "x.png"}), "item 1 of 'training' names no image"),
    "missing image": (listed({"image": "n.png"}, {"image": "m.png"}, {"image": "x.png"}), "n.png and 1 more cannot"),
    "missing points": (listed({"image": "x.png", "landmarks": "n.csv"}), "landmark file .*n.csv cannot be found"),
    "twice": (listed({"image": "x.png"}, {"image": "./x.png"}), "more than once"),
    "count": (listed({"image": "x.png", "landmarks": POINTS[:2]}), "has 2 landmarks where 3 are expected"),
    "nan": ('{"training": [{"image": "x.png", "landmarks": [[NaN, 1], null, null]}]}', "landmark 0 .* finite numbers"),
    "inf": ('{"training": [{"image": "x.png", "landmarks": [null, [1, Infinity], null]}]}', "landmark 1"),
    "text point": (listed({"image": "x.png", "landmarks": [["1", 2], None, None]}), "landmark 0"),
    "word": (listed({"image": "x.png", "landmarks": [None, "gone", None]}), "landmark 1 .* is 'gone'"),
    "dimensions": (listed({"image": "x.png", "landmarks": [[1, 2], [1, 2, 3], None]}), "2 and 3 coordinates"),
    "no points": (listed({"image": "x.png", "landmarks": 7}), "give a list of points or a file"),
    "spacing": (listed({"image": "x.png", "spacing": [0.1, -1]}), "has the spacing"),
    "one spacing": (listed({"image": "x.png", "spacing": 0.1}), "has the spacing"),
}


@pytest.mark.parametrize("case", BAD_CONTENT)
def test_bad_datalists_are_told_in_one_sentence(tmp_path, case):
    content, reason = BAD_CONTENT[case]
    (tmp_path / "x.png").touch()
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "datalist.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=reason) as caught:
        load_datalist(tmp_path, landmarks=NAMES)
    message = str(caught.value)
    assert str(tmp_path) in message and message.endswith(".") and "\n" not in message


def test_some_of_the_landmarks_of_a_data_set_are_taken_by_name(tmp_path):
    points = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    folder = dataset(tmp_path, ["c", "a", "b"], training=[{"image": "x.png", "landmarks": points}])
    assert load_datalist(folder, landmarks=["b"])[0]["landmarks"] == [[5.0, 6.0]]
    assert load_datalist(folder, landmarks=["b", "c"])[0]["landmarks"] == [[5.0, 6.0], [1.0, 2.0]]


@pytest.mark.parametrize(("own", "lacks"), [(["a", "b", "d"], "c"), (["a", "b"], "c"), (["d", "e", "f"], "a, b, c")])
def test_a_data_set_that_lacks_landmarks_is_refused(tmp_path, own, lacks):
    points = [None] * len(own)
    folder = dataset(tmp_path, own, training=[{"image": "x.png", "landmarks": points}])
    with pytest.raises(InputError, match=rf"do not hold all 3 expected \(it lacks {lacks}[,)]"):
        load_datalist(folder, landmarks=NAMES)
    assert len(load_datalist(folder)) == 1


@pytest.mark.parametrize(("wanted", "points"), [(["b"], [None]), (["c", "a"], ["absent", [1, 2]])])
def test_some_of_the_landmarks_of_a_data_set_may_be_wanted(tmp_path, wanted, points):
    item = {"image": "x.png", "landmarks": [[1, 2], None, "absent"], "senior": [[1, 2], None, "absent"]}
    folder = dataset(tmp_path, training=[item], observers={"senior": "the first"})
    (loaded,) = load_datalist(folder, landmarks=wanted)
    assert loaded["landmarks"] == loaded["senior"] == points


def test_points_are_counted_also_where_only_some_are_wanted(tmp_path):
    folder = dataset(tmp_path, training=[{"image": "x.png", "landmarks": [[1, 2]]}])
    with pytest.raises(InputError, match="has 1 landmarks where 3 are expected"):
        load_datalist(folder, landmarks=["b"])


def test_a_missing_folder_or_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such data set"):
        load_datalist(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no datalist\.json"):
        load_datalist(tmp_path)


def test_a_datalist_that_cannot_be_written_leaves_the_old_one(tmp_path):
    dataset(tmp_path)
    before = (tmp_path / "datalist.json").read_text()
    for bad in (float("nan"), np.zeros(2)):
        with pytest.raises(InputError, match="cannot be written"):
            write_datalist(tmp_path, training=[{"image": "x.png", "landmarks": [[bad, 1]]}])
    assert (tmp_path / "datalist.json").read_text() == before
    assert sorted(os.listdir(tmp_path)) == ["datalist.json", "x.png", "y.png"]


def test_paths_lead_up_from_where_a_linked_folder_lies(tmp_path):
    (tmp_path / "data" / "list").mkdir(parents=True)
    (tmp_path / "home" / "images").mkdir(parents=True)
    for place in ("data", "home"):
        (tmp_path / place / "images").mkdir(exist_ok=True)
        (tmp_path / place / "images" / "x.png").touch()
    write_datalist(tmp_path / "data" / "list", training=[{"image": "../images/x.png"}])
    (tmp_path / "home" / "list").symlink_to(tmp_path / "data" / "list")
    found = load_datalist(tmp_path / "home" / "list")[0]["image"]
    assert os.path.samefile(found, tmp_path / "data" / "images" / "x.png")
    assert load_datalist(tmp_path / "data" / "list")[0]["image"] == str(tmp_path / "data" / "images" / "x.png")
    (tmp_path / "data" / "images" / "x.png").unlink()  # written there before the folder was linked
    assert load_datalist(tmp_path / "home" / "list")[0]["image"] == str(tmp_path / "home" / "images" / "x.png")


def test_what_is_null_in_an_item_is_left_out_and_observers_where_they_are_not_wanted(tmp_path):
    item = {"image": "x.png", "landmarks": POINTS, "spacing": None, "group": None, "senior": POINTS}
    folder = dataset(tmp_path, training=[item])
    content = json.loads((folder / "datalist.json").read_text())
    write_datalist(folder, **content, observers={"senior": "the first"})
    expected = {"image": str(tmp_path / "x.png"), "landmarks": POINTS}
    assert load_datalist(folder) == [{**expected, "senior": POINTS}]
    assert load_datalist(folder, observers=False) == [expected]


@pytest.mark.parametrize("spacing", [[0, 0], [0.1, None], [-0.1, 0.1], "x"])
def test_predictions_take_no_spacing_that_is_none(tmp_path, spacing):
    item = {"image": "x.png", "spacing": spacing}
    with pytest.raises(InputError, match="give positive mm per pixel and axis"):
        list_images(dataset(tmp_path, training=[item]))
    assert list_images(dataset(tmp_path, training=[{**item, "spacing": None}])) == [{"image": str(tmp_path / "x.png")}]
