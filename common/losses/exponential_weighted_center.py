"""The Exponential Weighted Center loss of FARNet and the losses that it is compared with (ao2022, Table 6)."""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import InputError
from ..transforms.heatmaps import draw_heatmaps
from .annotated_voxels import annotated_heatmaps, mean_over_annotated


def exponential_weighted_center(prediction: torch.Tensor, target: torch.Tensor, alpha: float = 40.0) -> torch.Tensor:
    """(target - prediction)^2 * alpha^target per voxel (Eq. 3).

    The weight rises from 1 in the background to alpha at a landmark of peak 1. alpha = 1 is the squared error, and
    so is alpha = 0, the first value of Fig. 7: taken literally, 0^target would leave out all voxels but those where
    a Gaussian underflows.

    Raises:
        InputError: when alpha is negative.
    """
    if alpha < 0:
        raise InputError(f"The base alpha of the Exponential Weighted Center loss is {alpha}: give 0 or more.")
    squared = (target - prediction).square()
    return squared * torch.pow(alpha, target) if alpha > 0 else squared


def adaptive_wing(
    prediction: torch.Tensor,
    target: torch.Tensor,
    alpha: float = 2.1,
    omega: float = 14.0,
    epsilon: float = 1.0,
    theta: float = 0.5,
) -> torch.Tensor:
    """Adaptive Wing loss per voxel (Wang et al., ICCV 2019, Eq. 3), with its authors' settings."""
    error = (target - prediction).abs()
    power = alpha - target
    ratio = theta / epsilon
    slope = omega / (1 + ratio**power) * power * ratio ** (power - 1) / epsilon
    offset = theta * slope - omega * torch.log1p(ratio**power)
    return torch.where(error < theta, omega * torch.log1p((error / epsilon) ** power), slope * error - offset)


VOXEL_LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "exponential_weighted_center": exponential_weighted_center,
    "adaptive_wing": adaptive_wing,
    "mse": functools.partial(F.mse_loss, reduction="none"),
    "l1": functools.partial(F.l1_loss, reduction="none"),
    "smooth_l1": functools.partial(F.smooth_l1_loss, reduction="none"),
}


class HeatmapRegressionLoss(nn.Module):
    """Mean over voxels and annotated landmarks of a voxel's loss, summed over coarse and fine heatmaps (ao2022).

    Targets are Gaussians with peak 1 and the same sigma in pixels at every resolution, centred at the landmark:
    pixel edges agree, so that a landmark at c lies at (c + 0.5) / 2 - 0.5 of heatmaps of half the size.

    Landmarks that nobody annotated (NaN) are left out; absent ones (+inf) have a target of zeros.

    Args:
        num_landmarks: N.
        sigma: deviation of the Gaussian in voxels of each prediction.
        voxel_loss: "exponential_weighted_center", "adaptive_wing", "mse", "l1" or "smooth_l1".
        alpha: base of the Exponential Weighted Center loss (Fig. 7); the others do not use it and have the settings
            of their authors.

    Raises:
        InputError: when the voxel's loss is unknown.
    """

    def __init__(
        self,
        num_landmarks: int,
        sigma: float = 10.0,
        voxel_loss: str = "exponential_weighted_center",
        alpha: float = 40.0,
    ) -> None:
        super().__init__()
        if voxel_loss not in VOXEL_LOSSES:
            raise InputError(f"The loss '{voxel_loss}' is unknown: take one of {', '.join(VOXEL_LOSSES)}.")
        self.num_landmarks = num_landmarks
        self.sigma = sigma
        function = VOXEL_LOSSES[voxel_loss]
        weighted = function is exponential_weighted_center
        self.voxel_loss = functools.partial(function, alpha=alpha) if weighted else function

    def expected_peak(self) -> torch.Tensor:
        """The height of each landmark's target, shape (N,)."""
        return torch.ones(self.num_landmarks)

    def forward(self, heatmaps: torch.Tensor | Sequence[torch.Tensor], points: torch.Tensor) -> torch.Tensor:
        """
        Args:
            heatmaps: prediction, shape (B, N, *spatial), or a sequence of predictions whose first one has the
                image's size and whose others are coarser.
            points: landmarks in voxels of the first prediction, shape (B, N, D); NaN not annotated, +inf absent.

        Returns:
            the loss, a scalar in float32.
        """
        outputs = [heatmaps] if isinstance(heatmaps, torch.Tensor) else list(heatmaps)
        fine_size = torch.tensor(outputs[0].shape[2:], device=points.device)
        loss = torch.zeros((), device=outputs[0].device)
        for output in outputs:
            prediction = annotated_heatmaps(output, points)
            ratio = torch.tensor(output.shape[2:], device=points.device) / fine_size
            target = draw_heatmaps((points + 0.5) * ratio - 0.5, output.shape[2:], self.sigma)
            loss = loss + mean_over_annotated(self.voxel_loss(prediction, target), points)
        return loss
