import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from common.data import phantoms
from common.data.phantom_spine import draw_spine
from common.data.phantom_spine_anatomy import SpineAnatomy, vertebral_tilts
from common.data.phantoms import phantom_dataset
from common.data.spine import SPINE_LANDMARKS

TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT = range(4)


@pytest.fixture(scope="module")
def films():
    return [draw_spine(np.random.default_rng([1, k])) for k in range(6)]


def corners(points):
    return points.reshape(17, 4, 2)


def tilts(points):
    """Degrees of the vectors from the middle of the left corners to the middle of the right, per vertebra."""
    c = corners(points)
    x, y = (c[:, [TOP_RIGHT, BOTTOM_RIGHT]].mean(1) - c[:, [TOP_LEFT, BOTTOM_LEFT]].mean(1)).T
    return np.degrees(np.arctan2(y, x))


def largest_cobb(points):
    angles = tilts(points)
    return max(abs(first - second) for first in angles for second in angles)


def grey_at(image, places):
    return map_coordinates(image.astype(float), places, order=1, mode="nearest")


def test_the_landmarks_are_four_corners_of_each_vertebra_from_t1_to_l5():
    assert len(SPINE_LANDMARKS) == len(set(SPINE_LANDMARKS)) == 68
    assert SPINE_LANDMARKS[:4] == ("T1_top_left", "T1_top_right", "T1_bottom_left", "T1_bottom_right")
    assert SPINE_LANDMARKS[48] == "L1_top_left" and SPINE_LANDMARKS[-1] == "L5_bottom_right"


def test_the_same_seed_draws_the_same_bytes_and_another_seed_does_not():
    image, points = draw_spine(np.random.default_rng(4), (96, 256))
    again, points_again = draw_spine(np.random.default_rng(4), (96, 256))
    other, _ = draw_spine(np.random.default_rng(5), (96, 256))
    assert image.shape == (96, 256) and image.dtype == np.uint8 and points.dtype == np.float64
    assert image.tobytes() == again.tobytes() and np.array_equal(points, points_again)
    assert image.tobytes() != other.tobytes()


@pytest.mark.parametrize("cobb", [8.0, 45.0, 90.0])
@pytest.mark.parametrize("curves", [1, 2, 3])
def test_all_points_lie_inside_the_film_whatever_the_curve(cobb, curves):
    for seed in range(2):
        image, points = draw_spine(np.random.default_rng([2, seed]), (96, 256), cobb=cobb, curves=curves)
        assert points.shape == (68, 2) and np.isfinite(points).all()
        assert (points >= 1).all() and (points <= np.array(image.shape) - 2).all()


def test_corners_are_left_and_right_above_and_below_and_vertebrae_go_down(films):
    for _, points in films:
        c = corners(points)
        assert (c[:, TOP_LEFT, 0] < c[:, TOP_RIGHT, 0]).all() and (c[:, BOTTOM_LEFT, 0] < c[:, BOTTOM_RIGHT, 0]).all()
        assert (c[:, TOP_LEFT, 1] < c[:, BOTTOM_LEFT, 1]).all() and (c[:, TOP_RIGHT, 1] < c[:, BOTTOM_RIGHT, 1]).all()
        assert (np.diff(c.mean(1)[:, 1]) > 0).all()
        assert (c[1:, [TOP_LEFT, TOP_RIGHT], 1] > c[:-1, [BOTTOM_LEFT, BOTTOM_RIGHT], 1]).all()  # discs between
        width = np.linalg.norm(c[:, TOP_RIGHT] - c[:, TOP_LEFT], axis=1)
        assert width[16] > 1.3 * width[4]


@pytest.mark.parametrize("cobb", [10.0, 37.5, 80.0])
@pytest.mark.parametrize("curves", [1, 2, 3])
def test_the_corners_have_exactly_the_cobb_angle_that_was_asked_for(cobb, curves):
    _, points = draw_spine(np.random.default_rng([3, curves]), (96, 256), cobb=cobb, curves=curves)
    assert largest_cobb(points) == pytest.approx(cobb, abs=1e-6)


def test_cobb_angles_span_healthy_to_severe_without_being_asked_for():
    angles = []
    for seed in range(60):
        rng = np.random.default_rng([4, seed])
        # The first draws of a picture decide on its curve.
        cobb = float(np.clip(4 + rng.gamma(2.6, 13.5), 4, 90))
        angles.append(cobb)
        if seed % 20 == 0:
            _, points = draw_spine(np.random.default_rng([4, seed]), (48, 128))
            assert largest_cobb(points) == pytest.approx(cobb, abs=1e-6)
    assert min(angles) < 15 and max(angles) > 70 and 28 < np.median(angles) < 48


def test_spines_are_c_shaped_or_s_shaped_as_asked_for():
    def bows(points):
        """How far the middles of the vertebrae lie to each side of the line from T1 to L5."""
        middle = corners(points).mean(1)
        line = middle[16] - middle[0]
        aside = (line[0] * (middle - middle[0])[:, 1] - line[1] * (middle - middle[0])[:, 0]) / (line**2).sum()
        return np.sort([aside.max(), -aside.min()])

    for seed in range(5):
        plans = {}
        for curves in (1, 2):
            rng = np.random.default_rng([5, seed])
            plans[curves] = SpineAnatomy(rng, vertebral_tilts(rng, 50, curves)).corners[1:18].reshape(-1, 2)
        small, large = bows(plans[1])
        assert small < 0.15 * large
        small, large = bows(plans[2])
        assert small > 0.05 * large


