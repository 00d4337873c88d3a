"""SpatialConfigurationNet is what the paper says."""

import itertools
import math

import pytest
import scipy.stats
import torch
from torch.nn import functional as F

from common.losses import HeatmapLoss
from common.networks import (
    CubicUpsampling,
    LocalAppearance,
    LocalizationUNet,
    SpatialConfigurationNet,
    cubic_kernel,
)
from common.transforms import decode_heatmaps, draw_heatmaps

SMALL = {"num_filters": 4, "num_levels": 3, "spatial_kernel_size": 3, "downsampling": 4}


def receptive_field(network, size, spatial_dims=2):
    """Extent along the first axis of the input that can move the middle output, by gradients."""
    image = torch.randn(1, 1, *[size] * spatial_dims, requires_grad=True)
    output = network.eval()(image)
    output[(0, 0) + (size // 2,) * spatial_dims].backward()
    moved = image.grad[0, 0].abs().flatten(1).sum(1).nonzero().flatten()
    return int(moved.max() - moved.min() + 1)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_output_is_the_product_of_the_branches(spatial_dims):
    torch.manual_seed(0)
    network = SpatialConfigurationNet(spatial_dims, 1, 5, head_std=0.1, **SMALL).train()
    network.apply(lambda m: setattr(m, "p", 0.0) if isinstance(m, torch.nn.Dropout) else None)
    image = torch.randn(2, 1, *[16] * spatial_dims)
    local = network.local_appearance(image)
    spatial = network.spatial_configuration(local)
    assert local.shape == spatial.shape == (2, 5, *[16] * spatial_dims)
    torch.testing.assert_close(network(image), local * spatial)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_with_a_stride_the_first_convolution_sees_blocks_of_voxels(spatial_dims):
    """The kernel of 3 on blocks, by rearranging image and weights by hand."""
    torch.manual_seed(0)
    network = LocalAppearance(spatial_dims, 1, 2, num_filters=4, num_levels=2, stride=2)
    image = torch.randn(1, 1, *[8] * spatial_dims)
    conv = network.first[0]
    corners = list(itertools.product(range(2), repeat=spatial_dims))
    image_blocks = torch.cat([image[(..., *(slice(c, None, 2) for c in corner))] for corner in corners], 1)
    weight_blocks = torch.cat([conv.weight[(..., *(slice(c, None, 2) for c in corner))] for corner in corners], 1)
    function = F.conv2d if spatial_dims == 2 else F.conv3d
    expected = function(image_blocks, weight_blocks, conv.bias, padding=1)
    torch.testing.assert_close(conv(image), expected)


@pytest.mark.parametrize("kind", [SpatialConfigurationNet, LocalizationUNet])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_with_a_stride_landmarks_are_learned_and_found_in_voxels_of_the_image(spatial_dims, kind):
    """Perfect heatmaps of the loss's own size: the loss is zero, and inference finds the points to 0.02 voxel."""
    points = torch.tensor([[[13.3, 20.6, 17.9], [21.0, 12.45, 15.2]]])[..., :spatial_dims]
    target = draw_heatmaps((points + 0.5) / 2 - 0.5, [18] * spatial_dims, 2.5)
    network = kind(spatial_dims, 1, 2, stride=2)
    network.local_appearance.forward = lambda image: target
    if kind is SpatialConfigurationNet:
        network.spatial_configuration.forward = torch.ones_like
    image = torch.zeros(1, 1, *[36] * spatial_dims)
    assert HeatmapLoss(2, spatial_dims, 2.5, stride=2)(network.train()(image), points).item() == pytest.approx(0)
    heatmaps = network.eval()(image)
    assert heatmaps.shape[2:] == image.shape[2:]
    found, confidence = decode_heatmaps(heatmaps, "parabola")
    torch.testing.assert_close(found, points, atol=0.02, rtol=0, check_dtype=False)
    assert confidence.min() > 0.98


def test_the_paper_setting_has_about_6_9_million_parameters():
    network = SpatialConfigurationNet(2, 1, 37)
    kernels = 9 * 128 + 4 * 3 * 9 * 128 * 128 + 9 * 128 * 37  # first, three per level, head
    kernels += 121 * (37 * 128 + 2 * 128 * 128 + 128 * 37)
    biases = 128 + 4 * 3 * 128 + 37 + 3 * 128 + 37
    assert sum(p.numel() for p in network.parameters()) == kernels + biases == 6_926_410


def test_the_spatial_branch_pools_by_16_and_sees_41_coarse_pixels_of_11x11_kernels():
    network = SpatialConfigurationNet(2, 1, 3, num_filters=2)
    torch.nn.init.uniform_(network.spatial_configuration.layers[-3].weight, 0.1, 1)
    pooled = network.spatial_configuration.layers[0](torch.rand(1, 3, 64, 64))
    assert pooled.shape[-2:] == (4, 4)
    convolutions = network.spatial_configuration.layers[1:-2]
    probe = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), *convolutions)
    assert receptive_field(probe, 61) == 4 * 10 + 1


