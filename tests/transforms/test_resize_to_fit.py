import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ResizeWithPadOrCrop

from common.transforms import ResizeToFitd


@pytest.mark.parametrize(
    ("shape", "limits", "expected"),
    [
        ((50, 100), [40, 50], (25, 50)),  # the height decides
        ((90, 100), [40, 50], (40, 44)),  # the width decides, where the longest axis would be cut off
        ((200, 20), [40, 50], (40, 4)),
        ((10, 20, 40), 80, (20, 40, 80)),
    ],
)
def test_an_image_just_fits_with_its_aspect_kept(shape, limits, expected):
    image = MetaTensor(torch.rand(1, *shape), affine=torch.eye(4))
    assert ResizeToFitd("image", limits)({"image": image})["image"].shape[1:] == expected


def test_a_point_keeps_its_place_in_the_world_through_fitting_and_padding():
    image = torch.zeros(1, 90, 100)
    image[0, 84:88, 10:14] = 1  # centred on (85.5, 11.5), near the right edge
    fitted = ResizeToFitd("image", [45, 60])({"image": MetaTensor(image, affine=torch.eye(4))})["image"]
    padded = ResizeWithPadOrCrop([45, 60])(fitted)
    weights = padded[0].numpy()
    voxel = [(weights.sum(1 - axis) * np.arange(weights.shape[axis])).sum() / weights.sum() for axis in (0, 1)]
    world = padded.affine.numpy() @ [*voxel, 0, 1]
    assert np.allclose(world[:2], [85.5, 11.5], atol=1e-6)
