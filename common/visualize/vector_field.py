"""Pictures of what a patch network says of one landmark: displacement vectors and presence (Fig. 5 of noothout2020)."""

import math

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image, ImageDraw

from ..transforms.coordinates import voxel_to_world, world_to_voxel
from .overlay import TEXT, grey_range, grey_values
from .panels import Panel, Piece, beside, stacked, text_strip
from .slices import FILM, PLANES, Plane, radiological, voxel_size

VECTOR = (255, 150, 40)
PRESENCE = (60, 220, 90)
REFERENCE = (80, 160, 255)
COMPUTED = (255, 105, 200)
ROOM = (280, 110)  # width and height in pixels that the words on a panel need
MAX_ARROWS = 60  # along an axis
SMOOTH = 4  # arrows are drawn so many times finer than the picture
REACH = 0.9  # length of the longest arrows as a share of the way to the next one


def draw_vector_field(
    image: MetaTensor,
    displacement: torch.Tensor | np.ndarray,
    presence: torch.Tensor | np.ndarray,
    spacing: int,
    name: str,
    prediction: torch.Tensor | np.ndarray | None = None,
    truth: torch.Tensor | np.ndarray | None = None,
    title: str = "",
    threshold: float = 0.5,
    panel_size: int | None = None,
) -> Image.Image:
    """Draw the displacement vectors of one landmark, and the patches that are believed to hold it, on the image.

    Orange arrows from the patch centres, projected into the plane, green squares where the presence is over the
    threshold, a blue cross at the reference and a pink one at the computed landmark. A volume is shown on the axial,
    coronal and sagittal slice through the computed landmark (else the reference, else the patch of highest presence),
    turned as radiologists see them, with the layer of patches that lies nearest. The lengths of arrows are rescaled:
    they grow with the square root of the vector's length in the plane, and the longest almost reach the next arrow.

    Args:
        image: shape (1, X, Y) or (1, X, Y, Z), with its affine.
        displacement: vectors from the patch centres to the landmark in voxels of `image`, shape (D, *grid). The centre
            of patch p lies at voxel `spacing * p + (spacing - 1) / 2` along each axis; patches may reach over the end.
        presence: probabilities, shape (*grid).
        spacing: voxels from patch to patch, which is also the size of a patch.
        name: the landmark.
        prediction: computed landmark in world coordinates (RAS), (D,); not drawn where it is not finite.
        truth: reference, likewise.
        title: text behind the landmark's name, such as the file and the error.
        threshold: presence over which a patch is marked.
        panel_size: pixels of the longer side of a film, or of the longest side of a volume's three panels; 1024 or 640
            where not given.

    Raises:
        ValueError: if the shapes of `displacement` and `presence` do not fit the image or each other.
    """
    dims = image.ndim - 1
    vectors, presence = grey_values(displacement), grey_values(presence)
    if presence.ndim != dims or vectors.shape != (dims, *presence.shape):
        raise ValueError(
            f"a {dims}D image needs vectors ({dims}, *grid) and presence (*grid), "
            f"got {vectors.shape} and {presence.shape}."
        )
    shown, planes = (radiological(image), PLANES) if dims == 3 else (image, (FILM,))
    voxel = voxel_size(shown) if dims == 3 else np.ones(2)
    grid = np.indices(presence.shape).reshape(dims, -1).T
    centres = spacing * grid + (spacing - 1) / 2
    tips = _turned(centres + vectors.reshape(dims, -1).T, image, shown)
    centres, presence = _turned(centres, image, shown), presence.ravel()
    computed, reference = (_voxel(point, shown) for point in (prediction, truth))
    focus = next((p for p in (computed, reference) if p is not None), centres[np.nan_to_num(presence).argmax()])

    start = np.minimum(0, np.rint(centres.min(0) - (spacing - 1) / 2)).astype(int)
    stop = np.maximum(shown.shape[1:], np.rint(centres.max(0) + (spacing + 1) / 2)).astype(int)
    panel_size = panel_size or (640 if dims == 3 else 1024)
    factor = panel_size / ((stop - start) * voxel).max() * voxel
    every = math.ceil(max(*grid.max(0) + 1) / MAX_ARROWS)

    slices = [grey_values(plane.slice(shown[0], focus)) for plane in planes]
    limits = grey_range(np.concatenate([grey.ravel() for grey in slices]))
    panels = []
    for plane, grey in zip(planes, slices):
        least = np.rint((stop - start) * factor).astype(int)[plane.axes]
        size = None if dims == 2 else tuple(np.maximum(least, ROOM).tolist())
        panel = Panel(plane, grey, plane.index(shown[0], focus), start, stop, factor, limits, size)
        layer = _nearest_layer(centres, focus, plane)
        _draw_presence(panel, centres[layer & (presence > threshold)], spacing)
        _draw_arrows(panel, centres[layer], tips[layer], spacing, every)
        if reference is not None:
            panel.cross(reference, REFERENCE, 10, edge=True)
        if computed is not None:
            panel.cross(computed, COMPUTED, 10, diagonal=True, edge=True)
        if dims == 3:
            panel.label(factor[0] / voxel[0], "mm")
            if reference is not None:
                panel.off_plane("reference", reference, voxel, "mm", REFERENCE)
        panels.append(panel.picture)
    picture = beside(panels)
    legend = _legend(threshold, every, computed is not None, reference is not None)
    return stacked([text_strip([[(f"{name}  {title}", TEXT)], legend], picture.width), picture])


