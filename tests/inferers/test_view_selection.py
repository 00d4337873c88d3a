import itertools
import math

import pytest
import torch
from monai.data import MetaTensor

from common.inferers import ViewSelectingInferer
from common.transforms import decode_heatmaps, draw_heatmaps

TRUE_VIEW = torch.tensor([[0.1, 0.2, 0.9], [0.3, 0.8, 0.4]])  # what the network below knows; not its own mirror


class KnowsOneView(torch.nn.Module):
    """A heatmap with a peak of 1 at the brightest pixel of the image that it knows, and of 0.3 of any other."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        heatmaps = torch.zeros_like(images)
        for heatmap, image in zip(heatmaps, images):
            known = torch.allclose(image[0], TRUE_VIEW)
            place = (0, 0, 2) if known else (0, 1, 0)
            heatmap[place] = 1.0 if known else 0.3
        return heatmaps


VIEWS = list(itertools.product([False, True], [False, True]))


def made_of(mirrored, inverted):
    image = TRUE_VIEW.flip(0) if mirrored else TRUE_VIEW
    return (1 - image if inverted else image)[None]


@pytest.mark.parametrize(("mirrored", "inverted"), VIEWS)
def test_the_peak_comes_back_on_the_image_as_it_is(mirrored, inverted):
    heatmaps = ViewSelectingInferer(0, 1.0)(made_of(mirrored, inverted)[None], KnowsOneView())
    expected = torch.zeros(1, 1, 2, 3)
    expected[0, 0, 1 if mirrored else 0, 2] = 1.0
    torch.testing.assert_close(heatmaps, expected)


def test_each_image_of_a_batch_gets_its_own_view():
    batch = torch.stack([made_of(*view) for view in VIEWS])
    network = KnowsOneView()
    heatmaps = ViewSelectingInferer(0, 1.0)(batch, network)
    assert [tuple(h[0].nonzero()[0].tolist()) for h in heatmaps] == [(0, 2), (0, 2), (1, 2), (1, 2)]
    assert heatmaps.amax() == 1 and heatmaps.flatten(1).amax(1).min() == 1
    assert network.seen == 4 + 3 * 3  # the first is sure at once


def test_a_sure_network_sees_an_image_once():
    network = KnowsOneView()
    ViewSelectingInferer(0, 1.0, enough=0.8)(made_of(False, False)[None], network)
    ViewSelectingInferer(0, 1.0, enough=0.2)(made_of(True, True)[None], network)
    assert network.seen == 2


def test_views_that_were_not_asked_for_are_not_tried():
    network = KnowsOneView()
    image = made_of(True, True)[None]
    assert ViewSelectingInferer(0, None)(image, network).amax() < 1 and network.seen == 2
    assert ViewSelectingInferer(None, 1.0)(image, network).amax() < 1 and network.seen == 4
    assert ViewSelectingInferer(None, None)(image, network).amax() < 1 and network.seen == 5


def test_of_unknown_images_the_first_view_is_kept():
    heatmaps = ViewSelectingInferer(0, 1.0)(torch.full((1, 1, 2, 3), 0.2), KnowsOneView())
    assert tuple(heatmaps[0, 0].nonzero()[0].tolist()) == (1, 0)


def test_images_with_an_affine_give_plain_heatmaps():
    image = MetaTensor(made_of(True, False)[None], affine=torch.eye(4))
    assert type(ViewSelectingInferer(0, 1.0)(image, KnowsOneView())) is torch.Tensor


@pytest.mark.parametrize("padded", [((1, 1), (0, 0)), ((0, 0), (0, 1)), ((1, 2), (2, 1))])
def test_padding_stays_dark_in_an_inverted_view(padded):
    """The film has a pixel of the padding's value within it, which is inverted as the others are."""
    film = torch.tensor([[0.0, 0.2, 0.9], [0.3, 0.8, 0.4]])
    width = (*padded[1], *padded[0])
    image = torch.nn.functional.pad(film, width)[None, None]
    expected = torch.nn.functional.pad(1 - film, width)[None, None]
    batch, inverted = torch.cat([image, image.flip(2)]), torch.cat([expected, expected.flip(2)])
    torch.testing.assert_close(ViewSelectingInferer(0, 1.0, padding=0.0).others.invert(batch), inverted)
    torch.testing.assert_close(ViewSelectingInferer(0, 1.0).others.invert(batch), 1 - batch)


def test_a_padded_film_with_inverted_grey_values_is_known():
    pad = (1, 0, 0, 0)

    class KnowsPadded(KnowsOneView):
        def forward(self, images):
            heatmaps = torch.zeros_like(images)
            known = torch.allclose(images[0, 0], torch.nn.functional.pad(TRUE_VIEW, pad))
            heatmaps[..., 0, 3] = 1.0 if known else 0.3
            return heatmaps

    image = torch.nn.functional.pad(made_of(False, True), pad)[None]
    assert ViewSelectingInferer(0, 1.0, padding=0.0)(image, KnowsPadded()).amax() == 1
    assert ViewSelectingInferer(0, 1.0)(image, KnowsPadded()).amax() < 1


class Bright(torch.nn.Module):
    """The image itself as a heatmap."""

    def __init__(self):
        super().__init__()
        self.images = []

    def forward(self, images):
        self.images.append(images)
        return images


@pytest.mark.parametrize("mirrored", [False, True])
def test_turned_and_scaled_views_come_back_to_the_same_place(mirrored):
    image = draw_heatmaps(torch.tensor([[[20.0, 41.0]]]), (60, 80), 3.0)
    network = Bright()
    inferer = ViewSelectingInferer(0 if mirrored else None, enough=1.5, turns=[-20, 20], scales=[0.8, 1.25])
    heatmaps = inferer(image, network)
    points, confidence = decode_heatmaps(heatmaps)
    assert (points - torch.tensor([20.0, 41.0])).abs().max() < 0.1 and 0.9 < confidence.item() <= 1
    assert len(network.images) == 5 + mirrored
    seen = torch.stack([decode_heatmaps(view)[0][0, 0] for view in network.images[-4:]])
    middle, arm = torch.tensor([29.5, 39.5]), torch.tensor([-9.5, 1.5])
    turn = math.radians(20)  # from x towards y
    expected = [rotated(arm, -turn), rotated(arm, turn), 0.8 * arm, 1.25 * arm]
    assert (seen - middle - torch.stack(expected)).abs().max() < 0.2


def rotated(arm, angle):
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]]) @ arm


def test_views_are_averaged_and_each_image_is_moved_alone():
    """A network that sees a peak only where the image is upright loses its height and not its place."""

    class Upright(torch.nn.Module):
        def forward(self, images):
            return images * (images.flatten(1).amax(1) > 0.999).float()[:, None, None, None]

    images = draw_heatmaps(torch.tensor([[[30.0, 40.0]], [[12.0, 20.0]]]), (60, 80), 2.0)
    heatmaps = ViewSelectingInferer(None, enough=0.0, turns=[7.0])(images, Upright())
    torch.testing.assert_close(heatmaps, images / 2, atol=0.02, rtol=0)
