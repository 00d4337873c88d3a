"""Landmarks of whole images, in one piece or in tiles."""

from types import SimpleNamespace

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from common.inferers import OtherViews, VotingInferer, autocast, tiled_grid
from common.networks import PatchRegressionNet

SHALLOW = {"filters": (3, 4, 6), "blocks": (1, 1), "head_filters": 5, "local_filters": (3, 4), "local_head_filters": 5}
DEEP = {**SHALLOW, "filters": (2, 2, 2, 2, 2), "blocks": (3, 4, 6, 3), "pooled_blocks": (0, 1, 2, 3)}


def net(dims=2, local_size=0, **settings):
    """A network as after a training: its norms have statistics of their own, so that zeros are no zeros behind them."""
    torch.manual_seed(0)
    network = PatchRegressionNet(dims, 1, 2, **{**SHALLOW, **settings}).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.2, 0.3)
        elif isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.normal_(module.weight, 0, module.weight[0].numel() ** -0.5)
    network.local_size.fill_(local_size)
    return network


@pytest.mark.parametrize(
    ("dims", "size", "tile", "settings"),
    [
        (2, (200, 136), (64, 48), {}),
        (2, (197, 131), (50, 33), {}),  # neither is a multiple of the spacing
        (2, (90, 300), 24, {"pooled_blocks": (1,)}),
        (2, (200, 40), (1, 1000), {}),
        (2, (1500, 40), (320, 64), DEEP),
        (3, (120, 18, 20), (24, 8, 16), {}),
        (3, (110, 23, 17), (40, 40, 40), {"pooled_blocks": ()}),
    ],
)
def test_tiles_give_what_one_piece_gives(dims, size, tile, settings):
    network = net(dims, **settings)
    image = torch.randn(2, 1, *size)
    seen = []
    with torch.no_grad():
        by_tiles, one_piece = VotingInferer(tile)(image, network), VotingInferer()(image, network)
        part, whole = tiled_grid(network.global_net, image, tile), network(image)
        network.double().global_net.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[2:]))
        exact = tiled_grid(network.global_net, image.double(), tile), network(image.double())
    torch.testing.assert_close(part, whole, atol=1e-4, rtol=0)
    torch.testing.assert_close(*exact, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(by_tiles, one_piece, atol=1e-3, rtol=1e-4)
    del seen[-1]  # of the whole
    longest = max(range(dims), key=lambda axis: size[axis])
    assert len(seen) > 1 and min(shape[longest] for shape in seen) < size[longest] - 20  # it was cut indeed


def test_a_smaller_margin_would_not_do():
    network = net().double()
    network.global_net.receptive_field -= 2 * network.grid_spacing
    image = torch.randn(1, 1, 200, 40, dtype=torch.float64)
    with torch.no_grad():
        assert (tiled_grid(network.global_net, image, 64) - network(image)).abs().max() > 1e-6


def test_a_tile_size_must_fit_the_axes():
    with pytest.raises(ValueError, match="length 3, got 2"):
        tiled_grid(net(3).global_net, torch.zeros(1, 1, 8, 8, 8), (8, 8))


@pytest.mark.parametrize("tile_size", [None, (24, 24)])
def test_local_nets_refine_unless_told_otherwise(tile_size):
    network, without = net(local_size=6), net()
    image = torch.randn(1, 1, 50, 61)
    with torch.no_grad():
        found = VotingInferer(tile_size)(image, SimpleNamespace(module=network))  # as in DistributedDataParallel
        globally = VotingInferer(tile_size, local=False)(image, network)
        torch.testing.assert_close(found, network.localise(image), atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(globally, without.localise(image), atol=1e-3, rtol=1e-4)
    assert found.shape == (1, 2, 4) and not torch.allclose(found, globally, atol=0.01)


def test_images_with_meta_give_plain_numbers():
    with torch.no_grad():
        assert type(VotingInferer()(MetaTensor(torch.zeros(1, 1, 20, 20)), net(local_size=4))) is torch.Tensor


@pytest.mark.parametrize("tile_size", [None, 24])
def test_half_precision_finds_nearly_the_same(tile_size, monkeypatch):
    monkeypatch.setattr(autocast, "cpu_computes_bfloat16", lambda: True)
    network = net(local_size=6)
    image = torch.randn(1, 1, 60, 60)
    with torch.no_grad():
        half = VotingInferer(tile_size, dtype="bfloat16")(image, network)
        full = VotingInferer(tile_size)(image, network)
    assert half.dtype == torch.float32 and 1e-5 < (half - full).abs().max() < 1.0


class KnowsOneImage(nn.Module):
    """Sure of its landmarks in one image, at places of which none is its own mirror, and of nothing in any other."""

    def __init__(self, image):
        super().__init__()
        self.known = image
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return images

    def refine(self, images, grid):
        known = torch.stack([torch.allclose(image, self.known) * torch.ones(()) for image in images])
        found = torch.tensor([[3.0, 5.0, 0.9, 1.0], [7.0, 2.0, 0.7, 2.0]]).expand(len(images), 2, 4).clone()
        found[..., 2] *= known.unsqueeze(-1).clamp(min=0.1)
        return found


VIEWS = [(False, False), (True, False), (False, True), (True, True)]


@pytest.mark.parametrize(("axis", "last"), [(0, 9), (1, 7)])
def test_the_surest_view_is_taken_and_its_points_lie_on_the_image_as_it_is(axis, last):
    torch.manual_seed(0)
    image = torch.rand(1, 10, 8)
    network = KnowsOneImage(image)
    batch = torch.stack([OtherViews(axis, 1.0).view(image[None], *view)[0] for view in VIEWS])
    found = VotingInferer(mirror_axis=axis, inversion=1.0)(batch, network)
    there = network.refine(image[None], None)[0]
    mirrored = there.clone()
    mirrored[:, axis] = last - there[:, axis]
    torch.testing.assert_close(found, torch.stack([there, mirrored, there, mirrored]))
    assert network.seen == 4 + 3 * 3  # the first is sure at once


def test_without_other_views_or_where_it_is_sure_an_image_is_seen_once():
    network = KnowsOneImage(torch.rand(1, 10, 8))
    for inferer in (VotingInferer(), VotingInferer(mirror_axis=0, inversion=1.0, enough=0.05)):
        network.seen = 0
        assert inferer(torch.rand(3, 1, 10, 8), network)[..., 2].amax() < 0.1 and network.seen == 3
