"""Landmarks of look-alike parts that follow each other, such as vertebrae, found together.

A heatmap network that is in doubt about the number of a vertebra has tops on two of them, and where every landmark is
decoded on its own, one vertebra is skipped and another counted twice. `along_chain` leaves of all tops those that
belong to one column: a pictorial structure (Felzenszwalb and Huttenlocher 2005) whose parts form a chain, so that the
best one is found exactly, by dynamic programming.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.networks.layers import GaussianFilter
from torch.nn import functional as F

from ..errors import InputError


class Chain(NamedTuple):
    """A mean shape of parts that follow each other, in world coordinates, float64."""

    offsets: torch.Tensor  # (P, M, 2), from a part's middle to each of its landmarks
    steps: torch.Tensor  # (P - 1, 2), from middle to middle
    lengths: torch.Tensor  # (P - 1,)
    axis: torch.Tensor  # (2,), from the first to the last part
    sideways: torch.Tensor  # (2,), perpendicular to it

    def scaled(self, scale: float) -> "Chain":
        return self._replace(offsets=self.offsets * scale, steps=self.steps * scale, lengths=self.lengths * scale)


def chain_of(shape: Sequence[Sequence[float]], members: int) -> Chain:
    """The chain of a mean shape (N, 2) whose parts have `members` landmarks each, those of the first part first.

    Raises:
        InputError: if it is no such shape of two parts or more.
    """
    mean = torch.as_tensor(shape, dtype=torch.float64)
    if mean.ndim != 2 or mean.shape[1] != 2 or members < 1 or len(mean) % members or len(mean) < 2 * members:
        raise InputError(
            f"A chain needs the mean shape (N, 2) of two parts or more with {members} landmarks each, got "
            f"{tuple(mean.shape)}."
        )
    parts = mean.unflatten(0, (-1, members))
    middles = parts.mean(1)
    axis = (middles[-1] - middles[0]) / (middles[-1] - middles[0]).norm()
    steps = middles[1:] - middles[:-1]
    sideways = torch.stack([-axis[1], axis[0]])
    return Chain(parts - middles[:, None], steps, steps.norm(dim=-1), axis, sideways)


def along_chain(
    heatmaps: torch.Tensor,
    affine: torch.Tensor,
    shape: Sequence[Sequence[float]],
    members: int,
    tolerance: float = 0.2,
    sideways: float = 0.5,
    background: float = 0.02,
    candidates: int = 8,
    window: float = 0.4,
) -> torch.Tensor:
    """Heatmaps of one flat image, emptied but for where the best chain of parts has each landmark.

    The heatmaps of a part's landmarks, moved by where these lie in the part, are averaged to a heatmap of its middle.
    Its tops, and those of the parts before and after, are where it may be. Of all chains the one is taken that has the
    largest sum of logarithms of these heatmaps, less the squared deviations of the steps from part to part from their
    expected lengths and from the chain's axis.

    Args:
        heatmaps: shape (N, W, H), a full peak is 1.
        affine: 4x4, from voxels to world coordinates.
        shape: the mean shape, (N, 2), in the world's axes and any unit; landmarks of the first part first. How large
            it is in the image is told by the heatmaps' own tops.
        members: landmarks of each part.
        tolerance: standard deviation of the length of a step, as a fraction of that expected.
        sideways: standard deviation of its part across the chain's axis, likewise.
        background: value of a heatmap that counts as nothing found.
        candidates: how many tops of a part are looked at.
        window: how far from its place a landmark may be along the chain, as a fraction of a step; across it twice.

    Returns:
        shape (N, W, H): the heatmaps within the windows, elsewhere 0, or their lowest value if that is less.

    Raises:
        InputError: if the heatmaps are not those of the shape, or the shape is none of such parts.
    """
    chain = chain_of(shape, members)
    if heatmaps.ndim != 3 or len(heatmaps) != chain.offsets[..., 0].numel():
        raise InputError(
            f"Heatmaps of shape {tuple(heatmaps.shape)} are not those of a chain of {chain.offsets[..., 0].numel()} "
            "landmarks on a flat image."
        )
    axes = torch.as_tensor(affine, dtype=torch.float64, device="cpu")[:2, :2]  # from steps in voxels to the world's
    heat = heatmaps.detach().to(torch.float32).nan_to_num(0.0, 0.0, 0.0).clamp(min=0.0)
    scale = chain_scale(heat, chain, axes)
    if not math.isfinite(scale):
        return heatmaps
    chain = chain.scaled(scale)
    parts = part_heatmaps(heat, chain.offsets.flatten(0, 1) @ axes.inverse().T, members)
    middles = best_chain(parts, chain, axes, tolerance, sideways, background, candidates)
    if middles is None:
        return heatmaps
    middles = middles @ axes.T
    around = tangents(middles[1:] - middles[:-1])
    turns = around * tangents(chain.steps).conj()  # of a part against the mean shape, as numbers on the unit circle
    places = middles[:, None] + turned(chain.offsets, turns)
    reach = window * torch.cat([chain.lengths[:1], (chain.lengths[1:] + chain.lengths[:-1]) / 2, chain.lengths[-1:]])
    along = torch.view_as_real(around)
    across = torch.view_as_real(around * 1j)
    inside = torch.ones(heatmaps.shape, dtype=torch.bool, device=heatmaps.device)
    for direction, limit in ((along, reach), (across, 2 * reach)):
        each = direction.repeat_interleave(members, 0)
        # the distance of voxel v from a place p along direction d, (A v - p) . d, is linear in the voxel's coordinates
        slope, start = each @ axes, (places.flatten(0, 1) * each).sum(-1)
        slope, start, limit = (
            values.to(heat.device, heat.dtype) for values in (slope, start, limit.repeat_interleave(members))
        )
        x, y = (torch.arange(count, device=heat.device) for count in heat.shape[1:])
        distance = (slope[:, :1] * x)[:, :, None] + (slope[:, 1:] * y)[:, None] - start[:, None, None]
        inside &= distance.abs() <= limit[:, None, None]
    return torch.where(inside, heatmaps, heatmaps.amin((1, 2), keepdim=True).clamp(max=0.0))


def chain_scale(heat: torch.Tensor, chain: Chain, axes: torch.Tensor) -> float:
    """How large the chain is: the median of the steps between parts by their highest voxels, in units of the shape's.

    NaN where these lie on few places, as in heatmaps that say nothing.

    Args:
        heat: heatmaps (N, W, H).
        chain: of N landmarks.
        axes: 2x2, from steps in voxels to the world's.
    """
    highest = torch.stack(torch.unravel_index(heat.flatten(1).argmax(1).cpu(), heat.shape[1:]), -1).double() @ axes.T
    middles = highest.unflatten(0, chain.offsets.shape[:2]).median(1).values
    scale = float(((middles[1:] - middles[:-1]).norm(dim=-1) / chain.lengths).median())
    return scale if scale * float(chain.lengths.mean()) > 2 * float(axes.norm(dim=0).max()) else math.nan


def part_heatmaps(heat: torch.Tensor, offsets: torch.Tensor, members: int, sigma: float = 2.0) -> torch.Tensor:
    """Heatmaps of the parts' middles (P, W, H), smoothed by `sigma` voxels.

    Args:
        heat: heatmaps of landmarks (N, W, H).
        offsets: from a part's middle to each of its landmarks in voxels, (N, 2).
        members: landmarks of each part.
    """
    width, height = heat.shape[1:]
    moved = torch.zeros_like(heat)
    for source, target, (x, y) in zip(heat, moved, offsets.round().int().tolist()):
        x, y = max(-width, min(width, x)), max(-height, min(height, y))
        target[max(0, -x) : width - max(0, x), max(0, -y) : height - max(0, y)] = source[
            max(0, x) : width - max(0, -x), max(0, y) : height - max(0, -y)
        ]
    parts = moved.unflatten(0, (-1, members)).mean(1)
    return GaussianFilter(2, sigma).to(parts)(parts[None])[0]


def best_chain(
    parts: torch.Tensor,
    chain: Chain,
    axes: torch.Tensor,
    tolerance: float,
    sideways: float,
    background: float,
    candidates: int,
) -> torch.Tensor | None:
    """Places (P, 2) in voxels of the chain's parts, None where no candidates follow each other along its axis.

    Further arguments are those of `along_chain`.

    Args:
        parts: heatmaps of the parts' middles (P, W, H).
        chain: of P parts, scaled to the image.
        axes: 2x2, from steps in voxels to the world's.
    """
    reach = [max(1, round(0.3 * float(chain.lengths.mean() / size))) for size in axes.norm(dim=0)]
    highest = parts[None]
    for kernel, padding in (((2 * reach[0] + 1, 1), (reach[0], 0)), ((1, 2 * reach[1] + 1), (0, reach[1]))):
        highest = F.max_pool2d(highest, kernel, stride=1, padding=padding)
    _, index = torch.where(parts == highest[0], parts, -1.0).flatten(1).topk(min(candidates, parts[0].numel()))
    tops = torch.stack(torch.unravel_index(index, parts.shape[1:]), -1)  # (P, K, 2)
    places, scores = [], []
    for number, part in enumerate(parts):
        own = tops[max(0, number - 1) : number + 2].flatten(0, 1).unique(dim=0)
        places.append(own.double().cpu())
        scores.append((part[own[:, 0], own[:, 1]] + background).log().double().cpu())
    total, before = scores[0], []
    for number, length in enumerate(chain.lengths, start=1):
        step = (places[number][None] - places[number - 1][:, None]) @ axes.T  # (K before, K, 2)
        cost = ((step.norm(dim=-1) / length - 1) / tolerance).square() / 2
        cost = cost + ((step @ chain.sideways) / length / sideways).square() / 2
        ways = total[:, None] - torch.where(step @ chain.axis > 0, cost, torch.inf)
        before.append(ways.argmax(0))
        total = ways.amax(0) + scores[number]
    if not total.max().isfinite():
        return None
    path = [int(total.argmax())]
    for way in reversed(before):
        path.append(int(way[path[-1]]))
    return torch.stack([places[number][choice] for number, choice in enumerate(reversed(path))])


def tangents(steps: torch.Tensor) -> torch.Tensor:
    """Directions of a chain at each of its parts, from the steps (P - 1, 2) at both sides: (P,), on the unit circle."""
    steps = torch.view_as_complex(steps.contiguous())
    around = torch.cat([steps[:1], steps[1:] + steps[:-1], steps[-1:]])
    return around / around.abs()


def turned(offsets: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Offsets (P, M, 2) turned by numbers on the unit circle (P,)."""
    return torch.view_as_real(torch.view_as_complex(offsets.contiguous()) * turns[:, None])
