"""How tests run a bundle's commands: in this process, with networks and images so small that seconds suffice.

Tests of what all bundles do take the fixture `bundle`, those of one alone take `tiny_bundles["its name"]`. A new
bundle needs an entry in `tiny.TINY`.
"""

import functools
import itertools
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.bundle import ConfigWorkflow

import common
from common.handlers import load_weights, read_checkpoint

from .tiny import TINY, with_gaps_and_extras

BUNDLES = Path(common.__file__).resolve().parents[1] / "bundles"
NAMES = sorted(path.name for path in BUNDLES.iterdir() if path.is_dir())
DEVICE = "$torch.device('cpu')"
PYTHON = [sys.executable, "-m"]
TORCHRUN = [*PYTHON, "torch.distributed.run", "--nproc_per_node=2", "--standalone"]


class TinyBundle:
    """A bundle with its tiny settings, the data that it is tested on, and what its commands left, each run once."""

    def __init__(self, name, dataset, workspace):
        self.name = name
        self.folder = BUNDLES / name
        self.tiny = TINY[name]
        self.dataset = dataset
        self.workspace = workspace
        # of inference and exports, where image_size is the size of a template that travels with the weights
        self.network_settings = self.tiny.settings

    def read(self, name):
        """Content of a config, unresolved."""
        return json.loads((self.folder / "configs" / f"{name}.json").read_text())

    def image(self, stem):
        """Path of an image of the data set."""
        return self.dataset / "images" / f"{stem}{self.tiny.images.ending}"

    def config_files(self, *names):
        """Paths of configs; a path is taken as it is."""
        return [str(n if isinstance(n, Path) else self.folder / "configs" / f"{n}.json") for n in names]

    def settings(self, first, **overrides):
        """Tiny settings for a command that begins with a config: "train" or "inference"."""
        values = {"device": DEVICE, "dataset_dir": str(self.dataset), **self.network_settings}
        return {**values, **(self.tiny.training if first == "train" else {}), **overrides}

    def build(self, *names, **overrides):
        """A workflow with tiny settings; overrides may name nested keys with `::`."""
        workflow = ConfigWorkflow(
            self.config_files(*names),
            logging_file=False,
            workflow_type=names[0],
            **self.settings(names[0], **overrides),
        )
        workflow.initialize()
        return workflow

    def run(self, *names, **overrides):
        """Build a workflow and run it; returns it."""
        workflow = self.build(*names, **overrides)
        workflow.run()
        return workflow

    def arguments(self, *names, **overrides):
        """What stands after `python -m monai.bundle` to run configs with tiny settings."""
        settings = self.settings(names[0], **overrides).items()
        pairs = [(f"--{key}", str(value)) for key, value in settings if value is not None]
        return ["run", "--config_file", str(self.config_files(*names)), *itertools.chain(*pairs)]

    def command(self, *names, **overrides):
        """`python -m monai.bundle run` with tiny settings, in this process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["monai.bundle", *self.arguments(*names, **overrides)])
            runpy.run_module("monai.bundle", run_name="__main__")

    @functools.cached_property
    def trained(self):
        """Output folder of two epochs by train.json, cpu.json and quick.json."""
        output = self.workspace / "trained"
        self.command("train", "cpu", "quick", output_dir=output, batch_size=2, max_epochs=2, val_interval=1)
        return output

    @functools.cached_property
    def weights(self):
        """Trained weights, changed so that nothing in them can be left out without notice."""
        torch.save(self.tiny.output.telling(read_checkpoint(self.trained / "model.pt")), self.workspace / "weights.pt")
        return self.workspace / "weights.pt"

    @functools.cached_property
    def network(self):
        """The network of inference.json with those weights, as it infers."""
        network = self.build("inference", ckpt_path=str(self.weights)).parser.get_parsed_content("network")
        load_weights(network, self.weights)
        return network.eval()

    @functools.cached_property
    def report(self):
        """Folder of an evaluation of the trained weights on the test list."""
        folder = self.workspace / "evaluation"
        names = ("train", "cpu", "quick", "evaluate")
        settings = {"max_overlays": 1, **self.tiny.output.report}
        self.command(*names, output_dir=self.trained, evaluation_dir=folder, **settings)
        return folder

    @property
    def metrics(self):
        return json.loads((self.report / "metrics.json").read_text())

    @functools.cached_property
    def prediction(self):
        """Folder of the prediction of one test image, alone."""
        folder = self.workspace / "prediction"
        paths = {"dataset_dir": self.image("test_001"), "output_dir": folder, "ckpt_path": self.weights}
        workflow = self.run("inference", **{key: str(path) for key, path in paths.items()})
        assert workflow.check_properties() == []
        return folder

    def predict(self, dataset_dir, output_dir, *overlays, **overrides):
        """Predict with the network above, by the command line."""
        folders = {"dataset_dir": dataset_dir, "output_dir": output_dir, "ckpt_path": self.weights}
        self.command("inference", *overlays, **folders, **overrides)


def run_command(launcher, arguments, **environment):
    """A command in processes of its own, in the repository; returns its status and what it wrote to stderr.

    A command that takes five minutes waits for something that never comes.
    """
    process = subprocess.Popen(
        [*launcher, *map(str, arguments)],
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

    files = sorted(Path(output_dir).glob("*.pt"))
    return {key: value for path in files for key, value in walk(read_checkpoint(path), path.name)}


def differing(state, other):
    """Where two states differ in a bit."""
    assert set(state) == set(other)

    def same(a, b):
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    return [key for key in state if not same(state[key], other[key])]


@pytest.fixture(scope="session")
def tiny_bundles(tiny_phantoms_of, tmp_path_factory):
    """All bundles of the table by name."""
    root = tmp_path_factory.mktemp("bundles")
    anatomies = {tiny.anatomy for tiny in TINY.values()}
    datasets = {a: with_gaps_and_extras(tiny_phantoms_of(a), root / a) for a in anatomies}
    for name in TINY:
        (root / name).mkdir()
    yield {name: TinyBundle(name, datasets[tiny.anatomy], root / name) for name, tiny in TINY.items()}
    shutil.rmtree(root)  # checkpoints of gigabytes


@pytest.fixture(params=NAMES)
def bundle(tiny_bundles, request):
    """Each bundle in turn."""
    if request.param not in tiny_bundles:
        pytest.fail(f"{request.param} has no tiny settings: add it to TINY in tiny.py")
    return tiny_bundles[request.param]


@pytest.fixture(scope="session")
def processes():
    """`run_command`, and what its commands begin with, for tests."""
    return SimpleNamespace(run=run_command, python=PYTHON, torchrun=TORCHRUN)


@pytest.fixture(scope="session")
def checkpoints():
    """`state_of` and `differing`, for tests."""
    return SimpleNamespace(state_of=state_of, differing=differing)


@pytest.fixture(scope="session")
def scn_hand(tiny_bundles):
    """The bundle through which the shared code is tested more deeply."""
    return tiny_bundles["scn_hand"]
