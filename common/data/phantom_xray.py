"""How synthetic radiographs are drawn: hollow bones, soft tissue, exposure, and what lies on a film.

Images are float32 arrays (W, H), x first; points and outlines are in pixels (x, y) with centres at integers.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.interpolate import CubicSpline
from scipy.ndimage import distance_transform_edt, gaussian_filter

SUPERSAMPLING = 2


class Layer(NamedTuple):
    """A body in the beam, in millimetres: a closed outline (N, 2), and its look as `add_bone` takes it.

    Solid bodies have a marrow of 1, air a negative density.
    """

    outline: np.ndarray
    density: float
    depth: float
    cortex: float = 0.0
    marrow: float = 1.0


def add_layers(attenuation: np.ndarray, layers: Iterable[Layer], to_pixels, scale: float) -> None:
    """Add bodies to `attenuation` (W, H) in place; `to_pixels` maps points, `scale` is in pixels per millimetre."""
    for layer in layers:
        outline = to_pixels(layer.outline)
        add_bone(attenuation, outline, layer.cortex * scale, layer.depth * scale, layer.density, layer.marrow)


def smooth_outline(control: np.ndarray, samples: int = 9) -> np.ndarray:
    """Closed smooth curve (N * samples, 2) through the control points (N, 2), which it includes."""
    closed = np.concatenate([control, control[:1]])
    # Centripetal parameters keep the curve from overshooting where control points are unevenly spaced.
    knots = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1) ** 0.5)])
    fractions = np.arange(samples) / samples
    at = (knots[:-1, None] + np.diff(knots)[:, None] * fractions).ravel()
    return CubicSpline(knots, closed, bc_type="periodic")(at)


def smooth_curve(control: np.ndarray, samples: int = 9) -> np.ndarray:
    """Open smooth curve through the control points (N, 2), which are its every `samples`-th points."""
    control = np.asarray(control, dtype=float)
    knots = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(control, axis=0), axis=1) ** 0.5)])
    at = np.interp(np.arange((len(control) - 1) * samples + 1) / samples, np.arange(len(control)), knots)
    return CubicSpline(knots, control)(at)


def ribbon(curve: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """Outline (2 N, 2) of a band of this width along a curve (N, 2), such as a thin wall seen edge on."""
    along = np.gradient(curve, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    aside = np.stack([-along[:, 1], along[:, 0]], axis=1) * np.reshape(np.asarray(width) / 2.0, (-1, 1))
    return np.concatenate([curve + aside, (curve - aside)[::-1]])


def ellipse(centre, radii, degrees: float = 0.0) -> np.ndarray:
    """Outline (48, 2) of an ellipse, turned clockwise on the screen."""
    t, angle = np.linspace(0, 2 * np.pi, 48, endpoint=False), np.radians(degrees)
    x, y = radii[0] * np.cos(t), radii[1] * np.sin(t)
    return np.asarray(centre) + np.stack(
        [np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y], axis=1
    )


def polygon_mask(outline: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boolean array (W, H) of the pixels whose centres lie in the closed polygon `outline` (N, 2)."""
    start, end = outline, np.roll(outline, -1, axis=0)
    rows = np.arange(size[1])
    edge, row = np.nonzero((start[:, 1:] <= rows) != (end[:, 1:] <= rows))
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    crossing = np.ceil(start[edge, 0] + (row - start[edge, 1]) * slope).clip(0, size[0]).astype(int)
    crossings = np.zeros((size[0] + 1, size[1]), dtype=np.int16)
    np.add.at(crossings, (crossing, row), 1)
    return (np.cumsum(crossings, axis=0)[:-1] % 2).astype(bool)


