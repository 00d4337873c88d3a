import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.visualize import draw_vector_field, vector_field
from common.visualize.vector_field import COMPUTED, PRESENCE, REFERENCE, VECTOR

NAN = math.nan
EYE = torch.eye(4)


def field(shape, spacing, target):
    """Vectors to a voxel from all patch centres, by a loop: (D, *grid)."""
    grid = [math.ceil(n / spacing) for n in shape]
    vectors = np.zeros((len(shape), *grid))
    for patch in np.ndindex(*grid):
        for axis, p in enumerate(patch):
            vectors[(axis, *patch)] = target[axis] - (spacing * p + (spacing - 1) / 2)
    return vectors


def has(panel, colour):
    return bool((np.asarray(panel).astype(int) == colour).all(-1).any())


def middle(panel, colour):
    """x and y of the middle of the box around all pixels of a colour."""
    rows, columns = np.nonzero((np.asarray(panel).astype(int) == colour).all(-1))
    assert len(rows), f"nothing has the colour {colour}"
    return (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2


def film(picture, width, height):
    """The film of a picture, without the lines above it."""
    assert picture.width == width
    return np.asarray(picture)[picture.height - height :]


@pytest.fixture
def drawn(monkeypatch):
    """Panels as they are when their arrows have been drawn, with starts and ends of the arrows in pixels."""
    seen = []
    arrows, arrow = vector_field._draw_arrows, vector_field._draw_arrow

    def keep_panel(panel, *arguments):
        seen.append((panel.picture.copy(), []))
        arrows(panel, *arguments)

    def keep_arrow(canvas, start, end):
        seen[-1][1].append((start, end))
        arrow(canvas, start, end)

    monkeypatch.setattr(vector_field, "_draw_arrows", keep_panel)
    monkeypatch.setattr(vector_field, "_draw_arrow", keep_arrow)
    return seen


def test_arrows_of_every_plane_and_orientation_point_to_the_landmark(affine, spot, world, drawn):
    """The landmark is the bright spot of the picture that the arrows are drawn on."""
    voxel = (18.0, 13.0, 9.0)
    image = spot(affine, voxel)
    vectors = field((40, 30, 20), 4, voxel)
    draw_vector_field(image, vectors, np.zeros((10, 8, 5)), 4, "spot", world(affine, voxel))
    assert sorted(len(arrows) for _, arrows in drawn) == sorted([10 * 8, 10 * 5, 8 * 5])
    for picture, arrows in drawn:
        rows, columns = np.nonzero(np.asarray(picture).mean(-1) > 128)
        target = np.array([columns.mean(), rows.mean()])
        for start, end in arrows:
            way, along = target - start, (end - start) / np.linalg.norm(end - start)
            assert along @ way > 0 and np.linalg.norm(way - along * (along @ way)) < 2  # pixels


def test_crosses_lie_over_their_voxels(affine, spot, world, drawn):
    """The reference over the bright spot, the computed landmark 4 mm along one axis of the array from it."""
    voxel = (18.0, 13.0, 9.0)
    true = world(affine, voxel)
    options = {"displacement": np.zeros((3, 10, 8, 5)), "presence": np.zeros((10, 8, 5)), "spacing": 4, "name": "spot"}
    image = spot(affine, voxel)
    picture = draw_vector_field(image, truth=true, **options)
    header = picture.height - max(panel.height for panel, _ in drawn)
    left = 0
    for panel, _ in drawn:
        rows, columns = np.nonzero(np.asarray(panel).mean(-1) > 128)
        box = (left, header, left + panel.width, header + panel.height)
        expected = pytest.approx((columns.mean(), rows.mean()), abs=2)
        assert middle(picture.crop((box[0], box[1], box[2], box[3] - 25)), REFERENCE) == expected
        assert not has(picture.crop(box), COMPUTED)
        left += panel.width + 6
    other = draw_vector_field(image, prediction=true, truth=true + affine[:3, 0] * 4, **options)
    assert has(other.crop((0, header, *other.size)), COMPUTED)


def test_a_square_covers_each_patch_where_presence_is_over_a_half():
    """Patches of 8 pixels on a film of 32 x 24, shown 10 times larger; one over, one at and one under a half."""
    presence = np.zeros((4, 3))
    presence[1, 2], presence[2, 0], presence[3, 1] = 0.51, 0.5, 0.49
    image = MetaTensor(torch.zeros(1, 32, 24), affine=EYE)
    picture = film(draw_vector_field(image, np.zeros((2, 4, 3)), presence, 8, "tip", panel_size=320), 320, 240)
    rows, columns = np.nonzero((picture == PRESENCE).all(-1))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (80, 159, 160, 239)
    inside = picture[165:235, 85:155].reshape(-1, 3)
    assert (inside == inside[0]).all() and inside[0, 1] > 30  # a green shade through which the image is seen
    assert not picture[:155].any()


def test_arrows_start_at_the_centres_of_patches_and_do_not_reach_the_next(drawn):
    """Centres of patches of 8 pixels lie at 3.5, 11.5 ..., which a film 10 times larger shows at 39.5, 119.5 ..."""
    vectors = field((32, 24), 8, (1000.0, -300.0))
    image = MetaTensor(torch.zeros(1, 32, 24), affine=EYE)
    draw_vector_field(image, vectors, np.zeros((4, 3)), 8, "tip", panel_size=320)
    ((_, arrows),) = drawn
    centres = [(39.5 + 80 * x, 39.5 + 80 * y) for x in range(4) for y in range(3)]
    assert [tuple(start) for start, _ in arrows] == [pytest.approx(c) for c in centres]
    lengths = [np.linalg.norm(end - start) for start, end in arrows]
    assert 40 < min(lengths) <= max(lengths) < 80
    for start, end in arrows:
        assert (end - start)[0] > 0 > (end - start)[1]


def test_longer_vectors_have_longer_arrows(drawn):
    vectors = np.zeros((2, 4, 1))
    vectors[0, :, 0] = [1.0, 4.0, 16.0, 0.0]
    image = MetaTensor(torch.zeros(1, 32, 8), affine=EYE)
    draw_vector_field(image, vectors, np.zeros((4, 1)), 8, "tip", panel_size=320)
    first, second, third = (np.linalg.norm(end - start) for start, end in drawn[0][1])
    assert second == pytest.approx(2 * first) and 1.8 * second < third < 80  # the square root, and a limit


def test_arrows_are_orange_and_vectors_without_a_length_are_left_out(drawn):
    vectors = np.zeros((2, 4, 3))
    vectors[:, 0, 0], vectors[:, 1, 1], vectors[0, 2, 1] = NAN, math.inf, 5.0
    image = MetaTensor(torch.zeros(1, 32, 24), affine=EYE)
    picture = film(draw_vector_field(image, vectors, np.zeros((4, 3)), 8, "tip", panel_size=320), 320, 240)
    assert len(drawn[0][1]) == 1
    rows, columns = np.nonzero((picture == VECTOR).all(-1))
    assert 195 < columns.min() < 205 and 260 < columns.max() < 280  # from 199.5, 0.9 of 80 pixels to the right
    assert abs(rows.mean() - 119.5) < 1


@pytest.mark.parametrize(("patches", "every", "arrows"), [(60, 1, 60), (61, 2, 30), (128, 3, 43)])
def test_large_grids_draw_every_kth_arrow_and_say_so(patches, every, arrows, drawn, monkeypatch):
    """Of patches 0 to 60 number 1, 3 ... 59, of 0 to 127 number 1, 4 ... 127; of the short axis one in the middle."""
    said = []
    strip = vector_field.text_strip
    monkeypatch.setattr(vector_field, "text_strip", lambda lines, width: said.append(lines[1]) or strip(lines, width))
    image = MetaTensor(torch.zeros(1, 2 * patches, 6), affine=EYE)
    vectors = np.full((2, patches, 3), 7.0)
    draw_vector_field(image, vectors, np.zeros((patches, 3)), 2, "tip")
    across = {round(start[0], 3) for start, _ in drawn[0][1]}
    assert len(across) == arrows
    told = "".join(text for text, _ in said[0])
    assert (f"one for {every} x {every} patches" in told) == (every > 1)


def test_patches_that_reach_over_the_end_are_shown_on_black():
    image = MetaTensor(torch.full((1, 30, 20), 5.0), affine=EYE)
    image[0, :15] = 9
    presence = np.zeros((4, 3))
    presence[3, 2] = 1
    picture = film(draw_vector_field(image, np.zeros((2, 4, 3)), presence, 8, "tip", panel_size=320), 320, 240)
    rows, columns = np.nonzero((picture == PRESENCE).all(-1))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (240, 319, 160, 239)
    assert not picture[:150, 302:].any() and not picture[202:, :230].any()
    assert picture[:195, :140].min() > 200


def test_the_layer_of_patches_nearest_to_the_landmark_is_shown(world):
    """Patches of 4: slices 0 to 3 belong to the first layer, 4 to 7 to the second."""
    image = MetaTensor(torch.zeros(1, 8, 8, 8), affine=EYE)
    presence = np.zeros((2, 2, 2))
    presence[0, 1, 1] = 0.9
    for z, shown in ((3.0, False), (4.0, True), (20.0, True)):
        picture = draw_vector_field(image, np.zeros((3, 2, 2, 2)), presence, 4, "tip", [2.0, 5.0, z])
        assert has(picture.crop((0, picture.height - 640, 640, picture.height)), PRESENCE) == shown


def test_without_any_point_the_patch_of_highest_presence_is_shown(drawn):
    image = MetaTensor(torch.zeros(1, 8, 8, 8), affine=EYE)
    presence = np.full((2, 2, 2), 0.2)
    presence[1, 0, 1] = 0.9
    nowhere = [NAN] * 3
    draw_vector_field(image, np.zeros((3, 2, 2, 2)), presence, 4, "tip", nowhere, [math.inf] * 3)
    assert len(drawn) == 3 and all(has(panel, PRESENCE) for panel, _ in drawn)


def test_a_large_film_is_made_smaller_and_a_small_one_larger():
    for shape, spacing in (((2400, 1200), 64), ((64, 32), 8)):
        grid = [math.ceil(n / spacing) for n in shape]
        image = MetaTensor(torch.rand(1, *shape), affine=EYE)
        picture = draw_vector_field(image, np.zeros((2, *grid)), np.zeros(grid), spacing, "tip")
        assert picture.width == 1024 and 512 < picture.height < 620  # with two lines of text


def test_a_flat_volume_has_room_for_its_words():
    image = MetaTensor(torch.zeros(1, 64, 64, 3), affine=EYE)
    picture = draw_vector_field(image, np.zeros((3, 8, 8, 1)), np.zeros((8, 8, 1)), 8, "tip", [30.0, 30.0, 1.0])
    assert picture.width == 3 * 640 + 12 and picture.height >= 640


@pytest.mark.parametrize(
    ("vectors", "presence"), [((2, 4, 3), (3, 4)), ((3, 4, 3), (4, 3)), ((3, 4, 3, 2), (4, 3, 2)), ((4, 3), (4, 3))]
)
def test_shapes_that_do_not_fit_are_refused(vectors, presence):
    image = MetaTensor(torch.zeros(1, 32, 24), affine=EYE)
    with pytest.raises(ValueError, match=r"2D image needs vectors \(2, \*grid\)"):
        draw_vector_field(image, np.zeros(vectors), np.zeros(presence), 8, "tip")
