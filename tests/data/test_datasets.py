import itertools
import logging
import pickle

import numpy as np
import pytest
import torch
from monai.transforms import (
    Compose,
    Lambdad,
    OneOf,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
    Transform,
)
from torch.utils.data import DataLoader

from common.data import AugmentedView, LandmarkDataset, PredictionDataset, input_error_in
from common.errors import InputError

DATA = [{"image": torch.full((1, 4), float(i))} for i in range(6)]


class Counted(Transform):
    """A deterministic transform that knows how often it was called."""

    def __init__(self):
        self.calls = 0

    def __call__(self, data):
        self.calls += 1
        return data


def dataset(seed=0, **options):
    augment = [
        Counted(),
        RandGaussianNoised("image", prob=1.0),
        OneOf([RandShiftIntensityd("image", 9.0, prob=0.5), RandScaleIntensityd("image", 0.9, prob=0.5)]),
    ]
    return LandmarkDataset(DATA, augment, seed=seed, progress=False, **options)


def images(data, indices=range(6)):
    return {i: data[i]["image"].tolist() for i in indices}


def test_an_item_is_augmented_the_same_in_whatever_order_it_is_read():
    data = dataset()
    first = images(data)
    assert images(data, [5, 1, 0, 4, 3, 2]) == first
    assert images(data, [3]) == {3: first[3]}
    assert images(dataset()) == first


@pytest.mark.parametrize("workers", [1, 2])
def test_an_item_is_augmented_the_same_by_whatever_number_of_workers(workers):
    loader = DataLoader(dataset(), batch_size=2, num_workers=workers)
    read = [image.tolist() for batch in loader for image in batch["image"]]
    assert read == list(images(dataset()).values())


def test_every_item_every_epoch_and_every_seed_differ():
    data = dataset()
    noise = [data[i]["image"] - DATA[i]["image"] for i in range(6)]
    assert len({tuple(n.flatten().tolist()) for n in noise}) == 6
    first = images(data)
    data.epoch = 1
    second = images(data)
    assert all(first[i] != second[i] for i in range(6))
    data.epoch = 0
    assert images(data) == first
    other = images(dataset(seed=1))
    assert all(other[i] != first[i] and other[i] != second[i] for i in range(6))


def test_the_global_random_state_has_no_influence_and_is_not_touched():
    data = dataset()
    first = images(data)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert images(data) == first
    assert torch.equal(before, torch.get_rng_state())


def test_what_comes_before_the_first_random_transform_is_done_once():
    data = dataset()
    counted = data.transform.transforms[0]
    for _ in range(3):
        images(data)
    assert counted.calls == 6
    data = dataset(cache_rate=0.0)
    images(data)
    assert data.transform.transforms[0].calls == 6


def test_caching_changes_no_augmentation():
    assert images(dataset(cache_rate=0.0)) == images(dataset()) == images(dataset(cache_rate=0.5))


def test_items_may_be_counted_from_the_end():
    data = dataset()
    assert data[-1]["image"].tolist() == data[5]["image"].tolist()


@pytest.mark.parametrize("cache_rate", [0.0, 1.0])
def test_iterating_ends_after_the_last_item(cache_rate):
    data = dataset(cache_rate=cache_rate)
    assert len(list(itertools.islice(data, 20))) == 6
    for index in (6, -7):
        with pytest.raises(IndexError):
            data[index]


def test_a_list_of_transforms_one_and_none_are_taken():
    double = Lambdad("image", lambda image: 2 * image)
    for transform in ([double], double, Compose([double])):
        assert LandmarkDataset(DATA, transform, progress=False)[3]["image"][0, 0] == 6
    assert LandmarkDataset(DATA, None, progress=False)[3]["image"][0, 0] == 3


def refuse(image):
    if image[0, 0] == 4:
        raise InputError("film.png: is broken; mend it.")
    return image


def divide(image):
    if image[0, 0] == 4:
        raise ZeroDivisionError("a fault of the programmer")
    return image


@pytest.mark.parametrize("cache_rate", [1.0, 0.0])
def test_bad_input_is_raised_as_the_sentence_that_it_is(cache_rate):
    with pytest.raises(InputError) as raised:
        images(LandmarkDataset(DATA, Lambdad("image", refuse), cache_rate=cache_rate, progress=False))
    assert str(raised.value) == "film.png: is broken; mend it."
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("cache_rate", [1.0, 0.0])
def test_other_faults_keep_their_cause(cache_rate):
    with pytest.raises(RuntimeError) as raised:
        images(LandmarkDataset(DATA, Lambdad("image", divide), cache_rate=cache_rate, progress=False))
    chain, error = [], raised.value
    while error is not None:
        chain.append(type(error))
        error = error.__cause__
    assert ZeroDivisionError in chain


def chain(suppress=False):
    """An InputError that was met while another error was handled, or one that has nothing to do with it."""
    try:
        try:
            raise InputError("a: b; c.")
        except InputError as error:
            raise ValueError("wrapped") from error
    except ValueError:
        if suppress:
            raise KeyError("unrelated") from None
        raise KeyError("while handling")  # noqa: B904


def test_an_input_error_is_found_wherever_it_stands_in_the_chain():
    with pytest.raises(KeyError) as raised:
        chain()
    assert str(input_error_in(raised.value)) == "a: b; c."
    assert input_error_in(None) is None and input_error_in(ValueError()) is None


def test_an_input_error_that_was_dealt_with_is_not_blamed_for_another():
    with pytest.raises(KeyError) as raised:
        chain(suppress=True)
    assert input_error_in(raised.value) is None


