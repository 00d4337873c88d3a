import math

import numpy as np
import pytest
import torch

from common.transforms.coordinates import is_annotated, is_present, voxel_to_world, world_to_voxel

NAN, INF = math.nan, math.inf
# 0.5 x 2 x 3 mm voxels, turned by 90 degrees in the plane: x of the voxel runs along y of the world.
AFFINE = torch.tensor([[0.0, -2, 0, 10], [0.5, 0, 0, 20], [0, 0, 3, -5], [0, 0, 0, 1]])
RNG = np.random.default_rng(0)


def by_hand(point, affine):
    """One point by the sums of the matrix product."""
    dims = len(point)
    return [sum(float(affine[i][j]) * point[j] for j in range(dims)) + float(affine[i][3]) for i in range(dims)]


def test_a_voxel_is_where_the_affine_puts_it():
    assert voxel_to_world(torch.tensor([[4.0, 3.0, 2.0]]), AFFINE).tolist() == [[4.0, 22.0, 1.0]]
    assert voxel_to_world(torch.tensor([[4.0, 3.0]]), AFFINE).tolist() == [[4.0, 22.0]]


def test_the_way_back_is_the_inverse():
    assert world_to_voxel(torch.tensor([[4.0, 22.0, 1.0]]), AFFINE)[0].tolist() == pytest.approx([4.0, 3.0, 2.0])
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3] += torch.from_numpy(RNG.normal(size=(3, 4)))
    points = torch.from_numpy(RNG.normal(scale=100, size=(9, 3)))
    assert torch.allclose(world_to_voxel(voxel_to_world(points, affine), affine), points, atol=1e-9)


def test_each_image_of_a_batch_has_its_own_affine():
    affines = torch.stack([AFFINE, 2 * AFFINE, torch.eye(4)])
    points = torch.from_numpy(RNG.normal(size=(3, 5, 2)))
    mapped = voxel_to_world(points, affines)
    for i in range(3):
        for j in range(5):
            assert mapped[i, j].tolist() == pytest.approx(by_hand(points[i, j].tolist(), affines[i]))


def test_one_affine_serves_a_whole_batch():
    points = torch.from_numpy(RNG.normal(size=(3, 5, 3)))
    mapped = voxel_to_world(points, AFFINE)
    assert mapped.shape == (3, 5, 3)
    assert mapped[2, 4].tolist() == pytest.approx(by_hand(points[2, 4].tolist(), AFFINE))


@pytest.mark.parametrize("change", [voxel_to_world, world_to_voxel])
@pytest.mark.parametrize("dims", [2, 3])
def test_unannotated_and_absent_rows_pass_unchanged(change, dims):
    points = torch.tensor([[1.0] * dims, [NAN] * dims, [INF] * dims])
    mapped = change(points, AFFINE)
    assert mapped[0].isfinite().all() and mapped[1].isnan().all() and (mapped[2] == INF).all()


def test_a_set_without_landmarks_is_no_error():
    assert voxel_to_world(torch.zeros(0, 2), AFFINE).shape == (0, 2)


def test_the_result_is_in_double_precision_and_what_came_stays_as_it_was():
    points = torch.tensor([[1e6 + 0.125, 0.0]], dtype=torch.float64)
    before = points.clone()
    mapped = world_to_voxel(points, torch.eye(4))
    assert mapped.dtype == torch.float64 and mapped[0, 0] == 1e6 + 0.125
    assert torch.equal(points, before)
    assert voxel_to_world(torch.ones(1, 2, dtype=torch.float16), AFFINE).dtype == torch.float64


def test_numpy_affines_are_taken_as_they_stand_in_meta():
    assert voxel_to_world(torch.tensor([[4.0, 3.0]]), AFFINE.numpy()).tolist() == [[4.0, 22.0]]


def test_only_not_a_number_means_unannotated_and_only_finite_rows_have_a_position():
    points = torch.tensor([[[1.0, 2.0], [NAN, NAN], [NAN, 3.0], [INF, INF], [INF, 3.0]]])
    assert is_annotated(points).tolist() == [[True, False, False, True, True]]
    assert is_present(points).tolist() == [[True, False, False, False, False]]
