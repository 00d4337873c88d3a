"""From landmarks in files to world coordinates beside the image, and from world back to the image's file."""

import functools
import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform

from ..data.image_files import LandmarkImageReader, upright_geometry
from ..data.landmark_files import LandmarkFile, inline_points, match_landmarks, read_landmarks
from ..errors import InputError
from .coordinates import is_present, voxel_to_world, world_to_voxel

logger = logging.getLogger(__name__)


class LoadLandmarksd(MapTransform):
    """Put the landmarks of an image beside it, in world coordinates (RAS): (1, N, D), float64.

    Comes after `LoadImaged` with `common.data.LandmarkImageReader`. They are taken from what stands under
    `keys` already, a path (as MONAI Label sends it) or points, else from `source_key`. A path may be
    `.mrk.json`, `.fcsv` or `.csv`; points are zero-based file pixels (`common.data.inline_points`). A row of
    NaN is not annotated, a row of +inf absent.

    Args:
        keys: where the landmarks go.
        image_key: the image, a MetaTensor.
        source_key: landmarks of the datalist; removed, since points without a place do not collate.
        names: the N landmarks in order; files are matched to it by name. None takes each file as it is.
        outside: "warn" (once for each file), "error" or "ignore" where landmarks lie off the image.
        outside_tolerance: pixels beyond the image's border that count as on it.
        allow_missing_landmarks: whether a landmark that a file does not name becomes a row of NaN.
        allow_missing_keys: whether an item without landmarks is left as it is.

    Raises:
        InputError: if there are no landmarks, or their number, names, dimensions or place do not fit the
            image.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        image_key: str = "image",
        source_key: str = "landmarks",
        names: Sequence[str] | None = None,
        outside: str = "warn",
        outside_tolerance: float = 1.0,
        allow_missing_landmarks: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if outside not in ("warn", "error", "ignore"):
            raise ValueError(f"outside must be 'warn', 'error' or 'ignore', got {outside!r}")
        self.image_key = image_key
        self.source_key = source_key
        self.names = tuple(names) if names is not None else None
        self.outside = outside
        self.outside_tolerance = outside_tolerance
        self.allow_missing_landmarks = allow_missing_landmarks
        self._told: set[str] = set()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        image = item[self.image_key]
        if not isinstance(image, MetaTensor) or "original_affine" not in image.meta:
            raise ValueError(f"'{self.image_key}' must be loaded before its landmarks")
        inline = item.pop(self.source_key, None)
        for key in self.keys:
            source = item.get(key)
            source = inline if source is None else source
            if source is not None:
                item[key] = self.load(source, image.meta)
            elif not self.allow_missing_keys:
                raise InputError(
                    f"{image.meta.get('filename_or_obj')}: has no landmarks under '{self.source_key}' or "
                    f"'{key}'; add them to the datalist."
                )
        return item

    def load(self, source: Any, meta: Mapping[str, Any]) -> torch.Tensor:
        """World coordinates (1, N, D) of landmarks in a file or in a list, for the image of `meta`."""
        dims = _spatial_dims(meta)
        if isinstance(source, (str, os.PathLike)):
            name = os.fspath(source)
            landmarks = read_landmarks(source)
            if self.names is not None:
                landmarks = match_landmarks(landmarks, self.names, name, self.allow_missing_landmarks)
        else:
            name = str(meta.get("filename_or_obj"))
            points = inline_points(source, name, dims)
            if self.names is not None and len(points) != len(self.names):
                raise InputError(
                    f"{name}: has {len(points)} landmarks where {len(self.names)} are expected; give one for each "
                    "name, null where it is not annotated."
                )
            landmarks = LandmarkFile(self.names or ("",) * len(points), points, "voxel")
        world = to_image_world(landmarks, meta, name)
        self.check_inside(world, landmarks.names, meta, name)
        return world[None]

    def check_inside(self, world: torch.Tensor, names: Sequence[str], meta: Mapping[str, Any], source: str) -> None:
        """Warn of landmarks (N, D) off the image, or raise."""
        pixels = world_to_voxel(world, _affine(meta, "original_affine"))
        size = torch.as_tensor(np.asarray(meta["spatial_shape"]), dtype=torch.float64)
        margin = 0.5 + self.outside_tolerance
        off = ((pixels < -margin) | (pixels > size - 1 + margin)).any(-1) & is_present(pixels)
        if self.outside == "ignore" or not off.any():
            return
        listed = ", ".join(names[i] or f"number {i}" for i in off.nonzero().flatten().tolist())
        extent = " x ".join(f"{int(n)}" for n in size)
        message = f"{source}: {listed} lies outside the image of {extent}; check the coordinates and their space."
        if self.outside == "error":
            raise InputError(message)
        if source not in self._told:
            self._told.add(source)
            logger.warning(message)


def to_image_world(landmarks: LandmarkFile, meta: Mapping[str, Any], source: str) -> torch.Tensor:
    """Landmarks of a file in the world of an image: (N, D) float64, RAS.

    The world of a flat image is two-dimensional; landmarks in three dimensions are brought to its pixels by
    the place of its plane.

    Raises:
        InputError: if the dimensions do not fit, or a landmark lies over a pixel off the plane.
    """
    points = torch.as_tensor(landmarks.points, dtype=torch.float64)
    dims = _spatial_dims(meta)
    affine = _affine(meta, "original_affine")
    if landmarks.space == "RAS" and dims == 2:
        plane = _affine(meta, "plane_affine")
        pixels = world_to_voxel(points, plane)
        pixel_size = plane[:3, :2].norm(dim=0).mean()
        off_plane = pixels[:, 2].abs() * plane[:3, 2].norm() / pixel_size
        far = is_present(pixels) & (off_plane > 1)
        if far.any():
            first = int(far.nonzero()[0])
            raise InputError(
                f"{source}: '{landmarks.names[first]}' lies {off_plane[first]:.1f} pixels off the plane of "
                "the flat image; place the landmarks on this image."
            )
        return voxel_to_world(pixels[:, :2], affine)
    if points.shape[1] != dims:
        raise InputError(
            f"{source}: its landmarks have {points.shape[1]} coordinates, the image "
            f"{meta.get('filename_or_obj')} has {dims} dimensions; give the landmarks of this image."
        )
    return points if landmarks.space == "RAS" else voxel_to_world(points, affine)


def to_file_space(points_world: torch.Tensor, image_meta: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Landmarks in the image's file, for writing: its pixels, and the patient's world.

    Args:
        points_world: (N, D) or (1, N, D), the image's world RAS; rows of NaN and +inf stay.
        image_meta: meta of the image, with the file's `original_affine` and, if flat, `plane_affine`.

    Returns:
        zero-based file pixels (..., N, D), and world RAS (..., N, 3) where 3D Slicer shows the image,
        float64.
    """
    points = torch.as_tensor(points_world, dtype=torch.float64).as_subclass(torch.Tensor).detach().cpu()
    pixels = world_to_voxel(points, _affine(image_meta, "original_affine"))
    return pixels, points if points.shape[-1] == 3 else _patient_world(pixels, image_meta)