def add_bone(
    attenuation: np.ndarray,
    outline: np.ndarray,
    cortex: float,
    depth: float,
    density: float,
    marrow: float = 0.45,
) -> None:
    """Add a hollow bone's projection to `attenuation` in place: a bright cortical rim, a darker middle.

    Args:
        attenuation: line integrals, float32, (W, H).
        outline: closed polygon in pixels, (N, 2).
        cortex: thickness of the cortical shell in pixels.
        depth: distance from the edge, in pixels, from which on the bone is as thick as it gets.
        density: attenuation of solid cortical bone of full thickness.
        marrow: density of the inside relative to the cortex.
    """
    low = np.maximum(np.floor(outline.min(0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(outline.max(0)).astype(int) + 2, attenuation.shape)
    if np.any(high <= low):
        return
    size = (high - low) * SUPERSAMPLING
    fine = (outline - low) * SUPERSAMPLING + (SUPERSAMPLING - 1) / 2
    mask = polygon_mask(fine, tuple(size.tolist()))
    # Not less half a pixel: the steepest grey value is then at the outline, where the landmarks are.
    inside = distance_transform_edt(mask).astype(np.float32) / SUPERSAMPLING
    shell = _chord(inside, depth) - (1 - marrow) * _chord(inside - cortex, max(depth - cortex, 0.3))
    shell = np.where(mask, density * shell / depth, 0).astype(np.float32)
    coarse = shell.reshape(size[0] // SUPERSAMPLING, SUPERSAMPLING, size[1] // SUPERSAMPLING, SUPERSAMPLING)
    attenuation[low[0] : high[0], low[1] : high[1]] += coarse.mean((1, 3))


def _chord(inside: np.ndarray, radius: float) -> np.ndarray:
    """Half the length of a ray through a round body of this radius, at a distance inside its edge."""
    return np.sqrt(np.maximum(radius**2 - (radius - np.clip(inside, 0.0, radius)) ** 2, 0.0))


def soft_tissue(outlines: list[np.ndarray], size: tuple[int, int], edge: float, thick: float) -> np.ndarray:
    """Thickness (W, H) of the rounded union of outlines: 1 at `edge` pixels from the skin, 2.5 at `thick`."""
    # Half the resolution is enough for what is blurred anyway.
    half = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    mask = np.zeros(half, dtype=bool)
    for outline in outlines:
        mask |= polygon_mask(outline / 2 - 0.25, half)
    # Blur and threshold round the corners between the pieces: skin has no notches.
    mask = gaussian_filter(mask.astype(np.float32), 0.25 * edge) > 0.5
    inside = 2.0 * distance_transform_edt(mask).astype(np.float32)
    body = gaussian_filter(_chord(inside, edge) / edge, 1.2)
    body += 1.5 * gaussian_filter(np.clip(inside / thick, 0, 1) ** 2, 0.06 * thick)
    return _enlarge(body, 2, size)


def _enlarge(field: np.ndarray, factor: int, size: tuple[int, int]) -> np.ndarray:
    """Linear interpolation to `factor` times the resolution, cut to `size` (W, H)."""
    full = (field.shape[1] * factor, field.shape[0] * factor)
    resized = Image.fromarray(field.astype(np.float32)).resize(full, Image.Resampling.BILINEAR)
    return np.asarray(resized)[: size[0], : size[1]]


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], sigma: float | tuple[float, float]) -> np.ndarray:
    """Gaussian noise (W, H) of unit variance, smoothed by `sigma` pixels."""
    step = max(1, int(np.min(sigma) / 2))  # coarse noise is made coarsely, and enlarged
    coarse = [-(-length // step) for length in size]
    field = gaussian_filter(rng.standard_normal(coarse, dtype=np.float32), np.divide(sigma, step), mode="wrap")
    if step > 1:
        field = _enlarge(field, step, size)
    return field / max(float(field.std()), 1e-6)


def expose(rng: np.random.Generator, attenuation: np.ndarray, darkest: tuple[float, float] = (12, 100)) -> np.ndarray:
    """Grey values (W, H), 0 to 255, of line integrals: film curve, unevenness, blur and scanner's stripes.

    `darkest`: range of the grey value of air.
    """
    size = attenuation.shape
    contrast = rng.uniform(0.25, 1.1)
    signal = (1 - np.exp(-contrast * attenuation)) / (1 - np.exp(-contrast * 1.6))
    low = rng.uniform(*darkest)
    high = rng.uniform(max(low + 95, 165), 245)
    film = low + (high - low) * np.clip(signal, 0, 1.3) ** rng.uniform(0.85, 1.2)
    across, along = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]), indexing="ij")
    tilt = rng.normal(0, 3.5, 3)
    film = film + tilt[0] * across + tilt[1] * along - abs(tilt[2]) * (across**2 + along**2)
    film = film + rng.uniform(0, 1.2) * smooth_noise(rng, (size[0], 1), (1.9, 0))
    return gaussian_filter(film.astype(np.float32), rng.uniform(0.35, 0.75))


