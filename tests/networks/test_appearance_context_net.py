"""The appearance-context network is what Reddy et al. write."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.export import Dim

from common.losses import HeatmapLoss
from common.networks import CBAM, AppearanceContextNet, GlobalContext
from common.transforms.heatmap_decoding import decode_heatmaps
from common.transforms.heatmaps import draw_heatmaps

SMALL = {"num_filters": 4, "num_levels": 3, "context_size": 8, "context_filters": 4}
SPINE = {"context_size": (32, 64), "context_crop": (300, -1), "context_kernel_size": (3, 5)}


def seen(network, channels, size):
    """Extents of the input, along both axes, that can move the middle output, by gradients."""
    for p in network.parameters():
        nn.init.uniform_(p, 0.1, 1.0)  # nothing cancels, no ReLU is closed
    image = torch.ones(1, channels, *size, requires_grad=True)
    network.eval()(image)[0, 0, size[0] // 2, size[1] // 2].backward()
    moved = image.grad[0].abs().sum(0) > 0
    return [int(np.ptp(moved.any(1 - axis).nonzero())) + 1 for axis in (0, 1)]


@pytest.mark.parametrize(
    "context_size, kernel_size, field",
    [((32, 32), 3, [33, 33]), ((32, 64), (3, 5), [33, 65])],
)
def test_the_context_sees_the_whole_grid(context_size, kernel_size, field):
    network = GlobalContext(2, 1, 2, context_size, num_filters=2, kernel_size=kernel_size)
    assert seen(nn.Sequential(network.layers, network.head), 3, (81, 101)) == field
    assert all(extent >= size for extent, size in zip(field, context_size))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_output_is_the_product_of_the_branches(spatial_dims):
    torch.manual_seed(0)
    network = AppearanceContextNet(spatial_dims, 1, 5, **SMALL).train()
    image = torch.randn(2, 1, *[16] * spatial_dims)
    local = network.local_appearance(image)
    context = network.global_context(image, local)
    assert local.shape == context.shape == (2, 5, *[16] * spatial_dims)
    torch.testing.assert_close(network(image), local * context)


def unet_parameters(num_landmarks):
    """By hand: two 3x3 kernels and batch norms, and CBAM, at nine levels; four 2x2 transposed ones; a 1x1 head."""
    levels = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    levels += [(2 * skip, skip) for skip in (512, 256, 128, 64)]
    kernels = sum(9 * (before + after) * after for before, after in levels)
    norms = sum(2 * 2 * after for _, after in levels)
    attention = sum(2 * after * after // 16 + after // 16 + after + 2 * 49 + 2 for _, after in levels)
    transposed = sum(4 * 2 * skip * skip + skip for skip in (512, 256, 128, 64))
    return kernels + norms + attention + transposed + 65 * num_landmarks


@pytest.mark.parametrize(
    "num_landmarks, settings, kernel, number",
    [(19, {}, 9, 32_171_810), (68, SPINE, 15, 32_880_580)],
    ids=["cephalometric", "spine"],
)
def test_the_paper_settings_have_32_2_and_32_9_million_parameters(num_landmarks, settings, kernel, number):
    with torch.device("meta"):
        network = AppearanceContextNet(2, 1, num_landmarks, **settings)
    context = kernel * 128 * (1 + num_landmarks + 6 * 128) + 7 * 2 * 128 + 129 * num_landmarks
    assert sum(p.numel() for p in network.parameters()) == unet_parameters(num_landmarks) + context == number
    assert sum(isinstance(m, CBAM) for m in network.modules()) == 5 + 4


def test_the_grid_holds_averages_of_the_image():
    x = torch.randn(1, 2, 24, 32)
    reduced = GlobalContext(2, 1, 1, (6, 4), num_filters=2).reduce(x)
    torch.testing.assert_close(reduced, nn.functional.avg_pool2d(x, (4, 8)))


def test_the_spines_context_covers_the_central_300_columns_and_is_zero_outside():
    torch.manual_seed(0)
    context = GlobalContext(2, 1, 3, (32, 64), (300, -1), num_filters=4, kernel_size=(3, 5)).eval()
    image, local = torch.randn(1, 1, 512, 512), torch.randn(1, 3, 512, 512)
    with torch.no_grad():
        output = context(image, local)
        assert output.shape == (1, 3, 512, 512)
        columns = output.abs().sum((0, 1, 3)).nonzero().flatten()
        assert columns.min() == 106 and columns.max() == 512 - 106 - 1
        image[..., :106, :] = image[..., -106:, :] = 100.0
        torch.testing.assert_close(context(image, local), output)
        central = nn.functional.interpolate(image[..., 106:406, :], (32, 64), mode="bilinear", antialias=True)
        assert context.reduce(image).shape == central.shape
        assert (context.reduce(image) - central).abs().max() < 0.5  # the same place, another filter


def test_image_and_local_heatmaps_both_reach_the_context():
    torch.manual_seed(0)
    context = GlobalContext(2, 1, 3, 8, num_filters=4)
    image = torch.randn(1, 1, 16, 16, requires_grad=True)
    local = torch.randn(1, 3, 16, 16, requires_grad=True)
    context(image, local).square().sum().backward()
    assert image.grad.any() and all(g.any() for g in local.grad[0])


def test_every_parameter_learns():
    torch.manual_seed(0)
    network = AppearanceContextNet(2, 1, 3, **SMALL).train()
    network(torch.randn(1, 1, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_inference_divides_by_the_expected_peak():
    network = AppearanceContextNet(2, 1, 2, **SMALL).eval()
    image = torch.randn(1, 1, 16, 16)
    before = network(image)
    network.unit_peak.expected_peak.copy_(torch.tensor([1.0, 4.0]))
    torch.testing.assert_close(network(image), before / torch.tensor([1.0, 4.0]).reshape(1, 2, 1, 1))


def test_with_a_stride_landmarks_are_learned_and_found_in_voxels_of_the_image():
    """Perfect heatmaps of the loss's own size: the loss is zero, and inference finds the points to 0.15 voxel."""
    points = torch.tensor([[[13.3, 20.6], [21.0, 12.45]]])
    target = draw_heatmaps((points + 0.5) / 2 - 0.5, [20, 20], 2.5)
    network = AppearanceContextNet(2, 1, 2, stride=2, context_crop=(12, -1), **SMALL)
    assert network.global_context.context_crop == [6, -1]
    image = torch.randn(1, 1, 40, 40)
    blocks = network.blocks(image)
    assert blocks.shape == (1, 4, 20, 20) and network(image).shape == (1, 2, 20, 20)
    network.local_appearance.forward = lambda x: target if torch.equal(x, blocks) else None
    network.global_context.forward = lambda x, local: torch.ones(()) if torch.equal(x, blocks) else None
    loss = HeatmapLoss(2, 2, 2.5, reduction="mean", stride=2)
    assert loss(network.train()(image), points).item() == pytest.approx(0)
    assert loss(network(image), points + 1).item() > 1e-4
    heatmaps = network.eval()(image)
    assert heatmaps.shape[2:] == image.shape[2:]
    found, _ = decode_heatmaps(heatmaps, "parabola")
    torch.testing.assert_close(found, points, atol=0.15, rtol=0, check_dtype=False)


