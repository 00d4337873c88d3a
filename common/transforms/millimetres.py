"""The scale from world units to millimetres: it scales errors and lengths, and never moves a coordinate."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform

from ..errors import InputError
from .coordinates import is_present

logger = logging.getLogger(__name__)


class MillimetreScaled(Transform):
    """Write how many millimetres one unit of an image's world is.

    The first that is known counts: the distance between two reference landmarks, or centroids of landmarks, of known
    length (the wrist width of hand radiographs, L4 to L5 of the spine), the pixel spacing of the datalist, the
    physical size in the image's header (`mm_per_world` of `common.data.LandmarkImageReader`). Where none is known the
    scale is that to pixels of the file, the unit is "pixel" and a warning says so.

    Args:
        image_key: image with meta, as loaded.
        label_key: landmarks in world coordinates, (1, N, D); needed for the reference landmarks alone.
        spacing_key: item of the datalist with the size of one file pixel in mm, per axis.
        scale_key: where the scale is written, a float.
        unit_key: where "mm" or "pixel" is written.
        reference_points: two ends, each the index of a landmark or indices of several whose centroid it is; or empty.
        reference_length: their distance in mm.
        reference_min_share: smallest distance of the two ends that is believed, as a share of the landmarks' extent
            (the diagonal of their bounding box): ends that were annotated on one place give no scale.

    Raises:
        InputError: if the scale is not positive or differs between the axes by over 1 %.
    """

    def __init__(
        self,
        image_key: str = "image",
        label_key: str = "label",
        spacing_key: str = "spacing",
        scale_key: str = "mm_per_world",
        unit_key: str = "unit",
        reference_points: Sequence[int | Sequence[int]] = (),
        reference_length: float = 0.0,
        reference_min_share: float = 0.0,
    ) -> None:
        self.image_key = image_key
        self.label_key = label_key
        self.spacing_key = spacing_key
        self.scale_key = scale_key
        self.unit_key = unit_key
        self.reference_points = list(reference_points)
        self.reference_length = reference_length
        self.reference_min_share = reference_min_share

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        item = dict(data)
        meta = item[self.image_key].meta
        scale = self.by_reference(item.get(self.label_key))
        if scale is None and item.get(self.spacing_key) is not None:
            scale = self.by_spacing(item[self.spacing_key], meta)
        if scale is None:
            scale = float(meta.get("mm_per_world", np.nan))
        known = np.isfinite(scale)
        if known and scale <= 0:
            raise InputError(f"{meta.get('filename_or_obj')}: the size of a pixel must be positive, got {scale:g} mm.")
        if not known:
            logger.warning(
                "%s: no pixel spacing is known, nor a distance of reference landmarks; its errors are in pixels. "
                "Give the spacing in the datalist.",
                meta.get("filename_or_obj"),
            )
        item.pop(self.spacing_key, None)
        item[self.scale_key] = scale if known else 1 / world_units_per_pixel(item[self.image_key])
        item[self.unit_key] = "mm" if known else "pixel"
        return item

    def by_reference(self, label: torch.Tensor | None) -> float | None:
        """mm per world unit from the ends of the reference; None where they have no position or lie on one place."""
        if label is None or len(self.reference_points) != 2:
            return None
        points = torch.as_tensor(label)[0]
        ends = [points[[end] if isinstance(end, int) else list(end)] for end in self.reference_points]
        if not all(bool(is_present(end).all()) for end in ends):
            return None
        present = points[is_present(points)]
        extent = float((present.amax(0) - present.amin(0)).norm())
        distance = float((ends[0].mean(0) - ends[1].mean(0)).norm())
        return self.reference_length / distance if distance > self.reference_min_share * extent else None

    @staticmethod
    def by_spacing(spacing: Sequence[float], meta: Mapping[str, Any]) -> float:
        """mm per world unit from the size of a file pixel in mm and in world units."""
        pixel = np.linalg.norm(np.asarray(meta["original_affine"], dtype=np.float64)[:3, : len(spacing)], axis=0)
        scales = np.asarray(spacing, dtype=np.float64) / pixel
        if not np.allclose(scales, scales[0], rtol=0.01):
            raise InputError(
                f"{meta.get('filename_or_obj')}: the spacing {list(spacing)} of the datalist and that of the file "
                f"({pixel.tolist()}) differ by another factor on each axis; correct one of them, or save the "
                "image in a format that states its spacing, such as MHA or NIfTI."
            )
        return float(scales[0])


def world_units_per_pixel(image: MetaTensor) -> float:
    """Side of a file pixel of an image (C, *spatial) in units of the world, the geometric mean of the axes.

    It is 1 for files that say nothing, and another number for those whose resolution nobody measured.
    """
    affine = np.asarray(image.meta["original_affine"], dtype=np.float64)
    pixel = np.linalg.norm(affine[:3, : image.ndim - 1], axis=0)
    return float(np.exp(np.log(pixel).mean()))


class InMillimetresd(MapTransform):
    """Copy landmarks, scaled to millimetres and on the CPU, under `<key>_mm`: differences of these are errors in mm.

    Args:
        keys: landmarks in world coordinates, (1, N, D).
        scale_key: millimetres per world unit.
    """

    def __init__(self, keys: KeysCollection, scale_key: str = "mm_per_world", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scale_key = scale_key

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[f"{key}_mm"] = item[key].cpu() * float(item[self.scale_key])
        return item
