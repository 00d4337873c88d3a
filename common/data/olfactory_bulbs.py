"""The 2 landmarks of coronal T2 MR of the olfactory bulbs: their centres, the patient's right first.

Noothout et al. 2020, Section III-B, take the centre of each bulb's manual delineation.
"""

OLFACTORY_BULB_LANDMARKS = ("bulb_right", "bulb_left")
