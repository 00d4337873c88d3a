import csv
import json
import math
from types import SimpleNamespace

import itk
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, Resized, ResizeWithPadOrCropd
from PIL import Image

from common.data import LandmarkImageReader, PredictionDataset, read_landmarks
from common.errors import InputError
from common.handlers import SaveLandmarks

NAN, INF = math.nan, math.inf
NAMES = ["tip", "base"]
CONFIDENCE = [0.25, 1.0]


def load(path, *more):
    return Compose([LoadImaged("image", reader=LandmarkImageReader(), ensure_channel_first=True), *more])(
        {"image": str(path)}
    )["image"]


def output(image, pred):
    return {
        "image": image,
        "pred": torch.tensor([pred], dtype=torch.float64),
        "confidence": torch.tensor(CONFIDENCE[: len(pred)]),
    }


def save(folder, *outputs, names=NAMES, **options):
    """Give outputs to the handler, one by one, and read the table that it writes."""
    data = PredictionDataset([{"image": each["image"].meta["filename_or_obj"]} for each in outputs])
    handler = SaveLandmarks(folder, names, data, **options)
    handler.start(None)
    for each in outputs:
        handler.save(SimpleNamespace(state=SimpleNamespace(output=[each])))
    handler.finish(None)
    with open(folder / "landmarks.csv", newline="") as file:
        return list(csv.DictReader(file))


def numbers(row, *columns):
    return [float(row[column]) for column in columns]


def positions(path):
    """Of a markups file, by label, in its own coordinate system, which is LPS."""
    markup = json.loads(path.read_text())["markups"][0]
    assert markup["coordinateSystem"] == "LPS"
    return {point["label"]: point.get("position") for point in markup["controlPoints"]}


def picture(path, size=(20, 30)):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, size[::-1], dtype=np.uint8)).save(path)
    return path


def test_a_prediction_on_a_png_is_written_in_its_pixels(tmp_path):
    """The world of a PNG in LPS is its pixels; the network saw it resized and padded."""
    image = load(
        picture(tmp_path / "film.png"),
        Resized("image", spatial_size=60, size_mode="longest"),
        ResizeWithPadOrCropd("image", spatial_size=(64, 64)),
    )
    rows = save(tmp_path / "out", output(image, [[-3.25, -17.5], [NAN, NAN]]))
    assert [row["name"] for row in rows] == NAMES and {row["image"] for row in rows} == {str(tmp_path / "film.png")}
    assert numbers(rows[0], "pixel_x", "pixel_y") == [3.25, 17.5]
    assert numbers(rows[0], "lps_x", "lps_y", "lps_z", "confidence") == [3.25, 17.5, 0, 0.25]
    assert {rows[1][column] for column in ("pixel_x", "pixel_y", "lps_x", "lps_y", "lps_z")} == {""}
    assert positions(tmp_path / "out" / "film.mrk.json") == {"tip": [3.25, 17.5, 0.0], "base": None}


def test_a_prediction_on_an_oblique_plane_is_written_where_the_plane_lies(tmp_path):
    """Pixels of 0.5 x 0.25 mm in a plane that is turned and tilted, as a DICOM radiograph may state."""
    along = np.array([0.0, 0.6, 0.8])
    down = np.array([1.0, 0.0, 0.0])
    corner = np.array([10.0, -20.0, 30.0])
    plane = np.eye(4)
    plane[:3, :3] = np.stack([0.5 * along, 0.25 * down, np.cross(along, down)], axis=1)
    plane[:3, 3] = corner
    affine = np.diag([-0.5, -0.25, 1.0, 1.0])
    meta = {"filename_or_obj": "a.dcm", "plane_affine": plane, "original_affine": affine,
            "spatial_shape": np.array([20, 30])}  # fmt: skip
    image = MetaTensor(torch.rand(1, 20, 30), affine=affine, meta=meta)
    rows = save(tmp_path, output(image, [[-0.5 * 4, -0.25 * 7], [-0.5, 0.0]]))
    assert numbers(rows[0], "pixel_x", "pixel_y") == [4, 7]
    ras = corner + 4 * 0.5 * along + 7 * 0.25 * down
    assert numbers(rows[0], "lps_x", "lps_y", "lps_z") == pytest.approx([-ras[0], -ras[1], ras[2]], abs=1e-4)
    assert positions(tmp_path / "a.mrk.json")["tip"] == pytest.approx([-ras[0], -ras[1], ras[2]])


