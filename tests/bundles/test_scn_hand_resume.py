"""Trainings of scn_hand that stop and go on, or are shared by processes, end as they should."""

import json
import random
import signal

import pytest
import torch
from ignite.engine import Events
from monai.utils import set_determinism

EPOCHS = 4
IMPORTS = ["$import math", "$import os", "$import common"]
# The paper's own structure: learnable sigmas, dropout, elastic deformation. Four images, so four iterations an epoch.
SETTINGS = {"iterations": 4 * EPOCHS, "validation_iterations": 4, "learning_rate": 1e-5}


@pytest.fixture(scope="module")
def train(scn_hand):
    """Function that trains into a folder."""
    return lambda output, **others: scn_hand.run("train", output_dir=str(output), **SETTINGS, **others)


@pytest.fixture(scope="module")
def uninterrupted(train, checkpoints, tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    train(output)
    return checkpoints.state_of(output)


@pytest.fixture
def changes(checkpoints, uninterrupted, tmp_path):
    """Function that tells where the state of a training differs from that of the uninterrupted one."""
    return lambda output: checkpoints.differing(uninterrupted, checkpoints.state_of(output))


def test_a_killed_training_ends_as_if_it_had_never_stopped(scn_hand, train, processes, checkpoints, changes, tmp_path):
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
    arguments = scn_hand.arguments("train", overlay, output_dir=tmp_path / "out", **SETTINGS)
    status, stderr = processes.run(processes.python, ["monai.bundle", *arguments])
    assert status == -signal.SIGKILL, stderr[-2000:]
    epochs = checkpoints.state_of(tmp_path / "out")["checkpoint.pt/progress"][0]
    assert 1 <= epochs < EPOCHS, f"killed {delay} s into iteration {moment}"
    train(tmp_path / "out")
    assert changes(tmp_path / "out") == [], f"killed {delay} s into iteration {moment}"


def test_a_training_that_failed_ends_as_if_it_had_not(scn_hand, train, checkpoints, changes, tmp_path):
    workflow = scn_hand.build("train", output_dir=str(tmp_path), **SETTINGS)

    def fail():
        raise RuntimeError("the disk is gone")

    set_determinism(seed=0)  # as the config's `run` does before it builds the network
    workflow.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=10), fail)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        workflow.trainer.run()
    assert checkpoints.state_of(tmp_path)["checkpoint.pt/progress"][0] == 2
    train(tmp_path)
    assert changes(tmp_path) == []


def test_workers_of_the_data_loader_change_no_weight(train, changes, tmp_path):
    train(tmp_path, **{"train::dataloader::num_workers": 2})
    assert changes(tmp_path) == []


def test_another_seed_gives_other_weights(train, changes, tmp_path):
    train(tmp_path, seed=1)
    assert "model.pt/local_appearance.head.weight" in changes(tmp_path)


def test_two_processes_train_one_model(scn_hand, processes, checkpoints, tmp_path):
    parallel = scn_hand.read("multi_gpu_train")
    everything = "{**@network.state_dict(), **@loss_function.state_dict()}"
    lines = [*parallel["run"][:-1], f"$torch.save({everything}, @output_dir + '/rank' + os.environ['RANK'])"]
    overlay = tmp_path / "save_each_rank.json"
    overlay.write_text(json.dumps({"run": [*lines, parallel["run"][-1]]}))
    output = tmp_path / "out"
    values = {"iterations": 4, "validation_iterations": 2, "learning_rate": 1e-5, "device": None}
    arguments = scn_hand.arguments("train", "multi_gpu_train", overlay, output_dir=output, **values)
    launcher = [*processes.torchrun, "-m", "monai.bundle"]
    status, stderr = processes.run(launcher, arguments, CUDA_VISIBLE_DEVICES="")
    assert status == 0, stderr[-3000:]
    assert sorted(path.name for path in output.iterdir()) == [
        *("checkpoint.pt", "model.pt", "rank0", "rank1", "tensorboard"),
    ]
    first, second = (torch.load(output / name, weights_only=True) for name in ("rank0", "rank1"))
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    state = checkpoints.state_of(output)
    assert state["checkpoint.pt/progress"][0] == 2  # each process has half of the four images
    head = "local_appearance.head.weight"
    assert torch.equal(state[f"checkpoint.pt/model/{head}"], first[f"module.{head}"])
    assert torch.equal(state["checkpoint.pt/loss/sigma"], first["module.sigma"])
    assert (first["module.sigma"] != 2.5).all()
