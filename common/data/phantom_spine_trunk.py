"""What surrounds a spine on its film: pelvis, ribs, shoulder girdle, lungs, heart, diaphragm, bowel."""

import numpy as np

from .phantom_spine_anatomy import SpineAnatomy
from .phantom_spine_shapes import HEIGHT, RIB, RIB_DROP, RIB_FRONT, RIB_REACH
from .phantom_xray import Layer, ellipse, ribbon, smooth_curve, smooth_outline


def add_pelvis(spine: SpineAnatomy) -> None:
    """Add the sacrum, which looks like one more vertebra, and the iliac wings."""
    rng = spine.rng
    at, axis, down = spine.centres[18], spine.axes[18] * 0.4 + [0.6, 0], spine.downs[18] * 0.4 + [0, 0.6]

    def lay(points) -> np.ndarray:
        points = np.asarray(points, dtype=float)
        return at + points[:, :1] * axis + points[:, 1:] * down

    left, right = spine.corners[18, 0], spine.corners[18, 1]
    wide = lay([(50, -2), (47, 18), (32, 45), (14, 78), (-14, 78), (-32, 45), (-47, 18), (-50, -2)])
    sacrum = np.concatenate([[left, 0.5 * (left + right) + [0, 2], right], wide])
    spine.bones.append(Layer(smooth_outline(sacrum, 6), 0.50, 14, 1.2, 0.6))
    for row in range(3):
        for side in (-1, 1):
            hole = lay([(side * (20 - 2 * row), 18 + 17 * row)])[0]
            spine.air.append(Layer(ellipse(hole, (3.5, 5)), -0.10, 3))
    flare, rise = rng.normal(1, 0.06), rng.uniform(-14, 6)
    for side in (-1, 1):
        wing = np.array(
            [
                (50, 30),
                (54, 6),
                (66, -14),
                (84, -28),
                (106, -26),
                (126, 0),
                (132, 36),
                (112, 62),
                (80, 90),
                (52, 78),
                (42, 50),
            ]
        )
        wing = lay(wing * [side * flare, 1] + [0, rise])
        spine.bones.append(Layer(smooth_outline(wing, 6), 0.48, 10, 2.2, 0.35))
        spine.bones.append(Layer(ribbon(smooth_curve(wing[1:6], 8), 3), 0.12, 1.5))


def add_ribs(spine: SpineAnatomy) -> None:
    """Add twelve pairs of ribs, the clavicles and the shoulder blades."""
    rng = spine.rng
    broad, drop = rng.normal(1, 0.05), rng.normal(1, 0.07)
    for number in range(1, 13):
        half = 0.5 * float(np.linalg.norm(spine.corners[number, 1] - spine.corners[number, 0]))
        for side in (-1, 1):
            size = np.array([RIB_REACH[number - 1] * broad, RIB_DROP[number - 1] * drop])
            rib = RIB[: 6 if number == 12 else 8] * size * rng.normal(1, 0.02, 2)
            # The chest follows the spine's tilt in part; ribs crowd on the concave side.
            start = spine.place(number, [(side * (half + 1), -0.35 * HEIGHT[number])])[0]
            angle = np.radians(0.55 * spine.tilts[number])
            turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            curve = smooth_curve(start + (rib * [side, 1]) @ turn, 9)
            width = np.linspace(5.5, 8.0, len(curve))
            spine.ribs.append(Layer(ribbon(curve, width), 0.24, 3.5, 1.0, 0.35))
            spine.bones.append(Layer(ellipse(curve[5], (5, 4)), 0.08, 3))
            if number < 11:
                front = RIB_FRONT * size * [1, 1.1]
                curve = smooth_curve(start + (front * [side, 1]) @ turn, 9)
                spine.ribs.append(Layer(ribbon(curve, 9.0), 0.10, 4, 1.0, 0.5))
    for side in (-1, 1):  # clavicles, with the shoulder blades' inner edges
        inner = spine.centres[3] + [side * rng.uniform(13, 20), rng.normal(6, 5)]
        rise = rng.normal(18, 7)
        clavicle = inner + np.array([(0, 0), (25, -5), (60, -0.6 * rise), (100, -rise)]) * [side, 1]
        spine.ribs.append(Layer(ribbon(smooth_curve(clavicle, 9), np.linspace(15, 10, 28)), 0.24, 5, 1.4, 0.45))
        blade = spine.centres[4] + np.array([(78, -25), (70, 20), (82, 85), (96, 100), (130, 20)]) * [side, 1]
        spine.ribs.append(Layer(smooth_outline(blade, 8), 0.10, 5, 1.5, 0.5))


