"""Synthetic radiographs of a whole spine from the front, with the 68 landmarks of `common.data.spine`."""

import numpy as np

from .phantom_spine_anatomy import SpineAnatomy, vertebral_tilts
from .phantom_spine_shapes import FILM_MM
from .phantom_spine_trunk import add_pelvis, add_ribs, add_soft_tissue
from .phantom_xray import add_grain, add_label, add_layers, collimate, ellipse, expose, polygon_mask, smooth_noise


def draw_spine(
    rng: np.random.Generator,
    size: tuple[int, int] = (384, 1024),
    cobb: float | None = None,
    curves: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a standing trunk with scoliosis, the heart to the image's right.

    The true Cobb angles are those of the points: the vector from the middle of a vertebra's left corners to the
    middle of its right ones has exactly the vertebra's tilt, and the largest difference of tilts is `cobb`.

    Args:
        rng: source of all randomness: the same state gives the same picture.
        size: (W, H) of the picture in pixels.
        cobb: the largest Cobb angle in degrees, random between 4 and 90 if not given.
        curves: 1 for a C-shaped spine, 2 or 3 for an S-shaped one, random if not given.

    Returns:
        The picture, uint8, (W, H), x first, bone bright; and the landmarks, float64, (68, 2), in pixels
        (x, y) with centres at integers.
    """
    cobb = float(np.clip(4 + rng.gamma(2.6, 13.5), 4, 90)) if cobb is None else cobb
    curves = int(rng.choice([1, 2, 3], p=[0.35, 0.4, 0.25])) if curves is None else curves
    spine = SpineAnatomy(rng, vertebral_tilts(rng, cobb, curves))
    for add in (add_pelvis, add_ribs, add_soft_tissue):
        add(spine)
    plane = spine.corners[1:18].reshape(-1, 2)
    to_pixels, scale = _film_placement(rng, plane, size)
    points = to_pixels(plane)

    attenuation = np.zeros(size, dtype=np.float32)
    add_layers(attenuation, spine.tissue, to_pixels, scale)
    add_layers(attenuation, spine.air, to_pixels, scale)
    attenuation = np.maximum(attenuation, 0) * (1 + 0.05 * smooth_noise(rng, size, 9 * scale))
    bone = np.zeros(size, dtype=np.float32)
    add_layers(bone, spine.bones, to_pixels, scale)
    trabeculae = 0.06 * smooth_noise(rng, size, 0.7 * scale) + 0.06 * smooth_noise(rng, size, 2.5 * scale)
    attenuation += rng.uniform(0.5, 0.9) * bone * (1 + trabeculae)
    ribs = np.zeros(size, dtype=np.float32)
    add_layers(ribs, spine.ribs, to_pixels, scale)
    attenuation += rng.uniform(0.4, 0.9) * ribs
    # The abdomen is exposed longer than the chest, or not.
    attenuation *= np.linspace(1, rng.uniform(0.75, 1.1), size[1], dtype=np.float32)
    film = expose(rng, attenuation * rng.uniform(0.8, 1.3), darkest=(0, 40))
    film = _add_chin(rng, film, to_pixels(spine.centres[:1] - [0, 95])[0], scale)
    occupied = np.zeros(size, dtype=bool)
    column = points.reshape(17, 4, 2)
    occupied |= polygon_mask(np.concatenate([column[:, 0], column[::-1, 1]]), size)
    for letter, chance in ((False, 0.15), (True, 0.4)):
        if rng.random() < chance:
            film = add_label(rng, film, occupied, letter)
    if rng.random() < 0.3:
        film = collimate(rng, film, points)
    return add_grain(rng, film), points


def _film_placement(rng: np.random.Generator, plane: np.ndarray, size: tuple[int, int]):
    """The map from the trunk's frame to pixels, with all landmarks on the film, and pixels per millimetre."""
    low, high = plane.min(0), plane.max(0)
    margin = 0.03 * min(size)
    room = np.array(size) - 1 - 2 * margin
    per_mm = max(size[0] / FILM_MM[0], size[1] / FILM_MM[1]) * rng.uniform(0.94, 1.06)
    per_mm = float(min(per_mm, *(room / (high - low))))
    place = np.array(size) * [rng.normal(0.5, 0.05), np.clip(rng.normal(0.04, 0.014), 0.012, 0.09)]
    origin = place - per_mm * np.array([0.5 * (low[0] + high[0]), low[1]])
    origin += np.maximum(margin - (origin + per_mm * low), 0)
    origin -= np.maximum(origin + per_mm * high - (size - np.array(1 + margin)), 0)
    return lambda points: origin + per_mm * points, per_mm


def _add_chin(rng: np.random.Generator, film: np.ndarray, centre: np.ndarray, scale: float) -> np.ndarray:
    """The jaw at the film's upper edge, where it is on the film."""
    jaw = ellipse(centre + rng.normal(0, 8, 2) * scale, (48 * scale, rng.uniform(38, 55) * scale))
    mask = polygon_mask(jaw, film.shape)
    return np.where(mask, np.maximum(film, rng.uniform(190, 245)), film)
