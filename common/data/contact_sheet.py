"""A page of small pictures of a data set with their landmarks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.transforms import Resize

LONGEST = 240  # pixels of a picture's longer side
GAP = 6  # pixels between the two views of a volume
SLAB_MARGIN = 5.0  # mm beyond the landmarks that a view of a volume shows


@dataclass(frozen=True)
class Picture:
    """A small picture, x first.

    Args:
        pixels: (W, H) grey values.
        points: (M, 2) pixels; landmarks may be there in several views, NaN without a place.
        landmarks: (M,) which landmark each point is, from 0.
        is_volume: whether it shows a volume.
    """

    pixels: np.ndarray
    points: np.ndarray
    landmarks: np.ndarray
    is_volume: bool = False


def flat_picture(pixels: np.ndarray, points: np.ndarray) -> Picture:
    """Of a flat image (W, H) with landmarks (N, 2) in pixels."""
    factor = LONGEST / max(pixels.shape)
    size = [max(1, round(length * factor)) for length in pixels.shape]
    return Picture(_resized(pixels, size), _moved(points, pixels.shape, size), np.arange(len(points)))


def volume_picture(voxels: np.ndarray, world: np.ndarray, affine: np.ndarray) -> Picture:
    """Two views of a volume side by side, as radiologists hold them: from below, and from the patient's left side.

    In the first the patient's left is on the right and the front above, in the second the front is on the left and the
    head above. Each is the mean over a slab that holds the landmarks, in true proportions.

    Args:
        voxels: (X, Y, Z), axes as in the file.
        world: (N, 3) landmarks in RAS, NaN without a place.
        affine: (4, 4) from voxel to RAS.
    """
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt("LPI"))
    turned = nibabel.apply_orientation(voxels, turn)
    to_world = affine @ nibabel.orientations.inv_ornt_aff(turn, voxels.shape)
    inverse = np.linalg.inv(to_world)
    points = world @ inverse[:3, :3].T + inverse[:3, 3]
    spacing = np.linalg.norm(to_world[:3, :3], axis=0)
    scale = LONGEST / (spacing * turned.shape).max()

    views, places, left = [], [], 0
    for across in (2, 0):  # the axis along which one looks
        kept = [axis for axis in range(3) if axis != across]
        plane = _slab(turned, points[:, across], across, SLAB_MARGIN / spacing[across]).mean(axis=across)
        size = [max(1, round(plane.shape[i] * spacing[axis] * scale)) for i, axis in enumerate(kept)]
        views.append(_resized(plane, size))
        places.append(_moved(points[:, kept], plane.shape, size) + [left, 0])
        left += size[0] + GAP
    low, high = np.percentile(np.concatenate([view.ravel() for view in views]), (0.5, 99.5))
    page = np.full((left - GAP, max(view.shape[1] for view in views)), low, dtype=np.float32)
    start = 0
    for view in views:
        page[start : start + view.shape[0], : view.shape[1]] = np.clip(view, low, high)
        start += view.shape[0] + GAP
    return Picture(page, np.concatenate(places), np.tile(np.arange(len(world)), 2), is_volume=True)


def contact_sheet(
    pictures: Mapping[str, Picture], reasons: Mapping[str, Sequence[str]], path: Path, limit: int = 48
) -> None:
    """Write a page of pictures with their landmarks, those with findings first and marked, of the others a sample.

    Args:
        pictures: by the path of the image.
        reasons: kinds of findings for the path of an image.
        path: of the page.
        limit: pictures on the page.
    """
    from matplotlib.figure import Figure

    marked = [image for image in pictures if reasons.get(image)][:limit]
    others = [image for image in pictures if not reasons.get(image)]
    room = min(limit - len(marked), len(others))
    shown = marked + [others[i * len(others) // room] for i in range(room)]
    if not shown:
        return
    columns = 4 if all(pictures[image].is_volume for image in shown) else 8
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(16, 2.6 * rows), layout="constrained")
    for image, axes in zip(shown, np.ravel(figure.subplots(rows, columns, squeeze=False))):
        picture = pictures[image]
        axes.imshow(picture.pixels.T, cmap="gray")
        count = max(1, picture.landmarks.max(initial=0) + 1)  # the colours are a circle, so that its end is left out
        axes.scatter(*picture.points.T, s=4, c=picture.landmarks, cmap="hsv", vmin=0, vmax=count)
        kinds = ", ".join(sorted(set(reasons.get(image, ()))))
        axes.set_title(f"{Path(image).name}\n{kinds}", fontsize=6, color="red" if kinds else "black")
    for axes in figure.axes:
        axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _slab(voxels: np.ndarray, places: np.ndarray, axis: int, margin: float) -> np.ndarray:
    """The part of a volume that holds the places along an axis, whole where there is none on it."""
    places = places[np.isfinite(places)]
    if not places.size:
        return voxels
    first = int(np.clip(np.floor(places.min() - margin), 0, voxels.shape[axis] - 1))
    last = int(np.clip(np.ceil(places.max() + margin), first, voxels.shape[axis] - 1))
    return np.take(voxels, range(first, last + 1), axis=axis)


def _resized(pixels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    return np.asarray(Resize(size, mode="area")(torch.from_numpy(np.ascontiguousarray(pixels))[None])[0])


def _moved(points: np.ndarray, old: Sequence[int], new: Sequence[int]) -> np.ndarray:
    """Pixels of a picture, centres at integers, after it was resized."""
    return (points + 0.5) * (np.array(new) / np.array(old)) - 0.5
