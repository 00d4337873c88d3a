"""Two predictions of the same images beside each other, without a truth."""

import csv

import numpy as np
import pytest

from common.bundle.__main__ import main
from common.data.landmark_tables import landmark_table, read_landmark_table, write_landmark_table
from common.errors import InputError
from common.metrics import show_agreement

NAMES = ["a", "b", "c"]
SHAPE = np.array([[0.0, 0, 0], [30, 0, 0], [30, 40, 0]])  # an extent of 50


def write_table(path, shapes, names=NAMES, space="LPS"):
    tables = [
        landmark_table(image, names, np.asarray(world)[:, :2], world, [0.5] * len(names), space=space)
        for image, world in shapes.items()
    ]
    write_landmark_table(path, tables)
    return path


def moved(name, by):
    shape = SHAPE.copy()
    shape[NAMES.index(name)] += by
    return shape


def test_a_table_is_read_as_it_was_written(tmp_path):
    world = {"/x/1.png": SHAPE, "/x/2.png": moved("b", [np.nan] * 3)}
    for space in ("LPS", "RAS"):
        read = read_landmark_table(write_table(tmp_path / f"{space}.csv", world, space=space))
        assert list(read) == list(world) and read["/x/1.png"].names == tuple(NAMES)
        for image, points in world.items():
            np.testing.assert_allclose(read[image].world, points)
            np.testing.assert_allclose(read[image].pixels, points[:, :2])
            np.testing.assert_allclose(read[image].confidence, 0.5)


def test_distances_are_in_percent_of_the_extent_and_the_worst_image_comes_first(tmp_path, capsys):
    first = write_table(tmp_path / "a.csv", {f"/x/{i}.png": SHAPE for i in range(3)})
    other = {"/x/0.png": SHAPE, "/x/1.png": moved("b", [0, 3, 0]), "/x/2.png": moved("a", [0, 0, 6])}
    second = write_table(tmp_path / "b.csv", other | {"/x/9.png": SHAPE}, space="RAS")
    table = tmp_path / "new" / "agreement.csv"
    listed = show_agreement(first, second, max_percent=1.5, table=table)
    assert [each.image for each in listed] == ["/x/2.png", "/x/1.png"]
    assert listed[1].farthest == "b" and listed[1].found_by_one == 0
    assert listed[1].farthest_percent == pytest.approx(100 * 3 / np.hypot(30, 40))
    assert listed[1].mean_percent == pytest.approx(listed[1].farthest_percent / 3)
    out = capsys.readouterr().out.splitlines()
    assert "3 images (1 more are in one file alone)" in out[0] and "2 images lie over 1.5 %" in out[0]
    assert out[1].startswith("  /x/2.png: ") and "(b 6.00 %)" in out[2] and len(out) == 3
    rows = list(csv.DictReader(table.open()))
    assert [row["image"] for row in rows] == ["/x/2.png", "/x/1.png", "/x/0.png"]
    assert rows[1]["mean_percent"] == "2.000" and rows[2]["farthest_percent"] == "0.000"


def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path):
    first = write_table(tmp_path / "a.csv", {"1": SHAPE, "2": moved("a", [1, 0, 0])})
    saved = tmp_path / "saved.csv"
    saved.write_bytes(b"\xef\xbb\xbf" + first.read_bytes().replace(b"\n", b"\r\n"))
    assert show_agreement(first, saved, max_percent=0) == []


def test_landmarks_are_compared_by_their_names(tmp_path):
    first = write_table(tmp_path / "a.csv", {"1": SHAPE})
    second = write_table(tmp_path / "b.csv", {"1": SHAPE[::-1]}, names=NAMES[::-1])
    assert show_agreement(first, second, max_percent=0) == []


def test_a_landmark_that_one_alone_found_is_told(tmp_path, capsys):
    first = write_table(tmp_path / "a.csv", {"1": SHAPE, "2": SHAPE * np.nan})
    second = write_table(tmp_path / "b.csv", {"1": moved("c", [np.nan] * 3), "2": SHAPE})
    listed = show_agreement(first, second, max_percent=50)
    assert [each.found_by_one for each in listed] == [3, 1] and listed[1].mean_percent == 0
    assert listed[1].farthest in ("a", "b")
    out = capsys.readouterr().out
    assert "2: not comparable; 3 found by one alone" in out and "1: 0.00 % (a 0.00 %); 1 found by one alone" in out


def test_a_long_list_is_cut(tmp_path, capsys):
    first = write_table(tmp_path / "a.csv", {str(i): SHAPE for i in range(25)})
    second = write_table(tmp_path / "b.csv", {str(i): SHAPE * 1.1 for i in range(25)})
    assert len(show_agreement(first, second)) == 25
    assert capsys.readouterr().out.endswith("  and 5 more (--table FILE writes all)\n")


def test_what_cannot_be_compared_is_refused_in_a_sentence(tmp_path):
    first = write_table(tmp_path / "a.csv", {"1": SHAPE})
    with pytest.raises(InputError, match="no image in common"):
        show_agreement(first, write_table(tmp_path / "b.csv", {"2": SHAPE}))
    with pytest.raises(InputError, match=r"other landmarks than in .*a.csv \(c\)"):
        show_agreement(first, write_table(tmp_path / "c.csv", {"1": SHAPE}, names=["a", "b", "d"]))
    with pytest.raises(InputError, match="no percentage"):
        show_agreement(first, first, max_percent="5mm")
    with pytest.raises(InputError, match="is a folder"):
        show_agreement(first, first, table=tmp_path)
    one = write_table(tmp_path / "one.csv", {"1": SHAPE[:1]}, names=["a"])
    with pytest.raises(InputError, match="no image has two landmarks"):
        show_agreement(one, one)
    for name, text, reason in [
        ("cut.csv", first.read_text() + "2,a,1.0", "ends in the middle of a row"),
        ("short.csv", first.read_text() + "2", "ends in the middle of a row"),
        ("none.csv", None, "is no landmarks.csv"),
        ("other.csv", "name,x,y\na,1,2\n", "is no landmarks.csv"),
        ("empty.csv", "image,name,pixel_x,pixel_y,lps_x,lps_y,lps_z,confidence\n", "holds no landmarks"),
        ("twice.csv", first.read_text() + first.read_text().splitlines()[1] + "\n", "'a' of 1 twice"),
    ]:
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=reason):
            show_agreement(first, tmp_path / name)


def test_the_command_line_prints_the_sentence_alone(tmp_path, monkeypatch, capsys):
    first = write_table(tmp_path / "a.csv", {"1": SHAPE})
    second = write_table(tmp_path / "b.csv", {"1": SHAPE * 2})
    monkeypatch.setattr("sys.argv", ["bundle", "agreement", str(first), str(second), "--max_percent", "30"])
    main()
    out = capsys.readouterr().out.splitlines()
    assert "35.56 % of" in out[0] and "1 image lies over 30 %" in out[0] and len(out) == 2
