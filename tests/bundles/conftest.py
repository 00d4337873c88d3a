"""How tests run a bundle's configs: in this process, with a network and images so small that seconds suffice."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.bundle import ConfigWorkflow

import common
from common.handlers import read_checkpoint

BUNDLES = Path(common.__file__).resolve().parents[1] / "bundles"
NETWORK = {
    "num_filters": 4,
    "num_levels": 3,
    "spatial_filters": 4,
    "spatial_kernel_size": 3,
    "spatial_downsampling": 8,
    "head_std": 0.1,
}
SETTINGS = {**NETWORK, "image_size": [64, 64], "device": "$torch.device('cpu')"}


def config_files(*names):
    """Paths of configs of scn_hand; a path is taken as it is."""
    folder = BUNDLES / "scn_hand" / "configs"
    return [str(name if isinstance(name, Path) else folder / f"{name}.json") for name in names]


def build(*names, workflow_type="train", **overrides):
    """A workflow of scn_hand with tiny settings; overrides may name nested keys with `::`."""
    settings = {**SETTINGS, **overrides}
    workflow = ConfigWorkflow(config_files(*names), logging_file=False, workflow_type=workflow_type, **settings)
    workflow.initialize()
    return workflow


def run(*names, **overrides):
    """Build a workflow and run it, as `python -m monai.bundle run` does; returns it."""
    workflow = build(*names, **overrides)
    workflow.run()
    return workflow


def run_command(launcher, files, overrides, **environment):
    """`LAUNCHER -m monai.bundle run` as documented, in the repository; returns its status and what it wrote to stderr.

    A command that takes five minutes waits for something that never comes.
    """
    words = [*launcher, "-m", "monai.bundle", "run", "--config_file", str(config_files(*files))]
    words += [word for key, value in overrides.items() for word in (f"--{key}", str(value))]
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=BUNDLES.parent,
        env={**os.environ, **environment},
    )
    try:
        stderr = process.communicate(timeout=300)[1]
    except subprocess.TimeoutExpired:
        process.terminate()
        pytest.fail("the command hangs:\n" + process.communicate()[1][-2000:])
    return process.returncode, stderr


def state_of(output_dir):
    """All tensors of a training's files by the path to them, and the paths of what is no tensor with its value."""

    def walk(value, path):
        if isinstance(value, dict):
            for key, child in value.items():
                yield from walk(child, f"{path}/{key}")
        elif isinstance(value, (list, tuple)):
            for key, child in enumerate(value):
                yield from walk(child, f"{path}/{key}")
        else:
            yield path, value

    files = ("checkpoint.pt", "model.pt")
    return {key: value for name in files for key, value in walk(read_checkpoint(Path(output_dir) / name), name)}


def differing(state, other):
    """Where two states differ in a bit."""
    assert set(state) == set(other)

    def same(a, b):
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    return [key for key in state if not same(state[key], other[key])]


@pytest.fixture(scope="session")
def scn_hand():
    """The functions of this file, for tests."""
    return SimpleNamespace(
        folder=BUNDLES / "scn_hand",
        network_settings=NETWORK,
        settings=SETTINGS,
        config_files=config_files,
        build=build,
        run=run,
        run_command=run_command,
        state_of=state_of,
        differing=differing,
    )


@pytest.fixture(scope="session")
def trained(tiny_phantoms, tmp_path_factory):
    """Output folder of a run of the quick settings: two epochs of one iteration."""
    output = tmp_path_factory.mktemp("trained")
    folders = {"dataset_dir": str(tiny_phantoms), "output_dir": str(output)}
    run("train", "cpu", "quick", **folders, iterations=2, validation_iterations=1)
    return output


@pytest.fixture(scope="session")
def gaps(tiny_phantoms, tmp_path_factory):
    """Folder of the tiny phantoms whose first test and training images lack landmark 7, and have landmark 20 absent."""
    content = json.loads((tiny_phantoms / "datalist.json").read_text())
    folder = tmp_path_factory.mktemp("gaps")
    shutil.copytree(tiny_phantoms / "images", folder / "images")
    for name in ("training", "test"):
        content[name][0]["landmarks"][7] = None
        content[name][0]["landmarks"][20] = "absent"
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder
