"""Every bundle trains and goes on, at small size; a training by MONAI's command line leaves what it should."""

import json
import math
import shutil

import pytest
import torch

from common.errors import InputError
from common.handlers import load_initial_weights, read_checkpoint


def test_every_bundle_and_no_other_has_tiny_settings(tiny_bundles, scn_hand):
    assert set(tiny_bundles) == {path.name for path in scn_hand.folder.parent.iterdir() if path.is_dir()}


def test_the_tiny_settings_are_keys_of_the_configs(bundle):
    train, inference = bundle.read("train"), bundle.read("inference")
    assert [key for key in bundle.network_settings if key not in train or key not in inference] == []
    assert [key for key in bundle.tiny.training if key not in train] == []


def test_the_paper_settings_train_and_go_on_where_they_stopped(bundle, checkpoints, tmp_path):
    """train.json, on images that lack landmarks; whoever stops in a stage ends with the same bits."""
    stopped, straight = tmp_path / "stopped", tmp_path / "straight"
    settings = {"batch_size": 2, "val_interval": 1}
    stages, halves = bundle.tiny.output.stages, []
    for interruption in bundle.tiny.output.interruptions:
        workflow = bundle.run("train", output_dir=str(stopped), **settings, **interruption)
        assert workflow.check_properties() == []
        halves.append(checkpoints.state_of(stopped))
    bundle.run("train", output_dir=str(stopped), max_epochs=2, **settings)
    resumed = checkpoints.state_of(stopped)
    bundle.run("train", output_dir=str(straight), max_epochs=2, **settings)
    assert checkpoints.differing(resumed, checkpoints.state_of(straight)) == []

    names = {name for name, _ in workflow.network_def.named_parameters()}
    for stage, half in zip(stages, halves):
        assert [state[f"{stage.checkpoint}/progress"][0] for state in (half, resumed)] == [1, 2]
        trained = [f"{stage.checkpoint}/model/{name}" for name in names if name.startswith(stage.weights)]
        assert [key for key in trained if not resumed[key].isfinite().all()] == []
        assert [key for key in trained if torch.equal(resumed[key], half[key])] == [] != trained
    assert [name for name in names if not any(name.startswith(stage.weights) for stage in stages)] == []
    shutil.rmtree(tmp_path)


def test_a_training_starts_from_given_weights(bundle):
    """Of the same landmarks from all of them, of others from what does not depend on the landmarks."""
    names, settings = bundle.read("train")["landmarks"], {"initial_weights": str(bundle.weights)}
    weights = read_checkpoint(bundle.weights)
    started = bundle.build("train", **settings).parser.get_parsed_content("network").state_dict()
    differing = [key for key in weights if not torch.equal(weights[key], started[key])]
    assert differing == [key for key in weights if key == "local_size"]
    assert [int(started[key]) for key in differing] == [0 for key in differing]  # local networks are off

    references = {"wrist_landmarks": []} if "wrist_landmarks" in bundle.read("train") else {}
    workflow = bundle.build("train", landmarks=names[:-1], **references, **settings)
    started = workflow.parser.get_parsed_content("network").state_dict()
    of_the_run = {key for key in weights if key.startswith("template") or key == "local_size"}
    kept = {key for key in weights if started[key].shape == weights[key].shape} - of_the_run
    assert [key for key in kept if not torch.equal(weights[key], started[key])] == []
    assert len(weights) / 2 < len(kept) < len(weights) - len(of_the_run)
    assert [key for key in of_the_run if key == "template" and not started[key].any()] == []


def test_a_resumed_training_asks_for_no_initial_weights_and_keeps_its_template(bundle, tmp_path):
    shutil.copy(bundle.trained / "checkpoint.pt", tmp_path)
    settings = {"output_dir": str(tmp_path), "initial_weights": str(tmp_path / "gone.pt")}
    started = bundle.build("train", **settings).parser.get_parsed_content("network").state_dict()
    content = read_checkpoint(tmp_path / "checkpoint.pt")["model"]
    templates = [key for key in started if key.startswith("template")]
    assert [key for key in templates if not torch.equal(started[key], content[key])] == []
    with pytest.raises(InputError, match="gone.pt: there is no such file"):
        network = bundle.build("train", resume=False, **settings).parser.get_parsed_content("network_def")
        load_initial_weights(network, settings["initial_weights"])


def test_the_settings_of_shipped_weights_train_and_are_evaluated(bundle, tmp_path):
    """One epoch with slim.json, on images so large that its blocks are as many as pixels elsewhere."""
    if not (bundle.folder / "configs" / "slim.json").is_file():
        pytest.skip("no slim.json")
    stride = bundle.read("slim").get("stride", 1)
    sizes = {"image_size": [stride * size for size in bundle.tiny.size["image_size"]]}
    settings = {**sizes, "output_dir": str(tmp_path), "max_epochs": 2, "val_interval": 1}
    bundle.run("train", "slim", **settings)
    state = read_checkpoint(tmp_path / "model.pt")
    assert [key for key, value in state.items() if not value.isfinite().all()] == []
    bundle.run("train", "slim", "evaluate", **settings, evaluation_dir=str(tmp_path / "evaluation"), max_overlays=0)
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["overall"]["count"] > 0 and math.isfinite(metrics["overall"]["mean"])
    shutil.rmtree(tmp_path)


def test_training_leaves_the_best_weights_and_of_each_stage_a_checkpoint_and_a_log(bundle):
    stages = bundle.tiny.output.stages
    files = ["model.pt", *(name for s in stages for name in (s.checkpoint, f"tensorboard{s.suffix}"))]
    assert sorted(p.name for p in bundle.trained.iterdir()) == sorted(files)
    for stage in stages:
        assert list((bundle.trained / f"tensorboard{stage.suffix}").glob("events.out.*"))
        epoch, best_epoch, best_metric = read_checkpoint(bundle.trained / stage.checkpoint)["progress"].tolist()
        assert epoch == (2 if stage is stages[0] else trained_local_epochs(bundle)) and 0 < best_metric < 1000
        assert (1 if stage is stages[0] else 0) <= best_epoch <= epoch  # 0: the first stage was better


def trained_local_epochs(bundle):
    """Epochs of the local stage beside two of the global one, by quick.json."""
    quick = bundle.read("quick")
    return math.ceil(2 * quick["local_iterations"] / quick["iterations"])
