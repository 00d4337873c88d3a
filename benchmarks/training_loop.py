"""Time that a bundle's training loop takes beside forward pass, backward pass and optimiser step.

    python -m benchmarks.training_loop [--threads 2] [--bundle scn_hand] [--overlay cpu.json] [--images 8] [--epochs 2]

Runs the bundle's own workflow (`train.json`, at the paper's setting) in process on a few phantoms, writes to a
temporary folder, and prints the median seconds of each stage of an iteration, per sample. The first epoch warms up.
Then the parts of some stages are timed by themselves on the same objects. Validation and checkpoints, which come once
in many iterations, are not in these numbers.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.engines.utils import IterationEvents
from monai.transforms import RandomizableTrait

WANTED = 0.15  # s per sample, on two cores
STEP = ("forward pass of the network", "backward pass", "optimiser step")


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Stopwatch:
    """Trainer handler that divides an iteration's time into stages; the first of the handlers.

    Each mark gives the time since the one before to the stage that ends there, from the second epoch on.
    """

    def __init__(self) -> None:
        self.stages: dict[str, list[float]] = defaultdict(list)
        self.last = 0.0
        self.epoch = 0

    def mark(self, stage: str) -> None:
        moment = now()
        if self.epoch > 1:
            self.stages[stage].append(moment - self.last)
        self.last = moment

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)
        for event, stage in (
            (Events.GET_BATCH_STARTED, "other handlers"),
            (Events.GET_BATCH_COMPLETED, "data loader"),
            (IterationEvents.LOSS_COMPLETED, "forward pass of the loss, with targets"),
            (IterationEvents.BACKWARD_COMPLETED, "backward pass"),
            (IterationEvents.MODEL_COMPLETED, "optimiser step"),
        ):
            engine.add_event_handler(event, self.mark, stage)

    def start(self, engine: Engine) -> None:
        engine.network.register_forward_pre_hook(lambda *_: self.mark("preparing the batch"))
        engine.network.register_forward_hook(lambda *_: self.mark("forward pass of the network"))
        engine.optimizer.register_step_pre_hook(lambda *_: self.mark("gradient clipping"))

    def start_epoch(self, engine: Engine) -> None:
        self.epoch = engine.state.epoch


def workflow(options: argparse.Namespace, output_dir: str) -> ConfigWorkflow:
    """The bundle's training on few images, with a stopwatch and without validation."""
    configs = Path(__file__).resolve().parents[1] / "bundles" / options.bundle / "configs"
    found = ConfigWorkflow(
        config_file=[str(configs / name) for name in ["train.json", *options.overlay]],
        workflow_type="train",
        logging_file=False,
        output_dir=output_dir,
        max_epochs=1 + options.epochs,
        val_interval=10**9,
        stopwatch={"_target_": "benchmarks.training_loop.Stopwatch"},
    )
    config = found.parser
    # the small phantoms, which are drawn sooner; the cached transforms bring any picture to the network's size
    config["dataset_dir"] = options.dataset_dir or re.sub(
        r"^(.*phantom_dataset\('\w+')\)$", r"\1, 'quick')", config["dataset_dir"]
    )
    config["train::handlers"] = ["@stopwatch", *config["train::handlers"]]
    config["train::dataset::data"] += f"[:{options.images}]"
    config["validate::dataset::data"] += "[:1]"
    return found


def median_time(call: Callable, arguments: list) -> float:
    """Median seconds of `call` over arguments, the first of which also warms up."""
    call(*arguments[0])
    times = []
    for each in arguments:
        start = now()
        call(*each)
        times.append(now() - start)
    return statistics.median(times)


def parts(found: ConfigWorkflow) -> dict[str, dict[str, float]]:
    """Median seconds per batch of what the stages are made of, each timed by itself."""
    config = found.parser
    dataset, loader, trainer, loss = (
        config.get_parsed_content(name)
        for name in ("train::dataset", "train::dataloader", "train::trainer", "loss_function")
    )
    size = loader.batch_size
    cached = [dataset._cache[i] for i in range(len(dataset))]
    reading = {"copy of the cached item": size * median_time(deepcopy, [(item,) for item in cached])}
    items = [deepcopy(item) for item in cached]
    transforms = dataset.transform.transforms
    first = next(i for i, t in enumerate(transforms) if isinstance(t, RandomizableTrait))
    for transform in transforms[first:]:
        reading[type(transform).__name__] = size * median_time(transform, [(item,) for item in items])
        items = [transform(item) for item in items]
    batches = [[items[(i + k) % len(items)] for k in range(size)] for i in range(len(items))]
    reading["collate"] = median_time(loader.collate_fn, [(batch,) for batch in batches])
    collated = [loader.collate_fn(batch) for batch in batches]

    device = trainer.state.device
    preparing = {"prepare_batch": median_time(trainer.prepare_batch, [(batch, device) for batch in collated])}
    image, points = trainer.prepare_batch(collated[0], device)
    with torch.no_grad():
        heatmaps = trainer.network.eval()(image)
    heatmaps.requires_grad_(True)
    several = [(heatmaps, points)] * 9
    forward = median_time(loss, several)
    both = median_time(lambda *arguments: loss(*arguments).backward(), several)
    return {
        "data loader": reading,
        "preparing the batch": preparing,
        "backward pass": {"that of the loss": both - forward},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--bundle", default="scn_hand")
    parser.add_argument("--overlay", nargs="*", default=[], help="further configs of the bundle, such as cpu.json")
    parser.add_argument("--dataset_dir", help="another data set than the config's")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2, help="epochs after the first")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", category=UserWarning)
    with tempfile.TemporaryDirectory() as output_dir:
        found = workflow(options, output_dir)
        found.initialize()
        found.run()
        stopwatch = found.parser.get_parsed_content("stopwatch")
        size = found.parser.get_parsed_content("train::dataloader").batch_size
        details = parts(found)
    stages = {name: statistics.median(times) / size for name, times in stopwatch.stages.items()}
    step = sum(stages[name] for name in STEP)
    print(f"torch {torch.__version__}, {options.threads} threads, {' '.join([options.bundle, *options.overlay])}")
    print(f"\n  {'median seconds per sample':44}{'s':>8}{'of the step':>13}")
    for name, seconds in stages.items():
        print(f"  {name:44}{seconds:8.4f}{seconds / step:13.3f}")
        for part, time_of_batch in details.get(name, {}).items():
            print(f"      {part:40}{time_of_batch / size:8.4f}{time_of_batch / size / step:13.3f}")
    outside = sum(seconds for name, seconds in stages.items() if name not in STEP)
    print(f"  {'the step: ' + ', '.join(STEP).replace(' of the network', ''):44}{step:8.4f}{1:13.3f}")
    print(f"  {'all but the step':44}{outside:8.4f}{outside / step:13.3f}  wanted: at most {WANTED} s")


if __name__ == "__main__":
    main()
