"""Heatmaps of landmarks: one batched, differentiable, sub-pixel function, and the transforms built on it.

The way back, from heatmaps to landmarks, is in `heatmap_decoding`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_tensor, ensure_tuple, ensure_tuple_rep

from ..errors import InputError
from .coordinates import is_present, world_to_voxel

KINDS = ("gaussian", "laplace")
AMPLITUDES = ("peak", "normalised")


def peak_height(
    sigma: float | torch.Tensor,
    spatial_dims: int,
    kind: str = "gaussian",
    amplitude: str = "peak",
    scale: float = 1.0,
) -> float | torch.Tensor:
    """Value of a heatmap at its landmark, the largest that `draw_heatmaps` can give.

    With `amplitude="normalised"` the heatmap sums up to `scale` over an unbounded image.

    Args:
        sigma: standard deviation of a Gaussian or scale b of a Laplace heatmap, in voxels; a tensor of any
            shape.
        spatial_dims: 2 or 3.
        kind: "gaussian" or "laplace".
        amplitude: "peak", the height is `scale`; "normalised", it is scale / (sqrt(2 pi) sigma)^D for a
            Gaussian (payer2019), scale / (2 pi b^2) or scale / (8 pi b^3) for a Laplace heatmap in 2D or 3D.
        scale: factor on the heatmap (gamma in payer2019).

    Returns:
        float, or a tensor of the shape of `sigma`, differentiable in it.

    Raises:
        InputError: when `kind` or `amplitude` is unknown.
    """
    if kind not in KINDS or amplitude not in AMPLITUDES:
        raise InputError(
            f"Heatmap kind '{kind}' with amplitude '{amplitude}' is unknown: take a kind of {KINDS} and an "
            f"amplitude of {AMPLITUDES}."
        )
    if amplitude == "peak":
        return sigma * 0.0 + scale
    if kind == "gaussian":
        return scale / (math.sqrt(2.0 * math.pi) * sigma) ** spatial_dims
    return scale / ((2.0 * math.pi if spatial_dims == 2 else 8.0 * math.pi) * sigma**spatial_dims)


def draw_heatmaps(
    points: torch.Tensor,
    spatial_size: Sequence[int],
    sigma: float | torch.Tensor,
    kind: str = "gaussian",
    amplitude: str = "peak",
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> torch.Tensor:
    """Draw one heatmap per landmark, centred at its sub-pixel position, on the device of `points`.

    A Gaussian is height * exp(-r^2 / (2 sigma^2)) with r the distance to the landmark (payer2019). A Laplace
    heatmap is height * exp(-r / b) with b = `sigma`: ham2023 names the Laplace heatmap of values 0 to 1 and
    prints no formula, and this is its isotropic form. The result is differentiable in `points` and `sigma`;
    the derivative of a Laplace heatmap in the landmark's very position, where it has a kink, is taken as 0.

    Args:
        points: shape (B, N, D), D = 2 or 3, voxel coordinates with voxel centres at integers, x first.
            Landmarks may lie outside the image. A row that is not finite (NaN: not annotated, +inf: absent)
            gives a heatmap of zeros and gradients of zero.
        spatial_size: D sizes of the heatmaps, x first.
        sigma: in voxels, positive; a float, or a tensor that broadcasts to (B, N), for example (N,) with one
            learnable value per landmark.
        kind: "gaussian" or "laplace".
        amplitude: "peak" or "normalised", as in `peak_height`.
        scale: factor on the heatmaps.
        dtype: of the result; it is computed in float32, or in float64 where that is asked for.
        memory_format: of the result; what is calculated with it is fastest in the same one (`memory_format_of`).

    Returns:
        tensor of shape (B, N, *spatial_size).

    Raises:
        InputError: when shapes do not fit together, a number for `sigma` is not positive, or `kind` or
            `amplitude` is unknown.
    """
    _check(points, spatial_size, sigma)
    points = convert_to_tensor(points, track_meta=False)
    spatial_dims = points.shape[-1]
    compute = torch.promote_types(dtype, torch.float32)

    present = is_present(points)
    # Replaced before anything is computed from it: zero times NaN would still be NaN in a gradient.
    centres = torch.where(present.unsqueeze(-1), points, 0.0)
    centres = centres.to(torch.promote_types(points.dtype, torch.float32))
    sigma = _broadcast_sigma(sigma, points, compute).unsqueeze(-1)
    height = peak_height(sigma, spatial_dims, kind, amplitude, scale) * present.unsqueeze(-1)

    # Distances along each axis in units of sigma, (B, N, size): the only place where a coordinate is
    # subtracted, in the precision of the points.
    offsets = []
    for axis, size in enumerate(spatial_size):
        grid = torch.arange(size, device=points.device, dtype=centres.dtype)
        offset = (grid - centres[..., axis : axis + 1]).to(compute) / sigma
        offsets.append(_along_axis(offset, axis, spatial_dims).contiguous(memory_format=memory_format))
    height = _along_axis(height, 0, spatial_dims)

    # Sums and products run from the first axis on, so that only the last one has the full size.
    if kind == "gaussian":
        heatmaps = height
        for offset in offsets:
            heatmaps = heatmaps * torch.exp(-0.5 * offset**2)
    else:
        # The smallest number added keeps the square root differentiable in the landmark itself; distances end
        # at 80, because exp of more gives numbers that are too small for a processor's fast arithmetic.
        squared = torch.finfo(compute).tiny
        for offset in offsets:
            squared = squared + (offset**2).clamp_max(80.0**2 / spatial_dims)
        heatmaps = height * torch.exp_(-torch.sqrt_(squared))
    return heatmaps.to(dtype)


def memory_format_of(heatmaps: torch.Tensor) -> torch.memory_format:
    """Channels last where heatmaps (B, N, *spatial) lie in memory so, else contiguous."""
    channels_last = torch.channels_last if heatmaps.ndim == 4 else torch.channels_last_3d
    if heatmaps.is_contiguous() or not heatmaps.is_contiguous(memory_format=channels_last):
        return torch.contiguous_format
    return channels_last


def _along_axis(profiles: torch.Tensor, axis: int, spatial_dims: int) -> torch.Tensor:
    """View (B, N, size) as (B, N, 1, .., size, .., 1) with `size` at the given spatial axis."""
    shape = [1] * spatial_dims
    shape[axis] = profiles.shape[-1]
    return profiles.reshape(*profiles.shape[:2], *shape)


def _broadcast_sigma(sigma: float | torch.Tensor, points: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    sigma = torch.as_tensor(sigma, dtype=dtype, device=points.device)
    try:
        return sigma.broadcast_to(points.shape[:2])
    except RuntimeError as error:
        raise InputError(
            f"Sigma of shape {tuple(sigma.shape)} does not fit {points.shape[1]} landmarks in a batch of "
            f"{points.shape[0]}: give one number, or one per landmark."
        ) from error


def _check(points: torch.Tensor, spatial_size: Sequence[int], sigma: float | torch.Tensor) -> None:
    if points.ndim != 3 or points.shape[-1] not in (2, 3) or points.shape[-1] != len(spatial_size):
        raise InputError(
            f"Landmarks of shape {tuple(points.shape)} do not fit heatmaps of size {tuple(spatial_size)}: "
            "give points of shape (batch, landmarks, 2 or 3) and as many sizes as coordinates."
        )
    if not isinstance(sigma, torch.Tensor) and not torch.as_tensor(sigma).min() > 0:
        raise InputError(f"The sigma of a heatmap is {sigma} voxels: give a number above 0.")


class _LandmarkHeatmap(Transform):
    """Array transform over `draw_heatmaps`; the subclasses name the kind."""

    backend = [TransformBackends.TORCH]
    kind: str

    def __init__(
        self,
        sigma: float | Sequence[float] | torch.Tensor,
        spatial_size: Sequence[int] | None = None,
        amplitude: str = "peak",
        scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        peak_height(1.0, 2, self.kind, amplitude, scale)  # tells of an unknown amplitude now
        self.sigma = sigma
        self.spatial_size = spatial_size
        self.amplitude = amplitude
        self.scale = scale
        self.dtype = dtype

    def __call__(self, points: torch.Tensor, spatial_size: Sequence[int] | None = None) -> torch.Tensor:
        """
        Args:
            points: shape (1, N, D), voxel coordinates.
            spatial_size: D sizes of the heatmaps; those of the constructor where it is None.

        Returns:
            heatmaps of shape (N, *spatial_size), on the device of `points`.

        Raises:
            InputError: when `points` has another shape or no size was given.
        """
        points = convert_to_tensor(points, track_meta=False)
        spatial_size = self.spatial_size if spatial_size is None else spatial_size
        if points.ndim != 3 or points.shape[0] != 1 or spatial_size is None:
            raise InputError(
                f"Heatmaps of size {spatial_size} cannot be drawn for landmarks of shape "
                f"{tuple(points.shape)}: give points of shape (1, landmarks, 2 or 3) and a spatial size."
            )
        return draw_heatmaps(points, spatial_size, self.sigma, self.kind, self.amplitude, self.scale, dtype=self.dtype)[
            0
        ]


class GaussianHeatmap(_LandmarkHeatmap):
    """Gaussian heatmaps (N, *spatial) of landmarks (1, N, D) in voxels.

    Args:
        sigma: standard deviation in voxels, one number or one per landmark.
        spatial_size: sizes of the heatmaps, x first, where the call does not give them.
        amplitude: "peak" or "normalised", as in `peak_height`.
        scale: factor on the heatmaps.
        dtype: of the heatmaps.
    """

    kind = "gaussian"


class LaplaceHeatmap(_LandmarkHeatmap):
    """Laplace heatmaps (N, *spatial) of landmarks (1, N, D) in voxels (ham2023).

    Args:
        sigma: scale b in voxels, one number or one per landmark: the heatmap falls to 1 / e at this distance.
        spatial_size, amplitude, scale, dtype: as in `GaussianHeatmap`.
    """

    kind = "laplace"


class _LandmarkHeatmapd(MapTransform):
    """Dictionary twin of `_LandmarkHeatmap`, from world points and the image that they lie on."""

    backend = _LandmarkHeatmap.backend
    heatmap_type: type[_LandmarkHeatmap]

    def __init__(
        self,
        keys: KeysCollection,
        sigma: float | Sequence[float] | torch.Tensor,
        refer_keys: KeysCollection = "image",
        heatmap_keys: KeysCollection = "heatmap",
        amplitude: str = "peak",
        scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.refer_keys = ensure_tuple_rep(refer_keys, len(self.keys))
        self.heatmap_keys = ensure_tuple(heatmap_keys)
        if len(self.heatmap_keys) != len(self.keys):
            raise InputError(f"{len(self.keys)} keys of landmarks need as many keys for their heatmaps.")
        self.converter = self.heatmap_type(sigma, amplitude=amplitude, scale=scale, dtype=dtype)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key, refer_key, heatmap_key in self.key_iterator(d, self.refer_keys, self.heatmap_keys):
            image = d[refer_key]
            if not isinstance(image, MetaTensor):
                raise InputError(
                    f"'{refer_key}' has no affine, so the landmarks of '{key}' cannot be placed on it: load "
                    "it with LoadImaged."
                )
            points = world_to_voxel(convert_to_tensor(d[key], track_meta=False), image.affine)
            heatmaps = self.converter(points.to(image.device), image.shape[1:])
            d[heatmap_key] = MetaTensor(heatmaps, meta=deepcopy(image.meta))
        return d


class GaussianHeatmapd(_LandmarkHeatmapd):
    """Gaussian heatmaps of world landmarks, on the voxels of their image as it is when this is called.

    Args:
        keys: landmarks, shape (1, N, D), world coordinates (RAS).
        sigma: standard deviation in voxels, one number or one per landmark.
        refer_keys: image, a MetaTensor of shape (C, *spatial), that gives spatial size, affine and device;
            one key, or one for each of `keys`.
        heatmap_keys: where the result goes, a MetaTensor of shape (N, *spatial) with the image's affine; one
            for each of `keys`.
        amplitude: "peak" or "normalised", as in `peak_height`.
        scale: factor on the heatmaps.
        dtype: of the heatmaps.
        allow_missing_keys: pass over landmarks that are not there.

    Raises:
        InputError: when the image has no affine, or the landmarks another dimension than the image.
    """

    heatmap_type = GaussianHeatmap


class LaplaceHeatmapd(_LandmarkHeatmapd):
    """Laplace heatmaps of world landmarks, on the voxels of their image as it is when this is called.

    Args:
        sigma: scale b in voxels, one number or one per landmark.
        keys, refer_keys, heatmap_keys, amplitude, scale, dtype, allow_missing_keys: as in `GaussianHeatmapd`.

    Raises:
        InputError: when the image has no affine, or the landmarks another dimension than the image.
    """

    heatmap_type = LaplaceHeatmap
