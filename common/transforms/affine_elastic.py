"""One deformation, affine and elastic, of images and of the landmarks on them."""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms.inverse import TraceableTransform

from ..errors import InputError
from .bspline_field import BSplineField
from .coordinates import is_present, world_to_voxel

PADDING_MODES = {"constant": "zeros", "border": "border"}


class AffineElastic:
    """The map out(x) = in(A(x + u(x))) for images of one size; all coordinates are voxels.

    Args:
        affine: A, shape (D + 1, D + 1): from output to input voxels.
        field: u, with a positive Jacobian of x + u(x); None for a purely affine map.
        spatial_size: the size of the input and of the output.
    """

    def __init__(self, affine: torch.Tensor, field: BSplineField | None, spatial_size: tuple[int, ...]):
        self.affine = torch.as_tensor(affine, dtype=torch.float64)
        self.field = field
        self.spatial_size = tuple(spatial_size)
        self.is_identity = field is None and torch.equal(self.affine, torch.eye(len(affine)).double())
        self._grids: dict[torch.device, torch.Tensor] = {}  # several images share one

    def _grid(self, device: torch.device) -> torch.Tensor:
        if device not in self._grids:
            self._grids[device] = self._make_grid(device)
        return self._grids[device]

    def _make_grid(self, device: torch.device) -> torch.Tensor:
        """Where every output voxel samples the input, as `grid_sample` counts: (1, *spatial_size, D)."""
        dims = len(self.spatial_size)
        # from voxels to [-1, 1] edge to edge (align_corners=False), the last axis first
        sizes = torch.tensor(self.spatial_size, dtype=torch.float64)
        linear = (2 / sizes[:, None] * self.affine[:dims, :dims]).flip(0)
        start = ((2 * self.affine[:dims, dims] + 1) / sizes - 1).flip(0)
        if self.field is None:
            grid = torch.zeros(dims, *self.spatial_size, device=device)
        else:
            sampled = torch.tensordot(linear, self.field.coefficients, dims=1)
            grid = BSplineField(sampled, self.spatial_size).dense(device)
        for axis, size in enumerate(self.spatial_size):
            along = linear[:, axis, None] * torch.arange(size) + (start[:, None] if axis == 0 else 0)
            grid += along.reshape([dims] + [size if a == axis else 1 for a in range(dims)]).to(grid)
        return grid.movedim(0, -1).unsqueeze(0)

    def resample(
        self,
        img: torch.Tensor,
        mode: str = "bilinear",
        padding_mode: str = "constant",
        padding_value: float = 0.0,
    ) -> torch.Tensor:
        """Deform an image.

        Args:
            img: shape (C, *spatial_size), on any device, no pending operations.
            mode: `bilinear` (trilinear in 3D) or `nearest`.
            padding_mode: `constant` or `border` (the nearest voxel), for what lies outside the input.
            padding_value: that constant, in the image's intensities.

        Returns:
            float32 image of the same shape; a MetaTensor keeps its meta and has the affine `affine` @ A.
        """
        if padding_mode not in PADDING_MODES:
            raise InputError(f"padding_mode is {padding_mode}: give one of {', '.join(PADDING_MODES)}.")
        if self.is_identity:
            return img.float()
        plain = (img.as_tensor() if isinstance(img, MetaTensor) else img).float()
        # grid_sample pads with zeros only, so zero is made to mean the padding value
        shift = padding_value if padding_mode == "constant" else 0
        out = torch.nn.functional.grid_sample(
            (plain - shift if shift else plain).unsqueeze(0),
            self._grid(img.device),
            mode=mode,
            padding_mode=PADDING_MODES[padding_mode],
            align_corners=False,
        ).squeeze(0)
        if shift:
            out += shift
        if not isinstance(img, MetaTensor):
            return out
        return MetaTensor(out).copy_meta_from(TraceableTransform.track_transform_meta(img, affine=self.affine))

    def map_points(self, points: torch.Tensor, image_affine: torch.Tensor) -> torch.Tensor:
        """Move landmarks with the content of the image.

        Args:
            points: world coordinates before the deformation, shape (..., N, D); rows of NaN or +inf stay.
            image_affine: the image's affine before the deformation, shape (4, 4).

        Returns:
            float64 world coordinates that the deformed image's affine takes to where the content now is. The
            affine part changes none; without an elastic part, `points` come back exactly.
        """
        moved = points.to(torch.float64, copy=True)
        if self.field is None:
            return moved
        affine = to_affine_nd(3, image_affine).cpu().double() @ to_affine_nd(3, self.affine)
        present = is_present(points)
        # solve A(q + u(q)) = p, and move the world point by what u(q) is there
        q = self.field.invert(world_to_voxel(moved[present], affine))
        displacement = self.field.at(q)[0] @ affine[: q.shape[1], : q.shape[1]].T
        moved[present] -= displacement.to(moved.device)
        return moved
