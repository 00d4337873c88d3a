"""The mean shape of training films on disk, as the baseline of an evaluation."""

import json
import math

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged
from PIL import Image

from common.clinical import MeanShape
from common.data import LandmarkImageReader, write_datalist
from common.handlers.report import json_safe
from common.transforms import LoadLandmarksd, MillimetreScaled

NAMES = ["a", "b", "c", "d"]
NAN = [math.nan, math.nan]
TRAINING = [  # size of the film, its landmarks
    ((40, 80), [[10, 20], [20, 40], [30, 60], None]),
    ((100, 50), [[30, 10], [50.5, 20], "absent", None]),
    ((60, 60), [[12, 18], None, [36, 30], None]),
]
TEST = [  # size, landmarks, millimetres per pixel
    ((50, 90), [[11, 25], [26, 44], [31, 50], [5, 6]], 0.5),
    ((80, 40), [[20, 8], None, [50, 22], [7, 8]], 0.25),
]


def film(folder, name, size):
    Image.fromarray(np.full(size[::-1], 100, dtype=np.uint8)).save(folder / name)
    return name


def dataset(folder, training=TRAINING):
    items = [{"image": film(folder, f"{i}.png", size), "landmarks": p} for i, (size, p) in enumerate(training)]
    lists = {"training": items} if items else {"other": [{"image": film(folder, "x.png", (9, 9))}]}
    return write_datalist(folder, name="films", phantom=True, landmarks=NAMES, **lists).parent


def evaluated(folder, measure, films=TEST):
    """The measure after an evaluation of some films."""
    load = Compose(
        [
            LoadImaged("image", reader=LandmarkImageReader(spatial_dims=2), ensure_channel_first=True, image_only=True),
            LoadLandmarksd("label", names=NAMES),
            MillimetreScaled(),
        ]
    )
    measure.clear()
    for i, (size, points, *spacing) in enumerate(films):
        item = {"image": str(folder / film(folder, f"test_{i}.png", size)), "landmarks": points}
        batch = load({**item, "spacing": 2 * spacing} if spacing else item)
        measure.collect(batch, {**batch, "pred": torch.full((1, 4, 2), math.inf)})
    return measure


def points(landmarks):
    return np.array([p if isinstance(p, list) else NAN for p in landmarks])


def distances(films):
    """Pixels (films, 4) from the mean shape, by the definition: the mean of fractions of width and height."""
    fractions = np.stack([points(p) / np.array(size) for size, p in TRAINING])
    mean = [fractions[:, i][np.isfinite(fractions[:, i, 0])] for i in range(4)]
    mean = np.array([rows.mean(0) if len(rows) else NAN for rows in mean])
    return np.stack([np.linalg.norm(mean * np.array(size) - points(p), axis=1) for size, p, *_ in films])


def test_the_mean_of_fractions_is_placed_on_films_of_any_size(tmp_path):
    found = evaluated(tmp_path, MeanShape(dataset(tmp_path), "training", NAMES)).summary()
    expected = distances(TEST)
    assert np.isfinite(expected).sum() == 5  # the fourth landmark has no mean, and one point no truth
    in_mm = expected * [[0.5], [0.25]]
    assert found["training_images"] == 3 and found["unit"] == "mm"
    assert found["radial_error"]["count"] == 5
    assert found["radial_error"]["mean"] == pytest.approx(np.nanmean(in_mm))
    assert found["radial_error"]["median"] == pytest.approx(np.nanmedian(in_mm))
    assert found["percent_of_image_height"] == pytest.approx(100 * np.nanmean(expected / [[90], [40]]))


def test_a_single_point_by_hand(tmp_path):
    """A quarter of the width and of the height, always: (20, 5) of 80 x 20 pixels, where (10, 5) is the truth."""
    training = [((40, 40), [[10, 10], None, None, None]), ((20, 60), [[5, 15], None, None, None])]
    measure = MeanShape(dataset(tmp_path, training), "training", NAMES)
    result = evaluated(tmp_path, measure, [((80, 20), [[10, 5], None, None, None], 0.1)]).summary()
    assert result["radial_error"]["mean"] == pytest.approx(1.0) and result["radial_error"]["count"] == 1
    assert result["percent_of_image_height"] == pytest.approx(50.0)


