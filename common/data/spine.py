"""The 68 landmarks of the AP spine X-ray: the corners of 17 vertebrae, in the order of the AASCE 2019 challenge.

Vertebrae from T1 to L5; left and right are those of the picture.
"""

import torch

VERTEBRAE = (*(f"T{i}" for i in range(1, 13)), *(f"L{i}" for i in range(1, 6)))
CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")
SPINE_LANDMARKS = tuple(f"{vertebra}_{corner}" for vertebra in VERTEBRAE for corner in CORNERS)


def of_mirrored_film(landmarks: torch.Tensor) -> torch.Tensor:
    """The landmarks (68, D) of a mirrored film: what was a left corner is a right one of the picture."""
    sides = {"left": "right", "right": "left"}
    names = [f"{name.rsplit('_', 1)[0]}_{sides[name.rsplit('_', 1)[1]]}" for name in SPINE_LANDMARKS]
    return landmarks[[SPINE_LANDMARKS.index(name) for name in names]]
