"""The template of dacn_cephalometric: made by training, kept with the weights, and no change of coordinates."""

import csv
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from common.handlers import read_checkpoint
from common.transforms import draw_heatmaps


@pytest.fixture(scope="module")
def dacn(tiny_bundles):
    return tiny_bundles["dacn_cephalometric"]


@pytest.fixture(scope="module")
def first(dacn):
    """The first training film: its path, its size, and its landmarks in file pixels."""
    item = json.loads((dacn.dataset / "datalist.json").read_text())["training"][0]
    path = dacn.dataset / item["image"]
    points = np.array([p if isinstance(p, list) else [np.nan] * 2 for p in item["landmarks"]])
    return path, np.array(Image.open(path).size), points


@pytest.fixture(scope="module")
def landmarks_in_template(dacn, first):
    """Where the landmarks of the first film lie in the template, in its pixels: the window tells."""
    _, size, points = first
    low, high = read_checkpoint(dacn.weights)["template_window"].numpy().reshape(2, 2) * size
    places = (points + 0.5 - low) / (high - low) * dacn.tiny.size["image_size"] - 0.5
    return np.nan_to_num(places, nan=50.0)


def test_training_makes_a_template_that_shows_all_landmarks_of_the_first_film(dacn, first):
    _, size, points = first
    state = read_checkpoint(dacn.trained / "model.pt")
    low, high = state["template_window"].numpy().reshape(2, 2) * size
    lowest, highest = np.nanmin(points, 0), np.nanmax(points, 0)
    margin = dacn.read("train")["template_margin"] * (highest - lowest).max()
    assert (low <= lowest + 0.5 - margin + 1e-6).all() and (high >= highest + 0.5 + margin - 1e-6).all()
    template = state["template"]
    assert template.shape == (1, *dacn.tiny.size["image_size"]) and template.std() > 0.1


def test_the_template_travels_with_the_weights_into_checkpoint_and_network(dacn):
    state = read_checkpoint(dacn.trained / "model.pt")
    checkpoint = read_checkpoint(dacn.trained / "checkpoint.pt")["model"]
    for key in ("template", "template_window"):
        assert torch.equal(state[key], checkpoint[key])
        assert torch.equal(state[key], getattr(dacn.network, key))


@pytest.mark.parametrize("dataset", ["train::dataset", "validate::dataset"])
def test_whoever_asks_for_the_data_first_gets_films_that_are_registered(dacn, tmp_path, dataset):
    data = dacn.build("train", output_dir=str(tmp_path)).parser.get_parsed_content(dataset)
    images = [data[i]["image"] for i in range(len(data))]
    assert all(image.meta["registered"] for image in images)
    assert all(image.shape == (1, *dacn.tiny.size["image_size"]) and image.std() > 0.1 for image in images)


def predictions(dacn, path, output, places):
    """File pixels that are predicted of a film by a network that sees landmarks at given places of the template."""
    workflow = dacn.build("inference", dataset_dir=str(path), output_dir=str(output), ckpt_path=str(dacn.weights))
    heatmaps = draw_heatmaps(torch.tensor(places)[None].float(), dacn.tiny.size["image_size"], sigma=2.0)
    workflow.network_def.forward = lambda image: heatmaps
    workflow.run()
    with open(output / "landmarks.csv", newline="") as file:
        return np.array([[float(row["pixel_x"]), float(row["pixel_y"])] for row in csv.DictReader(file)])


def test_landmarks_found_in_the_template_come_back_to_their_places_in_the_file(
    dacn, first, landmarks_in_template, caplog, tmp_path
):
    path, _, points = first
    with caplog.at_level(logging.WARNING):
        found = predictions(dacn, path, tmp_path, landmarks_in_template)
    assert "could not be registered" not in caplog.text
    distances = np.linalg.norm(found - points, axis=1)
    assert np.isfinite(distances).sum() == 17 and np.nanmax(distances) < 1.0


@pytest.mark.parametrize("shift", [(9, -6), (-5, 4)])
def test_predictions_of_a_shifted_film_are_shifted(dacn, first, landmarks_in_template, tmp_path, shift):
    path, size, _ = first
    grey = np.asarray(Image.open(path)).T
    x, y = (np.clip(np.arange(n) - s, 0, n - 1) for n, s in zip(size, shift))
    Image.fromarray(np.ascontiguousarray(grey[np.ix_(x, y)].T)).save(tmp_path / "shifted.png")
    still = predictions(dacn, path, tmp_path / "still", landmarks_in_template)
    moved = predictions(dacn, tmp_path / "shifted.png", tmp_path / "moved", landmarks_in_template)
    assert np.abs(moved - still - shift).max() < 0.7
