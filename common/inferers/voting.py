"""Landmarks of whole images by a patch network."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from monai.utils import ensure_tuple_rep
from torch import nn
from torch.nn import functional as F

from .autocast import AutocastInferer
from .view_selection import OtherViews


class VotingInferer(AutocastInferer):
    """Global grid of the whole image, its weighted vote, and local refinement (`PatchRegressionNet.localise`).

    Args:
        tile_size: voxels along each axis (or one number for all) of the parts in which the global network sees the
            image, beside a margin of half its receptive field, so that the result is the same as in one piece; None
            for one piece.
        local: whether local networks that have been trained refine the landmarks.
        mirror_axis, inversion: of `OtherViews`, for networks that have seen neither mirrored nor inverted films: where
            the mean confidence of the landmarks is under `enough`, these views are looked at too, and the landmarks
            are those of the view with the highest, on the image as it is.
        enough: mean confidence with which the first view is taken without a look at the others.
        dtype: of `AutocastInferer`.
    """

    def __init__(
        self,
        tile_size: Sequence[int] | int | None = None,
        local: bool = True,
        mirror_axis: int | None = None,
        inversion: float | None = None,
        enough: float = 0.4,
        dtype: str = "float32",
    ) -> None:
        super().__init__(dtype)
        self.tile_size = tile_size
        self.local = local
        self.others = OtherViews(mirror_axis, inversion)
        self.enough = enough

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Images (B, C, *spatial) -> (B, N, D + 2): voxels, confidence, spread of the votes in voxels."""
        images = torch.Tensor.as_subclass(inputs, torch.Tensor)
        network = getattr(network, "module", network)

        def localise(image: torch.Tensor) -> torch.Tensor:
            tiles = self.tile_size
            grid = network(image) if tiles is None else tiled_grid(network.global_net, image, tiles)
            if self.local:
                return network.refine(image, grid)
            points, confidence, spread = network.vote(grid, network.grid_spacing)
            return torch.cat([points, confidence.unsqueeze(-1), spread.unsqueeze(-1)], -1)

        def predict(view: torch.Tensor) -> torch.Tensor:
            return super(VotingInferer, self).__call__(view, localise)

        found, _, mirrored = self.others.surest(images, predict, lambda found: found[..., -2].mean(1), self.enough)
        if mirrored.any():
            axis = self.others.mirror_axis
            found[mirrored, :, axis] = images.shape[2 + axis] - 1 - found[mirrored, :, axis]
        return found


def tiled_grid(global_net: nn.Module, image: torch.Tensor, tile_size: Sequence[int] | int) -> torch.Tensor:
    """The output grid of a `GlobalPatchNet` in evaluation mode, computed part by part.

    Args:
        global_net: the network.
        image: shape (B, C, *spatial).
        tile_size: voxels along each axis, or one number for all; rounded down to whole patches, but at least one.

    Raises:
        ValueError: if there is not one size per axis.
    """
    spacing = global_net.grid_spacing
    margin = -(-(global_net.receptive_field // 2) // spacing)  # patches beside a tile whose image matters
    padding = [p for size in reversed(image.shape[2:]) for p in (0, -size % spacing)]
    image = F.pad(image, padding)
    grid = [size // spacing for size in image.shape[2:]]
    steps = [max(1, size // spacing) for size in ensure_tuple_rep(tile_size, len(grid))]
    output = None
    for firsts in itertools.product(*(range(0, count, step) for count, step in zip(grid, steps))):
        lasts = [min(first + step, count) for first, step, count in zip(firsts, steps, grid)]
        seen = [slice(max(a - margin, 0), min(b + margin, n)) for a, b, n in zip(firsts, lasts, grid)]
        part = global_net(image[(..., *(slice(s.start * spacing, s.stop * spacing) for s in seen))])
        if output is None:
            output = part.new_empty([*part.shape[:2], *grid])
        inner = tuple(slice(a - s.start, b - s.start) for a, b, s in zip(firsts, lasts, seen))
        output[(..., *(slice(a, b) for a, b in zip(firsts, lasts)))] = part[(..., *inner)]
    return output
