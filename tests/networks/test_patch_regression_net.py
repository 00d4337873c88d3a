"""The global and local networks are what the paper says, and their votes what numpy says."""

import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from common.losses import PatchRegressionLoss
from common.networks import GlobalPatchNet, LocalPatchNets, PatchRegressionNet

SMALL = {"filters": (3, 4, 6), "blocks": (1, 1), "head_filters": 5, "local_filters": (3, 4), "local_head_filters": 5}
CEPHALOMETRIC = {"pooled_blocks": (0, 1, 2, 3)}


def trained(network, seed=0):
    """The network as after a training: no bias, norm or statistic has its first value."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif isinstance(module, nn.Conv2d | nn.Conv3d):
            deviation = module.weight[0].numel() ** -0.5
            module.weight.data = torch.randn(module.weight.shape, generator=generator) * deviation
    return network.eval()


def small_net(dims=2, landmarks=3, local_size=0, seed=0, **settings):
    network = trained(PatchRegressionNet(dims, 1, landmarks, **{**SMALL, **settings}), seed)
    network.local_size.fill_(local_size)
    return network


def vote_by_numpy(grid, landmarks, dims, spacing, logarithm=True, method="joint"):
    """Points, confidences and spreads of one image, patch for patch."""
    grid = grid.detach().double().numpy()
    result = []
    for n in range(landmarks):
        votes, weights = [], []
        for patch in np.ndindex(*grid.shape[1:]):
            d = grid[(slice(n * dims, n * dims + dims), *patch)]
            d = np.sign(d) * (np.exp(np.abs(d)) - 1) if logarithm else d
            d = np.zeros(dims) if method == "classification" else d
            votes.append(np.array(patch) * spacing + (spacing - 1) / 2 + d)
            logit = grid[(landmarks * dims + n, *patch)]
            weights.append(1.0 if method == "regression" else 1 / (1 + math.exp(-logit)))
        point = np.average(votes, axis=0, weights=weights)
        spread = math.sqrt(np.average(((votes - point) ** 2).sum(1), weights=weights))
        result.append([*point, max(weights), spread])
    return np.array(result)


@pytest.mark.parametrize(("dims", "settings", "spacing", "pools"), [(3, {}, 8, 2), (2, CEPHALOMETRIC, 32, 4)])
def test_the_global_net_has_the_papers_layers(dims, settings, spacing, pools):
    with torch.device("meta"):
        network = GlobalPatchNet(dims, 1, 19, **settings)
        output = network.eval()(torch.empty(2, 1, *[64] * dims))
    assert network.grid_spacing == spacing and output.shape == (2, 19 * (dims + 1), *[64 // spacing] * dims)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    assert [m.out_channels for m in convolutions if m.kernel_size == (7,) * dims and m.stride == (2,) * dims] == [16]
    filters = [m.out_channels for m in convolutions if m.kernel_size == (3,) * dims and m.stride == (1,) * dims]
    assert filters == [32] * 6 + [64] * 8 + [128] * 12 + [256] * 6
    dense = [m.out_channels for m in convolutions if m.kernel_size == (1,) * dims]
    shortcuts = [32, 64, 128, 256]  # where a block changes the number of channels
    assert dense == [*shortcuts, 256, 256, 19 * dims, 256, 256, 19]
    assert len(convolutions) == 1 + 32 + 10
    assert all(m.padding_mode == "zeros" and m.padding == tuple(k // 2 for k in m.kernel_size) for m in convolutions)
    norms = [m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    assert sorted(norms) == sorted([16, *filters, *shortcuts, 256, 256, 256, 256])
    pooling = [m for m in network.modules() if isinstance(m, nn.AvgPool2d | nn.AvgPool3d)]
    assert [(m.kernel_size, m.stride) for m in pooling] == [(2, 2)] * pools


@pytest.mark.parametrize("dims", [2, 3])
def test_a_local_net_has_the_papers_size(dims):
    first = 3**dims * (32 + 32 * 32) + 32 + 3 * 2 * 32  # two convolutions and the shortcut, each with its norm
    second = 3**dims * (32 * 64 + 64 * 64) + 32 * 64 + 3 * 2 * 64
    heads = 2 * 2 * (64 * 64 + 2 * 64) + 64 * dims + dims + 64 + 1
    with torch.device("meta"):
        one, eight = LocalPatchNets(dims, 1, 1), LocalPatchNets(dims, 1, 8)
    assert sum(p.numel() for p in one.parameters()) == first + second + heads
    assert sum(p.numel() for p in eight.parameters()) == 8 * (first + second + heads)
    assert one.grid_spacing == 2


@pytest.mark.parametrize(
    ("dims", "settings", "expected"),
    [
        (3, {}, 7 + 2 + 12 * 4 + 4 + 16 * 8 + 24 * 8 * 1 + 12 * 8),
        (2, CEPHALOMETRIC, 7 + 2 + 12 * 4 + 4 + 16 * 8 + 8 + 24 * 16 + 16 + 12 * 32),
        (2, {"blocks": (1, 2), "filters": (1, 1, 1), "pooled_blocks": (1,)}, 7 + 4 * 2 + 2 + 8 * 4),
    ],
)
def test_the_receptive_field_is_what_moves_an_output(dims, settings, expected):
    """Two convolutions per pair add twice 2 voxels each at the spacing of their map, pooling adds its spacing."""
    network = GlobalPatchNet(dims, 1, 1, **{"filters": (1, 1, 1, 1, 1), "head_filters": 1, **settings}).double().eval()
    for module in network.modules():  # positive weights without average: no ReLU hides what an output sees
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.uniform_(module.weight, 0.5 / module.weight[0].numel(), 1.5 / module.weight[0].numel())
    size = -(-(expected + 80) // network.grid_spacing) * network.grid_spacing
    image = torch.rand(1, 1, size, *[network.grid_spacing] * (dims - 1), dtype=torch.float64, requires_grad=True)
    patch = size // network.grid_spacing // 2
    network(image)[0, -1, patch].sum().backward()
    moved = image.grad[0, 0].flatten(1).abs().sum(1).nonzero().flatten()
    assert network.receptive_field == expected == int(moved.max() - moved.min() + 1)
    first, last = patch * network.grid_spacing, (patch + 1) * network.grid_spacing - 1
    assert abs((moved.min() - first) + (moved.max() - last)) <= 1  # the patch lies in its middle


@pytest.mark.parametrize(("dims", "size"), [(2, (21, 40)), (3, (9, 16, 17))])
def test_an_image_is_padded_with_zeros_at_its_end(dims, size):
    network = small_net(dims).global_net
    image = torch.rand(2, 1, *size)
    padded = np.pad(image.numpy(), [(0, 0), (0, 0)] + [(0, -s % 8) for s in size])
    with torch.no_grad():
        output = network(image)
        assert output.shape == (2, 3 * (dims + 1), *(math.ceil(s / 8) for s in size))
        torch.testing.assert_close(output, network(torch.tensor(padded)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("dims", "channels"), [(2, 1), (3, 2)])
def test_the_local_nets_are_as_many_separate_networks(dims, channels, training):
    landmarks, size = 3, 8
    together = trained(LocalPatchNets(dims, channels, landmarks, (3, 4), 5)).train(training)
    sub_images = torch.randn(2, landmarks * channels, *[size] * dims)
    grid = together(sub_images)
    displacement, presence = grid[:, : landmarks * dims], grid[:, landmarks * dims :]
    for i in range(landmarks):
        single = LocalPatchNets(dims, channels, 1, (3, 4), 5).train(training)
        state = {k: v.chunk(landmarks)[i] if v.ndim else v for k, v in together.state_dict().items()}
        single.load_state_dict(state)
        alone = single(sub_images[:, i * channels : (i + 1) * channels])
        expected = torch.cat([displacement[:, i * dims : (i + 1) * dims], presence[:, i : i + 1]], 1)
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("log_displacements", [True, False])
@pytest.mark.parametrize("method", ["joint", "regression", "classification"])
def test_landmarks_of_the_global_net_are_the_vote_of_its_patches(method, log_displacements):
    network = small_net(method=method, log_displacements=log_displacements)
    image = torch.randn(2, 1, 21, 34)
    with torch.no_grad():
        found, grid = network.localise(image), network(image)
    assert found.shape == (2, 3, 4)
    for b in range(2):
        expected = vote_by_numpy(grid[b], 3, 2, 8, log_displacements, method)
        np.testing.assert_allclose(found[b].numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dims", "size"), [(2, (21, 34)), (3, (17, 12, 15))])
def test_the_local_nets_refine_what_the_global_one_found(dims, size):
    """Sub-images around the global landmarks, zeros beyond the image, and the vote of their patches."""
    network = small_net(dims, local_size=6)
    image = torch.randn(1, 1, *size)
    with torch.no_grad():
        found, grid = network.localise(image)[0].numpy(), network(image)[0]
        globally = vote_by_numpy(grid, 3, dims, 8)
        centres = np.clip(globally[:, :dims], 0, np.array(size) - 1)
        starts = np.rint(centres - 2.5).astype(int)
        padded = np.pad(image[0, 0].numpy(), 10)
        cut = [padded[tuple(slice(s + 10, s + 16) for s in start)] for start in starts]
        local = vote_by_numpy(network.local_nets(torch.tensor(np.array(cut))[None])[0], 3, dims, 2)
    np.testing.assert_allclose(found[:, :dims], local[:, :dims] + starts, atol=1e-3)
    np.testing.assert_allclose(found[:, dims], np.minimum(globally[:, dims], local[:, dims]), atol=1e-5)
    np.testing.assert_allclose(found[:, dims + 1], local[:, dims + 1], atol=1e-3)


def test_a_sub_image_has_the_point_in_its_middle_or_lies_on_the_border():
    network = small_net()
    points = torch.tensor([[[10.0, 10.4], [9.5, 3.0], [-500.0, 1e6], [math.nan, math.nan]]])
    starts = network.centred(points, [40, 30], 8)
    assert starts.dtype == torch.int64
    assert starts[0, :3].tolist() == [[6, 7], [6, 0], [-4, 26]]  # voxels 6 to 13 around 9.5, of which 10.0 is near


def test_a_landmark_for_which_no_patch_votes_is_not_a_number_with_local_nets_too():
    network = small_net(local_size=6)
    image = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        grid = network(image)
        grid[:, 6] = -1e4  # the presence of the first landmark
        found = network.refine(image, grid)
    assert found[0, 0, :2].isnan().all() and found[0, 0, 2] == 0
    assert found[0, 1:].isfinite().all()


@pytest.mark.parametrize("local_size", [0, 6])
@pytest.mark.parametrize(("dims", "sizes"), [(2, [(21, 34), (16, 9)]), (3, [(17, 12, 15)])])
def test_a_script_localises_images_of_any_size_wholly(dims, sizes, local_size):
    network = small_net(dims, local_size=local_size)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    file.seek(0)
    scripted = torch.jit.load(file)
    with torch.no_grad(), torch.jit.optimized_execution(False):
        for size in sizes:
            image = torch.randn(2, 1, *size)
            torch.testing.assert_close(scripted(image), network(image))
            torch.testing.assert_close(scripted.localise(image), network.localise(image))
            torch.testing.assert_close(scripted.refine(image, scripted(image)), network.localise(image))


@pytest.mark.parametrize("method", ["regression", "classification"])
def test_a_script_of_an_ablation_equals_the_original(method):
    network = small_net(method=method, local_size=6, log_displacements=False)
    image = torch.randn(1, 1, 20, 20)
    with torch.no_grad(), torch.jit.optimized_execution(False):
        torch.testing.assert_close(torch.jit.script(network).localise(image), network.localise(image))


def test_one_file_of_weights_tells_the_size_of_the_sub_images():
    network, other = small_net(local_size=6), small_net(seed=1)
    other.load_state_dict(network.state_dict())
    image = torch.randn(1, 1, 20, 20)
    with torch.no_grad():
        assert torch.equal(other.localise(image), network.localise(image)) and other.local_size == 6


@pytest.mark.parametrize("dims", [2, 3])
def test_every_parameter_of_each_stage_learns_from_its_own_loss(dims):
    torch.manual_seed(0)
    network = PatchRegressionNet(dims, 1, 3, **SMALL).train()
    points = torch.rand(2, 3, dims) * 15
    for stage, other, size in (("global_net", "local_nets", (1, 17)), ("local_nets", "global_net", (3, 16))):
        part = getattr(network, stage)
        network.zero_grad()
        PatchRegressionLoss(part.grid_spacing)(part(torch.randn(2, size[0], *[size[1]] * dims)), points).backward()
        assert not [name for name, p in part.named_parameters() if p.grad is None or not p.grad.any()]
        assert all(p.grad is None for p in getattr(network, other).parameters())


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method"):
        PatchRegressionNet(2, 1, 3, **SMALL, method="voting")


@pytest.mark.parametrize("method", ["regression", "classification"])
def test_an_ablation_learns_with_every_parameter_that_asks_for_a_gradient(method):
    """Data-parallel training waits for the gradients of all of them."""
    network = PatchRegressionNet(2, 1, 2, (4, 8), (1,), (0,), 8, (4, 8), 8, method=method)
    points = torch.tensor([[[5.0, 7.0], [10.0, 3.0]]])
    for part, image in ((network.global_net, torch.rand(1, 1, 16, 16)), (network.local_nets, torch.rand(1, 2, 16, 16))):
        PatchRegressionLoss(part.grid_spacing, method=method)(part(image), points).backward()
        asking = {name for name, parameter in part.named_parameters() if parameter.requires_grad}
        learning = {name for name, parameter in part.named_parameters() if parameter.grad is not None}
        unused = "presence" if method == "regression" else "displacement"
        assert asking == learning == {name for name, _ in part.named_parameters() if not name.startswith(unused)}


def test_the_momentum_is_that_of_every_batch_norm():
    network = PatchRegressionNet(2, 1, 3, **SMALL, norm_momentum=0.03)
    norms = [module for module in network.modules() if hasattr(module, "running_mean")]
    assert len(norms) > 20 and {module.momentum for module in norms} == {0.03}
