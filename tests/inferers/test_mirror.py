import pytest
import torch
from monai.data import MetaTensor

from common.inferers import MirrorAveragingInferer


def test_the_result_is_the_mean_of_both_views():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 2, 3, padding=1)
    image = torch.rand(3, 1, 6, 5)
    expected = torch.empty(3, 2, 6, 5)
    mirrored = network(torch.stack([image[:, :, 5 - x] for x in range(6)], dim=2))
    for x in range(6):
        expected[:, :, x] = (network(image)[:, :, x] + mirrored[:, :, 5 - x]) / 2
    torch.testing.assert_close(MirrorAveragingInferer()(image, network), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_image_gets_mirrored_heatmaps_whatever_the_network(axis):
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
    infer = MirrorAveragingInferer(axis=axis)
    image = torch.rand(1, 1, 8, 9)
    torch.testing.assert_close(infer(image.flip(axis + 2), network), infer(image, network).flip(axis + 2))


def test_images_with_an_affine_give_plain_heatmaps():
    image = MetaTensor(torch.rand(1, 1, 4, 4), affine=torch.eye(4))
    assert type(MirrorAveragingInferer()(image, torch.nn.Identity())) is torch.Tensor
