import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from common.data import phantoms
from common.data.cephalometric import CEPHALOMETRIC_LANDMARKS
from common.data.phantom_skull import draw_skull, draw_up_head
from common.data.phantoms import phantom_dataset

S, N, OR, PO, A, B, POG, ME, GN, GO, LI, UI, UL, LL, SN, SPOG, PNS, ANS, AR = range(19)


@pytest.fixture(scope="module")
def films():
    return [draw_skull(np.random.default_rng([1, k])) for k in range(8)]


@pytest.fixture(scope="module")
def plans():
    """Landmarks (120, 19, 2) of heads that are not drawn: millimetres, y down, sella to nasion along x."""
    heads = []
    for k in range(120):
        rng = np.random.default_rng([2, k])
        head = draw_up_head(rng, float(np.clip(rng.normal(2.2, 4.0), -7.5, 11)))
        heads.append([head.landmarks[name] for name in CEPHALOMETRIC_LANDMARKS])
    return np.array(heads)


def angle(first, second):
    cosine = (first * second).sum(-1) / np.linalg.norm(first, axis=-1) / np.linalg.norm(second, axis=-1)
    return np.degrees(np.arccos(cosine))


def anb(points):
    to_sella = points[..., S, :] - points[..., N, :]
    return angle(to_sella, points[..., A, :] - points[..., N, :]) - angle(
        to_sella, points[..., B, :] - points[..., N, :]
    )


def profile(image, point, direction, reach=4.0, width=1.0):
    """Mean grey values across `width` pixels to each side, along a line through the point."""
    direction = direction / np.linalg.norm(direction)
    along = np.arange(-reach, reach + 0.1, 0.25)
    across = np.arange(-width, width + 0.1, 0.5)
    aside = np.array([-direction[1], direction[0]])
    places = point[:, None, None] + along[:, None] * direction[:, None, None] + across * aside[:, None, None]
    return along, map_coordinates(image.astype(float), places, order=1, mode="nearest").mean(-1)


def edge_offset(image, point, outwards):
    """Where along `outwards`, in pixels from the point, the grey value falls most."""
    along, grey = profile(image, point, outwards, width=2.5)
    smooth = np.convolve(grey, np.ones(5) / 5, "same")
    return along[4:-4][np.gradient(smooth)[4:-4].argmin()]


def forward(points):
    return points[OR] - points[PO]


def down(points):
    x, y = forward(points)
    return np.array([-y, x])


def test_the_same_seed_draws_the_same_bytes_and_another_seed_does_not():
    image, points = draw_skull(np.random.default_rng(4), (129, 160))
    again, points_again = draw_skull(np.random.default_rng(4), (129, 160))
    other, _ = draw_skull(np.random.default_rng(5), (129, 160))
    assert image.shape == (129, 160) and image.dtype == np.uint8 and points.dtype == np.float64
    assert image.tobytes() == again.tobytes() and np.array_equal(points, points_again)
    assert image.tobytes() != other.tobytes()


def test_all_points_lie_inside_the_film_as_millimetres_place_them(films):
    for image, points in films:
        assert points.shape == (19, 2) and np.isfinite(points).all()
        assert (points >= 8).all() and (points <= np.array(image.shape) - 9).all()
        assert 50 < 0.3 * np.linalg.norm(points[N] - points[S]) < 70


def test_the_same_head_lies_at_the_same_millimetres_on_a_smaller_film():
    _, large = draw_skull(np.random.default_rng(6), (645, 800))
    _, small = draw_skull(np.random.default_rng(6), (387, 480))
    assert np.allclose((large + 0.5) * 0.3, (small + 0.5) * 0.5)


def test_the_face_looks_to_the_right_with_its_parts_from_top_to_bottom(films):
    for _, points in films:
        x, y = points.T
        assert x[PO] < x[S] < x[PNS] + 20 and x[PNS] < x[A] < x[UL]
        assert y[N] < y[OR] < y[ANS] < y[A] < y[UI] < y[B] < y[POG] < y[ME]
        assert y[SN] < y[UL] < y[LL] < y[SPOG] and y[PO] < y[AR] < y[GO] < y[ME] + 5
        assert x[GO] < x[ME] < x[GN] + 3


def test_landmarks_are_where_their_definitions_put_them(plans):
    level = plans[:, OR] - plans[:, PO]
    level /= np.linalg.norm(level, axis=1, keepdims=True)
    ahead = (plans * level[:, None]).sum(-1)
    assert (ahead[:, ANS] > ahead[:, A]).all()
    assert (ahead[:, SN] > ahead[:, A] + 5).all() and (ahead[:, SPOG] > ahead[:, POG] + 5).all()
    # Gnathion bulges beyond the line from pogonion to menton, between the two.
    chord, out = plans[:, ME] - plans[:, POG], plans[:, GN] - plans[:, POG]
    share = (chord * out).sum(1) / (chord**2).sum(1)
    assert ((share > 0.15) & (share < 0.85)).all()
    assert (chord[:, 0] * out[:, 1] - chord[:, 1] * out[:, 0] < -0.3 * np.linalg.norm(chord, axis=1)).all()
    # Supramentale is a hollow, in front of which pogonion and the incisor stand.
    line, hollow = plans[:, POG] - plans[:, LI], plans[:, B] - plans[:, LI]
    assert (line[:, 0] * hollow[:, 1] - line[:, 1] * hollow[:, 0] > 0.2 * np.linalg.norm(line, axis=1)).all()


