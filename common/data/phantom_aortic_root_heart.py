"""The heart around an aortic root: chambers, great vessels and coronary arteries, in Hounsfield units.

Millimetres towards the patient's left, back and head (LPS) from the centre of the aortic annulus.
"""

from collections.abc import Sequence

import numpy as np

from .phantom_aortic_root_anatomy import TUBE, WALL, AorticRoot
from .phantom_aortic_root_chest import FAT
from .phantom_volume import Body, Canvas, ellipsoid, grown, rotation, smooth_path, tube, without

MYOCARDIUM, WALL_GREY = 110, 70
RIGHT_GROOVE = [(-24, -31, -2), (-35, -27, -20), (-37, -16, -42), (-24, 6, -60), (-2, 16, -62)]
LEFT_DIVISION = (21, -3, 15)
DESCENDING_BRANCH = [(32, -18, 9), (41, -34, -8), (50, -46, -30), (62, -50, -58)]
DIAGONAL_BRANCH = [(41, -34, -8), (58, -34, -20), (70, -30, -42)]
CIRCUMFLEX_BRANCH = [(33, 9, 8), (45, 24, -8), (46, 35, -28), (34, 36, -46)]


class Heart:
    """The bodies of one heart, and how bright its blood is.

    Args:
        rng: source of all randomness.
        root: the aortic root that it belongs to.
    """

    def __init__(self, rng: np.random.Generator, root: AorticRoot):
        self.rng, self.root = rng, root
        self.scale = float(np.clip(rng.normal(1, 0.05), 0.9, 1.12))
        self.turn = rotation(rng.normal(0, 4, 3).clip(-9, 9)) * self.scale
        self.blood = rng.uniform(310, 500)
        left, self.right = rng.uniform(0.85, 1.0), self.blood * rng.uniform(0.3, 0.75)
        self.left_ventricle_blood, self.left_atrium_blood = self.blood * left, self.blood * rng.uniform(0.85, 1.05)
        self.caval_blood = self.blood * rng.uniform(0.3, 1.6)
        apex = np.array([0.68, -0.50, -0.54])
        across = np.cross(apex, [0, 0, 1])
        across /= np.linalg.norm(across)
        self.own = np.stack([apex / np.linalg.norm(apex), across, np.cross(apex, across)])
        self.own[2] /= np.linalg.norm(self.own[2])
        self.muscle = rng.uniform(8, 12)
        centre, cavity = (37, -7, -38), np.array([40, 21, 21]) * rng.uniform(0.92, 1.08)
        self.left_ventricle = self._ellipsoid(centre, cavity, self.own)
        self.left_muscle = self._ellipsoid(centre, cavity + self.muscle, self.own)
        self.right_ventricle = self._ellipsoid((14, -36, -38), (46, 19, 29), self._right_axes())
        self.left_atrium = self._ellipsoid((6, 36, 0), np.array([31, 15.5, 22]) * rng.uniform(0.93, 1.1))
        self.right_atrium = self._ellipsoid((-42, 6, -24), np.array([23, 25, 31]) * rng.uniform(0.93, 1.08))
        self.trunk = self._trunk()

    def place(self, points: Sequence[Sequence[float]]) -> np.ndarray:
        """Points of an average heart in this one."""
        return np.asarray(points, dtype=float) @ self.turn.T

    def _ellipsoid(self, centre, radii, axes=None) -> Body:
        axes = np.eye(3) if axes is None else axes
        return ellipsoid(self.place(centre), np.asarray(radii) * self.scale, axes @ self.turn.T / self.scale)

    def _right_axes(self) -> np.ndarray:
        """The right ventricle's long axis is that of the left; its thin one points to the breastbone."""
        front = np.array([-0.35, -0.85, 0.2])
        front -= (front @ self.own[0]) * self.own[0]
        front /= np.linalg.norm(front)
        return np.stack([self.own[0], front, np.cross(self.own[0], front)])

    def _trunk(self) -> np.ndarray:
        """The pulmonary trunk, which looks like the aorta, pushed away from this root by its width."""
        trunk = smooth_path(self.place([(6, -40, -14), (12, -35, 2), (19, -26, 20), (26, -8, 38), (24, 12, 46)]), 4)
        # It rests on the aorta wherever it would enter it.
        spine = self.root.axis * np.arange(0, 60, 4.0)[:, None]
        for place in trunk:
            offsets = place - spine
            near = offsets[np.argmin((offsets**2).sum(1))]
            gap = np.linalg.norm(near)
            room = self.root.annulus + 0.75 * self.root.bulge + 13 + 2.5
            place += near / gap * max(0.0, room - gap)
        return trunk

    def paint(self, canvas: Canvas) -> None:
        """Paint the heart into a chest: fat, muscle, blood, and the root at the end."""
        rng, root = self.rng, self.root
        fat = rng.uniform(4, 8)
        chambers = (self.left_muscle, self.right_ventricle, self.left_atrium, self.right_atrium)
        sac = [grown(body, fat + 3 * (body is self.right_ventricle)) for body in chambers]
        sac.append(self._ellipsoid((4, -2, -26), (56 + fat, 44, 46)))
        arteries = self.coronaries()
        canvas.paint(45, *(grown(body, 0.8) for body in sac))
        canvas.paint(FAT, *sac, *tube(self.trunk, 17), *root.ascending(6), grown(root.lumen(), 8))
        for body in chambers[1:]:
            canvas.paint(MYOCARDIUM, grown(body, 2.5))
        canvas.paint(MYOCARDIUM, self.left_muscle)
        for path, radii in arteries:
            outside = slice(3, None)  # not over the root, whose wall comes later
            canvas.paint(FAT, *tube(path[outside], np.add(radii[outside], 3)))
        self._paint_right_side(canvas)
        self._paint_left_side(canvas)
        self._paint_root(canvas, arteries)

    def coronaries(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Paths and radii of the arteries, the right one and the left main one first."""
        root, rng = self.root, self.rng
        division = self.place([LEFT_DIVISION])[0] + rng.normal(0, 1.5, 3)
        paths = [root.right_coronary(self.place(RIGHT_GROOVE)), root.left_coronary(division)]
        for branch in (DESCENDING_BRANCH, CIRCUMFLEX_BRANCH):
            paths.append(smooth_path(np.concatenate([[division], self.place(branch) + rng.normal(0, 1.5, 3)]), 3))
        paths.append(smooth_path(np.concatenate([paths[2][10:11], self.place(DIAGONAL_BRANCH[1:])]), 3))
        right, left = root.calibre
        ends = [(right, 1.1), (left, 0.92 * left), (0.8 * left, 0.9), (0.78 * left, 0.9), (0.6 * left, 0.8)]
        return [(path, np.linspace(*end, len(path))) for path, end in zip(paths, ends)]

    def _paint_right_side(self, canvas: Canvas) -> None:
        blood, scale = self.right, self.scale
        caval = smooth_path(self.place([(-40, 12, -8), (-36, 10, 20), (-33, 8, 50), (-30, 4, 90)]), 6)
        canvas.paint(MYOCARDIUM, *tube(caval, 10.5))
        canvas.paint(blood * self.rng.uniform(0.85, 1.15), self.right_atrium)
        canvas.paint(self.caval_blood, *tube(caval, 9.3))
        canvas.paint(0.6 * blood + 50, *tube(self.place([(-38, 14, -45), (-34, 20, -110)]), 12 * scale))
        canvas.paint(blood, without(self.right_ventricle, grown(self.left_muscle, 0.5)))
        canvas.paint(blood, *tube(self.place([(-30, -6, -32), (-10, -26, -38)]), 13 * scale))  # tricuspid orifice
        # The trunk has a root of its own, with sinuses.
        along = np.linspace(0, 1, len(self.trunk))
        radii = scale * (12.2 + 1.8 * np.exp(-(((along - 0.33) / 0.07) ** 2)))
        end = self.trunk[-1]
        branches = [
            smooth_path([end - [0, 6, 0], end + [-18, 16, -2], end + [-42, 18, -5], end + [-66, 22, -16]], 5),
            smooth_path([end - [0, 6, 0], end + [12, 14, 0], end + [24, 28, -4], end + [38, 34, -16]], 5),
        ]
        vessels = [tube(branch, np.linspace(10.5, 7, len(branch))) for branch in branches]
        for margin, grey in ((WALL, WALL_GREY), (0, blood * 1.03)):
            canvas.paint(grey, *tube(self.trunk, radii + margin), *(grown(part, margin) for v in vessels for part in v))

    def _paint_left_side(self, canvas: Canvas) -> None:
        rng, blood = self.rng, self.left_atrium_blood
        orifice = self.place([(18, 32, -14), (26, 12, -28)])
        veins = [[(8, 44, 2), (-30, 54, 6), (-55, 58, 10)], [(8, 44, -4), (-28, 56, -14), (-52, 62, -24)]]
        veins += [[(12, 44, 4), (44, 52, 8), (66, 56, 16)], [(12, 46, -4), (40, 58, -14), (62, 66, -24)]]
        for path in veins:
            canvas.paint(blood, *tube(smooth_path(self.place(path), 5), rng.uniform(5, 7)))
        ear = smooth_path(self.place([(28, 30, 4), (41, 18, 12), (45, 2, 13)]), 4)
        canvas.paint(blood, *tube(ear, np.linspace(9, 4, len(ear))))
        canvas.paint(blood, self.left_atrium)
        canvas.paint(self.left_ventricle_blood, self.left_ventricle)
        canvas.paint(self.left_ventricle_blood, *tube(orifice, 14))
        for side in (-1, 1):  # the two mitral leaflets, closed
            ring = orifice[0] + 0.35 * (orifice[1] - orifice[0])
            tip = orifice[0] + 0.95 * (orifice[1] - orifice[0])
            wide = side * 15 * self.own[2]
            canvas.paint(MYOCARDIUM, _leaf(ring, tip, wide, self.own[1]), sheet=1.4)
        for spot in ((44, 4, -44), (36, -12, -58)):  # papillary muscles
            muscle = self.place([spot, np.add(spot, (16, -10, -8))])
            canvas.paint(MYOCARDIUM, *tube(muscle, [3.5, 6]))

    def _paint_root(self, canvas: Canvas, arteries: list) -> None:
        rng, root = self.rng, self.root
        descending = np.array([[20, 72, -140], [28, 68, -40], [28, 66, 40], [22, 60, 110]]) + [*rng.normal(0, 2, 2), 0]
        descending = smooth_path(descending, 12)
        ventricle = self.place([(17, 4, -24), (30, -4, -34)])
        tract = smooth_path([-root.axis * (TUBE - 3), -root.axis * 13 + [1, 2, 0], *ventricle], 3)
        width = np.linspace(root.annulus * 0.96, 15, len(tract))
        for margin, grey in ((WALL, WALL_GREY), (0, self.blood)):
            canvas.paint(grey, *tube(descending, 11.5 + margin), *root.ascending(margin), root.lumen(margin))
            if margin:
                canvas.paint(MYOCARDIUM, *tube(tract[:-4], width[:-4] + 3))
        canvas.paint(self.left_ventricle_blood, *tube(tract, width))
        for path, radii in arteries:
            canvas.paint(self.blood * 0.97, *tube(path, radii))
        canvas.paint(rng.uniform(60, 110), root.leaflets(), sheet=rng.uniform(0.8, 1.3))
        self._paint_calcium(canvas, arteries)

    def _paint_calcium(self, canvas: Canvas, arteries: list) -> None:
        """Chalk on leaflets and commissures, and in the walls of arteries, in some patients."""
        rng, root = self.rng, self.root
        spots = []
        if rng.random() < 0.35:
            for _ in range(rng.integers(1, 6)):
                angle, out = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.97)
                radius = out * root.radius(angle, root.attachment(angle))
                spots.append(root.to_lps(angle, radius, root.leaflet(angle, radius)))
        if rng.random() < 0.35:
            for _ in range(rng.integers(1, 5)):
                path, radii = arteries[rng.integers(1, len(arteries))]
                k = rng.integers(len(path) // 4, len(path) - 1)
                spots.append(path[k] + radii[k] * rng.normal(0, 0.6, 3))
        for spot in spots:
            canvas.paint(rng.uniform(700, 1200), ellipsoid(spot, rng.uniform(0.7, 2.0, 3)))


def _leaf(base: np.ndarray, tip: np.ndarray, wide: np.ndarray, aside: np.ndarray) -> Body:
    """A flat leaf as a sheet, from `base + wide` to `tip`, reaching 12 mm to each side along `aside`."""
    way = tip - (base + wide)
    length = np.linalg.norm(way)
    way = way / length
    normal = np.cross(way, aside)
    normal /= np.linalg.norm(normal)
    start = base + wide

    def distance(x, y, z):
        def along(direction):
            a, b, c = direction.astype(np.float32)
            return a * (x - np.float32(start[0])) + b * (y - np.float32(start[1])) + c * (z - np.float32(start[2]))

        flat = np.maximum(np.abs(along(aside)) - 12, np.maximum(-along(way), along(way) - np.float32(length)))
        return np.maximum(np.abs(along(normal)), flat)

    corners = np.array([start + 12 * aside, start - 12 * aside, tip + 12 * aside, tip - 12 * aside])
    return Body(distance, corners.min(0) - 1, corners.max(0) + 1)
