import hashlib

import nibabel
import numpy as np
import pytest

from common.data import phantom_volume
from common.data.phantom_volume import (
    Canvas,
    ellipsoid,
    grown,
    rotation,
    sampled,
    smooth_field,
    smooth_path,
    tube,
    turned,
    volume_affine,
    without,
    write_volume,
)

SIZE, SPACING, ORIGIN = (40, 44, 36), (0.5, 0.5, 0.5), (-10.0, -11.0, -9.0)


def painted(*bodies, **options):
    canvas = Canvas(SIZE, SPACING, ORIGIN, 0)
    canvas.paint(1, *bodies, **options)
    return canvas.values


def volume_and_centroid(values):
    places = np.stack(np.meshgrid(*[np.arange(n) for n in SIZE], indexing="ij")) * 0.5 + np.reshape(
        ORIGIN, (3, 1, 1, 1)
    )
    return values.sum() * 0.125, (places * values).sum((1, 2, 3)) / values.sum()


def test_an_ellipsoid_has_its_volume_and_lies_about_its_centre():
    axes = rotation([20, -30, 50])
    volume, centroid = volume_and_centroid(painted(ellipsoid((1.3, -0.7, 0.45), (6.0, 4.0, 2.5), axes)))
    assert volume == pytest.approx(4 / 3 * np.pi * 6 * 4 * 2.5, rel=0.02)
    assert centroid == pytest.approx([1.3, -0.7, 0.45], abs=0.02)


def test_a_tube_has_the_volume_of_a_capsule_and_a_rim_adds_to_its_radius():
    line = np.array([[0, 0, -4], [0, 0, 0], [0, 0, 4.0]])
    for radius, bodies in ((3.0, tube(line, 3.0)), (4.0, [grown(part, 1) for part in tube(line, 3.0)])):
        volume, centroid = volume_and_centroid(painted(*bodies))
        assert volume == pytest.approx(np.pi * radius**2 * 8 + 4 / 3 * np.pi * radius**3, rel=0.02)
        assert centroid == pytest.approx([0, 0, 0], abs=0.01)


def test_a_sheet_thinner_than_a_voxel_fills_its_thickness_of_it():
    sphere = ellipsoid((0, 0, 0), (6, 6, 6))
    shell = sphere._replace(distance=lambda x, y, z: np.abs(sphere.distance(x, y, z)), low=[-7] * 3, high=[7] * 3)
    volume, _ = volume_and_centroid(painted(shell, sheet=0.2))
    assert volume == pytest.approx(4 * np.pi * 36 * 0.2, rel=0.02)


def test_what_is_cut_out_of_a_body_stays_as_it_was():
    values = painted(without(ellipsoid((0, 0, 0), (6, 6, 6)), ellipsoid((0, 0, 0), (3, 3, 3))))
    assert values[20, 22, 18] == 0 and values[29, 22, 18] == 1  # the middle, and 4.5 mm beside it


def test_painting_in_small_parts_gives_the_same_and_bodies_may_reach_beyond_the_volume(monkeypatch):
    bodies = [ellipsoid((8, 3, -8), (9, 4, 6), rotation([5, 10, 15])), *tube(np.array([[-40, 0, 0], [0, 3, 30]]), 2)]
    whole = painted(*bodies)
    monkeypatch.setattr(phantom_volume, "CHUNK", 3000)
    assert np.array_equal(painted(*bodies), whole) and 0 < whole.mean() < 0.5


def test_a_turned_body_lies_where_the_rotation_takes_it():
    turn = rotation([0, 0, 90])  # x to y
    assert turn @ [1, 0, 0] == pytest.approx([0, 1, 0])
    values = painted(turned(ellipsoid((5, 0, 2), (3, 2, 1)), turn))
    _, centroid = volume_and_centroid(values)
    assert centroid == pytest.approx([0, 5, 2], abs=0.02)
    assert values[20, 22 + 10 + 5, 18 + 4] == 1 and values[20 + 5, 22 + 10, 18 + 4] == 0


def test_distances_of_a_whole_canvas_are_looked_up_where_they_belong():
    turn = rotation([7, -12, 25])
    canvas = Canvas(SIZE, SPACING, ORIGIN, 0)
    body = turned(ellipsoid((2, 1, -1), (5, 4, 3)), turn)
    kept = sampled(canvas, body.distance(*canvas.coordinates((0, 0, 0), SIZE)), turn)
    part = kept._replace(low=[-6, -6, -6], high=[6, 6, 6])
    assert np.allclose(painted(turned(part, turn)), painted(body), atol=1e-4)


def test_a_smooth_path_passes_through_its_control_points_in_even_steps():
    control = np.array([(0, 0, 0), (10, 0, 0), (20, 5, 0), (20, 20, 5.0)])
    path = smooth_path(control, 1.0)
    for point in control:
        assert np.linalg.norm(path - point, axis=1).min() < 1e-9
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert steps.min() > 0.5 and steps.max() < 2


def test_smooth_fields_have_unit_variance_and_change_slowly():
    axes = [np.arange(120) * 0.5, np.arange(100) * 0.5, np.arange(90) * 0.5]
    field = smooth_field(np.random.default_rng(0), axes, 3.0)
    assert field.shape == (120, 100, 90) and field.std() == pytest.approx(1, abs=0.15)
    beside = np.corrcoef(field[:-1].ravel(), field[1:].ravel())[0, 1]
    apart = np.corrcoef(field[:-36].ravel(), field[36:].ravel())[0, 1]  # 18 mm
    assert beside > 0.98 and abs(apart) < 0.2


@pytest.mark.parametrize(("axes", "oblique"), [("LPS", 0.0), ("LIP", 4.0)])
def test_affines_are_those_of_scanners(axes, oblique):
    turned_at_all = []
    for seed in range(40):
        affine = volume_affine(np.random.default_rng(seed), (60, 50, 28), (0.5, 0.5, 1.0), axes, oblique)
        matrix = affine[:3, :3] / [0.5, 0.5, 1.0]
        assert np.allclose(matrix.T @ matrix, np.eye(3)) and np.linalg.det(matrix) == pytest.approx(1)
        assert nibabel.aff2axcodes(affine) == tuple(axes)
        assert np.abs(affine[:3, 3]).max() > 1
        turned_at_all.append(not np.isclose(np.abs(matrix), np.abs(matrix).round()).all())
    assert np.mean(turned_at_all) == (0 if oblique == 0 else pytest.approx(0.5, abs=0.25))


def test_a_volume_is_kept_as_the_same_bytes_with_its_affine(tmp_path):
    volume = np.arange(-30, 30, dtype=np.int16).reshape(3, 4, 5)
    affine = volume_affine(np.random.default_rng(3), volume.shape, (0.4, 0.4, 0.9), "LIP", 5.0)
    digests = set()
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(tmp_path / name, volume, affine)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    image = nibabel.load(tmp_path / "a.nii.gz")
    assert len(digests) == 1 and image.get_data_dtype() == np.int16
    assert np.array_equal(np.asarray(image.dataobj), volume) and np.allclose(image.affine, affine, atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"