def add_soft_tissue(spine: SpineAnatomy) -> None:
    """Add trunk, lungs, heart, diaphragm, stomach and bowel."""
    rng, c = spine.rng, spine.centres
    middle = np.array([np.mean(c[1:18, 0]), 0.0])
    # Domes of the diaphragm near T10, the liver's (the image's left) higher.
    dome = {side: c[10, 1] + rng.uniform(-12, 22) + (0 if side < 0 else rng.uniform(4, 14)) for side in (-1, 1)}
    shoulder = c[1, 1] + rng.uniform(-25, 10)
    trunk = [
        (-46, shoulder - 130),
        (-44, shoulder - 45),
        (-70, shoulder - 15),
        (-170, shoulder + 25),
        (-175, 300),
        (-150, 420),
        (-180, 700),
    ]
    trunk = np.array(trunk)
    trunk = middle + np.concatenate([trunk, (trunk * [-1, 1])[::-1]])
    spine.tissue.append(Layer(smooth_outline(trunk, 8), 0.62, 60))
    for side in (-1, 1):
        base = dome[side]
        inner = [c[2] + [side * 20, 0], c[5] + [side * 22, 0], c[8] + [side * 26, 0]]
        outer = [(30, base + 6), (62, base - 12), (98, base + 2), (128, base + 45), (128, c[6, 1])]
        outer += [(92, c[2, 1] + 6), (58, c[1, 1] - 4), (34, c[1, 1] + 2)]
        lung = inner + [(middle[0] + side * x, y) for x, y in outer]
        spine.air.append(Layer(smooth_outline(np.array(lung), 8), -rng.uniform(0.44, 0.60), 26))
        for _ in range(14):  # vessels around the root of the lung
            start = np.array([middle[0] + side * 32, c[6, 1]]) + rng.normal(0, 6, 2)
            heading = rng.uniform(-1.2, 1.2)
            reach = rng.uniform(25, 70) * np.array([side * np.cos(heading), np.sin(heading)])
            vessel = smooth_curve(start + np.array([[0.0], [0.4], [1.0]]) * reach + rng.normal(0, 3, (3, 2)), 6)
            spine.tissue.append(Layer(ribbon(vessel, np.linspace(3.2, 0.8, len(vessel))), 0.035, 1.3))
    base = dome[1]
    heart = np.array(
        [
            (-30, -62),
            (-8, -104),
            (12, -112),
            (24, -95),
            (34, -66),
            (56, -34),
            (64, -8),
            (48, 8),
            (0, 10),
            (-24, 2),
            (-29, -25),
        ]
    )
    heart = heart * rng.normal(1, 0.08, 2) + [middle[0] + rng.normal(3, 4), base]
    spine.tissue.append(Layer(smooth_outline(heart, 8), rng.uniform(0.24, 0.36), 22))
    column = np.concatenate([spine.corners[:, 0] - [9, 0], (spine.corners[:, 1] + [9, 0])[::-1]])
    spine.tissue.append(Layer(smooth_outline(column, 4), 0.16, 12))
    belly = np.array(
        [
            (-150, 30),
            (-95, -4),
            (-60, -14),
            (-25, 4),
            (25, 10),
            (60, -2),
            (95, 10),
            (150, 40),
            (170, 400),
            (-170, 400),
        ]
    )
    spine.tissue.append(Layer(smooth_outline(belly + [middle[0], base], 8), rng.uniform(0.16, 0.34), 45))
    if rng.random() < 0.75:  # the stomach's bubble
        bubble = ellipse(
            (middle[0] + rng.uniform(50, 72), base + rng.uniform(12, 24)),
            (rng.uniform(14, 30), rng.uniform(6, 17)),
            8,
        )
        spine.air.append(Layer(bubble, -rng.uniform(0.12, 0.35), 9))
    for _ in range(rng.integers(2, 7)):  # gas in the bowel, mostly at the sides, in clusters
        at = np.array([middle[0] + rng.choice([-1, 1]) * rng.uniform(25, 95), rng.uniform(c[14, 1], c[18, 1] + 40)])
        for _ in range(rng.integers(1, 7)):
            gas = ellipse(at + rng.normal(0, 9, 2), rng.uniform(3, 12, 2), rng.uniform(0, 180))
            spine.air.append(Layer(gas, -rng.uniform(0.05, 0.16), 6))
    for side in (-1, 1):  # psoas
        psoas = [
            c[13] + [side * 16, 0],
            c[15] + [side * 38, 0],
            c[17] + [side * 58, 20],
            c[17] + [side * 24, 20],
            c[15] + [side * 18, 0],
        ]
        spine.tissue.append(Layer(smooth_outline(np.array(psoas), 8), 0.09, 10))
