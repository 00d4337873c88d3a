import dataclasses
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.transforms import LoadImaged
from scipy.ndimage import label, map_coordinates

from common.data import OLFACTORY_BULB_LANDMARKS, LandmarkImageReader, load_datalist, phantoms
from common.data.phantom_olfactory import draw_olfactory_bulbs
from common.data.phantom_olfactory_anatomy import Head
from common.data.phantoms import phantom_dataset
from common.transforms import LoadLandmarksd

RIGHT, LEFT = range(2)
# The skull base alone, at the clinical resolution.
SIZE, SPACING = (96, 96, 28), (0.46875, 0.46875, 1.0)


def draw(seed, size=SIZE, spacing=SPACING, **options):
    return draw_olfactory_bulbs(np.random.default_rng([2, seed]), size, spacing, **options)


@pytest.fixture(scope="module")
def heads():
    """Without noise, once with and once without bulbs."""
    drawn = [(draw(k, noise=0.0), draw(k, noise=0.0, bulbs=False)) for k in range(6)]
    return [(volume.astype(float), bare.astype(float), points) for (volume, points), (bare, _) in drawn]


def bulb_masks(volume, bare):
    """What the bulbs changed, as two masks, the patient's right first."""
    changed = np.abs(volume - bare)
    parts, count = label(changed > 0.4 * np.percentile(changed[changed > 0], 90))
    sizes = np.bincount(parts.ravel())[1:]
    largest = 1 + np.argsort(sizes)[-2:]
    assert count >= 2
    return sorted((parts == k for k in largest), key=lambda mask: np.argwhere(mask).mean(0)[0])


def test_the_landmarks_are_the_right_and_the_left_bulb():
    assert OLFACTORY_BULB_LANDMARKS == ("bulb_right", "bulb_left")


def test_the_same_seed_draws_the_same_volume_and_another_seed_does_not():
    volume, points = draw(1, (48, 48, 20))
    again, points_again = draw(1, (48, 48, 20))
    other, _ = draw(2, (48, 48, 20))
    assert volume.shape == (48, 48, 20) and volume.dtype == np.int16 and points.dtype == np.float64
    assert volume.tobytes() == again.tobytes() and np.array_equal(points, points_again)
    assert volume.tobytes() != other.tobytes()


def test_the_points_are_the_centroids_of_what_is_drawn_as_bulbs(heads):
    away = []
    for volume, bare, points in heads:
        for mask, point in zip(bulb_masks(volume, bare), points):
            weight = np.abs(volume - bare)[mask]
            away.append(np.stack(np.nonzero(mask)) @ weight / weight.sum() - point)
    assert np.abs(away).max() < 0.3
    assert (np.abs(np.mean(away, axis=0)) < 0.1).all()


def test_bulbs_are_as_large_as_in_the_paper(heads):
    for seed in range(80):
        across, high, long = 2 * Head(np.random.default_rng([2, seed])).radii.T
        assert (across >= 1.4).all() and (across <= 5.2).all() and (high >= 1.4).all() and (high <= 5.2).all()
        assert (long >= 5).all() and (long <= 13).all() and (long > across).all()
    for k, (volume, bare, _) in enumerate(heads):
        radii = Head(np.random.default_rng([2, k])).radii
        for mask, expected in zip(bulb_masks(volume, bare), 4 / 3 * np.pi * radii.prod(1)):
            assert mask.sum() * np.prod(SPACING) == pytest.approx(expected, rel=0.35)
            assert 4 <= np.ptp(np.nonzero(mask)[2]) + 1 <= 14


def test_bulbs_are_dark_in_bright_fluid_over_dark_bone_and_under_brain(heads):
    for volume, bare, points in heads:
        for point in points:

            def at(offset, image=volume, point=point):
                place = point + np.asarray(offset) / SPACING
                return map_coordinates(image, place[:, None], order=1)[0]

            fluid = at((0, 0, 0), bare)
            assert at((0, 0, 0)) < 0.65 * fluid
            under = min(at((0, down, 0)) for down in np.arange(1.5, 5, 0.25))
            assert under < 0.25 * fluid
            over = min(at((side, -8, 0)) for side in np.arange(-4, 4.1, 0.5))
            assert 0.15 * fluid < over < 0.65 * fluid


def test_the_right_bulb_is_left_in_the_picture_and_both_lie_inside():
    for seed in range(8):
        _, points = draw(seed, (16, 16, 14), (7.5, 7.5, 2.0))
        low, high = points * [7.5, 7.5, 2], (np.array([15, 15, 13]) - points) * [7.5, 7.5, 2]
        assert (low[:, :2] > 30).all() and (high[:, :2] > 30).all() and min(low.min(), high.min()) > 7
        assert 4 < points[LEFT, 0] * 7.5 - points[RIGHT, 0] * 7.5 < 16


def test_bulbs_lie_at_the_same_place_of_the_field_of_view_however_thick_the_slices_are():
    _, thick = draw(3, (32, 32, 6), (0.5, 0.5, 2.0))
    _, thin = draw(3, (16, 16, 12), (1.0, 1.0, 1.0))
    assert np.allclose((thick + 0.5) * [0.5, 0.5, 2], (thin + 0.5) * 1.0)


def test_a_set_is_made_with_points_that_the_loader_puts_on_both_sides_of_the_patient(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_DATA_DIRECTORY", str(tmp_path))
    sizes = {"tiny": ((48, 48, 14), {"training": 4, "test": 2}, (2.5, 2.5, 2.0))}
    bulbs = dataclasses.replace(phantoms.ANATOMIES["olfactory_bulbs"], sizes=sizes)
    monkeypatch.setitem(phantoms.ANATOMIES, "olfactory_bulbs", bulbs)
    folder = Path(phantom_dataset("olfactory_bulbs", "tiny"))
    oblique = []
    for name in ("training", "test"):
        for item in load_datalist(folder, name, OLFACTORY_BULB_LANDMARKS):
            loaded = LoadImaged("image", reader=LandmarkImageReader(), ensure_channel_first=True)(dict(item))
            world = LoadLandmarksd(names=OLFACTORY_BULB_LANDMARKS)(loaded)["label"][0].numpy()
            affine = nibabel.load(item["image"]).affine
            assert nibabel.aff2axcodes(affine) == ("L", "I", "P")
            assert np.allclose(np.linalg.norm(affine[:3, :3], axis=0), (2.5, 2.5, 2.0))
            assert np.allclose(world, np.array(item["landmarks"]) @ affine[:3, :3].T + affine[:3, 3], atol=1e-3)
            assert world[RIGHT, 0] > world[LEFT, 0]  # x of RAS grows to the patient's right...
            oblique.append(not np.isclose(affine[0, 1], 0))
    assert {True, False} == set(oblique)
