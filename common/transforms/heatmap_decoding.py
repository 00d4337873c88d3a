"""Landmarks from heatmaps: maximum, parabola through it, centroid of the largest blob, and soft-argmax.

The way here, from landmarks to heatmaps, is in `heatmaps`. All functions take heatmaps (B, N, *spatial) in 2D
or 3D, in any floating point type, and give voxel coordinates (B, N, D), x first, with voxel centres at
integers, and confidences (B, N): the maximum of the heatmap clamped to [0, 1], since a full peak is 1. A
heatmap that says nothing, because it is constant or holds a value that is not finite, gives a point of NaN
and confidence 0.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.networks.layers import GaussianFilter
from monai.transforms import MapTransform
from monai.utils import TransformBackends, convert_to_tensor, ensure_tuple
from scipy import ndimage

from ..data.image_files import axis_parallel
from ..errors import InputError
from .chain_decoding import along_chain
from .coordinates import voxel_to_world


class _Peaks(NamedTuple):
    """Heatmaps and their maxima; `dtype` is that of coordinates, float32 at least."""

    heatmaps: torch.Tensor  # (B, N, V), as they came
    spatial_size: tuple[int, ...]
    index: torch.Tensor  # (B, N), into V
    value: torch.Tensor  # (B, N), in dtype
    found: torch.Tensor  # (B, N), whether the heatmap says anything
    dtype: torch.dtype

    def result(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        points = torch.where(self.found.unsqueeze(-1), points.to(self.dtype), torch.nan)
        return points, torch.where(self.found, self.value, 0.0).clamp(0.0, 1.0)


def _find_peaks(heatmaps: torch.Tensor) -> _Peaks:
    heatmaps = convert_to_tensor(heatmaps, track_meta=False)
    if heatmaps.ndim not in (4, 5) or 0 in heatmaps.shape[2:]:
        raise InputError(
            f"Heatmaps of shape {tuple(heatmaps.shape)} cannot be decoded: give (batch, landmarks, x, y) or "
            "(batch, landmarks, x, y, z)."
        )
    dtype = torch.promote_types(heatmaps.dtype, torch.float32)
    flat = heatmaps.flatten(2)
    index = flat.detach().argmax(-1)  # the place of a NaN, where there is one
    value = flat.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    lowest = flat.detach().amin(-1)
    found = value.isfinite() & lowest.isfinite() & (value > lowest)
    return _Peaks(flat, tuple(heatmaps.shape[2:]), index, value.to(dtype), found, dtype)


def heatmap_maximum(heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Voxel with the highest value, the first of several.

    Args:
        heatmaps: shape (B, N, *spatial).

    Returns:
        points (B, N, D) in voxels and confidences (B, N).

    Raises:
        InputError: when `heatmaps` has another number of dimensions.
    """
    peaks = _find_peaks(heatmaps)
    return peaks.result(torch.stack(torch.unravel_index(peaks.index, peaks.spatial_size), -1))


