"""The spatial configuration loss is what ham2023 writes."""

import math

import numpy as np
import pytest
import torch

from common.losses import HeatmapLoss, SpatialConfigurationLoss, embed_heatmaps, spatial_feature_maps
from common.transforms.heatmaps import draw_heatmaps

NOT_ANNOTATED, ABSENT = [math.nan] * 2, [math.inf] * 2
POINTS = torch.tensor([[[3.2, 7.9], [10.0, 4.5], [6.1, 11.7]]])
SIZE = (14, 16)


def brute_force_maps(size):
    """x, y, radius and angle pixel by pixel, then mean 0 and deviation 1 over the image."""
    maps = np.zeros((4, *size))
    for i in range(size[0]):
        for j in range(size[1]):
            x, y = i - (size[0] - 1) / 2, j - (size[1] - 1) / 2
            maps[:, i, j] = i, j, math.hypot(x, y), math.atan2(y, x)
    return np.stack([(m - m.mean()) / m.std() for m in maps])


def brute_force_embedding(heatmap, maps, beta=10.0):
    """Eqs. 1 and 2 for one heatmap, pixel by pixel."""
    total = sum(math.exp(beta * value) for value in heatmap.flat)
    vector = np.zeros(len(maps))
    for i in range(heatmap.shape[0]):
        for j in range(heatmap.shape[1]):
            vector += math.exp(beta * heatmap[i, j]) / total * maps[:, i, j]
    return vector


def brute_force_correlation(heatmaps, maps):
    """Eq. 4, pair by pair."""
    vectors = [brute_force_embedding(heatmap, maps) for heatmap in heatmaps.double().numpy()]
    return np.array([[sum(a * b for a, b in zip(p, q)) for q in vectors] for p in vectors])


def brute_force_target(points, size, scale):
    """Laplace heatmaps of peak 1, pixel by pixel; absent landmarks have none."""
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1)
    heatmaps = [np.exp(-np.linalg.norm(grid - point, axis=-1) / scale) for point in np.nan_to_num(points, posinf=0.0)]
    return torch.as_tensor(np.stack(heatmaps)) * np.isfinite(points).all(-1)[:, None, None]


def test_the_loss_is_the_error_of_heatmaps_plus_gamma_times_that_of_correlation_maps():
    torch.manual_seed(0)
    predicted = torch.rand(1, 3, *SIZE)
    target = brute_force_target(POINTS[0].numpy(), SIZE, 2.0)
    maps = brute_force_maps(SIZE)
    heat = ((predicted[0] - target) ** 2).numpy()
    correlation = (brute_force_correlation(predicted[0], maps) - brute_force_correlation(target, maps)) ** 2
    summed = SpatialConfigurationLoss(3, 2, sigma=2.0, gamma=0.5, reduction="sum")(predicted, POINTS)
    assert summed.item() == pytest.approx(heat.sum() + 0.5 * correlation.sum(), rel=1e-5)
    mean = SpatialConfigurationLoss(3, 2, sigma=2.0, gamma=0.5, reduction="mean", weight=3.0)(predicted, POINTS)
    assert mean.item() == pytest.approx(3 * (heat.mean() + 0.5 * correlation.mean()), rel=1e-5)


def test_feature_maps_are_coordinates_with_mean_0_and_deviation_1():
    maps = spatial_feature_maps(SIZE)
    np.testing.assert_allclose(maps.numpy(), brute_force_maps(SIZE), atol=1e-4)
    volume = spatial_feature_maps((5, 6, 7))
    assert volume.shape == (6, 5, 6, 7)
    torch.testing.assert_close(volume.flatten(1).mean(1), torch.zeros(6), atol=1e-6, rtol=0)
    torch.testing.assert_close(volume.flatten(1).std(1, correction=0), torch.ones(6), atol=1e-4, rtol=0)


def test_the_embedding_is_the_expected_feature_under_the_softmax():
    torch.manual_seed(0)
    heatmaps = torch.randn(2, 3, 9, 7)
    embedded = embed_heatmaps(heatmaps, spatial_feature_maps((9, 7)), beta=10.0)
    maps = brute_force_maps((9, 7))
    expected = [[brute_force_embedding(h, maps) for h in image] for image in heatmaps.double().numpy()]
    np.testing.assert_allclose(embedded.numpy(), expected, atol=1e-4)


def test_a_sharp_heatmap_is_embedded_at_its_landmark():
    heatmaps = draw_heatmaps(torch.tensor([[[3.0, 11.0]]]), SIZE, 1.0)
    maps = spatial_feature_maps(SIZE)
    torch.testing.assert_close(embed_heatmaps(heatmaps, maps, beta=200.0)[0, 0], maps[:, 3, 11], atol=1e-2, rtol=0)


