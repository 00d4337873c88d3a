import itertools
import math

import pytest
import torch
from monai.data import MetaTensor
from torch.autograd import gradcheck

from common.errors import InputError
from common.transforms.heatmaps import (
    GaussianHeatmap,
    GaussianHeatmapd,
    LaplaceHeatmap,
    LaplaceHeatmapd,
    draw_heatmaps,
    peak_height,
)

NAN, INF = float("nan"), float("inf")
SIZES = [(13, 9), (7, 11, 6)]


def loop_heatmap(point, size, value_at_distance):
    """One heatmap by a loop over its voxels, in Python's own arithmetic."""
    heatmap = torch.zeros(size, dtype=torch.float64)
    for voxel in itertools.product(*(range(length) for length in size)):
        heatmap[voxel] = value_at_distance(math.dist(voxel, point))
    return heatmap


def random_points(batch, landmarks, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(batch, landmarks, len(size), generator=generator, dtype=torch.float64)
    return unit * (torch.tensor(size) - 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("amplitude", ["peak", "normalised"])
def test_a_gaussian_heatmap_is_the_formula_at_every_voxel(size, amplitude):
    points = random_points(2, 3, size)
    sigmas = [1.5, 2.0, 0.7]
    heatmaps = draw_heatmaps(points, size, torch.tensor(sigmas), amplitude=amplitude, scale=100.0)
    assert heatmaps.shape == (2, 3, *size) and heatmaps.dtype == torch.float32
    for b, n in itertools.product(range(2), range(3)):
        sigma = sigmas[n]
        height = 100.0 if amplitude == "peak" else 100.0 / (math.sqrt(2 * math.pi) * sigma) ** len(size)
        expected = loop_heatmap(
            points[b, n].tolist(), size, lambda r, h=height, s=sigma: h * math.exp(-(r**2) / (2 * s**2))
        )
        torch.testing.assert_close(heatmaps[b, n].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_a_laplace_heatmap_falls_exponentially_with_the_distance(size):
    points = random_points(2, 3, size)
    heatmaps = draw_heatmaps(points, size, 2.5, kind="laplace", scale=2.0, dtype=torch.float64)
    for b, n in itertools.product(range(2), range(3)):
        expected = loop_heatmap(points[b, n].tolist(), size, lambda r: 2.0 * math.exp(-r / 2.5))
        torch.testing.assert_close(heatmaps[b, n], expected)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize("size", [(81, 81), (61, 61, 61)])
def test_a_normalised_heatmap_sums_up_to_its_scale(kind, size):
    centre = torch.full((1, 1, len(size)), size[0] / 2 - 0.7)
    total = draw_heatmaps(centre, size, 2.5, kind, "normalised", scale=7.0).sum()
    assert total.item() == pytest.approx(7.0, rel=0.02)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize("amplitude", ["peak", "normalised"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_peak_height_is_the_value_in_a_landmark_on_a_voxel(kind, amplitude, spatial_dims):
    sigma = torch.tensor([1.5, 3.0])
    points = torch.full((1, 2, spatial_dims), 4.0)
    heatmaps = draw_heatmaps(points, [9] * spatial_dims, sigma, kind, amplitude, 5.0)
    heights = peak_height(sigma, spatial_dims, kind, amplitude, 5.0)
    torch.testing.assert_close(heights, heatmaps.flatten(2).amax(-1)[0])
    assert peak_height(1.5, spatial_dims, kind, amplitude, 5.0) == pytest.approx(heatmaps[0, 0].max().item())


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize("amplitude", ["peak", "normalised"])
@pytest.mark.parametrize("size", [(6, 5), (5, 4, 3)])
def test_gradients_reach_points_and_sigmas(kind, amplitude, size):
    points = random_points(2, 2, size).requires_grad_()
    sigma = torch.tensor([[1.2, 0.8], [2.0, 1.0]], dtype=torch.float64, requires_grad=True)

    def draw(points, sigma):
        return draw_heatmaps(points, size, sigma, kind, amplitude, 3.0, dtype=torch.float64)

    assert gradcheck(draw, (points, sigma))


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_a_laplace_or_gaussian_landmark_on_a_voxel_has_finite_gradients(kind):
    points = torch.tensor([[[2.0, 3.0]]], requires_grad=True)
    sigma = torch.tensor(1.5, requires_grad=True)
    heatmap = draw_heatmaps(points, (5, 7), sigma, kind)
    assert heatmap[0, 0, 2, 3] == 1.0
    grads = torch.autograd.grad((heatmap**2).sum(), (points, sigma))
    assert all(grad.isfinite().all() for grad in grads)
    torch.testing.assert_close(grads[0], torch.zeros(1, 1, 2), atol=1e-5, rtol=0)  # by symmetry


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize("amplitude", ["peak", "normalised"])
@pytest.mark.parametrize("row", [(NAN, NAN), (INF, INF), (NAN, 3.0)])
def test_a_missing_landmark_is_a_zero_heatmap_without_nan_in_any_gradient(kind, amplitude, row):
    points = torch.tensor([[(2.3, 3.1), row]], requires_grad=True)
    sigma = torch.tensor([2.0, 2.0], requires_grad=True)
    heatmaps = draw_heatmaps(points, (8, 6), sigma, kind, amplitude)
    alone = draw_heatmaps(points[:, :1], (8, 6), 2.0, kind, amplitude)
    assert (heatmaps[0, 1] == 0).all()
    torch.testing.assert_close(heatmaps[:, :1], alone)
    point_gradient, sigma_gradient = torch.autograd.grad((heatmaps - 1).pow(2).sum(), (points, sigma))
    assert (point_gradient[0, 1] == 0).all() and sigma_gradient[1] == 0
    assert point_gradient[0, 0].abs().min() > 0 and sigma_gradient[0].abs() > 0


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_a_landmark_outside_the_image_shows_its_flank(kind):
    points = torch.tensor([[[-2.0, 4.0], [1e7, -1e7]]], requires_grad=True)
    sigma = torch.tensor(3.0, requires_grad=True)
    heatmaps = draw_heatmaps(points, (10, 9), sigma, kind)
    assert heatmaps[0, 0, 0, 4].item() == pytest.approx(math.exp(-4 / 18 if kind == "gaussian" else -2 / 3))
    assert heatmaps[0, 1].max() < 1e-30
    assert all(g.isfinite().all() for g in torch.autograd.grad(heatmaps.sum(), (points, sigma)))


def test_sigma_may_be_one_number_one_per_landmark_or_one_per_landmark_and_image():
    size = (9, 8)
    points = random_points(2, 3, size)
    one = draw_heatmaps(points, size, 2.0)
    for sigma in (torch.tensor(2.0), torch.full((3,), 2.0), torch.full((2, 1), 2.0), torch.full((2, 3), 2.0)):
        assert torch.equal(draw_heatmaps(points, size, sigma), one)
    mixed = draw_heatmaps(points, size, torch.tensor([[2.0, 2.0, 2.0], [1.0, 1.0, 1.0]]))
    assert torch.equal(mixed[0], one[0])
    assert torch.equal(mixed[1:], draw_heatmaps(points[1:], size, 1.0))


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_autocast_leaves_float32_heatmaps_as_they_are(kind):
    size = (40, 30)
    points = random_points(1, 3, size)
    expected = draw_heatmaps(points, size, 2.0, kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        heatmaps = draw_heatmaps(points, size, 2.0, kind)
    assert heatmaps.dtype == torch.float32
    torch.testing.assert_close(heatmaps, expected, rtol=1e-6, atol=1e-7)


def test_half_precision_heatmaps_are_rounded_once():
    size = (40, 30)
    points = random_points(1, 3, size)
    heatmaps = draw_heatmaps(points, size, 2.0)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(draw_heatmaps(points, size, 2.0, dtype=dtype), heatmaps.to(dtype))


@pytest.mark.parametrize(
    "arguments",
    [
        dict(points=torch.zeros(3, 2), spatial_size=(5, 5), sigma=1.0),
        dict(points=torch.zeros(1, 3, 2), spatial_size=(5, 5, 5), sigma=1.0),
        dict(points=torch.zeros(1, 3, 2), spatial_size=(5, 5), sigma=0.0),
        dict(points=torch.zeros(1, 3, 2), spatial_size=(5, 5), sigma=torch.ones(4)),
        dict(points=torch.zeros(1, 3, 2), spatial_size=(5, 5), sigma=1.0, kind="box"),
        dict(points=torch.zeros(1, 3, 2), spatial_size=(5, 5), sigma=1.0, amplitude="area"),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(arguments):
    with pytest.raises(InputError):
        draw_heatmaps(**arguments)


@pytest.mark.parametrize("kind, transform", [("gaussian", GaussianHeatmap), ("laplace", LaplaceHeatmap)])
def test_the_array_transform_draws_one_channel_per_landmark(kind, transform):
    size = (12, 10)
    points = random_points(1, 4, size)
    expected = draw_heatmaps(points, size, 2.0, kind, "normalised", 10.0)[0]
    assert torch.equal(transform(2.0, size, "normalised", 10.0)(points), expected)
    assert torch.equal(transform([2.0] * 4, amplitude="normalised", scale=10.0)(points, size), expected)
    with pytest.raises(InputError, match="spatial size"):
        transform(2.0)(points)
    with pytest.raises(InputError, match="amplitude"):
        transform(2.0, amplitude="area")


@pytest.mark.parametrize("size", [(20, 16), (12, 10, 8)])
@pytest.mark.parametrize("kind, transform", [("gaussian", GaussianHeatmapd), ("laplace", LaplaceHeatmapd)])
def test_the_dictionary_transform_draws_world_landmarks_on_the_voxels_of_the_image(kind, transform, size):
    affine = torch.diag(torch.tensor([-0.5, -2.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([4.0, -7.0, 9.0])
    image = MetaTensor(torch.zeros(1, *size), affine=affine, meta={"filename_or_obj": "hand.png"})
    voxels = random_points(1, 3, size)
    voxels[0, 1] = NAN
    scales, origin = affine.diagonal()[: len(size)], affine[: len(size), 3]
    data = {"image": image, "label": voxels * scales + origin}

    result = transform(keys="label", refer_keys="image", heatmap_keys="target", sigma=2.0)(data)
    target = result["target"]
    assert isinstance(target, MetaTensor) and target.shape == (3, *size)
    torch.testing.assert_close(target.affine, affine)
    assert target.meta["filename_or_obj"] == "hand.png"
    expected = draw_heatmaps(voxels, size, 2.0, kind)[0]
    torch.testing.assert_close(target.as_tensor(), expected, atol=1e-5, rtol=1e-5)
    assert "target" not in data and result["label"] is data["label"]


def test_the_dictionary_transform_asks_for_an_affine():
    data = {"image": torch.zeros(1, 5, 5), "label": torch.zeros(1, 2, 2)}
    with pytest.raises(InputError, match="affine"):
        GaussianHeatmapd("label", sigma=1.0)(data)
