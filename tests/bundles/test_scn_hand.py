"""scn_hand from images to a report and to landmark files, each in the smallest run that shows it."""

import csv
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.data import WRIST_LANDMARKS, read_landmarks
from common.data.hand_atlas import import_hand_atlas
from common.handlers import load_weights, read_checkpoint
from common.networks import SpatialConfigurationNet
from common.transforms import decode_heatmaps


def datalist(folder):
    return json.loads((Path(folder) / "datalist.json").read_text())


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def tiny_network(settings, weights):
    """The network of the tiny settings, built without any config."""
    network = SpatialConfigurationNet(
        spatial_dims=2,
        in_channels=1,
        num_landmarks=37,
        num_filters=settings["num_filters"],
        num_levels=settings["num_levels"],
        spatial_filters=settings["spatial_filters"],
        spatial_kernel_size=settings["spatial_kernel_size"],
        downsampling=settings["spatial_downsampling"],
    )
    load_weights(network, weights)
    return network.eval()


@pytest.fixture(scope="module")
def paper_run(scn_hand, gaps, tmp_path_factory):
    """train.json alone: the optimiser, loss and augmentation of the paper, on data with gaps."""
    output = tmp_path_factory.mktemp("paper")
    settings = {"iterations": 8, "validation_iterations": 4, "learning_rate": 1e-5}
    return scn_hand.run("train", dataset_dir=str(gaps), output_dir=str(output), **settings), output


def test_the_paper_trains_by_nesterov_sgd_with_decay_on_kernels_alone(paper_run):
    optimizer = paper_run[0].parser.get_parsed_content("optimizer")
    assert type(optimizer) is torch.optim.SGD
    assert all(group["momentum"] == 0.99 and group["nesterov"] for group in optimizer.param_groups)
    kernels, others = optimizer.param_groups
    assert kernels["weight_decay"] == 0.001 and others["weight_decay"] == 0
    assert all(p.ndim == 4 for p in kernels["params"]) and all(p.ndim == 1 for p in others["params"])
    assert any(p is paper_run[0].parser.get_parsed_content("loss").sigma for p in others["params"])


def test_the_sigmas_are_learned_and_the_expected_peak_follows_them(paper_run):
    state = read_checkpoint(paper_run[1] / "checkpoint.pt")
    sigma = state["loss"]["sigma"]
    assert sigma.shape == (37,) and (sigma != 2.5).all() and len(sigma.unique()) > 1
    expected = 100 / (2 * math.pi * sigma.double() ** 2)  # the height of a 2D Gaussian of integral 100
    assert torch.allclose(state["model"]["unit_peak.expected_peak"].double(), expected, rtol=1e-6)


def test_training_survives_landmarks_without_coordinates(paper_run):
    state = read_checkpoint(paper_run[1] / "checkpoint.pt")
    assert all(value.isfinite().all() for part in ("model", "loss") for value in state[part].values())


def test_training_leaves_the_best_weights_a_log_and_no_rubbish(paper_run):
    output = paper_run[1]
    assert sorted(path.name for path in output.iterdir()) == ["checkpoint.pt", "model.pt", "tensorboard"]
    assert list((output / "tensorboard").glob("events.out.*"))
    epoch, best_epoch, best_metric = read_checkpoint(output / "checkpoint.pt")["progress"].tolist()
    assert epoch == 2 and best_epoch in (1, 2) and 0 < best_metric < 1000


@pytest.fixture(scope="module")
def report(scn_hand, gaps, trained, tmp_path_factory):
    """Folder of an evaluation on the test list, where one landmark is not annotated and one absent."""
    output = tmp_path_factory.mktemp("evaluation")
    settings = {"dataset_dir": str(gaps), "output_dir": str(trained), "evaluation_dir": str(output), "max_overlays": 2}
    scn_hand.run("train", "cpu", "quick", "evaluate", **settings)
    return output


def test_an_evaluation_counts_every_landmark_once(report, gaps):
    metrics = json.loads((report / "metrics.json").read_text())
    expected = {"images": 3, "measured": 109, "missed": 0, "false_detection": 1, "absent": 0, "not_annotated": 1}
    assert metrics["counts"] == expected
    assert metrics["overall"]["count"] == 109
    rows = table(report / "errors.csv")
    assert len(rows) == 3 * 37
    odd = [(row["status"], row["landmark"], row["error"]) for row in rows if row["status"] != "measured"]
    names = datalist(gaps)["landmarks"]
    assert odd == [("not annotated", names[7], ""), ("false detection", names[20], "")]