@pytest.mark.parametrize("coordinates, chosen", [("cartesian", [0, 1]), ("polar", [2, 3])])
def test_cartesian_and_polar_coordinates_can_be_taken_alone(coordinates, chosen):
    assert torch.equal(spatial_feature_maps(SIZE, [coordinates]), spatial_feature_maps(SIZE)[chosen])
    torch.manual_seed(0)
    predicted = torch.rand(1, 3, *SIZE)
    maps = brute_force_maps(SIZE)[chosen]
    target = brute_force_target(POINTS[0].numpy(), SIZE, 2.0)
    difference = brute_force_correlation(predicted[0], maps) - brute_force_correlation(target, maps)
    loss = SpatialConfigurationLoss(3, 2, sigma=2.0, coordinates=coordinates, reduction="sum")
    assert loss.correlation_loss(predicted, POINTS).item() == pytest.approx((difference**2).sum(), rel=1e-4)


@pytest.mark.parametrize("kind", ["laplace", "gaussian"])
@pytest.mark.parametrize("reduction, factor", [("sum", 2.0), ("mean", 1.0)])
def test_gamma_0_is_the_plain_squared_error(kind, reduction, factor):
    torch.manual_seed(0)
    predicted = torch.rand(1, 3, *SIZE)
    plain = HeatmapLoss(3, 2, 2.0, kind=kind, reduction=reduction)(predicted, POINTS)
    loss = SpatialConfigurationLoss(3, 2, 2.0, kind=kind, gamma=0.0, reduction=reduction)(predicted, POINTS)
    assert loss.item() == pytest.approx(factor * plain.item())


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_target_itself_has_no_loss(reduction):
    loss = SpatialConfigurationLoss(3, 2, 2.0, gamma=1.0, reduction=reduction)
    assert loss(draw_heatmaps(POINTS, SIZE, 2.0, kind="laplace"), POINTS).item() == 0
    torch.testing.assert_close(loss.expected_peak(), torch.ones(3))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_landmarks_that_are_not_annotated_are_left_out(reduction):
    torch.manual_seed(0)
    predicted = torch.rand(2, 3, *SIZE, requires_grad=True)
    points = torch.tensor([[[3.2, 7.9], NOT_ANNOTATED, [6.1, 11.7]]] * 2)
    loss = SpatialConfigurationLoss(3, 2, 2.0, gamma=1.0, reduction=reduction)(predicted, points)
    loss.backward()
    assert not predicted.grad[:, 1].any() and predicted.grad.isfinite().all()
    without = SpatialConfigurationLoss(2, 2, 2.0, gamma=1.0, reduction=reduction)
    assert loss.item() == pytest.approx(without(predicted[:, [0, 2]], points[:, [0, 2]]).item())


def test_absent_landmarks_have_a_target_of_zeros_and_no_place_among_the_others():
    torch.manual_seed(0)
    predicted = torch.rand(1, 3, *SIZE)
    points = torch.tensor([[[3.2, 7.9], ABSENT, [6.1, 11.7]]])
    loss = SpatialConfigurationLoss(3, 2, 2.0, gamma=1.0, reduction="sum")
    without = SpatialConfigurationLoss(2, 2, 2.0, gamma=1.0, reduction="sum")
    expected = without(predicted[:, [0, 2]], points[:, [0, 2]]) + predicted[:, 1].square().sum()
    assert loss(predicted, points).item() == pytest.approx(expected.item())


def test_nothing_annotated_is_no_loss_and_no_gradient():
    predicted = torch.rand(1, 3, *SIZE, requires_grad=True)
    loss = SpatialConfigurationLoss(3, 2, 2.0, gamma=1.0)(predicted, torch.full((1, 3, 2), math.nan))
    loss.backward()
    assert loss.item() == 0 and not predicted.grad.any()


def test_autocast_changes_nothing():
    torch.manual_seed(0)
    predicted = torch.rand(1, 3, *SIZE).bfloat16()
    loss = SpatialConfigurationLoss(3, 2, 2.0, gamma=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(predicted, POINTS)
    assert inside.dtype == torch.float32
    assert inside.item() == loss(predicted.float(), POINTS).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_finite_at_the_papers_size(dtype):
    torch.manual_seed(0)
    predicted = (100 * torch.rand(1, 37, 640, 800)).to(dtype).requires_grad_()  # an untrained network may say anything
    points = torch.rand(1, 37, 2) * torch.tensor([640.0, 800.0])
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = SpatialConfigurationLoss(37, 2, 3.0)(predicted, points)
    loss.backward()
    assert loss.isfinite() and predicted.grad.isfinite().all()


def test_the_weak_softmax_over_a_large_image_is_exact_in_float32():
    points = torch.tensor([[[100.0, 650.0], [500.0, 200.0]]])
    heatmaps = draw_heatmaps(points, (640, 800), 3.0, kind="laplace", dtype=torch.float64)
    maps = spatial_feature_maps((640, 800))
    exponents = np.exp(10 * heatmaps.numpy())
    expected = np.einsum("bnxy,fxy->bnf", exponents, maps.double().numpy()) / exponents.sum((2, 3))[..., None]
    np.testing.assert_allclose(embed_heatmaps(heatmaps.float(), maps).numpy(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("settings", [{"coordinates": ()}, {"coordinates": "spherical"}, {"reduction": "median"}])
def test_unknown_settings_are_refused(settings):
    with pytest.raises(ValueError):
        SpatialConfigurationLoss(3, 2, 2.0, **settings)
