"""Mirrored films and films with inverted grey values, for networks that were trained on neither."""

from collections.abc import Callable
from typing import Any

import torch

from .autocast import AutocastInferer


class ViewSelectingInferer(AutocastInferer):
    """Heatmaps of that view of an image of which the network is surest.

    An image is seen as it is; where the mean confidence of its landmarks (the peak of each heatmap, in [0, 1]) is
    under `enough`, also mirrored, with inverted grey values, and both, and the view with the highest mean confidence
    is taken. Heatmaps come back on the image as it is. For landmarks that keep their names in a mirror: those of a
    right hand are those of a left hand.

    Args:
        mirror_axis: spatial axis that is mirrored, 0 for x; None for no mirror.
        inversion: the sum of a grey value and its inverse (0 for images in [-1, 1], 1 for [0, 1]); None for no
            inversion.
        padding: grey value of the rows and columns that were padded to an image, which an inversion leaves as they
            are; None where it inverts them too.
        enough: mean confidence with which the first view is taken without a look at the others.
        dtype: of `AutocastInferer`.
    """

    def __init__(
        self,
        mirror_axis: int | None = 0,
        inversion: float | None = None,
        padding: float | None = None,
        enough: float = 0.8,
        dtype: str = "float32",
    ) -> None:
        super().__init__(dtype)
        self.mirror_axis = mirror_axis
        self.inversion = inversion
        self.padding = padding
        self.enough = enough
        mirrors = [False] if mirror_axis is None else [False, True]
        inversions = [False] if inversion is None else [False, True]
        self.views = [(mirrored, inverted) for inverted in inversions for mirrored in mirrors]

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Images (B, C, *spatial) -> heatmaps (B, N, *spatial)."""
        images = torch.Tensor.as_subclass(inputs, torch.Tensor)  # the affine of a MetaTensor would be that of no mirror
        heatmaps = super().__call__(images, network, *args, **kwargs)
        confidence = mean_confidence(heatmaps)
        unsure = (confidence < self.enough).nonzero().flatten()
        for mirrored, inverted in self.views[1:] if len(unsure) else []:
            view = self.invert(images[unsure]) if inverted else images[unsure]
            seen = super().__call__(self.mirror(view) if mirrored else view, network, *args, **kwargs)
            surer = mean_confidence(seen)
            better = surer > confidence[unsure]
            chosen = unsure[better]
            heatmaps[chosen] = self.mirror(seen[better]) if mirrored else seen[better]
            confidence[chosen] = surer[better]
        return heatmaps

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
        return images.flip(2 + self.mirror_axis)


def mean_confidence(heatmaps: torch.Tensor) -> torch.Tensor:
    """(B, N, *spatial) -> (B,), the mean over the landmarks of each heatmap's maximum, clamped to [0, 1]."""
    return heatmaps.float().flatten(2).amax(-1).clamp(0, 1).mean(1)
