"""Hostile and odd landmark files through the loaders of training data: the right points, or one sentence."""

import json
import os

import numpy as np
import pytest
from monai.transforms import LoadImaged

from common.data import LandmarkDataset, LandmarkImageReader, load_datalist
from common.data.table_import import import_table, read_points
from common.errors import InputError
from common.transforms import LoadLandmarksd

from .corpus import FILMS, ROWS
from .writers import nifti, png

NAMES = ["tip", "base"]
PIXELS = [[3.0, 4.5], [20.0, 30.0]]
NAN, INF = [np.nan] * 2, [np.inf] * 2


def points(*controls, system="LPS", **markup):
    return json.dumps({"markups": [{"coordinateSystem": system, "controlPoints": list(controls), **markup}]})


def control(label, x, y, z=0.0, **more):
    return {"label": label, "position": [x, y, z], **more}


TIP, BASE = control("tip", 3, 4.5), control("base", 20, 30)  # a PNG's pixels are its LPS
FCSV = "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
FCSV_ROW = "1,{},{},0,0,0,0,1,1,1,0,{},,\n"
FCSV_ROWS = FCSV_ROW.format(3, 4.5, "tip") + FCSV_ROW.format(20, 30, "base")
HUGE = "1" + "0" * 400

GOOD = {
    "plain.csv": "name,x,y\ntip,3,4.5\nbase,20,30\n",
    "byte_order_mark.csv": "\ufeffname,x,y\ntip,3,4.5\nbase,20,30\n",
    "semicolons.csv": "name;x;y\r\ntip;3;4.5\r\nbase;20;30\r\n",
    "byte_order_mark_and_semicolons.csv": "\ufeffname;x;y;note\ntip;3;4.5;a, b\nbase;20;30;\n",
    "carriage_returns.csv": "name,x,y\rtip,3,4.5\rbase,20,30\r",
    "other_order.csv": "y,name,x\n30,base,20\n4.5,tip,3\n",
    "quoted.csv": '"name","x","y"\n"tip","3","4.5"\n"base","20","30"\n',
    "blank_lines.csv": "\n\nname,x,y\n\ntip,3,4.5\n,,\nbase,20,30\n\n",
    "no_end_of_line.csv": "name,x,y\ntip,3,4.5\nbase,2e1,30",
    "unnamed.csv": "name,x,y\n,3,4.5\n,20,30\n",
    "plain.mrk.json": points(TIP, BASE),
    "byte_order_mark.mrk.json": "\ufeff" + points(TIP, BASE),
    "ras.mrk.json": points(control("tip", -3, -4.5), control("base", -20, -30), system="RAS"),
    "whole_numbers.mrk.json": points({"label": "tip", "position": [3, 4.5, 0]}, BASE),
    "plain.fcsv": FCSV + FCSV_ROWS,
    "byte_order_mark.fcsv": "\ufeff" + FCSV.replace("\n", "\r\n") + FCSV_ROWS,
    "ras.fcsv": FCSV.replace("LPS", "RAS") + FCSV_ROW.format(-3, -4.5, "tip") + FCSV_ROW.format(-20, -30, "base"),
}
MISSING = {
    "empty.csv": ("name,x,y\ntip,3,4.5\nbase,,\n", NAN),
    "absent.csv": ("name,x,y\ntip,3,4.5\nbase,absent,\n", INF),
    "undefined.mrk.json": (points(TIP, control("base", 1, 1, positionStatus="undefined")), NAN),
    "null.mrk.json": (points(TIP, {"label": "base", "position": None}), NAN),
    "missing.mrk.json": (points(TIP, control("base", 1, 1, positionStatus="missing")), INF),
}
BAD = {
    "empty.csv": ("", "must be the header"),
    "header_alone.csv": ("name,x,y\n", "holds no landmarks"),
    "no_header.csv": ("tip,3,4.5\nbase,20,30\n", "must be the header"),
    "header_twice.csv": ("name,x,y,x\ntip,3,4.5,3\nbase,20,30,2\n", "must be the header"),
    "decimal_commas.csv": ("name;x;y\ntip;3;4,5\nbase;20;30\n", "'tip' in row 2 has the coordinates '3,4,5'"),
    "unquoted_decimal_commas.csv": ("name,x,y\ntip,3,4,5\nbase,20,30\n", "row 2 has 4 columns"),
    "tabs.csv": ("name\tx\ty\ntip\t3\t4.5\nbase\t20\t30\n", "must be the header"),
    "truncated.csv": ("name,x,y\ntip,3,4.5\nbase,20", "row 3 has 2 columns"),
    "truncated_number.csv": ("name,x,y\ntip,3,4.5\nbase,20,\n", "'base' in row 3 has the coordinates '20,'"),
    "underscore.csv": ("name,x,y\ntip,3,4_5\nbase,20,30\n", "'tip' in row 2 has the coordinates '3,4_5'"),
    "nan.csv": ("name,x,y\ntip,nan,4.5\nbase,20,30\n", "'tip' in row 2"),
    "infinite.csv": ("name,x,y\ntip,1e999,4.5\nbase,20,30\n", "'tip' in row 2"),
    "unit.csv": ("name,x,y\ntip,3mm,4.5\nbase,20,30\n", "'tip' in row 2"),
    "zero_byte.csv": ("name,x,y\ntip,3,\0\nbase,20,30\n", "'tip' in row 2|is no CSV"),
    "open_quote.csv": ('name,x,y\n"tip,3,4.5\nbase,20,30\n', "is no CSV"),
    "twice.csv": ("name,x,y\ntip,3,4.5\ntip,20,30\n", "names 'tip' more than once"),
    "one_too_few.csv": ("name,x,y\ntip,3,4.5\n", "lacks 'base'"),
    "one_too_many.csv": ("name,x,y\ntip,3,4.5\nbase,20,30\nheel,1,1\n", "names 'heel'"),
    "misspelled.csv": ("name,x,y\ntip,3,4.5\nBase,20,30\n", "names 'Base'"),
    "unnamed_too_few.csv": ("name,x,y\n,3,4.5\n", "1 landmarks without names where 2"),
    "of_a_volume.csv": ("name,x,y,z,space\ntip,3,4,5,voxel\nbase,2,3,4,voxel\n", "3 coordinates"),
    "space_unknown.csv": ("name,x,y,z\ntip,3,4,5\nbase,2,3,4\n", "states no space"),
    "wide.csv": ("name,x,y\ntip,3,4.5\nbase,20,30\n".encode("utf-16"), "cannot be read as text"),
    "latin.csv": ("name,x,y\nstyloïde,3,4.5\n".encode("latin-1"), "cannot be read as text"),
    "noise.csv": (bytes(range(256)) * 9, "cannot be read as text"),
    "a_picture.csv": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "cannot be read as text"),
    "empty.mrk.json": ("", "no readable 3D Slicer markups"),
    "truncated.mrk.json": (points(TIP, BASE)[:-20], "no readable 3D Slicer markups"),
    "list.mrk.json": ("[[3, 4.5], [20, 30]]", "no readable 3D Slicer markups"),
    "no_markups.mrk.json": ('{"markups": []}', "holds no control points"),
    "deep.mrk.json": ("[" * 100000, "no readable 3D Slicer markups"),
    "many_digits.mrk.json": ('{"markups": ' + "1" * 5000 + "}", "no readable 3D Slicer markups"),
    "huge.mrk.json": (points(TIP, BASE).replace("[20", "[" + HUGE), "'base' has the position"),
    "nan.mrk.json": (points(TIP, control("base", float("nan"), 1)), "'base' has the position"),
    "text.mrk.json": (points(TIP, control("base", "20", "30")), "'base' has the position"),
    "flat.mrk.json": (points(TIP, {"label": "base", "position": [20, 30]}), "'base' has the position"),
    "twice.mrk.json": (points(TIP, TIP), "names 'tip' more than once"),
    "one_too_few.mrk.json": (points(TIP), "lacks 'base'"),
    "label_null.mrk.json": (points(TIP, {**BASE, "label": None}), "names ''|lacks 'base'"),
    "units.mrk.json": (points(TIP, BASE, coordinateUnits="um"), "in mm"),
    "no_unit.mrk.json": (points(TIP, BASE, coordinateUnits=[]), "no readable 3D Slicer markups|in mm"),
    "system.mrk.json": (points(TIP, BASE, system="IJK"), "save it as LPS or RAS"),
    "status.mrk.json": (points(TIP, {**BASE, "positionStatus": "lost"}), "positionStatus 'lost'"),
    "off_the_plane.mrk.json": (points(TIP, control("base", 20, 30, 9)), "'base' lies 9.0 pixels off the plane"),
    "numbers.mrk.json": ('{"markups": [{"controlPoints": [1, 2]}]}', "no readable 3D Slicer markups"),
    "empty.fcsv": ("", "states no CoordinateSystem"),
    "no_system.fcsv": (FCSV.splitlines()[0] + "\n" + FCSV_ROWS, "states no CoordinateSystem"),
    "two_systems.fcsv": (FCSV + "# CoordinateSystem = RAS\n" + FCSV_ROWS, "CoordinateSystems LPS and RAS"),
    "no_points.fcsv": (FCSV, "holds no points"),
    "truncated.fcsv": (FCSV + FCSV_ROWS[:-25], "gives no three finite coordinates|lacks 'base'|names '"),
    "semicolons.fcsv": (FCSV + FCSV_ROWS.replace(",", ";"), "gives no three finite coordinates"),
    "decimal_comma.fcsv": (FCSV + FCSV_ROWS.replace("4.5", "4,5"), "off the plane|names"),
    "underscore.fcsv": (FCSV + FCSV_ROWS.replace("20", "2_0"), "gives no three finite coordinates"),
    "nan.fcsv": (FCSV + FCSV_ROWS.replace("20", "nan"), "gives no three finite coordinates"),
    "twice.fcsv": (FCSV + FCSV_ROWS.replace("base", "tip"), "names 'tip' more than once"),
    "wide.fcsv": ((FCSV + FCSV_ROWS).encode("utf-16"), "cannot be read as text"),
    "unknown.txt": ("name,x,y\ntip,3,4.5\n", "is no landmark file"),
}  # fmt: skip


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def trained_on(folder, name):
    """World points of a film with a landmark file as the data set of a training gives them: (2, 2)."""
    png(folder / "film.png", ROWS)
    (folder / "datalist.json").write_text(json.dumps({
        "landmarks": NAMES, "training": [{"image": "film.png", "landmarks": name}]
    }))  # fmt: skip
    items = load_datalist(folder, "training", NAMES)
    load = LoadImaged("image", reader=LandmarkImageReader(spatial_dims=2), ensure_channel_first=True)
    dataset = LandmarkDataset(items, [load, LoadLandmarksd("label", names=NAMES)], progress=False)
    return dataset[0]["label"][0].numpy()


