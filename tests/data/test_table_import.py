"""A folder of images and one CSV become a data set."""

import json

import numpy as np
import pytest
from PIL import Image

from common.data import load_datalist, write_datalist
from common.data.atomic_writing import require_folder_name
from common.data.splits import random_lists
from common.data.table_import import import_table
from common.errors import InputError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "films").mkdir()
    for i in range(10):
        Image.fromarray(np.full((8, 6), i, np.uint8)).save(tmp_path / "films" / f"{i}.png")
    rows = [f"{i}.png,{name},{i}.5,{2 * i}" for i in range(9) for name in ("tip", "base")]
    (tmp_path / "points.csv").write_text("image,name,x,y\n" + "\n".join(rows) + "\n")
    return tmp_path


def test_every_annotated_image_is_in_one_list_with_its_points(folder, capsys):
    counts = import_table(
        folder / "films", folder / "points.csv", folder / "set", test=0.2, validation=0.2, spacing=0.1
    )
    assert counts == {"training": 5, "validation": 2, "test": 2}
    assert "9.png" in capsys.readouterr().out  # has no row
    items = [i for name in counts for i in load_datalist(folder / "set", name, ["tip", "base"])]
    by_name = {item["image"].rsplit("/", 1)[-1]: item for item in items}
    assert sorted(by_name) == [f"{i}.png" for i in range(9)]
    assert by_name["3.png"]["landmarks"] == [[3.5, 6.0], [3.5, 6.0]] and by_name["3.png"]["spacing"] == [0.1, 0.1]


def test_predictions_corrected_by_hand_can_be_imported(folder):
    text = "image,name,pixel_x,pixel_y,lps_x,lps_y,lps_z,confidence\n"
    text += "/elsewhere/0.png,tip,1,2,1,2,0,0.9\n0.png,base,,,,,,\n"
    (folder / "landmarks.csv").write_text(text + "1.png,tip,absent,,,,,\n1.png,base,4,5,,,,\n")
    import_table(folder / "films", folder / "landmarks.csv", folder / "set", test=0, validation=0)
    training = json.loads((folder / "set" / "datalist.json").read_text())["training"]
    assert [item["landmarks"] for item in training] == [[[1.0, 2.0], None], ["absent", [4.0, 5.0]]]


def test_a_table_may_state_that_its_coordinates_are_voxels(folder):
    (folder / "stated.csv").write_text("image,name,x,y,space\n0.png,tip,1,2,voxel\n0.png,base,3,4,\n")
    import_table(folder / "films", folder / "stated.csv", folder / "set", test=0, validation=0)
    (item,) = json.loads((folder / "set" / "datalist.json").read_text())["training"]
    assert item["landmarks"] == [[1.0, 2.0], [3.0, 4.0]]


def test_an_import_into_the_folder_of_the_images_can_be_done_again(folder):
    films = folder / "films"
    first = import_table(films, folder / "points.csv", films, test=0.2, validation=0.2)
    lists = json.loads((films / "datalist.json").read_text())
    assert import_table(films, folder / "points.csv", films, test=0.2, validation=0.2) == first
    assert json.loads((films / "datalist.json").read_text()) == lists
    with open(folder / "points.csv", "a") as table:
        table.write("9.png,tip,1,1\n9.png,base,2,2\n")
    assert sum(import_table(films, folder / "points.csv", films).values()) == 10


def test_lists_have_the_sizes_that_are_asked_for(folder):
    images, points, target = folder / "films", folder / "points.csv", folder / "set"
    assert import_table(images, points, target, test=3, validation=2) == {"training": 4, "validation": 2, "test": 3}
    for sizes in ({"test": 0.6, "validation": 0.6}, {"test": -0.5}, {"test": "abc"}, {"test": 9}):
        with pytest.raises(InputError, match="--test|for training; take smaller lists"):
            import_table(images, points, target, **sizes)


def test_the_films_of_a_patient_go_to_one_list(folder):
    rows = []
    for i in range(9):
        (folder / "films" / f"{i}.png").rename(folder / "films" / f"p{i // 3}_{i}.png")
        rows.append(f"p{i // 3}_{i}.png,tip,1,2")
    (folder / "points.csv").write_text("image,name,x,y\n" + "\n".join(rows) + "\n")
    options = {"test": 3, "validation": 3, "groups": "^(p[0-9])_"}
    sizes = import_table(folder / "films", folder / "points.csv", folder / "set", **options)
    assert sizes == {"training": 3, "validation": 3, "test": 3}
    lists = json.loads((folder / "set" / "datalist.json").read_text())
    patients = [{item["group"] for item in lists[key]} for key in sizes]
    assert sorted(patients, key=min) == [{"p0"}, {"p1"}, {"p2"}]


