"""Synthetic radiographs of a left hand, with the 37 landmarks of `common.data.hand`."""

import numpy as np

from .phantom_hand_anatomy import HandAnatomy
from .phantom_hand_shapes import turn
from .phantom_xray import add_bone, add_grain, add_label, collimate, expose, smooth_noise, soft_tissue


def draw_hand(
    rng: np.random.Generator, size: tuple[int, int] = (640, 880), age: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a left hand of random pose and exposure, palm down, thumb to the right.

    A carpal or an epiphysis that has not ossified yet is annotated where it will be, as in the real data.

    Args:
        rng: source of all randomness: the same state gives the same picture.
        size: (W, H) of the picture in pixels.
        age: years, random between 4.5 and 19 if not given: it decides on growth plates and carpal nuclei.

    Returns:
        The picture, uint8, (W, H), x first, bone bright; and the landmarks, float64, (37, 2), in pixels
        (x, y) with centres at integers.
    """
    age = rng.uniform(4.5, 19) if age is None else age
    hand = HandAnatomy(rng, age)
    to_pixels, scale = _film_placement(rng, hand, size)

    attenuation = np.zeros(size, dtype=np.float32)
    for bone in hand.bones:
        add_bone(
            attenuation,
            to_pixels(bone.outline),
            bone.cortex * scale,
            bone.depth * scale,
            bone.density,
            bone.marrow,
        )
    # Trabeculae: fine, mostly along the bones.
    trabeculae = 0.055 * smooth_noise(rng, size, (0.004 * scale, 0.012 * scale))
    trabeculae += 0.06 * smooth_noise(rng, size, 0.02 * scale)
    attenuation *= rng.uniform(0.7, 1.0) * (1 + trabeculae)
    tissue = soft_tissue([to_pixels(skin) for skin in hand.skin], size, 0.075 * scale, 0.42 * scale)
    attenuation += rng.uniform(0.24, 0.36) * tissue * (1 + 0.03 * smooth_noise(rng, size, 0.08 * scale))

    film = expose(rng, attenuation)
    points = to_pixels(hand.points)
    occupied = attenuation > 0.02
    for letter, chance in ((False, 0.5), (False, 0.3), (True, 0.35)):
        if rng.random() < chance:
            film = add_label(rng, film, occupied, letter)
    if rng.random() < 0.4:
        film = collimate(rng, film, points)
    return add_grain(rng, film), points


def _film_placement(rng: np.random.Generator, hand: HandAnatomy, size: tuple[int, int]):
    """The map from the hand's frame to pixels, with all landmarks on the film, and pixels per unit."""
    rotation = np.clip(rng.normal(0, 5), -13, 13)
    broad = rng.normal(1, 0.03)
    bend, taper = rng.normal(0, 0.01), rng.normal(0, 0.015)

    def to_plane(points: np.ndarray) -> np.ndarray:
        u, v = points[..., 0], points[..., 1]
        # A mild bend and taper, so that hands differ by more than a similarity.
        v_bounded = np.clip(v, -1.2, 2.6)
        shaped = np.stack([u * (broad + taper * v_bounded) + bend * v_bounded**2, v], axis=-1)
        return turn(shaped, rotation) * [1, -1]

    # Fingers lie on the film wholly; of the forearm at least the landmarks do.
    body = np.concatenate([to_plane(hand.points)] + [to_plane(skin) for skin in hand.skin[:5]])
    low, high = body.min(0), body.max(0) + [0, 0.08]
    margin = 0.015 * min(size)
    room = np.array(size) - 1 - 2 * margin
    fit = float(np.min(room / (high - low)))
    scale = fit * rng.uniform(0.88, 1.0) * (0.93 + 0.07 * hand.growth)
    slack = room - scale * (high - low)
    origin = margin + slack * rng.uniform([0.0, 0.15], [1.0, 1.0]) - scale * low
    return lambda points: origin + scale * to_plane(points), scale
