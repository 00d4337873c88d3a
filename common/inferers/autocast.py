"""Mixed precision on any device that computes in it."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SimpleInferer

from ..errors import InputError

logger = logging.getLogger(__name__)


class AutocastInferer(SimpleInferer):
    """A `SimpleInferer` under `torch.autocast` of the input's device type.

    MONAI's engines know autocast for CUDA alone; bfloat16 needs no gradient scaler and halves the time on CPUs
    that have it. Others emulate it, some thirty times as slowly as float32: there bfloat16 is float32, which the log
    tells once.

    Args:
        dtype: "bfloat16", "float16" or "float32"; the last means no autocast. float16 is for inference: a training
            in it would need a gradient scaler.

    Raises:
        InputError: when called in float16 with gradients.
    """

    def __init__(self, dtype: str = "bfloat16") -> None:
        super().__init__()
        self.dtype = getattr(torch, dtype)

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.dtype == torch.float16 and torch.is_grad_enabled():
            raise InputError(
                "A training in float16 loses small gradients, since there is no gradient scaler: give --training_dtype "
                "bfloat16 or float32."
            )
        device = inputs.device.type
        enabled = self.dtype != torch.float32
        if enabled and self.dtype == torch.bfloat16 and device == "cpu":
            enabled = cpu_computes_bfloat16()
        with torch.autocast(device, dtype=self.dtype if enabled else None, enabled=enabled):
            return super().__call__(inputs, network, *args, **kwargs)


@functools.cache
def cpu_computes_bfloat16() -> bool:
    """Whether oneDNN has kernels of bfloat16 for this CPU (with AVX-512, AMX or ARM's BF16)."""
    supported = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if not supported:
        logger.warning("This CPU has no instructions for bfloat16: float32 is taken instead.")
    return supported
