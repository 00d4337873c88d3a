"""What every heatmap loss does with landmarks that nobody annotated: they are left out."""

import torch

from ..transforms.coordinates import is_annotated


def annotated_heatmaps(heatmaps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Heatmaps in float32, with zeros, which is also their target, for landmarks that nobody annotated.

    Args:
        heatmaps: shape (B, N, *spatial); MetaTensor and autocast end here.
        points: shape (B, N, D); a row of NaN is not annotated.
    """
    heatmaps = torch.Tensor.as_subclass(heatmaps, torch.Tensor).float()
    return torch.where(is_annotated(points)[(...,) + (None,) * (heatmaps.ndim - 2)], heatmaps, 0.0)


def mean_over_annotated(errors: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Mean over the voxels of annotated landmarks of errors (B, N, *spatial) that are 0 for all others."""
    return errors.sum() / (is_annotated(points).sum().clamp(min=1) * errors[0, 0].numel())
