"""Trainings of scn_hand that stop and go on, or are shared by processes, end as they should."""

import json
import random
import signal
import sys

import pytest
import torch
from ignite.engine import Events
from monai.utils import set_determinism

EPOCHS = 4
IMPORTS = ["$import math", "$import os", "$import common"]
# The paper's own structure: learnable sigmas, dropout, elastic deformation. Four images, so four iterations an epoch.
SETTINGS = {"iterations": 4 * EPOCHS, "validation_iterations": 4, "learning_rate": 1e-5}


def settings(scn_hand, dataset_dir, output_dir, **others):
    return {**SETTINGS, "dataset_dir": str(dataset_dir), "output_dir": str(output_dir), **others}


@pytest.fixture(scope="module")
def uninterrupted(scn_hand, tiny_phantoms, tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    scn_hand.run("train", **settings(scn_hand, tiny_phantoms, output))
    return scn_hand.state_of(output)


def epochs_in(scn_hand, output):
    return int(scn_hand.state_of(output)["checkpoint.pt/progress"][0])


def test_a_killed_training_ends_as_if_it_had_never_stopped(scn_hand, tiny_phantoms, uninterrupted, tmp_path):
    moment, delay = random.Random().randint(5, 10), random.random() / 20  # an iteration of epoch 2 or 3, in seconds
    kill = f"threading.Timer({delay}, os.kill, (os.getpid(), {int(signal.SIGKILL)})).start()"
    event = f"monai.engines.workflow.Events.ITERATION_STARTED(once={moment})"
    lines = [
        "$monai.utils.set_determinism(seed=@seed)",
        f"$@train::trainer.add_event_handler({event}, lambda: {kill})",
        "$@train::trainer.run()",
    ]
    overlay = tmp_path / "kill.json"
    overlay.write_text(json.dumps({"imports": [*IMPORTS, "$import threading"], "run": lines}))
    values = {**scn_hand.settings, **settings(scn_hand, tiny_phantoms, tmp_path / "out")}
    status, stderr = scn_hand.run_command([sys.executable], ["train", overlay], values)
    assert status == -signal.SIGKILL, stderr[-2000:]
    assert 1 <= epochs_in(scn_hand, tmp_path / "out") < EPOCHS, f"killed {delay} s into iteration {moment}"
    scn_hand.run("train", **settings(scn_hand, tiny_phantoms, tmp_path / "out"))
    resumed = scn_hand.state_of(tmp_path / "out")
    assert scn_hand.differing(uninterrupted, resumed) == [], f"killed {delay} s into iteration {moment}"


def test_a_training_that_failed_ends_as_if_it_had_not(scn_hand, tiny_phantoms, uninterrupted, tmp_path):
    values = settings(scn_hand, tiny_phantoms, tmp_path)
    workflow = scn_hand.build("train", **values)

    def fail():
        raise RuntimeError("the disk is gone")

    set_determinism(seed=0)  # as the config's `run` does before it builds the network
    workflow.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=10), fail)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        workflow.trainer.run()
    assert epochs_in(scn_hand, tmp_path) == 2
    scn_hand.run("train", **values)
    assert scn_hand.differing(uninterrupted, scn_hand.state_of(tmp_path)) == []


def test_workers_of_the_data_loader_change_no_weight(scn_hand, tiny_phantoms, uninterrupted, tmp_path):
    values = settings(scn_hand, tiny_phantoms, tmp_path)
    scn_hand.run("train", **values, **{"train::dataloader::num_workers": 2})
    assert scn_hand.differing(uninterrupted, scn_hand.state_of(tmp_path)) == []


def test_another_seed_gives_other_weights(scn_hand, tiny_phantoms, uninterrupted, tmp_path):
    scn_hand.run("train", **settings(scn_hand, tiny_phantoms, tmp_path, seed=1))
    assert "model.pt/local_appearance.head.weight" in scn_hand.differing(uninterrupted, scn_hand.state_of(tmp_path))


def test_two_processes_train_one_model(scn_hand, tiny_phantoms, tmp_path):
    parallel = json.loads((scn_hand.folder / "configs" / "multi_gpu_train.json").read_text())
    everything = "{**@network.state_dict(), **@loss_function.state_dict()}"
    lines = [*parallel["run"][:-1], f"$torch.save({everything}, @output_dir + '/rank' + os.environ['RANK'])"]
    overlay = tmp_path / "save_each_rank.json"
    overlay.write_text(json.dumps({"run": [*lines, parallel["run"][-1]]}))
    output = tmp_path / "out"
    values = {**scn_hand.settings, "dataset_dir": tiny_phantoms, "output_dir": output}
    values |= {"iterations": 4, "validation_iterations": 2, "learning_rate": 1e-5}
    del values["device"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    status, stderr = scn_hand.run_command(
        launcher, ["train", "multi_gpu_train", overlay], values, CUDA_VISIBLE_DEVICES=""
    )
    assert status == 0, stderr[-3000:]
    assert sorted(path.name for path in output.iterdir()) == [
        *("checkpoint.pt", "model.pt", "rank0", "rank1", "tensorboard"),
    ]
    first, second = (torch.load(output / name, weights_only=True) for name in ("rank0", "rank1"))
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    state = scn_hand.state_of(output)
    assert state["checkpoint.pt/progress"][0] == 2  # each process has half of the four images
    head = "local_appearance.head.weight"
    assert torch.equal(state[f"checkpoint.pt/model/{head}"], first[f"module.{head}"])
    assert torch.equal(state["checkpoint.pt/loss/sigma"], first["module.sigma"])
    assert (first["module.sigma"] != 2.5).all()
