"""One evaluated film as one looks at it, x to the right and y down, as the clinical measurements are defined."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..transforms.coordinates import world_to_voxel
from ..transforms.landmark_loading import upright_frame
from .geometry import clinical_points


@dataclass(eq=False)
class Film:
    """Predicted and true landmarks of a flat image.

    Attributes:
        image: its file.
        size: width and height in pixels of the upright film (`upright_frame`): those of the file, unless its axes lie
            otherwise.
        pixel_size: width and height of a pixel in `unit`.
        unit: "mm", or "pixel" where no physical size is known.
        pred: (N, 2), upright pixels (x right, y down), NaN for those without a position.
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
        """Upright pixels (N, 2) in `unit`, so that angles hold where pixels are not square."""
        return points * self.pixel_size

    @property
    def height(self) -> float:
        """Height of the film in `unit`."""
        return float(self.size[1] * self.pixel_size[1])

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

    affine, size = upright_frame(meta)

    def upright(points: Any) -> torch.Tensor:
        return clinical_points(world_to_voxel(torch.as_tensor(points)[0].cpu(), affine))

    return Film(
        image=str(meta["filename_or_obj"]),
        size=size,
        pixel_size=affine[:3, :2].norm(dim=0) * float(batch["mm_per_world"]),
        unit=str(batch["unit"]),
        pred=upright(output["pred"]),
        truth=upright(output["label"]),
        observers={key: upright(batch[key]) for key in observers if key in batch},
        item={key: batch[key] for key in keep if key in batch},
    )
