"""Pictures of landmarks on an image."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

PREDICTION = (255, 80, 60)
TRUTH = (70, 230, 110)
ERROR = (255, 220, 60)
TEXT = (255, 255, 255)


def picture_font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font of all pictures, `size` pixels high, but never too small to read."""
    return ImageFont.load_default(size=max(11, size))


def grey_values(plane: torch.Tensor | np.ndarray) -> np.ndarray:
    """Grey values of any device, kind and shape as a float32 array."""
    return np.asarray(torch.as_tensor(plane).detach().cpu().float())


def grey_range(values: np.ndarray) -> tuple[float, float]:
    """The grey values that are drawn black and white: single outliers do not darken the picture."""
    low, high = np.nanpercentile(values, [0.5, 99.5]) if values.size else (0, 0)
    return low, high


def stretched(plane: np.ndarray, low: float, high: float) -> Image.Image:
    """A grey picture of one plane (W, H), x first, one pixel per voxel, black at `low` and white at `high`."""
    grey = np.clip((np.nan_to_num(plane) - low) / (high - low if high > low else 1), 0, 1) * 255
    return Image.fromarray(np.ascontiguousarray(grey.T).astype(np.uint8))


def grey_picture(plane: torch.Tensor | np.ndarray, min_size: int = 1024) -> tuple[Image.Image, float]:
    """An RGB picture of one plane (W, H), x first, its grey values stretched, enlarged to at least `min_size`.

    Returns:
        the picture and the factor by which it was enlarged.
    """
    plane = grey_values(plane)
    picture = stretched(plane, *grey_range(plane))
    factor = max(1.0, min_size / max(picture.size))
    size = [round(s * factor) for s in picture.size]
    return picture.resize(size, Image.Resampling.BICUBIC).convert("RGB"), factor


def draw_overlay(
    plane: torch.Tensor | np.ndarray,
    prediction: torch.Tensor | np.ndarray | None = None,
    truth: torch.Tensor | np.ndarray | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
    min_size: int = 1024,
) -> Image.Image:
    """Draw predicted landmarks (red dots), true ones (green crosses) and lines between them on a 2D image.

    Args:
        plane: grey values, shape (W, H) with x first.
        prediction: points in voxels of the plane, shape (N, 2); rows that are not finite are left out.
        truth: likewise.
        names: N names; written beside the predicted point, or the true one where there is no prediction, but for
            those that would cover a name before them.
        title: text at the upper left.
        min_size: the longer side of the picture is at least this many pixels.
    """
    picture, factor = grey_picture(plane, min_size)
    canvas = ImageDraw.Draw(picture)
    font = picture_font(round(max(picture.size) / 85))
    radius = max(picture.size) / 250

    def place(points: torch.Tensor | np.ndarray | None) -> np.ndarray | None:
        if points is None:
            return None
        return (np.asarray(torch.as_tensor(points).cpu(), dtype=np.float64) + 0.5) * factor - 0.5

    prediction, truth = place(prediction), place(truth)
    count = len(prediction if prediction is not None else truth if truth is not None else ())
    missing = np.full((count, 2), np.nan)
    prediction = missing if prediction is None else prediction
    truth = missing if truth is None else truth
    written: list[tuple[float, float, float, float]] = []
    for i, (p, t) in enumerate(zip(prediction, truth)):
        has_p, has_t = np.isfinite(p).all(), np.isfinite(t).all()
        if has_p and has_t:
            canvas.line([*p, *t], fill=ERROR, width=max(1, round(radius / 2)))
        if has_t:
            canvas.line([t[0] - 2 * radius, t[1], t[0] + 2 * radius, t[1]], fill=TRUTH, width=2)
            canvas.line([t[0], t[1] - 2 * radius, t[0], t[1] + 2 * radius], fill=TRUTH, width=2)
        if has_p:
            canvas.ellipse([p[0] - radius, p[1] - radius, p[0] + radius, p[1] + radius], outline=PREDICTION, width=2)
        if names is not None and (has_p or has_t):
            x, y = p if has_p else t
            place_of_text = (x + 1.6 * radius, y + 0.6 * radius)
            box = canvas.textbbox(place_of_text, names[i], font=font)
            if all(box[0] > b[2] or box[2] < b[0] or box[1] > b[3] or box[3] < b[1] for b in written):
                written.append(box)
                canvas.text(place_of_text, names[i], fill=TEXT, font=font, stroke_width=1, stroke_fill=(0, 0, 0))
    if title:
        canvas.text((8, 6), title, fill=TEXT, font=font, stroke_width=2, stroke_fill=(0, 0, 0))
    return picture
