"""Which parameters decay."""

from typing import Any

from torch import nn


def kernel_decay_groups(*modules: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: weight decay on convolution kernels only (payer2019).

    Biases, norms and the learnable sigmas of a loss do not decay; parameters that need no gradient are left out.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
