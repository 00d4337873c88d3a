"""One spine with scoliosis as outlines in millimetres, from the neck to the sacrum."""

import numpy as np
from scipy.interpolate import PchipInterpolator

from .phantom_spine_shapes import (
    DISTANCE,
    HEIGHT,
    LOWER_WIDTH,
    PLATE,
    SIDE,
    UPPER_WIDTH,
)
from .phantom_xray import Layer, ellipse, ribbon, smooth_curve, smooth_outline


def vertebral_tilts(rng: np.random.Generator, cobb: float, curves: int) -> np.ndarray:
    """Tilts in degrees of the vertebrae from C7 to S1, whose largest difference from T1 to L5 is `cobb`.

    `curves`: 1 is C-shaped, 2 and 3 are S-shaped with one curve after the other to the other side.
    """
    # End vertebrae: where one curve passes into the next, vertebrae are tilted most, to alternating sides.
    ends = {
        1: [rng.uniform(2.5, 6), rng.uniform(12, 16)],
        2: [rng.uniform(1.5, 4), rng.uniform(8, 11.5), rng.uniform(14.5, 17)],
        3: [rng.uniform(1, 2), rng.uniform(4.5, 6.5), rng.uniform(10, 12), rng.uniform(15, 17)],
    }[curves]
    heights = rng.uniform(0.55, 1.0, len(ends)) if curves > 1 else rng.uniform(0.8, 1.0, 2)
    tilts = heights * rng.choice([-1, 1]) * (-1.0) ** np.arange(len(ends))
    knots = [min(-1.5, ends[0] - 2.5), *ends, max(19.5, ends[-1] + 2.5)]
    profile = PchipInterpolator(knots, [0.35 * tilts[0], *tilts, 0.35 * tilts[-1]])(np.arange(19.0))
    profile += rng.normal(0, 0.02, 19)
    real = profile[1:18]
    return profile * cobb / (real.max() - real.min())


