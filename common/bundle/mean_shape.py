"""The mean shape by which a bundle tells images of something else."""

import os
from pathlib import Path

import numpy as np

from ..data import load_datalist
from ..data.atomic_writing import write_atomically
from ..errors import InputError
from ..transforms.landmark_loading import load_annotated
from ..transforms.plausibility import mean_shape_of, shape_distance
from .compact_json import compact_json
from .location import bundle_folder
from .package import read_config

DECIMALS = 4


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
    folder = Path(name) if (Path(name) / "configs").is_dir() else bundle_folder(name)
    path = folder / "configs" / "inference.json"
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
