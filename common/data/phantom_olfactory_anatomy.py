"""One head about the olfactory bulbs, as bodies for a canvas, with the grey values of heavily T2-weighted MR.

Millimetres towards the patient's left, feet and back (LIP, as coronal slices are stored) from the middle of the
cribriform plate.
"""

from collections.abc import Callable

import numpy as np

from .phantom_volume import Body, ellipsoid, grown, rotation, smooth_path, tube

AIR, BONE, MARROW, MUSCLE, WHITE, GREY, FAT, MUCOSA, CSF = 10, 25, 330, 150, 290, 430, 560, 720, 1000
HUGE = 200.0  # mm, beyond every volume


class Head:
    """A head of random size and shape, upright.

    Args:
        rng: source of all randomness.

    Attributes:
        centres: (2, 3), of the right and the left bulb.
        radii: (2, 3), half widths, heights and lengths of the bulbs.
    """

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.rise = rng.uniform(8, 13)  # of the orbits' roofs over the cribriform plate
        self.radii = rng.uniform([1.2, 0.9, 3.5], [2.6, 1.9, 6.5]) * rng.normal(1, 0.12, (2, 3))
        if rng.random() < 0.15:  # bulbs that have shrunk
            self.radii *= [0.65, 0.75, 0.75]
        self.radii = self.radii.clip([0.7, 0.7, 2.5], [2.6, 2.6, 6.5])
        self.cistern = 2 * self.radii[:, 1].max() + rng.uniform(0.6, 2.0)  # room over the plate
        apart, ahead = rng.uniform(3.6, 5.8), rng.normal(0, 1.2)
        self.centres = np.zeros((2, 3))
        self.tilts = []
        for k, side in enumerate((-1, 1)):
            x, back = side * (apart + rng.normal(0, 0.4)), ahead + rng.normal(0, 0.9)
            self.centres[k] = x, self.floor(np.float32(x)) - self.radii[k, 1] - 0.35, back
            self.tilts.append(rotation([rng.normal(0, 3), side * rng.normal(2, 3), side * rng.normal(0, 12)]))
        self.inner = ellipsoid((0, -27, 32), np.array([58, 62, 76]) * rng.uniform(0.96, 1.03))  # of the skull

    def floor(self, x: np.ndarray) -> np.ndarray:
        """How deep the floor of the anterior fossa lies at a place from right to left."""
        return -np.float32(self.rise) * np.exp(-(((np.abs(x) - 30) / 14) ** 2))

    def above_floor(self) -> Body:
        """What lies above the floor of the anterior fossa."""

        def distance(x, y, z):
            floor = self.floor(x)
            slope = (np.abs(x) - 30) * floor * (2 / 14**2)
            return (y - floor) / np.sqrt(1 + slope**2)

        return Body(distance, [-HUGE] * 3, [HUGE] * 3)

    def bulbs(self) -> list[Body]:
        """The two bulbs, which are ellipsoids along the slices' axis."""
        return [ellipsoid(*bulb) for bulb in zip(self.centres, self.radii, self.tilts)]

    def outline(self, sample: Callable[[Body], Body], folds: Body) -> list[tuple]:
        """Skin, face and skull: grey values, bodies and, of sheets, the thickness, in the order of painting.

        Args:
            sample: makes a body faster that is used often.
            folds: distance in mm from winding surfaces, for fat between muscles.
        """
        rng = self.rng
        self.inner, self.floor_body = sample(self.inner), sample(self.above_floor())
        skin = ellipsoid((0, 4, 26), np.array([73, 104, 110]) * rng.uniform(0.95, 1.04))
        layers = [(MUSCLE + 60, [skin]), (FAT, [grown(skin, -1.8)]), (MUSCLE, [grown(skin, -rng.uniform(5, 8))])]
        layers.append((FAT, [_both(folds, grown(skin, -8))], rng.uniform(0.8, 1.8)))
        cheeks = [ellipsoid((side * 43, 50, -6), (16, 20, 17)) for side in (-1, 1)]
        layers.append((FAT, [*cheeks, *(ellipsoid((side * 52, 22, 20), (7, 20, 10)) for side in (-1, 1))]))
        zygoma = [tube(np.array([[46 * s, -4, -8], [52 * s, 12, -4], [46 * s, 26, -12]]), [4, 5, 6]) for s in (-1, 1)]
        layers.append((BONE, [part for side in zygoma for part in side]))
        layers.append((MARROW, [grown(part, -2) for side in zygoma for part in side]))
        table = rng.uniform(4.5, 7)
        vault = [(BONE, table), (MARROW, table - 1.7), (BONE, 2.0)]
        for grey, margin in vault:
            layers.append((grey, [_both(grown(self.inner, margin), grown(self.floor_body, 2.2))]))
        # Bone also under the floor, between the orbits, which are hollowed out later.
        layers.append((BONE, [_both(ellipsoid((0, 4, 10), (46, 16, 60)), _beyond(1, -14))]))
        layers.append((CSF, [_both(self.inner, self.floor_body)]))
        crest = ellipsoid((rng.normal(0, 0.4), -3, -15), rng.uniform([1.3, 6, 6], [2.6, 10, 11]))
        return [*layers, (BONE, [crest]), (MARROW, [grown(crest, -1)])]

    def brain(self, sample: Callable[[Body], Body], folds: Body) -> list[tuple]:
        """Brain, as `outline` gives it; `folds`: distance in mm from the surfaces on which sulci may lie."""
        rng = self.rng
        over, reach = rng.uniform(0.8, 1.6), np.float32(rng.uniform(14, 19))
        room = self.cistern - over
        gap = Body(
            lambda x, y, z: self.floor_body.distance(x, y, z) + over + room * np.exp(-(((x / 8.5) ** 2) ** 2)),
            [-HUGE] * 3,
            [HUGE] * 3,
        )
        tissue = sample(_both(grown(self.inner, -rng.uniform(1.2, 2.8)), gap))
        bottom = -self.cistern - 0.5
        sulci = []
        for centre in self.centres:
            side = np.sign(centre[0])
            start = [centre[0] + side * rng.uniform(0.8, 1.8), bottom + 2]
            sulci.append(_wall(start, [start[0] + side * rng.uniform(-0.5, 3), bottom - rng.uniform(7, 12)]))
        lean, bow = rng.normal(0, 0.02), rng.normal(0, 0.0006)
        cleft = Body(lambda x, y, z: np.abs(x + lean * y + bow * y**2), [-12, -HUGE, -HUGE], [12, HUGE, HUGE])

        def furrow(x, y, z):
            """Sulci begin at the brain's surface, and none by chance in the straight gyri."""
            kept = 5 * np.exp(-(((x / 13) ** 2) ** 2) - (((y - bottom + 5) / 13) ** 2) ** 2)
            inside = tissue.distance(x, y, z)
            return np.maximum(folds.distance(x, y, z) + kept, np.maximum(inside, -inside - reach))

        reached = sample(Body(furrow, tissue.low, tissue.high))
        cortex = rng.uniform(2.4, 3.2)

        def deep(x, y, z):
            near = np.minimum(reached.distance(x, y, z), np.minimum(cleft.distance(x, y, z), -tissue.distance(x, y, z)))
            for sulcus in sulci:
                near = np.minimum(near, sulcus.distance(x, y, z))
            return cortex + 0.5 - near

        horns = [tube(np.array([[s * 6, -36, 17], [s * 12, -40, 40]]), [1.5, 6]) for s in (-1, 1)]
        return [
            (GREY, [tissue], 0),
            (WHITE, [Body(deep, [-HUGE] * 3, [HUGE] * 3)], 0),
            (CSF, [reached], rng.uniform(0.9, 1.5)),
            (CSF, sulci, rng.uniform(1.2, 1.9)),
            (CSF, [_both(cleft, tissue)], rng.uniform(1.4, 2.4)),
            (120, [_both(cleft, self.inner, _beyond(1, -16))], 0.8),  # falx
            (CSF, [part for side in horns for part in side], 0),
        ]

    def tracts(self) -> list[Body]:
        """The nerve tracts that run back from the bulbs."""
        bodies = []
        for centre, radii, tilt in zip(self.centres, self.radii, self.tilts):
            end = centre + radii[2] * tilt[2] * np.sign(tilt[2, 2])
            side = np.sign(centre[0])
            path = end + np.array([(0, 0, 0), (0.4, -1.2, 5), (1.5, -3, 14), (3, -4, 30)]) * [side, 1, 1]
            bodies += tube(smooth_path(path, 2), 0.75)
        return bodies

    def orbits(self) -> list[tuple]:
        """Eye sockets with globe, nerve and muscles, in the order of painting."""
        rng = self.rng
        layers = []
        forward = rng.uniform(-22, -16)
        for side in (-1, 1):
            mouth, apex = np.array([side * 34, 10.5, -32]), np.array([side * 17, 5, 38])
            cone = tube(np.array([mouth, apex]), [20, 4.5])
            globe = np.array([side * 32.5, 9.5, forward + rng.normal(0, 0.7)])
            layers += [(BONE, [grown(part, 1.3) for part in cone]), (FAT, cone)]
            for angle in np.radians([0, 90, 180, 270]) + rng.normal(0, 0.1, 4):
                along, out = np.array([[0.1], [0.4], [0.7], [0.95]]), np.array([[14.5], [10], [5.5], [2]])
                belly = mouth + along * (apex - mouth) + out * [np.cos(angle), np.sin(angle), 0]
                layers.append((MUSCLE, tube(smooth_path(belly, 4), rng.uniform(1.7, 2.5))))
            behind = globe + [0, 0, 11]
            halfway = 0.5 * (behind + apex) + rng.normal(0, [1, 1, 0])
            nerve = smooth_path([behind, halfway, apex, apex + [-8 * side, -6, 15]], 4)
            layers += [(MUSCLE, tube(nerve, 3.2)), (CSF, tube(nerve, rng.uniform(2.3, 2.9))), (WHITE, tube(nerve, 1.6))]
            eye = ellipsoid(globe, np.array([12, 12, 12.3]) * rng.uniform(0.95, 1.05))
            layers += [(MUSCLE, [grown(eye, 1.1)]), (CSF + 60, [eye])]
        return layers

    def sinuses(self, cells: Body) -> list[tuple]:
        """Nose, sinuses and palate, with the thickness of sheets; `cells`: distance in mm from ethmoid septa."""
        rng = self.rng
        layers = []
        swelling = rng.uniform(0.4, 1.2)
        ethmoid = Body(
            lambda x, y, z: np.maximum(np.abs(x) - (10 + 0.06 * y), np.maximum(1.1 - y, y - 26)),
            [-14, 0, -HUGE],
            [14, 28, HUGE],
        )
        nose = Body(
            lambda x, y, z: np.maximum(np.abs(x) - (1 + 0.3 * y), np.maximum(6 - y, y - 46)),
            [-18, 4, -HUGE],
            [18, 48, HUGE],
        )
        layers += [(BONE, [grown(ethmoid, 1.0), grown(nose, 1.5)], 0), (MUCOSA, [grown(nose, 0.5)], 0)]
        layers += [(AIR, [ethmoid, grown(nose, -0.6)], 0), (MUCOSA, [_both(cells, ethmoid)], swelling)]
        bend = rng.normal(0, 2.2)
        septum = Body(
            lambda x, y, z: np.maximum(np.abs(x - bend * np.exp(-(((y - 26) / 10) ** 2))), np.maximum(1 - y, y - 46)),
            [-8, 0, -HUGE],
            [8, 48, HUGE],
        )
        layers += [(MUCOSA, [septum], rng.uniform(2.0, 3.2)), (MUSCLE, [septum], 0.9)]
        for side in (-1, 1):
            for x, y, wide, high in ((5.6, 20, 1.9, 7), (8.8, 37, 3.6, 6.5)):  # middle and lower turbinate
                wide, lean = wide * rng.uniform(0.75, 1.15), rotation([0, 0, -side * rng.uniform(8, 22)])
                body = ellipsoid((side * x, y, 4), (wide, high, 60), lean)
                layers += [(MUCOSA, [body], 0), (BONE, [grown(body, 0.6 - wide)], 0)]
                stalk = _wall([side * (x + 1), y - 0.6 * high], [side * (x + 6), y - 0.75 * high])
                layers.append((MUCOSA, [stalk], 1.8))
            radii = np.array([12.5, 13.5, 22]) * rng.uniform(0.85, 1.08)
            antrum = ellipsoid((side * rng.uniform(28, 31), 37, 6), radii, rotation([0, 0, side * 20]))
            for grey, margin in ((BONE, 2.4), (MUCOSA, 1.2), (AIR, 0.8 - swelling)):
                layers.append((grey, [grown(antrum, margin)], 0))
            if rng.random() < 0.3:  # fluid or a cyst on the floor
                layers.append((CSF, [_both(antrum, _beyond(1, rng.uniform(38, 46), below=True))], 0))
        palate = ellipsoid((0, 51, 6), (24, 4.2, 40))
        teeth = [tube(np.array([[s * 24, 50, -10], [s * 26, 56, 24]]), 5.5) for s in (-1, 1)]
        layers += [(BONE, [palate, *teeth[0], *teeth[1]], 0), (MARROW, [grown(palate, -1.6)], 0)]
        tongue = ellipsoid((0, 72, 8), (23, 15, 40))
        return [*layers, (MUCOSA, [grown(tongue, 1)], 0), (MUSCLE + 70, [tongue], 0)]