def test_a_prediction_on_a_volume_is_written_where_itk_says_that_the_voxel_lies(tmp_path):
    image = itk.image_from_array(np.random.default_rng(0).random((4, 5, 6)).astype(np.float32))
    image.SetSpacing([0.5, 0.75, 2.0])
    image.SetOrigin([7.0, -3.0, 100.0])
    image.SetDirection(itk.matrix_from_array(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])))
    path = tmp_path / "head.v2.nii.gz"
    itk.imwrite(image, str(path))
    lps = list(itk.imread(str(path)).TransformIndexToPhysicalPoint([3, 2, 1]))
    rows = save(tmp_path / "out", output(load(path), [[-lps[0], -lps[1], lps[2]]]), names=["tip"])
    assert numbers(rows[0], "pixel_x", "pixel_y", "pixel_z") == pytest.approx([3, 2, 1], abs=1e-4)
    assert numbers(rows[0], "lps_x", "lps_y", "lps_z") == pytest.approx(lps, abs=1e-4)
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert found == ["head.v2.mrk.json", "landmarks.csv", "overlays/head.v2.png", "records/head.v2.json"]


def test_files_of_one_name_never_overwrite_each_other(tmp_path):
    files = [tmp_path / "a" / "film.png", tmp_path / "a" / "film.bmp", tmp_path / "b" / "film.png",
             tmp_path / "c" / "film.png"]  # fmt: skip
    outputs = [output(load(picture(file)), [[-float(i), -2.0]]) for i, file in enumerate(files)]
    rows = save(tmp_path / "out", *outputs, names=["tip"])
    assert [row["image"] for row in rows] == list(map(str, files))
    found = {path.name: positions(path)["tip"][0] for path in (tmp_path / "out").glob("*.mrk.json")}
    assert found == {
        "film.mrk.json": 0, "film.bmp.mrk.json": 1, "film.png.mrk.json": 2, "film.png_2.mrk.json": 3,
    }  # fmt: skip
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 4


def test_names_with_dots_keep_their_parts(tmp_path):
    outputs = [output(load(picture(tmp_path / f"1.2.840.{i}.png")), [[-1.0, -2.0]]) for i in (1, 2)]
    save(tmp_path / "out", *outputs, names=["tip"])
    assert sorted(path.name for path in (tmp_path / "out" / "overlays").iterdir()) == ["1.2.840.1.png", "1.2.840.2.png"]


def test_overlays_may_be_left_out(tmp_path):
    save(tmp_path / "out", output(load(picture(tmp_path / "a.png")), [[-1.0, -2.0]]), names=["tip"], overlays=False)
    assert not (tmp_path / "out" / "overlays").exists()


def test_without_an_image_no_table_is_written(tmp_path, capsys):
    save_all = SaveLandmarks(tmp_path, ["tip"], PredictionDataset([]))
    save_all.start(None)
    save_all.finish(None)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == "0 images: 0 predicted\n"


def test_a_folder_that_cannot_be_written_is_told_before_the_first_image(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give another --output_dir"):
        SaveLandmarks(tmp_path / "file" / "out", ["tip"], PredictionDataset([])).start(None)


def test_a_landmark_below_the_threshold_is_a_row_without_coordinates_and_undefined_in_the_markups(tmp_path):
    rows = save(tmp_path / "out", output(load(picture(tmp_path / "a.png")), [[INF, INF], [NAN, NAN]]))
    for row, confidence in zip(rows, ("0.250", "1.000")):
        assert {row[column] for column in ("pixel_x", "pixel_y", "lps_x", "lps_y", "lps_z")} == {""}
        assert row["confidence"] == confidence
    controls = json.loads((tmp_path / "out" / "a.mrk.json").read_text())["markups"][0]["controlPoints"]
    assert [point["positionStatus"] for point in controls] == ["undefined", "undefined"]
    assert [point["description"] for point in controls] == ["confidence 0.250", "confidence 1.000"]
    assert not any("position" in point for point in controls)
    assert np.isnan(read_landmarks(tmp_path / "out" / "a.mrk.json").points).all()  # nobody said that it is absent
