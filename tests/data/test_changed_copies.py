"""Points of changed copies lie where the content has gone."""

import numpy as np
import pytest
from PIL import Image

from common.data import load_datalist, write_datalist
from common.data.changed_copies import CHANGES, changed_copies
from common.errors import InputError

SIZE = (120, 160)
POINTS = [[40.0, 60.0], [80.0, 100.0], [60.0, 28.0], [24.0, 90.0]]


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A film of four bright spots on a dark ground, and a landmark on each."""
    folder = tmp_path_factory.mktemp("films")
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    film = 20 + sum(200 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 2.5**2)) for px, py in POINTS)
    Image.fromarray(film.astype(np.uint8)).save(folder / "film.png")
    items = [{"image": "film.png", "landmarks": POINTS}]
    write_datalist(folder, name="spots", phantom=True, landmarks=[*"abcd"], training=items, test=items)
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
    present = [point for point in item["landmarks"] if point is not None]
    assert len(present) >= 3
    for point in present:
        assert spot_near(film, point) == pytest.approx(point, abs=0.4)


def test_what_is_cropped_away_is_not_annotated_in_the_copy(copies):
    lists = {change: load_datalist(copies, change)[0] for change in CHANGES}
    assert [p is None for p in lists["cropped_top"]["landmarks"]] == [False, False, True, False]
    assert [p is None for p in lists["cropped_left"]["landmarks"]] == [False, False, False, True]
    assert Image.open(lists["cropped_top"]["image"]).size == (120, 120)
    assert Image.open(lists["cropped_right"]["image"]).size == (90, 160)


def test_mirrored_and_scaled_points_are_those_computed_by_hand(copies):
    changes = ("mirrored", "smaller", "rotated_left")
    lists = {change: np.array(load_datalist(copies, change)[0]["landmarks"]) for change in changes}
    np.testing.assert_allclose(lists["mirrored"][:, 0], 119 - np.array(POINTS)[:, 0], atol=1e-6)
    middle = (np.array(SIZE) - 1) / 2
    np.testing.assert_allclose(lists["smaller"], middle + 0.7 * (np.array(POINTS) - middle), atol=1e-6)
    assert np.linalg.norm(lists["rotated_left"][0] - lists["rotated_left"][1]) == pytest.approx(np.hypot(40, 40))


def test_copies_beside_their_own_source_are_refused(copies):
    with pytest.raises(InputError, match="is the source itself"):
        changed_copies(str(copies), str(copies), "mirrored")
