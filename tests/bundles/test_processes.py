"""Multi-process training by the command line of every network; scn_hand's stands in test_scn_hand_resume.py."""

import json
import socket

import pytest
import torch

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


@pytest.fixture(scope="module")
def launched(tiny_bundles, processes, tmp_path_factory):
    """Output folders of a training in two processes by the name of the network, and what the launcher wrote."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "driver.py").write_text(DRIVER)
    commands = []
    for network, bundle in first_of_each_network(tiny_bundles).items():
        lines = bundle.read("multi_gpu_train")["run"]
        save = "$torch.save(dict(@network.named_parameters()), @output_dir + '/rank' + os.environ['RANK'])"
        overlay = folder / f"{network}.json"
        overlay.write_text(json.dumps({"run": [*lines[:-1], save, lines[-1]]}))
        settings = {"output_dir": folder / network, "batch_size": 1, "max_epochs": 2, "val_interval": 2, "device": None}
        commands.append((free_port(), bundle.arguments("train", "multi_gpu_train", overlay, **settings)))
    (folder / "commands.json").write_text(json.dumps(commands))
    arguments = [folder / "driver.py", folder / "commands.json"]
    status, stderr = processes.run(processes.torchrun, arguments, CUDA_VISIBLE_DEVICES="")
    return folder, status, stderr


@pytest.mark.parametrize("network", ["AppearanceContextNet", "FARNet", "HeatmapUNet"])
def test_two_processes_train_one_network(launched, checkpoints, network):
    folder, status, stderr = launched
    assert status == 0, stderr[-3000:]
    assert sorted(path.name for path in (folder / network).iterdir()) == [
        *("checkpoint.pt", "model.pt", "rank0", "rank1", "tensorboard"),
    ]
    first, second = (torch.load(folder / network / name, weights_only=True) for name in ("rank0", "rank1"))
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    state = checkpoints.state_of(folder / network)
    assert state["checkpoint.pt/progress"][0] == 2
    assert len(first) > 10 and all(name.startswith("module.") for name in first)
    saved = {name: state[f"checkpoint.pt/model/{name.removeprefix('module.')}"] for name in first}
    assert [name for name, value in saved.items() if not torch.equal(value, first[name])] == []
    assert len(list((folder / network / "tensorboard").glob("events.out.*"))) > 0


def test_every_network_of_the_bundles_is_among_them(tiny_bundles):
    assert sorted(first_of_each_network(tiny_bundles)) == ["AppearanceContextNet", "FARNet", "HeatmapUNet"]
