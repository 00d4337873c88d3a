"""A smooth displacement field: cubic B-spline over a coarse grid of control points, in 2D and 3D.

The grid is that of ITK's `BSplineTransform` of order 3, which payer2019 deforms with: n control points on an
axis span n - 3 cells of equal width over the image, from its edge (voxel coordinate -0.5) to its other edge,
with one control point outside at either side. Unlike ITK's, the field does not stop at the image's edge but
fades out smoothly beyond it, so that landmarks off the image move, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch

from ..errors import InputError


def _cubic(r: torch.Tensor) -> torch.Tensor:
    r = r.abs()
    return torch.where(r < 1, 2 / 3 - r**2 + r**3 / 2, (2 - r).clamp(min=0) ** 3 / 6)


def _cubic_slope(r: torch.Tensor) -> torch.Tensor:
    a = r.abs()
    return r.sign() * torch.where(a < 1, 1.5 * a**2 - 2 * a, -((2 - a).clamp(min=0) ** 2) / 2)


def _contract(coefficients: torch.Tensor, bases: Sequence[torch.Tensor]) -> torch.Tensor:
    """Evaluate on a grid: (D, *control_points) with D bases (length, control points) -> (D, *lengths)."""
    return reduce(lambda field, basis: torch.tensordot(field, basis, dims=([1], [1])), bases, coefficients)


class BSplineField:
    """The displacement u(x), in voxels, of every point x of an image, in voxels.

    Args:
        coefficients: displacements of the control points in voxels, shape (D, *control_points), at least four
            control points on an axis.
        spatial_size: the image's size, D integers.

    Raises:
        InputError: fewer than four control points on an axis.
    """

    def __init__(self, coefficients: torch.Tensor, spatial_size: Sequence[int]):
        self.coefficients = torch.as_tensor(coefficients, dtype=torch.float64)
        self.spatial_size = tuple(spatial_size)
        self.control_points = tuple(self.coefficients.shape[1:])
        if min(self.control_points) < 4:
            raise InputError(
                f"A B-spline field has {self.control_points} control points: give at least 4 on each axis."
            )
        self.cell = [size / (n - 3) for size, n in zip(self.spatial_size, self.control_points)]

    def _offsets(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        """Distances of coordinates on an axis from its control points, in cells: (M) -> (M, n)."""
        index = torch.arange(self.control_points[axis], dtype=torch.float64)
        return ((x.double() + 0.5) / self.cell[axis])[:, None] - (index - 1)

    def _basis(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        return _cubic(self._offsets(x, axis))

    def _basis_slope(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        return _cubic_slope(self._offsets(x, axis)) / self.cell[axis]

    def dense(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The displacements of all voxels, shape (D, *spatial_size), in voxels."""
        bases = [self._basis(torch.arange(n), axis) for axis, n in enumerate(self.spatial_size)]
        return _contract(
            self.coefficients.to(device=device, dtype=dtype),
            [b.to(device=device, dtype=dtype) for b in bases],
        )

    def at(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Displacements at points and their derivatives.

        Args:
            points: voxel coordinates, shape (M, D).

        Returns:
            displacements (M, D) and derivatives (M, D, D), [:, i, j] is du_i / dx_j.
        """
        points = points.to(dtype=torch.float64, device="cpu")
        values = [self._basis(x, axis) for axis, x in enumerate(points.T)]
        equation = "kab,ma,mb->mk" if len(values) == 2 else "kabc,ma,mb,mc->mk"
        derivatives = [
            torch.einsum(equation, self.coefficients, *values[:axis], self._basis_slope(x, axis), *values[axis + 1 :])
            for axis, x in enumerate(points.T)
        ]
        return torch.einsum(equation, self.coefficients, *values), torch.stack(derivatives, -1)

    def invert(self, targets: torch.Tensor, tolerance: float = 1e-8) -> torch.Tensor:
        """Solve q + u(q) = p for q by Newton's method with step halving.

        Args:
            targets: p in voxel coordinates, shape (M, D), finite.
            tolerance: of the residual, in voxels.

        Returns:
            q in voxel coordinates, shape (M, D), float64.

        Raises:
            RuntimeError: no solution, which a field of positive Jacobian (`damped`) cannot have.
        """
        p = targets.to(dtype=torch.float64, device="cpu")
        q, step = p.clone(), torch.ones(len(p), 1, dtype=torch.float64)
        u, slopes = self.at(q)
        residual = q + u - p
        for _ in range(200):
            if (residual.norm(dim=-1) <= tolerance).all():
                return q
            jacobian = slopes + torch.eye(p.shape[1], dtype=torch.float64)
            trial = q - step * torch.linalg.solve(jacobian, residual)
            trial_u, trial_slopes = self.at(trial)
            trial_residual = trial + trial_u - p
            before, after = (r.norm(dim=-1, keepdim=True) for r in (residual, trial_residual))
            better = after < (1 - step / 4) * before
            q = torch.where(better, trial, q)
            residual = torch.where(better, trial_residual, residual)
            slopes = torch.where(better.unsqueeze(-1), trial_slopes, slopes)
            step = torch.where(better, (2 * step).clamp(max=1), step / 2)
        raise RuntimeError("A deformation has no inverse at a landmark: reduce its magnitude.")

    def damped(self, min_jacobian: float = 0.1) -> BSplineField:
        """Scale the field down as far as needed for the Jacobian of x + u(x) to stay positive everywhere.

        A bound from the differences of neighbouring control points settles the ordinary case. Where it does
        not, the field grows from that bound by tenths for as long as the determinant, sampled over the whole
        support of the field, exceeds `min_jacobian`. Positive everywhere, x + u(x) is one-to-one.
        """
        dims = len(self.cell)
        padded = torch.nn.functional.pad(self.coefficients, [1, 1] * dims)  # the field fades to zero outside
        differences = [padded.diff(dim=j + 1).abs().flatten(1).amax(1) / self.cell[j] for j in range(dims)]
        norm = sum(differences).max().item()  # of the derivative of u (row sums), which bounds its eigenvalues
        factor = (1 - min_jacobian ** (1 / dims)) / max(norm, 1e-9)
        if factor >= 1:
            return self
        e1, e2, e3 = self._derivative_invariants(samples_per_cell=8 if dims == 2 else 4)
        while factor < 1:
            grown = min(1.1 * factor, 1.0)
            if (1 + grown * e1 + grown**2 * e2 + grown**3 * e3).min() <= min_jacobian:
                return BSplineField(self.coefficients * factor, self.spatial_size)
            factor = grown
        return self

    def _derivative_invariants(self, samples_per_cell: int) -> list[torch.Tensor]:
        """The e of det(1 + f G) = 1 + f e1 + f^2 e2 + f^3 e3, G the derivative of u, on all its support."""
        axes = [
            (torch.arange(-3 * samples_per_cell, n * samples_per_cell + 1) / samples_per_cell) * cell - 0.5
            for n, cell in zip(self.control_points, self.cell)
        ]
        values = [self._basis(x, axis) for axis, x in enumerate(axes)]
        bases = [[*values[:j], self._basis_slope(x, j), *values[j + 1 :]] for j, x in enumerate(axes)]
        gradient = torch.stack([_contract(self.coefficients, b).flatten(1) for b in bases]).permute(2, 1, 0)
        square = gradient @ gradient
        p1, p2, p3 = (m.diagonal(dim1=1, dim2=2).sum(-1) for m in (gradient, square, square @ gradient))
        e2 = (p1**2 - p2) / 2  # Newton's identities; e3 vanishes in 2D
        return [p1, e2, (e2 * p1 - p1 * p2 + p3) / 3]