def test_the_errors_are_distances_in_wrist_widths_of_50_mm(report, gaps):
    content = datalist(gaps)
    rows = table(report / "errors.csv")
    for number, item in enumerate(content["test"]):
        own = rows[37 * number : 37 * (number + 1)]
        assert own[0]["image"] == str(gaps / item["image"]) and {row["unit"] for row in own} == {"mm"}
        first, second = (np.array(item["landmarks"][i]) for i in (1, 5))
        scale = 50 / np.linalg.norm(first - second)
        for row, point in zip(own, item["landmarks"]):
            if row["status"] == "measured":
                true = np.array([float(row["true_x"]), float(row["true_y"])])
                predicted = np.array([float(row["predicted_x"]), float(row["predicted_y"])])
                assert np.allclose(-true, point, atol=1e-5)  # a PNG's pixels in RAS
                assert float(row["error"]) == pytest.approx(scale * np.linalg.norm(predicted - true), abs=1e-4)


def test_the_summary_is_that_of_the_table(report):
    metrics = json.loads((report / "metrics.json").read_text())
    rows = [row for row in table(report / "errors.csv") if row["error"]]
    errors = np.array([float(row["error"]) for row in rows])
    assert metrics["overall"]["mean"] == pytest.approx(errors.mean(), abs=1e-5)
    assert metrics["overall"]["median"] == pytest.approx(np.median(errors), abs=1e-5)
    assert list(metrics["overall"]["sdr"]) == ["2", "4", "10"]
    for distance, rate in metrics["overall"]["sdr"].items():
        assert rate == pytest.approx(100 * (errors <= float(distance)).mean())
        assert metrics["overall"]["edr"][distance] == pytest.approx(100 - rate)
    low, high = metrics["overall"]["ci95"]["mean"]
    assert low <= metrics["overall"]["mean"] <= high
    assert len(metrics["per_image"]) == 3 and len(metrics["per_landmark"]) == 37


def test_the_protocol_says_what_the_numbers_rest_on(report, gaps):
    protocol = json.loads((report / "metrics.json").read_text())["protocol"]
    assert protocol["bundle"] == "scn_hand" and protocol["phantom"] is True and protocol["unit"] == "mm"
    assert protocol["dataset"] == datalist(gaps)["name"] and protocol["list"] == "test"
    assert str(list(WRIST_LANDMARKS)) in protocol["millimetres"] and "50" in protocol["millimetres"]


def test_an_evaluation_draws_its_curve_and_overlays(report):
    with Image.open(report / "error_curve.png") as curve:
        assert curve.size == (720, 480)
    overlays = sorted((report / "overlays").iterdir())
    assert [path.name for path in overlays] == ["test_000.png", "test_001.png"]
    with Image.open(overlays[0]) as picture:
        assert picture.mode == "RGB" and max(picture.size) >= 1024


def predict(scn_hand, dataset_dir, weights, output, overlays=(), **overrides):
    settings = {"dataset_dir": str(dataset_dir), "output_dir": str(output), "ckpt_path": str(weights), **overrides}
    return scn_hand.run("inference", *overlays, workflow_type="infer", **settings)


