"""Divisions of a data set that are the same on every machine: by names, or by a seed."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from .datalist import tell


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


def patients_of(names: Sequence[str], pattern: str | None) -> list[str]:
    """The patient of each image by a regular expression; an image where it finds nothing is on its own.

    Raises:
        InputError: if it is no regular expression, or finds no patient at all.
    """
    if pattern is None:
        return list(names)
    try:
        found = [re.search(str(pattern), name) for name in names]
    except re.error as error:
        raise InputError(f"--groups {pattern}: is no regular expression ({error}); correct it.") from None
    if not any(found):
        raise InputError(f"--groups {pattern}: finds no patient in names such as '{names[0]}'; correct it.")
    tell("warning: images in whose name --groups finds no patient", [n for n, f in zip(names, found) if not f], 10)
    patients = [(match[min(1, match.re.groups)] if match else None) or name for name, match in zip(names, found)]
    print(f"patients: {len(set(patients))} of {len(names)} images.")
    return patients


def random_lists(groups: Sequence[str], validation: float, test: float, seed: int = 0) -> dict[str, list[int]]:
    """Indices of the images of a training, a validation and a test list, chosen at random; groups stay together.

    A list gets the next groups that still fit into it, so that with groups of one image its size is exact. Where all
    groups are larger than the list, it gets one.

    Args:
        groups: the group of each image; images without a common one have groups of their own.
        validation: share of all images in the validation list if under 1, else their number.
        test: the same for the test list.
        seed: of the choice.

    Raises:
        InputError: if a size or the seed is negative or no whole number, or no image is left for training.
    """
    if type(seed) is not int or seed < 0:
        raise InputError(f"seed {seed}: is no whole number from 0 on; give one that is.")
    total = len(groups)
    wanted = {"test": _list_size(test, total, "test"), "validation": _list_size(validation, total, "validation")}
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    left = [list(members)[i] for i in np.random.default_rng(seed).permutation(len(members))]
    lists: dict[str, list[int]] = {"training": [], "validation": [], "test": []}
    for name, size in wanted.items():
        for group in list(left):
            if len(lists[name]) + len(members[group]) <= size:
                lists[name] += members[group]
                left.remove(group)
        if size and not lists[name] and left:
            lists[name] += members[left.pop(0)]
    lists["training"] = [index for group in left for index in members[group]]
    if not lists["training"]:
        raise InputError(
            f"test {test} and validation {validation} leave none of the {total} images in {len(members)} groups for "
            "training; take smaller lists."
        )
    return {name: sorted(indices) for name, indices in lists.items()}


def _list_size(size: float, total: int, name: str) -> int:
    """Number of images of a list from a share or a number."""
    is_number = isinstance(size, (int, float)) and not isinstance(size, bool)
    if not is_number or not (0 <= size < 1 or (size >= 1 and size == int(size))):
        raise InputError(f"--{name} {size}: give a share under 1 or a whole number of images.")
    return int(size) if size >= 1 else round(size * total)
