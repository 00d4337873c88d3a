"""Vertebra-like parts of four landmarks, one below the other, of which some heatmaps have a higher top elsewhere."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.errors import InputError
from common.transforms import HeatmapsToLandmarksd, along_chain, decode_heatmaps, draw_heatmaps
from common.transforms.chain_decoding import chain_of
from common.transforms.coordinates import voxel_to_world

PARTS, SIZE = 6, (96, 200)
MIDDLES = np.array([[48 + 8 * math.sin(k), 30 + 24 * k] for k in range(PARTS)])
CORNERS = np.array([[-12, -7], [12, -7], [-12, 7], [12, 7]])
POINTS = torch.tensor((MIDDLES[:, None] + CORNERS).reshape(-1, 2))
STRAIGHT = (np.array([[0.0, 24.0 * k] for k in range(PARTS)])[:, None] + CORNERS).reshape(-1, 2) / 100
IDENTITY = torch.eye(4, dtype=torch.float64)


def heatmaps(points=POINTS, size=SIZE, sigma=2.5):
    return draw_heatmaps(points[None].float(), size, sigma)[0]


def doubtful(part, other, share=0.8):
    """Heatmaps that are surer of another part's place for one part."""
    maps, rows = heatmaps(), slice(4 * part, 4 * part + 4)
    maps[rows] = share * maps[rows] + maps[4 * other : 4 * other + 4]
    return maps


def decoded(maps):
    return decode_heatmaps(maps[None])[0][0].double()


@pytest.mark.parametrize(("part", "other"), [(2, 1), (2, 3), (0, 1), (5, 4), (1, 3)])
def test_a_part_that_would_be_counted_twice_is_found_where_it_is_missing(part, other):
    maps = doubtful(part, other)
    assert (decoded(maps) - POINTS).norm(dim=1).max() > 20
    assert (decoded(along_chain(maps, IDENTITY, STRAIGHT, 4)) - POINTS).norm(dim=1).max() < 0.1


def test_a_single_landmark_that_sits_on_the_next_part_comes_back():
    maps = heatmaps()
    maps[9] = 0.6 * maps[9] + maps[13]
    assert (decoded(along_chain(maps, IDENTITY, STRAIGHT, 4)) - POINTS).norm(dim=1).max() < 0.1


def test_what_is_left_is_as_it_was():
    maps = heatmaps()
    left = along_chain(maps, IDENTITY, STRAIGHT, 4)
    assert torch.equal(left[left > 0], maps[left > 0]) and torch.equal(decoded(left), decoded(maps))
    assert along_chain(maps - 0.5, IDENTITY, STRAIGHT, 4).amin() == -0.5


@pytest.mark.parametrize("degrees", [0, 90, 180, 200])
def test_the_shape_is_one_of_the_world_that_the_affine_makes_of_the_image(degrees):
    """Pixels of another shape, and a world turned against the image; the mean shape is turned with it."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[c, -s], [s, c]])
    affine = IDENTITY.clone()
    affine[:2, :2] = torch.tensor(turn @ np.diag([0.5, 2.0]))
    squeezed = POINTS / torch.tensor([0.5, 2.0])
    maps = heatmaps(squeezed, (192, 100), 1.5)
    maps[8:12] = 0.8 * maps[8:12] + maps[4:8]
    left = along_chain(maps, affine, STRAIGHT @ turn.T, 4)
    assert (decoded(left) - squeezed).norm(dim=1).max() < 0.2
    if degrees == 180:  # head down: no chain goes this way
        upside_down = decoded(along_chain(maps, affine, STRAIGHT, 4))
        assert upside_down.isnan().any() or (upside_down - squeezed).norm(dim=1).max() > 5


@pytest.mark.parametrize("value", [0.0, 0.3, math.nan])
def test_heatmaps_that_say_nothing_stay_as_they_are(value):
    maps = torch.full((4 * PARTS, *SIZE), value)
    assert torch.equal(along_chain(maps, IDENTITY, STRAIGHT, 4).nan_to_num(7), maps.nan_to_num(7))


def test_a_heatmap_that_says_nothing_takes_nothing_from_the_others():
    maps = doubtful(2, 1)
    maps[3] = math.nan
    points = decoded(along_chain(maps, IDENTITY, STRAIGHT, 4))
    known = torch.arange(4 * PARTS) != 3
    assert points[3].isnan().all() and (points - POINTS)[known].norm(dim=1).max() < 0.1


def test_world_landmarks_and_their_confidence_come_from_the_chain():
    affine = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.zeros(1, *SIZE), affine=affine)
    maps = doubtful(2, 1, share=0.5)
    decode = HeatmapsToLandmarksd("pred", chain={"shape": -STRAIGHT, "members": 4})
    item = decode({"image": image, "pred": maps})
    assert (item["pred"][0] + POINTS).norm(dim=1).max() < 0.1
    assert item["confidence"][8:12].tolist() == pytest.approx([0.5] * 4, abs=0.02)
    assert item["confidence"][0].item() == pytest.approx(1, abs=0.02)
    c, s = math.cos(math.radians(40)), math.sin(math.radians(40))
    turned = affine @ torch.block_diag(torch.tensor([[c, -s], [s, c]], dtype=torch.float64), torch.eye(2))
    turned_item = decode({"image": MetaTensor(torch.zeros(1, *SIZE), affine=turned), "pred": maps})  # the same pixels
    assert torch.allclose(turned_item["pred"][0], voxel_to_world(-item["pred"][0], turned))
    alone = HeatmapsToLandmarksd("pred")({"image": image, "pred": maps})
    assert alone["confidence"][8].item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("shape", "members", "maps"),
    [
        (STRAIGHT, 5, heatmaps()),
        (STRAIGHT[:4], 4, heatmaps()[:4]),
        (STRAIGHT[:, 0], 4, heatmaps()),
        (STRAIGHT, 4, heatmaps()[:-4]),
        (STRAIGHT, 4, heatmaps()[..., None]),
    ],
)
def test_heatmaps_of_another_chain_are_refused(shape, members, maps):
    with pytest.raises(InputError, match="chain"):
        along_chain(maps, IDENTITY, shape, members)


def test_a_chain_knows_its_axis_and_steps():
    chain = chain_of(STRAIGHT, 4)
    assert chain.axis.tolist() == [0, 1] and chain.lengths.tolist() == pytest.approx([0.24] * (PARTS - 1))
    assert chain.scaled(100).offsets[0].tolist() == pytest.approx(CORNERS.astype(float))


def test_nothing_is_lost_where_no_parts_follow_each_other():
    """The film ends after the third part: the others, not seen, all sit on it, and nothing else is above zero."""
    maps = heatmaps(sigma=1.0)
    for part in range(3, PARTS):
        maps[4 * part : 4 * part + 4] = maps[8:12]
    maps = torch.where(maps > 1e-3, maps, 0.0)
    left = along_chain(maps, IDENTITY, STRAIGHT, 4)
    assert (decoded(left)[:12] - POINTS[:12]).norm(dim=1).max() < 0.5