def expected_pixels(settings, weights, path):
    """Landmarks in file pixels without any config: resized to 64 on the longer side, centred on -1."""
    grey = torch.as_tensor(np.asarray(Image.open(path)).T.copy()).float()
    size = [round(64 * n / max(grey.shape)) for n in grey.shape]
    small = torch.nn.functional.interpolate(grey[None, None], size, mode="area")[0, 0]
    small = 2 * (small - small.min()) / (small.max() - small.min()) - 1
    image = torch.full((64, 64), -1.0)
    start = [(64 - n) // 2 for n in size]
    image[start[0] : start[0] + size[0], start[1] : start[1] + size[1]] = small
    with torch.no_grad():
        heatmaps = tiny_network(settings, weights)(image[None, None])
    points, confidence = decode_heatmaps(heatmaps, "parabola")
    factor = torch.tensor([n / m for n, m in zip(grey.shape, size)])
    return ((points[0].double() - torch.tensor(start) + 0.5) * factor - 0.5).numpy(), confidence[0].numpy()


def test_a_file_is_predicted_as_by_a_direct_call_of_the_network(scn_hand, tiny_phantoms, trained, tmp_path):
    path = tiny_phantoms / "images" / "test_001.png"
    predict(scn_hand, path, trained / "model.pt", tmp_path)
    pixels, confidence = expected_pixels(scn_hand.settings, trained / "model.pt", path)
    rows = table(tmp_path / "landmarks.csv")
    assert {row["image"] for row in rows} == {str(path)}
    assert np.allclose([[float(row["pixel_x"]), float(row["pixel_y"])] for row in rows], pixels, atol=2e-3)
    assert np.allclose([float(row["confidence"]) for row in rows], confidence, atol=1e-3)


def test_markups_and_table_of_a_folder_say_the_same(scn_hand, tiny_phantoms, trained, tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("test_000", "validation_001"):
        shutil.copy(tiny_phantoms / "images" / f"{name}.png", folder)
    predict(scn_hand, folder, trained / "model.pt", tmp_path / "out")
    markups = sorted((tmp_path / "out").glob("*.mrk.json"))
    assert [path.name for path in markups] == ["test_000.mrk.json", "validation_001.mrk.json"]
    assert len(list((tmp_path / "out" / "overlays").glob("*.png"))) == 2
    rows = table(tmp_path / "out" / "landmarks.csv")
    for path, own in zip(markups, (rows[:37], rows[37:])):
        landmarks = read_landmarks(path)
        assert list(landmarks.names) == [row["name"] for row in own] == datalist(tiny_phantoms)["landmarks"]
        lps = landmarks.points * [-1, -1, 1]
        assert np.allclose([[float(row[f"lps_{axis}"]) for axis in "xyz"] for row in own], lps, atol=1e-3)
        assert np.allclose([[float(row[f"pixel_{axis}"]) for axis in "xy"] for row in own], lps[:, :2], atol=1e-3)


def test_lists_of_a_datalist_are_predicted_also_with_overlays_of_the_training(
    scn_hand, tiny_phantoms, trained, tmp_path
):
    lists = ["test", "validation"]
    predict(scn_hand, tiny_phantoms, trained / "model.pt", tmp_path, ["cpu", "quick"], prediction_lists=lists)
    expected = ["test_000", "test_001", "test_002", "validation_000", "validation_001"]
    assert sorted(path.name.split(".")[0] for path in tmp_path.glob("*.mrk.json")) == expected


def test_a_truncated_file_is_named_and_the_others_are_done(scn_hand, tiny_phantoms, trained, tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("test_000.png", "test_001.png", "test_002.png"):
        shutil.copy(tiny_phantoms / "images" / name, folder)
    broken = folder / "test_001.png"
    broken.write_bytes(broken.read_bytes()[:2000])
    settings = {**scn_hand.settings, "dataset_dir": folder, "output_dir": tmp_path / "out"}
    settings["ckpt_path"] = trained / "model.pt"
    status, stderr = scn_hand.run_command([sys.executable], ["inference"], settings)
    assert status == 1
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("error: 1 of 3 images") and str(broken) in last
    assert "Traceback" not in stderr
    stems = ["test_000", "test_002"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mrk.json")) == [f"{s}.mrk.json" for s in stems]
    assert sorted({Path(row["image"]).stem for row in table(tmp_path / "out" / "landmarks.csv")}) == stems


def test_monai_finds_every_property_of_training_and_inference(scn_hand, tiny_phantoms, trained, tmp_path):
    settings = {"dataset_dir": str(tiny_phantoms), "output_dir": str(tmp_path)}
    assert scn_hand.build("train", **settings).check_properties() == []
    settings |= {"ckpt_path": str(trained / "model.pt")}
    assert scn_hand.build("inference", workflow_type="infer", **settings).check_properties() == []
    assert not (tmp_path / "checkpoint.pt").exists()


def test_the_localisation_u_net_trains_with_the_settings_for_a_cpu(scn_hand, tiny_phantoms, tmp_path):
    # one epoch is too short for a validation; its weights are kept all the same
    settings = {"dataset_dir": str(tiny_phantoms), "output_dir": str(tmp_path), "iterations": 1}
    workflow = scn_hand.run("train", "cpu", "localization_unet", **settings, **scn_hand.network_settings)
    assert type(workflow.network_def).__name__ == "LocalizationUNet"
    assert type(workflow.parser.get_parsed_content("optimizer")) is torch.optim.Adam
    assert "local_appearance.head.weight" in read_checkpoint(tmp_path / "model.pt")


def test_real_hands_are_trained_on_and_evaluated_in_millimetres(scn_hand, real_hands, tmp_path):
    counts = import_hand_atlas(str(real_hands), str(tmp_path / "atlas"), fold=1)
    assert counts["training"] > 50 and counts["test"] > 10
    content = datalist(tmp_path / "atlas")
    for name in ("training", "validation", "test"):
        content[name] = content[name][:2]
    (tmp_path / "atlas" / "datalist.json").write_text(json.dumps(content))
    settings = {"dataset_dir": str(tmp_path / "atlas"), "output_dir": str(tmp_path / "out")}
    scn_hand.run("train", "cpu", **settings, iterations=2)
    scn_hand.run("train", "cpu", "evaluate", **settings)
    (folder,) = (tmp_path / "out").glob("evaluation*")
    metrics = json.loads((folder / "metrics.json").read_text())
    annotated = sum(point is not None for item in content["test"] for point in item["landmarks"])
    assert metrics["counts"]["measured"] == annotated == metrics["overall"]["count"] == 74
    assert metrics["protocol"]["phantom"] is False and metrics["protocol"]["unit"] == "mm"
    assert "wrist" in metrics["protocol"]["millimetres"] and str([1, 5]) in metrics["protocol"]["millimetres"]
    # a hand is no longer than four wrist widths, and an untrained network guesses within the film
    assert 0 < metrics["overall"]["mean"] < metrics["overall"]["max"] < 500
