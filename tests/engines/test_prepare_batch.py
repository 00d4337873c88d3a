import math

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from scipy import ndimage

from common.engines import PrepareBatchLandmarks

NAN, INF = math.nan, math.inf
AFFINES = [
    [[-0.5, 0, 0, 7], [0, -0.5, 0, -3], [0, 0, 1, 0], [0, 0, 0, 1]],
    [[0.3, -0.4, 0, 100], [0.4, 0.3, 0, 20], [0, 0, 2, 0], [0, 0, 0, 1]],  # turned and scaled
    [[1.0, 0.2, 0, 0], [0, -2.0, 0, 5], [0, 0, 1, 0], [0, 0, 0, 1]],  # sheared, as after a registration
]


def item(affine, centre, size=(24, 18)):
    """An image with a blob at a voxel, and the blob's place in the world, by the matrix itself."""
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1)
    blob = np.exp(-((grid - centre) ** 2).sum(-1) / 4)
    matrix = np.array(affine, dtype=np.float64)
    dims = len(size)
    world = matrix[:dims, :dims] @ centre + matrix[:dims, 3]
    label = torch.tensor(np.array([[world, [NAN] * dims, [INF] * dims]]))
    image = MetaTensor(torch.tensor(blob[None], dtype=torch.float32), affine=torch.tensor(matrix))
    return {"image": image, "label": label}


def test_points_land_on_the_blobs_of_images_with_different_affines():
    centres = [[10.25, 7.5], [13.0, 9.75], [8.5, 10.0]]
    items = [item(affine, np.array(centre)) for affine, centre in zip(AFFINES, centres)]
    batch = next(iter(DataLoader(items, batch_size=3)))
    image, points = PrepareBatchLandmarks()(batch, "cpu")
    assert image.shape == (3, 1, 24, 18) and points.shape == (3, 3, 2)
    for picture, point, centre in zip(image, points, centres):
        assert point[0].numpy() == pytest.approx(ndimage.center_of_mass(picture[0].numpy()), abs=0.02)
        assert point[0].numpy() == pytest.approx(np.array(centre), abs=1e-4)


def test_volumes_need_no_other_code():
    affine = np.diag([-0.4, -0.5, 1.5, 1.0])
    affine[:3, 3] = 30, -20, 500
    batch = next(iter(DataLoader([item(affine, np.array([4.0, 6.5, 3.25]), (10, 12, 8))], batch_size=1)))
    _, points = PrepareBatchLandmarks()(batch, "cpu")
    assert points[0, 0].numpy() == pytest.approx([4.0, 6.5, 3.25], abs=1e-4)


def test_unannotated_and_absent_landmarks_pass_as_they_are():
    batch = next(iter(DataLoader([item(a, np.array([5.0, 5.0])) for a in AFFINES[:2]], batch_size=2)))
    _, points = PrepareBatchLandmarks()(batch, "cpu")
    assert points[:, 1].isnan().all() and (points[:, 2] == INF).all()


def test_what_reaches_the_loss_is_plain_and_in_single_precision():
    batch = next(iter(DataLoader([item(AFFINES[0], np.array([5.0, 5.0]))], batch_size=1)))
    image, points = PrepareBatchLandmarks()(batch, torch.device("cpu"), non_blocking=True)
    assert type(image) is torch.Tensor and type(points) is torch.Tensor
    assert image.dtype == points.dtype == torch.float32


def test_world_coordinates_far_from_the_origin_lose_nothing():
    """In single precision a world coordinate of 1e6 is exact to 0.06 alone; the map is done in double."""
    affine = np.diag([0.1, 0.1, 1.0, 1.0])
    affine[:2, 3] = 1e6, -1e6
    batch = next(iter(DataLoader([item(affine, np.array([11.25, 3.75]))], batch_size=1)))
    _, points = PrepareBatchLandmarks()(batch, "cpu")
    assert points[0, 0].numpy() == pytest.approx([11.25, 3.75], abs=1e-4)


def test_other_keys_may_be_named():
    data = item(AFFINES[0], np.array([5.0, 6.0]))
    batch = next(iter(DataLoader([{"film": data["image"], "points": data["label"]}], batch_size=1)))
    _, points = PrepareBatchLandmarks("film", "points")(batch, "cpu")
    assert points[0, 0].tolist() == pytest.approx([5.0, 6.0], abs=1e-4)
