"""The squared error between predicted heatmaps and targets that are drawn where the loss is."""

import torch
from torch import nn

from ..transforms.coordinates import is_annotated, is_present
from ..transforms.heatmaps import draw_heatmaps, peak_height


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

    def expected_peak(self) -> torch.Tensor:
        """The height of each landmark's target as sigma stands now, shape (N,), without gradient."""
        peak = peak_height(self.sigma.detach(), self.spatial_dims, self.kind, self.amplitude, self.scale)
        return torch.as_tensor(peak).expand(self.sigma.shape)

    def forward(self, heatmaps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """
        Args:
            heatmaps: prediction, shape (B, N, *spatial).
            points: landmarks in voxels of the prediction, shape (B, N, D); NaN not annotated, +inf absent.

        Returns:
            the loss, a scalar in float32.
        """
        heatmaps = torch.Tensor.as_subclass(heatmaps, torch.Tensor).float()  # MetaTensor and autocast end here
        target = draw_heatmaps(
            points, heatmaps.shape[2:], self.sigma, kind=self.kind, amplitude=self.amplitude, scale=self.scale
        )
        annotated = is_annotated(points)
        squared = torch.where(annotated[(...,) + (None,) * self.spatial_dims], heatmaps - target, 0.0).square()
        if self.peak_weight:
            squared = squared * (1 + self.peak_weight / self.scale * target)
        if self.reduction == "sum":
            loss = self.weight * 0.5 * squared.sum() / len(heatmaps)
        else:
            voxels = heatmaps[0, 0].numel()
            loss = self.weight * squared.sum() / (annotated.sum().clamp(min=1) * voxels)
        if self.sigma_weight:
            present = is_present(points).float()
            loss = loss + self.sigma_weight * 0.5 * (present * self.sigma.square()).sum() / len(heatmaps)
        return loss
