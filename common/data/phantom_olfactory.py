"""Synthetic coronal T2-weighted MR of the frontal skull base, with the 2 landmarks of `common.data.olfactory_bulbs`."""

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from .phantom_olfactory_anatomy import CSF, GREY, Head
from .phantom_volume import Body, Canvas, rotation, sampled, smooth_field, turned


def draw_olfactory_bulbs(
    rng: np.random.Generator,
    size: tuple[int, int, int] = (256, 256, 28),
    spacing: tuple[float, float, float] = (0.46875, 0.46875, 1.0),
    bulbs: bool = True,
    noise: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the front of a head in coronal slices.

    Args:
        rng: source of all randomness: the same state gives the same volume.
        size: voxels (X, Y, Z), whose axes point to the patient's left, feet and back: a slice is (:, :, z).
        spacing: millimetres per voxel.
        bulbs: whether to draw the olfactory bulbs; without them all else stays the same.
        noise: factor of the usual noise.

    Returns:
        The volume, int16, (X, Y, Z), fluid bright; and the landmarks, float64, (2, 3), the centres of the right
        and the left bulb in voxels with centres at integers.
    """
    size, spacing = np.asarray(size), np.asarray(spacing, dtype=float)
    head = Head(rng)
    turn = rotation(rng.normal(0, [3, 3, 3.5]).clip(-7, 7))
    place = 0.5 * (size - 1) * spacing + rng.normal([0, 3, 0], [2.5, 4, 1.2]).clip([-6, -7, -2.5], [6, 12, 2.5])
    # Thick slices average over what they cut: each is drawn as several thin ones.
    thin = int(np.clip(round(spacing[2] / spacing[0]), 1, 4))
    fine = spacing / [1, 1, thin]
    origin = -place - [0, 0, 0.5 * (spacing[2] - fine[2])]
    canvas = Canvas(size * [1, 1, thin], fine, origin, 10)
    _paint(rng, canvas, head, turn, bulbs)
    values = canvas.values.reshape(*size, thin).mean(-1)
    points = (head.centres @ turn.T + place) / spacing
    return _measure(rng, values, spacing, noise), points


def _paint(rng: np.random.Generator, canvas: Canvas, head: Head, turn: np.ndarray, bulbs: bool) -> None:
    size = canvas.values.shape
    everywhere = canvas.coordinates((0, 0, 0), size)

    def sample(body: Body) -> Body:
        """The same body for less time, where it is needed more than once."""
        return sampled(canvas, turned(body, turn).distance(*everywhere), turn)

    def chance_surfaces(sigma: float) -> Body:
        """Distance in mm from where smooth noise is zero: winding surfaces about 3 `sigma` mm apart."""
        field = smooth_field(rng, everywhere, sigma)
        slope = np.sqrt(sum(part**2 for part in np.gradient(field, *canvas.spacing)))
        return sampled(canvas, np.abs(field) / np.maximum(slope, np.float32(0.25 / sigma)), turn)

    folds, cells = chance_surfaces(5.0), chance_surfaces(3.2)
    layers = [*head.outline(sample, folds), *head.brain(sample, folds), *head.sinuses(cells), *head.orbits()]
    layers.append((GREY, head.tracts()))
    if bulbs:
        layers.append((GREY, head.bulbs()))
    for grey, bodies, *sheet in layers:
        canvas.paint(grey, *(turned(body, turn) for body in bodies), sheet=sheet[0] if sheet else 0.0)


def _measure(rng: np.random.Generator, values: np.ndarray, spacing: np.ndarray, noise: float) -> np.ndarray:
    """The image of a scanner: texture, blur, coil sensitivity, gain and noise of magnitudes; int16."""
    axes = [np.arange(n) * step for n, step in zip(values.shape, spacing)]
    values *= 1 + np.float32(0.05) * smooth_field(rng, axes, 1.2)
    in_plane = rng.uniform(0.2, 0.4) / spacing[:2]
    values = gaussian_filter(values, (*in_plane, 0), mode="nearest", truncate=3)
    values = gaussian_filter1d(values, rng.uniform(0.15, 0.35), axis=2, mode="nearest")
    values *= np.exp(np.float32(rng.uniform(0.08, 0.22)) * smooth_field(rng, axes, 45.0))
    level = noise * rng.uniform(0.015, 0.045) * CSF
    values += level * rng.standard_normal(values.shape, dtype=np.float32)
    values = np.hypot(values, level * rng.standard_normal(values.shape, dtype=np.float32))
    return np.rint(values * rng.uniform(0.5, 1.5)).clip(0, 4095).astype(np.int16)