def test_the_local_branch_sees_much_less_than_the_image():
    torch.manual_seed(0)
    network = LocalAppearance(2, 1, 2, num_filters=4, num_levels=4, head_std=1.0)
    convolutions = 2 + 4 + 4 * 2 + 4 * 4 + 6 * 8  # first, then two per level (three at the bottom) at scales 1 to 8
    pooling, linear_upsampling, head = 1 + 2 + 4, 8 + 4 + 2, 2
    assert receptive_field(network, 256) == 1 + convolutions + pooling + linear_upsampling + head == 102


def test_kernels_follow_he_initialisation_and_heads_are_tiny():
    torch.manual_seed(0)
    network = SpatialConfigurationNet(2, 1, 37)
    conv = network.local_appearance.contracting[1][0]
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.01)
    truncated = 2 * math.sqrt(2 / (128 * 9)) / scipy.stats.truncnorm(-2, 2).std()
    assert conv.weight.abs().max().item() <= truncated
    for head in (network.local_appearance.head, network.spatial_configuration.layers[-3]):
        assert head.weight.abs().max().item() <= 2e-4
        assert head.weight.std().item() == pytest.approx(1e-4 * scipy.stats.truncnorm(-2, 2).std(), rel=0.02)
    assert all(not p.any() for name, p in network.named_parameters() if name.endswith("bias"))


def test_the_gradient_of_the_loss_reaches_network_and_sigmas():
    network = SpatialConfigurationNet(2, 1, 3, **SMALL).train()
    loss = HeatmapLoss(3, 2, sigma=2.5, amplitude="normalised", scale=100.0, learnable_sigma=True)
    points = torch.tensor([[[3.2, 7.9], [float("nan")] * 2, [float("inf")] * 2]])
    loss(network(torch.randn(1, 1, 16, 16)), points).backward()
    assert all(p.grad.isfinite().all() for p in [*network.parameters(), loss.sigma])
    assert loss.sigma.grad[0] != 0 and loss.sigma.grad[1] == 0 and loss.sigma.grad[2] == 0


def test_inference_divides_by_the_expected_peak():
    network = SpatialConfigurationNet(2, 1, 3, head_std=0.1, **SMALL).eval()
    image = torch.randn(1, 1, 16, 16)
    before = network(image)
    network.unit_peak.expected_peak.copy_(torch.tensor([1.0, 2.0, 4.0]))
    torch.testing.assert_close(network(image), before / torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1))


@pytest.mark.parametrize("network_class", [SpatialConfigurationNet, LocalizationUNet])
def test_scripted_network_equals_the_original_at_any_multiple(network_class):
    settings = SMALL if network_class is SpatialConfigurationNet else {"num_filters": 4, "num_levels": 3}
    network = network_class(2, 1, 3, head_std=0.1, **settings).eval()
    scripted = torch.jit.script(network)
    for size in ((16, 16), (24, 40)):
        image = torch.randn(2, 1, *size)
        torch.testing.assert_close(scripted(image), network(image))


