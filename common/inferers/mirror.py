"""Test-time augmentation by a mirror."""

from collections.abc import Callable
from typing import Any

import torch

from .autocast import AutocastInferer


class MirrorAveragingInferer(AutocastInferer):
    """The mean of the heatmaps of an image and of those of its mirror image, mirrored back.

    For a network that was trained on both, with landmarks that stay the same in a mirror (a left hand's thumb is a
    right hand's thumb; a left and a right landmark would change places). Takes twice the time of one pass.

    Args:
        axis: spatial axis that is mirrored, 0 for x.
        dtype: of `AutocastInferer`.
    """

    def __init__(self, axis: int = 0, dtype: str = "float32") -> None:
        super().__init__(dtype)
        self.dim = axis + 2

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Images (B, C, *spatial) -> heatmaps (B, N, *spatial)."""
        image = torch.Tensor.as_subclass(inputs, torch.Tensor)  # the affine of a MetaTensor would be that of no mirror
        heatmaps = super().__call__(image, network, *args, **kwargs)
        mirrored = super().__call__(image.flip(self.dim), network, *args, **kwargs)
        return (heatmaps + mirrored.flip(self.dim)) / 2
