"""Mixed precision on any device."""

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SimpleInferer


class AutocastInferer(SimpleInferer):
    """A `SimpleInferer` under `torch.autocast` of the input's device type.

    MONAI's engines know autocast for CUDA alone; bfloat16 needs no gradient scaler and halves the time on CPUs
    that have it.

    Args:
        dtype: "bfloat16", "float16" or "float32"; the last means no autocast.
    """

    def __init__(self, dtype: str = "bfloat16") -> None:
        super().__init__()
        self.dtype = getattr(torch, dtype)

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        enabled = self.dtype != torch.float32
        with torch.autocast(inputs.device.type, dtype=self.dtype if enabled else None, enabled=enabled):
            return super().__call__(inputs, network, *args, **kwargs)
