"""Data sets for training and prediction: reproducible augmentation, and input files that may be bad."""

import contextlib
import copy
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset
from monai.transforms import Compose
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import InputError
from .image_soundness import printable
from .prediction_results import image_path

logger = logging.getLogger(__name__)


def input_error_in(error: BaseException | None) -> InputError | None:
    """The `InputError` in the chain of causes of an exception, if there is one."""
    while error is not None:
        if isinstance(error, InputError):
            return error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


@contextlib.contextmanager
def unwrapped_input_errors() -> Iterator[None]:
    """Raise bad input as the one-sentence `InputError` that it is, out of MONAI's "applying transform" wrappings."""
    try:
        yield
    except Exception as error:
        if (reason := input_error_in(error)) is None:
            raise
        raise reason from None


def seed_transform(transform: Compose, seed: int, epoch: int, index: int) -> None:
    """Give random transforms a state that depends on these three numbers alone."""
    state = np.random.SeedSequence([seed, epoch, index]).generate_state(1)[0]
    transform.set_random_state(seed=int(state))


class LandmarkDataset(CacheDataset):
    """MONAI's `CacheDataset` whose random transforms depend on seed, epoch and index alone.

    What comes before the first random transform is cached. The augmentation of an item is the same in whatever
    order and by however many workers the items are read, so that a resumed run repeats an epoch exactly;
    `common.handlers.EpochSeed` sets `epoch`. Bad input is raised as the one-sentence `InputError` that it is, out
    of MONAI's "applying transform" wrappings.

    Args:
        data: list of data dictionaries.
        transform: list of transforms or `Compose`.
        seed: seed of the augmentation.
        cache_rate: part of the items whose deterministic transforms are cached.
        num_workers: threads that fill the cache.
        progress: whether to show a progress bar while the cache is filled.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Sequence[Callable] | Callable | None = None,
        seed: int = 0,
        cache_rate: float = 1.0,
        num_workers: int | None = 1,
        progress: bool = True,
    ) -> None:
        self.seed = seed
        self.epoch = 0
        transform = transform if isinstance(transform, Compose) else Compose(transform)
        with unwrapped_input_errors():
            super().__init__(data, transform, cache_rate=cache_rate, num_workers=num_workers, progress=progress)

    def _transform(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # ends `for item in dataset`
        index %= len(self)
        seed_transform(self.transform, self.seed, self.epoch, index)
        with unwrapped_input_errors():
            return super()._transform(index)

    def before_augmentation(self, index: int) -> Any:
        """A copy of an item as it is before the first random transform, from the cache where it is there."""
        return copy.deepcopy(self._cache[index]) if index < self.cache_num else self._load_cache_item(index)


class AugmentedView(torch.utils.data.Dataset):
    """The items of a `LandmarkDataset` after its cached transforms, with other random transforms behind them.

    So that two stages of a training read the same images from one cache. Random transforms depend on seed, epoch and
    index alone, and bad input is one sentence, as there.

    Args:
        dataset: whose cached items are used.
        transform: list of transforms or `Compose` that follow.
        seed: seed of the augmentation.
    """

    def __init__(self, dataset: LandmarkDataset, transform: Sequence[Callable] | Callable, seed: int = 0) -> None:
        self.dataset = dataset
        self.transform = transform if isinstance(transform, Compose) else Compose(transform)
        self.seed = seed
        self.epoch = 0

    @property
    def data(self) -> Sequence[Any]:
        return self.dataset.data

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        seed_transform(self.transform, self.seed, self.epoch, index)
        with unwrapped_input_errors():
            return self.transform(self.dataset.before_augmentation(index))


class PredictionDataset(IterableDataset):
    """Data for prediction that leaves out what cannot be read, and remembers it.

    Iterating gives the transformed items of `pending`, one by one; an item whose transforms raise is reported through
    logging and skipped, so that a batch of files goes on without it. It is iterable because the number of readable
    files is not known. Its data loader must have no workers, since the main process would not learn what they leave
    out.

    Attributes:
        pending: those of the items that this process is to predict; `common.handlers.SaveLandmarks` takes out what is
            done already, and what other processes do.
        tried: number of items that the last iteration has come to.
        failures: reasons of the last iteration by path of the image.

    Args:
        data: list of data dictionaries with an "image" path.
        transform: list of transforms or callable.
    """

    def __init__(self, data: Sequence[dict[str, Any]], transform: Any = None) -> None:
        self.data = data
        self.pending = data
        self.transform = transform if callable(transform) or transform is None else Compose(transform)
        self.tried = 0
        self.failures: dict[str, str] = {}

    def __iter__(self) -> Iterator[Any]:
        if get_worker_info() is not None:
            raise RuntimeError("PredictionDataset remembers what it leaves out: give its data loader num_workers=0.")
        self.tried, self.failures = 0, {}
        for item in self.pending:
            self.tried += 1
            try:
                transformed = dict(item) if self.transform is None else self.transform(dict(item))
            except Exception as error:
                self.leave_out(image_path(item), error)
                continue
            yield transformed

    def leave_out(self, path: str, error: Exception) -> None:
        """Remember that an image has no prediction, and report why, in one line."""
        reason = input_error_in(error)
        if reason is None:
            cause = error.__cause__ or error
            reason = f"{path}: {type(cause).__name__}: {cause}"
        self.failures[path] = " ".join(str(reason).split())
        traceback = error if os.environ.get("LANDMARKS_TRACEBACK") else None
        logger.error("skipped: %s", self.failures[path], exc_info=traceback)

    def require_complete(self) -> None:
        """End a command after its work is done.

        Raises:
            InputError: if items were left out, so that the command's status is not zero.
        """
        if self.failures:
            listed = ", ".join([*map(printable, list(self.failures)[:5]), *(["..."] if len(self.failures) > 5 else [])])
            raise InputError(
                f"{len(self.failures)} of {len(self.data)} images have no prediction ({listed}); failures.csv beside "
                "the results says why for each, the others are done."
            )
