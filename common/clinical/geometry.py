"""Angles between vectors of the plane, for the clinical measurements."""

import torch


def cross(u: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The third component ux wy - uy wx of a cross product: vectors (..., 2) -> (...)."""
    return u[..., 0] * w[..., 1] - u[..., 1] * w[..., 0]


def unsigned_angle(u: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Angle between vectors (..., 2), 0 to 180 degrees; NaN where one is NaN or has no length."""
    angle = torch.rad2deg(torch.atan2(cross(u, w).abs(), (u * w).sum(-1)))
    return angle.where((u != 0).any(-1) & (w != 0).any(-1), torch.nan)


def sign(values: torch.Tensor) -> torch.Tensor:
    """-1, 0 or 1, and NaN of NaN, where `torch.sign` gives 0."""
    return torch.sign(values).where(values.isfinite(), torch.nan)


def clinical_points(points: torch.Tensor) -> torch.Tensor:
    """Landmarks as float64 (..., N, D), those without a position (not annotated, absent, not found) as NaN."""
    points = torch.as_tensor(points, dtype=torch.float64)
    return points.where(points.isfinite().all(-1, keepdim=True), torch.nan)
