"""Every bundle trains, goes on, evaluates and predicts, at small size and by MONAI's command line in this process."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from scipy.ndimage import map_coordinates

from common.data import read_landmarks
from common.handlers import read_checkpoint
from common.transforms import RegisterToTemplate, decode_heatmaps
from common.transforms.template_registration import Template

WORLD_OF_PNG = torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64))


def content(folder):
    return json.loads((folder / "datalist.json").read_text())


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def pixels(rows):
    """File pixels (rows, 2) of a table of predictions."""
    return np.array([[float(row["pixel_x"]), float(row["pixel_y"])] for row in rows])


def test_every_bundle_and_no_other_has_tiny_settings(tiny_bundles, scn_hand):
    assert set(tiny_bundles) == {path.name for path in scn_hand.folder.parent.iterdir() if path.is_dir()}


def test_the_tiny_settings_are_keys_of_the_configs(bundle):
    train, inference = bundle.read("train"), bundle.read("inference")
    assert [key for key in bundle.network_settings if key not in train or key not in inference] == []
    assert [key for key in bundle.tiny.training if key not in train] == []


# ------------------------------------------------------------------------------------------------------- training


def test_the_paper_settings_train_and_go_on_where_they_stopped(bundle, checkpoints, tmp_path):
    """train.json, on images that lack landmarks; whoever stops after an epoch ends with the same bits."""
    stopped, straight = tmp_path / "stopped", tmp_path / "straight"
    settings = {"batch_size": 2, "val_interval": 1}
    workflow = bundle.run("train", output_dir=str(stopped), max_epochs=1, **settings)
    assert workflow.check_properties() == []
    first = checkpoints.state_of(stopped)
    bundle.run("train", output_dir=str(stopped), max_epochs=2, **settings)
    resumed = checkpoints.state_of(stopped)
    bundle.run("train", output_dir=str(straight), max_epochs=2, **settings)
    assert [first["checkpoint.pt/progress"][0], resumed["checkpoint.pt/progress"][0]] == [1, 2]
    assert checkpoints.differing(resumed, checkpoints.state_of(straight)) == []

    trained = [name for name, _ in workflow.network_def.named_parameters()]
    weights = {name: resumed[f"checkpoint.pt/model/{name}"] for name in trained}
    assert [name for name, value in weights.items() if not value.isfinite().all()] == []
    assert [name for name, value in weights.items() if torch.equal(value, first[f"checkpoint.pt/model/{name}"])] == []
    shutil.rmtree(tmp_path)


def test_training_leaves_the_best_weights_a_checkpoint_and_a_log(bundle):
    assert sorted(p.name for p in bundle.trained.iterdir()) == ["checkpoint.pt", "model.pt", "tensorboard"]
    assert list((bundle.trained / "tensorboard").glob("events.out.*"))
    epoch, best_epoch, best_metric = read_checkpoint(bundle.trained / "checkpoint.pt")["progress"].tolist()
    assert epoch == 2 and best_epoch in (1, 2) and 0 < best_metric < 1000


# ------------------------------------------------------------------------------------------------------ evaluation


def test_an_evaluation_counts_every_landmark_once(bundle):
    names, images = content(bundle.dataset)["landmarks"], content(bundle.dataset)["test"]
    counts = bundle.metrics["counts"]
    measured = len(names) * len(images) - 2
    assert counts == {
        **{"images": len(images), "measured": measured, "not_annotated": 1},
        **{"false_detection": 1, "missed": 0, "absent": 0},
    }
    rows = table(bundle.report / "errors.csv")
    assert [row["landmark"] for row in rows] == len(images) * names
    odd = [(row["status"], row["landmark"], row["error"]) for row in rows if row["status"] != "measured"]
    assert odd == [("not annotated", names[7], ""), ("false detection", names[10], "")]


def test_the_summary_is_that_of_the_table(bundle):
    errors = np.array([float(row["error"]) for row in table(bundle.report / "errors.csv") if row["error"]])
    overall = bundle.metrics["overall"]
    assert overall["count"] == len(errors) == bundle.metrics["counts"]["measured"]
    assert overall["mean"] == pytest.approx(errors.mean(), abs=1e-5)
    assert overall["median"] == pytest.approx(np.median(errors), abs=1e-5)
    assert list(overall["sdr"]) == [f"{distance:g}" for distance in bundle.read("evaluate")["sdr_thresholds_mm"]]
    for distance, rate in overall["sdr"].items():
        assert rate == pytest.approx(100 * (errors <= float(distance)).mean())
        assert overall["edr"][distance] == pytest.approx(100 - rate)
    low, high = overall["ci95"]["mean"]
    assert low <= overall["mean"] <= high
    data = content(bundle.dataset)
    assert len(bundle.metrics["per_image"]) == len(data["test"])
    assert list(bundle.metrics["per_landmark"]) == data["landmarks"]


def test_the_protocol_says_what_the_numbers_rest_on(bundle):
    protocol, data = bundle.metrics["protocol"], content(bundle.dataset)
    assert protocol["bundle"] == bundle.name and protocol["phantom"] is True and protocol["unit"] == "mm"
    assert protocol["dataset"] == data["name"] and protocol["list"] == "test" and protocol["weights"] == "model.pt"
    assert protocol["ground_truth"] == data.get("truth", "landmarks of the datalist") + ", not rounded"
    assert protocol["image_size"] == list(bundle.tiny.image_size)
    assert {"hand": "wrist of 50", "spine": "L4 to L5 as 35", "skull": "pixel spacing"}[bundle.tiny.anatomy] in (
        protocol["millimetres"]
    )


def millimetres(bundle, item):
    """Millimetres per pixel of a film: by 50 mm of wrist, by 35 mm from L4 to L5, or by its spacing."""
    points = np.array([x if isinstance(x, list) else [math.nan] * 2 for x in item["landmarks"]])
    if bundle.tiny.anatomy == "hand":
        return 50 / np.linalg.norm(points[1] - points[5])
    if bundle.tiny.anatomy == "spine":
        return 35 / np.linalg.norm(points[60:64].mean(0) - points[64:68].mean(0))
    assert item["spacing"][0] == item["spacing"][1]
    return item["spacing"][0]


def test_errors_are_distances_in_millimetres(bundle):
    data, rows = content(bundle.dataset), table(bundle.report / "errors.csv")
    count = len(data["landmarks"])
    for number, item in enumerate(data["test"]):
        scale = millimetres(bundle, item)
        for row, point in zip(rows[count * number :], item["landmarks"]):
            assert row["image"] == str(bundle.dataset / item["image"]) and row["unit"] == "mm"
            if row["status"] == "measured":
                true = np.array([float(row["true_x"]), float(row["true_y"])])
                predicted = np.array([float(row["predicted_x"]), float(row["predicted_y"])])
                assert np.allclose(-true, point, atol=1e-5)  # a PNG's pixels in RAS
                assert float(row["error"]) == pytest.approx(scale * np.linalg.norm(predicted - true), abs=1e-4)


def test_the_baseline_is_the_mean_shape_of_the_training_images(bundle):
    data = content(bundle.dataset)  # all pictures have one size, so that there are no fractions to take

    def points(item):
        return np.array([x if isinstance(x, list) else [math.nan] * 2 for x in item["landmarks"]])

    mean = np.nanmean([points(item) for item in data["training"]], 0)
    distances = [np.linalg.norm(mean - points(item), axis=1) for item in data["test"]]
    errors = np.stack([d * millimetres(bundle, item) for d, item in zip(distances, data["test"])])
    found = bundle.metrics["mean_shape"]
    assert found["training_images"] == len(data["training"]) and found["unit"] == "mm"
    assert found["radial_error"]["mean"] == pytest.approx(np.nanmean(errors), rel=1e-6)
    assert found["radial_error"]["count"] == np.isfinite(errors).sum()
    with Image.open(bundle.dataset / data["test"][0]["image"]) as film:
        share = 100 * np.nanmean(distances) / film.height
    assert found["percent_of_image_height"] == pytest.approx(share, rel=1e-6)


def test_heads_are_measured_and_compared_with_two_doctors(bundle):
    if bundle.tiny.anatomy != "skull":
        assert "cephalometric" not in bundle.metrics
        return
    everything, once = (bundle.metrics["cephalometric"][key] for key in ("all", "without_duplicates"))
    assert (everything["films"], once["films"]) == (2, 1)
    assert everything["radial_error"]["mean"] == pytest.approx(bundle.metrics["overall"]["mean"])
    assert everything["doctors"]["films"] == 2
    spacing = content(bundle.dataset)["test"][0]["spacing"][0]
    assert everything["doctors"]["to_mean"]["senior"]["mean"] == pytest.approx(spacing)  # a pixel below the truth
    assert everything["doctors"]["difference"]["mean"] == pytest.approx(2 * spacing)
    assert set(everything["success_classification_rate"]) > {"ANB", "SNA", "MW", "mean"}
    assert len(table(bundle.report / "measurements.csv")) == 2 * 8


def test_spines_have_cobb_angles_and_errors_of_the_image(bundle):
    if bundle.tiny.anatomy != "spine":
        assert "spine" not in bundle.metrics
        return
    spine, data = bundle.metrics["spine"], content(bundle.dataset)
    rows = [row for row in table(bundle.report / "errors.csv") if row["status"] == "measured"]
    size = Image.open(bundle.dataset / data["test"][0]["image"]).size
    offset = np.array([[float(row[f"predicted_{a}"]) - float(row[f"true_{a}"]) for a in "xy"] for row in rows])
    assert spine["mean_squared_error"] == pytest.approx(((offset / size) ** 2).mean(), rel=1e-4)
    assert spine["percent_of_image_height"] == pytest.approx(
        100 * np.linalg.norm(offset, axis=1).mean() / size[1], rel=1e-4
    )
    assert (spine["cobb"]["films"], spine["cobb_published"]["films"]) == (1, 2)  # the first truth lacks corners
    assert len(table(bundle.report / "cobb_angles.csv")) == 2


def test_an_evaluation_draws_its_curve_and_an_overlay(bundle):
    with Image.open(bundle.report / "error_curve.png") as curve:
        assert curve.size == (720, 480)
    (overlay,) = (bundle.report / "overlays").iterdir()
    assert overlay.name == "test_000.png"
    with Image.open(overlay) as picture:
        assert picture.mode == "RGB" and max(picture.size) >= 1024


# ------------------------------------------------------------------------------------------------------- inference


def fitted(grey, size):
    """Scaled to fit into a size, with its aspect, and where its first pixel comes to lie."""
    factor = min(limit / n for limit, n in zip(size, grey.shape))
    inner = [round(n * factor) for n in grey.shape]
    return inner, [(limit - n) // 2 for limit, n in zip(size, inner)]


def decoding(config):
    """How inference.json reads points off heatmaps, with the settings that it refers to."""
    (transform,) = config["postprocessing"]["transforms"]
    settings = {key: transform[key] for key in ("method", "threshold") if key in transform}
    return {k: config[v[1:]] if isinstance(v, str) and v.startswith("@") else v for k, v in settings.items()}


def expected(bundle, path):
    """Landmarks in file pixels, and confidences, of a film that is read and brought to the network without configs."""
    grey = np.asarray(Image.open(path)).T.astype(np.float32)
    low, high = bundle.read("metadata")["network_data_format"]["inputs"]["image"]["value_range"]
    size = bundle.tiny.image_size
    if bundle.tiny.fitting == "register":
        template = Template(bundle.network.template, bundle.network.template_window)
        film = MetaTensor(torch.tensor(grey)[None], affine=WORLD_OF_PNG)
        matrix, failure = RegisterToTemplate(*template).register(film, template)
        assert failure == ""
        inner, start = list(size), [0, 0]
        grid = np.stack([*np.meshgrid(*map(np.arange, size), indexing="ij"), np.ones(size)], -1)
        small = torch.tensor(
            map_coordinates(grey, (grid @ matrix.T)[..., :2].transpose(2, 0, 1), order=1, mode="nearest")
        )
    else:
        inner, start = (list(size), [0, 0]) if bundle.tiny.fitting == "stretch" else fitted(grey, size)
        small = torch.nn.functional.interpolate(torch.tensor(grey)[None, None], inner, mode="area")[0, 0]
        factor = [n / m for n, m in zip(grey.shape, inner)]
        matrix = np.array([[factor[0], 0, factor[0] / 2 - 0.5], [0, factor[1], factor[1] / 2 - 0.5], [0, 0, 1]])
    image = torch.full(size, float(low))
    inside = tuple(slice(first, first + n) for first, n in zip(start, inner))
    image[inside] = low + (high - low) * (small - small.min()) / (small.max() - small.min())
    with torch.no_grad():
        heatmaps = bundle.network(image[None, None])
    points, confidence = decode_heatmaps(heatmaps, **decoding(bundle.read("inference")))
    points = points[0].double().numpy() - start
    return np.c_[points, np.ones(len(points))] @ matrix[:2].T, confidence[0].numpy()


def test_a_file_is_predicted_as_by_a_direct_call_of_the_network(bundle, tmp_path):
    path = bundle.dataset / "images" / "test_001.png"
    workflow = bundle.run("inference", dataset_dir=str(path), output_dir=str(tmp_path), ckpt_path=str(bundle.weights))
    assert workflow.check_properties() == []
    points, confidence = expected(bundle, path)
    rows = table(tmp_path / "landmarks.csv")
    assert [row["name"] for row in rows] == content(bundle.dataset)["landmarks"]
    assert {row["image"] for row in rows} == {str(path)}
    assert np.abs(pixels(rows) - points).max() < 0.01
    assert np.allclose([float(row["confidence"]) for row in rows], confidence, atol=1e-3)


def test_markups_and_table_of_a_folder_say_the_same(bundle, tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("test_000", "validation_000"):
        shutil.copy(bundle.dataset / "images" / f"{name}.png", folder)
    bundle.predict(folder, tmp_path / "out")
    markups = sorted((tmp_path / "out").glob("*.mrk.json"))
    assert [path.name for path in markups] == ["test_000.mrk.json", "validation_000.mrk.json"]
    assert len(list((tmp_path / "out" / "overlays").glob("*.png"))) == 2
    rows, names = table(tmp_path / "out" / "landmarks.csv"), content(bundle.dataset)["landmarks"]
    assert len(rows) == 2 * len(names)
    for path, own in zip(markups, (rows[: len(names)], rows[len(names) :])):
        landmarks = read_landmarks(path)
        assert list(landmarks.names) == [row["name"] for row in own] == names
        lps = landmarks.points * [-1, -1, 1]
        assert np.allclose([[float(row[f"lps_{axis}"]) for axis in "xyz"] for row in own], lps, atol=1e-3)
        assert np.allclose(pixels(own), lps[:, :2], atol=1e-3)


def test_lists_of_a_datalist_are_predicted_also_with_overlays_of_the_training(bundle, tmp_path):
    bundle.predict(bundle.dataset, tmp_path, "cpu", "quick", prediction_lists=["test", "validation"])
    data = content(bundle.dataset)
    expected = sorted(item["image"] for name in ("test", "validation") for item in data[name])
    assert sorted(f"images/{path.name.split('.')[0]}.png" for path in tmp_path.glob("*.mrk.json")) == expected
