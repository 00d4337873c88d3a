"""The spatial configuration loss (ham2023): heatmaps, and how the landmarks lie to each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..transforms.coordinates import is_present
from ..transforms.heatmaps import draw_heatmaps
from .heatmap_loss import HeatmapLoss

COORDINATES = ("cartesian", "polar")


def spatial_feature_maps(
    spatial_size: Sequence[int], coordinates: Sequence[str] = COORDINATES, device: torch.device | str | None = None
) -> torch.Tensor:
    """Coordinates of every pixel, each map with mean 0 and deviation 1 over the image (ham2023, Fig. 4).

    Cartesian: x and y (and z). Polar, from the middle of the image: the radius and the angle from the x axis, in
    (-pi, pi] with the jump opposite to that axis (and in 3D the angle from the z axis).

    Args:
        spatial_size: D sizes, x first.
        coordinates: any of "cartesian" and "polar".
        device: of the result.

    Returns:
        float32 tensor of shape (F, *spatial_size), F = D for each kind of coordinates.
    """
    axes = [torch.arange(size, dtype=torch.float64, device=device) - (size - 1) / 2 for size in spatial_size]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    maps = []
    if "cartesian" in coordinates:
        maps.append(position)
    if "polar" in coordinates:
        radius = position.norm(dim=0, keepdim=True)
        maps += [radius, torch.atan2(position[1:2], position[:1])]
        if len(spatial_size) == 3:
            maps.append(torch.atan2(position[:2].norm(dim=0, keepdim=True), position[2:]))
    return nn.functional.instance_norm(torch.cat(maps).unsqueeze(0))[0].float()


def embed_heatmaps(heatmaps: torch.Tensor, feature_maps: torch.Tensor, beta: float = 10.0) -> torch.Tensor:
    """Expected features under softmax(beta * heatmap) over all pixels (Eqs. 1 and 2).

    Args:
        heatmaps: shape (B, N, *spatial), float32.
        feature_maps: shape (F, *spatial).
        beta: temperature.

    Returns:
        embedded vectors, shape (B, N, F).
    """
    return (heatmaps.flatten(2) * beta).softmax(-1) @ feature_maps.flatten(1).t()


class SpatialConfigurationLoss(nn.Module):
    """Squared error of heatmaps plus gamma times that of their correlation maps (Eq. 3).

    The correlation map of a set of heatmaps is E E^T, shape (N, N), where row n of E holds the embedded vector of
    landmark n (Eq. 4). With `reduction="sum"` both terms are sums per image, averaged over the batch; with "mean"
    both are means, over pixels of annotated landmarks and over pairs of present landmarks. The paper prints norms
    and does not say which; a sum of one with a mean of the other is a gamma multiplied by N^2.

    A landmark that nobody annotated (NaN) is left out of both terms. An absent one (+inf) has a target of zeros
    and is left out of the correlation maps.

    Args:
        num_landmarks: N.
        spatial_dims: 2 or 3.
        sigma: scale of the Laplacian (deviation of the Gaussian) in voxels of the prediction.
        kind: "laplace" or "gaussian".
        gamma: weight of the correlation maps (Table 5); 0 is the plain U-Net's squared error.
        beta: temperature of the soft-argmax (Table 4).
        coordinates: "cartesian", "polar" or both (Table 3).
        reduction: "sum" or "mean" as above.
        peak_weight: additional weight of the pixels under a peak, 0 in the paper.
        weight: factor on the whole loss.
        stride: image voxels along each axis per voxel of the prediction, whose edges agree with the image's.

    Raises:
        ValueError: if `reduction` or a kind of `coordinates` is unknown.
    """

    def __init__(
        self,
        num_landmarks: int,
        spatial_dims: int,
        sigma: float,
        kind: str = "laplace",
        gamma: float = 1e-4,
        beta: float = 10.0,
        coordinates: Sequence[str] = COORDINATES,
        reduction: str = "mean",
        peak_weight: float = 0.0,
        weight: float = 1.0,
        stride: int = 1,
    ) -> None:
        super().__init__()
        coordinates = (coordinates,) if isinstance(coordinates, str) else tuple(coordinates)
        if not coordinates or not set(coordinates) <= set(COORDINATES):
            raise ValueError(f"The coordinates must be among {COORDINATES}, got {coordinates}.")
        self.heatmap_loss = HeatmapLoss(
            num_landmarks,
            spatial_dims,
            sigma,
            kind,
            reduction=reduction,
            peak_weight=peak_weight,
            weight=2.0 if reduction == "sum" else 1.0,  # HeatmapLoss sums half the squares, Eq. 3 whole ones
            stride=stride,
        )
        self.gamma = gamma
        self.beta = beta
        self.coordinates = coordinates
        self.reduction = reduction
        self.weight = weight

    def expected_peak(self) -> torch.Tensor:
        """The height of each landmark's target, shape (N,)."""
        return self.heatmap_loss.expected_peak()

    def correlation_loss(self, heatmaps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Squared error of the correlation maps, reduced; arguments as in `forward`, heatmaps in float32."""
        feature_maps = spatial_feature_maps(heatmaps.shape[2:], self.coordinates, heatmaps.device)
        present = is_present(points).to(heatmaps).unsqueeze(-1)
        with torch.no_grad():
            points = self.heatmap_loss.in_heatmap(points)
            target = draw_heatmaps(points, heatmaps.shape[2:], self.heatmap_loss.sigma, kind=self.heatmap_loss.kind)
            target = embed_heatmaps(target, feature_maps, self.beta) * present
        predicted = embed_heatmaps(heatmaps, feature_maps, self.beta) * present
        squared = (predicted @ predicted.mT - target @ target.mT).square()
        if self.reduction == "sum":
            return squared.sum() / len(heatmaps)
        return squared.sum() / (present @ present.mT).sum().clamp(min=1)

    def forward(self, heatmaps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """
        Args:
            heatmaps: prediction, shape (B, N, *spatial).
            points: landmarks in voxels of the image, shape (B, N, D); NaN not annotated, +inf absent.

        Returns:
            the loss, a scalar in float32.
        """
        heatmaps = torch.Tensor.as_subclass(heatmaps, torch.Tensor)  # MetaTensor ends here
        with torch.autocast(heatmaps.device.type, enabled=False):
            heatmaps = heatmaps.float()
            loss = self.heatmap_loss(heatmaps, points)
            if self.gamma:
                loss = loss + self.gamma * self.correlation_loss(heatmaps, points)
        return self.weight * loss
