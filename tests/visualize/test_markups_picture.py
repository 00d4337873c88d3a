import json

import nibabel
import numpy as np
import pytest
from PIL import Image

from common.data.markups_files import markup_node, write_markup_nodes
from common.errors import InputError
from common.visualize import draw_markups


@pytest.fixture
def film(tmp_path):
    """A black PNG of 100 x 80 pixels, whose pixel (x, y) lies at (-x, -y) in RAS."""
    Image.fromarray(np.zeros((80, 100), dtype=np.uint8)).save(tmp_path / "film.png")
    return tmp_path / "film.png"


def coloured(picture, channel):
    """Centre (x, y) of the pixels in which one colour channel is far above another."""
    rgb = np.asarray(picture).astype(int)
    y, x = np.nonzero(rgb[..., channel] - rgb[..., 2 - channel] > 120)
    return x.mean(), y.mean()


def test_a_point_is_drawn_where_its_world_coordinates_lie(film, tmp_path):
    write_markup_nodes(tmp_path / "a.mrk.json", [markup_node("Fiducial", np.array([[-30.0, -20.0, 0.0]]), ["tip"])])
    picture = draw_markups(film, [tmp_path / "a.mrk.json"], size=400, point_labels=False)
    assert picture.size == (400, 320)
    assert coloured(picture, 0) == pytest.approx((30.5 * 4 - 0.5, 20.5 * 4 - 0.5), abs=1)


def test_a_line_runs_between_its_points(film, tmp_path):
    ends = np.array([[-10.0, -40.0, 0.0], [-90.0, -40.0, 0.0]])
    write_markup_nodes(tmp_path / "a.mrk.json", [markup_node("Line", ends, ["a", "b"], name="w")])
    rgb = np.asarray(draw_markups(film, [tmp_path / "a.mrk.json"], size=400)).astype(int)
    x = np.nonzero((rgb[161:164] > 80).all(-1).any(0))[0]
    assert (x.min(), x.max()) == pytest.approx((41.5, 361.5), abs=2)


def test_the_value_of_the_file_is_written_beside_an_angle(film, tmp_path):
    ends = np.array([[-10.0, -40.0, 0.0], [-50.0, -40.0, 0.0], [-50.0, -10.0, 0.0]])
    pictures = []
    for value in (
        [],
        [{"name": "ANB", "value": -1.25, "units": "deg"}],
        [{"name": "ANB", "value": 8.0, "units": "deg"}],
    ):
        write_markup_nodes(tmp_path / "a.mrk.json", [markup_node("Angle", ends, list("abc"), None, "ANB", value)])
        pictures.append(np.asarray(draw_markups(film, [tmp_path / "a.mrk.json"], size=400)))
    assert not np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[1], pictures[2])


def test_points_without_a_position_are_left_out(film, tmp_path):
    points = np.array([[-30.0, -20.0, 0.0], [np.nan] * 3])
    write_markup_nodes(tmp_path / "a.mrk.json", [markup_node("Fiducial", points, ["tip", "base"])])
    write_markup_nodes(tmp_path / "b.mrk.json", [markup_node("Fiducial", points[:1], ["tip"])])
    both, one = (np.asarray(draw_markups(film, [tmp_path / f"{name}.mrk.json"])) for name in "ab")
    assert np.array_equal(both, one)


def test_a_file_that_is_no_markups_is_told(film, tmp_path):
    (tmp_path / "a.mrk.json").write_text(json.dumps({"points": []}))
    with pytest.raises(InputError, match="no readable 3D Slicer markups file"):
        draw_markups(film, [tmp_path / "a.mrk.json"])


@pytest.mark.parametrize("axes", [(1, 1), (-1, 1), (-1, -1)])
def test_a_point_is_drawn_on_what_it_marks_where_axes_are_flipped(tmp_path, axes):
    voxels = np.zeros((100, 120, 1), dtype=np.float32)
    voxels[18:23, 28:33] = 200
    affine = np.diag([*axes, 1.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "film.nii.gz")
    node = markup_node("Fiducial", np.array([[20.0 * axes[0], 30.0 * axes[1], 0.0]]), ["tip"])
    write_markup_nodes(tmp_path / "a.mrk.json", [node])
    picture = draw_markups(tmp_path / "film.nii.gz", [tmp_path / "a.mrk.json"], size=480, point_labels=False)
    ring = coloured(picture, 0)
    rgb = np.asarray(picture).astype(int)
    y, x = np.nonzero((rgb.min(-1) > 150) & (np.ptp(rgb, axis=-1) < 20))
    assert ring == pytest.approx((x.mean(), y.mean()), abs=2)
