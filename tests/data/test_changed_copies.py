"""Points of changed copies lie where the content has gone."""

import shutil

import itk
import numpy as np
import pytest
from PIL import Image

from common.data import load_datalist, write_datalist
from common.data.changed_copies import changed_copies, changes
from common.data.spine import SPINE_LANDMARKS
from common.errors import InputError

CHANGES = list(changes())
SIZE = (120, 160)
POINTS = [[40.0, 60.0], [80.0, 100.0], [60.0, 28.0], [24.0, 90.0]]


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A film of four bright spots on a dark ground, and a landmark on each."""
    folder = tmp_path_factory.mktemp("films")
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    film = 20 + sum(200 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 2.5**2)) for px, py in POINTS)
    Image.fromarray(film.astype(np.uint8)).save(folder / "film.png")
    items = [{"image": "film.png", "landmarks": [*POINTS, None, "absent"], "spacing": [0.2, 0.2]}]
    write_datalist(folder, name="spots", phantom=True, landmarks=[*"abcdef"], training=items, test=items)
    changed_copies(str(folder), str(folder / "copies"))
    return folder / "copies"


def spot_near(film, point):
    """Centroid of the bright spot around a point, by grey values over the ground."""
    x, y = np.meshgrid(np.arange(film.shape[1]), np.arange(film.shape[0]))
    weight = np.clip(film - 60.0, 0, None) * (np.hypot(x - point[0], y - point[1]) < 9)
    return [float((x * weight).sum() / weight.sum()), float((y * weight).sum() / weight.sum())]


@pytest.mark.parametrize("change", CHANGES)
def test_landmarks_lie_on_the_spots_of_the_copy(copies, change):
    (item,) = load_datalist(copies, change)
    film = np.asarray(Image.open(item["image"]), dtype=float)
    film = 255 - film if change == "inverted" else film
    assert item["landmarks"][4:] == [None, "absent"]
    present = [point for point in item["landmarks"][:4] if point is not None]
    assert len(present) >= 3
    for point in present:
        assert spot_near(film, point) == pytest.approx(point, abs=0.4)


def test_what_is_cropped_away_is_not_annotated_in_the_copy(copies):
    lists = {change: load_datalist(copies, change)[0] for change in CHANGES}
    assert [p is None for p in lists["cropped_top"]["landmarks"][:4]] == [False, False, True, False]
    assert [p is None for p in lists["cropped_left"]["landmarks"][:4]] == [False, False, False, True]
    assert Image.open(lists["cropped_top"]["image"]).size == (120, 120)
    assert Image.open(lists["cropped_right"]["image"]).size == (90, 160)


def test_mirrored_and_scaled_points_are_those_computed_by_hand(copies):
    changes = ("mirrored", "smaller", "rotated_left")
    lists = {change: np.array(load_datalist(copies, change)[0]["landmarks"][:4]) for change in changes}
    np.testing.assert_allclose(lists["mirrored"][:, 0], 119 - np.array(POINTS)[:, 0], atol=1e-6)
    middle = (np.array(SIZE) - 1) / 2
    np.testing.assert_allclose(lists["smaller"], middle + 0.7 * (np.array(POINTS) - middle), atol=1e-6)
    turned = lists["rotated_left"] - lists["rotated_left"][:1]  # counterclockwise, y down
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    expected = (np.array(POINTS) - POINTS[0]) @ np.array([[cos, -sin], [sin, cos]])
    np.testing.assert_allclose(turned, expected, atol=1e-6)


def test_left_corners_of_vertebrae_are_on_the_left_of_a_mirrored_film_too(tmp_path):
    Image.fromarray(np.zeros((400, 100), np.uint8)).save(tmp_path / "film.png")
    corners = [[x, 5.0 * i + y] for i in range(17) for y in (10, 13) for x in (30.0, 50.0)]
    items = [{"image": "film.png", "landmarks": [*corners[:-1], None]}]
    write_datalist(tmp_path, name="spine", phantom=True, landmarks=list(SPINE_LANDMARKS), test=items)
    changed_copies(str(tmp_path), str(tmp_path / "copies"))
    (item,) = load_datalist(tmp_path / "copies", "mirrored")
    expected = [[x, y] for _, y in corners[::2] for x in (49.0, 69.0)]
    assert item["landmarks"] == [*expected[:-2], None, expected[-1]]
    (item,) = load_datalist(tmp_path / "copies", "unchanged")
    assert item["landmarks"] == [*corners[:-1], None]


@pytest.mark.parametrize("change", ["unchanged", "rotated_left", "smaller", "cropped_top"])
def test_films_whose_pixels_are_not_square_are_copied_with_square_ones(tmp_path, change):
    """0.5 mm wide, 1 mm high: a spot that is round in the world is round in the copy, and its point on it."""
    x, y = np.meshgrid(np.arange(240), np.arange(80))
    spots = [[80.0, 30.0], [160.0, 50.0]]
    film = 20 + sum(200 * np.exp(-(((x - px) / 8) ** 2 + ((y - py) / 4) ** 2) / 2) for px, py in spots)
    image = itk.image_from_array(film.astype(np.float32)[None])
    image.SetSpacing([0.5, 1.0, 1.0])
    itk.imwrite(image, str(tmp_path / "film.mha"))
    items = [{"image": "film.mha", "landmarks": spots}]
    write_datalist(tmp_path, name="spots", phantom=True, landmarks=["a", "b"], test=items)
    changed_copies(str(tmp_path), str(tmp_path / "copies"))
    (item,) = load_datalist(tmp_path / "copies", change)
    assert item["spacing"] == pytest.approx([0.5 / (0.7 if change == "smaller" else 1)] * 2)
    copy = np.asarray(Image.open(item["image"]), dtype=float)
    for point in item["landmarks"]:
        assert spot_near(copy, point) == pytest.approx(point, abs=0.4)
        x, y = np.meshgrid(np.arange(copy.shape[1]), np.arange(copy.shape[0]))
        weight = np.clip(copy - 60.0, 0, None) * (np.hypot(x - point[0], y - point[1]) < 30)
        spread = [np.sqrt((weight * (a - p) ** 2).sum() / weight.sum()) for a, p in ((x, point[0]), (y, point[1]))]
        assert spread[0] == pytest.approx(spread[1], rel=0.05)


def test_copies_keep_the_size_of_a_pixel_in_millimetres(copies):
    spacings = {change: load_datalist(copies, change)[0]["spacing"] for change in CHANGES}
    assert spacings["unchanged"] == pytest.approx([0.2, 0.2]) == spacings["rotated_right"]
    assert spacings["smaller"] == pytest.approx([0.2 / 0.7] * 2)
    assert spacings["larger"] == pytest.approx([0.2 / 1.3] * 2)


def test_a_reference_of_known_length_gives_millimetres_to_copies_that_have_lost_it(copies, tmp_path):
    items = [{"image": load_datalist(copies, "unchanged")[0]["image"], "landmarks": POINTS}]
    write_datalist(tmp_path, name="unknown size", phantom=True, landmarks=[*"abcd"], test=items)
    changed_copies(str(tmp_path), str(tmp_path / "without"))
    assert "spacing" not in load_datalist(tmp_path / "without", "unchanged")[0]
    changed_copies(str(tmp_path), str(tmp_path / "with"), reference_points=[1, 2], reference_length=50.0)
    (item,) = load_datalist(tmp_path / "with", "cropped_top")
    assert item["landmarks"][2] is None
    assert item["spacing"] == pytest.approx([50 / np.hypot(20, 72)] * 2)


def test_a_reference_whose_ends_are_on_one_place_gives_no_millimetres(copies, tmp_path):
    points = [*POINTS[:3], [POINTS[2][0] + 0.5, POINTS[2][1]]]  # half a pixel as 50 mm: errors would be metres
    items = [{"image": load_datalist(copies, "unchanged")[0]["image"], "landmarks": points}]
    write_datalist(tmp_path, name="odd", phantom=True, landmarks=[*"abcd"], test=items)
    reference = {"reference_points": [2, 3], "reference_length": 50.0}
    changed_copies(str(tmp_path), str(tmp_path / "copies"), **reference)
    assert "spacing" not in load_datalist(tmp_path / "copies", "unchanged")[0]
    changed_copies(str(tmp_path), str(tmp_path / "believed"), **reference, reference_min_share=0.001)
    assert load_datalist(tmp_path / "believed", "unchanged")[0]["spacing"] == pytest.approx([100, 100])


def test_a_data_set_without_names_is_refused_since_its_files_may_have_any_order(copies, tmp_path):
    write_datalist(tmp_path, name="unnamed", phantom=True, test=load_datalist(copies, "unchanged"))
    with pytest.raises(InputError, match="names no landmarks; list their names under 'landmarks'"):
        changed_copies(str(tmp_path), str(tmp_path / "copies"))


def test_a_folder_that_is_there_is_refused_and_a_failure_leaves_nothing(copies, tmp_path):
    with pytest.raises(InputError, match="is there already"):
        changed_copies(str(copies.parent / "datalist.json"), str(copies.parent))
    good = load_datalist(copies, "unchanged")
    (tmp_path / "bad.png").write_bytes(b"no image")
    items = [*good, {"image": str(tmp_path / "bad.png"), "landmarks": good[0]["landmarks"]}]
    write_datalist(tmp_path, name="bad", phantom=True, landmarks=[*"abcdef"], test=items)
    with pytest.raises(InputError, match="bad.png"):
        changed_copies(str(tmp_path), str(tmp_path / "copies"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.png", "datalist.json"]
    write_datalist(tmp_path, name="good", phantom=True, landmarks=[*"abcdef"], test=good)
    assert set(changed_copies(str(tmp_path), str(tmp_path / "copies"))) == set(CHANGES)


def test_how_much_is_changed_is_a_setting(copies, tmp_path):
    folder = copies.parent
    changed_copies(str(folder), str(tmp_path / "less"), degrees=10, smaller=0.9, larger=1.1, cropped=0.1)
    lists = {change: load_datalist(tmp_path / "less", change)[0] for change in CHANGES}
    assert Image.open(lists["cropped_top"]["image"]).size == (120, 144)
    assert lists["smaller"]["spacing"] == pytest.approx([0.2 / 0.9] * 2)
    assert lists["larger"]["spacing"] == pytest.approx([0.2 / 1.1] * 2)
    turned = np.array(lists["rotated_right"]["landmarks"][:2])
    across = np.subtract(turned[1], turned[0])
    before = np.subtract(POINTS[1], POINTS[0])
    assert np.degrees(np.arctan2(across[1], across[0]) - np.arctan2(before[1], before[0])) == pytest.approx(
        10, abs=0.01
    )


def test_every_third_image_is_copied_beginning_with_the_first(copies, tmp_path):
    film = load_datalist(copies, "unchanged")[0]
    items = []
    for number in range(4):
        shutil.copy(film["image"], tmp_path / f"{number}.png")
        items.append({**film, "image": str(tmp_path / f"{number}.png"), "group": f"patient {number}"})
    write_datalist(tmp_path, name="four", phantom=True, landmarks=[*"abcdef"], test=items)
    changed_copies(str(tmp_path), str(tmp_path / "copies"), every=3)
    assert [item["group"] for item in load_datalist(tmp_path / "copies", "mirrored")] == ["patient 0", "patient 3"]
    for every in (0, 1.5, "three", True):
        with pytest.raises(InputError, match=f"^--every {every}: is not a whole number"):
            changed_copies(str(tmp_path), str(tmp_path / "others"), every=every)


@pytest.mark.parametrize(
    ("name", "value"), [("degrees", 0), ("degrees", "ten"), ("smaller", 1.2), ("larger", 0.5), ("cropped", 25)]
)
def test_a_change_out_of_its_range_is_refused(copies, tmp_path, name, value):
    with pytest.raises(InputError, match=f"^--{name} {value}: is not between"):
        changed_copies(str(copies.parent), str(tmp_path / "copies"), **{name: value})
    assert not (tmp_path / "copies").exists()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"reference_points": [0, 99]}, "are not two of the"),
        ({"reference_points": 3}, "are not two of the"),
        ({"reference_points": [[0, 1], []]}, "are not two of the"),
        ({"reference_points": [0, 1], "reference_length": "x"}, "is no positive number of millimetres"),
        ({"reference_points": [0, 1]}, "is no positive number of millimetres"),
    ],
)
def test_a_reference_that_is_none_is_refused(copies, tmp_path, settings, match):
    with pytest.raises(InputError, match=match):
        changed_copies(str(copies.parent), str(tmp_path / "copies"), **settings)
    assert not (tmp_path / "copies").exists()