@pytest.mark.parametrize("crop", [None, (12, -1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_scripted_network_equals_the_original_at_any_multiple(crop, stride):
    network = AppearanceContextNet(2, 1, 3, context_crop=crop, stride=stride, **SMALL).eval()
    scripted = torch.jit.script(network)
    for size in ((16, 16), (24, 40)):
        image = torch.randn(2, 1, *size)
        torch.testing.assert_close(scripted(image), network(image))


def test_onnx_with_dynamic_axes_equals_pytorch_at_other_sizes(tmp_path):
    torch.manual_seed(0)
    network = AppearanceContextNet(2, 1, 3, context_crop=(12, -1), **SMALL).eval()
    path = str(tmp_path / "model.onnx")
    sizes = {0: Dim("batch"), 2: 4 * Dim("width", min=4, max=64), 3: 4 * Dim("height", min=2, max=64)}
    image = torch.randn(2, 1, 32, 20)
    torch.onnx.export(network, (image,), path, dynamo=True, dynamic_shapes=(sizes,), verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in ((1, 1, 16, 8), (2, 1, 44, 28)):
        image = torch.randn(size)
        (output,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        np.testing.assert_allclose(output, network(image).detach().numpy(), atol=1e-5)


def film(generator, size=32):
    """Two bright blobs that look alike; the landmark is the lower one."""
    points = torch.rand(2, 2, generator=generator) * (size - 12) + 6
    points = points[points[:, 1].argsort()]
    grid = torch.stack(torch.meshgrid(*[torch.arange(size)] * 2, indexing="ij"), -1)
    squared = (grid - points[:, None, None]).square().sum(-1)
    return torch.exp(-squared / 8).sum(0)[None, None], torch.exp(-squared[1:] / 18)[None]


def test_single_films_train_with_batch_norm_and_running_statistics_serve_at_inference():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = AppearanceContextNet(2, 1, 1, **SMALL).train()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(120):
        image, target = film(generator)
        loss = (network(image) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < sum(losses[:10]) / 2
    images = torch.cat([film(generator)[0] for _ in range(3)])
    outputs = network.eval()(images)
    assert outputs.isfinite().all()
    torch.testing.assert_close(network(images[1:2]), outputs[1:2])  # whatever else is in the batch


def test_instance_norm_trains_like_batch_norm_on_single_films_and_stays_so_at_inference():
    torch.manual_seed(0)
    by_batch = AppearanceContextNet(2, 1, 3, **SMALL).train()
    by_film = AppearanceContextNet(2, 1, 3, norm=("instance", {"affine": True}), **SMALL)
    by_film.load_state_dict(by_batch.state_dict(), strict=False)  # all but the running statistics
    image = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(by_film.train()(image), by_batch(image))
    torch.testing.assert_close(by_film.eval()(image), by_batch(image))
