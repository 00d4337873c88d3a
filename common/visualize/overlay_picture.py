"""One call for pictures of results, of films and of volumes."""

from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image

from ..transforms.coordinates import world_to_voxel
from ..transforms.resize_to_fit import square_pixels
from .overlay import draw_overlay
from .panels import GAP
from .slices import PLANES
from .volume_overlay import draw_volume_overlay


def overlay_picture(
    image: MetaTensor,
    prediction: torch.Tensor | np.ndarray | None = None,
    truth: torch.Tensor | np.ndarray | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
    size: int = 1024,
    mm_per_world: float = 1.0,
    unit: str = "mm",
) -> Image.Image:
    """Draw predicted and true landmarks on an image: on the film, or on three planes through each one of a volume.

    A film whose pixels are not square is drawn with the proportions that it has in the world.

    Args:
        image: shape (1, X, Y) or (1, X, Y, Z), with its affine.
        prediction: points in world coordinates (RAS), shape (N, D); rows that are not finite are not drawn.
        truth: likewise.
        names: N names.
        title: text above, or at the upper left of a film.
        size: pixels of the longer side of a film, which is never made smaller; of the width of a volume's picture.
        mm_per_world: how many millimetres a unit of the world is; for what is written beside the points of a volume.
        unit: "mm", or "pixel" where no physical size is known.
    """
    if image.ndim == 4:
        panel_size = (size - (len(PLANES) - 1) * GAP) // len(PLANES)
        return draw_volume_overlay(
            image, prediction, truth, names, title, panel_size=panel_size, mm_per_world=mm_per_world, unit=unit
        )
    image = square_pixels(image)
    points = (None if p is None else world_to_voxel(torch.as_tensor(p), image.affine) for p in (prediction, truth))
    return draw_overlay(image[0], *points, names, title, size)
