import csv
import json
import os

import itk
import numpy as np
import pytest

from common.data import (
    LandmarkFile,
    inline_points,
    landmark_table,
    match_landmarks,
    read_landmarks,
    write_landmark_table,
    write_markups,
)
from common.data.landmark_points import opposite_names
from common.errors import InputError

NAN, INF = [np.nan] * 3, [np.inf] * 3


def markups(path, points, system="LPS", **markup):
    controls = [{"label": label, **point} for label, point in points]
    content = {"@schema": "markups", "markups": [{"type": "Fiducial", "controlPoints": controls, **markup}]}
    if system is not None:
        content["markups"][0]["coordinateSystem"] = system
    path.write_text(json.dumps(content))
    return path


def at(*position, **more):
    return {"position": list(position), **more}


@pytest.mark.parametrize(
    "system, ras",
    [
        ("LPS", [-1, -2, 3]),
        ("RAS", [1, 2, 3]),
        (1, [-1, -2, 3]),
        (0, [1, 2, 3]),
        ("0", [1, 2, 3]),
        (None, [-1, -2, 3]),
    ],
)
def test_markups_are_turned_to_ras(tmp_path, system, ras):
    read = read_landmarks(markups(tmp_path / "a.mrk.json", [("sella", at(1, 2, 3))], system))
    assert read.names == ("sella",) and read.space == "RAS"
    assert read.points.dtype == np.float64 and read.points.tolist() == [ras]


def test_markups_without_a_position_are_not_annotated_or_absent(tmp_path):
    points = [
        ("a", at(1, 2, 3, positionStatus="defined")),
        ("b", at(0, 0, 0, positionStatus="undefined")),
        ("c", {"position": "", "positionStatus": "undefined"}),
        ("d", {}),
        ("e", at(0, 0, 0, positionStatus="missing")),
        ("f", at(4, 5, 6, positionStatus="preview")),
        ("g", {"position": None}),
    ]
    read = read_landmarks(markups(tmp_path / "a.mrk.json", points, "RAS"))
    assert np.array_equal(read.points, [[1, 2, 3], NAN, NAN, NAN, INF, NAN, NAN], equal_nan=True)


def test_control_points_of_all_markups_and_types_are_read(tmp_path):
    path = markups(tmp_path / "a.mrk.json", [("a", at(1, 2, 3, orientation=[0] * 9))], type="ClosedCurve")
    content = json.loads(path.read_text())
    line = {"type": "Line", "coordinateSystem": "RAS", "coordinateUnits": ["mm", "UCUM", "millimeter"]}
    content["markups"].append({**line, "controlPoints": [{"label": "b", "position": [1, 2, 3]}]})
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    read = read_landmarks(path)
    assert read.names == ("a", "b") and read.points.tolist() == [[-1, -2, 3], [1, 2, 3]]


def test_lines_and_angles_beside_a_list_of_points_are_no_landmarks(tmp_path):
    path = markups(tmp_path / "a.mrk.json", [("a", at(1, 2, 3)), ("b", at(4, 5, 6))])
    content = json.loads(path.read_text())
    angle = {"type": "Angle", "controlPoints": [{"label": label, **at(0, 0, 0)} for label in "abc"]}
    content["markups"].insert(0, angle)
    path.write_text(json.dumps(content))
    assert read_landmarks(path).names == ("a", "b")
    content["markups"][1]["controlPoints"] = []
    path.write_text(json.dumps(content))
    assert read_landmarks(path).names == ("a", "b", "c")


def test_points_without_names_in_several_lists_are_refused(tmp_path):
    """Their order is that of the lists in the file, which nobody has seen."""
    path = markups(tmp_path / "a.mrk.json", [("", at(1, 2, 3))])
    content = json.loads(path.read_text())
    content["markups"].append({"type": "Fiducial", "controlPoints": [{"label": "", **at(4, 5, 6)}]})
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"a\.mrk\.json: has points without names in several lists"):
        read_landmarks(path)


FCSV4 = "# Markups fiducial file version = 4.10\n# CoordinateSystem = {}\n"
COLUMNS = "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"


