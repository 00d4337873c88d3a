"""What lies around the heart in a chest CT: lungs, chest wall, spine, liver and airways, in Hounsfield units.

Millimetres towards the patient's left, back and head (LPS) from the centre of the aortic annulus.
"""

import numpy as np

from .phantom_volume import Body, Canvas, ellipsoid, grown, smooth_path, tube

AIR, LUNG, FAT, MUSCLE, BONE, MARROW, LIVER = -1000, -850, -95, 55, 480, 190, 105


def paint_chest(rng: np.random.Generator, canvas: Canvas) -> None:
    """Fill a canvas with a chest that has no heart yet."""
    middle = np.array([rng.normal(-8, 5), rng.normal(6, 3)])
    half = np.array([rng.uniform(112, 130), rng.uniform(68, 77)])
    canvas.values[...] = LUNG
    _paint_lung_vessels(rng, canvas)
    _paint_wall(rng, canvas, middle, half)
    # The right dome of the diaphragm stands higher.
    for side, height, grey in ((-1, rng.uniform(-52, -38), LIVER), (1, rng.uniform(-75, -58), 60)):
        radii = np.array([72, 68, 60])
        dome = ellipsoid([side * 62 - 5, 5, height - radii[2]], radii)
        canvas.paint(MUSCLE, grown(dome, 2))
        canvas.paint(grey, dome)
    _paint_mediastinum(rng, canvas)
    gullet = smooth_path([[8, 56, -90], [6, 55, -30], [2, 55, 20], [-2, 57, 100]], 10)
    canvas.paint(MUSCLE, *tube(gullet, 5.5))
    if rng.random() < 0.4:
        canvas.paint(-500, *tube(gullet, 1.8))
    _paint_spine(rng, canvas, [middle[0] + rng.normal(3, 3), middle[1] + half[1] + rng.uniform(-2, 4)])


def paint_airways(rng: np.random.Generator, canvas: Canvas) -> None:
    """The windpipe and its two branches."""
    fork = np.array([rng.normal(-4, 3), rng.uniform(42, 50), rng.uniform(52, 64)])
    for end, radius in (([-42, 52, 18], 6.5), ([46, 54, 20], 6)):
        path = smooth_path([fork + [0, 0, 45], fork + [0, 0, 8], 0.5 * (fork + np.array(end)) + [0, 0, 6], end], 5)
        canvas.paint(MUSCLE, *tube(path, radius + 1.2))
        canvas.paint(AIR, *tube(path, radius))


def _paint_lung_vessels(rng: np.random.Generator, canvas: Canvas) -> None:
    """Branches that spread from the two hila and grow thin."""
    for side in (-1, 1):
        hilum = np.array([side * 38 - 4, 35, 15])
        for _ in range(26):
            way = rng.normal(0, 1, 3) + [0.9 * side, 0, -0.35]
            way /= np.linalg.norm(way)
            bend, end = 28 * way + rng.normal(0, 5, 3), rng.uniform(60, 90) * way + rng.normal(0, 8, 3)
            path = smooth_path([hilum, hilum + bend, hilum + end], 9)
            canvas.paint(rng.uniform(60, 260), *tube(path, np.linspace(rng.uniform(2.2, 4), 0.7, len(path))))


def _elliptic_cylinder(middle: np.ndarray, half: np.ndarray, low: float, high: float) -> Body:
    """Along z from `low` to `high`, with half axes (2,) along x and y."""

    def distance(x, y, z):
        u, v = (x - np.float32(middle[0])) / np.float32(half[0]), (y - np.float32(middle[1])) / np.float32(half[1])
        once = u**2 + v**2 + np.float32(1e-12)
        twice = (u / np.float32(half[0])) ** 2 + (v / np.float32(half[1])) ** 2 + np.float32(1e-12 / half.min() ** 2)
        aside = (once - np.sqrt(once)) / np.sqrt(twice)
        return np.maximum(aside, np.maximum(np.float32(low) - z, z - np.float32(high)))

    return Body(distance, [*(middle - half), low], [*(middle + half), high])


