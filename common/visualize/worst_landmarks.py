"""Pictures of the largest errors of an evaluation, to find out why they are there."""

import csv
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, SpatialCrop
from PIL import Image

from ..data.atomic_writing import replaced_atomically
from ..data.image_files import LandmarkImageReader
from ..errors import InputError
from ..transforms.coordinates import world_to_voxel
from ..transforms.resize_to_fit import ResizeToFit
from .overlay import TEXT
from .overlay_picture import overlay_picture
from .panels import beside, stacked, text_strip

SHARE = 0.12  # of a film's longer side that a picture shows, more where prediction and truth lie farther apart
SIZE = 400  # pixels of a film's picture
COLUMNS = 5


def draw_worst(errors: str, picture: str, count: int = 20) -> list[str]:
    """Draw the landmarks with the largest errors of an evaluation, each with its surroundings, and print them.

    Args:
        errors: `errors.csv` of an evaluation; its images must be where they were.
        picture: PNG or JPEG to write.
        count: how many landmarks.

    Returns:
        the printed lines: error, landmark, image, confidence.

    Raises:
        InputError: if the table is none of an evaluation, holds no measured error, or an image cannot be read.
    """
    try:
        with open(errors, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["status"] == "measured"]
        rows.sort(key=lambda row: -float(row["error"]))
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise InputError(f"{errors}: is no errors.csv of an evaluation ({error}); give the file as written.") from error
    if not rows or count < 1:
        raise InputError(f"{errors}: has no measured error to draw; evaluate images whose landmarks are annotated.")
    rows, lines, drawn = rows[:count], [], []
    for row in rows:
        line = f"{float(row['error']):.2f} {row['unit']} {row['landmark']}, {Path(row['image']).name}"
        lines.append(f"{line}, confidence {float(row['confidence']):.2f}")
        drawn.append(draw_case(row, line))
        print(lines[-1])
    page = stacked([beside(drawn[i : i + COLUMNS]) for i in range(0, len(drawn), COLUMNS)])
    path = Path(picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_atomically(path) as temporary:
        page.save(temporary, format="JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG")
    return lines


def draw_case(row: dict[str, str], title: str) -> Image.Image:
    """One landmark of a table of errors, predicted (red) and true (green), on the part of the film around it or in the
    three planes of a volume."""
    axes = [axis for axis in "xyz" if f"true_{axis}" in row]
    world = torch.tensor([[float(row[f"{kind}_{axis}"]) for axis in axes] for kind in ("predicted", "true")])
    reader = LandmarkImageReader(spatial_dims=len(axes))
    image = LoadImage(reader=reader, ensure_channel_first=True, image_only=True)(row["image"])
    if len(axes) == 2:
        image = ResizeToFit(SIZE)(surroundings(image, world_to_voxel(world.double(), image.affine).numpy()))
    picture = overlay_picture(image, world[:1], world[1:], [""], size=SIZE if len(axes) == 2 else 3 * SIZE)
    return stacked([text_strip([[(title, TEXT)]], picture.width), picture])


def surroundings(image: MetaTensor, points: np.ndarray) -> MetaTensor:
    """A square part of a film (1, W, H) around points (M, 2) in pixels, padded nowhere."""
    middle = points.mean(0)
    side = max(SHARE * max(image.shape[1:]), 2.5 * np.ptp(points, axis=0).max())
    limits = np.array(image.shape[1:])
    start = np.clip(np.floor(middle - side / 2), 0, np.maximum(limits - side, 0)).astype(int)
    end = np.minimum(start + int(np.ceil(side)), limits)
    return SpatialCrop(roi_start=start.tolist(), roi_end=end.tolist())(image)
