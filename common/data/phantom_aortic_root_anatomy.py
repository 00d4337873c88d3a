"""One aortic root: sinuses, leaflets, ostia and the beginning of the coronary arteries.

Millimetres towards the patient's left, back and head (LPS) from the centre of the annulus. The root has its own
axis, from the ventricle to the aorta, and cylindrical coordinates about it: height, radius and angle, which
grows from the patient's left to the back.
"""

import numpy as np

from .phantom_volume import Body, smooth_path, tube

LEFT, NONCORONARY, RIGHT = range(3)  # leaflets; commissure k lies between leaflets k and k + 1
WALL = 1.6  # mm
TUBE = 7.0  # mm of the outflow tract that belong to the root


class AorticRoot:
    """A root of random size and pose.

    Args:
        rng: source of all randomness.
        swapped: whether both ostia are in the left sinus, close together; if not given, in one of 25.

    Attributes:
        axis: unit vector from the ventricle to the aorta; `frame` (3, 3) has as rows the directions of the angles
            0 and 90 degrees, and the axis.
        middle, nadir: angle in radians, and height in mm, of the lowest point of each leaflet's attachment (3,).
        between, top: the same of each commissure (3,).
        ostia: (2, 2), angle and height of the right and of the left ostium.
        landmarks: (8, 3) in the order of `common.data.aortic_root`.
    """

    def __init__(self, rng: np.random.Generator, swapped: bool | None = None):
        self.swapped = bool(rng.random() < 0.04) if swapped is None else swapped
        self.annulus = 0.5 * rng.uniform(20, 28)
        self.height = self.annulus * rng.uniform(1.55, 1.95)  # of the sinotubular junction
        self.junction = self.annulus * rng.uniform(1.0, 1.22)
        self.bulge = self.annulus * rng.uniform(0.32, 0.48)
        self.oval, self.oval_angle = rng.uniform(0, 0.05), rng.uniform(0, np.pi)
        self.bend = rng.uniform(0.42, 0.58)  # where sinuses are widest, as a share of the height
        axis = np.array([rng.normal(-0.52, 0.12), rng.normal(-0.2, 0.12), 0.8])
        axis /= np.linalg.norm(axis)
        left = np.array([1.0, 0, 0]) - axis[0] * axis
        left /= np.linalg.norm(left)
        self.axis, self.frame = axis, np.stack([left, np.cross(axis, left), axis])
        turn = np.clip(rng.normal(0, 11), -26, 26)
        self.middle = np.radians(turn + np.array([35, 155, 275]) + rng.normal(0, 3.5, 3).clip(-8, 8))
        following = np.append(self.middle[1:], self.middle[0] + 2 * np.pi)
        self.between = 0.5 * (self.middle + following) + np.radians(rng.normal(0, 3, 3).clip(-7, 7))
        self.nadir = rng.normal(0, 0.6, 3).clip(-1.3, 1.3)
        self.top = self.height * rng.uniform(0.80, 0.95, 3)
        self.coaptation = self.height * rng.uniform(0.38, 0.52)
        self._place_ostia(rng)
        angles = np.concatenate([self.between[[1, 0, 2]], self.middle, self.ostia[:, 0]])
        heights = np.concatenate([self.top[[1, 0, 2]], self.nadir, self.ostia[:, 1]])
        self.landmarks = self.on_wall(angles, heights)

    def _place_ostia(self, rng: np.random.Generator) -> None:
        spread = np.radians(rng.normal(0, 7, 2).clip(-15, 15))
        heights = self.height * rng.uniform(0.62, 0.95, 2)
        left = self.middle[LEFT] + spread[1]
        right = self.middle[RIGHT] + spread[0]
        apart = np.radians(rng.uniform(24, 34))
        if self.swapped:
            left = self.middle[LEFT] + abs(spread[1])
            right = left - apart
        self.ostia = np.array([[right, heights[0]], [left, heights[1]]])
        self.calibre = rng.uniform([1.5, 1.8], [2.1, 2.5]) * (0.85 + 0.15 * self.annulus / 12)

    def to_lps(self, angle: np.ndarray, radius: np.ndarray, height: np.ndarray) -> np.ndarray:
        """Points (N, 3) of cylindrical coordinates (N,)."""
        own = np.stack(np.broadcast_arrays(radius * np.cos(angle), radius * np.sin(angle), height), axis=-1)
        return own @ self.frame

    def on_wall(self, angle: np.ndarray, height: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the inner wall."""
        return self.to_lps(angle, self.radius(angle, height), height)

    def cylindrical(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Angle, radius and height of points."""
        u, v, height = (a * x + b * y + c * z for a, b, c in self.frame.astype(np.float32))
        return np.arctan2(v, u), np.sqrt(u**2 + v**2), height

    def leaflet_part(self, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How far along its leaflet an angle is, 0 in the middle and 1 at the commissure; and the heights of that
        leaflet's lowest point and of that commissure."""
        start = self.between[RIGHT] - 2 * np.pi
        knots = np.stack([self.middle, self.between], axis=1).ravel() - start
        along = (angle - start) % (2 * np.pi)
        part = np.interp(along, [0, *knots], [1, 0, 1, 0, 1, 0, 1]).astype(np.float32)
        half = np.searchsorted(knots, along).clip(0, 5)
        nadir = np.repeat(self.nadir, 2).astype(np.float32)[half]
        top = self.top[[RIGHT, LEFT, LEFT, NONCORONARY, NONCORONARY, RIGHT]].astype(np.float32)[half]
        return part, nadir, top

    def radius(self, angle: np.ndarray, height: np.ndarray) -> np.ndarray:
        """Radius of the inner wall: three sinuses between the annulus and the sinotubular junction."""
        part, _, _ = self.leaflet_part(angle)
        up = np.clip(height / self.height, 0, 1)
        round_part = self.annulus + (self.junction - self.annulus) * up**2 * (3 - 2 * up)
        sinus = self.bulge * np.sin(np.pi * up ** (np.log(0.5) / np.log(self.bend))) * np.cos(0.5 * np.pi * part)
        return (round_part + sinus) * (1 + self.oval * np.cos(2 * (angle - self.oval_angle)))

    def attachment(self, angle: np.ndarray) -> np.ndarray:
        """Height at which a leaflet is attached to the wall: a crown of three parabolas."""
        part, nadir, top = self.leaflet_part(angle)
        return nadir + (top - nadir) * part**2

    def leaflet(self, angle: np.ndarray, radius: np.ndarray) -> np.ndarray:
        """Height of the closed leaflets: bowls that hang from the attachment and meet in the middle."""
        part, nadir, top = self.leaflet_part(angle)
        wall = self.radius(angle, self.attachment(angle))
        out = np.clip(radius / wall, 0, 1)
        meeting = self.coaptation + (top - self.coaptation) * out**2  # along the lines between two leaflets
        return nadir + (meeting - nadir) * (1 - (1 - part) * out**0.7) ** 2

    def lumen(self, margin: float = 0.0) -> Body:
        """The blood from the outflow tract to above the sinotubular junction, or with a wall of `margin` mm."""
        low, high = -TUBE - margin, self.height + 3

        def distance(x, y, z):
            angle, radius, height = self.cylindrical(x, y, z)
            aside = radius - self.radius(angle, height) - np.float32(margin)
            return np.maximum(aside, np.maximum(low - height, height - high))

        reach = self.annulus + self.bulge + margin + 1
        ends = self.axis * np.array([[low], [high]])
        return Body(distance, ends.min(0) - reach, ends.max(0) + reach)

    def leaflets(self) -> Body:
        """The three leaflets as a sheet: the distance is that from their middle surface."""
        lumen = self.lumen()

        def distance(x, y, z):
            angle, radius, height = self.cylindrical(x, y, z)
            surface = self.leaflet(angle, radius)
            # Height over the leaflet becomes distance by the slope, from differences inwards and around.
            step = np.float32(0.3)
            inwards = (surface - self.leaflet(angle, np.maximum(radius - step, 0))) / step
            turn = step / np.maximum(radius, 1)
            beside = [np.abs(self.leaflet(angle + side * turn, radius) - surface) for side in (-1, 1)]
            around = np.maximum(*beside)
            slope = np.sqrt(1 + inwards**2 + (around / step) ** 2)
            return np.maximum(np.abs(height - surface) / slope, radius - self.radius(angle, height))

        return Body(distance, lumen.low, lumen.high)

    def ascending(self, margin: float = 0.0) -> list[Body]:
        """The ascending aorta, which turns upright and then to the back."""
        place, points = self.axis * (self.height - 1), []
        for step in range(22):
            upright = min(1.0, step / 7)
            direction = (1 - upright) * self.axis + upright * np.array([0.05, 0.05 + 0.03 * max(0, step - 8), 1.0])
            points.append(place)
            place = place + 5 * direction / np.linalg.norm(direction)
        widths = self.junction * np.interp(range(22), [0, 1, 6, 21], [0.97, 1.0, 1.14, 1.12])
        return tube(np.array(points), widths + margin)

    def coronary_starts(self) -> list[np.ndarray]:
        """For the right and the left coronary artery, points inside, on and 4 mm outside the wall (3, 3)."""
        wall = self.radius(*self.ostia.T)
        return [
            self.to_lps(np.full(3, angle), radius + np.array([-2.0, 0.0, 4.0]), np.full(3, height))
            for (angle, height), radius in zip(self.ostia, wall)
        ]

    def right_coronary(self, groove: np.ndarray) -> np.ndarray:
        """Path (N, 3) of the right coronary artery from its ostium to the points `groove` (M, 3)."""
        start = self.coronary_starts()[0]
        if not self.swapped:
            return self._leave(start, groove)
        # From the left sinus it winds about the front of the root, between aorta and pulmonary trunk.
        angle, height = self.ostia[0]
        angles = np.arange(angle - np.radians(18), self.middle[RIGHT] - np.radians(15), -np.radians(18))
        heights = np.linspace(height, max(height, 0.85 * self.height), len(angles))
        around = self.to_lps(angles, self.radius(angles, heights) + 4.2, heights)
        return self._leave(start, np.concatenate([around, groove]))

    def left_coronary(self, end: np.ndarray) -> np.ndarray:
        """Path (N, 3) of the left main artery from its ostium to its division (3,)."""
        return self._leave(self.coronary_starts()[1], end[None])

    def _leave(self, start: np.ndarray, onwards: np.ndarray) -> np.ndarray:
        return np.concatenate([start[:1], smooth_path(np.concatenate([start[1:], onwards]), 2.5)])
