"""The losses of FARNet's Table 6 are what the papers print."""

import itertools
import math

import pytest
import torch
from monai.data import MetaTensor
from torch.nn import functional as F

from common.errors import InputError
from common.losses import HeatmapRegressionLoss, adaptive_wing, exponential_weighted_center

NAN, INF = math.nan, math.inf
POINTS = [[[2.25, 3.5], [6.0, 0.0]], [[0.5, 0.5], [3.0, 2.0]]]


def prediction(size=(8, 6), batch=2, seed=0):
    return torch.rand(batch, 2, *size, generator=torch.Generator().manual_seed(seed))


def mean_by_loops(heatmaps, points, sigma, voxel_loss):
    """Eqs. 1 to 3 by loops over images, landmarks and pixels; rows without a coordinate as agreed."""
    total, count = 0.0, 0
    for image, places in zip(heatmaps.double().tolist(), points):
        for heatmap, point in zip(image, places):
            if math.isnan(point[0]):
                continue
            for x, y in itertools.product(range(len(heatmap)), range(len(heatmap[0]))):
                squared = (x - point[0]) ** 2 + (y - point[1]) ** 2
                total += voxel_loss(heatmap[x][y], math.exp(-squared / (2 * sigma**2)))
                count += 1
    return total / count


def halved(points):
    return [[[(c + 0.5) / 2 - 0.5 for c in point] for point in places] for places in points]


def test_the_loss_is_that_of_the_paper_over_fine_and_coarse_heatmaps():
    fine, coarse = prediction(), prediction((4, 3), seed=1)
    expected = mean_by_loops(fine, POINTS, 1.5, lambda p, y: (y - p) ** 2 * 40**y)
    loss = HeatmapRegressionLoss(2, sigma=1.5)
    assert loss(fine, torch.tensor(POINTS)).item() == pytest.approx(expected, rel=1e-5)
    expected += mean_by_loops(coarse, halved(POINTS), 1.5, lambda p, y: (y - p) ** 2 * 40**y)
    assert loss([fine, coarse], torch.tensor(POINTS)).item() == pytest.approx(expected, rel=1e-5)


def test_sigma_is_10_and_alpha_40_by_default():
    fine = prediction((40, 30))
    expected = mean_by_loops(fine, POINTS, 10.0, lambda p, y: (y - p) ** 2 * 40**y)
    assert HeatmapRegressionLoss(2)(fine, torch.tensor(POINTS)).item() == pytest.approx(expected, rel=1e-5)


def smooth_l1(p, y):
    return 0.5 * (p - y) ** 2 if abs(p - y) < 1 else abs(p - y) - 0.5


def adaptive_wing_by_hand(p, y, alpha=2.1, omega=14.0, epsilon=1.0, theta=0.5):
    """Eqs. 3 of Wang et al. 2019, as printed there."""
    difference = abs(y - p)
    if difference < theta:
        return omega * math.log(1 + (difference / epsilon) ** (alpha - y))
    quotient = 1 / (1 + (theta / epsilon) ** (alpha - y))
    a = omega * quotient * (alpha - y) * (theta / epsilon) ** (alpha - y - 1) * (1 / epsilon)
    c = theta * a - omega * math.log(1 + (theta / epsilon) ** (alpha - y))
    return a * difference - c


@pytest.mark.parametrize(
    ("voxel_loss", "by_hand"),
    [
        ("l1", lambda p, y: abs(p - y)),
        ("smooth_l1", smooth_l1),
        ("mse", lambda p, y: (p - y) ** 2),
        ("adaptive_wing", adaptive_wing_by_hand),
    ],
)
def test_the_rivals_of_table_6_are_settings(voxel_loss, by_hand):
    fine = 3 * prediction() - 1
    loss = HeatmapRegressionLoss(2, sigma=2.0, voxel_loss=voxel_loss)
    expected = mean_by_loops(fine, POINTS, 2.0, by_hand)
    assert loss(fine, torch.tensor(POINTS)).item() == pytest.approx(expected, rel=1e-5)


def test_alpha_of_1_and_of_0_is_the_squared_error():
    fine, points = prediction(), torch.tensor(POINTS)
    mse = HeatmapRegressionLoss(2, sigma=2.0, voxel_loss="mse")(fine, points)
    for alpha in (0.0, 1.0):
        torch.testing.assert_close(HeatmapRegressionLoss(2, sigma=2.0, alpha=alpha)(fine, points), mse)


def test_an_error_at_the_landmark_weighs_alpha_times_one_in_the_background():
    target = torch.tensor([0.0, 0.5, 1.0])
    weights = exponential_weighted_center(target + 1, target, alpha=80.0)
    torch.testing.assert_close(weights, torch.tensor([1.0, 80**0.5, 80.0]))


