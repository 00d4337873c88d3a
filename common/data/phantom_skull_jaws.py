"""Jaws and teeth of a head, with the landmarks on them."""

import numpy as np

from .phantom_skull_anatomy import SAMPLES, SkullAnatomy, deepest, foremost, stretch, turned
from .phantom_skull_shapes import CONDYLE, INCISOR, TEETH
from .phantom_xray import Layer, ellipse, ribbon, smooth_curve, smooth_outline


def add_maxilla(head: SkullAnatomy) -> None:
    """Add palate and upper alveolar bone, with both nasal spines, subspinale and the upper incisor's edge."""
    rng = head.rng
    apex = head.a + [-7.0, -1.0]
    head.upper_axis = (head.upper_tip - apex) / np.linalg.norm(head.upper_tip - apex)
    forward = np.array([head.upper_axis[1], -head.upper_axis[0]])
    crest = head.upper_tip - 9.5 * head.upper_axis
    prosthion = crest + 2.6 * forward
    back = turned(np.array([-1.0, 0.0]), head.occlusal)
    lingual = crest - 3.6 * forward
    tuber = head.upper_tip + 45 * back + turned(np.array([0.0, -9.5]), head.occlusal)
    row = [
        lingual,
        *(lingual + (tuber - lingual) * s + turned(np.array([0, 1.0]), head.occlusal) for s in (0.4, 0.8)),
        tuber,
    ]
    floor = (
        head.pns
        + (head.ans - head.pns) * np.array([[0.06], [0.33], [0.66], [0.9]])
        + [[0, 0.8], [0, 1.6], [0, 1.0], [0, -0.4]]
    )
    control = np.array(
        [head.ans, head.ans + [-1.2, 2.2], head.a, prosthion, *row, head.pns + [-1, 3.5], head.pns, *floor]
    )
    outline = smooth_outline(control, SAMPLES)
    head.add_bone(outline, 0.46, 7, 1.2, 0.62)
    palate = [head.pns, *floor, head.ans]
    curve = smooth_curve(np.array(palate), SAMPLES)
    width = np.interp(np.linspace(0, 1, len(curve)), [0, 0.1, 0.5, 0.85, 1], [0.8, 2.2, 2.6, 3.0, 0.8])
    head.bones.append(Layer(ribbon(curve + [0, 0.2], width), 0.34, 1.3))
    head.bones.append(Layer(ribbon(curve[8:-8] + rng.normal([0, 2.5], [1, 0.8]), 1.0), 0.16, 0.6))
    head.landmarks["anterior_nasal_spine"] = head.ans
    head.landmarks["posterior_nasal_spine"] = head.pns
    front = outline[: 3 * SAMPLES + 1]
    head.landmarks["subspinale"] = deepest(front[SAMPLES:], head.ans, prosthion)
    head.landmarks["upper_incisal_incision"] = head.upper_tip
    head.bones.append(Layer(ribbon(front, 1.2), 0.16, 0.6))