def add_grain(rng: np.random.Generator, film: np.ndarray) -> np.ndarray:
    """The finished picture (W, H), uint8: quantum noise, finer grain, clipping."""
    grain = rng.standard_normal(film.shape, dtype=np.float32) * rng.uniform(0.8, 3.5)
    grain += rng.uniform(0.3, 1.5) * smooth_noise(rng, film.shape, 0.8)
    return np.clip(np.rint(film + grain), 0, 255).astype(np.uint8)


def collimate(rng: np.random.Generator, film: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Cover the film outside a slightly turned rectangle that leaves all points `keep` (N, 2) free."""
    size = np.array(film.shape)
    room = np.concatenate([keep.min(0), size - 1 - keep.max(0)]) - 0.025 * size.min()
    left, top, right, bottom = np.minimum(rng.uniform(-0.03, 0.05, 4) * size.min(), room).clip(-20)
    turn = rng.normal(0, 0.006)
    x, y = np.meshgrid(np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32), indexing="ij")
    x, y = x + turn * (y - size[1] / 2), y - turn * (x - size[0] / 2)
    inside = np.minimum(np.minimum(x - left, size[0] - 1 - right - x), np.minimum(y - top, size[1] - 1 - bottom - y))
    softness = rng.uniform(0.8, 4)
    cover = 1 / (1 + np.exp(np.clip((inside + 2) / softness, -30, 30)))
    # Blades leave the film unexposed, which is white here; a scanner's lid beyond the film is black.
    level = rng.uniform(225, 250) if rng.random() < 0.5 else rng.uniform(0, 12)
    return film + (level - film) * cover.astype(np.float32)


def add_label(rng: np.random.Generator, film: np.ndarray, occupied: np.ndarray, letter: bool) -> np.ndarray:
    """Lay a black film label, or a plate with the side letter L, where nothing of `occupied` (W, H) is."""
    size = np.array(film.shape)
    unit = size.min()
    for _ in range(8):
        half = unit * (rng.uniform(0.03, 0.045, 2) if letter else rng.uniform(0.04, 0.1, 2))
        centre = rng.uniform(0, 1, 2) * size
        if not letter:  # labels hang in from the film's edge
            side = rng.integers(4)
            centre[side % 2] = (side // 2) * size[side % 2]
        low = np.clip(centre - 1.5 * half.max(), 0, size).astype(int)
        high = np.clip(centre + 1.5 * half.max(), 0, size).astype(int)
        if not occupied[low[0] : high[0], low[1] : high[1]].any():
            break
    else:
        return film
    angle = rng.normal(0, 0.15) + (rng.integers(4) * np.pi / 2 if letter else 0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def blend(shape: list, level: float) -> np.ndarray:
        place = np.array(shape) * half @ turn.T + centre
        mask = gaussian_filter(polygon_mask(place, tuple(size.tolist())).astype(np.float32), 0.6)
        return film + (level - film) * mask

    box = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    if letter:
        if rng.random() < 0.6:
            film = blend([(1.3 * x, 1.3 * y) for x, y in box], rng.uniform(0, 60))
        bars = [(-0.7, -1), (-0.3, -1), (-0.3, 0.6), (0.7, 0.6), (0.7, 1), (-0.7, 1)]
        return blend(bars, rng.uniform(235, 255))
    film = blend([(1.12 * x, 1.12 * y) for x, y in box], float(film.min()) + rng.uniform(15, 45))
    return blend(box, rng.uniform(0, 10))
