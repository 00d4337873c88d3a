"""Landmarks as CSV: one image's annotation, read, and the predictions of many images, written."""

import csv
import itertools
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .atomic_writing import replaced_atomically
from .landmark_points import ABSENT, LandmarkFile, check_unique, coordinates
from .markups_files import TO_RAS


def read_landmark_csv(path: str | os.PathLike) -> LandmarkFile:
    """Landmarks of one image from a CSV, with commas or semicolons.

    2D: header `name,x,y`, zero-based file pixels. 3D: header `name,x,y,z` with a column `space` or a first
    line `# space = LPS`, RAS or voxel. Empty coordinates: not annotated; `absent`: absent. Other columns are
    ignored.

    Raises:
        InputError: if the header, the space or a coordinate is something else, or a name is there twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text; save it as CSV in UTF-8.") from error
    spaces = set()
    while lines and (not lines[0].strip() or lines[0].lstrip().startswith("#")):
        stated = re.match(r"\s*#\s*space\s*=\s*(\w+)", lines.pop(0), re.IGNORECASE)
        spaces |= {stated[1].lower()} if stated else set()
    try:
        rows = [[field.strip() for field in row] for row in csv.reader(lines, delimiter=_delimiter(lines), strict=True)]
    except csv.Error as error:
        raise InputError(f"{path}: is no CSV ({error}); save it as CSV again.") from error
    header = [field.lower() for field in rows[0]] if rows else []
    dims = 3 if "z" in header else 2
    if not {"name", *"xyz"[:dims]} <= set(header) or len(set(header)) < len(header):
        raise InputError(
            f"{path}: its first line is '{lines[0] if lines else ''}'; it must be the header name,x,y or name,x,y,z."
        )
    names, points = [], []
    for number, fields in enumerate(rows[1:], start=2):
        if not any(fields):
            continue
        if len(fields) != len(header):
            raise InputError(f"{path}: row {number} has {len(fields)} columns where the header has {len(header)}.")
        row = dict(zip(header, fields))
        names.append(row["name"])
        points.append(_point([row[axis] for axis in "xyz"[:dims]], f"{path}: '{row['name']}' in row {number}"))
        spaces |= {row["space"].lower()} if row.get("space") else set()
    if not points:
        raise InputError(f"{path}: holds no landmarks; give one row for each.")
    check_unique(names, str(path))
    space = _space(spaces, dims, path)
    signs = (1.0,) * dims if space == "voxel" else TO_RAS[space.upper()]
    turned = np.array(points) * signs
    turned[np.isposinf(points).all(axis=1)] = np.inf
    return LandmarkFile(tuple(names), turned, "voxel" if space == "voxel" else "RAS")


def _delimiter(lines: Sequence[str]) -> str:
    """A semicolon where the header has it, as spreadsheets write it where decimals have a comma."""
    return ";" if lines and ";" in lines[0] and "," not in lines[0] else ","


def _point(texts: Sequence[str], place: str) -> list[float]:
    """Coordinates from the texts of a row."""
    if not any(texts):
        return [math.nan] * len(texts)
    if ABSENT in texts and set(texts) <= {ABSENT, ""}:
        return [math.inf] * len(texts)
    values = coordinates(texts)
    if values is None:
        raise InputError(
            f"{place} has the coordinates '{','.join(texts)}'; give finite numbers, leave all empty where "
            "it is not annotated, or write absent."
        )
    return values


def _space(spaces: set[str], dims: int, path: str | os.PathLike) -> str:
    """The one space that a file states."""
    allowed = {"voxel"} if dims == 2 else {"lps", "ras", "voxel"}
    if dims == 2 and not spaces:
        return "voxel"
    if len(spaces) != 1 or not spaces <= allowed:
        found = " and ".join(sorted(spaces)) or "no space"
        wanted = "voxel for coordinates x,y" if dims == 2 else "one of LPS, RAS or voxel in a column 'space'"
        raise InputError(f"{path}: states {found}; state {wanted}.")
    return next(iter(spaces))


def landmark_table(
    image: str | os.PathLike,
    names: Sequence[str],
    pixels: np.ndarray,
    world: np.ndarray,
    confidence: Sequence[float] | None = None,
    spread: Sequence[float] | None = None,
    space: str = "LPS",
) -> tuple[list[str], list[list[str]]]:
    """The N landmarks of an image as cells of a table.

    Columns: image, name, pixel_x, pixel_y (and pixel_z of a volume), in the space that their names state lps_x, lps_y,
    lps_z or ras_x, ..., confidence, and spread where it is given. Coordinates of landmarks without a position stay
    empty.

    Args:
        pixels: (N, 2) or (N, 3) zero-based file pixels.
        world: (N, 3) world RAS; `common.transforms.to_file_space` gives both.
        confidence: N numbers.
        spread: N numbers.
        space: "LPS" as 3D Slicer's files, or "RAS".

    Returns:
        names of the columns, and N rows.

    Raises:
        InputError: if the numbers differ.
    """
    if space not in TO_RAS:
        raise ValueError(f"space must be LPS or RAS, got {space!r}")
    pixels, world = np.asarray(pixels, dtype=np.float64), np.asarray(world, dtype=np.float64)
    confidence = [math.nan] * len(names) if confidence is None else confidence
    if len(pixels) != len(names) or world.shape != (len(names), 3) or len(confidence) != len(names):
        raise InputError(f"{image}: {len(names)} names, {len(pixels)} pixels and {len(world)} points do not fit.")
    columns = ["image", "name", *(f"pixel_{axis}" for axis in "xyz"[: pixels.shape[1]])]
    columns += [*(f"{space.lower()}_{axis}" for axis in "xyz"), "confidence"]
    columns += ["spread"] if spread is not None else []
    points = np.concatenate([pixels, world * TO_RAS[space]], axis=1)  # the signs are their own inverse
    numbers = zip(confidence, spread) if spread is not None else zip(confidence)
    rows = [
        [str(image), name, *map(_cell, point), *(f"{number:.3f}" if number >= 0 else "" for number in told)]
        for name, point, told in zip(names, points, numbers)
    ]
    return columns, rows


def write_landmark_table(
    path: str | os.PathLike, tables: Iterable[tuple[Sequence[str], Sequence[Sequence[str]]]]
) -> int:
    """Write the landmarks of many images as one CSV, atomically and with one image in memory at a time.

    Args:
        path: of the CSV; without images none is written.
        tables: for every image what `landmark_table` gives, all with the same columns.

    Returns:
        number of images.
    """
    tables = iter(tables)
    first = next(tables, None)
    if first is None:
        return 0
    count = 0
    with replaced_atomically(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(first[0])
        for columns, rows in itertools.chain([first], tables):
            if list(columns) != list(first[0]):
                raise ValueError(f"columns {columns} do not fit the table's {first[0]}")
            table.writerows(rows)
            count += 1
    return count


@dataclass(frozen=True)
class PredictedLandmarks:
    """The N landmarks of an image in a `landmarks.csv`; coordinates without a value are NaN.

    Args:
        names: of the landmarks, in the order of the table.
        pixels: (N, 2) or, of a volume, (N, 3) zero-based file pixels.
        world: (N, 3) world RAS.
        confidence: (N,).
    """

    names: tuple[str, ...]
    pixels: np.ndarray
    world: np.ndarray
    confidence: np.ndarray


def read_landmark_table(path: str | os.PathLike) -> dict[str, PredictedLandmarks]:
    """The `landmarks.csv` of a prediction (`landmark_table`), by image in its order.

    Raises:
        InputError: if it is none, holds no landmarks, or one of an image twice.
    """
    rows: dict[str, dict[str, list[float]]] = defaultdict(dict)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = table.fieldnames or []
            space = next((space for space in TO_RAS if f"{space.lower()}_x" in columns), "LPS")
            pixels = [f"pixel_{axis}" for axis in "xyz" if axis != "z" or "pixel_z" in columns]
            wanted = [*pixels, *(f"{space.lower()}_{axis}" for axis in "xyz"), "confidence"]
            for row in table:
                if None in row.values():
                    raise InputError(f"{path}: ends in the middle of a row; give it as it was written.")
                if row["name"] in rows[row["image"]]:
                    raise InputError(f"{path}: has '{row['name']}' of {row['image']} twice; give it as it was written.")
                rows[row["image"]][row["name"]] = [float(row[column] or "nan") for column in wanted]
    except InputError:
        raise
    except (OSError, csv.Error, KeyError, ValueError) as error:
        raise InputError(f"{path}: is no landmarks.csv of a prediction ({error!r}); give one.") from error
    if not rows:
        raise InputError(f"{path}: holds no landmarks; give the landmarks.csv of a prediction.")
    result = {}
    for image, landmarks in rows.items():
        numbers = np.array(list(landmarks.values()))
        world = numbers[:, len(pixels) : -1] * TO_RAS[space]
        result[image] = PredictedLandmarks(tuple(landmarks), numbers[:, : len(pixels)], world, numbers[:, -1])
    return result


def _cell(value: float) -> str:
    """A coordinate to a tenth of a micrometre."""
    return f"{value + 0.0:.4f}".replace("-0.0000", "0.0000") if np.isfinite(value) else ""
