"""Joint regression of displacements and classification of patches (noothout2020, Section II)."""

from collections.abc import Sequence

import torch
from monai.utils import ensure_tuple_rep
from torch import nn
from torch.nn import functional as F

from ..transforms.coordinates import is_annotated
from ..transforms.patch_grid import encode_patch_grid


class PatchRegressionLoss(nn.Module):
    """Mean absolute error of log-transformed displacements plus binary cross-entropy of the landmarks' presence.

    Both are means over patches and landmarks, the first also over axes. Landmarks that nobody annotated (NaN) are in
    neither; absent ones (+inf) are present in no patch and have no displacement.

    Args:
        grid_spacing: s, voxels from patch to patch: 2^n of the network.
        log_displacements: whether displacements d are told as sign(d) log(1 + |d|); False for the rows R and R + C of
            Table I.
        method: "joint", "regression" (without the cross-entropy) or "classification" (without the absolute error).
        positive_weight: factor on the cross-entropy of the patch that holds the landmark; 1 in the paper.
        presence_weight: factor on the mean cross-entropy; 1 in the paper.
        image_size: voxels of the input along each axis, or one number for all, where the network pads it to whole
            patches: a landmark in the padding is present in no patch. None where the grid just covers the input.
    """

    def __init__(
        self,
        grid_spacing: int,
        log_displacements: bool = True,
        method: str = "joint",
        positive_weight: float = 1.0,
        presence_weight: float = 1.0,
        image_size: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if method not in ("joint", "regression", "classification"):
            raise ValueError(f'The method must be "joint", "regression" or "classification", got "{method}".')
        self.grid_spacing = grid_spacing
        self.log_displacements = log_displacements
        self.method = method
        self.positive_weight = positive_weight
        self.presence_weight = presence_weight
        self.image_size = image_size

    def forward(self, grid: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """
        Args:
            grid: output of the network, shape (B, N * (D + 1), *grid): displacements, then logits of presence.
            points: landmarks in voxels of the input, shape (B, N, D).

        Returns:
            the loss, a scalar in float32.
        """
        grid = torch.Tensor.as_subclass(grid, torch.Tensor).float()
        count, dims = points.shape[1:]
        size = list(grid.shape[2:])
        displacement = grid[:, : count * dims].unflatten(1, (count, dims))
        logits = grid[:, count * dims :]
        true_displacement, presence = encode_patch_grid(points, size, self.grid_spacing, self.log_displacements)
        if self.image_size is not None:
            beyond = (points >= points.new_tensor(ensure_tuple_rep(self.image_size, dims)) - 0.5).any(-1)
            unseen = (beyond & is_annotated(points)).reshape(list(beyond.shape) + [1] * dims)
            presence = torch.where(unseen, torch.zeros_like(presence), presence)
        loss = grid.new_zeros(())
        if self.method != "classification":
            error = (displacement - true_displacement.nan_to_num(0.0)).abs()  # a NaN would reach the gradient
            loss = loss + mean_where_known(error, true_displacement)
        if self.method != "regression":
            weight = grid.new_tensor(self.positive_weight)
            target = presence.nan_to_num(0.0)
            entropy = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
            loss = loss + self.presence_weight * mean_where_known(entropy, presence)
        return loss


def mean_where_known(errors: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of errors where their target is no NaN; 0 where there is none. Other errors get no gradient."""
    known = ~target.isnan()
    return torch.where(known, errors, 0.0).sum() / known.sum().clamp(min=1)
