"""Shapes of the hand's bones in the hand's frame, as rounded anatomical numbers.

u points to the thumb's side, v to the finger tips; the base of the middle metacarpal is at (0, 0), and
the base of the proximal phalanx above it at (0, 1).
"""

from typing import NamedTuple

import numpy as np


class Bone(NamedTuple):
    """A closed outline (N, 2) and its look: density and thickness of the cortex, depth of the rounding."""

    outline: np.ndarray
    density: float
    cortex: float = 0.018
    depth: float = 0.045
    marrow: float = 0.45


def table(text: str) -> np.ndarray:
    return np.array([[float(number) for number in pair.split(",")] for pair in text.split()])


# Base of the metacarpal, base of the proximal phalanx, direction of the phalanges (degrees to the thumb),
# lengths of the phalanges, width relative to the middle finger.
DIGITS = {
    "little": ((-0.32, -0.045), (-0.58, 0.71), -22.0, (0.49, 0.29, 0.26), 0.80),
    "ring": ((-0.16, -0.01), (-0.30, 0.87), -8.0, (0.62, 0.41, 0.29), 0.90),
    "middle": ((0.0, 0.0), (0.0, 1.0), 1.5, (0.66, 0.43, 0.29), 1.0),
    "index": ((0.20, -0.02), (0.36, 1.0), 11.5, (0.59, 0.36, 0.27), 0.97),
    "thumb": ((0.42, -0.13), (0.81, 0.43), 27.0, (0.47, 0.35), 0.98),
}

# Age in years at which the nucleus appears, and the outline of the grown bone.
CARPALS = {
    "capitate": (
        0.2,
        "-.09,-.06 -.04,-.035 .05,-.03 .10,-.06 .11,-.14 .12,-.23 .10,-.31 .05,-.36 -.01,-.37 "
        "-.06,-.35 -.09,-.29 -.10,-.19 -.10,-.11",
    ),
    "hamate": (
        0.3,
        "-.30,-.13 -.28,-.08 -.21,-.05 -.14,-.05 -.12,-.09 -.115,-.17 -.105,-.26 -.115,-.31 "
        "-.15,-.32 -.18,-.29 -.21,-.22 -.25,-.17",
    ),
    "triquetrum": (
        2.5,
        "-.38,-.27 -.35,-.22 -.30,-.21 -.25,-.25 -.21,-.31 -.20,-.36 -.24,-.41 -.29,-.43 -.34,-.41 -.375,-.34",
    ),
    "lunate": (
        4.0,
        "-.235,-.45 -.21,-.40 -.15,-.365 -.09,-.36 -.03,-.385 0,-.44 -.01,-.485 -.06,-.51 -.12,-.515 -.19,-.495",
    ),
    "trapezium": (
        5.0,
        ".245,-.13 .28,-.09 .335,-.07 .37,-.10 .385,-.14 .42,-.18 .43,-.225 .39,-.275 .32,-.295 .27,-.265 .24,-.20",
    ),
    "trapezoid": (
        5.5,
        ".13,-.09 .18,-.065 .24,-.085 .28,-.12 .295,-.17 .27,-.205 .225,-.22 .175,-.205 .14,-.17 .12,-.13",
    ),
    "scaphoid": (
        5.6,
        ".13,-.28 .20,-.25 .26,-.27 .29,-.33 .265,-.39 .20,-.44 .14,-.475 .08,-.485 .03,-.465 "
        "0,-.425 .01,-.385 .05,-.365 .095,-.355",
    ),
    "pisiform": (9.5, "-.35,-.33 -.31,-.28 -.27,-.30 -.255,-.36 -.275,-.41 -.325,-.42 -.355,-.38"),
}

# Shafts of the forearm up to the growth plates, from the medial to the lateral corner, and the epiphyses.
RADIUS_SHAFT = table(
    "-.10,-2.6 -.10,-1.2 -.10,-.90 -.125,-.72 -.16,-.645 -.09,-.625 .05,-.62 .18,-.63 .25,-.655 "
    ".24,-.73 .20,-.90 .185,-1.2 .185,-2.6"
)
RADIUS_EPIPHYSIS = table(
    "-.13,-.60 -.155,-.565 -.125,-.53 -.05,-.535 .04,-.52 .13,-.485 .20,-.445 .25,-.42 "
    ".285,-.46 .295,-.54 .27,-.62 .20,-.612 .05,-.60 -.06,-.605"
)
ULNA_SHAFT = table(
    "-.37,-2.6 -.375,-1.2 -.39,-.90 -.405,-.74 -.42,-.66 -.37,-.635 -.26,-.635 -.20,-.66 "
    "-.215,-.74 -.24,-.90 -.25,-1.2 -.26,-2.6"
)
ULNA_EPIPHYSIS = table(
    "-.40,-.615 -.41,-.58 -.395,-.53 -.37,-.50 -.35,-.53 -.325,-.565 -.28,-.562 -.225,-.565 "
    "-.205,-.59 -.22,-.615 -.31,-.615"
)


def turn(points: np.ndarray, degrees: float, centre=(0.0, 0.0)) -> np.ndarray:
    """Turn points (..., 2) of the hand's frame towards the thumb's side."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (np.asarray(points) - centre) @ np.array([[c, -s], [s, c]]) + centre