def view(seed=0, **options):
    """The items of a data set behind other random transforms than its own."""
    return AugmentedView(dataset(**options), [RandShiftIntensityd("image", 9.0, prob=1.0)], seed=seed)


def test_a_view_puts_other_random_transforms_behind_the_cached_ones():
    data = view()
    counted = data.dataset.transform.transforms[0]
    for _ in range(2):
        shifts = {i: (image - DATA[i]["image"]).unique() for i, image in ((i, data[i]["image"]) for i in range(6))}
        assert all(len(shift) == 1 for shift in shifts.values())  # no noise: the same shift of all voxels
    assert len({float(shift) for shift in shifts.values()}) == 6
    assert counted.calls == 6 and len(data) == 6 and data.data is DATA
    assert all(torch.equal(item["image"], torch.full((1, 4), float(i))) for i, item in enumerate(DATA))


def test_a_view_is_augmented_by_seed_epoch_and_index_alone():
    data = view()
    first = images(data)
    assert images(data, [5, 1, 0, 4, 3, 2]) == first == images(view()) == images(view(cache_rate=0.0))
    data.dataset.epoch = 7
    images(data.dataset)
    assert images(data) == first
    data.epoch = 1
    second, other = images(data), images(view(seed=1))
    assert all(len({str(x[i]) for x in (first, second, other)}) == 3 for i in range(6))


def test_a_view_leaves_the_cache_as_it_is():
    def erase(image):
        return image.zero_()

    data = dataset()
    before = images(data)
    erased = AugmentedView(data, Lambdad("image", erase))
    assert images(erased) == {i: [[0.0] * 4] for i in range(6)} == images(erased)
    assert images(data) == before


def test_a_view_ends_after_its_last_item():
    assert len(list(view())) == 6
    with pytest.raises(IndexError):
        view()[6]


@pytest.mark.parametrize("late", [True, False])
def test_bad_input_in_a_view_is_raised_as_the_sentence_that_it_is(late):
    early = [] if late else [Lambdad("image", refuse)]
    data = LandmarkDataset(DATA, early, cache_rate=0.0, progress=False)
    with pytest.raises(InputError) as raised:
        images(AugmentedView(data, [Lambdad("image", refuse)] if late else []))
    assert str(raised.value) == "film.png: is broken; mend it." and raised.value.__suppress_context__


def predictions(count=6):
    return [{"image": f"{i}.png", "value": torch.full((1, 4), float(i))} for i in range(count)]


def test_what_cannot_be_read_is_left_out_told_and_remembered(caplog):
    data = PredictionDataset(predictions(), Lambdad("value", refuse))
    with caplog.at_level(logging.ERROR):
        assert [item["image"] for item in data] == ["0.png", "1.png", "2.png", "3.png", "5.png"]
    assert data.failures == {"4.png": "film.png: is broken; mend it."}
    told = [record.getMessage() for record in caplog.records if record.name.startswith("common")]
    assert told == ["skipped: film.png: is broken; mend it."]


def test_a_fault_of_another_kind_stops_no_batch_either():
    data = PredictionDataset(predictions(), Lambdad("value", divide))
    assert len(list(data)) == 5
    assert data.failures == {"4.png": "4.png: ZeroDivisionError: a fault of the programmer"}


def test_only_what_is_pending_is_predicted_and_counted():
    data = PredictionDataset(predictions(), Lambdad("value", refuse))
    data.pending = data.data[3:]
    items = iter(data)
    assert (next(items)["image"], data.tried) == ("3.png", 1)
    assert (next(items)["image"], data.tried) == ("5.png", 3)
    data.pending = []
    assert list(data) == [] and data.tried == 0


def test_of_many_failures_the_first_are_named():
    data = PredictionDataset(predictions(), Lambdad("value", lambda value: refuse(torch.full((1, 4), 4.0))))
    assert list(data) == []
    with pytest.raises(InputError, match=r"^6 of 6 images .*\(0.png, 1.png, 2.png, 3.png, 4.png, \.\.\.\)"):
        data.require_complete()


def test_what_was_left_out_ends_the_command_after_the_work_is_done():
    data = PredictionDataset(predictions(), Lambdad("value", refuse))
    list(data)
    with pytest.raises(InputError, match=r"^1 of 6 images .*\(4.png\); failures.csv"):
        data.require_complete()


def test_a_complete_prediction_ends_well_also_after_an_incomplete_one():
    bad = True
    data = PredictionDataset(predictions(), Lambdad("value", lambda value: refuse(value) if bad else value))
    list(data)
    bad = False
    assert len(list(data)) == 6
    data.require_complete()


def test_a_data_loader_passes_the_readable_items_on():
    data = PredictionDataset(predictions(), [Lambdad("value", refuse)])
    assert [batch["image"][0] for batch in DataLoader(data)] == ["0.png", "1.png", "2.png", "3.png", "5.png"]
    with pytest.raises(InputError):
        data.require_complete()


def test_workers_whose_failures_would_be_forgotten_are_refused(monkeypatch):
    monkeypatch.setattr("common.data.datasets.get_worker_info", lambda: "as in a worker of a data loader")
    with pytest.raises(RuntimeError, match="num_workers=0"):
        list(PredictionDataset(predictions()))


def test_a_data_set_travels_to_processes_that_are_spawned():
    data = LandmarkDataset(DATA, RandGaussianNoised("image", prob=1.0), progress=False)
    assert images(pickle.loads(pickle.dumps(data))) == images(data)
