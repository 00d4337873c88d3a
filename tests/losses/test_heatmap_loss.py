import itertools
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.losses import HeatmapLoss

NAN, INF = math.nan, math.inf
SIGMAS = [1.5, 2.0, 0.8]


def gaussian(point, pixel, sigma, scale, normalised):
    """Value of one pixel of one target, in plain Python."""
    squared = sum((p - x) ** 2 for p, x in zip(point, pixel))
    height = scale / (math.sqrt(2 * math.pi) * sigma) ** len(pixel) if normalised else scale
    return height * math.exp(-squared / (2 * sigma**2))


def prediction(batch=2, landmarks=3, size=(7, 5)):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(batch, landmarks, *size))).float()


POINTS = [[[2.25, 3.5], [6.0, 0.0], [1.0, 1.75]], [[0.5, 0.5], [3.0, 2.0], [5.5, 4.0]]]


def loss_of_the_paper(heatmaps, points, sigmas, scale, alpha):
    """payer2019, Eqs. 1 to 4, by loops: half the squared differences of all pixels and landmarks of an image, plus
    alpha times half the squared sigmas, as a mean over the images."""
    total = 0.0
    for image, places in zip(heatmaps.tolist(), points):
        for heatmap, point, sigma in zip(image, places, sigmas):
            for x, y in itertools.product(range(len(heatmap)), range(len(heatmap[0]))):
                total += 0.5 * (heatmap[x][y] - gaussian(point, (x, y), sigma, scale, True)) ** 2
            total += alpha * 0.5 * sigma**2
    return total / len(points)


def test_the_sum_is_the_loss_of_the_paper():
    heatmaps = prediction()
    loss = HeatmapLoss(3, 2, 1.0, amplitude="normalised", scale=100.0, learnable_sigma=True, sigma_weight=20.0)
    loss.sigma.data = torch.tensor(SIGMAS)
    expected = loss_of_the_paper(heatmaps, POINTS, SIGMAS, 100.0, 20.0)
    assert loss(heatmaps, torch.tensor(POINTS)).item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_sigma_is_that_of_the_paper_by_differences():
    """The sigmas are learned through the target and held back by their own term."""
    heatmaps = prediction()
    loss = HeatmapLoss(3, 2, 1.0, amplitude="normalised", scale=100.0, learnable_sigma=True, sigma_weight=20.0)
    loss.sigma.data = torch.tensor(SIGMAS)
    loss(heatmaps, torch.tensor(POINTS)).backward()
    for i in range(3):
        above, below = list(SIGMAS), list(SIGMAS)
        above[i] += 1e-4
        below[i] -= 1e-4
        slope = (
            loss_of_the_paper(heatmaps, POINTS, above, 100.0, 20.0)
            - loss_of_the_paper(heatmaps, POINTS, below, 100.0, 20.0)
        ) / 2e-4
        assert loss.sigma.grad[i].item() == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("nowhere", [NAN, INF])
def test_sigmas_of_landmarks_without_a_position_are_neither_pulled_nor_pushed(nowhere):
    points = torch.tensor(POINTS)
    points[:, 1] = nowhere
    loss = HeatmapLoss(3, 2, 2.0, learnable_sigma=True, sigma_weight=20.0)
    with_term = loss(torch.zeros(2, 3, 7, 5), points)
    without = HeatmapLoss(3, 2, 2.0)(torch.zeros(2, 3, 7, 5), points)
    # two landmarks of three are left in both images: 20 * half of two times 2 squared
    assert (with_term - without).item() == pytest.approx(20 * 0.5 * 2 * 4.0, rel=1e-5)
    with_term.backward()
    assert loss.sigma.grad[1] == 0 and loss.sigma.grad[0] != 0


def test_a_landmark_that_one_image_lacks_counts_in_the_other():
    points = torch.tensor(POINTS)
    points[0, 2] = NAN
    loss = HeatmapLoss(3, 2, 2.0, sigma_weight=1.0)(torch.zeros(2, 3, 7, 5), points)
    none = HeatmapLoss(3, 2, 2.0)(torch.zeros(2, 3, 7, 5), points)
    assert (loss - none).item() == pytest.approx(0.5 * 5 * 4.0 / 2, rel=1e-5)


def test_the_mean_weighs_the_pixels_under_the_peak_and_averages_over_annotated_landmarks():
    heatmaps = prediction()
    points = [[POINTS[0][0], [NAN, NAN], POINTS[0][2]], [[INF, INF], POINTS[1][1], POINTS[1][2]]]
    total, voxels = 0.0, 0
    for image, places in zip(heatmaps.tolist(), points):
        for heatmap, point in zip(image, places):
            if math.isnan(point[0]):
                continue
            for x, y in itertools.product(range(7), range(5)):
                target = 0.0 if math.isinf(point[0]) else gaussian(point, (x, y), 1.5, 4.0, False)
                total += (1 + 20 * target / 4) * (heatmap[x][y] - target) ** 2
                voxels += 1
    loss = HeatmapLoss(3, 2, 1.5, scale=4.0, reduction="mean", peak_weight=20.0, weight=100.0)
    assert voxels == 5 * 35
    assert loss(heatmaps, torch.tensor(points)).item() == pytest.approx(100 * total / voxels, rel=1e-5)


