"""Copies of a list's radiographs, changed as images of other places may be: what a trained model is measured on."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Affine, Flip, LoadImage, Rotate, SpatialCrop
from PIL import Image

from ..errors import InputError
from ..transforms.coordinates import is_present, world_to_voxel
from ..transforms.landmark_loading import LoadLandmarksd
from .datalist import datalist_info, load_datalist, tell_lists, write_datalist
from .image_files import LandmarkImageReader

DEGREES, SMALLER, LARGER, CROPPED, DARK, BRIGHT = 30.0, 0.7, 1.3, 0.25, 2.0, 0.5


def scaled(factor: float) -> Callable[[MetaTensor], MetaTensor]:
    """Content larger by a factor about the middle, on an image of the same size."""
    return Affine(scale_params=(1 / factor, 1 / factor), padding_mode="zeros", image_only=True)


def rotated(degrees: float) -> Callable[[MetaTensor], MetaTensor]:
    """The whole image turned, on a larger one that holds it."""
    return Rotate(np.deg2rad(degrees), keep_size=False, padding_mode="zeros")


def without(axis: int, first: float, last: float) -> Callable[[MetaTensor], MetaTensor]:
    """The image without a share of its rows or columns at either end."""

    def crop(image: MetaTensor) -> MetaTensor:
        start, end = [0, 0], list(image.shape[1:])
        start[axis], end[axis] = round(first * end[axis]), end[axis] - round(last * end[axis])
        return SpatialCrop(roi_start=start, roi_end=end)(image)

    return crop


def gamma(exponent: float) -> Callable[[MetaTensor], MetaTensor]:
    """Grey values in [0, 1] to a power."""
    return lambda image: image**exponent


# of images (1, W, H) with grey values in [0, 1]
CHANGES: dict[str, Callable[[MetaTensor], MetaTensor]] = {
    "unchanged": lambda image: image,
    "mirrored": Flip(0),
    "rotated_left": rotated(-DEGREES),
    "rotated_right": rotated(DEGREES),
    "smaller": scaled(SMALLER),
    "larger": scaled(LARGER),
    "inverted": lambda image: 1 - image,
    "dark": gamma(DARK),
    "bright": gamma(BRIGHT),
    "cropped_top": without(1, CROPPED, 0),
    "cropped_left": without(0, CROPPED, 0),
    "cropped_right": without(0, 0, CROPPED),
}


def changed_copies(source: str, target: str, list_name: str = "test") -> dict[str, int]:
    """Write changed copies of a list of radiographs, a list for each change, to evaluate a trained model on.

    The changes: mirrored; rotated by 30 degrees to either side (the image grows); content smaller (0.7) or larger
    (1.3) on an image of the same size; grey values inverted, or to the power of 2 (dark) or 0.5 (bright); a quarter
    cropped at the top, left or right. Landmarks move along; those that are no longer on the image are not annotated in
    the copy. Copies are 8-bit PNG, with black where nothing of the original is; unchanged ones are there to compare.
    The training list of the source stays, for measures that need it.

    Args:
        source: folder with a `datalist.json` of 2D images.
        target: folder of the copies and their `datalist.json`.
        list_name: which list is copied.

    Returns:
        number of images per list.

    Raises:
        InputError: if the source is malformed, an image cannot be read or is no 2D image, or the target is the source.
    """
    root = Path(target)
    if root.resolve() == Path(source).resolve():
        raise InputError(f"{target}: is the source itself; give another folder for the copies.")
    info = datalist_info(source)
    items = load_datalist(source, list_name)
    load = LoadImage(reader=LandmarkImageReader(spatial_dims=2), ensure_channel_first=True, image_only=True)
    points_of = LoadLandmarksd(names=info["landmarks"])
    lists: dict[str, list[dict]] = {change: [] for change in CHANGES}
    for number, item in enumerate(items):
        image = load(item["image"])
        label = points_of({"image": image, "landmarks": item["landmarks"]})["label"][0]
        low, high = float(image.min()), float(image.max())
        image = (image - low) / max(high - low, 1e-6)
        for change, apply in CHANGES.items():
            copy = apply(image)
            name = f"{change}/{number:04d}_{Path(item['image']).stem}.png"
            grey = (copy.as_tensor()[0].clamp(0, 1) * 255).round().to(torch.uint8)
            (root / change).mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey.numpy().T).save(root / name)
            points = world_to_voxel(label, copy.affine).tolist()
            kept = is_present(label).tolist()
            inside = [k and all(-0.5 <= x <= n - 0.5 for x, n in zip(p, grey.shape)) for k, p in zip(kept, points)]
            entry = {"image": name, "landmarks": [p if there else None for p, there in zip(points, inside)]}
            lists[change].append(entry | {"group": item.get("group", Path(item["image"]).stem)})
    training = [{**item, "image": os.path.relpath(item["image"], root)} for item in load_datalist(source, "training")]
    write_datalist(
        root, name=f"{info['name']}, changed copies of its list {list_name}", phantom=info["phantom"],
        truth=info["truth"], landmarks=info["landmarks"], training=training, **lists,
    )  # fmt: skip
    return tell_lists(root)
