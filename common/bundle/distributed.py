"""Training and prediction in several processes under torchrun."""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import ignite.distributed as idist
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError


def local_device() -> torch.device:
    """The device of this process: its own GPU where there are any, else the CPU.

    More processes than GPUs, which a prediction may have, share them.
    """
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    return torch.device("cpu")


def start_process_group(device: torch.device | str) -> None:
    """Join the process group that torchrun describes in the environment: nccl on GPUs, gloo on CPUs."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    idist.sync()  # in all processes at once; where one alone asked ignite for its rank first, it would wait for ever


def share_prediction() -> None:
    """Join the processes that torchrun started for one prediction; one that runs alone goes on alone.

    They exchange lists of images on the CPU, and wait for each other at the end for as long as it takes.
    """
    if dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(days=365))
        idist.sync()  # as above


def process_rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def process_count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def share(items: Sequence[Any]) -> list[Any]:
    """Every n-th of some items, for this one of n processes."""
    return list(items[process_rank() :: process_count()])


def from_first(decide: Callable[[], Any]) -> Any:
    """What the first process decides, in all processes; only there is the function called.

    Raises:
        Exception: what the function raises, in the first process; in the others an InputError of the same text.
    """
    decided, failure = None, None
    if process_rank() == 0:
        try:
            decided = decide()
        except Exception as error:
            failure = error
    if process_count() > 1:  # also after a failure: the others would wait for this until the connection breaks
        message = [decided, None if failure is None else str(failure)]
        dist.broadcast_object_list(message, src=0)
        decided, told = message
        if told is not None and failure is None:
            raise InputError(told)
    if failure is not None:
        raise failure
    return decided


def from_all(value: Any) -> list[Any]:
    """The values of all processes, after all have come here."""
    values = [value]
    if process_count() > 1:
        values = [None] * process_count()
        dist.all_gather_object(values, value)
    return values


def end_process_group() -> None:
    """Leave the process group after all processes are done."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def distribute(module: nn.Module, device: torch.device | str) -> nn.Module:
    """Average a module's gradients over the processes; one without trainable parameters stays as it is."""
    device = torch.device(device)
    if not any(p.requires_grad for p in module.parameters()):
        return module
    return DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)
