"""Training in several processes under torchrun."""

import os

import ignite.distributed as idist
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def local_device() -> torch.device:
    """The device of this process: its own GPU where there are any, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def start_process_group(device: torch.device | str) -> None:
    """Join the process group that torchrun describes in the environment: nccl on GPUs, gloo on CPUs."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    idist.sync()  # in all processes at once; where one alone asked ignite for its rank first, it would wait for ever


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