def test_the_curve_bends_to_either_side():
    signs = set()
    for seed in range(8):
        rng = np.random.default_rng([6, seed])
        angles = vertebral_tilts(rng, 50, curves=1)
        signs.add(np.sign(angles[4] - angles[14]))
    assert signs == {-1, 1}


def test_bodies_are_brighter_than_the_discs_between_them(films):
    for image, points in films:
        c = corners(points)
        gaps = []
        for upper, lower in zip(c[4:-1], c[5:]):
            disc = np.concatenate([upper[[BOTTOM_LEFT, BOTTOM_RIGHT]], lower[[TOP_LEFT, TOP_RIGHT]]]).mean(0)
            across = upper[BOTTOM_RIGHT] - upper[BOTTOM_LEFT]
            steps = np.linspace(-0.25, 0.25, 9)[:, None] * across
            body = np.mean([grey_at(image, (v.mean(0) + steps).T).mean() for v in (upper, lower)])
            gaps.append(body - grey_at(image, (disc + steps).T).mean())
        assert np.mean(np.array(gaps) > 2) > 0.85 and np.median(gaps) > 5


def test_end_plates_lie_within_a_pixel_of_the_line_between_their_corners(films):
    offsets = []
    for image, points in films:
        for vertebra in corners(points)[5:]:
            centre = vertebra.mean(0)
            for left, right in ((TOP_LEFT, TOP_RIGHT), (BOTTOM_LEFT, BOTTOM_RIGHT)):
                for share in (0.09, 0.91):  # near the corners, where plates do not sag
                    at = vertebra[left] + share * (vertebra[right] - vertebra[left])
                    out = np.array([1.0, -1.0]) * (vertebra[right] - vertebra[left])[::-1]
                    out = out / np.linalg.norm(out) * np.sign(out @ (at - centre))
                    along = np.arange(-4, 4.1, 0.25)
                    grey = grey_at(image, (at + along[:, None] * out).T)
                    smooth = np.convolve(grey, np.ones(5) / 5, "same")
                    offsets.append(along[4:-4][np.gradient(smooth)[4:-4].argmin()])
    assert abs(np.median(offsets)) <= 0.75
    assert np.mean(np.abs(offsets) <= 1.5) > 0.75


def test_neighbouring_vertebrae_look_alike_and_more_than_what_lies_beside_them(films):
    def patch(image, vertebra, aside=0.0):
        centre = vertebra.mean(0)
        right = vertebra[[TOP_RIGHT, BOTTOM_RIGHT]].mean(0) - vertebra[[TOP_LEFT, BOTTOM_LEFT]].mean(0)
        below = vertebra[[BOTTOM_LEFT, BOTTOM_RIGHT]].mean(0) - vertebra[[TOP_LEFT, TOP_RIGHT]].mean(0)
        u, v = np.meshgrid(np.linspace(-0.7, 0.7, 25), np.linspace(-0.8, 0.8, 21), indexing="ij")
        grey = grey_at(image, centre[:, None, None] + right[:, None, None] * (u + aside) + below[:, None, None] * v)
        return (grey - grey.mean()) / (grey.std() + 1e-6)

    alike, beside = [], []
    for image, points in films:
        c = corners(points)
        for k in range(2, 16):
            alike.append((patch(image, c[k]) * patch(image, c[k + 1])).mean())
            beside.append((patch(image, c[k]) * patch(image, c[k], aside=1.2)).mean())
    assert np.median(alike) > 0.65 and np.median(beside) < 0.3


def test_look_alikes_stand_above_t1_and_below_l5():
    rng = np.random.default_rng(7)
    trunk = SpineAnatomy(rng, vertebral_tilts(rng, 30, 2))
    assert trunk.corners.shape == (19, 4, 2)
    middle = trunk.corners.mean(1)
    assert middle[0, 1] < middle[1, 1] and middle[18, 1] > middle[17, 1]


def test_the_heart_lies_to_the_right_of_the_picture(films):
    more = []
    for image, points in films:
        c = corners(points)
        middle, width = c[8].mean(0), np.linalg.norm(c[8, TOP_RIGHT] - c[8, TOP_LEFT])
        reach = np.linspace(0.9, 1.4, 9) * width
        right, left = (
            grey_at(image, np.stack([middle[0] + side * reach, np.full(9, middle[1])])).mean() for side in (1, -1)
        )
        more.append(right - left)
    assert np.median(more) > 5


def test_the_set_is_registered_with_its_names_and_without_a_pixel_spacing(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_DATA_DIRECTORY", str(tmp_path))
    sizes = {"tiny": ((48, 128), {"training": 2, "test": 1})}
    spine = dataclasses.replace(phantoms.ANATOMIES["spine"], sizes=sizes)
    monkeypatch.setitem(phantoms.ANATOMIES, "spine", spine)
    datalist = json.loads((Path(phantom_dataset("spine", "tiny")) / "datalist.json").read_text())
    assert datalist["landmarks"] == list(SPINE_LANDMARKS)
    assert all("spacing" not in item and np.shape(item["landmarks"]) == (68, 2) for item in datalist["training"])
