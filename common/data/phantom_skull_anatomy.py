"""One head as outlines in millimetres: its plan, cranium and midface, with the landmarks on them."""

import numpy as np

from .phantom_skull_shapes import (
    ETHMOID_AIR,
    FISSURE,
    FOSSA,
    FRONTAL_SINUS,
    KEY_RIDGE,
    MAXILLARY_SINUS,
    ORBITAL_ROOFS,
    PETROUS,
    SKULL_BASE,
    SPHENOID_SINUS,
    SPHENOID_WING,
    TEMPORAL_FLOOR,
    VAULT,
)
from .phantom_xray import Layer, ellipse, ribbon, smooth_curve, smooth_outline

SAMPLES = 12  # points of an outline from one control point to the next


def deepest(curve: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The point of a curve that is farthest behind the line which goes from a point down to another."""
    forward = np.array([end[1] - start[1], start[0] - end[0]])
    return curve[np.argmin((curve - start) @ forward)]


def foremost(curve: np.ndarray, degrees: float) -> np.ndarray:
    """The point of a curve (N, 2) that is farthest forward, where forward slopes down by so many degrees."""
    return curve[np.argmax(turned(curve, -degrees)[:, 0])]


def stretch(outline: np.ndarray, first: int, last: int) -> np.ndarray:
    """The part of a smooth outline from one of its control points to another."""
    return outline[first * SAMPLES : last * SAMPLES + 1]


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points (..., 2) turned clockwise on the screen about (0, 0)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.asarray(points) @ np.array([[c, s], [-s, c]])


class SkullAnatomy:
    """A head of random growth, seen from its right side; jaws and soft tissue are added to it.

    Args:
        rng: source of all randomness.
        anb: aimed-at angle between maxilla, nasion and mandible in degrees, which the drawn head has within
            about a degree; above 5.7 skeletal class 2, below 3.2 class 3.

    Attributes:
        landmarks: each landmark's name and its point.
        bones, air, skin: what lies in the beam.
        frankfort, plane, occlusal: slopes in degrees of the Frankfort horizontal, the mandible, and the bite.
    """

    def __init__(self, rng: np.random.Generator, anb: float):
        self.rng = rng
        self.landmarks: dict[str, np.ndarray] = {}
        self.bones: list[Layer] = []
        self.air: list[Layer] = []
        self.skin: list[Layer] = []
        self._lay_out(anb)
        self._add_cranium()
        self._add_midface()

    def _lay_out(self, anb: float) -> None:
        """Place what the outlines are drawn through, from the skeletal class and the facial heights."""
        rng = self.rng
        self.nasion = np.array([rng.normal(59, 3), 0.0])
        self.orbitale = np.array([45.0, 24.0]) + rng.normal(0, [1.8, 1.6])
        self.porion = np.array([-23.0, 15.0]) + rng.normal(0, [2.2, 2.2])
        self.articulare = np.array([-16.5, 27.5]) + rng.normal(0, [2.2, 2.5])
        self.articulare[0] = max(self.articulare[0], self.porion[0] + 4)
        self.frankfort = np.degrees(np.arctan2(*(self.orbitale - self.porion)[::-1]))
        self.height = rng.normal(1, 0.06)  # of the face
        sna = np.radians(rng.normal(82.5, 3.2) + 0.35 * np.clip(anb - 2, -6, 6))
        snb = sna - np.radians(anb)
        height_a = 55 * self.height + rng.normal(0, 1.2)
        self.a = self.nasion + height_a / np.sin(sna) * np.array([-np.cos(sna), np.sin(sna)])
        self.ans = self.a + [rng.normal(3.0, 0.7), -7.5 * self.height + rng.normal(0, 0.8)]
        self.pns = np.array([12.5 + rng.normal(0, 1.6), 41 * self.height + rng.normal(0, 1.2)])
        self.upper_tip = self.a + [3 + rng.normal(0, 1.6), 19 * self.height + rng.normal(0, 1.3)]
        overjet = np.clip(2.3 + 0.72 * (anb - 2.5) + rng.normal(0, 1.5), -9, 11)
        overbite = np.clip(rng.normal(1.2, 2.0), -5, 5)
        self.lower_tip = self.upper_tip - [overjet, overbite]
        depth_b = self.lower_tip[1] + 15.5 * self.height + rng.normal(0, 1)
        self.b = self.nasion + depth_b / np.sin(snb) * np.array([-np.cos(snb), np.sin(snb)])
        # A ramus that gets too short or too long turns the mandible.
        self.plane = np.clip(rng.normal(33, 5.5), 18, 48)
        gonion_x = -15.5 + rng.normal(0, 3) + 0.2 * (self.b[0] - 45)
        for _ in range(12):
            self.gnathion = self.b + turned(np.array([5.2, 17.0 * self.height]), self.plane)
            length = (self.gnathion[0] - gonion_x) / np.cos(np.radians(self.plane))
            self.gonion = self.gnathion - turned(np.array([length, 0.0]), self.plane)
            ramus = self.gonion[1] - self.articulare[1]
            self.plane += np.clip(ramus - np.clip(ramus, 32, 54), -6, 6) * 0.6
        # Lower incisors stand on the jaw: the overjet gives way where the classes are extreme.
        along = turned(self.lower_tip - self.gnathion, -self.plane)
        self.lower_tip = self.on_mandible([np.clip(along[0], -6.8, 2.5), along[1]])
        self.occlusal = 0.5 * self.plane + rng.normal(0, 2.5)

    def on_mandible(self, points) -> np.ndarray:
        """Points relative to gnathion, x along the mandibular plane, to the head's frame."""
        return self.gnathion + turned(np.asarray(points, dtype=float), self.plane)

    def level(self, points: np.ndarray) -> np.ndarray:
        """Points in a frame whose x axis is the Frankfort horizontal."""
        return turned(points, -self.frankfort)

    def add_bone(self, outline, density, depth, cortex=1.0, marrow=0.5) -> None:
        self.bones.append(Layer(outline, density, depth, cortex, marrow))

    def add_wall(self, control, width: float, density: float) -> np.ndarray:
        curve = smooth_curve(control, SAMPLES)
        self.bones.append(Layer(ribbon(curve, width), density * self.rng.uniform(0.7, 1.2), width / 2))
        return curve

    def add_hole(self, control, density: float, depth: float, jitter: float = 0.8) -> np.ndarray:
        outline = smooth_outline(control + self.rng.normal(0, jitter, control.shape))
        self.air.append(Layer(outline, -density * self.rng.uniform(0.7, 1.2), depth))
        return outline

    def on_face(self, points: np.ndarray) -> np.ndarray:
        """Average points of the midface, brought to this face's height and depth."""
        x, y = points[:, 0], points[:, 1]
        return np.stack([x * (1 + (self.nasion[0] / 59 - 1) * np.clip(x / 30, 0, 1)), y * self._height_at(y)], axis=1)

    def _height_at(self, y: np.ndarray) -> np.ndarray:
        return 1 + (self.pns[1] / 41 - 1) * np.clip(y / 30, 0, 1)

    def _add_cranium(self) -> None:
        rng = self.rng
        centre = np.array([-18.0, -20.0])
        grow = np.array([rng.normal(1, 0.03), rng.normal(1, 0.035)])
        front = np.clip((VAULT[:, :1] - 10) / 50, 0, 1)
        vault = centre + (VAULT - centre) * grow
        vault[:, :1] += front * (self.nasion[0] - 59 - 40 * (grow[0] - 1)) + rng.normal(0, 0.6, (len(vault), 1))
        base = SKULL_BASE.copy()
        base[FOSSA] *= rng.normal(1, 0.1, 2)
        base[-4:, 0] *= self.nasion[0] / 59
        # Nasion: the notch between the frontal bone and the nasal bone, which starts there.
        brow = self.nasion + [2.4, -4.5]
        root = self.nasion + [-4.5, 3.0]
        floor = np.concatenate([base[:1], TEMPORAL_FLOOR, base[-3:]])
        outline = smooth_outline(np.concatenate([[self.nasion, brow], vault, floor, [root]]), SAMPLES)
        self.add_bone(outline, 1.25, 62, cortex=rng.uniform(4.6, 6.4), marrow=0.14)
        line = self.add_wall(base, rng.uniform(1.1, 1.6), 0.36)
        fossa = stretch(line, FOSSA.start, FOSSA.stop - 1)
        # Sella: the middle of the fossa below the line between the clinoid processes.
        sella = 0.5 * (fossa.min(0) + fossa.max(0))
        self.landmarks["sella"] = sella
        self.landmarks["nasion"] = self.nasion
        self.vault = vault
        for roof in ORBITAL_ROOFS:
            self.add_wall(self.on_face(roof) + rng.normal(0, 0.7, roof.shape), 1.6, 0.26)
        clivus = np.concatenate([base[:4], base[6:8] + [0.5, 1], [(-2, 16), (-9, 27), (-17, 38)]])
        self.add_bone(smooth_outline(clivus), 0.30, 5, 0.8, 0.8)
        self.air.append(Layer(smooth_outline(FRONTAL_SINUS + [self.nasion[0] - 59, 0.0]), -0.3, 3))
        # Petrous bone with the ear: articulare is where the ramus leaves its lower edge.
        petrous = PETROUS.copy()
        petrous[6] = self.articulare
        self.add_bone(smooth_outline(petrous), 0.50, 13, cortex=0.6, marrow=0.85)
        self.add_wall(np.array([base[0], base[0] * 0.35 + self.articulare * 0.65 + [0, 1.5], self.articulare,
                             self.articulare + [8, -6], self.articulare + [20, -8.5]]), 1.6, 0.3)  # fmt: skip
        self.add_wall(
            [self.articulare + [4, -13], self.articulare + [12, -14], (10, 21), (24, 23), (38, 22)], 2.4, 0.16
        )
        for _ in range(26):  # mastoid cells
            at = self.porion + rng.normal([-12, 10], [6, 7])
            self.air.append(Layer(ellipse(at, rng.uniform(0.9, 2.2, 2), rng.uniform(0, 90)), -0.13, 1.5))
        # Porion: the top of the ear canal, a dark oval in a dense ring.
        canal = rng.uniform(3.2, 4.4, 2)
        centre = self.porion + [0, canal[1]]
        self.bones.append(Layer(ribbon(np.concatenate([ellipse(centre, canal + 0.7)] * 2)[:50], 1.4), 0.34, 0.7))
        self.air.append(Layer(ellipse(centre, canal), -0.45, 2.5))
        self.landmarks["porion"] = self.porion

    def _add_midface(self) -> None:
        rng = self.rng
        self.add_wall(self.on_face(SPHENOID_WING), 1.2, 0.2)
        self.add_hole(self.on_face(SPHENOID_SINUS), 0.16, 6)
        self.add_hole(self.on_face(ETHMOID_AIR), 0.12, 9)
        self.sinus = self.add_hole(self.on_face(MAXILLARY_SINUS), 0.26, 7)
        for cells in range(10):
            at = self.on_face(np.array([[24 + 3.2 * cells, 8 + rng.normal(0, 4)]]))[0]
            self.add_wall(
                turned(ellipse((0, 0), rng.uniform(2, 5, 2)), rng.uniform(0, 360))[: rng.integers(12, 40) : 4] + at,
                0.8,
                0.15,
            )
        self.add_hole(self.on_face(FISSURE), 0.22, 2.5, 0.3)
        edge = self.on_face(FISSURE)
        self.add_wall(edge[[1, 2, 3, 4]] + [0.4, 0], 0.9, 0.2)
        self.add_wall(edge[[0, 6, 5, 4]] - [0.4, 0], 1.2, 0.22)
        ridge = self.on_face(KEY_RIDGE) + (self.orbitale - self.on_face(np.array([[45.0, 24.0]]))[0]) * 0.6
        self.add_bone(smooth_outline(ridge), 0.20, 4, 1.2, 0.6)
        # Bone and soft tissue between the orbits and the palate, thicker towards the skull base.
        block = self.on_face(
            np.array([(2, -2), (24, -6), (52, -4), (56, 8), (50, 24), (49, 42), (30, 42), (14, 38), (6, 22)])
        )
        self.add_bone(smooth_outline(block), 0.26, 16, 0.0, 1.0)
        # Orbital rim: from the brow down behind the nasal bone; orbitale is its lowest point.
        o = self.orbitale
        rim = smooth_curve(
            np.array([self.nasion + [-1.5, -9], o + [8.5, -16], o + [6, -6], o, o + [-8, -1.5], o + [-16, -6]]), SAMPLES
        )
        self.landmarks["orbitale"] = rim[np.argmax(self.level(rim)[:, 1])]
        self.bones.append(Layer(ribbon(rim, 1.5), 0.26, 0.75))
        self.bones.append(Layer(ribbon(rim[24:] + rng.normal([-1.5, 0.3], 0.8), 1.3), 0.14, 0.7))
        orbit = [(4, -6), (-3, -3.5), (-13, -7), (-19, -14), (-9, -20), (2, -17)]
        self.add_hole(o + np.array(orbit), 0.10, 6)
        # Nasal bone, and the thin front of the maxilla below the rim.
        tip = self.nasion + [11, 20 * self.height]
        nasal = [self.nasion, self.nasion + [4.0, 8], tip, self.nasion + [3.4, 11], self.nasion + [-2.8, 4]]
        self.add_bone(smooth_outline(np.array(nasal)), 0.30, 1.8, 0.6, 0.8)
        self.add_wall([o + [4, -3], o + [4.5, 6], self.ans + [-6, -8], self.ans + [-4, -2]], 1.4, 0.2)
