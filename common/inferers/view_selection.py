"""Mirrored films and films with inverted grey values, for networks that have seen neither; averages over views."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import affine_grid, grid_sample

from .autocast import AutocastInferer


class OtherViews:
    """Images as they would be, had they been mirrored, their grey values inverted, or both; the surest of them.

    Args:
        mirror_axis: spatial axis that is mirrored, 0 for x; None for no mirror.
        inversion: the sum of a grey value and its inverse (0 for images in [-1, 1], 1 for [0, 1]); None for no
            inversion.
        padding: grey value of the rows and columns that were padded to an image, which an inversion leaves as they
            are; None where it inverts them too.

    Attributes:
        kinds: pairs of bool, mirrored and inverted, of the views other than the image itself.
    """

    def __init__(
        self, mirror_axis: int | None = None, inversion: float | None = None, padding: float | None = None
    ) -> None:
        self.mirror_axis = mirror_axis
        self.inversion = inversion
        self.padding = padding
        mirrors = [False] if mirror_axis is None else [False, True]
        inversions = [False] if inversion is None else [False, True]
        self.kinds = [(mirrored, inverted) for inverted in inversions for mirrored in mirrors][1:]

    def view(self, images: torch.Tensor, mirrored: bool, inverted: bool) -> torch.Tensor:
        """That view of images (B, C, *spatial), of the same shape."""
        images = self.invert(images) if inverted else images
        return self.mirror(images) if mirrored else images

    def surest(
        self,
        images: torch.Tensor,
        predict: Callable[[torch.Tensor], torch.Tensor],
        confidence: Callable[[torch.Tensor], torch.Tensor],
        enough: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What a network finds in that view of each image of which it is surest.

        Args:
            images: shape (B, C, *spatial).
            predict: from images to results (B, ...).
            confidence: from results to (B,).
            enough: confidence with which an image is taken as it is, without a look at the others.

        Returns:
            results (B, ...) on the views, these views (B, C, *spatial), and which of them are mirrored, (B,), bool.
        """
        results = predict(images)
        best = confidence(results)
        unsure = (best < enough).nonzero().flatten()
        mirrors = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        views = images.clone() if len(unsure) else images
        for mirrored, inverted in self.kinds if len(unsure) else []:
            view = self.view(images[unsure], mirrored, inverted)
            found = predict(view)
            surer = confidence(found)
            better = surer > best[unsure]
            chosen = unsure[better]
            results[chosen], views[chosen] = found[better], view[better]
            best[chosen], mirrors[chosen] = surer[better], mirrored
        return results, views, mirrors

    def invert(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, C, *spatial) with inverted grey values."""
        inverse = self.inversion - images
        if self.padding is None:
            return inverse
        content = (images != self.padding).any(1, keepdim=True)
        for axis in range(2, images.ndim):  # rows and columns in which anything is not padding
            others = [other for other in range(2, images.ndim) if other != axis]
            inverse = inverse.where(content.any(dim=others, keepdim=True), self.padding)
        return inverse

    def mirror(self, images: torch.Tensor) -> torch.Tensor:
        """Images or heatmaps (B, C, *spatial) in the mirror."""
        return images.flip(2 + self.mirror_axis)


class ViewSelectingInferer(AutocastInferer):
    """Heatmaps of that view of an image of which the network is surest.

    An image is seen as it is; where the mean confidence of its landmarks (the peak of each heatmap, in [0, 1]) is
    under `enough`, also mirrored, with inverted grey values, and both, and the view with the highest mean confidence
    is taken. Heatmaps come back on the image as it is. For landmarks that keep their names in a mirror: those of a
    right hand are those of a left hand.

    With `turns` or `scales` that view is then seen turned and scaled about its middle as well, and the heatmaps of all
    are averaged (flat images only): errors of a network that sees each of them otherwise cancel in part.

    Args:
        mirror_axis, inversion, padding: of `OtherViews`.
        enough: mean confidence with which the first view is taken without a look at the others.
        turns: degrees by which the image is turned, from x towards y.
        scales: factors by which it is enlarged.
        dtype: of `AutocastInferer`.
    """

    def __init__(
        self,
        mirror_axis: int | None = 0,
        inversion: float | None = None,
        padding: float | None = None,
        enough: float = 0.8,
        turns: Sequence[float] = (),
        scales: Sequence[float] = (),
        dtype: str = "float32",
    ) -> None:
        super().__init__(dtype)
        self.others = OtherViews(mirror_axis, inversion, padding)
        self.enough = enough
        self.motions = [*((turn, 1.0) for turn in turns), *((0.0, scale) for scale in scales)]

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Images (B, C, *spatial) -> heatmaps (B, N, *spatial)."""
        images = torch.Tensor.as_subclass(inputs, torch.Tensor)  # the affine of a MetaTensor would be that of no mirror

        def predict(view: torch.Tensor) -> torch.Tensor:
            return super(ViewSelectingInferer, self).__call__(view, network, *args, **kwargs)

        heatmaps, seen, mirrored = self.others.surest(images, predict, mean_confidence, self.enough)
        for turn, scale in self.motions:
            moved = predict(move(seen, turn, scale, "border"))
            heatmaps = heatmaps + move(moved, -turn, 1 / scale, "zeros")
        heatmaps = heatmaps / (1 + len(self.motions)) if self.motions else heatmaps
        if mirrored.any():
            heatmaps[mirrored] = self.others.mirror(heatmaps[mirrored])
        return heatmaps


def move(images: torch.Tensor, turn: float, scale: float, padding_mode: str) -> torch.Tensor:
    """Flat images (B, C, X, Y), turned by degrees from x towards y and enlarged about their middle, interpolated."""
    x, y = images.shape[2:]
    c, s = math.cos(math.radians(turn)) / scale, math.sin(math.radians(turn)) / scale
    # From fractions of the result to those of the image, the last axis first.
    theta = torch.tensor([[c, -s * x / y, 0.0], [s * y / x, c, 0.0]], device=images.device)
    grid = affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return grid_sample(images.float(), grid, align_corners=False, padding_mode=padding_mode)


def mean_confidence(heatmaps: torch.Tensor) -> torch.Tensor:
    """(B, N, *spatial) -> (B,), the mean over the landmarks of each heatmap's maximum, clamped to [0, 1]."""
    return heatmaps.float().flatten(2).amax(-1).clamp(0, 1).mean(1)