def test_adaptive_wing_is_continuous_and_smooth_where_its_pieces_meet():
    target = torch.linspace(0, 1, 11, dtype=torch.float64)
    near = torch.full_like(target, 0.5) + torch.tensor([[-1e-7], [1e-7]], dtype=torch.float64)
    near.requires_grad_()
    values = adaptive_wing(target + near, target)
    (slopes,) = torch.autograd.grad(values.sum(), near)
    torch.testing.assert_close(values[0], values[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(slopes[0], slopes[1], atol=1e-4, rtol=0)


def test_the_gradient_of_adaptive_wing_is_finite_for_perfect_heatmaps():
    heatmaps = torch.zeros(1, 2, 8, 6, requires_grad=True)
    HeatmapRegressionLoss(2, voxel_loss="adaptive_wing")(heatmaps, torch.full((1, 2, 2), INF)).backward()
    assert not heatmaps.grad.any()


def test_what_nobody_annotated_is_left_out_and_what_is_absent_has_a_target_of_zeros():
    points = [[[2.25, 3.5], [NAN, NAN]], [[INF, INF], [3.0, 2.0]]]
    fine, coarse = prediction().requires_grad_(), prediction((4, 3), seed=1)

    def by_loops(heatmaps, places):
        return mean_by_loops(heatmaps, places, 1.5, lambda p, y: (y - p) ** 2 * 40**y)

    loss = HeatmapRegressionLoss(2, sigma=1.5)((fine, coarse), torch.tensor(points))
    assert loss.item() == pytest.approx(by_loops(fine.detach(), points) + by_loops(coarse, halved(points)), rel=1e-5)
    loss.backward()
    assert fine.grad.isfinite().all() and not fine.grad[0, 1].any() and fine.grad[1, 0].any()


@pytest.mark.parametrize("voxel_loss", ["exponential_weighted_center", "adaptive_wing", "mse", "l1", "smooth_l1"])
def test_an_image_without_any_annotation_costs_nothing(voxel_loss):
    heatmaps = prediction().requires_grad_()
    loss = HeatmapRegressionLoss(2, voxel_loss=voxel_loss)(heatmaps, torch.full((2, 2, 2), NAN))
    loss.backward()
    assert loss.item() == 0 and not heatmaps.grad.any()


def test_predictions_that_overflow_where_nobody_annotated_do_no_harm():
    heatmaps = prediction()
    heatmaps[0, 1] = INF
    points = torch.tensor([[[2.25, 3.5], [NAN, NAN]], POINTS[1]])
    assert HeatmapRegressionLoss(2)(heatmaps, points).isfinite()


def test_coarse_targets_in_3d_follow_the_ratio_of_sizes_on_each_axis():
    """A coarse heatmap that is drawn by hand around the halved centre costs nothing."""
    x, y, z = torch.meshgrid(torch.arange(8), torch.arange(4), torch.arange(2), indexing="ij")
    centre = [(9.0 + 0.5) / 2 - 0.5, (3.5 + 0.5) / 2 - 0.5, (2.0 + 0.5) / 4 - 0.5]
    coarse = torch.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2) / 8)[None, None]
    fine = torch.zeros(1, 1, 16, 8, 8)
    loss = HeatmapRegressionLoss(1, sigma=2.0)
    points = torch.tensor([[[9.0, 3.5, 2.0]]])
    torch.testing.assert_close(loss([fine, coarse], points), loss(fine, points))
    assert loss([fine, coarse.roll(1, 2)], points) > loss(fine, points) + 0.01


def test_the_loss_is_computed_in_float32_under_autocast_and_from_images_with_metadata():
    heatmaps = MetaTensor(prediction().bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        loss = HeatmapRegressionLoss(2, sigma=1.5)(heatmaps, torch.tensor(POINTS))
    expected = mean_by_loops(prediction().bfloat16(), POINTS, 1.5, lambda p, y: (y - p) ** 2 * 40**y)
    assert loss.dtype == torch.float32 and type(loss) is torch.Tensor
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_expected_peak_is_1():
    assert HeatmapRegressionLoss(5).expected_peak().tolist() == [1.0] * 5


@pytest.mark.parametrize(("voxel_loss", "by_torch"), [("smooth_l1", F.smooth_l1_loss), ("mse", F.mse_loss)])
def test_alpha_changes_none_of_the_rivals(voxel_loss, by_torch):
    heatmaps, points = prediction(), torch.full((2, 2, 2), INF)
    loss = HeatmapRegressionLoss(2, voxel_loss=voxel_loss, alpha=5.0)(heatmaps, points)
    torch.testing.assert_close(loss, by_torch(heatmaps, torch.zeros_like(heatmaps)))


@pytest.mark.parametrize(
    ("settings", "message"), [({"voxel_loss": "dice"}, "take one of"), ({"alpha": -1.0}, "0 or more")]
)
def test_an_unknown_loss_and_a_negative_base_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        HeatmapRegressionLoss(2, **settings)(prediction(), torch.tensor(POINTS))