def check_sentence(error, path, told):
    message = str(error.value)
    assert message.startswith(str(path)) and any(text in message for text in told.split("|")), message
    assert message.endswith(".") and "\n" not in message and ("; " in message or "header" in message), message


@pytest.mark.parametrize("name", GOOD)
def test_a_landmark_file_that_is_odd_but_clear_is_read(tmp_path, name):
    write(tmp_path / name, GOOD[name])
    assert np.allclose(trained_on(tmp_path, name), np.array(PIXELS) * [-1, -1])


@pytest.mark.parametrize("name", MISSING)
def test_a_landmark_without_a_position_never_becomes_a_number(tmp_path, name):
    content, base = MISSING[name]
    write(tmp_path / name, content)
    assert np.array_equal(trained_on(tmp_path, name), [[-3, -4.5], base], equal_nan=True)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_landmark_file_is_told_of_in_one_sentence(tmp_path, name):
    content, told = BAD[name]
    write(tmp_path / name, content)
    with pytest.raises(InputError) as error:
        trained_on(tmp_path, name)
    check_sentence(error, tmp_path / name, told)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink(path.name, path)])
def test_a_landmark_file_that_is_no_file_is_told_of(tmp_path, make):
    make(tmp_path / "points.csv")
    with pytest.raises(InputError) as error:
        trained_on(tmp_path, "points.csv")
    assert "points.csv" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["[" * 100000, '{"training": ' + "1" * 5000 + "}", "\0", "", "{'training': []}"])
