"""Divisions of a data set that depend on names alone, so that they are the same on every machine."""

import hashlib
from collections import Counter
from collections.abc import Sequence


def _digest(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)


def is_validation(name: str, share: float) -> bool:
    """Whether an image or group of the training list is held out for validation: a pseudo-random choice by its name."""
    return _digest(name) < share * 2**32


def grouped_folds(groups: Sequence[str], folds: int) -> list[int]:
    """The fold, from 0, of each image of a cross-validation: images of one group share it, sizes are about equal.

    Args:
        groups: the group of each image.
        folds: their number.

    Returns:
        a number below `folds` for each image.
    """
    sizes = Counter(groups)
    fold_sizes, fold_of = [0] * folds, {}
    for group in sorted(sizes, key=lambda name: (-sizes[name], _digest(name), name)):
        fold = min(range(folds), key=fold_sizes.__getitem__)
        fold_of[group] = fold
        fold_sizes[fold] += sizes[group]
    return [fold_of[group] for group in groups]
