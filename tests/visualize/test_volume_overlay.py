import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.transforms.coordinates import voxel_to_world
from common.visualize import draw_overlay, draw_volume_overlay, overlay_picture, panels, volume_overlay
from common.visualize.overlay import ERROR, PREDICTION, TRUTH

NAN, INF = math.nan, math.inf
NOTHING, ABSENT = [NAN] * 3, [INF] * 3
SIZE, GAP = 200, 6
RAS = np.diag([1.0, 1.0, 1.0, 1.0])


def rows_of(picture):
    """The panels of a picture that ends with a row of them: [axial, coronal, sagittal], each (rows, columns, 3)."""
    row = np.asarray(picture).astype(int)[-SIZE:]
    return [row[:, k * (SIZE + GAP) : k * (SIZE + GAP) + SIZE] for k in range(3)]


def middle(panel, colour):
    """x and y of the middle of the box around all pixels of a colour."""
    rows, columns = np.nonzero((panel == colour).all(-1))
    assert len(rows), f"nothing has the colour {colour}"
    return (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2


def has(panel, colour):
    return bool((panel == colour).all(-1).any())


def brightest(panel):
    """x and y of the middle of all that is at least half bright, without the words at the borders."""
    grey = panel[30:-40, 25:-25].mean(-1)
    rows, columns = np.nonzero(grey > 128)
    return columns.mean() + 25, rows.mean() + 30


@pytest.fixture
def written(monkeypatch):
    """All words on panels, as (text, x, y), by panel."""
    seen = []

    def write(panel, place, text, anchor, colour=None):
        if not seen or seen[-1][0] is not panel:
            seen.append((panel, []))
        seen[-1][1].append((text, *place))

    monkeypatch.setattr(panels.Panel, "write", write)
    return seen


@pytest.fixture
def labels(monkeypatch):
    """The lines of text between the panels."""
    seen = []

    def keep(lines, width):
        seen.extend("".join(text for text, _ in line) for line in lines)
        return panels.text_strip(lines, width)

    monkeypatch.setattr(volume_overlay, "text_strip", keep)
    return seen


@pytest.mark.parametrize("window", [30.0, 500.0])
def test_ring_and_cross_lie_over_the_voxel_in_every_plane_and_orientation(affine, spot, world, window):
    voxel = [15.0, 17.0, 11.0]
    image, point = spot(affine, voxel), world(affine, voxel)[None]
    bare = [brightest(panel) for panel in rows_of(draw_volume_overlay(image, point, window=window, panel_size=SIZE))]
    for arguments, colour in (((point,), PREDICTION), ((None, point), TRUTH)):
        found = rows_of(draw_volume_overlay(image, *arguments, window=window, panel_size=SIZE))
        assert np.abs(np.subtract([middle(panel, colour) for panel in found], bare)).max() < 1.5


@pytest.mark.parametrize("axes", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
@pytest.mark.parametrize("signs", [[1, 1, 1], [-1, -1, 1], [-1, 1, -1]])
def test_planes_are_turned_as_radiologists_see_them(axes, signs):
    """A volume of 100 mm: right, anterior and superior lie left, up and up of its middle, 2 pixels for each mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, axes] * signs * [1.0, 2.0, 4.0]
    shape = np.array([100, 50, 25])
    affine[:3, 3] = -affine[:3, :3] @ ((shape - 1) / 2)  # the middle of the volume is the origin of the world
    image = MetaTensor(torch.zeros(1, *shape.tolist()), affine=torch.tensor(affine))
    right, anterior, superior = 20.0, 10.0, 30.0
    picture = draw_volume_overlay(image, [[right, anterior, superior]], window=200, panel_size=SIZE)
    centre = (SIZE - 1) / 2
    expected = [(-right, -anterior), (-right, -superior), (-anterior, -superior)]
    for panel, (across, down) in zip(rows_of(picture), expected):
        assert middle(panel, PREDICTION) == pytest.approx((centre + 2 * across, centre + 2 * down), abs=1)


def test_letters_stand_at_the_borders_of_every_plane_and_orientation(affine, spot, world, written):
    draw_volume_overlay(spot(affine, [20, 15, 10]), world(affine, [20, 15, 10])[None], panel_size=SIZE)
    found = []
    for _, words in written:
        sides = {}
        for text, x, y in words:
            if len(text) == 1:
                side = "top" if y < 20 else "bottom" if y > SIZE - 20 else "left" if x < 20 else "right"
                sides[side] = text
        found.append((words[0][0], sides))
    assert found == [
        ("axial", {"left": "R", "right": "L", "top": "A", "bottom": "P"}),
        ("coronal", {"left": "R", "right": "L", "top": "S", "bottom": "I"}),
        ("sagittal", {"left": "A", "right": "P", "top": "S", "bottom": "I"}),
    ]


def test_the_distance_of_the_truth_from_each_slice_is_written(written):
    image = MetaTensor(torch.zeros(1, 40, 40, 40), affine=torch.diag(torch.tensor([1.0, 2.0, 2.5, 1.0])))
    draw_volume_overlay(image, [[20.0, 40.0, 50.0]], [[16.0, 46.0, 57.5]], panel_size=SIZE)
    told = [[text for text, *_ in words if text.startswith("truth")] for _, words in written]
    assert told == [["truth 7.5 mm S"], ["truth 6.0 mm A"], ["truth 4.0 mm L"]]


def test_the_distance_is_that_from_the_slice_that_is_drawn(written):
    """The prediction lies between slices of 4 mm: the one at 40 mm is drawn, the truth lies 1 mm below it."""
    image = MetaTensor(torch.zeros(1, 20, 20, 20), affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))
    draw_volume_overlay(image, [[10.0, 10.0, 41.5]], [[10.0, 10.0, 39.0]], panel_size=SIZE)
    assert "truth 1.0 mm I" in [text for text, *_ in written[0][1]]
    assert "truth 0.0 mm" in [text for text, *_ in written[1][1]]


@pytest.mark.parametrize(("window", "length"), [(50.0, 10), (100.0, 10), (12.0, 2)])
def test_the_scale_bar_has_the_length_that_it_says(window, length):
    """It is white, lies at the lower left, and a panel of 200 pixels shows the window."""
    image = MetaTensor(torch.zeros(1, 200, 200, 200), affine=torch.eye(4))
    for panel in rows_of(draw_volume_overlay(image, [[100.0] * 3], window=window, panel_size=SIZE)):
        bar = (panel[SIZE - 7] == 255).all(-1).nonzero()[0]
        assert bar.min() == 5 and bar.max() - bar.min() + 1 == pytest.approx(length * SIZE / window, abs=1)


def test_the_window_stays_inside_the_image_and_shows_all_of_a_small_one(spot):
    """A landmark 5 mm from the upper end along each axis of 100 mm, in a window of 40 mm: 35 mm lie before it."""
    image = MetaTensor(torch.zeros(1, 100, 100, 100), affine=torch.diag(torch.tensor([-1.0, -1.0, -1.0, 1.0])))
    for panel in rows_of(draw_volume_overlay(image, [[-94.5] * 3], window=40, panel_size=SIZE)):
        assert middle(panel, PREDICTION) == pytest.approx((5 * 35 - 0.5, 5 * 35 - 0.5), abs=1.5)
    whole = MetaTensor(torch.rand(1, 20, 10, 5) + 1, affine=torch.eye(4))
    *_, sagittal = rows_of(draw_volume_overlay(whole, [[4.0, 5.0, 2.0]], window=40, panel_size=SIZE))
    rows, columns = np.nonzero(sagittal[30:-40, 25:-25].any(-1))  # 10 x 5 mm, 10 pixels for each, in the middle
    found = columns.min() + 25, columns.max() + 25, rows.min() + 30, rows.max() + 30
    assert found == pytest.approx((50, 149, 75, 124), abs=3)


def test_what_has_no_position_is_told_and_not_drawn(labels):
    image = MetaTensor(torch.rand(1, 30, 30, 30), affine=torch.eye(4))
    here = [15.0, 15.0, 15.0]
    prediction = [here, here, here, NOTHING, NOTHING, NOTHING, [15.0, 15.0, 40.0]]
    truth = [[15.0, 12.0, 11.0], NOTHING, ABSENT, here, NOTHING, ABSENT, here]
    picture = draw_volume_overlay(image, prediction, truth, list("abcdefg"), panel_size=SIZE)
    assert labels == [
        "a error 5.00 mm",
        "b not annotated",
        "c absent",
        "d not found",
        "e not annotated not found",
        "f absent not found",
        "g found outside the image error 25.00 mm",
    ]
    assert picture.width == 3 * SIZE + 2 * GAP
    assert 5 * SIZE < picture.height < 5 * SIZE + 7 * 40  # e and f have no panels


@pytest.mark.parametrize(
    ("prediction", "truth", "colours"),
    [
        ([10.0] * 3, None, {PREDICTION}),
        ([10.0] * 3, NOTHING, {PREDICTION}),
        ([10.0] * 3, ABSENT, {PREDICTION}),
        (NOTHING, [10.0] * 3, {TRUTH}),
        ([10.0] * 3, [20.0] * 3, {PREDICTION, TRUTH, ERROR}),
    ],
)
def test_only_what_is_known_is_drawn(prediction, truth, colours):
    image = MetaTensor(torch.zeros(1, 30, 30, 30), affine=torch.eye(4))
    picture = draw_volume_overlay(image, [prediction], truth and [truth], panel_size=SIZE)
    for panel in rows_of(picture):
        assert {c for c in (PREDICTION, TRUTH, ERROR) if has(panel[20 : SIZE - 20], c)} == colours


def test_without_truth_no_row_says_that_it_misses(labels):
    draw_volume_overlay(
        MetaTensor(torch.zeros(1, 9, 9, 9), affine=torch.eye(4)), [[4.0] * 3, NOTHING], names=["a", "b"]
    )
    assert labels == ["a", "b not found"]


def test_errors_and_scales_are_in_millimetres_where_the_world_is_not(labels, written):
    image = MetaTensor(torch.zeros(1, 30, 30, 30), affine=torch.eye(4))
    points = [[15.0, 15.0, 15.0]], [[15.0, 12.0, 11.0]]
    overlay_picture(image, *points, ["a"], mm_per_world=0.5)
    overlay_picture(image, *points, ["a"], unit="pixel")
    assert labels == ["a error 2.50 mm", "a error 5.00 pixel"]
    assert "truth 2.0 mm I" in [text for text, *_ in written[0][1]]
    assert "10 pixel" in [text for text, *_ in written[3][1]]


def test_a_page_holds_the_first_landmarks_or_those_asked_for(labels):
    image = MetaTensor(torch.zeros(1, 9, 9, 9), affine=torch.eye(4))
    points, names = [[4.0] * 3] * 10, [f"point {i}" for i in range(10)]
    draw_volume_overlay(image, points, names=names, title="scan.nii", panel_size=60)
    assert labels == ["scan.nii  (the first 8 of 10 landmarks)", *names[:8]]
    labels.clear()
    draw_volume_overlay(image, points, names=names, landmarks=[9, 3], panel_size=60)
    assert labels == ["point 9", "point 3"]


def test_no_landmarks_make_a_picture_too():
    image = MetaTensor(torch.zeros(1, 9, 9, 9), affine=torch.eye(4))
    assert draw_volume_overlay(image, np.zeros((0, 3)), np.zeros((0, 3)), [], "scan.nii").width > 100


def test_drawing_leaves_the_image_as_it_was():
    image = MetaTensor(torch.rand(1, 9, 8, 7, dtype=torch.float16), affine=torch.eye(4))
    before = image.clone()
    overlay_picture(image, [[4.0] * 3])
    assert torch.equal(image.as_tensor(), before.as_tensor()) and torch.equal(image.affine, before.affine)
    assert image.applied_operations == before.applied_operations == []


def test_long_titles_are_broken_and_never_cut_off():
    """A line of 240 pixels has room for no such title: as many letters are drawn on several lines as on a long one."""
    title = "SYNTHETIC PHANTOM a_file_with_quite_a_long_name_that_nobody_would_want_to_read.nii.gz mean error 1.23 mm"
    white = (255, 255, 255)
    ink = [np.asarray(panels.text_strip([[(title, white)]], width)).sum() for width in (2000, 240, 100)]
    assert ink[1] == pytest.approx(ink[0], rel=0.03) and ink[2] == pytest.approx(ink[0], rel=0.03)
    strip = np.asarray(panels.text_strip([[(title, white)]], 240))
    assert not strip[:, -3:].any() and not strip[-2:].any()


def test_a_film_is_drawn_as_ever_from_world_points():
    """World of a film: both axes of its pixels turned round."""
    image = MetaTensor(torch.rand(1, 60, 40), affine=torch.diag(torch.tensor([-0.5, -0.5, 1.0, 1.0])))
    pixels, true = np.array([[20.0, 30.0], [NAN, NAN]]), np.array([[24.0, 33.0], [5.0, 6.0]])
    picture = overlay_picture(image, -0.5 * pixels, -0.5 * true, ["tip", "base"], "a film", 768)
    expected = draw_overlay(image[0], pixels, true, ["tip", "base"], "a film", 768)
    assert picture.size == (768, 512) and (np.asarray(picture) == np.asarray(expected)).all()


def test_a_film_of_pixels_that_are_not_square_is_drawn_as_it_is_in_the_world():
    """Pixels half as wide as high: a square in the world is one in the picture, and points lie where they belong."""
    values = torch.zeros(1, 80, 60)
    values[0, 40:60, 20:30] = 1  # 10 x 10 mm
    image = MetaTensor(values, affine=torch.diag(torch.tensor([-0.5, -1.0, 1.0, 1.0])))
    corner = voxel_to_world(torch.tensor([[39.5, 19.5]]), image.affine)
    assert overlay_picture(image, size=600).size == (400, 600)
    grey = np.asarray(overlay_picture(image, size=600).convert("L")) > 127
    assert np.ptp(np.argwhere(grey), axis=0) == pytest.approx([99, 99], abs=2)
    drawn = np.asarray(overlay_picture(image, corner, size=600)).astype(int)
    assert middle(drawn, PREDICTION) == pytest.approx(np.argwhere(grey).min(0)[::-1] - 0.5, abs=1.5)
