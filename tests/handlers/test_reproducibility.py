import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from torch.utils.data import DataLoader, Dataset

from common.handlers import EpochSeed


def drawn(seed=0, epoch=1, rank=0, before=0, dataset=None):
    """What the three generators give at the start of an epoch."""
    torch.rand(before)
    np.random.random(before)  # noqa: NPY002
    random.seed(before)
    EpochSeed(seed, dataset)(SimpleNamespace(state=SimpleNamespace(epoch=epoch, rank=rank)))
    return torch.rand(1).item(), np.random.random(), random.random()  # noqa: NPY002


def test_what_ran_before_an_epoch_has_no_influence_on_it():
    assert drawn(before=0) == drawn(before=17)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 2}, {"rank": 1}])
def test_another_seed_epoch_or_process_draws_other_numbers_of_every_kind(other):
    assert not set(drawn()) & set(drawn(**other))


def test_seed_and_epoch_are_not_simply_added():
    assert drawn(seed=1, epoch=2) != drawn(seed=2, epoch=1)


def test_the_data_set_learns_the_epoch():
    dataset = SimpleNamespace(epoch=0)
    drawn(epoch=5, dataset=dataset)
    assert dataset.epoch == 5
    drawn(dataset=[1, 2])  # one without epochs is left alone


class Epochs(Dataset):
    """Items that say in which epoch they were read."""

    epoch = 0

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.epoch, index


def orders(first_epoch, epochs, workers=0):
    """(epoch, index) of the items that an engine reads, which begins after some epochs were done."""
    dataset = Epochs()
    seen = {}

    def note(engine, batch):
        seen.setdefault(engine.state.epoch, []).append(tuple(value.item() for value in batch))
        torch.rand(3)  # as a dropout would

    engine = Engine(note)

    @engine.on(Events.STARTED)
    def resume(engine):
        engine.state.epoch = first_epoch - 1
        engine.state.iteration = (first_epoch - 1) * 8

    EpochSeed(3, dataset).attach(engine)
    engine.run(DataLoader(dataset, shuffle=True, num_workers=workers), max_epochs=epochs)
    return seen


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_reads_the_items_in_the_order_of_one_that_never_stopped(workers):
    whole = orders(1, 3)
    assert all(epoch == number for number, items in whole.items() for epoch, _ in items)
    assert all(sorted(index for _, index in items) == list(range(8)) for items in whole.values())
    assert [i for _, i in whole[1]] != [i for _, i in whole[2]] != [i for _, i in whole[3]]
    resumed = orders(2, 3, workers)
    assert resumed == {number: whole[number] for number in (2, 3)}