@pytest.mark.parametrize(
    "text, ras",
    [
        (FCSV4.format(0) + COLUMNS + "n_0,1,2,3,0,0,0,1,1,1,0,tip,,node\n", [1, 2, 3]),
        (FCSV4.format(1) + COLUMNS + "n_0,1,2,3,0,0,0,1,1,1,0,tip,,node\n", [-1, -2, 3]),
        (FCSV4.format("LPS") + COLUMNS + "1,1,2,3,0,0,0,1,1,1,0,tip,,,2,0\n", [-1, -2, 3]),
        (FCSV4.format("RAS") + COLUMNS + '1,1,2,3,0,0,0,1,1,1,0,tip,"a, b",,2,0\n', [1, 2, 3]),
        (FCSV4.format("LPS") + COLUMNS + "1,0,0,0,0,0,0,1,1,1,0,tip,,,0,0\n", NAN),
        (FCSV4.format("LPS") + COLUMNS + "1,0,0,0,0,0,0,1,1,1,0,tip,,,3,0\n", INF),
        ("# CoordinateSystem = 0\n# columns = label,x,y,z,sel,vis\ntip,1,2,3,1,1\n", [1, 2, 3]),
        ("# CoordinateSystem = 0\r\ntip,1,2,3,1,1\r\n\r\n", [1, 2, 3]),
    ],
)
def test_fcsv_of_every_version_is_turned_to_ras(tmp_path, text, ras):
    (tmp_path / "a.fcsv").write_text(text)
    read = read_landmarks(tmp_path / "a.fcsv")
    assert read.names == ("tip",) and np.array_equal(read.points, [ras], equal_nan=True)


@pytest.mark.parametrize(
    "text, space, points",
    [
        ("name,x,y\na,1.5,2\nb,,\nc,absent,absent\n", "voxel", [[1.5, 2], NAN[:2], INF[:2]]),
        ("\ufeffName, X, Y, note\r\na, 1.5, 2, good\r\n\r\nc,absent,,\r\n", "voxel", [[1.5, 2], INF[:2]]),
        ("name,x,y,z,space\na,1,2,3,LPS\nb,,,,\nc,absent,,,\n", "RAS", [[-1, -2, 3], NAN, INF]),
        ("name,x,y,z,space\na,1,2,3,ras\n", "RAS", [[1, 2, 3]]),
        ("# space = LPS\nname,x,y,z\na,1,2,3\n", "RAS", [[-1, -2, 3]]),
        ("# space = voxel\nname,x,y,z\na,1,2,3\nb,absent,absent,absent\n", "voxel", [[1, 2, 3], INF]),
    ],
)
def test_a_csv_states_its_space_in_3d_and_is_in_pixels_in_2d(tmp_path, text, space, points):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    read = read_landmarks(tmp_path / "a.csv")
    assert read.space == space and np.array_equal(read.points, points, equal_nan=True)


