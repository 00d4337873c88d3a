"""Pictures of landmarks on a volume: three planes through each of them."""

from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image

from ..transforms.coordinates import world_to_voxel
from .overlay import ERROR, PREDICTION, TEXT, TRUTH, grey_range, grey_values
from .panels import GAP, Panel, Piece, beside, stacked, text_strip
from .slices import PLANES, radiological, voxel_size


def draw_volume_overlay(
    image: MetaTensor,
    prediction: torch.Tensor | np.ndarray | None = None,
    truth: torch.Tensor | np.ndarray | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
    landmarks: Sequence[int] | None = None,
    max_landmarks: int = 8,
    window: float = 60.0,
    panel_size: int = 341,
    mm_per_world: float = 1.0,
    unit: str = "mm",
) -> Image.Image:
    """Draw landmarks of a volume: a row for each, with the axial, coronal and sagittal slice through it.

    The slices go through the predicted point (red ring), or through the true one where nothing is predicted. The true
    point (green cross) is projected onto each slice, and its distance from the slice is written in the corner. Slices
    are shown as radiologists see them, whatever the orientation of the array: the patient's right at the left,
    anterior on top of the axial one, the head on top of the others, anterior at the left of the sagittal one.

    Args:
        image: shape (1, X, Y, Z), with its affine.
        prediction: points in world coordinates (RAS), shape (N, 3); rows that are not finite are told, not drawn.
        truth: likewise; NaN is called not annotated, infinity absent.
        names: N names.
        title: text above the rows.
        landmarks: indices of the landmarks to draw; the first `max_landmarks` where not given.
        max_landmarks: how many rows the picture has where `landmarks` is not given.
        window: width of what is shown around a landmark, in mm; the whole image where it is smaller.
        panel_size: width and height of the picture of one slice, in pixels.
        mm_per_world: how many millimetres a unit of the world is.
        unit: "mm", or "pixel" where no physical size is known.
    """
    volume = radiological(image)
    shape, spacing = np.array(volume.shape[1:]), voxel_size(volume) * mm_per_world
    count = len(prediction if prediction is not None else truth if truth is not None else ())
    worlds = [_points(points, count) for points in (prediction, truth)]
    predicted, true = (world_to_voxel(points, volume.affine).numpy() for points in worlds)
    errors = (worlds[0] - worlds[1]).norm(dim=-1) * mm_per_world
    if landmarks is None:
        landmarks = range(min(count, max_landmarks))
        title += f"  (the first {max_landmarks} of {count} landmarks)" if count > max_landmarks else ""
    extent = np.clip(np.ceil(window / spacing), 1, shape).astype(int)
    factor = panel_size / (extent * spacing).max() * spacing

    width = len(PLANES) * panel_size + (len(PLANES) - 1) * GAP
    page = [text_strip([[(title, TEXT)]], width)] if title or not len(landmarks) else []
    for i in landmarks:
        p, t = predicted[i], true[i]
        name = names[i] if names is not None else f"landmark {i + 1}"
        told = _told(p, t, shape, f"error {errors[i]:.2f} {unit}", truth is not None)
        page.append(text_strip([[(name, TEXT), *told]], width))
        centre = p if np.isfinite(p).all() else t
        if np.isfinite(centre).all():
            start = np.clip(np.rint(centre - (extent - 1) / 2), 0, shape - extent).astype(int)
            panels = _panels(volume, centre, start, start + extent, factor, panel_size)
            for panel in panels:
                panel.label(factor[0] / spacing[0], unit)
                _draw_points(panel, p, t)
                if np.isfinite(p).all() and np.isfinite(t).all():
                    panel.off_plane("truth", t, spacing, unit, TRUTH)
            page.append(beside([panel.picture for panel in panels]))
    return stacked(page)


def _points(points: torch.Tensor | np.ndarray | None, count: int) -> torch.Tensor:
    """Points as a float64 tensor of the host, (N, 3); NaN where there are none."""
    if points is None:
        return torch.full((count, 3), torch.nan, dtype=torch.float64)
    return torch.as_tensor(points, dtype=torch.float64, device="cpu").detach()


def _told(p: np.ndarray, t: np.ndarray, shape: np.ndarray, error: str, has_truth: bool) -> list[Piece]:
    """What the label of a row says of a landmark beside its name."""
    found, there = np.isfinite(p).all(), np.isfinite(t).all()
    told = [] if there or not has_truth else [("not annotated" if np.isnan(t).any() else "absent", TRUTH)]
    if not found:
        told.append(("not found", PREDICTION))
    elif (np.abs(p - (shape - 1) / 2) > shape / 2).any():
        told.append(("found outside the image", PREDICTION))
    if found and there:
        told.append((error, ERROR))
    return [(" " + text, colour) for text, colour in told]


def _panels(
    volume: MetaTensor, centre: np.ndarray, start: np.ndarray, stop: np.ndarray, factor: np.ndarray, size: int
) -> list[Panel]:
    """The three slices through a voxel, between two corners, in the same grey values."""
    slices = [grey_values(plane.slice(volume[0], centre)) for plane in PLANES]
    spans = [tuple(slice(start[axis], stop[axis]) for axis in plane.axes) for plane in PLANES]
    limits = grey_range(np.concatenate([grey[span].ravel() for grey, span in zip(slices, spans)]))
    return [
        Panel(plane, grey, plane.index(volume[0], centre), start, stop, factor, limits, (size, size))
        for plane, grey in zip(PLANES, slices)
    ]


def _draw_points(panel: Panel, p: np.ndarray, t: np.ndarray) -> None:
    """Ring, cross and the line between them."""
    found, there = np.isfinite(p).all(), np.isfinite(t).all()
    if found and there:
        panel.canvas.line([*panel.place(p), *panel.place(t)], fill=ERROR, width=1)
    if there:
        panel.cross(t, TRUTH, 7)
    if found:
        panel.ring(p, PREDICTION, 6)
