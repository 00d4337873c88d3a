"""Copies of a list's radiographs, changed as images of other places may be: what a trained model is measured on."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Affine, Flip, Rotate, SpatialCrop
from PIL import Image

from ..errors import InputError
from ..transforms.coordinates import is_present, world_to_voxel
from ..transforms.landmark_loading import load_annotated
from ..transforms.millimetres import MillimetreScaled
from ..transforms.resize_to_fit import square_pixels
from .datalist import datalist_info, load_datalist, tell_lists, write_datalist
from .landmark_points import ABSENT
from .spine import SPINE_LANDMARKS, of_mirrored_film

DARK, BRIGHT = 2.0, 0.5


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


def changes(
    degrees: float = 30.0, smaller: float = 0.7, larger: float = 1.3, cropped: float = 0.25
) -> dict[str, Callable[[MetaTensor], MetaTensor]]:
    """What is done to images (1, W, H) with grey values in [0, 1], by name; arguments of `changed_copies`."""
    return {
        "unchanged": lambda image: image,
        "mirrored": Flip(0),
        "rotated_left": rotated(degrees),  # counterclockwise as one sees it, y down
        "rotated_right": rotated(-degrees),
        "smaller": scaled(smaller),
        "larger": scaled(larger),
        "inverted": lambda image: 1 - image,
        "dark": gamma(DARK),
        "bright": gamma(BRIGHT),
        "cropped_top": without(1, cropped, 0),
        "cropped_left": without(0, cropped, 0),
        "cropped_right": without(0, 0, cropped),
    }


def changed_copies(
    source: str,
    target: str,
    list_name: str = "test",
    reference_points: Sequence[int] = (),
    reference_length: float = 0.0,
    reference_min_share: float = 0.01,
    degrees: float = 30.0,
    smaller: float = 0.7,
    larger: float = 1.3,
    cropped: float = 0.25,
    every: int = 1,
) -> dict[str, int]:
    """Write changed copies of a list of radiographs, a list for each change, to evaluate a trained model on.

    The changes: mirrored; rotated to either side (the image grows); content smaller or larger on an image of the
    same size; grey values inverted, or to the power of 2 (dark) or 0.5 (bright); cropped at the top, left or right.
    Landmarks move along, and the left and right corners of vertebrae, which are those of the picture, change places in
    the mirrored; those that are no longer on the image are not annotated in the copy, absent ones stay
    absent. Copies are 8-bit PNG, with black where nothing of the original is, and state the spacing where that of
    the original is known; films whose pixels are not square are brought to square ones first; unchanged ones are there
    to compare. The training list of the source, if there is one, stays for measures that need it.

    Args:
        source: folder with a `datalist.json` of 2D images.
        target: new folder of the copies and their `datalist.json`.
        list_name: which list is copied.
        reference_points: two landmarks, counted from 0, of known distance (`[1,5]` of the hand); with it the copies
            know their millimetres where a reference is cropped away.
        reference_length: that distance in mm.
        reference_min_share: smallest distance of them that is believed, as a share of the landmarks' extent (as of
            `common.transforms.MillimetreScaled`); where it is less, a copy has no millimetres.
        degrees: of the rotations, more than 0 and less than 90.
        smaller: size of the smaller content, between 0 and 1.
        larger: size of the larger content, more than 1.
        cropped: share of the image that is cropped away, between 0 and 0.9.
        every: 1 copies all images of the list, 3 every third one, beginning with the first.

    Returns:
        number of images per list.

    Raises:
        InputError: if a change is out of its range, the source is malformed or names no landmarks, an image cannot be
            read or is no 2D image, or the target is there already or cannot be written.
    """
    for name, value, low, high in (
        ("degrees", degrees, 0, 90),
        ("smaller", smaller, 0, 1),
        ("larger", larger, 1, float("inf")),
        ("cropped", cropped, 0, 0.9),
    ):
        if not (isinstance(value, (int, float)) and low < value < high):
            raise InputError(f"--{name} {value}: is not between {low} and {high}; give a number that is.")
    if type(every) is not int or every < 1:
        raise InputError(f"--every {every}: is not a whole number from 1 on; give one that is.")
    applied = changes(degrees, smaller, larger, cropped)
    root = Path(target).absolute()
    if root.exists():
        raise InputError(f"{target}: is there already; give a new folder for the copies, or remove it.")
    info = datalist_info(source)
    names = info["landmarks"]
    if names is None:
        raise InputError(f"{source}: its datalist.json names no landmarks; list their names under 'landmarks'.")
    require_reference(reference_points, reference_length, len(names))
    items = load_datalist(source, list_name)[::every]
    training = load_datalist(source, "training") if info["lists"].get("training") else []
    millimetres = MillimetreScaled(
        reference_points=reference_points, reference_length=reference_length, reference_min_share=reference_min_share
    )
    lists: dict[str, list[dict]] = {change: [] for change in applied}
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}.", suffix=".tmp", dir=root.parent) as temporary:
            folder = Path(temporary) / root.name
            for change in applied:
                (folder / change).mkdir(parents=True)
            for number, item in enumerate(items):
                image, label = load_annotated(item, names)
                known = millimetres({"image": image, "label": label, "spacing": item.get("spacing")})
                scale = known["mm_per_world"] if known["unit"] == "mm" else None
                low, high = float(image.min()), float(image.max())
                image = square_pixels((image - low) / max(high - low, 1e-6))
                for change, apply in applied.items():
                    name = f"{change}/{number:04d}_{Path(item['image']).stem}.png"
                    group = item.get("group", Path(item["image"]).stem)
                    swapped = change == "mirrored" and tuple(names) == SPINE_LANDMARKS
                    world = of_mirrored_film(label[0]) if swapped else label[0]
                    entry = {"image": name, "group": group, **write_copy(apply(image), world, folder / name, scale)}
                    lists[change].append(entry)
            write_datalist(
                folder,
                name=f"{info['name']}, changed copies of its list {list_name}",
                phantom=info["phantom"],
                truth=info["truth"],
                landmarks=names,
                **({"training": [relative(item, root) for item in training]} if training else {}),
                **lists,
            )
            os.rename(folder, root)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); choose another folder.") from error
    return tell_lists(root)


def require_reference(points: Any, length: Any, count: int) -> None:
    """See that there is no reference, or one of two landmarks, or two groups of them, and a length in mm.

    Raises:
        InputError: if it is another, or one of the landmarks is none of the `count`, counted from 0.
    """
    is_list = isinstance(points, (list, tuple))
    ends = [end if isinstance(end, (list, tuple)) else [end] for end in points] if is_list else [[]]
    numbers = [number for end in ends for number in end]
    if len(ends) not in (0, 2) or not all(type(n) is int and 0 <= n < count for n in numbers) or [] in ends:
        raise InputError(
            f"--reference_points {points}: are not two of the {count} landmarks, counted from 0; give them as [1,5], "
            "or as [[0,1],[2,3]] for the middles of several."
        )
    if ends and not (isinstance(length, (int, float)) and 0 < length < float("inf")):
        raise InputError(f"--reference_length {length}: is no positive number of millimetres; give one.")


def write_copy(image: MetaTensor, label: torch.Tensor, path: Path, scale: float | None) -> dict[str, Any]:
    """Write a grey image (1, W, H) in [0, 1]; landmarks (N, 2) in world coordinates become those of the copy's pixels.

    Returns:
        `landmarks` of a datalist's item, and `spacing` where the millimetres of a world unit are known.
    """
    grey = (image.as_tensor()[0].clamp(0, 1) * 255).round().to(torch.uint8)
    Image.fromarray(grey.numpy().T).save(path)
    landmarks: list[list[float] | str | None] = []
    for point, world in zip(world_to_voxel(label, image.affine).tolist(), label):
        on_image = bool(is_present(world)) and all(-0.5 <= x <= n - 0.5 for x, n in zip(point, grey.shape))
        landmarks.append(point if on_image else ABSENT if bool(torch.isinf(world).all()) else None)
    if scale is None:
        return {"landmarks": landmarks}
    return {"landmarks": landmarks, "spacing": (scale * image.affine[:3, :2].norm(dim=0)).tolist()}


def relative(item: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """An item of a datalist with the paths of its files as seen from a folder."""
    files = {key: os.path.relpath(item[key], root) for key in ("image", "landmarks") if isinstance(item.get(key), str)}
    return {**item, **files}
