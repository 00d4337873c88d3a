"""Synthetic lateral cephalograms, with the 19 landmarks of `common.data.cephalometric`."""

import numpy as np

from .cephalometric import CEPHALOMETRIC_LANDMARKS
from .phantom_skull_anatomy import SkullAnatomy, turned
from .phantom_skull_jaws import add_mandible, add_maxilla, add_teeth
from .phantom_skull_shapes import FILM_MM
from .phantom_skull_soft_tissue import add_neck, add_skin
from .phantom_xray import (
    Layer,
    add_grain,
    add_layers,
    collimate,
    ellipse,
    expose,
    polygon_mask,
    ribbon,
    smooth_noise,
)


def draw_skull(
    rng: np.random.Generator, size: tuple[int, int] = (645, 800), anb: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a head from the side, facing right, of random growth, pose and exposure.

    The picture shows a film of 193.5 x 240 mm, or more where its sides have another ratio: a pixel has
    max(193.5 / W, 240 / H) mm.

    Args:
        rng: source of all randomness: the same state gives the same picture.
        size: (W, H) of the picture in pixels.
        anb: aimed-at ANB angle in degrees, random between about -6 and 10 if not given: the skeletal class.
            What the drawn head has follows from its landmarks, within about a degree.

    Returns:
        The picture, uint8, (W, H), x first, bone bright; and the landmarks, float64, (19, 2), in pixels
        (x, y) with centres at integers.
    """
    anb = float(np.clip(rng.normal(2.2, 4.0), -7.5, 11)) if anb is None else anb
    head = draw_up_head(rng, anb)
    plane = np.array([head.landmarks[name] for name in CEPHALOMETRIC_LANDMARKS])
    to_pixels, scale = _film_placement(rng, plane, size)
    points = to_pixels(plane)

    bone = np.zeros(size, dtype=np.float32)
    add_layers(bone, head.bones, to_pixels, scale)
    trabeculae = 0.05 * smooth_noise(rng, size, 0.6 * scale) + 0.06 * smooth_noise(rng, size, 2.5 * scale)
    trabeculae += 0.04 * smooth_noise(rng, size, 8 * scale)
    attenuation = np.zeros(size, dtype=np.float32)
    add_layers(attenuation, head.skin, to_pixels, scale)
    attenuation *= 1 + 0.03 * smooth_noise(rng, size, 6 * scale)
    attenuation += rng.uniform(0.75, 1.05) * bone * (1 + trabeculae)
    add_layers(attenuation, head.air, to_pixels, scale)
    add_layers(attenuation, _cephalostat(rng, head), to_pixels, scale)
    film = expose(rng, np.maximum(attenuation, 0) * rng.uniform(1.0, 1.6), darkest=(2, 40))
    film = _add_marks(rng, film)
    if rng.random() < 0.35:
        film = collimate(rng, film, points)
    return add_grain(rng, film), points


def draw_up_head(rng: np.random.Generator, anb: float) -> SkullAnatomy:
    """A head with all its parts, and all 19 landmarks, in millimetres."""
    head = SkullAnatomy(rng, anb)
    for add in (add_maxilla, add_mandible, add_teeth, add_neck, add_skin):
        add(head)
    return head


def _film_placement(rng: np.random.Generator, plane: np.ndarray, size: tuple[int, int]):
    """The map from the head's frame to pixels, with all landmarks on the film, and pixels per millimetre."""
    per_mm = min(size[0] / FILM_MM[0], size[1] / FILM_MM[1])
    tilt = -np.clip(rng.normal(6.5, 5), -6, 18)  # sella to nasion rises
    enlarged = np.clip(rng.normal(1, 0.03), 0.92, 1.08)
    origin = np.array(size) / per_mm * (np.array([0.418, 0.434]) + rng.normal(0, [0.022, 0.018]))
    placed = turned(plane, tilt) * enlarged + origin
    film = np.array(size) / per_mm
    margin = 6.0
    origin += np.maximum(margin - placed.min(0), 0) - np.maximum(placed.max(0) - (film - margin), 0)
    return lambda points: (origin + enlarged * turned(points, tilt)) * per_mm - 0.5, enlarged * per_mm


def _cephalostat(rng: np.random.Generator, head: SkullAnatomy) -> list[Layer]:
    """What holds the head: rings of the ear rods, and the support before nasion with its ruler."""
    layers = []
    if rng.random() < 0.7:
        ear = head.porion + [rng.normal(1, 1.5), rng.uniform(2, 6)]
        for radius in (rng.uniform(6, 8), rng.uniform(3.5, 5)):
            ring = np.concatenate([ellipse(ear + rng.normal(0, 0.8, 2), (radius, radius))] * 2)[:50]
            layers.append(Layer(ribbon(ring, 1.1), 0.35, 0.55))
    if rng.random() < 0.7:
        at = head.nasion + [rng.uniform(9, 13), rng.uniform(-4, 8)]
        tilt = rng.uniform(2, 9)  # upright on the film, whatever the head does
        support = np.array([(-2, 4), (-2, 9), (16, 9), (18, 6), (18, -16), (12, -16), (12, 4)])
        layers.append(Layer(at + turned(support, tilt), 0.16, 3))
        bar = at + turned(np.array([(13.4, -150.0), (16.4, -150), (16.4, 2), (13.4, 2)]), tilt)
        layers.append(Layer(bar, 0.22, 1.5))
        for tick in range(20):
            notch = np.array([(13.6, -1.0), (15.4, -1), (15.4, 0), (13.6, 0)]) - [0, 1.0 + 2 * tick]
            layers.append(Layer(at + turned(notch, tilt), 0.7, 0.3))
    return layers


def _add_marks(rng: np.random.Generator, film: np.ndarray) -> np.ndarray:
    """Clips at the upper and lower edge, and the shoulder's shield in the lower corner, all unexposed."""
    size = film.shape
    unit = min(size)
    if rng.random() < 0.5:
        for place in (0.26, 0.5, 0.74):
            half, height = 0.035 * unit, int(0.03 * unit)
            x = int(place * size[0] + rng.normal(0, 0.01) * unit)
            film[int(x - half) : int(x + half), :height] = rng.uniform(235, 255)
            film[int(x - half) : int(x + half), -height:] = rng.uniform(235, 255)
    if rng.random() < 0.6:
        reach, rise = rng.uniform(0.12, 0.38) * size[0], rng.uniform(0.02, 0.1) * size[1]
        x, y = np.array([-5, 0.35, 0.75, 1.0]) * reach, size[1] - np.array([1.1, 0.95, 0.6, 0.0]) * rise
        shield = np.concatenate([np.stack([x, y], axis=1), [(reach, size[1] + 9), (-5 * reach, size[1] + 9)]])
        film = np.where(polygon_mask(shield, size), rng.uniform(225, 250), film)
    return film
