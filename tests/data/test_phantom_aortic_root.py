import dataclasses
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.transforms import LoadImaged
from scipy.ndimage import map_coordinates

from common.data import AORTIC_ROOT_LANDMARKS, LandmarkImageReader, load_datalist, phantoms
from common.data.phantom_aortic_root import draw_aortic_root
from common.data.phantom_aortic_root_anatomy import AorticRoot
from common.data.phantoms import phantom_dataset
from common.transforms import LoadLandmarksd

NCRC, NCLC, LRC, LH, NCH, RH, RO, LO = range(8)
SIZE, SPACING = (72, 72, 64), (1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def scans():
    """Scans without noise of 1 mm, so that voxels are millimetres."""
    return [draw_aortic_root(np.random.default_rng([1, k]), SIZE, SPACING, swapped=False, noise=0.0) for k in range(3)]


class Axes:
    """Cylindrical coordinates about the root's axis, from the landmarks alone."""

    def __init__(self, points):
        self.centre = points[[LH, NCH, RH]].mean(0)
        axis = np.cross(points[NCH] - points[LH], points[RH] - points[LH])
        self.up = axis / np.linalg.norm(axis)
        left = np.array([1.0, 0, 0]) - self.up[0] * self.up
        self.left = left / np.linalg.norm(left)
        self.back = np.cross(self.up, self.left)

    def of(self, point):
        """Angle, radius and height."""
        offset = point - self.centre
        u, v = offset @ self.left, offset @ self.back
        return np.arctan2(v, u), np.hypot(u, v), offset @ self.up

    def at(self, angle, radius, height):
        angle, radius, height = np.broadcast_arrays(angle, radius, height)
        parts = radius * np.cos(angle), radius * np.sin(angle), height
        offset = sum(part[..., None] * axis for part, axis in zip(parts, (self.left, self.back, self.up)))
        return self.centre + offset


def grey(volume, places):
    return map_coordinates(volume.astype(float), np.moveaxis(places, -1, 0), order=1, mode="nearest")


def blood(volume, points):
    axes = Axes(points)
    return np.median(grey(volume, axes.at(np.arange(0, 6, 0.5), 3.0, axes.of(points[LRC])[2] + 6)))


def test_the_landmarks_are_those_of_the_paper_in_its_order():
    assert len(AORTIC_ROOT_LANDMARKS) == len(set(AORTIC_ROOT_LANDMARKS)) == 8
    assert [name.split("_")[0] for name in AORTIC_ROOT_LANDMARKS] == ["commissure"] * 3 + ["hinge"] * 3 + ["ostium"] * 2
    assert AORTIC_ROOT_LANDMARKS[NCRC] == "commissure_noncoronary_right"
    assert AORTIC_ROOT_LANDMARKS[LH] == "hinge_left" and AORTIC_ROOT_LANDMARKS[RO] == "ostium_right"


def test_the_same_seed_draws_the_same_volume_and_another_seed_does_not():
    volume, points = draw_aortic_root(np.random.default_rng(4), (40, 40, 36), (3.0, 3.0, 3.0))
    again, points_again = draw_aortic_root(np.random.default_rng(4), (40, 40, 36), (3.0, 3.0, 3.0))
    other, _ = draw_aortic_root(np.random.default_rng(5), (40, 40, 36), (3.0, 3.0, 3.0))
    assert volume.shape == (40, 40, 36) and volume.dtype == np.int16 and points.dtype == np.float64
    assert volume.tobytes() == again.tobytes() and np.array_equal(points, points_again)
    assert volume.tobytes() != other.tobytes()


def test_one_anatomy_lies_at_the_same_place_at_any_resolution():
    fine = draw_aortic_root(np.random.default_rng(6), (71, 71, 61), (1.0, 1.0, 1.0))[1]
    coarse = draw_aortic_root(np.random.default_rng(6), (36, 36, 31), (2.0, 2.0, 2.0))[1]
    assert np.allclose(fine * 1.0, coarse * 2.0)


def test_all_points_lie_inside_even_the_smallest_volume():
    for seed in range(8):
        _, points = draw_aortic_root(np.random.default_rng([3, seed]), (16, 16, 14), (8.0, 8.0, 8.0))
        assert (points * 8 > 5.9).all() and (points * 8 < np.array([120, 120, 104]) - 5.9).all()


def test_the_root_stands_as_in_a_patient_on_his_back(scans):
    for _, points in scans:
        axes = Axes(points)
        assert axes.up[2] > 0.6 and axes.up[0] < 0  # up, and to the patient's right
        assert points[RH, 1] < points[[LH, NCH], 1].min()  # the right leaflet in front
        assert points[LO, 0] > points[RO, 0]
        # From the patient's left over the back, leaflets and the commissures between them alternate.
        turn = [axes.of(points[k])[0] for k in (LH, NCLC, NCH, NCRC, RH, LRC)]
        steps = np.diff([*turn, turn[0]]) % (2 * np.pi)
        assert steps.sum() == pytest.approx(2 * np.pi) and (steps > 0.6).all()
        assert min(axes.of(points[k])[2] for k in (NCRC, NCLC, LRC)) > 8


def test_annuli_measure_20_to_28_mm():
    for seed in range(40):
        a, b, c = AorticRoot(np.random.default_rng([4, seed])).landmarks[[LH, NCH, RH]]
        sides = [np.linalg.norm(p - q) for p, q in ((a, b), (b, c), (c, a))]
        area = 0.5 * np.linalg.norm(np.cross(b - a, c - a))
        assert 0.93 * 20 < 2 * np.prod(sides) / (4 * area) < 1.07 * 28  # of the circle through the three hinges


def test_the_lumen_reaches_each_ostium_and_goes_on_outside_of_it_only_there(scans):
    for volume, points in scans:
        axes, full = Axes(points), blood(volume, points)
        for ostium in (RO, LO):
            angle, radius, height = axes.of(points[ostium])
            along = grey(volume, axes.at(angle, radius + np.array([-3, -1.5, 0, 1.5, 3]), height))
            assert (along > 0.6 * full).all()
            beside = grey(volume, axes.at(angle, radius + 3.0, height + np.array([-6, 6])))
            assert (beside < 0.5 * full).all()


def test_the_wall_begins_at_the_hinges(scans):
    for volume, points in scans:
        axes, full = Axes(points), blood(volume, points)
        for hinge in (LH, NCH, RH):
            angle, radius, height = axes.of(points[hinge])
            out = np.arange(-4, 2.6, 0.1)
            along = grey(volume, axes.at(angle, radius + out, height - 2.5))  # under the leaflet
            wall = along[out > 0].min()
            edge = out[np.argmax(along < 0.5 * (along[0] + wall))]
            assert along[0] > 0.75 * full and wall < 0.65 * full and abs(edge) < 1.0


def dip(volume, axes, angle, radius, low, high):
    """Height of the darkest place on a line along the root's axis: a leaflet."""
    heights = np.arange(low, high, 0.1)
    return heights[grey(volume, axes.at(angle, radius, heights)).argmin()]


def test_a_hinge_is_the_lowest_point_of_its_leaflet(scans):
    for volume, points in scans:
        axes = Axes(points)
        for hinge in (LH, NCH, RH):
            angle, radius, height = axes.of(points[hinge])
            assert dip(volume, axes, angle, radius - 1.2, height - 4, height + 4) == pytest.approx(height, abs=1.2)
            across = np.radians([-40, -22, 0, 22, 40])
            heights = [dip(volume, axes, angle + turn, 0.78 * radius, height - 3, height + 9) for turn in across]
            assert heights[2] == min(heights) and heights[0] > heights[1] - 0.3 and heights[4] > heights[3] - 0.3
            assert min(heights[0], heights[4]) > heights[2] + 1


def test_two_leaflets_meet_at_each_commissure_and_none_is_above_it(scans):
    middles, tops = [], []
    for volume, points in scans:
        axes, full = Axes(points), blood(volume, points)
        for commissure in (NCRC, NCLC, LRC):
            angle, radius, height = axes.of(points[commissure])
            turn = np.radians(np.arange(-32, 32.5, 0.5))
            for down in (6.0, 8.0):  # leaflets lie on both sides, and blood of the ventricle between them
                below = grey(volume, axes.at(angle + turn, 0.87 * radius, height - down))
                sides = [np.argmin(np.where(side * turn > 0.05, below, np.inf)) for side in (-1, 1)]
                assert (below[sides] < 0.85 * full).all()
                assert below[sides[0] : sides[1]].max() > below[sides].max() + 0.03 * full
                middles.append(np.degrees(turn[sides].mean()))
            up = np.arange(-3, 5, 0.1)
            line = grey(volume, axes.at(angle, radius - 1.2, height + up))
            tops.append(up[line < 0.5 * (line.min() + line[-1])].max())  # blood above, leaflets below
            above = grey(volume, axes.at(angle + turn[::8], radius - 3.0, height + 3.0))
            assert (above > 0.85 * full).all()
    assert np.abs(middles).max() < 9 and abs(np.mean(middles)) < 2
    assert np.abs(tops).max() < 1.5


def test_swapped_ostia_lie_close_together_in_the_left_sinus():
    for seed in range(3):
        volume, points = draw_aortic_root(np.random.default_rng([5, seed]), SIZE, SPACING, swapped=True, noise=0.0)
        axes, full = Axes(points), blood(volume, points)
        start = axes.of(points[LRC])[0]
        sector = (axes.of(points[NCLC])[0] - start) % (2 * np.pi)
        for ostium in (RO, LO):
            angle, radius, height = axes.of(points[ostium])
            assert 0 < (angle - start) % (2 * np.pi) < sector
            assert (grey(volume, axes.at(angle, radius + np.array([0, 1.5]), height)) > 0.55 * full).all()
        assert 4 < np.linalg.norm(points[RO] - points[LO]) < 16


def test_ostia_are_swapped_in_a_few_percent():
    swapped = [AorticRoot(np.random.default_rng([1, 0, seed])).swapped for seed in range(500)]
    assert 0.02 < np.mean(swapped) < 0.07


def test_grey_values_are_hounsfield_units_of_contrast_lung_and_bone(scans):
    for volume, points in scans:
        assert 250 < blood(volume, points) < 560
        assert volume.min() >= -1024 and (volume < -700).mean() > 0.002
        assert ((volume > -140) & (volume < -50)).mean() > 0.05  # fat


def test_a_set_of_volumes_is_made_with_points_that_the_loader_puts_on_them(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_DATA_DIRECTORY", str(tmp_path))
    sizes = {"tiny": ((40, 36, 32), {"training": 2, "test": 1}, (2.5, 2.6, 2.7))}
    root = dataclasses.replace(phantoms.ANATOMIES["aortic_root"], sizes=sizes)
    monkeypatch.setitem(phantoms.ANATOMIES, "aortic_root", root)
    folder = Path(phantom_dataset("aortic_root", "tiny"))
    datalist = json.loads((folder / "datalist.json").read_text())
    assert datalist["landmarks"] == list(AORTIC_ROOT_LANDMARKS) and datalist["phantom"] is True
    for item in load_datalist(folder, "training", AORTIC_ROOT_LANDMARKS):
        loaded = LoadImaged("image", reader=LandmarkImageReader(), ensure_channel_first=True)(dict(item))
        loaded = LoadLandmarksd(names=AORTIC_ROOT_LANDMARKS)(loaded)
        assert loaded["image"].shape == (1, 40, 36, 32) and loaded["image"].meta["mm_per_world"] == 1
        affine = nibabel.load(item["image"]).affine
        assert nibabel.aff2axcodes(affine) == ("L", "P", "S")
        assert np.allclose(np.abs(np.diag(affine))[:3], (2.5, 2.6, 2.7)) and np.abs(affine[:3, 3]).max() > 1
        world = np.array(item["landmarks"]) @ affine[:3, :3].T + affine[:3, 3]
        assert np.allclose(loaded["label"][0], world, atol=1e-4)
        assert world[LH, 0] < world[NCH, 0]  # the patient's left has smaller x in RAS
    volume, points = draw_aortic_root(np.random.default_rng([1, 1, 0]), (40, 36, 32), (2.5, 2.6, 2.7))
    stored = nibabel.load(folder / datalist["test"][0]["image"])
    assert np.array_equal(np.asarray(stored.dataobj), volume)
    assert np.allclose(datalist["test"][0]["landmarks"], points, atol=5.1e-4)


def test_sets_of_pictures_keep_the_folders_that_they_had_before_there_were_volumes():
    names = [phantoms.ANATOMIES[anatomy].folder(anatomy, "quick") for anatomy in ("hand", "skull", "spine")]
    assert names == ["hand_quick_fbac6d999300", "skull_quick_bd33dc2dc05e", "spine_quick_cfccc80af04b"]
