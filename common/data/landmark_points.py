"""Named landmarks as they come from a file or a datalist, and how they are brought to a bundle's order."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError

ABSENT = "absent"
# Words by which names tell two landmarks apart, and the axis of the world (RAS) on which the first lies further.
OPPOSITES = {
    ("right", "left"): 0,
    ("r", "l"): 0,
    ("rt", "lt"): 0,
    ("anterior", "posterior"): 1,
    ("ant", "post"): 1,
    ("superior", "inferior"): 2,
    ("sup", "inf"): 2,
}


def names_of_all(names: Iterable[tuple[str, Sequence[str]]], otherwise: str = "") -> list[str]:
    """Names of the landmarks of a set in the order of their appearance.

    Args:
        names: what an error message calls each source of landmarks, with the names that it has.
        otherwise: what an error message advises beside mending the names.

    Raises:
        InputError: if landmarks have no names, or names of two sources differ in case, spaces, hyphens or underscores
            alone.
    """
    first: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for source, given in names:
        own = {re.sub(r"[\s_-]", "", name).casefold(): name for name in given}
        if "" in given:
            raise InputError(f"{source}: has landmarks without a name; name them{otherwise}.")
        for plain, name in own.items():
            if len(own) == len(given) and spelled.setdefault(plain, name) != name:
                raise InputError(
                    f"{source}: names '{name}' what {first[spelled[plain]]} names '{spelled[plain]}'; write it in one "
                    f"way{otherwise}."
                )
        for name in given:
            first.setdefault(name, source)
    return list(first)


@dataclass(frozen=True)
class LandmarkFile:
    """What a landmark file says.

    Args:
        names: name of each landmark, "" where the file gives none.
        points: float64 (N, D); a row of NaN is not annotated, a row of +inf is absent.
        space: "RAS" for world millimetres, "voxel" for zero-based file pixels, x first.
    """

    names: tuple[str, ...]
    points: np.ndarray
    space: str


def match_landmarks(
    landmarks: LandmarkFile, names: Sequence[str], source: str, allow_missing: bool = False
) -> LandmarkFile:
    """Bring landmarks to the order of a bundle's names.

    Landmarks without names (all labels empty, or 3D Slicer's own `F-1`, `F-2`, ... counted through) are taken
    in their order, but for those that are told apart by right and left: nobody would see that they were placed in the
    other order.

    Args:
        names: the N names wanted.
        source: what an error message calls the landmarks, usually their file.
        allow_missing: whether a name that the file lacks becomes a row of NaN.

    Raises:
        InputError: if names are unknown, missing or there twice, or the count differs.
    """
    names = tuple(names)
    if not set(landmarks.names) & set(names) and is_unnamed(landmarks.names):
        if len(landmarks.names) != len(names):
            raise InputError(
                f"{source}: has {len(landmarks.names)} landmarks without names where {len(names)} are "
                "expected; name them, or give all in order."
            )
        if sides := [(names[i], names[j]) for i, j, axis in opposite_names(names) if axis == 0]:
            raise InputError(
                f"{source}: has landmarks without names, of which no order tells '{sides[0][0]}' from '{sides[0][1]}'; "
                "name them."
            )
        return LandmarkFile(names, landmarks.points, landmarks.space)
    check_unique(landmarks.names, source)
    unknown = [name for name in landmarks.names if name not in names]
    if unknown:
        raise InputError(
            f"{source}: names {_listed(unknown)}, which the {len(names)} landmarks wanted "
            f"({_listed(names)}) do not hold; rename or remove it."
        )
    missing = [name for name in names if name not in landmarks.names]
    if missing and not allow_missing:
        raise InputError(f"{source}: lacks {_listed(missing)}; add it, without a position if it is not annotated.")
    row = {name: point for name, point in zip(landmarks.names, landmarks.points)}
    nothing = np.full(landmarks.points.shape[1], np.nan)
    return LandmarkFile(names, np.array([row.get(name, nothing) for name in names]), landmarks.space)


def is_unnamed(labels: Sequence[str]) -> bool:
    """Whether labels are all empty or a default prefix and the numbers 1 to N.

    A gap in the numbers means that a point was removed and perhaps placed anew at the end: then the order is
    in doubt.
    """
    if not any(labels):
        return True
    found = [re.fullmatch(r"(?:(?:F|MarkupsFiducial|PointList)(?:_\d+)?[-_ ]?)?(\d+)", label) for label in labels]
    return all(found) and [int(match[1]) for match in found] == list(range(1, len(labels) + 1))


def opposite_names(names: Sequence[str]) -> list[tuple[int, int, int]]:
    """Pairs of landmarks whose names differ by `OPPOSITES` alone, such as "bulb_right" and "bulb_left".

    Returns:
        of each pair the number of the landmark that lies further along an axis of the world (RAS) by its name, that of
        the other one, and the axis: 0 for right and left, 1 for anterior and posterior, 2 for superior and inferior.
    """
    words = [tuple(re.findall(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+", name)) for name in names]  # L.bulb, bulbLeft, bulb_left
    words = [tuple(word.casefold() for word in own) for own in words]
    found = []
    for number, own in enumerate(words):
        for (further, other), axis in OPPOSITES.items():
            for place in (place for place, word in enumerate(own) if word == further):
                partner = (*own[:place], other, *own[place + 1 :])
                found += [(number, i, axis) for i, theirs in enumerate(words) if theirs == partner]
    return found


def check_unique(names: Sequence[str], source: str) -> None:
    """Raise InputError if a name, other than the empty one, is there twice."""
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise InputError(f"{source}: names {_listed(twice)} more than once; each landmark needs its own name.")


def inline_points(items: Any, source: str, spatial_dims: int | None = None) -> np.ndarray:
    """Points that stand in a datalist itself, zero-based file pixels.

    Args:
        items: N entries, each `[x, y]` or `[x, y, z]`, None for not annotated, "absent" for absent; or an
            array (N, D) or (1, N, D) in which rows of NaN and +inf say the same.
        source: what an error message calls them.
        spatial_dims: 2 or 3 where the image is known.

    Returns:
        float64 (N, D).

    Raises:
        InputError: if an entry is something else, or their dimensions differ.
    """
    if hasattr(items, "tolist"):
        rows = np.asarray(items, dtype=np.float64)
        rows = rows[0] if rows.ndim == 3 and rows.shape[0] == 1 else rows
        if rows.ndim != 2:
            raise InputError(f"{source}: its landmarks have the shape {rows.shape}; give (N, 2) or (N, 3).")
        items = [None if np.isnan(r).all() else ABSENT if (r == np.inf).all() else r.tolist() for r in rows]
    if not isinstance(items, (list, tuple)):
        raise InputError(f"{source}: its landmarks are {items!r}; give a list of points or a file.")
    points = []
    for number, item in enumerate(items):
        if item is None:
            points.append(math.nan)
        elif item == ABSENT:
            points.append(math.inf)
        elif isinstance(item, (list, tuple)) and len(item) in (2, 3) and all(map(is_finite_number, item)):
            points.append([float(value) for value in item])
        else:
            raise InputError(
                f"{source}: landmark {number} (counted from 0) is {item!r}; give its coordinates as finite "
                "numbers, "
                'null where it is not annotated, or "absent".'
            )
    found = {len(point) for point in points if isinstance(point, list)}
    if len(found) > 1 or (spatial_dims and found - {spatial_dims}):
        wanted = f"{spatial_dims} are" if spatial_dims else "the same number is"
        counts = " and ".join(map(str, sorted(found)))
        raise InputError(f"{source}: its landmarks have {counts} coordinates where {wanted} expected; correct them.")
    dims = spatial_dims or next(iter(found), 2)
    return np.array([p if isinstance(p, list) else [p] * dims for p in points], np.float64).reshape(-1, dims)


def is_finite_number(value: Any) -> bool:
    """Whether a value from JSON is a finite number and no truth value."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number over all floating point numbers
        return False


def coordinates(texts: Sequence[str]) -> list[float] | None:
    """Coordinates from texts, None if one is no finite number. Python alone reads 1_5 as 15."""
    try:
        values = [float(text) for text in texts if "_" not in text]
    except ValueError:
        return None
    return values if len(values) == len(texts) and all(map(math.isfinite, values)) else None


def _listed(names: Sequence[str]) -> str:
    """The first names of a list in quotes, the rest counted."""
    shown = ", ".join(f"'{name}'" for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
