import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from common.clinical import (
    L4_L5_CENTROIDS,
    L4_L5_MM,
    counting_errors,
    image_fractions,
    mean_squared_fraction,
    pooled_correlation,
    vertebra_levels,
)
from common.transforms import MillimetreScaled


def test_ten_pixels_on_a_hundred_make_a_mean_squared_error_of_a_hundredth():
    truth = torch.tensor([[[50.0, 100.0], [20.0, 40.0]]])
    size = torch.tensor([[100.0, 200.0]])
    pred = truth + torch.tensor([10.0, 20.0])
    assert mean_squared_fraction(image_fractions(pred, size), image_fractions(truth, size)) == pytest.approx(0.01)


def test_points_without_a_position_enter_neither_error_nor_correlation():
    rng = np.random.default_rng(0)
    truth = torch.tensor(rng.random((3, 5, 2)))
    pred = truth + torch.tensor(rng.normal(size=(3, 5, 2))) * 0.1
    keep = torch.ones(3, 5, dtype=torch.bool)
    keep[0, 1] = keep[2, 4] = False
    expected_mse = float((pred - truth)[keep].square().mean())
    expected_rho = pearsonr(pred[keep].flatten(), truth[keep].flatten()).statistic
    truth[0, 1] = torch.nan
    pred[2, 4] = torch.inf
    assert mean_squared_fraction(pred, truth) == pytest.approx(expected_mse)
    assert pooled_correlation(pred, truth) == pytest.approx(expected_rho)


def test_a_correlation_of_nothing_is_nan():
    nothing = torch.full((1, 2, 2), torch.nan)
    assert math.isnan(pooled_correlation(nothing, nothing))


def scale(label, **options):
    image = SimpleNamespace(meta={"filename_or_obj": "spine.jpg", "original_affine": np.eye(4)}, ndim=3)
    scaled = MillimetreScaled(reference_points=L4_L5_CENTROIDS, reference_length=L4_L5_MM, **options)
    return scaled({"image": image, "label": label})


def spine_of_vertebrae_70_apart():
    middles = torch.stack([torch.zeros(17), 70.0 * torch.arange(17)], 1)
    corners = torch.tensor([[-40.0, -25.0], [40, -25], [-40, 25], [40, 25]])
    return (middles[:, None] + corners).reshape(1, 68, 2).double()


def test_l4_to_l5_are_35_mm_between_centroids():
    label = spine_of_vertebrae_70_apart()
    label[0, 60:64] += torch.tensor([[3.0, 0], [-3, 0], [0, 5], [0, -5]])  # corners move, their centroid does not
    item = scale(label)
    assert item["mm_per_world"] == pytest.approx(0.5) and item["unit"] == "mm"


def test_l4_and_l5_annotated_on_one_vertebra_leave_pixels():
    """Four of the 481 films of the challenge are so; 35 mm over the few pixels between them would be metres."""
    label = spine_of_vertebrae_70_apart()
    label[0, 64:] = label[0, 60:64] + 2.0  # 2.8 of 1055 pixels
    assert scale(label)["unit"] == "mm"
    item = scale(label, reference_min_share=0.01)
    assert item["mm_per_world"] == 1 and item["unit"] == "pixel"
    assert scale(spine_of_vertebrae_70_apart(), reference_min_share=0.01)["mm_per_world"] == pytest.approx(0.5)


def test_a_missing_corner_of_l5_leaves_pixels():
    label = spine_of_vertebrae_70_apart()
    label[0, 66] = torch.nan
    item = scale(label)
    assert item["mm_per_world"] == 1 and item["unit"] == "pixel"


def spine(levels):
    """A film (1, 68, 2) whose vertebrae lie at the given levels of a column with 20 pixels from one to the next."""
    corners = torch.tensor([[-10.0, -6], [10, -6], [-10, 6], [10, 6]])
    middles = torch.stack([torch.full((len(levels),), 50.0), 20.0 * torch.tensor(levels)], 1)
    return (middles[:, None] + corners).reshape(1, -1, 2)


ALL = [float(level) for level in range(17)]
COLUMNS = {
    "as it is": (ALL, (0, 0, 0, 0, 0)),
    "0.4 of a level too low": ([level + 0.4 for level in ALL], (0, 0, 0, 0, 0)),
    "the sixth twice, and right from the eighth": ([*ALL[:6], 5.1, *ALL[7:]], (1, 0, 1, 1, 1)),
    "the sixth skipped, and so one too low to the end": ([*ALL[:5], *ALL[6:], 16.0], (1, 0, 1, 1, 11)),
    "one too high from the third": ([*ALL[:2], *[level - 1 for level in ALL[2:]]], (1, 0, 1, 1, 15)),
    "all one too high": ([level - 1 for level in ALL], (1, 1, 1, 1, 16)),
    "all two too low": ([level + 2 for level in ALL], (1, 1, 2, 1, 16)),
    "two exchanged": ([*ALL[:8], 9.0, 8.0, *ALL[10:]], (1, 0, 0, 0, 2)),
}


@pytest.mark.parametrize("how", COLUMNS)
def test_vertebrae_that_are_skipped_or_counted_twice_are_counted(how):
    levels, expected = COLUMNS[how]
    names = ("films_with_errors", "films_shifted", "skipped", "counted_twice", "misnumbered")
    assert counting_errors(spine(levels), spine(ALL)) == {"films": 1, **dict(zip(names, expected))}
    two = counting_errors(torch.cat([spine(ALL), spine(levels)]), torch.cat([spine(ALL)] * 2))
    assert two == {"films": 2, **dict(zip(names, expected))}
    assert vertebra_levels(spine(levels), spine(ALL)).tolist() == [[min(16, max(0, round(level))) for level in levels]]


def test_films_with_a_vertebra_that_is_not_known_are_not_counted():
    pred, truth = torch.cat([spine(ALL)] * 3), torch.cat([spine(ALL)] * 3)
    pred[0, 7], truth[1, 9] = torch.inf, torch.nan
    levels = vertebra_levels(pred, truth)
    assert levels[0].tolist() == [0, -1, *range(2, 17)]
    assert levels[1].tolist() == [-1] * 17
    assert counting_errors(pred, truth)["films"] == 1