BAD = {
    "nowhere.csv": (None, "no such landmark file"),
    "a.txt": ("", "is no landmark file"),
    "text.mrk.json": ("no json", "no readable 3D Slicer markups"),
    "list.mrk.json": ("[1, 2]", "no readable 3D Slicer markups"),
    "other.json": ('{"a": 1}', "no readable 3D Slicer markups"),
    "none.mrk.json": ('{"markups": []}', "holds no control points"),
    "empty.mrk.json": ('{"markups": [{"controlPoints": []}]}', "holds no control points"),
    "twice.mrk.json": ([("a", at(1, 2, 3)), ("a", at(1, 2, 3))], "names 'a' more than once"),
    "nan.mrk.json": ([("a", at(1, 2, float("nan")))], "'a' has the position"),
    "texts.mrk.json": ([("a", at("1", "2", "3"))], "three finite numbers"),
    "flat.mrk.json": ([("a", at(1, 2))], "three finite numbers"),
    "status.mrk.json": ([("a", at(1, 2, 3, positionStatus="odd"))], "positionStatus 'odd'"),
    "unstated.fcsv": ("tip,1,2,3\n", "states no CoordinateSystem"),
    "ijk.fcsv": ("# CoordinateSystem = 2\ntip,1,2,3\n", "states no CoordinateSystem of LPS or RAS"),
    "text.fcsv": ("# CoordinateSystem = 0\ntip,1,2,x\n", "no three finite coordinates"),
    "nan.fcsv": ("# CoordinateSystem = 0\ntip,1,2,nan\n", "no three finite coordinates"),
    "short.fcsv": ("# CoordinateSystem = 0\ntip,1\n", "no three finite coordinates"),
    "none.fcsv": ("# CoordinateSystem = 0\n", "holds no points"),
    "twice.fcsv": ("# CoordinateSystem = 0\ntip,1,2,3\ntip,1,2,3\n", "'tip' more than once"),
    "empty.csv": ("", "must be the header"),
    "header.csv": ("a,1,2\n", "must be the header"),
    "decimal_comma.csv": ("name;x;y\na;1,5;2\n", "'a' in row 2 has the coordinates '1,5,2'"),
    "unquoted_decimal_comma.csv": ("name,x,y\na,1,5,2\n", "row 2 has 4 columns"),
    "underscore.csv": ("name,x,y\na,1_5,2\n", "'a' in row 2 has the coordinates '1_5,2'"),
    "zero_byte.csv": ("name,x,y\na,1,\0\n", "'a' in row 2"),
    "quote.csv": ('name,x,y\n"a,1,2\nb,3,4\n', "is no CSV"),
    "double.csv": ("name,x,x,y\na,1,1,2\n", "must be the header"),
    "none.csv": ("name,x,y\n", "holds no landmarks"),
    "comma.csv": ("name,x,y\na,1,5,2,5\n", "row 2 has 5 columns"),
    "nan.csv": ("name,x,y\na,nan,nan\n", "leave all empty where it is not annotated, or write absent"),
    "inf.csv": ("name,x,y\na,inf,1\n", "write absent"),
    "text.csv": ("name,x,y\na,1,two\n", "'a' in row 2 has the coordinates '1,two'"),
    "half.csv": ("name,x,y\na,1,\n", "'1,'"),
    "mixed.csv": ("name,x,y\na,absent,1\n", "'absent,1'"),
    "twice.csv": ("name,x,y\na,1,2\na,1,2\n", "'a' more than once"),
    "unstated.csv": ("name,x,y,z\na,1,2,3\n", "states no space"),
    "spaces.csv": ("name,x,y,z,space\na,1,2,3,LPS\nb,1,2,3,RAS\n", "states lps and ras"),
    "odd.csv": ("name,x,y,z,space\na,1,2,3,mni\n", "states mni"),
    "flat.csv": ("# space = LPS\nname,x,y\na,1,2\n", "state voxel for coordinates x,y"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_landmark_files_are_told_in_one_sentence(tmp_path, name):
    content, reason = BAD[name]
    path = tmp_path / name
    if isinstance(content, list):
        markups(path, content)
    elif content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_landmarks(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and reason in message, message
    assert message.endswith(".") and "\n" not in message


@pytest.mark.parametrize("markup", [{"system": "IJK"}, {"coordinateUnits": "um"}])
def test_markups_in_other_spaces_or_units_are_refused(tmp_path, markup):
    path = markups(tmp_path / "a.mrk.json", [("a", at(1, 2, 3))], **markup)
    with pytest.raises(InputError, match="save it as LPS or RAS in mm"):
        read_landmarks(path)


def test_binary_files_are_refused(tmp_path):
    for name in ("a.csv", "a.fcsv", "a.mrk.json"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00\x81")
        with pytest.raises(InputError):
            read_landmarks(tmp_path / name)


def test_written_markups_follow_the_schema_of_slicer(tmp_path):
    path = tmp_path / "new" / "a.mrk.json"
    points = np.array([[1.25, -2.5, 3.0], NAN, INF, [0.0, 0.0, 0.0]])
    write_markups(path, points, ["a", "b", "c", "d"], confidence=[0.5, np.nan, 0.25, 1], display={"opacity": 1.0})
    content = json.loads(path.read_text())
    assert content["@schema"].endswith("markups-schema-v1.0.3.json#")
    (markup,) = content["markups"]
    assert (markup["type"], markup["coordinateSystem"], markup["coordinateUnits"]) == ("Fiducial", "LPS", "mm")
    assert markup["display"] == {"opacity": 1.0}
    assert markup["controlPoints"][0] == {
        "id": "1",
        "label": "a",
        "description": "confidence 0.500",
        "associatedNodeID": "",
        "position": [-1.25, 2.5, 3.0],
        "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        "selected": True,
        "locked": False,
        "visibility": True,
        "positionStatus": "defined",
    }
    status = [point["positionStatus"] for point in markup["controlPoints"]]
    assert status == ["defined", "undefined", "missing", "defined"]
    assert ["position" in point for point in markup["controlPoints"]] == [True, False, False, True]
    assert "-0.0" not in path.read_text().replace("-0.00", "")
    assert os.listdir(path.parent) == ["a.mrk.json"]  # no temporary file stays


def test_markups_come_back_as_they_were_written(tmp_path):
    points = np.vstack([np.random.default_rng(0).normal(0, 100, (3, 3)), NAN, INF])
    write_markups(tmp_path / "a.mrk.json", points, list("abcde"))
    read = read_landmarks(tmp_path / "a.mrk.json")
    assert read.names == tuple("abcde") and np.array_equal(read.points, points, equal_nan=True)


def test_writing_markups_of_wrong_number_or_twice_the_name_leaves_no_file(tmp_path):
    for names, points in ((["a"], np.zeros((2, 3))), (["a", "a"], np.zeros((2, 3))), (["a"], np.zeros((1, 2)))):
        with pytest.raises(InputError):
            write_markups(tmp_path / "a.mrk.json", points, names)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("space, sign", [("LPS", -1), ("RAS", 1)])
def test_a_table_holds_pixels_and_world_of_many_images(tmp_path, space, sign):
    world = np.array([[-1.0, -2.0, 0.0], NAN, INF])
    pixels = np.array([[1, 2], NAN[:2], INF[:2]])
    first = landmark_table("a.png", ["p", "q", "r"], pixels, world, [0.75, np.nan, 0.1], space=space)
    second = landmark_table("b.png", ["p, 2"], np.array([[3.123456, 4]]), np.array([[-0.00001, 0, 0]]), space=space)
    assert write_landmark_table(tmp_path / "a.csv", iter([first, second])) == 2
    assert os.listdir(tmp_path) == ["a.csv"]
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.reader(file))
    axes = [f"{space.lower()}_{axis}" for axis in "xyz"]
    assert rows[0] == ["image", "name", "pixel_x", "pixel_y", *axes, "confidence"]
    assert rows[1] == ["a.png", "p", "1.0000", "2.0000", f"{-sign:.4f}", f"{-2 * sign:.4f}", "0.0000", "0.750"]
    assert rows[2] == ["a.png", "q", *[""] * 6]
    assert rows[3] == ["a.png", "r", *[""] * 5, "0.100"]
    assert rows[4] == ["b.png", "p, 2", "3.1235", "4.0000", "0.0000", "0.0000", "0.0000", ""]
    assert len(rows) == 5


def test_a_table_of_volumes_has_a_third_pixel_column_and_one_of_votes_their_spread(tmp_path):
    volume = landmark_table("a.nii", ["p"], np.array([[1, 2, 3]]), np.array([[4, 5, 6]]), [1], [0.5])
    write_landmark_table(tmp_path / "a.csv", [volume])
    head, line = (tmp_path / "a.csv").read_text().splitlines()
    assert head == "image,name,pixel_x,pixel_y,pixel_z,lps_x,lps_y,lps_z,confidence,spread"
    assert line == "a.nii,p,1.0000,2.0000,3.0000,-4.0000,-5.0000,6.0000,1.000,0.500"
    with pytest.raises(InputError):
        landmark_table("c.png", ["p", "q"], np.array([[1, 2]]), np.array([[-1, -2, 0]]))


def test_a_table_that_cannot_be_finished_is_not_there(tmp_path):
    film = landmark_table("a.png", ["p"], np.array([[1, 2]]), np.array([[-1, -2, 0]]))
    volume = landmark_table("a.nii", ["p"], np.array([[1, 2, 3]]), np.array([[4, 5, 6]]))
    with pytest.raises(ValueError, match="columns"):
        write_landmark_table(tmp_path / "a.csv", [film, volume])
    assert write_landmark_table(tmp_path / "b.csv", []) == 0
    assert not os.listdir(tmp_path)


def named(*names):
    return LandmarkFile(names, np.arange(3.0 * len(names)).reshape(-1, 3), "RAS")


def test_landmarks_are_brought_to_the_order_of_the_names():
    matched = match_landmarks(named("b", "c", "a"), ["a", "b", "c"], "file")
    assert matched.names == ("a", "b", "c") and matched.points[:, 0].tolist() == [6, 0, 3]


@pytest.mark.parametrize(
    "labels",
    [("", "", ""), ("F-1", "F-2", "F-3"), ("F_1-1", "F_1-2", "F_1-3"), ("MarkupsFiducial-1", "MarkupsFiducial-2",
     "MarkupsFiducial-3"), ("1", "2", "3")],
)  # fmt: skip
def test_landmarks_without_names_are_taken_in_order(labels):
    matched = match_landmarks(named(*labels), ["a", "b", "c"], "file")
    assert matched.names == ("a", "b", "c") and matched.points[:, 0].tolist() == [0, 3, 6]


@pytest.mark.parametrize(
    "names",
    [
        *(["bulb_right", "bulb_left"], ["L ostium", "R ostium"], ["Right-hinge_a", "Left-hinge_a"]),
        *(["L.bulb", "R.bulb"], ["Bulb (right)", "Bulb (left)"], ["bulbRight", "bulbLeft"], ["eye RT", "eye LT"]),
    ],
)
def test_landmarks_that_their_side_alone_tells_apart_need_names(names):
    with pytest.raises(InputError, match=r"scan\.mrk\.json: has landmarks without names, of which no order tells"):
        match_landmarks(named("F-1", "F-2"), names, "scan.mrk.json")
    assert match_landmarks(named(*names), names, "scan.mrk.json").names == tuple(names)


def test_opposite_names_are_those_that_differ_by_one_word():
    names = ["bulb_left", "bulb_right", "anterior", "posterior", "rl", "R", "L", "upright", "upleft", "left_left"]
    assert opposite_names(names) == [(1, 0, 0), (2, 3, 1), (5, 6, 0)]


def test_names_that_look_like_defaults_are_names_where_the_bundle_has_them():
    matched = match_landmarks(named("2", "1"), ["1", "2"], "file")
    assert matched.points[:, 0].tolist() == [3, 0]


@pytest.mark.parametrize(
    "labels, reason",
    [
        (("a", "b"), "lacks 'c'"),
        (("a", "b", "c", "d"), "names 'd'"),
        (("a", "b", "C"), "names 'C'"),
        (("a", "a", "b"), "'a' more than once"),
        (("F-1", "F-2"), "has 2 landmarks without names where 3 are expected"),
        (("F-1", "F-3", "F-4"), "names 'F-1'"),  # a point was removed: the order is in doubt
        (("a", "b", ""), "names ''"),
    ],
)
def test_landmarks_that_do_not_match_are_refused(labels, reason):
    with pytest.raises(InputError, match=reason) as caught:
        match_landmarks(named(*labels), ["a", "b", "c"], "hand.fcsv")
    assert str(caught.value).startswith("hand.fcsv: ")


def test_a_missing_landmark_is_a_row_of_nan_where_that_is_allowed():
    matched = match_landmarks(named("c", "a"), ["a", "b", "c"], "file", allow_missing=True)
    assert np.array_equal(matched.points, [[3, 4, 5], NAN, [0, 1, 2]], equal_nan=True)
    with pytest.raises(InputError, match="names 'd'"):
        match_landmarks(named("d"), ["a"], "file", allow_missing=True)


def test_inline_points_hold_pixels_null_and_absent():
    points = inline_points([[1, 2.5], None, "absent"], "file")
    assert np.array_equal(points, [[1, 2.5], NAN[:2], INF[:2]], equal_nan=True)
    assert np.array_equal(inline_points([None], "file", 3), [NAN], equal_nan=True)
    assert np.array_equal(inline_points(np.array([[[1.0, 2], INF[:2]]]), "file"), [[1, 2], INF[:2]])


@pytest.mark.parametrize(
    "items", [[[1]], [[1, 2], [1, 2, 3]], [[1, float("nan")]], [["1", 2]], [[True, 2]], ["missing"], 5, [1, 2]]
)
def test_inline_points_of_other_form_are_refused(items):
    with pytest.raises(InputError, match="^list: "):
        inline_points(items, "list")


@pytest.mark.parametrize("dims", [2, 3])
def test_a_point_that_slicer_places_on_a_voxel_lies_there_for_itk(tmp_path, dims):
    """Slicer writes LPS of an image that it read by ITK; turned back, ITK must find the voxel."""
    image = itk.image_from_array(np.zeros((5, 12, 20)[-dims:], np.float32))
    image.SetSpacing([0.5, 0.7, 2.0][:dims])
    image.SetOrigin([3.0, -4.0, 50.0][:dims])
    voxel = itk.ContinuousIndex[itk.D, dims]()
    for axis in range(dims):
        voxel[axis] = 1.25 * (axis + 1)
    lps = [*image.TransformContinuousIndexToPhysicalPoint(voxel), 0.0][:3]
    write_markups(tmp_path / "a.mrk.json", np.array([[-lps[0], -lps[1], lps[2]]]), ["a"])
    written = json.loads((tmp_path / "a.mrk.json").read_text())["markups"][0]["controlPoints"][0]["position"]
    back = image.TransformPhysicalPointToContinuousIndex(written[:dims])
    assert np.allclose(list(back), list(voxel))
