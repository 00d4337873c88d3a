"""Random state that depends on seed, epoch and rank alone, so that an interrupted epoch can be repeated."""

import random
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events


class EpochSeed:
    """Set every random state at the start of an epoch from (seed, epoch, rank).

    Torch's state decides the order of a shuffling sampler and dropout; the epoch of a
    `common.data.LandmarkDataset` its augmentation. What ran before, validation or an interrupted run, has no influence.

    Args:
        seed: seed of the run.
        dataset: the training data; its `epoch` is set where it has one.
    """

    def __init__(self, seed: int, dataset: Any = None) -> None:
        self.seed = seed
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        entropy = [self.seed, epoch, getattr(engine.state, "rank", 0)]
        state = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        random.seed(state)
        np.random.seed(state)  # noqa: NPY002 (transforms of others may use it)
        torch.manual_seed(state)
        if hasattr(self.dataset, "epoch"):
            self.dataset.epoch = epoch
