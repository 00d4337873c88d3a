"""Multi-process training by the command line of every network; scn_hand's stands in test_scn_hand_resume.py."""

import json
import socket

import pytest
import torch

NETWORKS = ["AppearanceContextNet", "FARNet", "HeatmapUNet", "PatchRegressionNet"]
# Commands of MONAI's bundle module one after another in each process of a torchrun: torch is imported once for all.
# Each has a port of its own, since torchrun's store remembers the addresses of the first process group.
DRIVER = """
import json, os, runpy, sys
sys.path[0] = os.getcwd()  # as `python -m` does
os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
with open(sys.argv[1]) as file:
    commands = json.load(file)
for port, arguments in commands:
    os.environ["MASTER_PORT"] = str(port)
    sys.argv = ["monai.bundle", *arguments]
    runpy.run_module("monai.bundle", run_name="__main__")
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def first_of_each_network(tiny_bundles):
    found = {}
    for name in sorted(tiny_bundles):
        found.setdefault(tiny_bundles[name].read("train")["network_def"]["_target_"].split(".")[-1], tiny_bundles[name])
    del found["SpatialConfigurationNet"]
    return found


def saving(stage):
    """A line of `run` by which each process keeps what it has trained in a stage, as it is after every epoch."""
    trainer, epoch = f"@{stage.section}::trainer", "monai.engines.workflow.Events.EPOCH_COMPLETED"
    path = f"@output_dir + '/{stage.section}_rank' + os.environ['RANK']"
    save = f"lambda engine, values=dict(@{stage.network}.named_parameters()), path={path}: torch.save(values, path)"
    return f"${trainer}.add_event_handler({epoch}, {save})"


@pytest.fixture(scope="module")
def launched(tiny_bundles, processes, tmp_path_factory):
    """Output folders of a training in two processes by the name of the network, and what the launcher wrote."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "driver.py").write_text(DRIVER)
    commands = []
    for network, bundle in first_of_each_network(tiny_bundles).items():
        *before, run, after = bundle.read("multi_gpu_train")["run"]
        overlay = folder / f"{network}.json"
        overlay.write_text(json.dumps({"run": [*before, *map(saving, bundle.tiny.output.stages), run, after]}))
        settings = {"output_dir": folder / network, "batch_size": 1, "max_epochs": 2, "val_interval": 2, "device": None}
        commands.append((free_port(), bundle.arguments("train", "multi_gpu_train", overlay, **settings)))
    (folder / "commands.json").write_text(json.dumps(commands))
    arguments = [folder / "driver.py", folder / "commands.json"]
    status, stderr = processes.run(processes.torchrun, arguments, CUDA_VISIBLE_DEVICES="")
    return folder, status, stderr


@pytest.mark.parametrize("network", NETWORKS)
def test_two_processes_train_one_network(launched, tiny_bundles, checkpoints, network):
    folder, status, stderr = launched
    assert status == 0, stderr[-3000:]
    stages = first_of_each_network(tiny_bundles)[network].tiny.output.stages
    of_stage = [(s.checkpoint, f"tensorboard{s.suffix}", f"{s.section}_rank0", f"{s.section}_rank1") for s in stages]
    names = sorted(path.name for path in (folder / network).iterdir())
    assert names == sorted(["model.pt", *(name for files in of_stage for name in files)])
    state = checkpoints.state_of(folder / network)
    for stage, (checkpoint, log, *ranks) in zip(stages, of_stage):
        first, second = (torch.load(folder / network / rank, weights_only=True) for rank in ranks)
        assert [key for key in first if not torch.equal(first[key], second[key])] == []
        assert state[f"{checkpoint}/progress"][0] == 2
        assert len(first) > 10 and all(name.startswith("module.") for name in first)
        saved = {n: state[f"{checkpoint}/model/{stage.weights}{n.removeprefix('module.')}"] for n in first}
        assert [name for name, value in saved.items() if not torch.equal(value, first[name])] == []
        assert len(list((folder / network / log).glob("events.out.*"))) > 0


def test_every_network_of_the_bundles_is_among_them(tiny_bundles):
    assert sorted(first_of_each_network(tiny_bundles)) == NETWORKS
