"""How volumes lie in the world: spacing, orientation, and what is odd about them within one data set."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from .image_files import read_image

SPACING_FACTOR = 4.0  # between the volumes of a set, along one axis
FEW = 0.2  # share of the volumes up to which an orientation is unusual
AXES = "RAS"


@dataclass(frozen=True)
class VolumeGeometry:
    """The grid of a volume.

    Args:
        shape: voxels along each axis of the file.
        affine: (4, 4) from zero-based file voxels to world RAS.
        mm_per_world: millimetres of a world unit, NaN where the file states no size.
        placed: whether the file says where and which way round the volume lies.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    mm_per_world: float = 1.0
    placed: bool = True

    @property
    def orientation(self) -> str:
        """The direction to which each axis of the file runs, such as "RAS" or "LPS"."""
        return "".join(nibabel.aff2axcodes(self.affine))

    @property
    def left_handed(self) -> bool:
        return bool(np.linalg.det(self.affine[:3, :3]) < 0)

    @property
    def spacing(self) -> np.ndarray:
        """Size of a voxel along the axes of the file, in mm (in world units where no size is stated): (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0) * (self.mm_per_world if self.mm_per_world > 0 else 1.0)

    @property
    def world_spacing(self) -> np.ndarray:
        """The same in the order of the world's axes right, anterior, superior, so that files can be compared: (3,)."""
        order = nibabel.io_orientation(self.affine)[:, 0].astype(int)
        spacing = np.empty(3)
        spacing[order] = self.spacing
        return spacing

    def to_voxel(self, points: np.ndarray) -> np.ndarray:
        """World RAS (N, 3) -> zero-based file voxels (N, 3); rows that are not finite become NaN."""
        inverse = np.linalg.inv(self.affine)
        finite = np.where(np.isfinite(points).all(1, keepdims=True), points, np.nan)
        return finite @ inverse[:3, :3].T + inverse[:3, 3]

    def to_world(self, voxels: np.ndarray) -> np.ndarray:
        """Zero-based file voxels (N, 3) -> world RAS (N, 3)."""
        return voxels @ self.affine[:3, :3].T + self.affine[:3, 3]

    def distance_outside(self, points: np.ndarray) -> np.ndarray:
        """How many voxels points (N, 3) in the world lie off the volume's border, 0 inside, NaN without a place: (N,).

        The border is that of the outermost voxels, half a voxel beyond their centres.
        """
        voxels = self.to_voxel(points)
        return np.maximum(np.maximum(-0.5 - voxels, voxels - (np.array(self.shape) - 0.5)), 0).max(1)

    def corners(self) -> np.ndarray:
        """World coordinates of the volume's eight corners: (8, 3)."""
        unit = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
        return self.to_world(unit * np.array(self.shape) - 0.5)


def read_geometry(path: Path) -> tuple[np.ndarray, VolumeGeometry]:
    """A volume's values (X, Y, Z), float32, and its geometry.

    Raises:
        InputError: if it cannot be read or is a flat image; see `read_image`.
    """
    array, meta = read_image(path, spatial_dims=3)
    return array, geometry_of(meta, path)


def geometry_of(meta: Mapping[str, Any], path: str | Path) -> VolumeGeometry:
    """The geometry in the file of a volume by the meta of `read_image`."""
    affine = np.asarray(meta["original_affine"], dtype=np.float64).reshape(4, 4)
    shape = tuple(int(n) for n in np.asarray(meta["spatial_shape"]).ravel())
    return VolumeGeometry(shape, affine, float(meta["mm_per_world"]), states_place(Path(path)))


def states_place(path: Path) -> bool:
    """Whether a file says where the volume lies; a NIfTI file of which both codes are 0 does not."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return True
    header = nibabel.load(path).header
    return int(header["qform_code"]) > 0 or int(header["sform_code"]) > 0


def spacing_doubt(geometry: VolumeGeometry) -> str | None:
    """What a volume's header leaves open, in words."""
    if not geometry.mm_per_world > 0:
        return "its header states no spacing, so a voxel is taken as 1 mm and results would be no millimetres"
    if not geometry.placed and np.allclose(geometry.spacing, 1):
        return "its header states neither position nor orientation, and a spacing of 1 mm that may mean nothing"
    if not geometry.placed:
        return "its header states neither position nor orientation"
    return None


def spacing_text(spacing: np.ndarray) -> str:
    return " x ".join(f"{size:.3g}" for size in spacing) + " mm"


def describe_geometries(geometries: Mapping[str, VolumeGeometry]) -> list[str]:
    """Sentences on the spacings and orientations of the volumes of a set, by their names."""
    table = np.stack([geometry.world_spacing for geometry in geometries.values()])
    low, high = table.min(0), table.max(0)
    if np.allclose(low, high, rtol=1e-3):
        lines = [f"spacing: {spacing_text(low)} in all {len(table)} volumes."]
    else:
        ranges = ", ".join(f"{axis} {a:.3g} to {b:.3g}" for axis, a, b in zip(AXES, low, high))
        lines = [f"spacing in mm along the patient's axes: {ranges}; median {spacing_text(np.median(table, axis=0))}."]
    names = list(geometries)
    for axis in np.flatnonzero(high > SPACING_FACTOR * low):
        fine, coarse = names[table[:, axis].argmin()], names[table[:, axis].argmax()]
        lines.append(
            f"warning: the spacing along {AXES[axis]} runs from {low[axis]:.3g} mm ({fine}) to {high[axis]:.3g} mm "
            f"({coarse}); see that both headers are right, and resample to one spacing in training."
        )
    codes = Counter(geometry.orientation for geometry in geometries.values())
    told = ", ".join(f"{code} in {count}" for code, count in codes.most_common())
    lines.append(f"orientation of the axes: {told} {'volume' if len(table) == 1 else 'volumes'}.")
    if len(codes) > 1:
        lines.append("note: the orientations differ; bring all to one in training (MONAI's Orientationd).")
    if turned := sum(geometry.left_handed for geometry in geometries.values()):
        lines.append(f"note: {turned} of {len(table)} volumes have left-handed axes; points follow the header.")
    return lines


def odd_geometries(geometries: Mapping[str, VolumeGeometry]) -> list[tuple[str, str, str]]:
    """Volumes that lie otherwise than most of their set: name, kind of oddity, and text.

    A spacing is odd over twice or under half the median along an axis of the patient, an orientation if few have it.
    """
    if not geometries:
        return []
    median = np.median([geometry.world_spacing for geometry in geometries.values()], axis=0)
    codes = Counter(geometry.orientation for geometry in geometries.values())
    usual = codes.most_common(1)[0][0]
    odd = []
    for name, geometry in geometries.items():
        spacing = geometry.world_spacing
        if (spacing > 2 * median).any() or (spacing < median / 2).any():
            text = f"{spacing_text(spacing)} (right, anterior, superior), the median is {spacing_text(median)}"
            odd.append((name, "unusual spacing", text))
        if geometry.orientation != usual and codes[geometry.orientation] <= FEW * len(geometries):
            text = f"its axes run to {geometry.orientation}, those of {codes[usual]} others to {usual}"
            odd.append((name, "unusual orientation", text))
        if doubt := spacing_doubt(geometry):
            odd.append((name, "doubtful header", doubt))
    return odd
