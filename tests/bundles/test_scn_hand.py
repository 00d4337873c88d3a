"""What scn_hand alone does: its paper's optimiser and learned sigmas, its second network, real hands, a broken file."""

import csv
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from common.data.hand_atlas import import_hand_atlas
from common.handlers import read_checkpoint


@pytest.fixture(scope="module")
def paper_run(scn_hand, tmp_path_factory):
    """train.json alone: the optimiser, loss and augmentation of the paper, on data with gaps."""
    output = tmp_path_factory.mktemp("paper")
    settings = {"iterations": 8, "validation_iterations": 4, "learning_rate": 1e-5}
    return scn_hand.run("train", output_dir=str(output), **settings), output


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


def test_iterations_and_validations_are_rounded_up_to_epochs(paper_run):
    epoch, best_epoch, _ = read_checkpoint(paper_run[1] / "checkpoint.pt")["progress"].tolist()
    assert epoch == 2 and best_epoch in (1, 2)  # four images a piece


def test_a_truncated_file_is_named_and_the_others_are_done(scn_hand, processes, tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("test_000.png", "test_001.png", "test_002.png"):
        shutil.copy(scn_hand.dataset / "images" / name, folder)
    broken = folder / "test_001.png"
    broken.write_bytes(broken.read_bytes()[:2000])
    settings = {"dataset_dir": folder, "output_dir": tmp_path / "out", "ckpt_path": scn_hand.weights}
    arguments = scn_hand.arguments("inference", **settings)
    status, stderr = processes.run(processes.python, ["monai.bundle", *arguments])
    assert status == 1
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("error: 1 of 3 images") and str(broken) in last
    assert "Traceback" not in stderr
    stems = ["test_000", "test_002"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mrk.json")) == [f"{s}.mrk.json" for s in stems]
    with open(tmp_path / "out" / "landmarks.csv", newline="") as file:
        assert sorted({Path(row["image"]).stem for row in csv.DictReader(file)}) == stems


def test_the_localisation_u_net_trains_with_the_settings_for_a_cpu(scn_hand, tmp_path):
    # one epoch is too short for a validation; its weights are kept all the same
    settings = {"output_dir": str(tmp_path), "iterations": 1}
    workflow = scn_hand.run("train", "cpu", "localization_unet", **settings)
    assert type(workflow.network_def).__name__ == "LocalizationUNet"
    assert type(workflow.parser.get_parsed_content("optimizer")) is torch.optim.Adam
    assert "local_appearance.head.weight" in read_checkpoint(tmp_path / "model.pt")


def test_real_hands_are_trained_on_and_evaluated_in_millimetres(scn_hand, real_hands, tmp_path):
    counts = import_hand_atlas(str(real_hands), str(tmp_path / "atlas"), fold=1)
    assert counts["training"] > 50 and counts["test"] > 10
    content = json.loads((tmp_path / "atlas" / "datalist.json").read_text())
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
