"""What the markups of a `.mrk.json` show on a film: points, lines and angles, without 3D Slicer."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..data.markups_files import TO_RAS
from ..errors import InputError
from ..transforms.coordinates import voxel_to_world, world_to_voxel
from ..transforms.landmark_loading import image_loader
from ..transforms.resize_to_fit import square_pixels
from .overlay import ERROR, PREDICTION, TEXT, grey_picture, picture_font

LINE = (90, 200, 255)
ANGLE = ERROR


def draw_markups(
    image: str | os.PathLike, markups: Sequence[str | os.PathLike], size: int = 1024, point_labels: bool = True
) -> Image.Image:
    """Draw the nodes of `.mrk.json` files on a flat image, each where its world coordinates lie.

    Lists of points are red rings, lines blue, angles yellow with the value that the file tells.

    Args:
        image: its file.
        markups: files with points, lines and angles.
        size: the longer side of the picture is at least this many pixels.
        point_labels: whether the names of points are written; those of lines and angles always are.

    Raises:
        InputError: if the image is no flat one, or a file holds no markups.
    """
    plane = square_pixels(image_loader(2)(str(image)))
    picture, factor = grey_picture(plane[0], size)
    canvas, font, radius = ImageDraw.Draw(picture), picture_font(round(size / 70)), max(picture.size) / 250
    affine = torch.as_tensor(np.asarray(plane.meta["plane_affine"], dtype=np.float64))
    written: list[tuple[float, ...]] = []

    def write(place: np.ndarray, text: str, color: tuple[int, int, int]) -> None:
        left = min(place[0], picture.width - canvas.textlength(text, font=font) - 4)
        for line in range(8):  # lower where it would cover another one
            shifted = (left, place[1] + line * font.size)
            box = canvas.textbbox(shifted, text, font=font)
            if all(box[0] > b[2] or box[2] < b[0] or box[1] > b[3] or box[3] < b[1] for b in written):
                written.append(box)
                canvas.text(shifted, text, fill=color, font=font, stroke_width=2, stroke_fill=(0, 0, 0))
                return

    for path in markups:
        for node, labels, world in _nodes(path):
            in_file = world_to_voxel(torch.from_numpy(world), affine)[:, :2]
            upright = voxel_to_world(in_file, plane.meta["original_affine"])  # flipped or swapped axes are turned
            pixels = world_to_voxel(upright, plane.affine).numpy()
            places = (pixels + 0.5) * factor - 0.5
            if node["type"] in ("Line", "Angle"):
                color = LINE if node["type"] == "Line" else ANGLE
                canvas.line([tuple(place) for place in places], fill=color, width=max(1, round(radius / 1.5)))
                write(places[len(places) // 2] + [2 * radius, -4 * radius], _told(node), color)
                continue
            for place, label in zip(places, labels):
                canvas.ellipse([*(place - radius), *(place + radius)], outline=PREDICTION, width=2)
                if point_labels:
                    write(place + [1.6 * radius, 0.6 * radius], label, TEXT)
    return picture


def _nodes(path: str | os.PathLike) -> Iterator[tuple[Mapping[str, Any], list[str], np.ndarray]]:
    """Nodes of a file with the labels and places (N, 3), in RAS, of the points that have one."""
    try:
        with open(path, encoding="utf-8") as file:
            nodes = json.load(file)["markups"]
        for node in nodes:
            placed = [point for point in node["controlPoints"] if "position" in point]
            signs = np.array(TO_RAS[node["coordinateSystem"]])
            world = np.array([point["position"] for point in placed], dtype=np.float64).reshape(-1, 3) * signs
            yield node, [point["label"] for point in placed], world
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no readable 3D Slicer markups file; save it from 3D Slicer again.") from error


def _told(node: Mapping[str, Any]) -> str:
    """Name of a line or an angle with the values that stand in the file."""
    values = [v for v in node.get("measurements", []) if "value" in v]
    units = {"deg": "\N{DEGREE SIGN}", "mm": " mm"}
    told = ", ".join(f"{v['name']} {v['value']:.1f}{units.get(v.get('units'), '')}" for v in values)
    return f"{node['name']}: {told}" if told and node["type"] == "Line" else told or node["name"]
