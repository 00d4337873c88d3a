"""Landmarks as what every patch of an image says of them, and back by a weighted vote (noothout2020, Section II).

A network that halves its input n times looks at it in patches of s = 2^n voxels. Patch p along an axis holds the
voxels s p to s p + s - 1 and has its centre at s p + (s - 1) / 2. An image whose size is no multiple of s is padded at
its end, so that the last patch may reach beyond it.
"""

import math
from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

from .coordinates import is_annotated, is_present, voxel_to_world, world_to_voxel


def patch_grid_size(spatial_size: Sequence[int], spacing: int) -> list[int]:
    """Number of patches along each axis of an image of that size."""
    return [-(-int(size) // spacing) for size in spatial_size]


def log_displacement(displacement: torch.Tensor) -> torch.Tensor:
    """sign(x) log(1 + |x|), so that errors of far patches count less than those of near ones (Section II)."""
    return displacement.sign() * torch.log1p(displacement.abs())


def linear_displacement(logarithm: torch.Tensor) -> torch.Tensor:
    """The inverse of `log_displacement`; over 160,000 voxels, more than any image has, it stands still."""
    return logarithm.sign() * torch.expm1(logarithm.abs().clamp(max=12.0))


def patch_centres(grid: list[int], spacing: int, device: torch.device) -> torch.Tensor:
    """Centres of the patches in voxels, shape (D, *grid), float32."""
    dims = len(grid)
    axes: list[torch.Tensor] = []
    for axis in range(dims):
        shape = [1] * dims
        shape[axis] = grid[axis]
        along = torch.arange(grid[axis], device=device, dtype=torch.float32) * spacing + (spacing - 1) / 2
        axes.append(along.reshape(shape).expand(grid))
    return torch.stack(axes)


def encode_patch_grid(
    points: torch.Tensor, grid: list[int], spacing: int, logarithm: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """What every patch should say of every landmark.

    Args:
        points: landmarks in voxels, shape (B, N, D); NaN not annotated, +inf absent.
        grid: number of patches along each axis.
        spacing: s, voxels from patch to patch.
        logarithm: whether displacements are log-transformed.

    Returns:
        displacements (B, N, D, *grid) in voxels from a patch's centre to the landmark, NaN for landmarks without a
        position; presence (B, N, *grid), 1 in the patch that holds the landmark and 0 elsewhere (everywhere, if it is
        absent or off the grid), NaN for landmarks that are not annotated.
    """
    ones = [1] * len(grid)
    centres = patch_centres(grid, spacing, points.device)
    places = torch.where(is_present(points).unsqueeze(-1), points, torch.nan).to(centres.dtype)
    displacement = places.reshape(list(points.shape) + ones) - centres
    # a patch is half open: it begins half a voxel before its first voxel's centre
    inside = (displacement >= -spacing / 2) & (displacement < spacing / 2)
    presence = inside.all(2).to(centres.dtype)
    annotated = is_annotated(points).reshape(list(points.shape[:2]) + ones)
    presence = torch.where(annotated, presence, torch.nan)
    return (log_displacement(displacement) if logarithm else displacement), presence


def vote_landmarks(
    displacement: torch.Tensor, weights: torch.Tensor, spacing: int, logarithm: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Landmarks as the weighted mean of where patches point to (Section II).

    Args:
        displacement: shape (B, N, D, *grid), as `encode_patch_grid` gives them.
        weights: of the patches, shape (B, N, *grid), not negative; the presence probability in the paper.
        spacing: s, voxels from patch to patch.
        logarithm: whether displacements are log-transformed.

    Returns:
        points (B, N, D) in voxels; spread (B, N), the weighted root mean square distance of the votes from them, in
        voxels. Both NaN where all weights are 0.
    """
    grid = list(displacement.shape[3:])
    if logarithm:
        displacement = linear_displacement(displacement)
    votes = (displacement + patch_centres(grid, spacing, displacement.device)).flatten(3)
    shares = weights.flatten(2).unsqueeze(2)
    shares = shares / shares.sum(-1, keepdim=True)
    votes = torch.where(shares > 0, votes, torch.zeros_like(votes))  # 0 times NaN is NaN
    points = (shares * votes).sum(-1)
    spread = (shares * (votes - points.unsqueeze(-1)).square()).sum(-1).sum(-1).sqrt()
    return points, spread


class LandmarksToPatchGrid(Transform):
    """Array form of `encode_patch_grid`, for one image.

    Args:
        spacing: s = 2^n, voxels from patch to patch.
        logarithm: whether displacements are log-transformed.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, spacing: int, logarithm: bool = True) -> None:
        if spacing < 1 or not math.log2(spacing).is_integer():
            raise ValueError(f"The spacing of a patch grid must be a power of 2, got {spacing}.")
        self.spacing = spacing
        self.logarithm = logarithm

    def __call__(self, points: torch.Tensor, spatial_size: Sequence[int]) -> torch.Tensor:
        """Landmarks (N, D) in voxels of an image of that size -> (N * (D + 1), *grid): displacements, then presence."""
        grid = patch_grid_size(spatial_size, self.spacing)
        displacement, presence = encode_patch_grid(points.unsqueeze(0), grid, self.spacing, self.logarithm)
        return torch.cat([displacement[0].flatten(0, 1), presence[0]])


class PatchGridToLandmarks(Transform):
    """The inverse of `LandmarksToPatchGrid`: landmarks by the weighted vote. Arguments are the same."""

    backend = [TransformBackends.TORCH]

    def __init__(self, spacing: int, logarithm: bool = True) -> None:
        self.spacing = spacing
        self.logarithm = logarithm

    def __call__(self, grid: torch.Tensor) -> torch.Tensor:
        """(N * (D + 1), *grid) with presence probabilities -> points (N, D) in voxels, NaN where no patch votes."""
        dims = grid.ndim - 1
        count = len(grid) // (dims + 1)
        displacement = grid[: count * dims].unflatten(0, (count, dims)).unsqueeze(0)
        weights = grid[count * dims :].nan_to_num(0.0).unsqueeze(0)
        return vote_landmarks(displacement, weights, self.spacing, self.logarithm)[0][0]


class LandmarksToPatchGridd(MapTransform):
    """Dictionary form of `LandmarksToPatchGrid`.

    Args:
        keys: landmarks in world coordinates (RAS), (1, N, D); replaced by grids (N * (D + 1), *grid).
        image_key: the image on whose voxels the grid lies, a MetaTensor.
        spacing: s = 2^n, voxels from patch to patch.
        logarithm: whether displacements are log-transformed.
    """

    backend = LandmarksToPatchGrid.backend

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        spacing: int = 8,
        logarithm: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.encode = LandmarksToPatchGrid(spacing, logarithm)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        item = dict(data)
        image: MetaTensor = item[self.image_key]
        for key in self.key_iterator(item):
            item[key] = self.encode(world_to_voxel(item[key][0], image.affine), image.shape[1:])
        return item


class PatchGridToLandmarksd(MapTransform):
    """The inverse of `LandmarksToPatchGridd`: grids become landmarks (1, N, D) in world coordinates (RAS), float64."""

    backend = PatchGridToLandmarks.backend

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        spacing: int = 8,
        logarithm: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.decode = PatchGridToLandmarks(spacing, logarithm)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = voxel_to_world(self.decode(item[key])[None].double(), item[self.image_key].affine)
        return item
