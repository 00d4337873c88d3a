"""One command trains and evaluates two networks at several sizes, and goes on where it was."""

import csv

import pytest

from common.bundle.learning_curve import learning_curve
from common.data import load_datalist
from common.errors import InputError

TINY = {
    "image_size": [32, 32],
    "num_filters": 4,
    "spatial_filters": 4,
    "spatial_kernel_size": 3,
    "iterations": 4,
    "device": "cpu",
    "max_overlays": 0,
}


def test_every_network_is_trained_with_every_number_of_images(tiny_phantoms, tmp_path):
    settings = {"sizes": [2, "all"], "overlays": ["cpu", "quick"], **TINY, "batch_size": 2}
    rows = learning_curve("bundles/scn_hand", str(tiny_phantoms), str(tmp_path), **settings)
    assert [(r["network"], r["training_images"]) for r in rows] == [
        ("scn_hand", 2), ("localization_unet", 2), ("scn_hand", 4), ("localization_unet", 4),
    ]  # fmt: skip
    assert all(row["count"] == 3 * 37 and row["mean"] > 0 for row in rows)
    written = list(csv.DictReader((tmp_path / "learning_curve.csv").open()))
    assert [float(row["mean"]) for row in written] == [row["mean"] for row in rows]
    assert (tmp_path / "learning_curve.png").stat().st_size > 0
    again = learning_curve("bundles/scn_hand", str(tiny_phantoms), str(tmp_path), **settings)
    assert again == rows  # resumed runs are complete


def test_one_size_network_and_overlay_need_no_list(tiny_phantoms, tmp_path):
    with pytest.raises(InputError, match="--sizes 5: .* of the 4 in the training list"):
        learning_curve("bundles/scn_hand", str(tiny_phantoms), str(tmp_path), sizes=5, networks="", overlays="cpu")


def test_more_images_than_there_are_is_refused(tiny_phantoms, tmp_path):
    with pytest.raises(InputError, match="--sizes 500: .* of the 4 in the training list"):
        learning_curve("bundles/scn_hand", str(tiny_phantoms), str(tmp_path), sizes=[500])


def test_an_unknown_overlay_is_refused(tiny_phantoms, tmp_path):
    with pytest.raises(InputError, match="gpu.json: there is no such overlay"):
        learning_curve("bundles/scn_hand", str(tiny_phantoms), str(tmp_path), overlays=["gpu"])


def test_a_misspelt_setting_is_refused(tiny_phantoms, tmp_path):
    with pytest.raises(InputError, match="--iteration: is no setting of .*; did you mean --iterations?"):
        learning_curve("bundles/scn_hand", str(tiny_phantoms), str(tmp_path), sizes=[2], iteration=4)
    assert not list(tmp_path.iterdir())


def test_the_list_that_is_trained_on_is_counted(tiny_phantoms, tmp_path):
    validation = len(load_datalist(tiny_phantoms, "validation"))
    with pytest.raises(InputError, match=f"--sizes 500: .* of the {validation} in the training list"):
        learning_curve("bundles/scn_hand", str(tiny_phantoms), str(tmp_path), sizes=[500], training_list="validation")
