"""Every bundle predicts a file, a folder and a datalist, at small size and by MONAI's command line in this process."""

import json
import shutil

import numpy as np
import pytest

from common.data import read_landmarks

from .files import columns, content, moved, table
from .network_input import network_input


@pytest.fixture
def answer(bundle):
    """What a direct call of the network finds in a test image that comes to it without the configs.

    Landmarks in file voxels, confidences, and spreads in world units where patches vote.
    """
    path = bundle.image("test_001")
    image, matrix = network_input(bundle, path)
    points, confidence, spread = bundle.tiny.output.landmarks(bundle.network, image, bundle.read("inference"))
    dims = points.shape[1]
    volume = np.linalg.det(bundle.tiny.images.affine(path)[:dims, :dims]) * np.linalg.det(matrix[:dims, :dims])
    return moved(matrix, points), confidence, None if spread is None else spread * abs(volume) ** (1 / dims)


def test_a_file_is_predicted_as_by_a_direct_call_of_the_network(bundle, answer):
    points, confidence, _ = answer
    rows = table(bundle.prediction / "landmarks.csv")
    assert [row["name"] for row in rows] == content(bundle.dataset)["landmarks"]
    assert {row["image"] for row in rows} == {str(bundle.image("test_001"))}
    assert np.abs(columns(rows, "pixel", bundle.tiny.images.dims) - points).max() < 0.01
    assert np.allclose([float(row["confidence"]) for row in rows], confidence, atol=1e-3)


def test_the_spread_of_votes_is_told_in_units_of_the_world(bundle, answer):
    spread, rows = answer[2], table(bundle.prediction / "landmarks.csv")
    if spread is None:
        assert "spread" not in rows[0]
        return
    assert np.allclose([float(row["spread"]) for row in rows], spread, atol=1e-3) and spread.min() > 0.1


def test_a_second_prediction_finds_all_done(bundle, capsys):
    files = {path: path.stat().st_mtime_ns for path in bundle.prediction.rglob("*.*") if path.suffix != ".csv"}
    before = (bundle.prediction / "landmarks.csv").read_text()
    bundle.predict(bundle.image("test_001"), bundle.prediction)
    assert "1 images: 1 predicted (1 of them before), " in capsys.readouterr().out
    clinical = bundle.tiny.anatomy in ("skull", "spine")  # with lines and angles in a file of their own
    assert len(files) == (4 if clinical else 3) and all(path.stat().st_mtime_ns == time for path, time in files.items())
    assert (bundle.prediction / "landmarks.csv").read_text() == before


def test_landmarks_below_a_threshold_are_absent(bundle, tmp_path):
    found = table(bundle.prediction / "landmarks.csv")
    confidences = np.array([float(row["confidence"]) for row in found])
    ranked = np.unique(confidences)  # in the table to three places
    widest = np.diff(ranked).argmax()
    threshold = float(ranked[widest : widest + 2].mean())
    sure = [confidence >= threshold for confidence in confidences]
    assert 0 < sum(sure) < len(sure)
    bundle.predict(bundle.image("test_001"), tmp_path, overlays=False, min_confidence=threshold)
    rows = table(tmp_path / "landmarks.csv")
    coordinates = [column for column in rows[0] if column.startswith(("pixel_", "lps_"))]
    for row, before, kept in zip(rows, found, sure):
        assert row == (before if kept else {**before, **dict.fromkeys(coordinates, "")})
    controls = json.loads((tmp_path / "test_001.mrk.json").read_text())["markups"][0]["controlPoints"]
    assert [point["positionStatus"] == "defined" for point in controls] == sure
    assert {point["positionStatus"] for point in controls} == {"defined", "undefined"}
    assert ["position" in point for point in controls] == sure
    assert [point["description"] for point in controls] == [f"confidence {row['confidence']}" for row in rows]


def test_markups_and_table_of_a_folder_say_the_same(bundle, tmp_path):
    folder, images = tmp_path / "images", bundle.tiny.images
    folder.mkdir()
    for stem in ("test_000", "validation_000"):
        shutil.copy(bundle.image(stem), folder)
    bundle.predict(folder, tmp_path / "out")
    markups = sorted((tmp_path / "out").glob("*.mrk.json"))
    assert [path.name for path in markups] == ["test_000.mrk.json", "validation_000.mrk.json"]
    assert len(list((tmp_path / "out" / "overlays").glob("*.png"))) == 2
    rows, names = table(tmp_path / "out" / "landmarks.csv"), content(bundle.dataset)["landmarks"]
    assert len(rows) == 2 * len(names)
    for path, own in zip(markups, (rows[: len(names)], rows[len(names) :])):
        landmarks = read_landmarks(path)
        assert list(landmarks.names) == [row["name"] for row in own] == names
        assert np.allclose(columns(own, "lps", 3), landmarks.points * [-1, -1, 1], atol=1e-3)
        world = moved(images.affine(own[0]["image"]), columns(own, "pixel", images.dims))
        assert np.allclose(world, landmarks.points[:, : images.dims], atol=1e-3)


def test_lists_of_a_datalist_are_predicted_also_with_overlays_of_the_training(bundle, tmp_path):
    bundle.predict(bundle.dataset, tmp_path, "cpu", "quick", prediction_lists=["test", "validation"])
    data = content(bundle.dataset)
    expected = sorted(item["image"] for name in ("test", "validation") for item in data[name])
    found = tmp_path.glob("*.mrk.json")
    assert sorted(f"images/{path.name.split('.')[0]}{bundle.tiny.images.ending}" for path in found) == expected
