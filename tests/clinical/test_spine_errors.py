import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from common.clinical import (
    L4_L5_CENTROIDS,
    L4_L5_MM,
    image_fractions,
    mean_squared_fraction,
    pooled_correlation,
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
    image = SimpleNamespace(meta={"filename_or_obj": "spine.jpg", "original_affine": np.eye(4)})
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
