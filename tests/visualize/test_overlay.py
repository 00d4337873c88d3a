import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from common.visualize import draw_overlay, grey_picture
from common.visualize.overlay import ERROR, PREDICTION, TRUTH

NAN, INF = math.nan, math.inf


def picture_of(*arguments, **options):
    """Pixels of an overlay, (rows, columns, 3)."""
    return np.asarray(draw_overlay(*arguments, **options)).astype(int)


def centre(picture, colour):
    """x and y of the middle of all pixels of a colour."""
    rows, columns = np.nonzero((picture == colour).all(-1))
    assert len(rows), f"nothing has the colour {colour}"
    return columns.mean(), rows.mean()


def test_a_point_is_drawn_over_the_pixel_that_it_names():
    """A bright pixel on a dark plane, a truth on it: both have one centre in the picture, whatever its size."""
    plane = torch.zeros(30, 20)
    plane[21, 4] = 1.0
    for size in (30, 600, 1024):
        grey, factor = grey_picture(plane, size)
        assert factor == size / 30 and grey.size == (size, round(20 * factor))
        row, column = ndimage.center_of_mass(np.asarray(grey.convert("L")).astype(float) ** 2)
        x, y = centre(picture_of(plane, truth=[[21.0, 4.0]], min_size=size), TRUTH)
        assert (x, y) == (pytest.approx(column, abs=1), pytest.approx(row, abs=1))
        assert (x, y) == (pytest.approx(21.5 * factor - 0.5, abs=1), pytest.approx(4.5 * factor - 0.5, abs=1))


def test_prediction_truth_and_the_line_between_them_have_their_places_and_colours():
    picture = picture_of(torch.zeros(100, 100), prediction=[[20.0, 50.0]], truth=[[80.0, 50.0]], min_size=1000)
    assert centre(picture, PREDICTION) == (pytest.approx(204.5, abs=1.5), pytest.approx(504.5, abs=1.5))
    assert centre(picture, TRUTH)[0] == pytest.approx(804.5, abs=1.5)
    x, y = centre(picture, ERROR)
    assert 450 < x < 560 and y == pytest.approx(504.5, abs=1.5)


def test_the_first_axis_is_horizontal_and_zero_is_up():
    plane = np.zeros((40, 20))
    plane[35, 2] = 1
    picture = np.asarray(grey_picture(plane, 40)[0].convert("L"))
    assert picture.shape == (20, 40) and np.unravel_index(picture.argmax(), picture.shape) == (2, 35)


@pytest.mark.parametrize("nothing", [[NAN, NAN], [INF, INF]])
def test_points_without_a_position_are_left_out(nothing):
    plain = picture_of(torch.rand(30, 20))
    for prediction, truth in (([nothing], [nothing]), ([nothing], None), (None, [nothing])):
        picture = picture_of(torch.rand(30, 20), prediction, truth, names=["tip"])
        for colour in (PREDICTION, TRUTH, ERROR):
            assert not (picture == colour).all(-1).any()
    assert plain.shape == picture.shape
    missed = picture_of(torch.zeros(30, 20), [nothing], [[5.0, 5.0]], names=["tip"])
    assert centre(missed, TRUTH)
    assert not (missed == ERROR).all(-1).any()


def test_names_are_written_beside_the_points_and_the_title_above():
    dark = torch.zeros(300, 300)
    bare = picture_of(dark, [[150.0, 200.0]])
    named = picture_of(dark, [[150.0, 200.0]], names=["tip"])
    titled = picture_of(dark, [[150.0, 200.0]], title="a film")
    rows, columns = np.nonzero((bare != named).any(-1))
    assert 512 < columns.mean() < 600 and abs(rows.mean() - 690) < 30
    rows, columns = np.nonzero((bare != titled).any(-1))
    assert rows.max() < 40 and columns.min() >= 4


def test_a_name_that_would_cover_another_is_not_written():
    dark, points = torch.zeros(300, 300), [[150.0, 200.0], [152.0, 201.0], [150.0, 100.0]]
    close = picture_of(dark, points, names=["tip", "base", "head"])
    without = picture_of(dark, points, names=["tip", "", "head"])
    assert (close == without).all()
    apart = picture_of(dark, [[150.0, 200.0], [152.0, 240.0], [150.0, 100.0]], names=["tip", "base", "head"])
    assert (
        apart != picture_of(dark, [[150.0, 200.0], [152.0, 240.0], [150.0, 100.0]], names=["tip", "", "head"])
    ).any()


def test_grey_values_are_stretched_so_that_single_outliers_do_not_darken_the_film():
    plane = torch.linspace(1000, 2000, 10000).reshape(100, 100)
    plane[0, 0], plane[99, 99] = -1e6, 1e6
    grey = np.asarray(grey_picture(plane, 100)[0].convert("L")).astype(int)
    assert grey[1:-1, 1:-1].min() < 5 and grey[1:-1, 1:-1].max() > 250
    assert grey[50, 50] == pytest.approx(128, abs=3)


@pytest.mark.parametrize("plane", [torch.full((8, 9), 7.0), torch.zeros(8, 9)])
def test_a_plane_without_contrast_is_drawn_dark(plane):
    assert not np.asarray(grey_picture(plane, 64)[0]).any()


def test_a_large_film_is_not_made_smaller_and_tensors_of_any_kind_are_taken():
    grey, factor = grey_picture(MetaTensor(torch.rand(1200, 900, dtype=torch.float16, requires_grad=True)), 1024)
    assert grey.size == (1200, 900) and factor == 1.0


def test_a_single_landmark_and_none_at_all_are_drawn():
    assert picture_of(torch.rand(30, 20), torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 4.0]])).shape[2] == 3
    assert picture_of(torch.rand(30, 20), np.zeros((0, 2)), np.zeros((0, 2))).shape[2] == 3
    assert picture_of(torch.rand(30, 20)).shape[2] == 3
