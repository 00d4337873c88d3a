"""One evaluated film in the space of its file, in which the clinical measurements are defined."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..transforms.landmark_loading import to_file_space
from .geometry import clinical_points


@dataclass(eq=False)
class Film:
    """Predicted and true landmarks of a flat image.

    Attributes:
        image: its file.
        size: width and height in file pixels.
        pixel_size: width and height of a file pixel in `unit`.
        unit: "mm", or "pixel" where no physical size is known.
        pred: (N, 2), file pixels (x right, y down), NaN for those without a position.
        truth: likewise.
        observers: further annotations of the same landmarks, likewise, by the name of who made them.
        item: everything that the data loader gives with the image.
    """

    image: str
    size: tuple[int, int]
    pixel_size: torch.Tensor
    unit: str
    pred: torch.Tensor
    truth: torch.Tensor
    observers: dict[str, torch.Tensor] = field(default_factory=dict)
    item: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def scaled(self, points: torch.Tensor) -> torch.Tensor:
        """File pixels (N, 2) in `unit`: axes of the file, so that angles hold where pixels are not square."""
        return points * self.pixel_size

    @property
    def mm(self) -> float:
        """Millimetres per `unit`; NaN where unknown."""
        return 1.0 if self.unit == "mm" else float("nan")


def evaluated_film(
    batch: Mapping[str, Any], output: Mapping[str, Any], observers: tuple[str, ...] = (), keep: tuple[str, ...] = ()
) -> Film:
    """The film of one image of an evaluation.

    Args:
        batch: the image's item of the data loader, with `mm_per_world`, `unit`, and, where there are any, landmarks of
            the observers in world coordinates, (1, N, 2), as `common.transforms.LoadLandmarksd` makes them.
        output: the evaluator's output for it, with `image`, and `pred` and `label` in world coordinates, (1, N, 2).
        observers: keys of annotations to take along where they are there.
        keep: further keys of the item to take along where they are there.

    Raises:
        ValueError: if an observer's annotation is no loaded landmarks.
    """
    for key in observers:
        if key in batch and getattr(batch[key], "ndim", 0) != 3:
            raise ValueError(f"'{key}' is no landmarks in world coordinates; load it with LoadLandmarksd")
    meta = output["image"].meta

    def file_points(points: Any) -> torch.Tensor:
        return clinical_points(to_file_space(torch.as_tensor(points)[0], meta)[0])

    affine = torch.as_tensor(np.asarray(meta["original_affine"], dtype=np.float64)).reshape(4, 4)
    return Film(
        image=str(meta["filename_or_obj"]),
        size=tuple(int(n) for n in np.asarray(meta["spatial_shape"]).ravel()),
        pixel_size=affine[:3, :2].norm(dim=0) * float(batch["mm_per_world"]),
        unit=str(batch["unit"]),
        pred=file_points(output["pred"]),
        truth=file_points(output["label"]),
        observers={key: file_points(batch[key]) for key in observers if key in batch},
        item={key: batch[key] for key in keep if key in batch},
    )