def test_cubic_upsampling_equals_a_direct_sum_of_kernels():
    torch.manual_seed(0)
    x = torch.randn(1, 2, 5, 7)
    upsampled = CubicUpsampling(2, 2, 4)(x)
    assert upsampled.shape == (1, 2, 20, 28)
    for i, j in ((0, 0), (7, 13), (19, 27), (10, 3)):
        y, z = (i + 0.5) / 4 - 0.5, (j + 0.5) / 4 - 0.5  # half-pixel centres
        expected = sum(
            x[0, 1, a, b] * cubic_kernel(torch.tensor(y - a)) * cubic_kernel(torch.tensor(z - b))
            for a in range(5)
            for b in range(7)
        )
        assert upsampled[0, 1, i, j].item() == pytest.approx(expected.item(), abs=1e-5)


def test_cubic_upsampling_in_3d_is_the_2d_one_on_every_axis():
    profile = torch.randn(4)
    volume = profile.reshape(1, 1, 4, 1, 1) * torch.ones(1, 1, 4, 6, 6)
    plane = profile.reshape(1, 1, 4, 1) * torch.ones(1, 1, 4, 6)
    upsampled = CubicUpsampling(3, 1, 2)(volume)
    torch.testing.assert_close(upsampled[0, 0, :, 6, 6], CubicUpsampling(2, 1, 2)(plane)[0, 0, :, 6])


def test_cubic_coefficient_is_a_half_and_not_that_of_torch():
    assert cubic_kernel(torch.tensor(1.5)).item() == pytest.approx(-0.0625)  # -0.5 (3.375 - 11.25 + 12 - 4) = -1/16
    x = torch.randn(1, 1, 6, 6)
    torchs = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    assert (CubicUpsampling(2, 1, 2)(x) - torchs).abs().max() > 0.01


@pytest.mark.parametrize("sigma", [2.5, 4.0])
def test_upsampled_heatmaps_have_their_peaks_where_they_were_also_near_the_border(sigma):
    places = torch.arange(0, 63.1, 0.5)
    points = torch.stack([places, torch.full_like(places, 56.5)], -1)[None]
    heatmaps = draw_heatmaps((points + 0.5) / 2 - 0.5, (32, 30), sigma / 2)
    gaussian, zeros = (CubicUpsampling(2, len(places), 2, border)(heatmaps) for border in ("gaussian", "zeros"))
    assert (decode_heatmaps(gaussian)[0] - points).abs().max() < 0.15
    assert (decode_heatmaps(zeros)[0] - points).abs().max() > 0.8
    torch.testing.assert_close(gaussian[:, :, 4:-4, 4:-4], zeros[:, :, 4:-4, 4:-4])


@pytest.mark.parametrize("factor", [2, 4])
def test_beyond_the_border_a_gaussian_goes_on_but_nothing_is_higher(factor):
    x = torch.rand(1, 3, 5, 6, 7)
    x[0, 1] = torch.arange(5.0).reshape(5, 1, 1)  # rising to the border, and with a zero
    x[0, 2] = -1.0
    upsampled = CubicUpsampling(3, 3, factor, "gaussian")(x)
    plain = CubicUpsampling(3, 3, factor)(x)
    assert upsampled.shape == plain.shape == (1, 3, 5 * factor, 6 * factor, 7 * factor)
    assert torch.equal(upsampled[0, 2], plain[0, 2]) and upsampled[0, 1].max() < 4.3
    scripted = torch.jit.script(CubicUpsampling(3, 3, factor, "gaussian"))
    torch.testing.assert_close(scripted(x), upsampled)


def test_borders_are_zeros_or_gaussians():
    with pytest.raises(ValueError, match="border"):
        CubicUpsampling(2, 1, 2, "replicate")


def test_odd_factors_are_refused():
    with pytest.raises(ValueError, match="even"):
        CubicUpsampling(2, 1, 3)
