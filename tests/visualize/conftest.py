import numpy as np
import pytest
import torch
from monai.data import MetaTensor

# Columns of an affine: where the axes of the array go in the world (right, anterior, superior).
AXES = {
    "RAS": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "LPS": [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
    "LPI": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]],
    "ASL": [[0, 0, -1], [1, 0, 0], [0, 1, 0]],
    "SLP": [[0, -1, 0], [0, 0, -1], [1, 0, 0]],
}


def turned(degrees):
    """A small rotation about an oblique axis, by Rodrigues' formula."""
    axis = np.array([1.0, -2.0, 2.0]) / 3
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@pytest.fixture(params=[*((axes, 0) for axes in AXES), ("RAS", 17), ("SLP", 17), ("LPS", -20)], ids=lambda p: f"{p}")
def affine(request):
    """The affine of an array in one of several orientations, of voxels of 1 x 1.5 x 2.5 mm, some oblique."""
    axes, degrees = request.param
    affine = np.eye(4)
    affine[:3, :3] = turned(degrees) @ np.array(AXES[axes]) * [1.0, 1.5, 2.5]
    affine[:3, 3] = [12.0, -7.0, 30.0]
    return affine


@pytest.fixture
def spot():
    """Make a dark volume with a bright spot of about 2 mm at a voxel."""

    def make(affine, voxel, shape=(40, 30, 20)):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        offsets = [(np.arange(n) - v) * s for n, v, s in zip(shape, voxel, spacing)]
        squares = sum(o**2 for o in np.meshgrid(*offsets, indexing="ij"))
        return MetaTensor(torch.tensor(np.exp(-squares / 8))[None].float(), affine=torch.tensor(affine))

    return make


@pytest.fixture
def world():
    """Map a voxel to the world by an affine."""
    return lambda affine, voxel: affine[:3, :3] @ np.asarray(voxel, dtype=float) + affine[:3, 3]
