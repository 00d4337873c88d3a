"""Settings that bundles of patch regression alone have."""

import shutil

import numpy as np
import pytest

from .conftest import NAMES
from .files import columns, table

PATCHES = [name for name in NAMES if name.startswith("patch_regression")]


@pytest.fixture(params=PATCHES)
def patches(request, tiny_bundles):
    return tiny_bundles[request.param]


def predicted(patches, folder, **overrides):
    """Rows that a prediction of one image writes."""
    patches.predict(patches.image("test_001"), folder, **overrides)
    return table(folder / "landmarks.csv")


def numbers(rows, column):
    return np.array([float(row[column]) for row in rows])


def test_parts_of_an_image_give_the_landmarks_of_the_whole(patches, tmp_path):
    dims = patches.tiny.images.dims
    whole = table(patches.prediction / "landmarks.csv")
    rows = predicted(patches, tmp_path, tile_size=16)
    for column in ("confidence", "spread"):
        assert np.allclose(numbers(rows, column), numbers(whole, column), atol=1e-3)
    assert np.abs(columns(rows, "pixel", dims) - columns(whole, "pixel", dims)).max() < 1e-3


def test_without_refinement_landmarks_are_those_of_the_global_network(patches, tmp_path):
    dims = patches.tiny.images.dims
    rows = predicted(patches, tmp_path, local_refinement=False)
    refined = columns(table(patches.prediction / "landmarks.csv"), "pixel", dims)
    assert np.abs(columns(rows, "pixel", dims) - refined).max() > 0.1


def test_the_local_stage_runs_alone_from_the_weights_of_the_global_one(patches, tmp_path):
    shutil.copy(patches.trained / "model.pt", tmp_path)
    names = ("train", "cpu", "quick", "local_stage")
    patches.command(*names, output_dir=tmp_path, batch_size=2, max_epochs=1, val_interval=1, **{"local::max_epochs": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_local.pt", "model.pt", "tensorboard_local"]