def _turned(points: np.ndarray, image: MetaTensor, shown: MetaTensor) -> np.ndarray:
    """Voxels of the image as voxels of the image that is shown, (P, D)."""
    return world_to_voxel(voxel_to_world(torch.as_tensor(points), image.affine), shown.affine).numpy()


def _voxel(point: torch.Tensor | np.ndarray | None, shown: MetaTensor) -> np.ndarray | None:
    """A world point as a voxel, (D,); None where it has no position."""
    if point is None:
        return None
    voxel = world_to_voxel(torch.as_tensor(point).detach().cpu().reshape(1, -1), shown.affine)[0].numpy()
    return voxel if np.isfinite(voxel).all() else None


def _nearest_layer(centres: np.ndarray, focus: np.ndarray, plane: Plane) -> np.ndarray:
    """Which patches lie in the layer nearest to a point, (P,); all of a film."""
    if plane.through is None:
        return np.ones(len(centres), dtype=bool)
    along = centres[:, plane.through]
    nearest = along[np.abs(along - focus[plane.through]).argmin()]
    return np.abs(along - nearest) < 0.5  # layers lie whole voxels apart


def _draw_presence(panel: Panel, centres: np.ndarray, spacing: int) -> None:
    """A green square over each patch."""
    for low, high in zip(panel.place(centres - spacing / 2), panel.place(centres + spacing / 2)):
        panel.canvas.rectangle([*np.rint(low + 0.5), *np.rint(high - 0.5)], fill=(*PRESENCE, 60), outline=PRESENCE)


def _draw_arrows(panel: Panel, centres: np.ndarray, tips: np.ndarray, spacing: int, every: int) -> None:
    """An arrow at every so many patches of a layer, with lengths that leave the next one free."""
    steps = np.rint((centres - centres.min(0)) / spacing).astype(int)[:, panel.plane.axes]
    first = np.minimum(every, steps.max(0) + 1) // 2
    kept = (steps % every == first).all(1) & np.isfinite(tips).all(1)
    starts, ends = panel.place(centres[kept]), panel.place(tips[kept])
    lengths = np.linalg.norm(ends - starts, axis=1)
    longest = np.percentile(lengths, 95) if len(lengths) else 0
    if not longest:
        return
    drawn = REACH * spacing * every * panel.factor.min() * np.sqrt(np.minimum(1, lengths / longest))
    mask = Image.new("L", [SMOOTH * side for side in panel.picture.size])
    canvas = ImageDraw.Draw(mask)
    for start, end, length, pixels in zip(starts, ends, lengths, drawn):
        if length:
            _draw_arrow(canvas, start, start + (end - start) * pixels / length)
    panel.picture.paste(VECTOR, mask=mask.reduce(SMOOTH))


def _draw_arrow(canvas: ImageDraw.ImageDraw, start: np.ndarray, end: np.ndarray) -> None:
    """A line with a filled head, sized by its length, on a canvas that is `SMOOTH` times finer than start and end."""
    start, end = ((point + 0.5) * SMOOTH - 0.5 for point in (start, end))
    length = float(np.linalg.norm(end - start))
    along = (end - start) / length
    head = float(np.clip(0.4 * length, 4 * SMOOTH, 11 * SMOOTH))
    neck, aside = end - head * along, 0.4 * head * np.array([-along[1], along[0]])
    canvas.line([*start, *neck], fill=255, width=round(SMOOTH * np.clip(length / SMOOTH / 14, 1.2, 2.5)))
    canvas.polygon([*end, *(neck + aside), *(neck - aside)], fill=255)


def _legend(threshold: float, every: int, computed: bool, reference: bool) -> list[Piece]:
    """What the colours mean, and how arrows are left out and rescaled."""
    thinned = f", one for {every} x {every} patches" if every > 1 else ""
    pieces = [(f"displacement (lengths rescaled{thinned})", VECTOR), (f"  presence over {threshold:g}", PRESENCE)]
    pieces += [("  + reference", REFERENCE)] if reference else []
    return pieces + ([("  x computed", COMPUTED)] if computed else [])
