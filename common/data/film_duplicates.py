"""Films and volumes that stand in a data set more than once, found by what they show."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from monai.transforms import Resize
from scipy.ndimage import gaussian_filter

THUMBNAIL = 64
VOLUME_THUMBNAIL = 24
LOCAL = 1 / 16  # deviation, as a share of the thumbnail, of the neighbourhood whose brightness and contrast go out
# Repeated cephalograms, also those digitised with another exposure, reach 0.97; films of two patients 0.86.
SAME_FILM = 0.93


def film_thumbnail(image: torch.Tensor) -> np.ndarray | None:
    """A small picture without the brightness and contrast of its neighbourhoods, of norm 1.

    (1, W, H) -> (4096,); a volume (1, X, Y, Z) -> (13824,). None where every pixel has the same value.
    """
    side, dims = (THUMBNAIL, 2) if image.ndim == 3 else (VOLUME_THUMBNAIL, 3)
    small = np.asarray(Resize([side] * dims, mode="area")(torch.as_tensor(image))[0], dtype=np.float64)
    if small.std() == 0:
        return None
    small = (small - small.mean()) / small.std()
    detail = small - gaussian_filter(small, LOCAL * side)
    detail = detail / np.sqrt(gaussian_filter(detail**2, LOCAL * side) + 0.03**2)
    detail = detail - detail.mean()
    return (detail / np.linalg.norm(detail)).ravel()


def same_films(thumbnails: Sequence[np.ndarray], threshold: float = SAME_FILM) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of thumbnails whose correlation is at least the threshold."""
    if len(thumbnails) < 2:
        return []
    table = np.stack(thumbnails)
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(table @ table.T >= threshold, 1))]


def pair_groups(pairs: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """All names that pairs join with a name, itself included, for every name of a pair."""
    groups: dict[str, set[str]] = {}
    for pair in pairs:
        joined = set().union(*(groups.get(name, {name}) for name in pair))
        groups.update({name: joined for name in joined})
    return groups
