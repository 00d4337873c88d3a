"""Keeps a heatmap network's peak height in step with its loss."""

import torch
from ignite.engine import Engine, Events


class ExpectedPeak:
    """Copy the height of the loss's targets into the network after every epoch (see `common.networks.UnitPeak`).

    Attach it to the trainer before the handlers that validate and save.

    Args:
        network: a heatmap network with `unit_peak`, also inside DistributedDataParallel.
        loss: a loss with `expected_peak()`, also inside DistributedDataParallel.
    """

    def __init__(self, network: torch.nn.Module, loss: torch.nn.Module) -> None:
        self.buffer = getattr(network, "module", network).unit_peak.expected_peak
        self.loss = getattr(loss, "module", loss)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        self.buffer.copy_(self.loss.expected_peak())
