"""Rounded proportions of a head seen from its side, in millimetres, as lateral cephalograms show it.

The frame has sella at (0, 0), nasion on the positive x axis, and y down: the face looks to the right. Numbers
are those of an average film, magnified as films are; the anatomy varies them.
"""

import numpy as np

# Width and height of the film: cephalograms of 1935 x 2400 pixels of 0.1 mm.
FILM_MM = (193.5, 240.0)


def table(text: str) -> np.ndarray:
    """Points (N, 2) of "x,y x,y ..."."""
    return np.array([[float(number) for number in pair.split(",")] for pair in text.split()])


# Outer table from above nasion over forehead, vertex and occiput to the foramen magnum.
VAULT = table("64,-11 64,-26 59,-46 46,-68 22,-88 -12,-99 -47,-95 -77,-74 -94,-38 -95,-2 -83,26 -64,42 -45,43")
# From the foramen magnum's front up the clivus, the dorsum sellae, the fossa of sella, planum, to the forehead.
SKULL_BASE = table(
    "-27,36 -20,19 -11,3.5 -8.6,-3.4 -6.2,-5.2 -4.6,-3.0 -4.9,1.6 -2.4,4.8 1.4,4.6 4.2,1.5 4.4,-2.9 "
    "7.2,-5.1 14,-6 27,-7.5 40,-6 50,-8.5 55.5,-4"
)
# The fossa alone: the points of the skull base between the clinoid processes.
FOSSA = slice(5, 11)

# Floor of the middle fossa: the lower edge of the cranial cavity behind the orbits.
TEMPORAL_FLOOR = table("-17,29 -4,24 9,20 15,11 17,-1 23,-8")

# Roofs of the two orbits, behind nasion, and the edge of the greater sphenoid wing.
ORBITAL_ROOFS = (table("7,-6 20,-11 34,-15 47,-15 57,-8"), table("10,-7 22,-14 36,-18.5 50,-17 59,-10"))
SPHENOID_WING = table("9,-14 14,-4 17,8 15,20 11,30")
# Air in the paranasal sinuses.
SPHENOID_SINUS = table("3,7 10,-2 19,-1 23,8 20,18 9,19 2,15")
ETHMOID_AIR = table("21,-3 38,-2 49,1 50,14 40,19 26,19 21,9")
MAXILLARY_SINUS = table("18,20 30,19 43,27 46,37 43,44 30,45 18,42 14,32")
FRONTAL_SINUS = table("57,-6 60,-9 61.5,-18 59.5,-26 57.3,-19 56,-11")
# Pterygomaxillary fissure: a drop of air whose tip points to the posterior nasal spine.
FISSURE = table("9,14 13,12 15.5,17 14.5,26 12,37 10.5,28 8.5,20")
# Zygomatic process (key ridge) below the orbit, seen end on.
KEY_RIDGE = table("41,24 40,31 35,39 30,45 26,41 24,33 26,27")

# Petrous and mastoid bone around the ear, with the styloid process below.
PETROUS = table("-44,4 -32,2 -20,8 -8,6 -6,12 -12,21 -17,27 -24,31 -31,40 -38,41 -43,32 -48,18")
# Condyle to coronoid process, relative to articulare: head, notch, coronoid.
CONDYLE = table("-0.5,-5 1.2,-9 5,-10.5 8.6,-8.2 9.6,-3.5 10.5,2 16,7.5 22,5.5 27,-0.5 30,0.5 31,7")

# Crowns and roots of a tooth, x along the row, y towards the tip: half widths relative to the tooth's own.
MOLAR = table(
    "-.5,0 -.52,-4 -.42,-7 -.4,-14 -.25,-20 -.1,-14 0,-9 .1,-14 .27,-20 .42,-14 .44,-7 .52,-4 .5,0 .2,-.6 -.2,-.6"
)
PREMOLAR = table("-.42,-.5 -.5,-4 -.36,-8 -.28,-14 0,-21 .28,-14 .36,-8 .5,-4 .42,-.5 0,.3")
INCISOR = table("-.08,0 -.35,-4 -.55,-9 -.5,-15 -.12,-23 .3,-16 .5,-9 .42,-4 .12,0")
# Distance from the incisors' edge along the row, width, kind of the teeth behind them.
TEETH = ((8.0, 7.2, PREMOLAR), (14.2, 6.8, PREMOLAR), (20.6, 6.4, PREMOLAR), (28.8, 10.0, MOLAR), (38.6, 9.6, MOLAR))

# Body of a cervical vertebra (in front, x forward), and its arch and spinous process behind it.
CERVICAL_BODY = table("-8,-6 0,-6.4 8,-5.2 7.4,0 8.6,7 0,5.6 -8,6 -7.2,0")
CERVICAL_ARCH = table("-8,-4 -16,-4 -22,0 -34,8 -37,13 -32,13 -21,7 -14,6 -8,4")
AXIS_BODY = table("-7,-2 -6,-15 -2,-20 3,-16 5,-3 8,4 9,10 0,8.5 -8,8 -7.4,2")
