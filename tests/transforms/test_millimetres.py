import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImaged
from PIL import Image

from common.data import LandmarkImageReader
from common.errors import InputError
from common.transforms import InMillimetresd, MillimetreScaled

NAN, INF = math.nan, math.inf
# World points: the first two lie 5 apart by Pythagoras, the last two 10.
LABEL = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [1.0, 1.0], [-5.0, 9.0]]], dtype=torch.float64)


def item(pixel=(1.0, 1.0), header=NAN, label=LABEL, **more):
    """An image whose pixels have a size in the world, and whose header may know millimetres per world unit."""
    affine = np.diag([-pixel[0], -pixel[1], 1.0, 1.0])
    meta = {"original_affine": affine, "mm_per_world": header, "filename_or_obj": "film.png"}
    return {"image": MetaTensor(torch.zeros(1, 8, 9), affine=affine, meta=meta), "label": label, **more}


def scaled(item, **options):
    result = MillimetreScaled(**options)(item)
    return result["mm_per_world"], result["unit"]


def test_a_wrist_of_known_width_gives_the_scale():
    """50 mm over 5 world units."""
    assert scaled(item(), reference_points=[0, 1], reference_length=50.0) == (10.0, "mm")


def test_the_ends_of_a_reference_may_be_centroids():
    """The first end is (1.5, 2), the second (-2, 5): 3.5 and 3 apart."""
    scale, unit = scaled(item(), reference_points=[[0, 1], [2, 3]], reference_length=35.0)
    assert scale == pytest.approx(35 / math.sqrt(3.5**2 + 3**2)) and unit == "mm"


def test_a_reference_counts_more_than_a_spacing_and_a_spacing_more_than_the_header():
    everything = item(header=0.3, spacing=[0.2, 0.2])
    assert scaled(everything, reference_points=[0, 1], reference_length=50.0) == (10.0, "mm")
    assert scaled(everything) == (pytest.approx(0.2), "mm")
    assert scaled(item(header=0.3)) == (0.3, "mm")


@pytest.mark.parametrize("missing", [NAN, INF])
def test_without_a_position_of_the_reference_the_next_one_counts(missing):
    label = LABEL.clone()
    label[0, 1] = missing
    wrist = {"reference_points": [0, 1], "reference_length": 50.0}
    assert scaled(item(label=label, spacing=[0.2, 0.2]), **wrist) == (pytest.approx(0.2), "mm")
    assert scaled(item(label=label), **wrist) == (1.0, "pixel")


def test_two_reference_points_on_one_place_are_no_reference():
    label = torch.zeros(1, 2, 2, dtype=torch.float64)
    assert scaled(item(label=label), reference_points=[0, 1], reference_length=50.0) == (1.0, "pixel")


def test_a_spacing_is_of_file_pixels_whatever_world_the_header_makes_of_them():
    """A JPEG of 254 dpi: its pixels have 0.1 in the world; the film has 0.15 mm per pixel, as the owner says."""
    assert scaled(item(pixel=(0.1, 0.1), header=1.0, spacing=[0.15, 0.15])) == (pytest.approx(1.5), "mm")


def test_pixels_that_are_not_square_fit_if_the_header_knows_their_shape():
    assert scaled(item(pixel=(2.0, 1.0), spacing=[0.4, 0.2])) == (pytest.approx(0.2), "mm")


@pytest.mark.parametrize("pixel, spacing", [((1.0, 1.0), [0.1, 0.2]), ((2.0, 1.0), [0.1, 0.1])])
def test_pixels_of_another_shape_than_the_header_says_are_refused(pixel, spacing):
    with pytest.raises(InputError, match="^film.png: .*another factor on each axis; correct one of them, or save .*$"):
        scaled(item(pixel=pixel, spacing=spacing))


def test_a_difference_of_half_a_per_cent_between_the_axes_is_none():
    assert scaled(item(spacing=[0.2, 0.201])) == (pytest.approx(0.2), "mm")


@pytest.mark.parametrize("size", [0.0, -0.1])
def test_a_size_that_is_not_positive_is_refused(size):
    with pytest.raises(InputError, match="^film.png: .*must be positive"):
        scaled(item(header=size))


def test_where_nothing_is_known_the_unit_is_the_pixel_and_a_warning_names_the_file(caplog):
    assert scaled(item()) == (1.0, "pixel")
    assert "film.png" in caplog.text and "spacing" in caplog.text


def test_errors_in_pixels_are_so_whatever_world_a_file_has():
    """As a JPEG of 72 dpi, whose world has 0.3528 for a pixel, which nobody measured."""
    assert scaled(item(pixel=(0.25, 0.25))) == (pytest.approx(4.0), "pixel")
    assert scaled(item(pixel=(0.1, 0.4))) == (pytest.approx(5.0), "pixel")


def test_a_prediction_without_landmarks_needs_no_label():
    data = item(spacing=[0.2, 0.2])
    del data["label"]
    assert scaled(data, reference_points=[0, 1], reference_length=50.0) == (pytest.approx(0.2), "mm")


def test_the_spacing_is_taken_out_so_that_items_with_and_without_it_form_a_batch():
    assert "spacing" not in MillimetreScaled()(item(spacing=[0.2, 0.2]))
    assert "spacing" not in MillimetreScaled()(item(spacing=None))


def test_the_scale_moves_no_coordinate():
    data = item(header=0.5)
    result = MillimetreScaled()(data)
    assert torch.equal(result["label"], LABEL) and torch.equal(result["image"].affine, data["image"].affine)


def test_an_image_file_brings_its_own_scale(tmp_path):
    """254 dpi are 0.1 mm per pixel, which is also the world of the JPEG, so a world unit is a millimetre."""
    Image.new("L", (8, 6), 100).save(tmp_path / "a.jpg", dpi=(254, 254))
    Image.new("L", (8, 6), 100).save(tmp_path / "a.png")
    load = LoadImaged("image", reader=LandmarkImageReader(), ensure_channel_first=True)
    assert scaled(load({"image": str(tmp_path / "a.jpg")})) == (1.0, "mm")
    assert scaled(load({"image": str(tmp_path / "a.png")})) == (1.0, "pixel")


def test_differences_of_scaled_copies_are_errors_in_millimetres():
    data = {"pred": LABEL, "label": LABEL * 2, "mm_per_world": torch.tensor(0.25)}
    result = InMillimetresd(["pred", "label"])(data)
    assert (result["label_mm"] - result["pred_mm"]).norm(dim=-1)[0, 1] == 1.25  # 5 world units
    assert torch.equal(result["pred"], LABEL)


def test_landmarks_without_a_position_stay_so_in_millimetres():
    label = torch.tensor([[[NAN, NAN], [INF, INF]]])
    scaled = InMillimetresd("label")({"label": label, "mm_per_world": 0.5})["label_mm"]
    assert scaled[0, 0].isnan().all() and (scaled[0, 1] == INF).all()