def test_skeletal_classes_facial_heights_and_overjets_span_their_ranges(plans):
    classes = anb(plans)
    assert (classes < 0).mean() > 0.15 and (classes > 6).mean() > 0.1
    assert ((classes > 2) & (classes < 5)).mean() > 0.15
    assert np.ptp(np.percentile(classes, [5, 95])) > 10
    fma = angle(plans[:, N] - plans[:, S], plans[:, GN] - plans[:, GO])
    assert np.percentile(fma, 5) < 28 and np.percentile(fma, 95) > 39
    overjet = plans[:, UI, 0] - plans[:, LI, 0]
    assert overjet.min() < -3 and overjet.max() > 6
    heights = plans[:, ME, 1]
    assert np.percentile(heights, 95) / np.percentile(heights, 5) > 1.15


@pytest.mark.parametrize("wanted", [-5.0, 3.0, 9.0])
def test_a_given_anb_is_that_of_the_drawn_points(wanted):
    drawn = [anb(draw_skull(np.random.default_rng([3, k]), (129, 160), anb=wanted)[1]) for k in range(6)]
    assert np.allclose(drawn, wanted, atol=1.5)


def test_skin_and_chin_end_within_a_pixel_of_their_points(films):
    skin, bone = [], []
    for image, points in films:
        skin += [edge_offset(image, points[k], forward(points)) for k in (UL, LL, SPOG)]
        bone.append(edge_offset(image, points[ME], down(points)))
        bone.append(edge_offset(image, points[GN], points[GN] - 0.5 * (points[GO] + points[LI])))
        bone.append(edge_offset(image, points[POG], forward(points)))
    # Lips are thin: grey rises slowly behind their edge.
    assert abs(np.median(skin)) <= 0.6 and np.mean(np.abs(skin) <= 1.75) > 0.9
    assert abs(np.median(bone)) <= 0.6 and np.mean(np.abs(bone) <= 1.25) > 0.9


def test_the_foremost_incisor_is_brighter_than_what_lies_before_it(films):
    for image, points in films:
        tip, apex = (UI, A) if points[UI, 0] > points[LI, 0] else (LI, B)
        root = points[apex] - 23 * forward(points) / np.linalg.norm(forward(points))
        inside = points[tip] + 12 * (root - points[tip]) / np.linalg.norm(root - points[tip])
        along, grey = profile(image, inside, forward(points), 24, width=2)
        assert grey[np.abs(along) < 3].mean() > grey[along > 18].mean() + 5


def test_sella_lies_in_a_hollow_with_a_bright_floor_and_walls(films):
    for image, points in films:
        along, grey = profile(image, points[S], down(points), 30)
        at = grey[np.abs(along) < 3].mean()
        floor = (along > 8) & (along < 24)
        assert grey[floor].max() > at + 4
        assert along[floor][grey[floor].argmax()] < 20


def test_the_orbit_has_a_bright_rim_at_orbitale(films):
    offsets = []
    for image, points in films:
        along, grey = profile(image, points[OR], down(points), 5, width=1.5)
        offsets.append(along[grey.argmax()])
    assert np.mean(np.abs(offsets) <= 1.5) >= 0.75


def test_the_palate_is_a_bright_line_that_ends_at_the_spines(films):
    def ridge(image, at, axis):
        along, grey = profile(image, at, np.array([-axis[1], axis[0]]), 12, width=3)
        return grey[np.abs(along) < 3].mean() - grey[along < -8].mean()  # above are the nose and its sinuses

    inside, beyond = [], []
    for image, points in films:
        axis = (points[ANS] - points[PNS]) / np.linalg.norm(points[ANS] - points[PNS])
        for end, inwards in ((PNS, axis), (ANS, -axis)):
            inside.append(ridge(image, points[end] + 9 * inwards, axis))
            beyond.append(ridge(image, points[end] - 6 * inwards, axis))
    assert np.median(inside) > np.median(beyond) + 8
    assert np.mean(np.array(inside) > np.array(beyond)) > 0.85


def test_the_set_states_its_pixel_spacing_and_its_points(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_DATA_DIRECTORY", str(tmp_path))
    skull = phantoms.ANATOMIES["skull"]
    assert skull.spacing("default") == [0.3, 0.3] and skull.spacing("quick") == [0.5, 0.5]
    sizes = {"tiny": ((129, 160), {"training": 2, "test": 1})}
    monkeypatch.setitem(phantoms.ANATOMIES, "skull", dataclasses.replace(skull, sizes=sizes))
    datalist = json.loads((Path(phantom_dataset("skull", "tiny")) / "datalist.json").read_text())
    assert datalist["landmarks"] == list(CEPHALOMETRIC_LANDMARKS)
    for item in [*datalist["training"], *datalist["test"]]:
        assert item["spacing"] == [1.5, 1.5] and np.shape(item["landmarks"]) == (19, 2)
