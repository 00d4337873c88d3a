"""Rounded sizes of the trunk seen from the front, in millimetres, at the scale L4 to L5 = 35 mm.

Vertebrae count from C7 (0) over T1 (1) to L5 (17) and S1 (18). x grows to the image's right, y down.
"""

import numpy as np


def table(text: str) -> np.ndarray:
    """Points (N, 2) of "x,y x,y ..."."""
    return np.array([[float(number) for number in pair.split(",")] for pair in text.split()])


# Size of the films: about 0.375 times as wide as high.
FILM_MM = (202.0, 540.0)

# Of each body from C7 to S1: width of the upper and of the lower end plate, height; distance to the next centre.
UPPER_WIDTH = np.array([29, 31, 30, 29, 28, 28.5, 29.5, 30.5, 31.5, 33, 35, 37, 39, 40.5, 42, 44, 46, 48, 50.0])
LOWER_WIDTH = np.array([29, 31, 30, 28.5, 28.5, 29, 30, 31, 32.5, 34.5, 37, 39.5, 41, 43, 45, 47, 49, 50, 40.0])
HEIGHT = np.array([12, 13.5, 15, 16, 17, 18, 18.5, 19, 19.5, 20, 21, 22, 23, 24, 24.5, 25, 25.5, 25, 26.0])
DISTANCE = np.array([17, 19, 21, 22.5, 23.5, 24.5, 25, 25.5, 26, 27, 28.5, 30, 32, 33, 34.5, 35.5, 35, 33.5])

# Half a vertebral body between its corners: sides and end plates are concave. Fractions of half width and height.
SIDE = ((0.965, -0.62), (0.925, 0.0), (0.965, 0.62))
PLATE = (0.6, 0.93), (0.0, 0.91), (-0.6, 0.93)

# Posterior ribs of the image's right side: where they run, relative to the costovertebral joint, at full size.
RIB = table("0,0 9,-4 20,-6 38,-1 58,12 76,32 88,58 93,82")
# Their anterior part comes back to the middle, lower down.
RIB_FRONT = table("93,82 91,94 82,108 68,116 52,116")
# Reach (x) and drop (y) of each rib relative to those, from T1 to T12.
RIB_REACH = (0.45, 0.66, 0.82, 0.92, 1.0, 1.06, 1.11, 1.15, 1.18, 1.18, 1.0, 0.62)
RIB_DROP = (0.30, 0.42, 0.55, 0.68, 0.78, 0.88, 0.97, 1.05, 1.12, 1.18, 1.15, 1.05)
