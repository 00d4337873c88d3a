"""Neck, skin and airway of a head, with the landmarks of the profile."""

import numpy as np

from .phantom_skull_anatomy import SAMPLES, SkullAnatomy, deepest, foremost, stretch, turned
from .phantom_skull_shapes import AXIS_BODY, CERVICAL_ARCH, CERVICAL_BODY, SKULL_BASE, TEMPORAL_FLOOR
from .phantom_xray import Layer, ellipse, ribbon, smooth_curve, smooth_outline


def add_neck(head: SkullAnatomy) -> None:
    """Add the cervical spine and the hyoid bone."""
    rng = head.rng
    lean, bend = rng.normal(4, 5), rng.normal(2.0, 2.5)
    place = np.array([-33.0, 57.0]) + rng.normal(0, 2.5, 2)
    head.spine = [place]
    # Atlas: its front arch before the dens, its back arch behind.
    head.add_bone(ellipse(place + [9, -13], (3.2, 5), 10), 0.22, 3, 1.0, 0.6)
    head.add_bone(ellipse(place + [-27, -9], (8, 3.6), 15), 0.24, 3, 1.0, 0.5)
    head.bones.append(Layer(ribbon(np.array([place + [6, -13], place + [-20, -10]]), 5), 0.14, 2.5))
    for level in range(6):
        angle = lean + bend * level
        body = AXIS_BODY if level == 0 else CERVICAL_BODY
        size = rng.normal(1, 0.03, 2) * (1.0 + 0.02 * level)
        head.add_bone(smooth_outline(place + turned(body * size, angle)), 0.46, 6, 1.1, 0.6)
        head.add_bone(smooth_outline(place + turned(CERVICAL_ARCH * size, angle)), 0.30, 4, 1.0, 0.5)
        head.add_bone(place + turned(ellipse((-12, 1), (4.5, 6), 30), angle), 0.10, 3, 1.0, 0.6)
        place = place + turned(np.array([-1.0, 18.0 if level == 0 else 16.5]), angle)
        head.spine.append(place)
    head.add_bone(ellipse(head.gonion + [14, 17 + rng.normal(0, 3)], (7, 2.2), 20), 0.16, 2, 0.8, 0.7)  # hyoid


def add_skin(head: SkullAnatomy) -> None:
    """Add skin, brain and airway, with the landmarks of the profile, which follows teeth and chin."""
    rng = head.rng
    n, lm = head.nasion, head.landmarks
    thick = rng.normal(1, 0.07)
    subnasale = lm["subspinale"] + np.array([12.5, -2.5]) * thick
    tip = subnasale + [12.5 * thick, -13 + rng.normal(0, 1.5)]
    tip[0] = 0.5 * (tip[0] + n[0] + 22)
    upper_lip = np.array([head.upper_tip[0] + 12.5 * thick, head.upper_tip[1] - 7.5 + rng.normal(0, 0.8)])
    upper_lip[0] = np.clip(upper_lip[0], subnasale[0] - 2, subnasale[0] + 8)
    lower_lip = np.array([head.lower_tip[0] + 11.5 * thick, head.lower_tip[1] + 11 + rng.normal(0, 1)])
    lower_lip[0] = np.clip(lower_lip[0], upper_lip[0] - 9, min(upper_lip[0] + 6, lm["supramentale"][0] + 18))
    lower_lip[1] = max(lower_lip[1], upper_lip[1] + 15)
    mouth = np.array([min(upper_lip[0], lower_lip[0]) - 4.5, 0.5 * (upper_lip[1] + lower_lip[1]) - 0.5])
    chin = lm["pogonion"] + np.array([11.0, 2.0]) * thick
    fold = np.array(
        [min(lm["supramentale"][0] + 10.5 * thick, lower_lip[0] - 2.5, chin[0] + 1), lm["supramentale"][1] + 4]
    )
    fold[1] = np.clip(fold[1], lower_lip[1] + 7, max(chin[1] - 8, lower_lip[1] + 7))
    chin[1] = max(chin[1], fold[1] + 6)
    below = lm["menton"] + np.array([-2.0, 9.0]) * thick
    throat = np.array([head.gonion[0] + 26, below[1] + rng.normal(-1, 3)])
    throat[1] = max(throat[1], head.gonion[1] + 30)
    spine_end = head.spine[-1]
    front = np.array([spine_end[0] + 36, max(throat[1] + 28, 150)])
    profile = np.array([
        n + [9.5, -14], n + [5.0, 1.0], n + [10.5, 14], tip + [-5, -9], tip, tip + [-4.5, 7.5], subnasale,
        subnasale * 0.45 + upper_lip * 0.55 + [-1.2, 0], upper_lip, upper_lip * [1, 0] + mouth * [0, 1] + [-1.6, -2.6],
        mouth, lower_lip * [1, 0] + mouth * [0, 1] + [-1.8, 3.4], lower_lip, fold, chin, below, throat, front,
    ])  # fmt: skip
    back = [(front[0] - 5, 260), (-110, 260), (-84, 120), (-82, 70), (-100, 30)]
    scalp = np.array([-18, -20]) + (head.vault - [-18, -20]) * 1.075
    control = np.concatenate([profile, np.array(back), scalp[2:-3][::-1]])
    # The soft tissue of the throat has no corners either: a single smooth outline.
    outline = smooth_outline(control, SAMPLES)
    head.skin.append(Layer(outline, 0.46, rng.uniform(28, 42)))
    brain = smooth_outline(np.concatenate([head.vault[:-1] * 0.97, TEMPORAL_FLOOR[:3], SKULL_BASE[-5:-1]]), 6)
    head.skin.append(Layer(brain, 0.34, 55))
    head.landmarks["upper_lip"] = foremost(stretch(outline, 7, 10), head.frankfort)
    head.landmarks["lower_lip"] = foremost(stretch(outline, 11, 13), head.frankfort)
    head.landmarks["subnasale"] = deepest(stretch(outline, 5, 8), tip, head.landmarks["upper_lip"])
    head.landmarks["soft_tissue_pogonion"] = foremost(stretch(outline, 13, 15), head.forward)
    # Airway from the nasopharynx down behind the tongue, in front of the spine.
    spine = np.array(head.spine)
    way = [
        (4, 33),
        head.pns + [-9, 12],
        spine[1] + [19, 0],
        spine[2] + [19, 2],
        spine[3] + [20, 4],
        spine[5] + [21, 0],
    ]
    width = np.interp(np.arange((len(way) - 1) * SAMPLES + 1) / SAMPLES, range(6), [8, 11, 9, 11, 14, 14])
    head.air.append(Layer(ribbon(smooth_curve(np.array(way), SAMPLES), width), -0.17, 4))
    nose = [
        head.pns + [2, -5],
        (34, 36 * head.height),
        head.ans + [3, -6],
        tip + [-8, 2],
        subnasale + [1, -5],
        head.ans + [-3, -2],
    ]
    head.air.append(Layer(smooth_outline(np.array(nose)), -0.08, 4))
