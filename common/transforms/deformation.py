"""Random affine and elastic deformation of images and landmarks, in one interpolation, in 2D and 3D."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, get_track_meta
from monai.transforms import MapTransform, RandomizableTransform
from monai.transforms.lazy.functional import apply_pending_transforms
from monai.transforms.utils import create_rotate
from monai.utils import convert_to_tensor, ensure_tuple, ensure_tuple_rep

from ..errors import InputError
from .affine_elastic import PADDING_MODES, AffineElastic
from .bspline_field import BSplineField


def _ready(img: torch.Tensor) -> torch.Tensor:
    """The image as a tensor, with the operations that lazy transforms left pending applied."""
    return apply_pending_transforms(convert_to_tensor(img, track_meta=get_track_meta()), None)


class RandAffineElastic(RandomizableTransform):
    """Rotate, scale, shift and elastically deform an image at random, by a single interpolation.

    The output is out(x) = in(A(x + u(x))). As in MONAI's `RandAffine`, A takes output voxels to input voxels:
    a scale of 1.2 shows the content at 1/1.2 of its size, a positive translation moves it to lower indices.
    A rotates and scales about the image's centre, rotates in physical proportions (by the spacing of the
    image's affine, so that anisotropic voxels are not sheared), then translates in voxels. u is a cubic
    B-spline of random displacements of control points (payer2019; see `BSplineField`), damped where it would
    fold the image. The image keeps its size, and its affine becomes affine @ A.

    All ranges are symmetric. Not lazy: pending operations of the image are applied first. Not invertible.

    Args:
        rotate_range: in radians, one number, or in 3D one for each axis (x, y, z).
        scale_range: r for one factor from [1 - r, 1 + r] for all axes.
        axis_scale_range: the same for a further factor on each axis, one number or one for each axis.
        translate_range: in voxels, one number or one for each axis.
        magnitude: largest displacement of a control point in voxels, one number or one for each axis; 0 for a
            purely affine map.
        control_points: one number or one for each axis, at least 4. 5 spans two spline cells over the image.
        prob: probability of doing anything.
        mode: `bilinear` (trilinear in 3D) or `nearest`.
        padding_mode: `constant` or `border` (the nearest voxel), for what lies outside the input.
        padding_value: that constant, in the image's intensities.
        min_jacobian: the determinant of the derivative of x + u(x) stays above this, everywhere.

    Raises:
        InputError: a range, a number of control points or a padding mode that makes no sense.
    """

    def __init__(
        self,
        rotate_range: float | Sequence[float] = 0.0,
        scale_range: float = 0.0,
        axis_scale_range: float | Sequence[float] = 0.0,
        translate_range: float | Sequence[float] = 0.0,
        magnitude: float | Sequence[float] = 0.0,
        control_points: int | Sequence[int] = 5,
        prob: float = 1.0,
        mode: str = "bilinear",
        padding_mode: str = "constant",
        padding_value: float = 0.0,
        min_jacobian: float = 0.1,
    ):
        RandomizableTransform.__init__(self, prob)
        self.rotate_range = rotate_range
        self.scale_range = scale_range
        self.axis_scale_range = axis_scale_range
        self.translate_range = translate_range
        self.magnitude = magnitude
        self.control_points = control_points
        self.mode = mode
        self.padding_mode = padding_mode
        self.padding_value = padding_value
        self.min_jacobian = min_jacobian
        for name in ("rotate_range", "scale_range", "axis_scale_range", "translate_range", "magnitude"):
            limit = 1 if "scale" in name else np.inf
            if not all(0 <= r < limit for r in ensure_tuple(getattr(self, name))):
                raise InputError(f"{name} is {getattr(self, name)}: give numbers from 0 to below {limit}.")
        if min(ensure_tuple(control_points)) < 4:
            raise InputError(f"control_points is {control_points}: give at least 4 on each axis.")
        if not 0 <= min_jacobian < 1:
            raise InputError(f"min_jacobian is {min_jacobian}: give a number from 0 to below 1.")
        if padding_mode not in PADDING_MODES:
            raise InputError(f"padding_mode is {padding_mode}: give one of {', '.join(PADDING_MODES)}.")

    def _per_axis(self, name: str, count: int) -> np.ndarray:
        value = ensure_tuple(getattr(self, name))
        if len(value) not in (1, count):
            raise InputError(f"{name} is {value}: give one number, or {count} for images of this dimension.")
        return np.asarray(ensure_tuple_rep(value if len(value) > 1 else value[0], count))

    def randomize(self, spatial_dims: int) -> None:
        """Draw the parameters of one deformation of images of 2 or 3 dimensions."""
        super().randomize(None)
        if not self._do_transform:
            return

        def draw(name: str, count: int) -> np.ndarray:
            limits = self._per_axis(name, count)
            return self.R.uniform(-limits, limits)

        self._angles = draw("rotate_range", 1 if spatial_dims == 2 else 3)
        self._scale = (1 + draw("scale_range", 1)) * (1 + draw("axis_scale_range", spatial_dims))
        self._translation = draw("translate_range", spatial_dims)
        magnitude = self._per_axis("magnitude", spatial_dims)
        control_points = self._per_axis("control_points", spatial_dims)
        unit = self.R.uniform(-1, 1, (*control_points, spatial_dims)) if magnitude.any() else None
        self._displacements = None if unit is None else np.moveaxis(unit * magnitude, -1, 0)

    def deformation(self, img: torch.Tensor) -> AffineElastic:
        """The deformation last drawn by `randomize`, for an image of shape (C, *spatial)."""
        size = tuple(img.shape[1:])
        dims = len(size)
        affine, field = np.eye(dims + 1), None
        if self._do_transform:
            spacing = np.ones(dims)
            if isinstance(img, MetaTensor):
                spacing = np.linalg.norm(img.affine.cpu().numpy()[:-1, :dims], axis=0)
            rotation = np.asarray(create_rotate(dims, self._angles))[:dims, :dims]
            linear = rotation * spacing / spacing[:, None] * self._scale
            centre = (np.asarray(size) - 1) / 2
            affine[:dims, :dims] = linear
            affine[:dims, dims] = centre - linear @ centre + self._translation
            if self._displacements is not None:
                field = BSplineField(torch.as_tensor(self._displacements), size).damped(self.min_jacobian)
        return AffineElastic(affine, field, size)

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """Deform an image.

        Args:
            img: shape (C, *spatial), 2D or 3D, on any device.
            randomize: draw a new deformation first, or repeat the last one.

        Returns:
            float32 image of the same shape, with its meta and its new affine.
        """
        img = _ready(img)
        if randomize:
            self.randomize(img.ndim - 1)
        return self.deformation(img).resample(img, self.mode, self.padding_mode, self.padding_value)


class RandAffineElasticd(RandomizableTransform, MapTransform):
    """Dictionary version of `RandAffineElastic`, which moves landmarks with the image.

    All images get the same deformation. Landmarks are world coordinates, shape (..., N, D), before and after:
    the affine part leaves them untouched, since the image's affine knows it, and the elastic part moves them
    to where the content went, to 1e-6 voxel. Rows of NaN and of +inf stay.

    Args:
        keys: images of one size and one affine.
        points_keys: landmarks of these images, or None.
        prob: probability of doing anything.
        mode, padding_mode, padding_value: as in `RandAffineElastic`; one value, or one for each of `keys`.
        allow_missing_keys: let images and landmarks be missing.
        kwargs: the ranges and other arguments of `RandAffineElastic`.

    Raises:
        InputError: images of different sizes or affines, or landmarks of another dimension than the image.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        points_keys: KeysCollection | None = "label",
        prob: float = 1.0,
        mode: str | Sequence[str] = "bilinear",
        padding_mode: str | Sequence[str] = "constant",
        padding_value: float | Sequence[float] = 0.0,
        allow_missing_keys: bool = False,
        **kwargs,
    ):
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.points_keys = () if points_keys is None else ensure_tuple(points_keys)
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        self.padding_mode = ensure_tuple_rep(padding_mode, len(self.keys))
        self.padding_value = ensure_tuple_rep(padding_value, len(self.keys))
        self.transform = RandAffineElastic(prob=1.0, **kwargs)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None):
        self.transform.set_random_state(seed, state)
        super().set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        images = list(self.key_iterator(d))
        d.update({key: _ready(d[key]) for key in images})
        self.randomize(None)
        if not images or not self._do_transform:
            return d
        first = d[images[0]]
        self.transform.randomize(first.ndim - 1)
        deformation = self.transform.deformation(first)
        self._check_same_space(d, images)
        for key in self.points_keys:
            if key in d:
                d[key] = self._move(d[key], key, deformation, first)
            elif not self.allow_missing_keys:
                raise KeyError(f"The landmarks {key} are missing from the data, and missing keys not allowed.")
        settings = self.key_iterator(d, self.mode, self.padding_mode, self.padding_value)
        for key, mode, padding_mode, value in settings:
            d[key] = deformation.resample(d[key], mode, padding_mode, value)
        return d

    @staticmethod
    def _check_same_space(d: Mapping[Hashable, torch.Tensor], images: Sequence[Hashable]) -> None:
        sizes = {tuple(d[key].shape[1:]) for key in images}
        affines = [d[key].affine for key in images if isinstance(d[key], MetaTensor)]
        if len(sizes) > 1 or not all(torch.allclose(affines[0], affine) for affine in affines[1:]):
            raise InputError(
                f"Images {', '.join(map(str, images))} differ in size or affine: resample them to one grid."
            )

    @staticmethod
    def _move(points: torch.Tensor, key: Hashable, deformation: AffineElastic, image: torch.Tensor) -> torch.Tensor:
        points, dims = torch.as_tensor(points), image.ndim - 1
        if points.shape[-1] != dims:
            raise InputError(
                f"Landmarks {key} have {points.shape[-1]} coordinates and their image {dims} axes: give "
                "points of the image's dimension."
            )
        affine = image.affine if isinstance(image, MetaTensor) else torch.eye(dims + 1)
        return deformation.map_points(points, affine)