def test_films_of_one_name_in_two_folders_are_refused(folder):
    """As a datalist may list them: a row `film.png` could be of either."""
    for patient in ("p1", "p2"):
        (folder / "set" / patient).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 6), np.uint8)).save(folder / "set" / patient / "film.png")
    items = [{"image": f"{patient}/film.png"} for patient in ("p1", "p2")]
    write_datalist(folder / "set", name="two", landmarks=["tip"], training=items)
    (folder / "one.csv").write_text("image,name,x,y\np1/film.png,tip,1,2\n")
    with pytest.raises(InputError, match="p1/film.png and .*p2/film.png, which a table cannot tell apart; rename one"):
        import_table(folder / "set", folder / "one.csv", folder / "new")


def test_images_that_lack_landmarks_are_told(folder, capsys):
    (folder / "some.csv").write_text("image,name,x,y\n0.png,tip,1,2\n0.png,base,1,2\n1.png,base,3,4\n")
    import_table(folder / "films", folder / "some.csv", folder / "set", test=0, validation=0)
    assert (
        "images that lack landmarks, which are taken as not annotated (1):\n    1.png: tip" in capsys.readouterr().out
    )


@pytest.mark.parametrize("spacing", [0, -0.1, [0.1, 0.2], "0,1", float("nan")])
def test_a_size_of_a_pixel_that_is_none_is_refused(folder, spacing):
    with pytest.raises(InputError, match="--spacing .* is no size of a pixel"):
        import_table(folder / "films", folder / "points.csv", folder / "set", spacing=spacing)
    assert not (folder / "set").exists()


@pytest.mark.parametrize("content", ['{"training": []}', "no JSON", "[]"])
def test_a_datalist_that_no_import_wrote_is_not_replaced(folder, content):
    (folder / "films" / "datalist.json").write_text(content)
    with pytest.raises(InputError, match="datalist.json"):
        import_table(folder / "films", folder / "points.csv", folder / "films")
    (folder / "set").mkdir()
    (folder / "set" / "datalist.json").write_text(content)
    (folder / "films" / "datalist.json").unlink()
    with pytest.raises(InputError, match="was not written by an import; give another --target"):
        import_table(folder / "films", folder / "points.csv", folder / "set")
    assert (folder / "set" / "datalist.json").read_text() == content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,name,x,y\n0.png,Tip,1,1\n1.png,tip,1,1\n", "names 'tip' what .*bad.csv, 0.png names 'Tip'"),
        ("image,name,x,y\n0.png,a b,1,1\n1.png,a_b,1,1\n", "write it in one way"),
        ("image,name,x,y\n0.png,,1,1\n", "has landmarks without a name"),
        ("file,name,x,y\n", "columns image,name,x,y"),
        ("image,name,x,y\n0.png,tip,nan,1\n", "line 2 has the coordinates"),
        ("image,name,x,y\n0.png,tip,1,1\n0.png,tip,2,2\n", "line 3 gives 'tip'"),
        ("image,name,x,y\nother.png,tip,1,1\n", "names no image"),
        ("image,name,x,y,space\n0.png,tip,1,1,LPS\n", "its column space says lps, where .* zero-based file pixels"),
        ("image,name,x,y\n0.png,tip,absent,20\n", "line 2 has the coordinates 'absent', '20'"),
        ("image,name,x,y\na/0.png,tip,1,1\nb/0.png,base,2,2\n", "line 3 has b/0.png, whose name .* in a has too"),
    ],
)
def test_a_malformed_table_is_refused_with_its_name(folder, text, message):
    (folder / "bad.csv").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        import_table(folder / "films", folder / "bad.csv", folder / "set")
    assert "bad.csv" in str(error.value)
    assert not (folder / "set").exists()


def test_a_target_that_is_a_file_and_a_seed_that_is_none_are_refused(tmp_path):
    (tmp_path / "taken").touch()
    for target in (tmp_path / "taken", tmp_path / "taken" / "inside"):
        with pytest.raises(InputError, match="taken is a file; give another --target"):
            require_folder_name(target)
    require_folder_name(tmp_path / "new" / "inside")
    assert not (tmp_path / "new").exists()
    for seed in ("x", -1, 1.5, True):
        with pytest.raises(InputError, match="is no whole number from 0 on"):
            random_lists(["a", "b", "c"], 1, 1, seed)