def _patient_world(pixels: torch.Tensor, image_meta: Mapping[str, Any]) -> torch.Tensor:
    """Zero-based file pixels (..., N, 2) of a flat image to world RAS (..., N, 3) where 3D Slicer shows it, float64."""
    third = torch.where(is_present(pixels), torch.zeros(pixels.shape[:-1], dtype=pixels.dtype), pixels[..., 0])
    return voxel_to_world(torch.cat([pixels, third.unsqueeze(-1)], -1), _affine(image_meta, "plane_affine"))


def upright_frame(image_meta: Mapping[str, Any]) -> tuple[torch.Tensor, tuple[int, int]]:
    """The frame in which a film is measured: x to the right, y down, whatever the axes of its file.

    Args:
        image_meta: meta of a flat image, with the file's `original_affine` and `spatial_shape`.

    Returns:
        affine (4, 4) from upright pixels to the image's world RAS, float64; upright width and height in pixels.
    """
    shape = [int(n) for n in np.asarray(image_meta["spatial_shape"]).ravel()]
    _, affine, size = upright_geometry(_affine(image_meta, "original_affine").numpy(), shape)
    return torch.as_tensor(affine), size


def _affine(meta: Mapping[str, Any], key: str) -> torch.Tensor:
    """A 4x4 affine of an image's meta, with or without a batch axis of one."""
    if key not in meta:
        raise ValueError(f"the image's meta has no '{key}'; load it with common.data.LandmarkImageReader")
    return torch.as_tensor(np.asarray(meta[key], dtype=np.float64)).reshape(4, 4)


def _spatial_dims(meta: Mapping[str, Any]) -> int:
    return int(np.asarray(meta["spatial_shape"]).size)


@functools.cache
def image_loader(spatial_dims: int) -> LoadImage:
    """Reads files of D dimensions as (1, *spatial); one for all of them, since MONAI warns whenever one is made."""
    reader = LandmarkImageReader(spatial_dims=spatial_dims)
    return LoadImage(reader=reader, ensure_channel_first=True, image_only=True)


def load_annotated(
    item: Mapping[str, Any], names: Sequence[str], spatial_dims: int = 2
) -> tuple[MetaTensor, torch.Tensor]:
    """An image of a datalist with its landmarks, outside of any pipeline.

    Args:
        item: of `common.data.load_datalist`.
        names: the N landmarks in order.
        spatial_dims: D, 2 or 3.

    Returns:
        image (1, *spatial) with affine; landmarks (1, N, D) in world coordinates (RAS).

    Raises:
        InputError: if the image cannot be read, has other dimensions, or its landmarks do not fit.
    """
    image = image_loader(spatial_dims)(item["image"])
    annotation = {key: item[key] for key in ("landmarks", "label") if key in item}
    return image, LoadLandmarksd("label", names=names, outside="ignore")({"image": image, **annotation})["label"]