def test_films_in_pixels_enter_no_mean_of_millimetres_but_the_share_of_the_height(tmp_path):
    films = [TEST[0], TEST[1][:2]]
    found = evaluated(tmp_path, MeanShape(dataset(tmp_path), "training", NAMES), films).summary()
    assert found["radial_error"]["mean"] == pytest.approx(0.5 * np.nanmean(distances(films)[0]))
    assert found["percent_of_image_height"] == pytest.approx(100 * np.nanmean(distances(films) / [[90], [40]]))


def test_without_any_spacing_it_is_told_in_pixels(tmp_path):
    films = [film[:2] for film in TEST]
    measure = evaluated(tmp_path, MeanShape(dataset(tmp_path), "training", NAMES), films)
    assert measure.summary()["radial_error"]["mean"] == pytest.approx(np.nanmean(distances(films)))
    assert "pixel" in measure.headline() and "mm" not in measure.headline()


def test_volumes_in_voxels_enter_no_mean_of_millimetres(tmp_path):
    """A shape 2 world units off the truth; a unit is 3 mm in the first volume, and unknown in the second."""
    nibabel.save(nibabel.Nifti1Image(np.zeros((9, 9, 9), np.float32), np.eye(4)), tmp_path / "scan.nii.gz")
    items = [{"image": "scan.nii.gz", "landmarks": [[4, 4, 4], None, None, None]}]
    write_datalist(tmp_path, name="scans", phantom=True, landmarks=NAMES, training=items)
    measure = MeanShape(tmp_path, "training", NAMES)
    affine = {"spatial_shape": [9, 9, 9], "original_affine": np.eye(4)}
    truth = torch.full((1, 4, 3), math.nan)
    truth[0, 0] = torch.tensor([4.0, 4.0, 6.0])
    image = MetaTensor(torch.zeros(1, 9, 9, 9), meta=affine)
    for told, expected in (([("mm", 3.0), ("pixel", 1.0)], "6.00 mm"), ([("pixel", 1.0)], "2.00 pixel")):
        measure.clear()
        for unit, scale in told:
            measure.collect({"unit": unit, "mm_per_world": scale}, {"image": image, "label": truth})
        assert measure.summary()["radial_error"]["count"] == 1
        assert (
            measure.headline() == f"mean shape of 1 training images, for comparison: {expected}, median {expected[:4]}"
        )


def test_the_headline_tells_the_error_and_what_it_is_made_of(tmp_path):
    measure = evaluated(tmp_path, MeanShape(dataset(tmp_path), "training", NAMES))
    expected = distances(TEST)
    mm, share = expected * [[0.5], [0.25]], 100 * np.nanmean(expected / [[90], [40]])
    assert measure.headline() == (
        f"mean shape of 3 training images, for comparison: {np.nanmean(mm):.2f} mm, median {np.nanmedian(mm):.2f} "
        f"({share:.1f} % of the image height)"
    )


def test_a_data_set_without_a_training_list_has_no_baseline(tmp_path):
    measure = evaluated(tmp_path, MeanShape(dataset(tmp_path, []), "training", NAMES))
    assert measure.summary() == {} and measure.tables() == {}
    assert measure.headline() == "mean shape: not measured, since the list 'training' is missing or not whole"


def test_an_evaluation_that_runs_again_forgets_the_first(tmp_path):
    measure = MeanShape(dataset(tmp_path), "training", NAMES)
    first = evaluated(tmp_path, measure).summary()
    second = evaluated(tmp_path, measure, TEST[:1]).summary()
    assert second["radial_error"]["count"] == 3 < first["radial_error"]["count"]
    assert f"{second['radial_error']['mean']:.2f} mm" in measure.headline()


def test_the_result_can_stand_in_json(tmp_path):
    no_truth = [((50, 90), [None] * 4, 0.5)]
    measure = evaluated(tmp_path, MeanShape(dataset(tmp_path), "training", NAMES), no_truth)
    result = json.loads(json.dumps(json_safe(measure.summary()), allow_nan=False))
    assert result["radial_error"]["count"] == 0 and result["percent_of_image_height"] is None


def test_a_training_image_that_is_not_there_costs_the_baseline_alone(tmp_path, caplog):
    measure = evaluated(tmp_path, MeanShape(folder := dataset(tmp_path), "training", NAMES))
    assert measure.summary()
    measure.result = {}
    (folder / "0.png").unlink()
    assert measure.summary() == {} and "is missing or not whole" in measure.headline()
    assert "No error of the mean shape" in caplog.text
