"""The three planes of a volume, turned as radiologists see them whatever the orientation of its array."""

from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import Orientation

# The letters at the two ends of each axis of an array that `radiological` has turned. Its axes grow to the patient's
# left, to posterior and to inferior, which is where pictures of slices grow: to the right and downwards.
ENDS = (("R", "L"), ("A", "P"), ("S", "I"))
RADIOLOGICAL = "".join(end for _, end in ENDS)


@dataclass(frozen=True)
class Plane:
    """A plane of pictures: the axes of the array that run across it, down it and through it (None for a 2D image)."""

    name: str
    across: int
    down: int
    through: int | None = None

    @property
    def axes(self) -> list[int]:
        return [self.across, self.down]

    def slice(self, array: torch.Tensor, point: np.ndarray) -> torch.Tensor:
        """The slice of an array (X, Y(, Z)) at a point in its voxels, or at the nearest voxel: (W, H), x first."""
        return array if self.through is None else array.select(self.through, self.index(array, point))

    def index(self, array: torch.Tensor, point: np.ndarray) -> int:
        """Which slice that is; 0 for a 2D image."""
        if self.through is None:
            return 0
        return int(np.clip(np.rint(point[self.through]), 0, array.shape[self.through] - 1))


PLANES = (Plane("axial", 0, 1, 2), Plane("coronal", 0, 2, 1), Plane("sagittal", 1, 2, 0))
FILM = Plane("", 0, 1)


def radiological(volume: MetaTensor) -> MetaTensor:
    """A volume (1, X, Y, Z) whose axes are turned, by whole quarters, as near as can be to left, posterior, inferior.

    Points in world coordinates stay where they are: the affine is turned with the array.
    """
    labels = tuple(zip("LPI", "RAS"))  # world is RAS here, whatever the meta of the image calls it
    return Orientation(axcodes=RADIOLOGICAL, labels=labels)(volume.detach())


def voxel_size(volume: MetaTensor) -> np.ndarray:
    """The size of a voxel in world units, (D,)."""
    return np.asarray(affine_to_spacing(volume.affine.cpu().double(), r=volume.ndim - 1))
