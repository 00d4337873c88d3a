"""Time by stage, and memory, of a bundle's prediction from image files to markups.

    python -m benchmarks.inference [--bundle patch_regression_ccta] [--dataset-dir DIR] [--phantom-size clinical]
                                   [--overlay cpu.json] [--ckpt-path model.pt] [--threads 2] [--set tile_size=128]

Runs the bundle's own `inference.json` in process on the images in DIR, by default on phantoms (size `clinical` is a
CT volume of 512 x 512 x 250 voxels, drawn on first use), writes to a temporary folder, and prints the seconds of each
stage, summed over the images, and the most memory that the process had, its libraries included. Without weights the
network has random ones, which take the same time; sub-images of local networks then have 16 voxels, as in the paper.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.engines.utils import IterationEvents

from common.data import phantom_dataset
from common.data.phantoms import ANATOMIES

from .network_steps import peak_resident_memory
from .training_loop import now


class Timed:
    """A callable whose seconds go to a stage."""

    def __init__(self, call: Callable, seconds: dict[str, float], stage: str) -> None:
        self.call = call
        self.seconds = seconds
        self.stage = stage

    def __call__(self, data: Any) -> Any:
        start = now()
        result = self.call(data)
        self.seconds[self.stage] += now() - start
        return result


class Stopwatch:
    """Handler, the first of an evaluator, that divides its time into stages.

    Each mark gives the time since the one before to the stage that ends there.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.last = 0.0

    def mark(self, stage: str) -> None:
        moment = now()
        self.seconds[stage] += moment - self.last
        self.last = moment

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        for event, stage in (
            (Events.GET_BATCH_COMPLETED, "reading and preprocessing"),
            (IterationEvents.MODEL_COMPLETED, "votes and postprocessing"),  # run before, as part of the engine
        ):
            engine.add_event_handler(event, self.mark, stage)

    def attach_end(self, engine: Engine) -> None:
        """To be called when all other handlers are attached."""
        for event in (Events.ITERATION_COMPLETED, Events.COMPLETED):
            engine.add_event_handler(event, self.mark, "markups, table and overlay")

    def start(self) -> None:
        self.last = now()

    def follow(self, network: torch.nn.Module) -> None:
        """Mark the network, or its global and its local part where it has both."""
        parts = {"global network": "global_net", "local networks": "local_nets"}
        if not hasattr(network, "global_net"):
            parts = {"network": ""}
        for stage, name in parts.items():
            part = network.get_submodule(name)
            part.register_forward_pre_hook(lambda *_: self.mark("votes and postprocessing"))
            part.register_forward_hook(lambda *_, stage=stage: self.mark(stage))


def random_weights(config: Any, folder: str) -> str:
    """A file of weights as the network's initialisation gives them."""
    network = config.get_parsed_content("network_def")
    if hasattr(network, "local_size"):
        network.local_size.fill_(16)
    path = Path(folder) / "random.pt"
    torch.save(network.state_dict(), path)
    return str(path)


def workflow(options: argparse.Namespace, folder: str) -> ConfigWorkflow:
    """The bundle's prediction, not yet parsed further than its settings."""
    configs = Path(__file__).resolve().parents[1] / "bundles" / options.bundle / "configs"
    overlays = [configs / name for name in ["inference.json", *options.overlay]]
    settings = dict(item.split("=", 1) for item in options.set)
    found = ConfigWorkflow(
        config_file=[str(path) for path in overlays], workflow_type="infer", logging_file=False, **settings
    )
    config = found.parser
    data = options.dataset_dir or phantom_dataset(anatomy_of(config["dataset_dir"]), options.phantom_size)
    config["dataset_dir"] = str(data)
    config["output_dir"] = str(Path(folder) / "predictions")
    config["ckpt_path"] = options.ckpt_path or random_weights(config, folder)
    return found


def anatomy_of(expression: str) -> str:
    """The phantoms that a bundle predicts by default."""
    return next(anatomy for anatomy in ANATOMIES if f"'{anatomy}'" in expression)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="patch_regression_ccta")
    parser.add_argument("--overlay", nargs="*", default=[], help="config files laid over inference.json")
    parser.add_argument("--dataset-dir", help="a file, a folder or a datalist; phantoms by default")
    parser.add_argument("--phantom-size", default="clinical", help="default, quick or, of the aortic root, clinical")
    parser.add_argument("--ckpt-path", help="model.pt; random weights by default")
    parser.add_argument("--set", nargs="*", default=[], help="further settings, KEY=VALUE")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        report(options, folder)


def report(options: argparse.Namespace, folder: str) -> None:
    """Run, and print the stages."""
    found = workflow(options, folder)
    config = found.parser
    stopwatch = Stopwatch()
    config["handlers"] = [stopwatch, *config["handlers"]]
    found.initialize()
    preprocessing, network, evaluator, dataset = (
        config.get_parsed_content(name) for name in ("preprocessing", "network", "evaluator", "dataset")
    )
    parts: dict[str, float] = defaultdict(float)
    preprocessing.transforms = tuple(Timed(each, parts, type(each).__name__) for each in preprocessing.transforms)
    stopwatch.follow(network)
    stopwatch.attach_end(evaluator)
    before = peak_resident_memory()
    evaluator.run()
    whole = sum(stopwatch.seconds.values())
    count = len(dataset.data)
    print(f"{options.bundle}, {count} images, torch {torch.__version__}, {options.threads} threads")
    for stage, seconds in stopwatch.seconds.items():
        print(f"{stage:32}{seconds:8.3f} s")
        if stage == "reading and preprocessing":
            for name, each in parts.items():
                print(f"    {name:28}{each:8.3f} s")
    print(f"{'all':32}{whole:8.3f} s")
    print(f"most memory of the process: {peak_resident_memory() / 2**20:.0f} MiB ({before / 2**20:.0f} before)")
    if torch.cuda.is_available():
        print(f"most memory on the GPU: {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
