"""A network's forward pass or training step, in each of the ways that `benchmarks.networks` compares.

Network, loss, image size and landmarks come from a bundle's train.json; image and points are noise, the weights
random. Nothing is loaded, downloaded or written.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from common.errors import InputError

try:
    from landmarker.models.spatial_configuration_net import OriginalSpatialConfigurationNet
except ImportError:
    OriginalSpatialConfigurationNet = None

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
KEYS = ("network_def", "loss", "image_size", "landmarks")
MEMORY_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of the image's axes


class Candidate(NamedTuple):
    """A way to run a network; `landmarker` takes its SpatialConfiguration-Net in place of the bundle's network."""

    channels_last: bool = False
    bfloat16: bool = False
    landmarker: bool = False

    def __str__(self) -> str:
        layout = "channels_last" if self.channels_last else "contiguous"
        return f"{'landmarker, ' * self.landmarker}{layout}{', bfloat16' * self.bfloat16}"


OURS = (Candidate(), Candidate(channels_last=True), Candidate(channels_last=True, bfloat16=True))
LANDMARKER = (Candidate(landmarker=True), Candidate(channels_last=True, landmarker=True))


class Experiment:
    """What a bundle trains: `network`, `loss`, an `image` (1, C, *size), `points` (1, N, D) in voxels, all on the CPU.

    Args:
        bundle: name of a folder in bundles/.
        size: another image size than train.json's, x first.

    Raises:
        InputError: when there is no such bundle, or its train.json has no image size or another of `KEYS`, or
            `size` has another number of axes.
    """

    def __init__(self, bundle: str, size: Sequence[int] | None = None) -> None:
        file = BUNDLES / bundle / "configs" / "train.json"
        if not file.is_file():
            raise InputError(f"{file}: no such file, give the name of a folder in {BUNDLES}.")
        config = ConfigParser()
        config.read_config(file)
        missing = [key for key in KEYS if key not in config]
        if missing:
            raise InputError(f"{file}: has no {', '.join(missing)}, give another bundle.")
        if size is not None:
            axes = len(config.get_parsed_content("image_size"))
            if len(size) != axes:
                raise InputError(f"{file}: its images have {axes} axes, give a size of as many numbers.")
            config["image_size"] = list(size)
        config.get_parsed_content("imports", default=None)  # for expressions
        set_determinism(0)  # of cuDNN too, as in the bundles
        self.network = config.get_parsed_content("network_def")
        self.loss = config.get_parsed_content("loss")
        self.size = tuple(config.get_parsed_content("image_size"))
        self.landmarks = len(config.get_parsed_content("landmarks"))
        channels = config.get_parsed_content("network_def::in_channels", default=1)
        self.image = torch.rand(1, channels, *self.size)
        self.points = torch.rand(1, self.landmarks, len(self.size)) * torch.tensor(self.size)
        # what the bundle has, as far as its config says so by name
        dtype = config.get_parsed_content("inferer::dtype", default="float32")
        self.default = Candidate("channels_last" in str(config.get("memory_format", "")), dtype == "bfloat16")

    def network_of(self, candidate: Candidate) -> torch.nn.Module:
        """A network of its own, on the CPU; those of one experiment have equal weights, landmarker's apart."""
        if candidate.landmarker:
            return OriginalSpatialConfigurationNet(self.image.shape[1], self.landmarks)
        return deepcopy(self.network)

    def step(self, candidate: Candidate, training: bool, device: str) -> Callable[[], torch.Tensor]:
        """What a candidate does with one image; its result is the heatmaps or, of a training step, the loss.

        As the bundles do it, the network alone is put into channels_last, and the loss is in float32. The optimiser
        is Adam, whose step is small enough to leave the weights as they are.
        """
        image, points = self.image.to(device), self.points.to(device)
        layout = MEMORY_FORMATS[image.ndim] if candidate.channels_last else torch.contiguous_format
        network = self.network_of(candidate).to(device, memory_format=layout).train(training)
        loss_function = deepcopy(self.loss).to(device)

        def heatmaps() -> torch.Tensor:
            with torch.autocast(image.device.type, torch.bfloat16, enabled=candidate.bfloat16):
                return network(image)

        if not training:
            return torch.no_grad()(heatmaps)
        parameters = [p for module in (network, loss_function) for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=1e-9)

        def training_step() -> torch.Tensor:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_function(heatmaps(), points)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return training_step


def differences(experiment: Experiment, candidates: Sequence[Candidate], device: str) -> dict[Candidate, float]:
    """Largest difference of each candidate's heatmaps to those of the first, relative to the largest value of these.

    Without TF32, which torch gives to convolutions on CUDA: it would hide what the candidate itself changes.
    """
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        reference = experiment.step(candidates[0], False, device)().float()
        largest = reference.abs().max()
        return {
            candidate: float((experiment.step(candidate, False, device)().float() - reference).abs().max() / largest)
            for candidate in candidates
        }
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def forget_peak() -> None:
    """Let the peak of this process start again from what it has now, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_resident_memory() -> int:
    """The most memory that this process had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def step_memory(
    bundle: str, size: Sequence[int] | None, candidate: Candidate, training: bool, device: str, threads: int
) -> int:
    """Bytes that two steps need beyond what was there before them, which is mostly the weights.

    The second step of a training has Adam's moments too. To be called in a process of its own (`in_new_process`),
    since the peak of a process never falls.
    """
    torch.set_num_threads(threads)
    experiment = Experiment(bundle, size)  # kept: the step would take what is freed before it, unseen
    step = experiment.step(candidate, training, device)
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        peak = partial(torch.cuda.max_memory_allocated, device)
    else:
        forget_peak()
        peak = peak_resident_memory
    before = peak()
    for _ in range(2):
        step()
    return peak() - before


def in_new_process(function: Callable, *arguments: object) -> int:
    """The result of a function in a process that ends with it.

    Linux hands the peak of a process on to what it starts by exec (multiprocessing's "spawn", subprocess). The fork
    of a small server, which has imported what is here and done nothing, starts from that server's memory instead.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()