def test_a_perfect_prediction_costs_nothing_but_its_sigmas():
    size = (9, 8, 7)
    points = [[[4.0, 4.5, 3.0]]]
    heatmap = torch.zeros(1, 1, *size)
    for voxel in itertools.product(*map(range, size)):
        heatmap[0, 0][voxel] = gaussian(points[0][0], voxel, 1.5, 1.0, False)
    assert HeatmapLoss(1, 3, 1.5)(heatmap, torch.tensor(points)).item() == pytest.approx(0, abs=1e-10)
    assert HeatmapLoss(1, 3, 1.5, reduction="mean")(heatmap, torch.tensor(points)).item() == pytest.approx(0, abs=1e-10)


def test_an_unannotated_landmark_costs_nothing_whatever_is_predicted():
    points = torch.full((1, 1, 2), NAN)
    for reduction in ("sum", "mean"):
        heatmaps = torch.full((1, 1, 7, 5), 9.0, requires_grad=True)
        loss = HeatmapLoss(1, 2, 2.0, reduction=reduction)(heatmaps, points)
        loss.backward()
        assert loss == 0 and (heatmaps.grad == 0).all()


def test_an_absent_landmark_is_to_be_predicted_as_zeros():
    heatmaps = torch.full((1, 1, 7, 5), 3.0)
    points = torch.full((1, 1, 2), INF)
    assert HeatmapLoss(1, 2, 2.0)(heatmaps, points).item() == pytest.approx(0.5 * 35 * 9)
    assert HeatmapLoss(1, 2, 2.0, reduction="mean")(heatmaps, points).item() == pytest.approx(9)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradients_are_finite_with_missing_absent_and_distant_landmarks(kind, reduction):
    points = torch.tensor([[[2.0, 3.0], [NAN, NAN], [INF, INF], [1e6, -1e6]]])
    heatmaps = torch.rand(1, 4, 7, 5, requires_grad=True)
    loss = HeatmapLoss(4, 2, 1.5, kind=kind, learnable_sigma=True, sigma_weight=1.0, reduction=reduction)
    loss(heatmaps, points).backward()
    assert heatmaps.grad.isfinite().all() and loss.sigma.grad.isfinite().all()
    assert (heatmaps.grad[0, 1] == 0).all() and (heatmaps.grad[0, 2] != 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_of_a_half_precision_prediction_is_summed_in_single_precision(dtype):
    """257 squares of 1 are 256 in bfloat16."""
    heatmaps = torch.ones(1, 1, 257, 1, dtype=dtype, requires_grad=True)
    loss = HeatmapLoss(1, 2, 1.0)(heatmaps, torch.full((1, 1, 2), INF))
    assert loss.dtype == torch.float32 and loss.item() == 128.5
    loss.backward()
    assert heatmaps.grad.dtype == dtype and (heatmaps.grad == 1).all()


def test_targets_under_autocast_are_as_sharp_as_without():
    heatmaps, points = prediction(), torch.tensor(POINTS)
    loss = HeatmapLoss(3, 2, 2.0, amplitude="normalised", scale=100.0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(heatmaps, points)
    assert inside.item() == pytest.approx(loss(heatmaps, points).item(), rel=1e-6)


def test_a_prediction_that_carries_meta_gives_a_plain_tensor():
    loss = HeatmapLoss(3, 2, 2.0)(MetaTensor(prediction()), torch.tensor(POINTS))
    assert type(loss) is torch.Tensor and loss.ndim == 0


def test_the_expected_peak_is_the_height_of_each_target():
    loss = HeatmapLoss(2, 2, 1.0, amplitude="normalised", scale=100.0, learnable_sigma=True)
    loss.sigma.data = torch.tensor([1.0, 3.0])
    # 100 / (2 pi sigma^2) in two dimensions
    assert loss.expected_peak().tolist() == pytest.approx([15.915494, 1.7683883])
    assert not loss.expected_peak().requires_grad
    assert HeatmapLoss(2, 3, 1.0, scale=7.0).expected_peak().tolist() == [7.0, 7.0]


def test_a_fixed_sigma_is_no_parameter_to_train_but_stands_in_the_checkpoint():
    loss = HeatmapLoss(3, 2, 2.0)
    assert not any(p.requires_grad for p in loss.parameters())
    assert loss.state_dict()["sigma"].tolist() == [2.0, 2.0, 2.0]


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="median"):
        HeatmapLoss(1, 2, 1.0, reduction="median")
