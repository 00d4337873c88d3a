"""The anatomy of a growing left hand as outlines: bones, growth plates, skin, and the landmarks on them."""

import numpy as np

from .hand import HAND_LANDMARKS
from .phantom_hand_shapes import (
    CARPALS,
    DIGITS,
    RADIUS_EPIPHYSIS,
    RADIUS_SHAFT,
    ULNA_EPIPHYSIS,
    ULNA_SHAFT,
    Bone,
    table,
    turn,
)
from .phantom_xray import smooth_outline


class HandAnatomy:
    """One hand of an age in years, in the pose that the random generator gives it."""

    def __init__(self, rng: np.random.Generator, age: float):
        self.rng, self.age = rng, age
        self.girth = rng.uniform(0.94, 1.12)
        self.skin_girth = rng.uniform(0.98, 1.17)
        self.bones: list[Bone] = []
        self.skin: list[np.ndarray] = []
        self.named: dict[str, np.ndarray] = {}
        # The growth plates narrow and close, in the fingers first, and cartilage gives way to bone.
        self.growth = float(np.clip((age - 3.5) / 9, 0, 1))
        self.plate = 0.017 - 0.010 * float(np.clip((age - 5) / 9.5, 0, 1))
        self.joint = 0.045 - 0.025 * float(np.clip((age - 5) / 11, 0, 1))
        self.fingers_open, self.forearm_open = age < 15.0, age < 16.5
        spread = rng.normal()
        for name in DIGITS:
            self._add_digit(name, spread)
        self._add_carpals()
        self._add_forearm()

    @property
    def points(self) -> np.ndarray:
        """The landmarks in the data set's order, (37, 2)."""
        return np.array([self.named[name] for name in HAND_LANDMARKS])

    def _add_digit(self, name: str, spread: float) -> None:
        rng = self.rng
        base, mcp, direction, lengths, width = DIGITS[name]
        base = np.array(base) + rng.normal(0, 0.008, 2)
        splay = {"little": -6.0, "ring": -3.0, "middle": 0.0, "index": 4.0, "thumb": 6.0}[name] * spread
        mcp = turn(
            base + (np.array(mcp) - base) * rng.normal(1, 0.015),
            0.3 * splay + rng.normal(0, 3.0 if name == "thumb" else 1.2),
            base,
        )
        angle = direction + splay + rng.normal(0, 6 if name == "thumb" else 3)
        flexion = rng.normal(0, 12) + (rng.uniform(20, 40) if rng.random() < 0.06 else 0)

        width = width * self.girth
        b = 0.098 * width
        axis = (mcp - base) / np.linalg.norm(mcp - base)
        thumb = name == "thumb"
        self._add_tube(
            base,
            mcp - axis * self.joint,
            "metacarpal",
            b,
            plate="base" if thumb else "head",
            notched=name == "index",
        )
        # The little finger's point lies towards its neighbour, where its base meets the hamate.
        self.named[f"{name}_metacarpal_base"] = self._tube_base(base, mcp, b, 0.4 if name == "little" else 0.0)
        centres, start = [mcp], mcp
        joints = ("mcp", "ip", "tip") if thumb else ("mcp", "pip", "dip", "tip")
        self.named[f"{name}_mcp"] = mcp
        for k, length in enumerate(lengths):
            last = k == len(lengths) - 1
            bend = np.cos(np.radians(flexion * (1, 1.4, 1.2)[k]))
            heading = turn(np.array([0.0, length * rng.normal(1, 0.02) * bend]), angle)
            end = mcp + heading
            self._add_tube(start, end, "distal" if last else "phalanx", (0.1, 0.082, 0.066)[k + thumb * last] * width)
            self.named[f"{name}_{joints[k + 1]}"] = end
            centres.append(end)
            angle += rng.normal(0, 2.5) - 0.15 * splay
            mcp = end
            start = end + self.joint * 0.8 * turn(np.array([0.0, 1.0]), angle)
        self._add_finger_skin(base, centres, width * self.skin_girth / self.girth**0.5)
        if thumb and self.age > 11.5:  # sesamoid of the thumb
            place = centres[0] + turn(np.array([-0.085, -0.055]), direction + rng.normal(0, 10))
            self._add_disc(place, 0.026 * rng.uniform(0.8, 1.2), 0.3)
        if not thumb and rng.random() < 0.012:  # a finger ring
            self._add_ring(centres[0], centres[1], 0.12 * width)

    def _tube_base(self, base, mcp, half_width, lateral):
        axis = (mcp - base) / np.linalg.norm(mcp - base)
        return base + lateral * half_width * np.array([axis[1], -axis[0]])

    def _add_tube(self, start, end, kind: str, b: float, plate: str = "base", notched: bool = False) -> None:
        """Add a long bone from `start` to `end`, both on its outline; `b` is half the width of its base."""
        along = end - start
        length = float(np.linalg.norm(along))
        axis = along / length
        b = b * self.rng.normal(1, 0.03)
        foot = [(0, 0), (-0.1 * b, 0.68 * b), (0.22 * b, b), (0.6 * b, 0.92 * b)]
        if kind == "metacarpal":
            foot = [(0, 0), (0, 0.45 * b), (0.1 * b, 0.8 * b), (0.4 * b, 0.97 * b), (0.9 * b, 0.88 * b)]
            if notched:
                foot[1:3] = [(-0.12 * b, 0.5 * b), (-0.1 * b, 0.85 * b)]
        waist, head = {
            "metacarpal": (
                [(0.32, 0.62), (0.52, 0.57), (0.74, 0.7)],
                [(0.86, 1.0), (0.93, 0.98), (0.98, 0.62), (1.0, 0.0)],
            ),
            "phalanx": (
                [(0.32, 0.68), (0.56, 0.6), (0.76, 0.64)],
                [(0.89, 0.74), (0.965, 0.68), (1.01, 0.38), (1.0, 0.0)],
            ),
            "distal": (
                [(0.36, 0.52), (0.6, 0.42)],
                [(0.78, 0.5), (0.9, 0.6), (0.97, 0.45), (1.0, 0.0)],
            ),
        }[kind]
        waist = [(s * length, w * b) for s, w in waist]
        head = [(s * length, w * b) for s, w in head]
        density, cortex = {"metacarpal": (0.62, 0.024), "phalanx": (0.74, 0.021), "distal": (0.6, 0.016)}[kind]
        thick = 0.45 * b * (0.6 + 0.4 * self.growth)  # of the epiphysis
        wide = 0.68 + 0.34 * self.growth
        gap = self.plate
        if not self.fingers_open:
            pieces = [foot + waist + head]
            if self.age < 17.5:
                at = thick if plate == "base" else length * 0.86
                self.bones.append(Bone(self._place(start, axis, [(at, 0), (at, 0.85 * b), (at + 0.012, 0)], 0.0), 0.14))
        elif plate == "base":
            disc = [
                (0, 0),
                (-0.08 * b, 0.65 * b * wide),
                (0.35 * thick, b * wide),
                (0.85 * thick, 0.9 * b * wide),
            ]
            cut = thick + gap
            pieces = [
                disc + [(thick, 0.5 * b * wide), (1.1 * thick, 0)],
                [(cut + 0.1 * thick, 0), (cut, 0.5 * b), (cut + 0.1 * b, 0.93 * b), (cut + 0.4 * b, 0.86 * b)]
                + waist
                + head,
            ]
        else:
            cut = 0.845 * length
            top = [(s, w * (0.85 + 0.15 * self.growth)) for s, w in head]
            pieces = [
                foot + waist + [(cut - gap - 0.01, 0.92 * b), (cut - gap, 0.5 * b), (cut - gap - 0.006, 0)],
                [(cut - 0.006, 0), (cut, 0.55 * b)] + top,
            ]
        for piece in pieces:
            outline = self._place(start, axis, piece, self.rng.normal(0, 0.03))
            self.bones.append(Bone(outline, density * self.rng.normal(1, 0.04), cortex))

    def _place(self, start, axis, half: list, skew: float) -> np.ndarray:
        """Close half a bone (distances along, aside) with its mirror image, and lay it along the axis."""
        right = np.array(half, dtype=float)
        left = right[-2:0:-1] * [1, -1 + skew]
        right = right * [1, 1 + skew]
        local = np.concatenate([right, left])
        return smooth_outline(start + local[:, :1] * axis + local[:, 1:] * np.array([axis[1], -axis[0]]))

    def _add_disc(self, centre, radius: float, density: float) -> None:
        t = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        outline = smooth_outline(centre + radius * np.stack([np.cos(t), 0.8 * np.sin(t)], axis=1))
        self.bones.append(Bone(outline, density, 0.012, 0.025, 0.7))

    def _add_ring(self, low, high, half: float) -> None:
        axis = (high - low) / np.linalg.norm(high - low)
        band = np.array([(-0.025, -1), (0.025, -1), (0.025, 1), (-0.025, 1)])
        middle = low + (high - low) * self.rng.uniform(0.4, 0.5)
        aside = np.array([axis[1], -axis[0]])
        self.bones.append(Bone(middle + band[:, :1] * axis + band[:, 1:] * half * aside, 2.5, 0.01, 0.01, 1.0))

    def _add_carpals(self) -> None:
        shift = self.rng.normal(0, 0.008, 2)
        for name, (onset, text) in CARPALS.items():
            grown = table(text)
            grown = grown.mean(0) + 1.07 * (grown - grown.mean(0))
            age = self.age + self.rng.normal(0, 0.5)
            share = float(np.clip((age - onset) / (13 - onset), 0, 1)) ** 0.5
            size = 0.25 + 0.75 * share
            centre = grown.mean(0)
            # A young nucleus is round, and becomes its bone while it grows.
            angle = np.arctan2(*(grown - centre).T[::-1])
            reach = np.linalg.norm(grown - centre, axis=1)
            reach = (share * reach + (1 - share) * 0.9 * reach.min()) * (0.25 + 0.75 * share if share < 1 else 1)
            control = np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None]
            control = turn(control * self.rng.normal(1, 0.03, 2), self.rng.normal(0, 4))
            outline = smooth_outline(control + centre + shift + self.rng.normal(0, 0.006, 2) * (0.5 + size))
            if age > onset:
                density = (0.55 if name == "pisiform" else 0.72) * self.rng.normal(1, 0.04)
                self.bones.append(Bone(outline, density, 0.014, 0.06, 0.7))
                if name == "hamate" and self.age > 11:  # its hook, seen end on
                    self._add_disc(outline.mean(0) + [-0.02, 0.035], 0.045, 0.2)
            if f"{name}_proximal" in HAND_LANDMARKS:
                self.named[f"{name}_proximal"] = outline[np.argmin(outline[:, 1])]

    def _add_forearm(self) -> None:
        deviation, shift = self.rng.normal(0, 4.5), self.rng.normal(0, [0.015, 0.03])
        broad = self.rng.normal(1, 0.05)

        def lay(control: np.ndarray) -> np.ndarray:
            return turn(control * [broad, 1] + shift, deviation, (0.0, -0.45))

        drop = np.array([0.0, 1.0]) * self.rng.normal(0, 0.025)  # ulnar variance
        for name, shaft, epiphysis, styloid, corners, onset in (
            ("radius", RADIUS_SHAFT, RADIUS_EPIPHYSIS, 7, (4, 8), 1.0),
            ("ulna", ULNA_SHAFT + drop, ULNA_EPIPHYSIS + drop, 3, (4, 7), 6.0),
        ):
            share = float(np.clip((self.age - onset + self.rng.normal(0, 0.4)) / (12.5 - onset), 0, 1)) ** 0.6
            anchor = epiphysis.min(0) * [0.4, 1] + epiphysis.max(0) * [0.6, 0]
            grown = anchor + (epiphysis - anchor) * [0.6 + 0.4 * share, 0.4 + 0.6 * share]
            grown = grown - [0, 0.6 * (0.017 - self.plate)]  # the plate thins with age
            shaft = shaft - [0, 0.004]
            for side, corner in zip(("medial", "lateral"), corners):
                self.named[f"{name}_{side}"] = lay(shaft[corner])
            self.named[f"{name}_styloid"] = lay(grown[styloid])
            look = {"density": 0.98 if name == "radius" else 0.8, "cortex": 0.026, "depth": 0.055}
            if self.forearm_open:
                self.bones.append(Bone(smooth_outline(lay(shaft)), **look))
                if share > 0:
                    self.bones.append(Bone(smooth_outline(lay(grown)), look["density"] * 0.9, 0.016, 0.055, 0.6))
                continue
            first, second = corners
            lower = epiphysis[1 : {"radius": 11, "ulna": 9}[name]]
            whole = np.concatenate([shaft[: first + 1], lower, shaft[second:]])
            self.bones.append(Bone(smooth_outline(lay(whole)), **look))
            if self.age < 18.5:  # scar of the growth plate
                line = shaft[first : second + 1]
                scar = np.concatenate([line, line[::-1] + [0, 0.012]])
                self.bones.append(Bone(lay(scar), 0.16, 0.005, 0.006, 1.0))
        self._add_palm_skin(lay)

    def _add_finger_skin(self, base, joints: list[np.ndarray], width: float) -> None:
        nodes = [
            base + 0.5 * (joints[0] - base),
            joints[0],
            joints[0] + 0.3 * (joints[1] - joints[0]),
            *joints[1:],
        ]
        if len(joints) == 3:  # the thumb's skin starts at the wrist
            nodes.insert(0, base)
        radii = [0.2, 0.175, 0.155, 0.143, 0.128, 0.108] if len(joints) == 4 else [0.2, 0.2, 0.17, 0.158, 0.145, 0.112]
        nodes, radii = np.array(nodes), np.array(radii) * width
        axis = (nodes[-1] - nodes[-2]) / np.linalg.norm(nodes[-1] - nodes[-2])
        nodes[-1] = nodes[-1] - axis * (radii[-1] - 0.065)
        tangent = np.gradient(nodes, axis=0)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        aside = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
        t = np.radians(np.arange(15, 180, 15))[:, None]
        cap = nodes[-1] + radii[-1] * (np.cos(t) * aside[-1] + np.sin(t) * axis)
        self.skin.append(np.concatenate([nodes + aside * radii[:, None], cap, (nodes - aside * radii[:, None])[::-1]]))

    def _add_palm_skin(self, lay) -> None:
        g = self.skin_girth
        n = self.named
        web = 0.5 * (n["index_mcp"] + n["thumb_mcp"]) + [-0.02, -0.08]
        ulnar = lay(np.array([(-0.56, -2.6), (-0.55, -0.9), (-0.52, -0.6)]) * [g, 1])
        radial = lay(np.array([(0.40, -0.6), (0.39, -0.9), (0.41, -2.6)]) * [g, 1])
        palm = [*ulnar, (-0.48 * g, -0.4), (-0.52 * g, -0.2), (-0.57 * g, 0.0), (-0.63 * g, 0.35)]
        palm += [n["little_mcp"] + [-0.05, 0], n["ring_mcp"], n["middle_mcp"], n["index_mcp"] + [0.1, 0.02]]
        palm += [
            web,
            n["thumb_mcp"],
            n["thumb_metacarpal_base"] + [0.14 * g, -0.05],
            (0.46 * g, -0.35),
            *radial,
        ]
        self.skin.append(np.array(palm))
        # The adductor's edge crosses the first web space.
        muscle = [n["index_metacarpal_base"], n["index_mcp"] * 0.45 + n["index_metacarpal_base"] * 0.55]
        muscle += [
            n["index_mcp"] * 0.7 + web * 0.3 + [0.02, -0.2],
            web + [0.02, -0.06],
            n["thumb_mcp"] + [-0.06, -0.03],
        ]
        muscle += [n["thumb_metacarpal_base"]]
        self.bones.append(Bone(smooth_outline(np.array(muscle)), 0.1, 0.01, 0.12, 1.0))
