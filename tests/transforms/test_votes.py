import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.transforms import VotesToLandmarksd

NAN = math.nan
OBLIQUE = np.array([[0.9, -0.5, 0.1, 30], [0.4, 1.1, -0.3, -12], [0.2, 0.3, 2.0, 5], [0, 0, 0, 1]])
FLAT = np.array([[0.3, -0.4, 0, 100], [0.4, 0.3, 0, 20], [0, 0, 2, 0], [0, 0, 0, 1]])  # turned, pixels of 0.5


@pytest.mark.parametrize(("matrix", "dims", "voxel"), [(FLAT, 2, 0.5), (OBLIQUE, 3, 2.481 ** (1 / 3))])
def test_votes_become_world_landmarks_with_confidence_and_spread(matrix, dims, voxel):
    """The determinant of the oblique matrix is 0.9 (2.2 + 0.09) + 0.5 (0.8 + 0.06) + 0.1 (0.12 - 0.22) = 2.481."""
    voxels = np.array([[3.25, 7.5, 1.0], [0.0, -4.0, 2.0]])[:, :dims]
    votes = torch.tensor(np.column_stack([voxels, [0.75, 0.125], [2.0, 6.0]]), dtype=torch.float32)
    image = MetaTensor(torch.zeros(1, *[4] * dims), affine=torch.tensor(matrix))
    item = VotesToLandmarksd()({"image": image, "pred": votes, "mm_per_world": 0.1})
    world = voxels @ matrix[:dims, :dims].T + matrix[:dims, 3]
    assert item["pred"].shape == (1, 2, dims) and item["pred"].dtype == torch.float64
    np.testing.assert_allclose(item["pred"][0].numpy(), world, atol=1e-9)
    assert item["confidence"].tolist() == [0.75, 0.125]
    assert item["spread"].tolist() == pytest.approx([0.2 * voxel, 0.6 * voxel])
    assert VotesToLandmarksd()({"image": image, "pred": votes})["spread"].tolist() == pytest.approx(
        [2 * voxel, 6 * voxel]
    )


def test_a_landmark_in_which_no_patch_believes_is_not_found():
    votes = torch.tensor([[3.0, 4.0, 0.4, 1.0], [5.0, 6.0, 0.5, 1.0], [NAN, NAN, 0.0, NAN]])
    image = MetaTensor(torch.zeros(1, 9, 9), affine=torch.eye(4))
    item = VotesToLandmarksd(min_confidence=0.5)({"image": image, "pred": MetaTensor(votes)})
    assert item["pred"][0].isposinf().all(-1).tolist() == [True, False, True]  # absent
    assert item["pred"][0, 1].tolist() == [5.0, 6.0] and type(item["pred"]) is torch.Tensor
    assert item["confidence"].tolist() == pytest.approx([0.4, 0.5, 0.0])
    assert votes[0].tolist() == pytest.approx([3.0, 4.0, 0.4, 1.0])  # the network's answer is as it was