def _outside(inner: Body) -> Body:
    """Everything that does not lie in an upright body."""
    return Body(lambda x, y, z: -inner.distance(x, y, z), [-1e4] * 3, [1e4] * 3)


def _paint_wall(rng: np.random.Generator, canvas: Canvas, middle: np.ndarray, half: np.ndarray) -> None:
    """Muscle, fat and skin outside of the lungs, with ribs and breastbone, and air around."""
    muscle, fat = rng.uniform(9, 14), rng.uniform(10, 30)
    for margin, grey in ((0, MUSCLE), (muscle, FAT), (muscle + fat, 40), (muscle + fat + 2, AIR)):
        canvas.paint(grey, _outside(_elliptic_cylinder(middle, half + margin, -1e4, 1e4)))
    first = rng.uniform(-150, -126)
    for level in range(9):
        for side in (-1, 1):
            angle = np.linspace(-0.36 * np.pi, 0.42 * np.pi, 14)  # from the breastbone round to the spine
            ring = middle + (half + 5) * np.stack([side * np.cos(angle), np.sin(angle)], axis=1)
            drop = first + 27 * level + 32 * np.sin(angle)
            rib = np.column_stack([ring, drop])
            canvas.paint(BONE, *tube(rib, 4.6))
            canvas.paint(MARROW, *tube(rib, 3.0))
            cartilage = np.linspace(rib[0], [middle[0] + 12 * side, middle[1] - half[1] - 6, drop[0] + 14], 5)
            canvas.paint(110, *tube(cartilage, 5))
    sternum = [middle[0] + rng.normal(4, 3), middle[1] - half[1] - 7]
    canvas.paint(BONE, _elliptic_cylinder(np.array(sternum), np.array([17, 6.5]), -45, 1e3))
    canvas.paint(140, _elliptic_cylinder(np.array(sternum), np.array([15, 4.5]), -44, 1e3))


def _paint_mediastinum(rng: np.random.Generator, canvas: Canvas) -> None:
    """Fat between the lungs, for the great vessels and behind the breastbone."""
    canvas.paint(FAT, _elliptic_cylinder(np.array([-4.0, 12.0]), np.array([rng.uniform(36, 42), 56]), 0, 1e3))
    canvas.paint(FAT, _elliptic_cylinder(np.array([8.0, 58.0]), np.array([34.0, 22]), -1e3, 1e3))
    canvas.paint(FAT, _elliptic_cylinder(np.array([2.0, -52.0]), np.array([rng.uniform(16, 26), 20]), -1e3, 1e3))


def _paint_spine(rng: np.random.Generator, canvas: Canvas, middle: list[float]) -> None:
    middle, start = np.asarray(middle), rng.uniform(-140, -115)
    half = np.array([rng.uniform(16, 19), rng.uniform(13, 15)])
    back = middle + [0, 25]
    canvas.paint(MUSCLE, _elliptic_cylinder(middle + [0, 28], np.array([55.0, 26]), -1e3, 1e3))
    canvas.paint(100, _elliptic_cylinder(middle, half - 0.5, -1e3, 1e3))
    for level in range(12):
        low = start + 25 * level
        canvas.paint(BONE, _elliptic_cylinder(middle, half, low, low + 20))
        canvas.paint(MARROW, _elliptic_cylinder(middle, half - 1.5, low + 1.5, low + 18.5))
        canvas.paint(BONE, *tube(np.array([[*(back + [0, 12]), low + 10], [*(back + [0, 34]), low - 8]]), 3.5))
        for side in (-1, 1):
            process = np.array([[*(back + [9 * side, -7]), low + 12], [*(back + [13 * side, 4]), low + 12]])
            canvas.paint(BONE, *tube(process, 5))
            process = np.array([process[1], [*(back + [32 * side, 14]), low + 16]])
            canvas.paint(BONE, *tube(process, 4))
    canvas.paint(BONE, _elliptic_cylinder(back, np.array([12.0, 12]), -1e3, 1e3), opacity=0.5)
    canvas.paint(30, _elliptic_cylinder(back, np.array([9.0, 8.5]), -1e3, 1e3))