class SpineAnatomy:
    """A spine of given tilts, from C7 (0) to S1 (18).

    Attributes:
        corners: of the 19 vertebrae, (19, 4, 2): top left, top right, bottom left, bottom right.
        bones, ribs, air, tissue: what lies in the beam; `phantom_spine_trunk` adds the trunk.
    """

    def __init__(self, rng: np.random.Generator, tilts: np.ndarray):
        self.rng = rng
        self.bones: list[Layer] = []
        self.ribs: list[Layer] = []
        self.air: list[Layer] = []
        self.tissue: list[Layer] = []
        self._lay_out(tilts)
        for number in range(18):
            self._add_vertebra(number)
        self._add_cervical_spine()

    def _lay_out(self, tilts: np.ndarray) -> None:
        rng = self.rng
        stretch = rng.normal(1, 0.03)
        distance = DISTANCE * stretch * rng.normal(1, 0.012, 18)
        # The tilt that all share decides on where T1 stands above L5.
        between = np.radians(0.5 * (tilts[1:] + tilts[:-1]))
        wanted = rng.normal(0, 12)
        for _ in range(6):
            offset = (distance[1:17] * np.sin(between[1:17])).sum()
            between = between + (wanted - offset) / distance[1:17].sum()
        self.tilts = tilts + np.degrees(between[0]) - 0.5 * (tilts[0] + tilts[1])
        steps = distance[:, None] * np.stack([-np.sin(between), np.cos(between)], axis=1)
        self.centres = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
        self.axes = np.stack([np.cos(np.radians(self.tilts)), np.sin(np.radians(self.tilts))], axis=1)
        self.downs = np.stack([-self.axes[:, 1], self.axes[:, 0]], axis=1)
        # Wedged and sheared bodies keep the tilt that the Cobb angle is measured by.
        bend = np.gradient(self.tilts)
        broad, slender = rng.normal(1, 0.04), rng.normal(1, 0.03)
        top = 0.5 * UPPER_WIDTH * broad * rng.normal(1, 0.015, 19)
        bottom = 0.5 * LOWER_WIDTH * broad * rng.normal(1, 0.015, 19)
        height = 0.5 * HEIGHT * stretch * slender * rng.normal(1, 0.02, 19)
        wedge = np.clip(0.012 * bend, -0.16, 0.16) + rng.normal(0, 0.015, 19)
        shear = 0.03 * height * rng.normal(0, 1, 19)
        local = np.stack(
            [
                np.stack([-top + shear, -height * (1 + wedge)], axis=1),
                np.stack([top + shear, -height * (1 - wedge)], axis=1),
                np.stack([-bottom - shear, height * (1 + wedge)], axis=1),
                np.stack([bottom - shear, height * (1 - wedge)], axis=1),
            ],
            axis=1,
        )
        self.corners = np.stack([self.place(k, local[k]) for k in range(19)])
        self.rotation = np.clip(-0.022 * bend, -0.2, 0.2)  # of the bodies, towards the convex side

    def place(self, number: int, local) -> np.ndarray:
        """Points of a vertebra's own frame, in millimetres from its centre."""
        local = np.asarray(local, dtype=float)
        return self.centres[number] + local[..., :1] * self.axes[number] + local[..., 1:] * self.downs[number]

    def _add_vertebra(self, number: int) -> None:
        rng = self.rng
        top_left, top_right, bottom_left, bottom_right = self.corners[number]

        def inside(x: float, y: float) -> np.ndarray:
            """Fractions of half the width and height, bent to the four corners."""
            upper = top_left + (top_right - top_left) * (x + 1) / 2
            lower = bottom_left + (bottom_right - bottom_left) * (x + 1) / 2
            return upper + (lower - upper) * (y + 1) / 2

        control = [top_left, *(inside(-x, -y) for x, y in PLATE), top_right, *(inside(x, y) for x, y in SIDE)]
        control += [bottom_right, *(inside(x, y) for x, y in PLATE), bottom_left, *(inside(-x, -y) for x, y in SIDE)]
        lumbar = np.clip((number - 9) / 6, 0, 1)
        self.bones.append(Layer(smooth_outline(np.array(control), 6), 0.52 + 0.16 * lumbar, 8, 1.5, 0.42))
        for edge in (control[:5], control[8:13]):  # end plates, seen edge on
            self.bones.append(Layer(ribbon(smooth_curve(np.array(edge), 6), 1.5), 0.26, 0.75))
        half = 0.5 * float(np.linalg.norm(top_right - top_left))
        height = 0.5 * float(np.linalg.norm(bottom_left - top_left))
        turn = self.rotation[number]
        degrees = self.tilts[number]
        for side in (-1, 1):
            # Pedicles: bright ovals in the upper half of the body.
            at = inside(side * (0.60 + 0.06 * lumbar) + turn, -0.30)
            oval = ellipse(at, (0.14 * half + 0.6, (0.38 - 0.06 * lumbar) * height), degrees)
            self.bones.append(Layer(oval, 0.62, 3, 1.0, 0.1))
            # Transverse process, and the joints above and below it.
            reach, rise = half * (1.75 - 0.1 * lumbar) + 4 * lumbar, -0.35 * height * (1.6 - 1.5 * lumbar)
            root = 0.75 * side * half
            process = [
                (root, -4),
                (side * reach, rise - 4),
                (side * (reach + 3), rise),
                (side * reach, rise + 4),
                (root, 4),
            ]
            self.bones.append(Layer(smooth_outline(self.place(number, process), 5), 0.20, 4, 0.8, 0.5))
            facet = self.place(number, [(side * 0.62 * half + turn * half, 1.02 * height)])[0]
            self.bones.append(
                Layer(ellipse(facet, (3.2 + lumbar, 5.5 + 2 * lumbar), degrees + side * 8), 0.22, 3, 0.8, 0.5)
            )
        # Spinous process: a drop in the middle, lower in the chest, where it hangs over the next body.
        spinous = np.array([(0, -4), (1.8, 2), (3.0, 7), (0, 10 + 2 * lumbar), (-3.0, 7), (-1.8, 2)])
        spinous = spinous + [1.6 * turn * half, (0.9 - 0.55 * lumbar) * height + rng.normal(0, 0.8)]
        self.bones.append(Layer(smooth_outline(self.place(number, spinous), 5), 0.42, 2.2, 0.8, 0.4))
        lamina = [
            (-0.5 * half, 2),
            (0, -1),
            (0.5 * half, 2),
            (0.42 * half, height),
            (0, 0.7 * height),
            (-0.42 * half, height),
        ]
        self.bones.append(Layer(smooth_outline(self.place(number, np.array(lamina) + [turn * half, 0]), 5), 0.08, 3))

    def _add_cervical_spine(self) -> None:
        """Look-alikes above C7, and the dark windpipe before them."""
        axis, down = self.axes[0], self.downs[0]
        for level in range(1, 6):
            at = self.centres[0] - 16 * level * down
            box = [(-14, -5), (0, -4), (14, -6.5), (13, 0), (14, 5), (0, 6), (-14, 5), (-13, 0)]
            outline = at + np.array(box)[:, :1] * axis + np.array(box)[:, 1:] * down
            self.bones.append(Layer(smooth_outline(outline, 6), 0.4, 7, 1.1, 0.6))
            for side in (-1, 1):
                self.bones.append(Layer(ellipse(at + side * 17 * axis, (5, 8.5)), 0.22, 4, 1.0, 0.6))
        windpipe = [self.centres[0] - 90 * down, self.centres[0] - 10 * down, self.centres[3], self.centres[5] + [3, 8]]
        self.air.append(Layer(ribbon(smooth_curve(np.array(windpipe), 8), self.rng.uniform(11, 16)), -0.22, 7))
