"""How synthetic volumes are drawn: bodies by their signed distance, partial volume, noise, and the file.

Everything is in millimetres along the axes of the array, so that a body looks alike at any resolution.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter

CHUNK = 2**21  # voxels that are worked on at once, so that full clinical sizes need little memory
DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


class Body(NamedTuple):
    """What a canvas paints: signed distance in mm, negative inside, and the box outside of which it is not needed.

    `distance` takes coordinates that broadcast to the box: (X, 1, 1), (1, Y, 1), (1, 1, Z), float32.
    """

    distance: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    low: np.ndarray | Sequence[float]
    high: np.ndarray | Sequence[float]


class Canvas:
    """A float32 volume (X, Y, Z) to paint on.

    Args:
        size: voxels along each axis.
        spacing: millimetres per voxel.
        origin: millimetres of the centre of voxel (0, 0, 0).
        value: what it is filled with.
    """

    def __init__(self, size: Sequence[int], spacing: Sequence[float], origin: Sequence[float], value: float):
        self.values = np.full(tuple(size), value, dtype=np.float32)
        self.spacing, self.origin = np.asarray(spacing, dtype=float), np.asarray(origin, dtype=float)
        self.voxel = float(np.prod(self.spacing) ** (1 / 3))

    def coordinates(self, low: Sequence[int], high: Sequence[int]) -> list[np.ndarray]:
        """Millimetres of the voxels from `low` up to, not including, `high`, as they broadcast."""
        return [
            (self.origin[k] + self.spacing[k] * np.arange(low[k], high[k]))
            .astype(np.float32)
            .reshape([-1 if axis == k else 1 for axis in range(3)])
            for k in range(3)
        ]

    def to_voxels(self, points: np.ndarray) -> np.ndarray:
        """Zero-based voxels of points (N, 3) in mm."""
        return (points - self.origin) / self.spacing

    def boxes(self, bodies: Sequence[Body]) -> tuple[np.ndarray, np.ndarray]:
        """The first voxel (N, 3) of each body's box, and the one after its last."""
        size = np.array(self.values.shape)
        low, high = (np.array([ends(body) for body in bodies], dtype=float) for ends in (itemgetter(1), itemgetter(2)))
        low = np.floor(self.to_voxels(low)).clip(-1, size).astype(int) - 1
        high = np.ceil(self.to_voxels(high)).clip(-1, size).astype(int) + 2
        return low.clip(0, size), high.clip(0, size)

    def paint(self, value: float, *bodies: Body, opacity: float = 1.0, sheet: float = 0.0) -> None:
        """Give the union of the bodies a value; voxels that they fill in part get their share of it.

        `sheet`: where the distances are those from the middle of something thin, its thickness in mm.
        """
        lows, highs = self.boxes(bodies)
        boxes = [(bodies[k], lows[k], highs[k]) for k in np.flatnonzero((highs > lows).all(1))]
        if not boxes:
            return
        start = np.min([low for _, low, _ in boxes], axis=0)
        end = np.max([high for _, _, high in boxes], axis=0)
        step = max(1, CHUNK // int(np.prod((end - start)[:2])))
        for first in range(start[2], end[2], step):
            last = min(first + step, end[2])
            share = np.zeros((*(end - start)[:2], last - first), dtype=np.float32)
            for body, low, high in boxes:
                low, high = np.array([*low[:2], max(low[2], first)]), np.array([*high[:2], min(high[2], last)])
                if high[2] > low[2]:
                    inside = self._share(body.distance(*self.coordinates(low, high)), sheet)
                    corner = [*start[:2], first]
                    part = share[tuple(slice(a, b) for a, b in zip(low - corner, high - corner))]
                    np.maximum(part, inside, out=part)
            target = self.values[start[0] : end[0], start[1] : end[1], first:last]
            target += opacity * share * (np.float32(value) - target)

    def _share(self, distance: np.ndarray, sheet: float) -> np.ndarray:
        """The part of a voxel that lies inside a surface at this signed distance in mm, or inside a sheet."""
        share = np.clip(0.5 + (0.5 * sheet - distance) / self.voxel, 0, 1)
        if sheet:
            share -= np.clip(0.5 - (0.5 * sheet + distance) / self.voxel, 0, 1)
        return share


def ellipsoid(centre: Sequence[float], radii: Sequence[float], axes: np.ndarray | None = None) -> Body:
    """An ellipsoid; `axes` (3, 3) has its directions as rows."""
    centre, radii = np.asarray(centre, dtype=float), np.asarray(radii, dtype=float)
    axes = np.eye(3) if axes is None else np.asarray(axes, dtype=float)
    reach = np.sqrt(((axes * radii[:, None]) ** 2).sum(0))

    def distance(x, y, z):
        x, y, z = x - np.float32(centre[0]), y - np.float32(centre[1]), z - np.float32(centre[2])
        once = np.float32(1e-12)  # not zero, so that the centre is as deep as its surroundings
        twice = once / np.float32(radii.min() ** 2)
        for (a, b, c), radius in zip((axes / radii[:, None]).astype(np.float32), radii.astype(np.float32)):
            along = (a * x + b * y + c * z) ** 2
            once, twice = once + along, twice + along / radius**2
        return (once - np.sqrt(once)) / np.sqrt(twice)

    return Body(distance, centre - reach, centre + reach)


def tube(points: np.ndarray, radii: float | Sequence[float]) -> list[Body]:
    """A round tube along a line of points (N, 3), with a radius at each, as one body for each segment."""
    points = np.asarray(points, dtype=float)
    radii = np.broadcast_to(np.asarray(radii, dtype=float), len(points))
    return [_segment(*ends) for ends in zip(points[:-1], points[1:], radii[:-1], radii[1:])]


def _segment(start: np.ndarray, end: np.ndarray, first: float, last: float) -> Body:
    along = end - start
    along = along / max(float(along @ along), 1e-9)

    def distance(x, y, z):
        x, y, z = x - np.float32(start[0]), y - np.float32(start[1]), z - np.float32(start[2])
        part = np.clip(np.float32(along[0]) * x + np.float32(along[1]) * y + np.float32(along[2]) * z, 0, 1)
        dx, dy, dz = (end - start).astype(np.float32)
        return np.sqrt((x - part * dx) ** 2 + (y - part * dy) ** 2 + (z - part * dz) ** 2) - (
            np.float32(first) + np.float32(last - first) * part
        )

    reach = max(first, last)
    return Body(distance, np.minimum(start, end) - reach, np.maximum(start, end) + reach)


def grown(body: Body, margin: float) -> Body:
    """The body with a rim of `margin` mm around it."""
    return Body(
        lambda x, y, z: body.distance(x, y, z) - np.float32(margin),
        np.subtract(body.low, margin),
        np.add(body.high, margin),
    )


def without(body: Body, *others: Body) -> Body:
    """The part of a body that lies in none of the others."""

    def distance(x, y, z):
        inside = body.distance(x, y, z)
        for other in others:
            inside = np.maximum(inside, -other.distance(x, y, z))
        return inside

    return Body(distance, body.low, body.high)


def rotation(degrees: Sequence[float]) -> np.ndarray:
    """Matrix (3, 3) of turns about the three axes, one after the other."""
    turn = np.eye(3)
    for k, angle in enumerate(np.radians(degrees)):
        step, i, j = np.eye(3), (k + 1) % 3, (k + 2) % 3
        step[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turn = step @ turn
    return turn


def turned(body: Body, turn: np.ndarray) -> Body:
    """A body that is turned about the origin by a rotation matrix (3, 3)."""

    def distance(x, y, z):
        return body.distance(*(a * x + b * y + c * z for a, b, c in turn.T.astype(np.float32)))

    ends = np.meshgrid(*np.transpose([body.low, body.high]), indexing="ij")
    corners = np.stack(ends, axis=-1).reshape(-1, 3) @ turn.T
    return Body(distance, corners.min(0), corners.max(0))


def sampled(canvas: Canvas, distance: np.ndarray, turn: np.ndarray) -> Body:
    """A body by its distances at all voxels of a canvas, (X, Y, Z), for use with that canvas under `turned`."""

    def look_up(x, y, z):
        # Boxes are told by their first voxel.
        first = turn @ np.array([x.flat[0], y.flat[0], z.flat[0]], dtype=float)
        start = np.rint(canvas.to_voxels(first)).astype(int)
        return distance[tuple(slice(a, a + b) for a, b in zip(start, x.shape))]

    return Body(look_up, [-1e3] * 3, [1e3] * 3)


def smooth_path(control: np.ndarray, step: float) -> np.ndarray:
    """Points (N, 3) about `step` mm apart on a smooth curve through the control points."""
    control = np.asarray(control, dtype=float)
    length = np.linalg.norm(np.diff(control, axis=0), axis=1)
    knots = np.concatenate([[0.0], np.cumsum(length**0.5)])
    at = [np.linspace(a, b, max(1, round(d / step)), endpoint=False) for a, b, d in zip(knots, knots[1:], length)]
    return CubicSpline(knots, control, bc_type="natural")(np.concatenate([*at, knots[-1:]]))


def smooth_field(rng: np.random.Generator, coordinates: Sequence[np.ndarray], sigma: float) -> np.ndarray:
    """Gaussian noise (X, Y, Z) of unit variance and a correlation of about 1.4 `sigma` mm, smooth everywhere.

    `coordinates`: millimetres along each axis, as `Canvas.coordinates` gives them.
    """
    weights = []
    for axis in coordinates:
        axis = axis.ravel().astype(np.float64)
        knots = np.arange(axis[0] - 3 * sigma, axis[-1] + 3 * sigma + 1e-6, sigma)
        weight = np.exp(-0.5 * ((axis[:, None] - knots) / sigma) ** 2)
        weights.append((weight / np.sqrt((weight**2).sum(1, keepdims=True))).astype(np.float32))
    field = rng.standard_normal([weight.shape[1] for weight in weights], dtype=np.float32)
    for weight in weights:  # each turn takes the first axis and puts its result last
        field = np.tensordot(field, weight, axes=(0, 1))
    return np.ascontiguousarray(field)


def add_noise(rng: np.random.Generator, values: np.ndarray, deviation: float, grain: float) -> None:
    """Add Gaussian noise in place, correlated over `grain` voxels as a reconstruction leaves it."""
    noise = rng.standard_normal(values.shape, dtype=np.float32)
    gaussian_filter(noise, grain, output=noise, mode="wrap")
    noise *= np.float32(deviation / max(float(noise[:: max(1, len(noise) // 32)].std()), 1e-6))
    values += noise


def volume_affine(
    rng: np.random.Generator, size: Sequence[int], spacing: Sequence[float], axes: str, oblique: float
) -> np.ndarray:
    """A scanner's affine (4, 4) from voxel to world RAS.

    Args:
        rng: decides on where the volume lies in the world, and how it is turned.
        size: voxels along each axis.
        spacing: millimetres per voxel.
        axes: what each axis of the array points at, such as "LPS".
        oblique: degrees by which half of the volumes are turned about each axis, as a standard deviation.
    """
    direction = np.array([DIRECTIONS[letter] for letter in axes], dtype=float).T
    centre, turned_at_all = rng.uniform(-60, 60, 3), rng.random() < 0.5
    angles = np.clip(rng.normal(0, 1, 3), -2, 2) * oblique
    if turned_at_all:
        direction = rotation(angles) @ direction
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(spacing)
    affine[:3, 3] = np.round(centre - affine[:3, :3] @ ((np.asarray(size) - 1) / 2), 3)
    return affine


def write_volume(path: Path, volume: np.ndarray, affine: np.ndarray) -> None:
    """Save int16 voxels as compressed NIfTI, the same bytes each time."""
    image = nibabel.Nifti1Image(volume.astype(np.int16, copy=False), affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    nibabel.save(image, path)