def _both(*bodies: Body) -> Body:
    """What lies in all of them; for sheets, the part of the first that lies in the others."""

    def distance(x, y, z):
        inside = bodies[0].distance(x, y, z)
        for body in bodies[1:]:
            inside = np.maximum(inside, body.distance(x, y, z))
        return inside

    return Body(distance, np.max([b.low for b in bodies], axis=0), np.min([b.high for b in bodies], axis=0))


def _beyond(axis: int, place: float, below: bool = False) -> Body:
    """All of one side of a plane across an axis: where the coordinate is less, or with `below` greater."""
    sign = np.float32(-1 if below else 1)
    return Body(lambda *at: sign * (at[axis] - np.float32(place)), [-HUGE] * 3, [HUGE] * 3)


def _wall(start, end) -> Body:
    """Distance from a flat strip that runs along the slices' axis, between two points (x, y)."""
    (x0, y0), (x1, y1) = start, end
    dx, dy = x1 - x0, y1 - y0

    def distance(x, y, z):
        part = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx**2 + dy**2), 0, 1)
        return np.sqrt((x - x0 - part * dx) ** 2 + (y - y0 - part * dy) ** 2) + 0 * z

    low, high = np.minimum(start, end) - 4, np.maximum(start, end) + 4
    return Body(distance, [*low, -HUGE], [*high, HUGE])
