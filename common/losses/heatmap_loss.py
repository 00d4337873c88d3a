"""The squared error between predicted heatmaps and targets that are drawn where the loss is."""

import torch
from torch import nn

from ..transforms.coordinates import is_present
from ..transforms.heatmaps import draw_heatmaps, memory_format_of, peak_height
from .annotated_voxels import annotated_heatmaps, mean_over_annotated


class HeatmapLoss(nn.Module):
    """Squared error of heatmap regression, with an optional learnable sigma per landmark.

    With `reduction="sum"` this is payer2019's loss: half the sum of squared differences over all pixels and
    landmarks of an image, plus `sigma_weight` times half the sum of squared sigmas, averaged over the batch.
    With `reduction="mean"` it is the mean over pixels and annotated landmarks of
    (1 + peak_weight * target / scale) * (prediction - target)^2, times `weight`.

    Landmarks that nobody annotated (NaN) are left out. Absent ones (+inf) have a target of zeros and are left out
    of the sigma term.

    Args:
        num_landmarks: N.
        spatial_dims: 2 or 3.
        sigma: deviation of the Gaussian (scale of the Laplacian) in voxels of the prediction.
        kind: "gaussian" or "laplace".
        amplitude: "peak" (the maximum is `scale`) or "normalised" (the integral is `scale`).
        scale: height of the target (gamma of payer2019).
        learnable_sigma: whether sigma has one learnable value per landmark; the gradient reaches it through the target.
        sigma_weight: weight of half the sum of squared sigmas (alpha of payer2019).
        reduction: "sum" or "mean" as above.
        peak_weight: additional weight of the pixels under the peak.
        weight: factor on the whole heatmap term.
        stride: image voxels along each axis per voxel of the prediction, whose edges agree with the image's.
    """

    def __init__(
        self,
        num_landmarks: int,
        spatial_dims: int,
        sigma: float,
        kind: str = "gaussian",
        amplitude: str = "peak",
        scale: float = 1.0,
        learnable_sigma: bool = False,
        sigma_weight: float = 0.0,
        reduction: str = "sum",
        peak_weight: float = 0.0,
        weight: float = 1.0,
        stride: int = 1,
    ) -> None:
        super().__init__()
        if reduction not in ("sum", "mean"):
            raise ValueError(f'The reduction must be "sum" or "mean", got "{reduction}".')
        self.sigma = nn.Parameter(torch.full((num_landmarks,), float(sigma)), requires_grad=learnable_sigma)
        self.spatial_dims = spatial_dims
        self.kind = kind
        self.amplitude = amplitude
        self.scale = scale
        self.sigma_weight = sigma_weight
        self.reduction = reduction
        self.peak_weight = peak_weight
        self.weight = weight
        self.stride = stride

    def expected_peak(self) -> torch.Tensor:
        """The height of each landmark's target as sigma stands now, shape (N,), without gradient."""
        peak = peak_height(self.sigma.detach(), self.spatial_dims, self.kind, self.amplitude, self.scale)
        return torch.as_tensor(peak).expand(self.sigma.shape)

    def in_heatmap(self, points: torch.Tensor) -> torch.Tensor:
        """Points in voxels of the heatmaps from points in voxels of the image."""
        return points if self.stride == 1 else (points + 0.5) / self.stride - 0.5

    def forward(self, heatmaps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """
        Args:
            heatmaps: prediction, shape (B, N, *spatial).
            points: landmarks in voxels of the image, shape (B, N, D); NaN not annotated, +inf absent.

        Returns:
            the loss, a scalar in float32.
        """
        heatmaps = annotated_heatmaps(heatmaps, points)
        target = draw_heatmaps(
            self.in_heatmap(points),
            heatmaps.shape[2:],
            self.sigma,
            kind=self.kind,
            amplitude=self.amplitude,
            scale=self.scale,
            memory_format=memory_format_of(heatmaps),
        )
        squared = (heatmaps - target).square()
        if self.peak_weight:
            squared = torch.addcmul(squared, squared, target, value=self.peak_weight / self.scale)
        if self.reduction == "sum":
            loss = self.weight * 0.5 * squared.sum() / len(heatmaps)
        else:
            loss = self.weight * mean_over_annotated(squared, points)
        if self.sigma_weight:
            present = is_present(points).float()
            loss = loss + self.sigma_weight * 0.5 * (present * self.sigma.square()).sum() / len(heatmaps)
        return loss
