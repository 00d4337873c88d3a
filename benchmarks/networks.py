"""Speed and memory of each bundle's network at the paper's size: memory formats and bfloat16, in one process.

    python -m benchmarks.networks [--bundle farnet_hand ...] [--threads 2] [--repeats 5] [--device cpu]
                                  [--size 512 512] [--no-memory]

Network, loss and image size are those of the bundle's train.json, without `--bundle` of every bundle that has them.
Prints for the forward pass (evaluation, no gradient) and for the training step (forward pass, loss on the points,
backward pass, Adam), each on one image, the median time and the peak memory, and their ratios to contiguous float32.
Rounds alternate between the candidates, so that a busy machine slows all of them alike. The memory is what the step
needs beyond the weights and what else was there before it, measured in a process for each.

"difference" is the largest one of the heatmaps to those of contiguous float32, relative to the largest value of
these. The fastest candidate up to 1e-4 keeps the output equal and is what the bundle should have. The weights are
random: what bfloat16 does to the landmarks of a trained network is another question.

landmarker's `OriginalSpatialConfigurationNet` is compared with ours where it can be imported (see
`benchmarks.heatmaps`). It is the nearest public network and not the same one: no parallel convolution at the lowest
level, a head of 1x1 instead of 3x3, dropout of whole channels, linear upsampling before the tanh. Multiplications
are printed beside the times, so that what is less work is not taken for speed.
"""

from __future__ import annotations

import argparse
from copy import deepcopy

import torch
from torch.utils.flop_counter import FlopCounterMode

from common.errors import InputError
from common.networks import SpatialConfigurationNet

from .heatmaps import median_times
from .network_steps import (
    BUNDLES,
    LANDMARKER,
    OURS,
    Candidate,
    Experiment,
    OriginalSpatialConfigurationNet,
    differences,
    in_new_process,
    step_memory,
)

EQUAL = 1e-4  # float32 with sums in another order, through a hundred layers
WANTED = {LANDMARKER[0]: ">= 1.18"}  # ours takes at most 0.85 of its time, as it comes
BASE = OURS[0]


def multiplications(network: torch.nn.Module, image: torch.Tensor) -> float:
    """Multiply-adds of the convolutions of one forward pass, in thousand millions; nothing is calculated for it."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        deepcopy(network).to("meta").eval()(image.to("meta"))
    return counter.get_total_flops() / 2e9


def describe(experiment: Experiment, candidates: tuple[Candidate, ...]) -> None:
    print(f"\n  {'':32}{'parameters':>12}{'multiply-adds':>18}")
    for candidate in (BASE, LANDMARKER[0]):
        if candidate in candidates:
            network = experiment.network_of(candidate)
            parameters = sum(p.numel() for p in network.parameters())
            name = "landmarker" if candidate.landmarker else type(network).__name__
            print(f"  {name:32}{parameters:12,}{multiplications(network, experiment.image):12.1f} * 1e9")


def report(
    title: str,
    times: dict[Candidate, float],
    memory: dict[Candidate, int],
    difference: dict[Candidate, float],
    default: Candidate,
) -> None:
    """Print one table, the fastest candidate with the same output, and landmarker's time beside the bundle's."""
    ratio = "of contig."
    print(f"\n{title}\n  {'':32}{'s':>10}{ratio:>12}{'MiB':>10}{ratio:>12}{'difference':>12}")
    for candidate, seconds in times.items():
        line = f"  {candidate!s:32}{seconds:10.3f}{seconds / times[BASE]:12.2f}"
        if memory:
            line += f"{memory[candidate] / 2**20:10.0f}{memory[candidate] / max(memory[BASE], 1):12.2f}"
        else:
            line += f"{'':22}"
        print(line + (f"{difference[candidate]:12.1e}" if candidate in difference else ""))
    equal = [candidate for candidate in difference if candidate == BASE or difference[candidate] <= EQUAL]
    print(f"  fastest with the same output: {min(equal, key=times.__getitem__)}")
    ours = default if default in times else BASE
    for candidate in times:
        if candidate.landmarker:
            wanted = f", wanted: {WANTED[candidate]}" if candidate in WANTED else ""
            print(f"  {candidate}: {times[candidate] / times[ours]:.2f} times ours ({ours}){wanted}")


def compare(bundle: str, options: argparse.Namespace) -> None:
    experiment = Experiment(bundle, options.size)
    candidates = OURS
    with_landmarker = isinstance(experiment.network, SpatialConfigurationNet)
    if with_landmarker and OriginalSpatialConfigurationNet is not None:
        candidates = OURS + LANDMARKER
    print(f"\n== {bundle}: {experiment.landmarks} landmarks, {experiment.size}; train.json: {experiment.default}")
    describe(experiment, candidates)
    difference = differences(experiment, OURS, options.device)
    for title, training in (("Forward pass", False), ("Training step", True)):
        memory = {}
        if options.memory:
            for candidate in candidates:
                arguments = (bundle, options.size, candidate, training, options.device, options.threads)
                memory[candidate] = in_new_process(step_memory, *arguments)
        steps = {candidate: experiment.step(candidate, training, options.device) for candidate in candidates}
        report(title, median_times(steps, options.repeats, options.device), memory, difference, experiment.default)
    if with_landmarker and OriginalSpatialConfigurationNet is None:
        print("\nlandmarker cannot be imported here and is left out.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", nargs="+", help="names of folders in bundles/; all where not given")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--size", type=int, nargs="+", help="another image size, x first")
    parser.add_argument("--repeats", type=int, default=5, help="rounds after the first, which warms up")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="measure memory too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads, one image")
    for bundle in options.bundle or sorted(file.parents[1].name for file in BUNDLES.glob("*/configs/train.json")):
        try:
            compare(bundle, options)
        except InputError as error:
            if options.bundle:
                raise SystemExit(str(error)) from None
            print(f"\n== {bundle} is left out. {error}")


if __name__ == "__main__":
    main()
