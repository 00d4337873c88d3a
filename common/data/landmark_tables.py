"""Landmarks as CSV: one image's annotation, read, and the predictions of many images, written."""

import csv
import io
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from .atomic_writing import write_atomically
from .landmark_points import ABSENT, LandmarkFile, check_unique
from .markups_files import TO_RAS


def read_landmark_csv(path: str | os.PathLike) -> LandmarkFile:
    """Landmarks of one image from a CSV.

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
    rows = [[field.strip() for field in row] for row in csv.reader(lines)]
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


def _point(texts: Sequence[str], place: str) -> list[float]:
    """Coordinates from the texts of a row."""
    if not any(texts):
        return [math.nan] * len(texts)
    if ABSENT in texts and set(texts) <= {ABSENT, ""}:
        return [math.inf] * len(texts)
    try:
        values = [float(text) for text in texts]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
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


class LandmarkTable:
    """Landmarks of many images that become one CSV, written atomically at the end.

    Columns: image, name, pixel_x, pixel_y (pixel_z where an image is a volume), and in the space that their
    names state lps_x, lps_y, lps_z or ras_x, ...; confidence. Coordinates of landmarks without annotation
    stay empty, of absent ones say so.

    Args:
        space: "LPS" as 3D Slicer's files, or "RAS".
    """

    def __init__(self, space: str = "LPS") -> None:
        if space not in ("LPS", "RAS"):
            raise ValueError(f"space must be LPS or RAS, got {space!r}")
        self.space = space
        self.rows: list[tuple] = []
        self.dims = 2
        self.with_spread = False

    def add(
        self,
        image: str | os.PathLike,
        names: Sequence[str],
        pixels: np.ndarray,
        world: np.ndarray,
        confidence: Sequence[float] | None = None,
        spread: Sequence[float] | None = None,
    ) -> None:
        """Take up the N landmarks of an image.

        Args:
            pixels: (N, 2) or (N, 3) zero-based file pixels.
            world: (N, 3) world RAS; `common.transforms.to_file_space` gives both.
            confidence: N numbers.
            spread: N numbers, for a column of that name.

        Raises:
            InputError: if the numbers differ.
        """
        pixels, world = np.asarray(pixels, dtype=np.float64), np.asarray(world, dtype=np.float64)
        confidence = [math.nan] * len(names) if confidence is None else confidence
        if len(pixels) != len(names) or world.shape != (len(names), 3) or len(confidence) != len(names):
            raise InputError(f"{image}: {len(names)} names, {len(pixels)} pixels and {len(world)} points do not fit.")
        self.dims = max(self.dims, pixels.shape[1])
        turned = np.where(np.isfinite(world), world * TO_RAS[self.space], world)  # its own inverse
        self.with_spread |= spread is not None
        spread = [math.nan] * len(names) if spread is None else spread
        for name, pixel, point, certainty, width in zip(names, pixels, turned, confidence, spread):
            self.rows.append((str(image), name, pixel, point, float(certainty), float(width)))

    def write(self, path: str | os.PathLike) -> None:
        """Write all rows."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        axes = "xyz"[: self.dims]
        space = self.space.lower()
        header = ["image", "name", *(f"pixel_{a}" for a in axes), *(f"{space}_{a}" for a in "xyz"), "confidence"]
        table.writerow([*header, "spread"] if self.with_spread else header)
        for image, name, pixel, point, *numbers in self.rows:
            cells = [_cell(value) for value in pixel] + [""] * (self.dims - len(pixel))
            told = [f"{number:.3f}" if number >= 0 else "" for number in numbers]
            table.writerow([image, name, *cells, *map(_cell, point), *(told if self.with_spread else told[:1])])
        write_atomically(path, text.getvalue())


def _cell(value: float) -> str:
    """A coordinate to a tenth of a micrometre, or what stands for none."""
    if np.isposinf(value):
        return ABSENT
    return f"{value + 0.0:.4f}".replace("-0.0000", "0.0000") if np.isfinite(value) else ""
