"""The U-Net of ham2023."""

import pytest
import torch
from torch import nn

from common.losses import SpatialConfigurationLoss
from common.networks import ConcatenationUNet, HeatmapUNet
from common.transforms import decode_heatmaps, draw_heatmaps

SMALL = {"num_filters": 4, "num_levels": 3}


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    "upsampling, number",
    [("linear", 31_386_021), ("transposed", 31_038_821)],
)
def test_64_to_1024_filters_over_five_levels(upsampling, number):
    with torch.device("meta"):
        network = HeatmapUNet(2, 1, 37, upsampling=upsampling)
    encoder = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    skips, upsampled = [512, 256, 128, 64], [1024, 512, 256, 128]
    if upsampling == "transposed":
        upsampled = [channels // 2 for channels in upsampled]
    levels = encoder + [(skip + up, skip) for skip, up in zip(skips, upsampled)]
    kernels = sum(9 * (before * after + after * after) for before, after in levels)
    norms = sum(2 * 2 * after for _, after in levels)
    transposed = sum(4 * 2 * up * up + up for up in upsampled) if upsampling == "transposed" else 0
    head = 64 * 37 + 37
    assert parameters(network) == kernels + norms + transposed + head == number


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_every_convolution_of_a_level_has_instance_norm_and_relu(spatial_dims):
    network = ConcatenationUNet(spatial_dims, 1, 2, **SMALL)
    kinds = (nn.Conv2d, nn.InstanceNorm2d) if spatial_dims == 2 else (nn.Conv3d, nn.InstanceNorm3d)
    kinds += (nn.ReLU,)
    layers = [type(m) for m in network.contracting[1].modules() if isinstance(m, kinds)]
    assert layers == [*kinds, *kinds]
    assert network(torch.randn(1, 1, *[16] * spatial_dims)).shape == (1, 2, *[16] * spatial_dims)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_with_a_stride_landmarks_are_learned_and_found_in_voxels_of_the_image(spatial_dims):
    """Perfect heatmaps of the loss's own size: the loss is zero, and inference finds the points to 0.15 voxel."""
    points = torch.tensor([[[13.3, 20.6, 17.9], [21.0, 12.45, 15.2]]])[..., :spatial_dims]
    target = draw_heatmaps((points + 0.5) / 2 - 0.5, [18] * spatial_dims, 2.5)
    network = HeatmapUNet(spatial_dims, 1, 2, stride=2, **SMALL)
    assert network.unet.contracting[0][0].conv_0.conv.in_channels == 2**spatial_dims
    network.unet.forward = lambda blocks: target if blocks.shape[2:] == target.shape[2:] else None
    image = torch.zeros(1, 1, *[36] * spatial_dims)
    loss = SpatialConfigurationLoss(2, spatial_dims, 2.5, kind="gaussian", stride=2)
    assert loss(network.train()(image), points).item() == pytest.approx(0)
    assert loss(network(image), points + 1).item() > 1e-4
    heatmaps = network.eval()(image)
    assert heatmaps.shape[2:] == image.shape[2:]
    found, _ = decode_heatmaps(heatmaps, "centroid", threshold=0.5)
    torch.testing.assert_close(found, points, atol=0.15, rtol=0, check_dtype=False)


def test_skips_are_concatenated_before_the_upsampled_maps():
    torch.manual_seed(0)
    network = ConcatenationUNet(2, 1, 3, num_filters=4, num_levels=2)
    image = torch.randn(1, 1, 8, 12)
    skip = network.contracting[0](image)
    deep = network.contracting[1](nn.functional.max_pool2d(skip, 2))
    assert skip.shape == (1, 4, 8, 12) and deep.shape == (1, 8, 4, 6)
    enlarged = nn.functional.interpolate(deep, scale_factor=2, mode="bilinear", align_corners=False)
    expected = network.head(network.expanding[0](torch.cat([skip, enlarged], 1)))
    torch.testing.assert_close(network(image), expected)


def test_an_attention_module_ends_every_level():
    made = []

    def attention(channels):
        made.append(channels)
        return nn.Identity()

    ConcatenationUNet(2, 1, 2, attention=attention, **SMALL)
    assert made == [4, 8, 16, 8, 4]


@pytest.mark.parametrize("upsampling", ["linear", "transposed"])
def test_every_parameter_learns(upsampling):
    network = HeatmapUNet(2, 1, 3, upsampling=upsampling, **SMALL)
    network(torch.randn(1, 1, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


def test_inference_divides_by_the_expected_peak():
    network = HeatmapUNet(2, 1, 2, **SMALL).eval()
    image = torch.randn(1, 1, 16, 16)
    before = network(image)
    network.unit_peak.expected_peak.copy_(torch.tensor([1.0, 4.0]))
    torch.testing.assert_close(network(image), before / torch.tensor([1.0, 4.0]).reshape(1, 2, 1, 1))


@pytest.mark.parametrize("upsampling", ["linear", "transposed"])
def test_scripted_network_equals_the_original_at_any_multiple(upsampling):
    network = HeatmapUNet(2, 1, 3, upsampling=upsampling, **SMALL).eval()
    scripted = torch.jit.script(network)
    for size in ((16, 16), (24, 40)):
        image = torch.randn(2, 1, *size)
        torch.testing.assert_close(scripted(image), network(image))


def test_unknown_upsampling_is_refused():
    with pytest.raises(ValueError, match="linear"):
        HeatmapUNet(2, 1, 3, upsampling="cubic")
