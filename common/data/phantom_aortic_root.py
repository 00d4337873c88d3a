"""Synthetic coronary CT angiographies, with the 8 landmarks of `common.data.aortic_root`."""

import numpy as np
from scipy.ndimage import gaussian_filter

from .phantom_aortic_root_anatomy import AorticRoot
from .phantom_aortic_root_chest import paint_airways, paint_chest
from .phantom_aortic_root_heart import Heart
from .phantom_volume import Canvas, add_noise


def draw_aortic_root(
    rng: np.random.Generator,
    size: tuple[int, int, int] = (96, 96, 80),
    spacing: tuple[float, float, float] = (1.5, 1.5, 1.5),
    swapped: bool | None = None,
    noise: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a chest with a contrast-filled aortic root about its middle.

    Args:
        rng: source of all randomness: the same state gives the same volume.
        size: voxels (X, Y, Z), whose axes point to the patient's left, back and head.
        spacing: millimetres per voxel.
        swapped: whether the right ostium is in the left sinus, close to the left one, as in Section VI of
            Noothout et al. 2020; in one of 25 if not given.
        noise: factor of the usual noise.

    Returns:
        The volume, int16, (X, Y, Z), in Hounsfield units; and the landmarks, float64, (8, 3), in voxels with
        centres at integers.
    """
    root = AorticRoot(rng, swapped)
    heart = Heart(rng, root)
    extent = (np.asarray(size) - 1) * np.asarray(spacing)
    # The heart lies below the root, so that the root is in the upper half of a scan.
    place = rng.normal([0.46, 0.48, 0.57], [0.03, 0.03, 0.04]).clip([0.38, 0.4, 0.5], [0.54, 0.56, 0.65])
    margin = (place * extent + root.landmarks.min(0), (1 - place) * extent - root.landmarks.max(0))
    shift = np.maximum(6 - margin[0], 0) - np.maximum(6 - margin[1], 0)
    canvas = Canvas(size, spacing, -(place * extent + shift), 0)
    paint_chest(rng, canvas)
    heart.paint(canvas)
    paint_airways(rng, canvas)
    values = canvas.values
    gaussian_filter(values, rng.uniform(0.35, 0.6) / np.asarray(spacing), output=values, mode="nearest", truncate=3)
    add_noise(rng, values, noise * rng.uniform(12, 34), rng.uniform(0.3, 0.6))
    np.clip(values, -1024, 3071, out=values)
    return np.rint(values, out=values).astype(np.int16), canvas.to_voxels(root.landmarks)
