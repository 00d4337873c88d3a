"""Points between voxels and world: the one place where an affine is applied to landmarks.

Landmarks are float64 tensors of shape (..., N, D) with D = 2 or 3. A row of NaN is a landmark that nobody
annotated, a row of +inf one that the annotator calls absent; both pass through every function here unchanged.
"""

import torch
from monai.transforms.utils import apply_affine_to_points


def is_annotated(points: torch.Tensor) -> torch.Tensor:
    """Landmarks about which the annotator said something, a position or "absent": (..., N, D) -> (..., N)."""
    return ~points.isnan().any(-1)


def is_present(points: torch.Tensor) -> torch.Tensor:
    """Landmarks that have a position: (..., N, D) -> (..., N)."""
    return points.isfinite().all(-1)


def voxel_to_world(points: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    """Map voxel coordinates to world coordinates (RAS) by an image's affine.

    Args:
        points: shape (N, D) or (B, N, D); voxel centres at integers, x first.
        affine: shape (4, 4), or (B, 4, 4) for one affine per batch item.

    Returns:
        float64 tensor of the shape and on the device of `points`.
    """
    plain = torch.as_tensor(points, dtype=torch.float64, device="cpu")  # MONAI maps points on the host
    affine = torch.as_tensor(affine, dtype=torch.float64, device="cpu")
    if affine.ndim == 3:
        return torch.stack([voxel_to_world(p, a) for p, a in zip(torch.as_tensor(points), affine)])
    mapped = apply_affine_to_points(plain.reshape(1, -1, plain.shape[-1]), affine, dtype=torch.float64)
    mapped = torch.as_tensor(mapped).reshape(plain.shape)
    return torch.where(is_present(plain).unsqueeze(-1), mapped, plain).to(torch.as_tensor(points).device)


def world_to_voxel(points: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    """Map world coordinates (RAS) to voxel coordinates by the inverse of an image's affine.

    Shapes as in `voxel_to_world`.
    """
    affine = torch.as_tensor(affine, dtype=torch.float64)
    return voxel_to_world(points, torch.linalg.inv(affine))