def add_mandible(head: SkullAnatomy) -> None:
    """Add the lower jaw with its ramus, and the landmarks of chin, angle and lower incisor."""
    rng, m = head.rng, head.on_mandible
    apex = head.b + turned(np.array([-7.0, 3.0]), head.plane)
    head.lower_axis = (head.lower_tip - apex) / np.linalg.norm(head.lower_tip - apex)
    forward = np.array([-head.lower_axis[1], head.lower_axis[0]])
    crest = head.lower_tip - 9.0 * head.lower_axis
    infradentale = crest + 2.4 * forward
    # Bone before an incisor that stands far back keeps the front of the jaw hollow at supramentale.
    aside, along = turned(infradentale - head.gnathion, -head.plane)
    infradentale = m([max(aside, -5.0), along])
    chin = rng.normal(0, 0.7)
    pogonion = m([0.6 + chin, -4.8])
    menton, symphysis = m([-3.2, 2.6]), m([-8.5, 3.4])
    length = float(np.linalg.norm(head.gnathion - head.gonion))
    notch = rng.normal(1.2, 0.8)
    border = [m([-0.32 * length, 3.0]), m([-0.6 * length, 1.5 - notch]), m([-0.85 * length, 1.2])]
    ramus = head.gonion - head.articulare
    heel = m([-length - 0.3, -1.6])
    behind = [head.articulare + ramus * s + [d, 0] for s, d in ((0.72, -0.6), (0.38, 0.8))]
    top = head.articulare + CONDYLE * [1, rng.uniform(0.85, 1.15)]
    back = turned(np.array([-1.0, 0.0]), head.occlusal)
    retromolar = head.lower_tip + 44 * back + turned(np.array([0.0, 8.0]), head.occlusal)
    front = 0.5 * (top[-1] + retromolar) + [-2.5, -1.0]
    lingual = crest - 3.4 * forward
    row = lingual + (retromolar - lingual) * np.array([[0.75], [0.4], [0.0]])
    control = np.array(
        [infradentale, head.b, pogonion, head.gnathion, menton, symphysis, *border, heel, *behind,
         head.articulare, *top, front, retromolar, *row]
    )  # fmt: skip
    outline = smooth_outline(control, SAMPLES)
    head.add_bone(outline, 0.56, 8, cortex=1.9, marrow=0.5)
    # The side farther from the film, a little larger and displaced.
    ghost = outline[4 * SAMPLES : 22 * SAMPLES]
    shift = rng.normal([0.5, 0.5], [1.6, 1.4]) * np.linspace(0, 1, len(ghost))[:, None]
    head.bones.append(Layer(ghost + shift, 0.12, 7, 1.4, 0.5))
    # Symphysis: the dense section of the chin.
    section = [infradentale, head.b, pogonion, head.gnathion, menton, symphysis, m([-13, -3]),
               head.b + turned(np.array([-8.5, 0.0]), head.plane), lingual]  # fmt: skip
    head.add_bone(smooth_outline(np.array(section), SAMPLES), 0.24, 5, 1.5, 0.4)
    canal = [front + [-8, 4], m([-0.72 * length, -14]), m([-0.4 * length, -9]), m([-0.25 * length, -8])]
    head.air.append(Layer(ribbon(smooth_curve(np.array(canal), SAMPLES), 2.4), -0.06, 1.2))
    level = head.level
    head.landmarks["supramentale"] = deepest(stretch(outline, 0, 2), infradentale, pogonion)
    # Forward is midway between the Frankfort horizontal and the mandible: a steep jaw has a chin, too.
    head.forward = max(0.5 * (head.frankfort + head.plane), head.plane - 14)
    head.landmarks["pogonion"] = pogonion = foremost(stretch(outline, 1, 5), head.forward)
    head.landmarks["menton"] = menton = stretch(outline, 2, 7)[np.argmax(level(stretch(outline, 2, 7))[:, 1])]
    # Gnathion: the most anterior and inferior point, halfway round the chin.
    round_chin = stretch(outline, 1, 7)
    ends = [np.argmin(np.linalg.norm(round_chin - end, axis=1)) for end in (pogonion, menton)]
    head.landmarks["gnathion"] = deepest(round_chin[ends[0] : ends[1] + 1], menton, pogonion)
    head.landmarks["gonion"] = deepest(stretch(outline, 7, 12), head.articulare, menton)
    head.landmarks["articulare"] = head.articulare
    head.landmarks["lower_incisal_incision"] = head.lower_tip


def add_teeth(head: SkullAnatomy) -> None:
    """Add both rows of teeth behind the incisors, some of them missing or filled."""
    rng = head.rng
    for tip, axis, up in ((head.upper_tip, head.upper_axis, 1), (head.lower_tip, head.lower_axis, -1)):
        _add_tooth(head, INCISOR, tip, axis, 6.2 if up > 0 else 5.0, 0.62)
        behind = turned(np.array([-3.6, -0.6 * up]), head.occlusal)
        _add_tooth(head, INCISOR, tip + behind, axis, 5.2 if up > 0 else 4.8, 0.4)
        meeting = 0.5 * (head.upper_tip + head.lower_tip)
        for distance, width, kind in TEETH:
            if rng.random() < 0.03:
                continue
            gap = 0.3 + max(head.lower_tip[1] - head.upper_tip[1], 0) * 0.5 * (1 - distance / 40)
            offset = turned(np.array([-distance - (3 if up < 0 else 2.5), -up * gap]), head.occlusal)
            start = 0.6 * tip + 0.4 * meeting
            place = np.array([start[0], meeting[1]]) + offset
            lean = turned(np.array([0.0, float(up)]), head.occlusal + rng.normal(0, 4))
            _add_tooth(head, kind, place, lean, width, 0.46)
            if kind is not INCISOR and rng.random() < 0.15:  # a filling
                filled = place - lean * rng.uniform(1.5, 3)
                head.bones.append(Layer(ellipse(filled, (0.35 * width, 2.2), head.occlusal), 0.9, 1.2))


def _add_tooth(
    head: SkullAnatomy, shape: np.ndarray, tip: np.ndarray, axis: np.ndarray, width: float, density: float
) -> None:
    aside = np.array([axis[1], -axis[0]])
    outline = tip + shape[:, :1] * width * aside + shape[:, 1:] * axis
    head.bones.append(Layer(smooth_outline(outline, 5), 0.55 * density, 1.6, 0.8, 0.8))
    crown = shape[shape[:, 1] > -7.5]
    crown = tip + crown[:, :1] * width * 0.96 * aside + crown[:, 1:] * axis
    head.bones.append(Layer(crown, 0.45 * density, 1.4))
