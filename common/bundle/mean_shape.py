"""The mean shape by which a bundle tells images of something else, and what its thresholds must lie between."""

import os

import numpy as np

from ..data import load_datalist
from ..data.atomic_writing import write_atomically
from ..data.landmark_tables import read_landmark_table
from ..errors import InputError
from ..transforms.landmark_loading import load_annotated
from ..transforms.plausibility import mean_shape_of, shape_distance
from .compact_json import compact_json
from .location import PACKAGE_NAME, bundle_mean_shape, bundle_path
from .package import read_config

DECIMALS = 4


def show_plausibility(name: str, *tables: str) -> None:
    """Print how sure predictions are and how far their shapes are from a bundle's mean shape, a line for each table.

    The thresholds in inference.json (`min_mean_confidence`, `max_shape_distance`) belong between a table of images of
    the anatomy and tables of other images.

    Args:
        name: a bundle of the repository, or its folder.
        tables: `landmarks.csv` of predictions, of which the world coordinates are compared.

    Raises:
        InputError: if the bundle has no mean shape, or a table is none of its landmarks.
    """
    mean = np.array(bundle_mean_shape(bundle_path(name)))
    if not mean.size:
        raise InputError(f"{name}: has no mean shape; measure one with python -m {PACKAGE_NAME}.bundle mean_shape.")
    if not tables:
        raise InputError(f"{name}: there is nothing to compare; give one landmarks.csv of a prediction or more.")
    for table in tables:
        images = list(read_landmark_table(table).values())
        shapes = [image.world for image in images]
        if any(image.pixels.shape != mean.shape for image in images):
            raise InputError(f"{table}: has not the {len(mean)} landmarks of {name}; give a prediction by this bundle.")
        confidence = [image.confidence.mean() for image in images]
        distance = np.array([shape_distance(shape, mean) for shape in shapes])
        known = distance[np.isfinite(distance)]
        told = f"shape {known.min():.2f} to {known.max():.2f} from the mean" if known.size else ""
        without = f"{len(distance) - known.size} without a shape" if known.size < len(distance) else ""
        print(
            f"{table}: {len(images)} images, mean confidence {min(confidence):.2f} to {max(confidence):.2f}, "
            + ", ".join(text for text in (told, without) if text)
        )


def measure_mean_shape(name: str, dataset_dir: str | os.PathLike, lists: list[str] | str = "training") -> None:
    """Write the mean shape of annotated images into a bundle's inference.json, and print how far each is from it.

    The largest likely distance (`max_shape_distance` there) is for its owner to set: over the distances of right
    shapes, which this prints, and under those of predictions on images of something else.

    Args:
        name: a bundle of the repository, or its folder.
        dataset_dir: folder with a `datalist.json`.
        lists: whose images are taken.

    Raises:
        InputError: if the bundle has no `plausibility`, or no image has all landmarks.
    """
    path = bundle_path(name) / "configs" / "inference.json"
    config = read_config(path)
    if "plausibility" not in config:
        raise InputError(f"{path}: has no plausibility, whose mean_shape this would be; add one, as scn_hand has.")
    names = config["landmarks"]
    dims = len(read_config(path.with_name("metadata.json"))["network_data_format"]["inputs"]["image"]["spatial_shape"])
    items = {}
    for each in [lists] if isinstance(lists, str) else lists:
        items |= {item["image"]: item for item in load_datalist(dataset_dir, each, names)}
    shapes = np.stack([load_annotated(item, names, dims)[1][0].numpy() for item in items.values()])
    whole = shapes[np.isfinite(shapes).all(axis=(1, 2))]
    if not len(whole):
        raise InputError(f"{dataset_dir}: no image of {lists} has all {len(names)} landmarks; give other lists.")
    mean = mean_shape_of(whole)
    config["plausibility"]["mean_shape"] = mean.round(DECIMALS).tolist()
    write_atomically(path, compact_json(config))
    distances = np.array([shape_distance(shape, mean) for shape in shapes])
    quantiles = ", ".join(f"{q:g} %: {np.nanpercentile(distances, q):.3f}" for q in (50, 95, 99, 100))
    print(f"{path}: mean shape of {len(whole)} images; of all {len(shapes)} the distances from it are {quantiles}")