def heatmap_parabola(heatmaps: torch.Tensor, log: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertex of a parabola through the maximum and its two neighbours on each axis (payer2019).

    At most half a voxel from the maximum. A maximum on the border takes the two voxels further in.

    Args:
        heatmaps: shape (B, N, *spatial).
        log: lay the parabola through the logarithms where all three values are positive, which is exact for a
            Gaussian of any width; otherwise through the values themselves.

    Returns:
        points (B, N, D) in voxels and confidences (B, N).

    Raises:
        InputError: when `heatmaps` has another number of dimensions.
    """
    peaks = _find_peaks(heatmaps)
    points = []
    stride = peaks.heatmaps.shape[-1]
    for size, position in zip(peaks.spatial_size, torch.unravel_index(peaks.index, peaks.spatial_size)):
        stride //= size
        if size < 3:
            points.append(position.to(peaks.dtype))
            continue
        middle = position.clamp(1, size - 2)
        steps = torch.arange(-1, 2, device=position.device)
        neighbours = (peaks.index + (middle - position) * stride).unsqueeze(-1) + steps * stride
        offset, concave = _vertex(peaks.heatmaps.gather(-1, neighbours).to(peaks.dtype), log)
        vertex = torch.where(concave, middle + offset, position)
        points.append(torch.minimum(torch.maximum(vertex, position - 0.5), position + 0.5))
    return peaks.result(torch.stack(points, -1))


def _vertex(values: torch.Tensor, log: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertex of the parabola through (-1, 0, 1), 0 where it has no maximum, and whether it has: (..., 3) -> (...)."""
    if log:
        positive = (values > 0).all(-1, keepdim=True)
        values = torch.where(positive, torch.where(positive, values, 1.0).log(), values)
    before, at, after = values.unbind(-1)
    curvature = 2 * at - before - after
    concave = curvature > 0
    return torch.where(concave, 0.5 * (after - before) / torch.where(concave, curvature, 1.0), 0.0), concave


def heatmap_blob_centroid(
    heatmaps: torch.Tensor, threshold: float = 0.95, weighted: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Centroid of the largest connected blob above a threshold (ham2023, section 4).

    Voxels that touch at a corner are connected; of blobs of one size the warmer is taken.

    Args:
        heatmaps: shape (B, N, *spatial).
        threshold: of the heatmap's values; where its maximum is not above it, this fraction of the maximum.
        weighted: weight the voxels by their value; the paper does not.

    Returns:
        points (B, N, D) in voxels and confidences (B, N).

    Raises:
        InputError: when `heatmaps` has another number of dimensions.
    """
    peaks = _find_peaks(heatmaps)
    level = torch.where(peaks.value > threshold, threshold, threshold * peaks.value)
    # A maximum of 0 or less is below any fraction of itself, and is its own blob.
    level = torch.where(peaks.value > 0, level, torch.nextafter(peaks.value, peaks.value - 1))
    level = torch.where(peaks.found, level, torch.inf).unsqueeze(-1)

    # Only the few voxels above the level leave the device.
    above = (peaks.heatmaps.detach() > level).nonzero(as_tuple=True)
    values = peaks.heatmaps.detach()[above].to(torch.float64).cpu().numpy()
    maps = (above[0] * peaks.heatmaps.shape[1] + above[1]).cpu().numpy()
    voxels = np.stack(np.unravel_index(above[2].cpu().numpy(), peaks.spatial_size), -1)
    points = np.full((peaks.found.numel(), len(peaks.spatial_size)), np.nan)
    starts = np.flatnonzero(np.diff(maps, prepend=-1))
    for i, blobs, heat in zip(maps[starts], np.split(voxels, starts[1:]), np.split(values, starts[1:])):
        blob = largest_blob(blobs, heat)
        weights = heat[blob] if weighted and heat.max() > 0 else None
        points[i] = np.average(blobs[blob], axis=0, weights=weights)
    points = torch.as_tensor(points, dtype=peaks.dtype).reshape(*peaks.found.shape, -1)
    return peaks.result(points.to(peaks.found.device))


def largest_blob(voxels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Which of the voxels (V, D) form the largest connected blob, labelled in their bounding box: bool (V,).

    Voxels that touch at a corner are connected; of blobs of one size the one with the larger sum of `heat` (V,) counts.
    """
    inside = tuple((voxels - voxels.min(0)).T)
    box = np.zeros(voxels.max(0) - voxels.min(0) + 1, dtype=bool)
    box[inside] = True
    labels, count = ndimage.label(box, structure=np.ones([3] * voxels.shape[1]))
    labels = labels[inside]
    sizes = np.bincount(labels, minlength=count + 1)
    return labels == np.lexsort((np.bincount(labels, heat, minlength=count + 1), sizes))[-1]


def heatmap_soft_argmax(heatmaps: torch.Tensor, beta: float = 10.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Expected position under softmax(beta * heatmap) (ham2023, Eqs. 1 and 2); differentiable.

    Args:
        heatmaps: shape (B, N, *spatial).
        beta: temperature. The background of a large image draws the point to its centre unless beta is well
            above the logarithm of the number of voxels.

    Returns:
        points (B, N, D) in voxels and confidences (B, N).

    Raises:
        InputError: when `heatmaps` has another number of dimensions.
    """
    peaks = _find_peaks(heatmaps)
    # Without its maximum no logit overflows; masked before the softmax no NaN reaches another heatmap's
    # gradient.
    logits = (peaks.heatmaps - peaks.value.detach().unsqueeze(-1)) * beta
    logits = logits.masked_fill(~peaks.found.unsqueeze(-1), 0.0)
    probability = logits.softmax(-1).unflatten(-1, peaks.spatial_size)
    points = []
    axes = range(2, probability.ndim)
    for axis, size in zip(axes, peaks.spatial_size):
        marginal = probability.sum([other for other in axes if other != axis])
        points.append((marginal * torch.arange(size, device=marginal.device)).sum(-1))
    return peaks.result(torch.stack(points, -1))


METHODS = {
    "maximum": heatmap_maximum,
    "parabola": heatmap_parabola,
    "centroid": heatmap_blob_centroid,
    "soft_argmax": heatmap_soft_argmax,
}


def smooth_heatmaps(heatmaps: torch.Tensor, sigma: float) -> torch.Tensor:
    """Positive part of heatmaps, averaged under a Gaussian, with nothing beyond the border.

    Where a network hesitates, its heatmap is long or has several tops, and the highest voxel is one of them by
    chance; after smoothing it is the middle of the likeliest region.

    Args:
        heatmaps: shape (B, N, *spatial) in 2D or 3D.
        sigma: standard deviation in voxels.

    Returns:
        shape (B, N, *spatial), float32 or the wider type of the heatmaps.
    """
    heatmaps = convert_to_tensor(heatmaps, track_meta=False)
    heatmaps = heatmaps.to(torch.promote_types(heatmaps.dtype, torch.float32)).clamp(min=0.0)
    return GaussianFilter(heatmaps.ndim - 2, sigma).to(heatmaps)(heatmaps)


def decode_heatmaps(
    heatmaps: torch.Tensor, method: str = "parabola", smoothing: float = 0.0, **decoding: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Landmarks and their confidences from heatmaps.

    Args:
        heatmaps: shape (B, N, *spatial) in 2D or 3D, scaled so that a full peak is 1.
        method: "maximum", "parabola", "centroid" (`heatmap_blob_centroid`) or "soft_argmax".
        smoothing: standard deviation in voxels of `smooth_heatmaps` before the method; none with 0. A landmark whose
            heatmap is highest within two deviations of the border is decoded without: beyond the border a part of the
            likely region is missing, and the middle of the rest is no better guess. So is one without any positive
            value.
        decoding: settings of the method.

    Returns:
        points (B, N, D) in voxels, float32 or the wider type of the heatmaps, NaN where a heatmap says
        nothing; confidences (B, N): maxima before smoothing, clamped to [0, 1]. Both on the device of the heatmaps.

    Raises:
        InputError: when the method is unknown or `heatmaps` has the wrong number of dimensions.
    """
    if method not in METHODS:
        raise InputError(f"Heatmaps cannot be decoded by '{method}': choose one of {', '.join(METHODS)}.")
    if not smoothing:
        return METHODS[method](heatmaps, **decoding)
    highest, confidence = heatmap_maximum(heatmaps)
    points, _ = METHODS[method](smooth_heatmaps(heatmaps, smoothing), **decoding)
    last = torch.tensor(heatmaps.shape[2:], device=highest.device) - 1
    near_border = (torch.minimum(highest, last - highest) < 2 * smoothing).any(-1, keepdim=True)
    without = near_border | points.isnan()
    if without.any():
        points = torch.where(without, METHODS[method](heatmaps, **decoding)[0], points)
    return torch.where(highest.isnan(), torch.nan, points), confidence


class HeatmapsToLandmarksd(MapTransform):
    """World landmarks from the heatmaps of one image, for postprocessing of a decollated batch.

    Args:
        keys: heatmaps, shape (N, *spatial), on the voxels of the image; replaced by landmarks of shape (1, N,
            D), world coordinates (RAS), float64, on the CPU.
        image_key: the image, a MetaTensor of shape (C, *spatial) with a 4x4 affine.
        method: of `decode_heatmaps`.
        smoothing: of `decode_heatmaps`, in voxels.
        chain: settings of `common.transforms.along_chain` (its `shape`, `members` and so on), where landmarks are those
            of look-alike parts that follow each other: heatmaps are decoded where the best chain of parts has them,
            and the confidence is the maximum there. The shape lies as the image does, whatever turn within the plane
            its affine states. None decodes each on its own.
        min_confidence: a landmark with less is absent, a row of +inf.
        confidence_key: where the confidences go, float32, shape (N,), on the CPU; one for each of `keys`.
        allow_missing_keys: pass over heatmaps that are not there.
        decoding: settings of the method.

    Raises:
        InputError: when the method is unknown, the image has no affine, heatmaps and image differ in size, or they are
            none of the chain's.
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection = "pred",
        image_key: str = "image",
        method: str = "parabola",
        smoothing: float = 0.0,
        chain: Mapping[str, Any] | None = None,
        min_confidence: float = 0.0,
        confidence_key: KeysCollection = "confidence",
        allow_missing_keys: bool = False,
        **decoding: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.method = method
        self.smoothing = smoothing
        self.chain = chain
        self.min_confidence = min_confidence
        self.confidence_keys = ensure_tuple(confidence_key)
        self.decoding = decoding
        if len(self.confidence_keys) != len(self.keys):
            raise InputError(f"{len(self.keys)} keys of heatmaps need as many keys for their confidences.")
        if method not in METHODS:
            raise InputError(f"Heatmaps cannot be decoded by '{method}': choose one of {', '.join(METHODS)}.")

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        image = d[self.image_key]
        if not isinstance(image, MetaTensor):
            raise InputError(f"'{self.image_key}' has no affine for landmarks: load it with LoadImaged.")
        for key, confidence_key in self.key_iterator(d, self.confidence_keys):
            heatmaps = d[key]
            if heatmaps.shape[1:] != image.shape[1:]:
                raise InputError(
                    f"{image.meta.get('filename_or_obj', self.image_key)}: heatmaps of size "
                    f"{tuple(heatmaps.shape[1:])} do not lie on the image of size {tuple(image.shape[1:])}; "
                    "bring both to one size before decoding."
                )
            if self.chain is not None:
                steps = torch.as_tensor(axis_parallel(image.affine[:2, :2].cpu().double().numpy()))
                heatmaps = along_chain(heatmaps, steps, **self.chain)
            points, confidence = decode_heatmaps(heatmaps.unsqueeze(0), self.method, self.smoothing, **self.decoding)
            confidence = confidence.detach().to("cpu", torch.float32)[0]
            points = points.detach().to("cpu", torch.float64)
            points[:, confidence < self.min_confidence] = torch.inf
            d[key] = voxel_to_world(points, image.affine)
            d[confidence_key] = confidence
        return d
