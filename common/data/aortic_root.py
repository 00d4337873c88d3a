"""The 8 landmarks of the aortic root in coronary CT angiography, in the order of Noothout et al. 2020, Section III-A.

Commissures between two leaflets (there NCRC, NCLC, LRC), the leaflets' hinge points, which are their most caudal
attachments (LH, NCH, RH), and the coronary ostia (RO, LO). Left and right are the patient's.
"""

AORTIC_ROOT_LANDMARKS = (
    "commissure_noncoronary_right",
    "commissure_noncoronary_left",
    "commissure_left_right",
    "hinge_left",
    "hinge_noncoronary",
    "hinge_right",
    "ostium_right",
    "ostium_left",
)
