"""Pictures of the largest errors of an evaluation, to find out why they are there."""

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialCrop
from PIL import Image

from ..data.atomic_writing import replaced_atomically, require_writable
from ..errors import InputError
from ..transforms.coordinates import world_to_voxel
from ..transforms.landmark_loading import image_loader
from ..transforms.resize_to_fit import ResizeToFit
from .overlay import TEXT
from .overlay_picture import overlay_picture
from .panels import beside, stacked, text_strip

SHARE = 0.12  # of a film's longer side that a picture shows, more where prediction and truth lie farther apart
SIZE = 400  # pixels of a film's picture
COLUMNS = 5
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def draw_worst(errors: str, picture: str, count: int = 20, of_each_image: int | None = None) -> list[str]:
    """Draw the landmarks with the largest errors of an evaluation, each with its surroundings, and print them.

    Args:
        errors: `errors.csv` of an evaluation; its images must be where they were.
        picture: PNG or JPEG to write.
        count: how many landmarks.
        of_each_image: at most this many of one image, where a single fault moves many, as of a spine that is counted
            from another vertebra.

    Returns:
        the printed lines: error, landmark, image, confidence.

    Raises:
        InputError: if the table is none of an evaluation, holds no measured error, an image cannot be read, the picture
            is none of these files, or a count is no number from 1 on.
    """
    for number in (count, of_each_image):
        if number is not None and (type(number) is not int or number < 1):
            raise InputError(f"{picture}: cannot show {number} landmarks; give a whole number from 1 on.")
    path = Path(picture)
    if path.suffix.lower() not in FORMATS or path.is_dir():
        raise InputError(f"{picture}: is no file to write a picture to; give one that ends in {', '.join(FORMATS)}.")
    seen: Counter[str] = Counter()
    rows = []
    for row in read_rows(errors):
        seen[row["image"]] += 1
        if of_each_image is None or seen[row["image"]] <= of_each_image:
            rows.append(row)
    lines, drawn = [], []
    for row in rows[:count]:
        line = f"{row['error']:.2f} {row['unit']} {row['landmark']}, {Path(row['image']).name}"
        lines.append(f"{line}, confidence {row['confidence']:.2f}")
        drawn.append(draw_case(row, line))
        print(lines[-1])
    page = stacked([beside(drawn[i : i + COLUMNS]) for i in range(0, len(drawn), COLUMNS)])
    require_writable(path.parent)
    with replaced_atomically(path) as temporary:
        page.save(temporary, format=FORMATS[path.suffix.lower()])
    return lines


def read_rows(errors: str) -> list[dict[str, Any]]:
    """Measured landmarks of an `errors.csv`, the largest error first; in millimetres, where any are.

    Returns:
        `image`, `landmark`, `unit`, `error`, `confidence`, and `world`: predicted and true point (2, D) in RAS.

    Raises:
        InputError: if it is none of an evaluation, or has no measured error.
    """
    rows = []
    if not Path(errors).is_file():
        raise InputError(f"{errors}: there is no such file; give the errors.csv of an evaluation.")
    try:
        with open(errors, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["status"] == "measured":
                    axes = ["x", "y", *(["z"] if "true_z" in row else [])]
                    world = [[float(row[f"{kind}_{axis}"]) for axis in axes] for kind in ("predicted", "true")]
                    numbers = {"error": float(row["error"]), "confidence": float(row["confidence"])}
                    texts = {key: row[key] for key in ("image", "landmark", "unit")}
                    rows.append({**texts, **numbers, "world": torch.tensor(world, dtype=torch.float64)})
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{errors}: is no errors.csv of an evaluation ({error}); give the file as written.") from error
    rows = [row for row in rows if row["unit"] == "mm"] or rows
    if not rows:
        raise InputError(f"{errors}: has no measured error to draw; evaluate images whose landmarks are annotated.")
    return sorted(rows, key=lambda row: -row["error"])


def draw_case(row: Mapping[str, Any], title: str) -> Image.Image:
    """One of `read_rows`, predicted (red) and true (green), on the part of the film around it or in the three planes of
    a volume."""
    world = row["world"]
    dims = world.shape[1]
    image = image_loader(dims)(row["image"])
    if dims == 2:
        image = ResizeToFit(SIZE)(surroundings(image, world_to_voxel(world, image.affine).numpy()))
    size = SIZE if dims == 2 else 3 * SIZE
    distance = float((world[0] - world[1]).norm())
    scale = row["error"] / distance if distance else 1.0  # the datalist's millimetres, which may not be the file's
    picture = overlay_picture(image, world[:1], world[1:], [""], size=size, mm_per_world=scale, unit=row["unit"])
    return stacked([text_strip([[(title, TEXT)]], picture.width), picture])


def surroundings(image: MetaTensor, points: np.ndarray) -> MetaTensor:
    """A square part of a film (1, W, H) around points (M, 2) in pixels, padded nowhere."""
    middle = points.mean(0)
    side = max(SHARE * max(image.shape[1:]), 2.5 * np.ptp(points, axis=0).max())
    limits = np.array(image.shape[1:])
    start = np.clip(np.floor(middle - side / 2), 0, np.maximum(limits - side, 0)).astype(int)
    end = np.minimum(start + int(np.ceil(side)), limits)
    return SpatialCrop(roi_start=start.tolist(), roi_end=end.tolist())(image)
