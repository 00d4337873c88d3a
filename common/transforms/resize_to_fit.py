"""Images in another size, by the exact mean of the pixels under each new one."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing, to_affine_nd
from monai.transforms import MapTransform, Transform
from monai.transforms.utils import scale_affine
from monai.utils import convert_to_tensor, ensure_tuple, ensure_tuple_rep

from ..errors import InputError

logger = logging.getLogger(__name__)

SQUARE = 0.01  # pixels whose sides differ by a smaller share count as square
LONGEST_PIXEL = 5.0  # times as long as wide; a header that says more is wrong


def averaging_weights(size: int, reduced: int, like: torch.Tensor) -> torch.Tensor:
    """Matrix (reduced, size) that averages a line of pixels over equal cells, pixels on an edge by their share.

    torch's area interpolation lets cells overlap where they do not divide the line, which moves what is seen by up
    to half a pixel (400 into 384: 0.28 pixels root mean square), and its ONNX form is wrong at any size but that of
    the export; its antialiased linear one has no 3D.
    """
    cells = torch.arange(reduced + 1, device=like.device).unsqueeze(-1) * size  # in whole numbers: pixels x reduced
    pixels = torch.arange(size, device=like.device) * reduced
    overlap = torch.minimum(cells[1:], pixels + reduced) - torch.maximum(cells[:-1], pixels)
    return overlap.clamp_min(0).to(like.dtype) / size


def enlarging_weights(size: int, enlarged: int, like: torch.Tensor) -> torch.Tensor:
    """Matrix (enlarged, size) that interpolates a line of pixels linearly; at its ends the last pixel goes on."""
    centres = (torch.arange(enlarged, device=like.device).unsqueeze(-1) + 0.5) * size / enlarged - 0.5
    distance = (centres.clamp(0, size - 1) - torch.arange(size, device=like.device)).abs()
    return (1 - distance).clamp_min(0).to(like.dtype)


def resized(image: torch.Tensor, spatial_size: Sequence[int]) -> torch.Tensor:
    """(C, *spatial) with affine or without -> (C, *spatial_size) of float32; the outer edges stay where they are.

    An axis that shrinks is averaged, one that grows is interpolated linearly. What is equal everywhere stays equal.
    """
    out = convert_to_tensor(image, dtype=torch.float32, track_meta=False)
    low = out.amin()  # rounding errors are those of the contrast, not of the grey values
    out = out - low
    for axis, (size, new) in enumerate(zip(image.shape[1:], spatial_size), start=1):
        if new != size:
            weights = (averaging_weights if new < size else enlarging_weights)(size, new, out)
            out = torch.matmul(out.transpose(axis, -1), weights.t()).transpose(axis, -1)
    out = (out + low).contiguous()
    if not isinstance(image, MetaTensor):
        return out
    cells = to_affine_nd(len(image.affine) - 1, scale_affine(image.shape[1:], spatial_size))
    out = MetaTensor(out).copy_meta_from(image)
    out.affine = image.affine @ torch.as_tensor(cells).to(image.affine)
    return out


class ResizeToFit(Transform):
    """Scale an image so that it just fits into a size; MONAI's `Resize` knows the longest axis alone.

    Pixels that are not square, by the image's affine, become so: networks have learnt anatomy as it is.

    Padding comes after it (`ResizeWithPadOrCropd`), where the value of the padding is known. Nothing is cut off, also
    where image and size have another aspect.

    Args:
        spatial_size: size to fit into, one for each axis, x first, or one for all.
        keep_aspect: of what the image shows; where false, every axis takes its size, whatever the aspect becomes.
        margin: pixels of the size that are left to the padding at either end of every axis, so that a landmark at the
            film's edge is not at the edge of what a network sees, too.

    Raises:
        InputError: for a margin that is no whole number, negative, or leaves nothing.
    """

    def __init__(self, spatial_size: int | Sequence[int], keep_aspect: bool = True, margin: int = 0) -> None:
        if type(margin) is not int or not 0 <= 2 * margin < min(ensure_tuple(spatial_size)):
            raise InputError(
                f"A margin of {margin} pixels does not go into images of {tuple(ensure_tuple(spatial_size))}: give a "
                "whole number from 0, less than half of the shortest side."
            )
        self.spatial_size = spatial_size
        self.keep_aspect = keep_aspect
        self.margin = margin

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """(C, *spatial) with affine -> (C, *size), `spatial_size` less its margins on one axis or on all."""
        shape = image.shape[1:]
        limits = [n - 2 * self.margin for n in ensure_tuple_rep(self.spatial_size, len(shape))]
        factors = [limit / n for limit, n in zip(limits, shape)]
        if self.keep_aspect:
            sides = pixel_sides(image)
            factor = min(factor / side for factor, side in zip(factors, sides))
            factors = [factor * side for side in sides]
        return resized(image, [max(1, round(n * factor)) for n, factor in zip(shape, factors)])


def pixel_sides(image: torch.Tensor) -> list[float]:
    """Sides of a pixel of an image (C, *spatial) along its axes, in units of the shortest.

    They are 1 where it has no affine, and where that of a flat image says what no detector has.
    """
    dims = image.ndim - 1
    if not isinstance(image, MetaTensor):
        return [1.0] * dims
    sides = affine_to_spacing(image.affine.double(), r=dims)
    sides = (sides / sides.min()).tolist()
    if dims == 2 and max(sides) > LONGEST_PIXEL:
        logger.warning(
            "%s: states pixels %.3g times as long as wide, which no detector has; they are taken as square, correct "
            "its spacing.",
            image.meta.get("filename_or_obj", "an image"),
            max(sides),
        )
        return [1.0] * dims
    return sides if max(sides) > 1 + SQUARE else [1.0] * dims


def square_pixels(image: torch.Tensor) -> torch.Tensor:
    """(C, *spatial) with affine or without, enlarged along the axes whose `pixel_sides` are longer."""
    sides = pixel_sides(image)
    return resized(image, [round(n * side) for n, side in zip(image.shape[1:], sides)]) if max(sides) > 1 else image


class ResizeToFitd(MapTransform):
    """Dictionary-based `ResizeToFit`.

    Args:
        keys: images, each resized on its own.
        spatial_size: see `ResizeToFit`.
        keep_aspect: see `ResizeToFit`.
        margin: see `ResizeToFit`.
        allow_missing_keys: whether an item without the image is left as it is.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: int | Sequence[int],
        keep_aspect: bool = True,
        margin: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.resize = ResizeToFit(spatial_size, keep_aspect, margin)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.resize(item[key])
        return item
