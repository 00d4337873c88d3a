"""Speed of the SpatialConfiguration-Net at the paper's setting, side by side with landmarker's, in one process.

    python -m benchmarks.networks [--threads 2] [--size 512] [--repeats 5] [--device cpu]

Prints the median time of inference (no gradient) and of a training step's forward and backward pass, and their
ratios to ours, beside the ratio that is wanted. Rounds alternate between the candidates, so that a busy machine
slows all of them alike. "ours" has the bundle's memory format, channels last.

landmarker's `OriginalSpatialConfigurationNet` is compared where it can be imported (see `benchmarks.heatmaps`). It
is the nearest public network and not the same one: no parallel convolution at the lowest level, a head of 1x1
instead of 3x3, dropout of whole channels, linear upsampling before the tanh. Multiplications are printed beside the
times, so that what is less work is not taken for speed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from common.networks import SpatialConfigurationNet

from .heatmaps import median_times

try:
    from landmarker.models.spatial_configuration_net import OriginalSpatialConfigurationNet
except ImportError:
    OriginalSpatialConfigurationNet = None

LANDMARKS = 37
WANTED = {"landmarker": ">= 1.18"}  # ours takes at most 0.85 of its time


def networks(device: str) -> dict[str, torch.nn.Module]:
    found = {
        "ours": SpatialConfigurationNet(2, 1, LANDMARKS).to(device, memory_format=torch.channels_last),
        "ours, contiguous": SpatialConfigurationNet(2, 1, LANDMARKS).to(device),
    }
    if OriginalSpatialConfigurationNet is not None:
        found["landmarker"] = OriginalSpatialConfigurationNet(1, LANDMARKS).to(device)
        found["landmarker, channels last"] = OriginalSpatialConfigurationNet(1, LANDMARKS).to(
            device, memory_format=torch.channels_last
        )
    return found


def multiplications(network: torch.nn.Module, image: torch.Tensor) -> float:
    """Multiply-adds of the convolutions of one forward pass, in thousand millions."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(image)
    return counter.get_total_flops() / 2e9


def inference(network: torch.nn.Module, image: torch.Tensor, bfloat16: bool = False) -> Callable:
    def call() -> None:
        network.eval()
        with torch.no_grad(), torch.autocast(image.device.type, torch.bfloat16, enabled=bfloat16):
            network(image)

    return call


def training_step(network: torch.nn.Module, image: torch.Tensor, bfloat16: bool = False) -> Callable:
    def call() -> None:
        network.train().zero_grad(set_to_none=True)
        with torch.autocast(image.device.type, torch.bfloat16, enabled=bfloat16):
            heatmaps = network(image)
        heatmaps.float().square().sum().backward()

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--size", type=int, default=512, help="width and height of the image")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    image = torch.randn(1, 1, options.size, options.size, device=options.device)
    found = networks(options.device)
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads, {tuple(image.shape)}")
    print(f"\n{'':28}{'parameters':>12}{'multiply-adds':>18}")
    for name in ("ours", "landmarker"):
        if name in found:
            parameters = sum(p.numel() for p in found[name].parameters())
            print(f"  {name:26}{parameters:12,}{multiplications(found[name], image):14.1f} * 1e9")
    for title, prepare in (("Inference", inference), ("Forward and backward pass", training_step)):
        candidates = {name: prepare(network, image) for name, network in found.items()}
        candidates["ours, bfloat16"] = prepare(found["ours"], image, bfloat16=True)
        times = median_times(candidates, options.repeats, options.device)
        print(f"\n{title}\n  {'':26}{'s':>10}{'times ours':>12}  wanted")
        for name, seconds in times.items():
            print(f"  {name:26}{seconds:10.3f}{seconds / times['ours']:12.2f}  {WANTED.get(name, '')}")
    if OriginalSpatialConfigurationNet is None:
        print("\nlandmarker cannot be imported here and is left out.")


if __name__ == "__main__":
    main()
