"""The mean shape of a data set in a bundle's inference.json."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from common.bundle.location import bundle_folder
from common.bundle.mean_shape import measure_mean_shape, show_plausibility
from common.data.landmark_tables import landmark_table, write_landmark_table
from common.errors import InputError
from common.transforms import Plausibilityd, shape_distance

NAMES = ["a", "b", "c", "d"]
KITE = np.array([[10.0, 30], [30, 10], [50, 30], [30, 80]])


@pytest.fixture
def bundle(tmp_path):
    folder = shutil.copytree(
        bundle_folder("scn_hand"), tmp_path / "scn_kite", ignore=shutil.ignore_patterns("output", "models")
    )
    path = folder / "configs" / "inference.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "landmarks": NAMES}))
    return folder


@pytest.fixture
def kites(tmp_path):
    """A wide one, a slim one, one without its last point, and a square in another list."""
    shapes = {"wide": KITE * [1.2, 1], "slim": KITE / [1.2, 1], "gap": KITE, "square": KITE * [1, 0.571]}
    items = []
    for name, shape in shapes.items():
        Image.fromarray(np.zeros((100, 80), np.uint8)).save(tmp_path / f"{name}.png")
        points = shape.tolist()
        items.append({"image": f"{name}.png", "landmarks": [*points[:3], None] if name == "gap" else points})
    content = {"name": "kites", "landmarks": NAMES, "training": items[:3], "test": items[3:]}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    return tmp_path


def write_prediction(path, images):
    tables = [
        landmark_table(image, NAMES[: len(shape)], shape, np.pad(shape, ((0, 0), (0, 1))), [confidence] * len(shape))
        for image, (shape, confidence) in images.items()
    ]
    write_landmark_table(path, tables)


def test_the_mean_shape_of_a_list_is_written_and_distances_are_told(bundle, kites, capsys):
    measure_mean_shape(str(bundle), str(kites))
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    mean = np.array(config["plausibility"]["mean_shape"])
    assert mean.shape == (4, 2) and shape_distance(mean, KITE) < 0.01 < shape_distance(KITE * [1.2, 1], KITE)
    assert config["max_shape_distance"] == 0.25  # for its owner to set
    out = capsys.readouterr().out
    assert "mean shape of 2 images; of all 3 the distances from it are" in out and "inference.json" in out
    largest = max(shape_distance(KITE * [wide, 1], mean) for wide in (1.2, 1 / 1.2))
    assert float(re.search(r"100 %: ([0-9.]+)", out)[1]) == pytest.approx(largest, abs=1e-3)
    Plausibilityd("pred", mean_shape=config["plausibility"]["mean_shape"])


def test_other_lists_may_be_taken(bundle, kites):
    measure_mean_shape(str(bundle), str(kites), lists=["test"])
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    assert shape_distance(np.array(config["plausibility"]["mean_shape"]), KITE * [1, 0.571]) < 1e-3


def test_what_cannot_be_measured_is_refused(bundle, kites):
    path = kites / "datalist.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "training": content["training"][2:]}))
    with pytest.raises(InputError, match="no image of training has all 4 landmarks"):
        measure_mean_shape(str(bundle), str(kites))
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    del config["plausibility"]
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="has no plausibility"):
        measure_mean_shape(str(bundle), str(kites))


def test_confidence_and_shape_of_predictions_are_shown_beside_each_other(bundle, kites, tmp_path, capsys):
    with pytest.raises(InputError, match="has not the 37 landmarks|is no landmarks.csv"):
        show_plausibility(str(bundle), str(tmp_path / "none.csv"))
    measure_mean_shape(str(bundle), str(kites))
    capsys.readouterr()
    right, wrong = tmp_path / "right.csv", tmp_path / "wrong.csv"
    for table, shape, confidences in ((right, KITE, (0.9, 0.7)), (wrong, KITE[[2, 0, 3, 1]], (0.2, 0.3))):
        write_prediction(table, {f"{i}.png": (shape, each) for i, each in enumerate(confidences)})
    show_plausibility(str(bundle), str(right), str(wrong))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{right}: 2 images, mean confidence 0.70 to 0.90, shape 0.00 to 0.00 from the mean"
    assert re.search("mean confidence 0.20 to 0.30, shape 0.[3-9]", lines[1])
    flat = np.c_[KITE[:, 0], np.zeros(4), -KITE[:, 1]]  # a coronal film of pixels of 1 x 0.5
    write_landmark_table(right, [landmark_table("a.nii", NAMES, KITE * [1, 2], flat, [0.5] * 4)])
    show_plausibility(str(bundle), str(right))
    assert "shape 0.00 to 0.00 from the mean" in capsys.readouterr().out
    write_prediction(right, {"a.png": (KITE * np.nan, 0.5)})
    show_plausibility(str(bundle), str(right))
    assert capsys.readouterr().out == f"{right}: 1 images, mean confidence 0.50 to 0.50, 1 without a shape\n"
    with pytest.raises(InputError, match="give one landmarks.csv"):
        show_plausibility(str(bundle))
    write_prediction(right, {"a.png": (KITE[:1], 0.5)})
    with pytest.raises(InputError, match="has not the 4 landmarks"):
        show_plausibility(str(bundle), str(right))
