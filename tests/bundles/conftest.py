"""How tests run a bundle's commands: in this process, with networks and images so small that seconds suffice.

Tests of what all bundles do take the fixture `bundle`, those of one alone take `tiny_bundles["its name"]`. A new
bundle needs an entry in `TINY`.
"""

import functools
import itertools
import json
import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.bundle import ConfigWorkflow

import common
from common.handlers import load_weights, read_checkpoint

BUNDLES = Path(common.__file__).resolve().parents[1] / "bundles"
NAMES = sorted(path.name for path in BUNDLES.iterdir() if path.is_dir())
DEVICE = "$torch.device('cpu')"
PYTHON = [sys.executable, "-m"]
TORCHRUN = [*PYTHON, "torch.distributed.run", "--nproc_per_node=2", "--standalone"]


@dataclass(frozen=True)
class Tiny:
    """What makes a bundle small.

    Args:
        anatomy: of its phantoms.
        fitting: how its preprocessing brings a film to the size of the network's input: "fit" (aspect kept, padded),
            "stretch" or "register".
        image_size: that size.
        multiple: what every size of an image must be a multiple of, for the network of the paper.
        network: settings of the network, in train.json and inference.json alike.
        training: settings of train.json alone.
    """

    anatomy: str
    fitting: str
    image_size: tuple[int, int]
    multiple: int
    network: dict
    training: dict = field(default_factory=dict)


SCN = {
    "num_filters": 4,
    "num_levels": 3,
    "spatial_filters": 4,
    "spatial_kernel_size": 3,
    "spatial_downsampling": 8,
    "head_std": 0.1,
}
DACN = {"num_filters": 4, "context_size": [8, 8], "context_filters": 4}
FARNET = {"num_filters": 8}  # its encoder has one width
RANDOM = {"encoder_weights": "random"}

TINY = {
    "scn_hand": Tiny("hand", "fit", (64, 64), 16, SCN),
    "scf_unet_hand": Tiny("hand", "fit", (48, 64), 32, {"num_filters": 2}),
    "farnet_cephalometric": Tiny("skull", "stretch", (64, 96), 32, FARNET, RANDOM),
    "farnet_hand": Tiny("hand", "fit", (64, 96), 32, FARNET, RANDOM),
    "farnet_spine": Tiny("spine", "stretch", (64, 96), 32, FARNET, RANDOM),
    # A template with a pixel for about every pixel of the film, so that nothing is averaged before registration.
    "dacn_cephalometric": Tiny("skull", "register", (112, 112), 16, DACN, {"template_films": 2}),
    "dacn_spine": Tiny("spine", "fit", (64, 96), 16, {**DACN, "context_crop": [40, -1]}),
}


class TinyBundle:
    """A bundle with its tiny settings, the data that it is tested on, and what its commands left, each run once."""

    def __init__(self, name, dataset, workspace):
        self.name = name
        self.folder = BUNDLES / name
        self.tiny = TINY[name]
        self.dataset = dataset
        self.workspace = workspace
        # of inference and exports, where image_size is the size of a template that travels with the weights
        self.network_settings = {"image_size": list(self.tiny.image_size), **self.tiny.network}

    def read(self, name):
        """Content of a config, unresolved."""
        return json.loads((self.folder / "configs" / f"{name}.json").read_text())

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
        """Trained weights whose expected peaks differ from 1 and from each other."""
        state = read_checkpoint(self.trained / "model.pt")
        state["unit_peak.expected_peak"] = torch.linspace(0.5, 2, len(state["unit_peak.expected_peak"]))
        torch.save(state, self.workspace / "weights.pt")
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
        self.command(*names, output_dir=self.trained, evaluation_dir=folder, max_overlays=1)
        return folder

    @property
    def metrics(self):
        return json.loads((self.report / "metrics.json").read_text())

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

    files = ("checkpoint.pt", "model.pt")
    return {key: value for name in files for key, value in walk(read_checkpoint(Path(output_dir) / name), name)}


def differing(state, other):
    """Where two states differ in a bit."""
    assert set(state) == set(other)

    def same(a, b):
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    return [key for key in state if not same(state[key], other[key])]


def with_gaps_and_extras(phantoms, folder):
    """Copy a tiny data set, and give it what real ones have.

    The first training and test images lack landmark 7, and have landmark 10 absent. The test images carry what the
    importers write: heads two observers around the truth, the first film a duplicate; spines published Cobb angles.
    """
    shutil.copytree(phantoms / "images", folder / "images")
    content = json.loads((phantoms / "datalist.json").read_text())
    for section in ("training", "test"):
        content[section][0]["landmarks"][7] = None
        content[section][0]["landmarks"][10] = "absent"
    if len(content["landmarks"]) == 19:
        content |= {"truth": "mean of the two doctors", "observers": {"senior": "the first", "junior": "the second"}}
        for item in content["test"]:
            for key, shift in (("senior", 1), ("junior", -1)):
                item[key] = [[x[0], x[1] + shift] if isinstance(x, list) else x for x in item["landmarks"]]
        content["test"][0]["duplicate"] = True
    if len(content["landmarks"]) == 68:
        for item in content["test"]:
            item["cobb_angles"] = [30.0, 20.0, 10.0]
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder


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
        pytest.fail(f"{request.param} has no tiny settings: add it to TINY in {__file__}")
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
