"""The baseline that every model must beat: predicting the mean shape of the training set, whatever the image shows."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..data.datalist import datalist_info, load_datalist
from ..errors import InputError
from ..metrics import error_statistics, radial_errors
from ..transforms.coordinates import voxel_to_world, world_to_voxel
from ..transforms.landmark_loading import load_annotated, upright_frame
from .film import Film, evaluated_film
from .geometry import clinical_points
from .spine_errors import image_fractions

logger = logging.getLogger(__name__)


def mean_shape_error(training_points: torch.Tensor, test_points: torch.Tensor) -> torch.Tensor:
    """Radial errors (B, N) of predicting, for every test film, the mean of the training points.

    Args:
        training_points: (M, N, D), in one frame and unit: mm of images of one size, or fractions of the image.
            Landmarks without a position are left out of their mean.
        test_points: (B, N, D), in the same frame and unit.

    Returns:
        float64, in the unit of the points; NaN where a landmark has no position.
    """
    mean = clinical_points(training_points).nanmean(0)
    return radial_errors(mean, clinical_points(test_points))


def training_fractions(items: Sequence[Mapping[str, Any]], landmarks: Sequence[str]) -> torch.Tensor:
    """Landmarks of flat images of a data list as fractions of their upright widths and heights, (M, N, 2), float64."""
    rows = []
    for item in items:
        image, world = load_annotated(item, landmarks)
        affine, size = upright_frame(image.meta)
        rows.append(image_fractions(clinical_points(world_to_voxel(world[0], affine)), size))
    return torch.stack(rows)


def image_centre(meta: Mapping[str, Any]) -> torch.Tensor:
    """World coordinates (1, D) of the middle of an image as it lies in its file."""
    size = torch.as_tensor(np.asarray(meta["spatial_shape"], dtype=np.float64)).reshape(1, -1)
    return voxel_to_world((size - 1) / 2, np.asarray(meta["original_affine"]).reshape(4, 4))


def training_offsets(items: Sequence[Mapping[str, Any]], landmarks: Sequence[str]) -> torch.Tensor:
    """Landmarks of volumes of a data list from the middle of their volume, (M, N, 3), world (RAS), float64."""
    rows = []
    for item in items:
        image, world = load_annotated(item, landmarks, spatial_dims=3)
        rows.append(clinical_points(world[0]) - image_centre(image.meta))
    return torch.stack(rows)


def common_unit(units: Iterable[str]) -> str:
    """ "mm" where any image has millimetres, whose errors alone count then; else "pixel"."""
    return "mm" if "mm" in units else "pixel"


class MeanShape:
    """The error of the mean shape of the training set, placed on every image whatever it shows.

    On a film it is placed by fractions of width and height; in a volume, whose axes and extent may differ from file to
    file, by its distance in the world from the volume's middle.

    One of the `measures` of `common.handlers.LandmarkReport`. `metrics.json` gets, under "mean_shape", the statistics
    of its radial error (`common.metrics.error_statistics`), of films its mean in percent of the image height, and the
    number of training images.

    Args:
        dataset_dir: folder with a `datalist.json`.
        list_name: its training list; where the data set has none there is no baseline.
        landmarks: names of the landmarks.
    """

    name = "mean_shape"

    def __init__(self, dataset_dir: str | os.PathLike, list_name: str, landmarks: Sequence[str]) -> None:
        self.dataset_dir = dataset_dir
        self.list_name = list_name
        self.landmarks = list(landmarks)
        self.films: list[Film] = []
        self.volumes: list[tuple[torch.Tensor, float, str]] = []
        self.result: dict[str, Any] = {}

    def clear(self) -> None:
        self.films.clear()
        self.volumes.clear()
        self.result = {}

    def collect(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> None:
        if output["image"].ndim == 3:
            self.films.append(evaluated_film(batch, output))
        else:
            truth = clinical_points(torch.as_tensor(output["label"])[0].cpu().double())
            offsets = truth - image_centre(output["image"].meta)
            self.volumes.append((offsets, float(batch["mm_per_world"]), str(batch["unit"])))

    def summary(self) -> dict[str, Any]:
        if not datalist_info(self.dataset_dir)["lists"].get(self.list_name):
            return {}
        try:
            items = load_datalist(self.dataset_dir, self.list_name, self.landmarks)
            means = training_offsets if self.volumes else training_fractions
            mean = means(items, self.landmarks).nanmean(0)
        except InputError as error:  # the measured results are not lost with it
            logger.warning("No error of the mean shape: %s", error)
            return {}
        if self.volumes:
            unit, height = common_unit(unit for _, _, unit in self.volumes), {}
            errors = [
                radial_errors(mean * scale, offsets * scale) for offsets, scale, own in self.volumes if own == unit
            ]
        else:
            guesses = [mean * torch.tensor(film.size) for film in self.films]
            pairs = [(film.scaled(p), film.scaled(film.truth)) for p, film in zip(guesses, self.films)]
            share = [radial_errors(p, truth) / film.height for (p, truth), film in zip(pairs, self.films)]
            unit = common_unit(film.unit for film in self.films)
            height = {"percent_of_image_height": float(100 * torch.stack(share).nanmean())}
            errors = [radial_errors(*pair) for pair, film in zip(pairs, self.films) if film.unit == unit]
        self.result = {
            "training_images": len(items),
            "unit": unit,
            "radial_error": error_statistics(torch.stack(errors).numpy(), ()),
            **height,
        }
        return self.result

    def tables(self) -> dict[str, list[list[Any]]]:
        return {}

    def headline(self) -> str:
        result = self.result or self.summary()
        if not result:
            return f"mean shape: not measured, since the list '{self.list_name}' is missing or not whole"
        error = result["radial_error"]
        if not error["count"]:
            return f"mean shape: the list '{self.list_name}' has no annotations to make it of"
        line = (
            f"mean shape of {result['training_images']} training images, for comparison: {error['mean']:.2f} "
            f"{result['unit']}, median {error['median']:.2f}"
        )
        if "percent_of_image_height" in result:
            line += f" ({result['percent_of_image_height']:.1f} % of the image height)"
        return line
