"""Gradient clipping, which MONAI's trainer leaves to a handler."""

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents


class GradientClip:
    """Clip the global norm of the gradient of all parameters of the trainer's optimiser before its step.

    Args:
        max_norm: largest norm.
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        parameters = [p for group in engine.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)