def test_a_broken_datalist_is_told_of(tmp_path, content):
    write(tmp_path / "datalist.json", content)
    with pytest.raises(InputError, match=r"datalist\.json: is no well-formed JSON \(.*\); correct it\.$"):
        load_datalist(tmp_path, "training", NAMES)


@pytest.mark.parametrize("point", [[float(10**308), HUGE], [10**400, 1], ["3", "4"], [True, 1], {"x": 1}])
def test_a_point_of_a_datalist_that_is_no_pair_of_numbers_is_told_of(tmp_path, point):
    with pytest.raises(InputError, match=r"film\.png: landmark 1 \(counted from 0\) is .*give its coordinates"):
        png(tmp_path / "film.png", ROWS)
        (tmp_path / "datalist.json").write_text(json.dumps({
            "landmarks": NAMES, "training": [{"image": "film.png", "landmarks": [[1, 2], point]}]
        }))  # fmt: skip
        load_datalist(tmp_path, "training", NAMES)


TABLES = {
    "decimal_commas.csv": ("image,name,x,y\na.png,tip,1,5,2,5\n", "line 2 has 6 columns where the header has 4"),
    "truncated.csv": ("image,name,x,y\na.png,tip,1,2\na.png,base", "line 3 has 2 columns"),
    "column_twice.csv": ("image,name,x,x,y\na.png,tip,1,2,3\n", "must name the columns"),
    "underscore.csv": ("image,name,x,y\na.png,tip,1_5,2\n", "line 2 has the coordinates '1_5'"),
    "twice.csv": ("image,name,x,y\na.png,tip,1,2\na.png,tip,1,3\n", "a second time"),
    "latin.csv": ("image,name,x,y\na.png,styloïde,1,2\n".encode("latin-1"), "is no CSV in UTF-8"),
    "wide.csv": ("image,name,x,y\n".encode("utf-16"), "is no CSV in UTF-8"),
    "open_quote.csv": ('image,name,x,y\n"a.png,tip,1,2\n', "is no CSV"),
    "empty.csv": ("", "must name the columns"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_bad_table_of_many_images_is_told_of(tmp_path, name):
    content, told = TABLES[name]
    write(tmp_path / name, content)
    with pytest.raises(InputError) as error:
        read_points(tmp_path / name)
    check_sentence(error, tmp_path / name, told)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_table_with_a_byte_order_mark_or_semicolons_is_imported(tmp_path, mark, delimiter):
    (tmp_path / "films").mkdir()
    FILMS["grey.png"].make(tmp_path / "films" / "a.png")
    text = mark + "Image, name ,x,y\na.png,tip,1.5,2\na.png,base,,\n"
    write(tmp_path / "points.csv", text.replace(",", delimiter))
    import_table(str(tmp_path / "films"), str(tmp_path / "points.csv"), str(tmp_path / "set"), 0, 0)
    (item,) = load_datalist(tmp_path / "set", "training", NAMES)
    assert item["landmarks"] == [[1.5, 2.0], None]


def test_points_of_a_volume_follow_its_space(tmp_path):
    """One place, written in each of the three spaces."""
    affine = np.array([[0, -2, 0, 5], [3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1.0]])
    nifti(tmp_path / "a.nii", np.arange(210, dtype=np.int16).reshape(7, 6, 5), affine)
    image = LoadImaged("image", reader=LandmarkImageReader(3), ensure_channel_first=True)({"image": tmp_path / "a.nii"})
    world = (affine @ [1, 2, 3, 1])[:3]
    rows = {"voxel": [1, 2, 3], "RAS": world, "LPS": world * [-1, -1, 1]}
    for space, row in rows.items():
        text = ",".join(map(str, row))
        (tmp_path / f"{space}.csv").write_text(f"name,x,y,z,space\ntip,{text},{space}\n")
        loaded = LoadLandmarksd("label", names=["tip"])({**image, "landmarks": str(tmp_path / f"{space}.csv")})
        assert np.allclose(loaded["label"][0, 0], world)
