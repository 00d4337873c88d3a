"""Panels: pictures of slices that know where their voxels lie, and the strips of text above them."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .overlay import TEXT, picture_font, stretched
from .slices import ENDS, Plane

BLACK = (0, 0, 0)
GAP = 6  # pixels between panels
Colour = tuple[int, int, int]
Piece = tuple[str, Colour]


class Panel:
    """A picture of a part of one slice, black where the slice ends, with the place of every voxel in it.

    Args:
        plane: which plane of the array the slice lies in.
        grey: the whole slice, (W, H) with x first.
        index: which slice it is.
        start: the first voxel that is shown, (D,); may lie before the array.
        stop: the first voxel that is not, (D,); may lie behind it.
        factor: pixels per voxel along each axis of the array, (D,).
        grey_range: grey values drawn black and white.
        size: width and height in pixels, with the part in the middle; as large as the part where not given.
    """

    def __init__(
        self,
        plane: Plane,
        grey: np.ndarray,
        index: int,
        start: np.ndarray,
        stop: np.ndarray,
        factor: np.ndarray,
        grey_range: tuple[float, float],
        size: tuple[int, int] | None = None,
    ) -> None:
        self.plane, self.index = plane, index
        self.start, self.factor = start[plane.axes], factor[plane.axes]
        part = self._pixels(stop[plane.axes])
        self.offset = (np.asarray(size or part) - part) // 2
        self.picture = Image.new("RGB", tuple(size or part.tolist()))
        first, last = (np.clip(corner[plane.axes], 0, grey.shape) for corner in (start, stop))
        shown = stretched(grey[first[0] : last[0], first[1] : last[1]], *grey_range)
        corner, size_shown = self._pixels(first), np.maximum(1, self._pixels(last) - self._pixels(first))
        shown = shown.resize(size_shown.tolist(), Image.Resampling.BICUBIC)
        self.picture.paste(shown.convert("RGB"), tuple((corner + self.offset).tolist()))
        self.canvas = ImageDraw.Draw(self.picture, "RGBA")
        self.font = picture_font(14)

    def _pixels(self, corner: np.ndarray) -> np.ndarray:
        """Whole pixels from the start of what is shown to the lower corner of a voxel, (2,)."""
        return np.rint((corner - self.start) * self.factor).astype(int)

    def place(self, points: np.ndarray) -> np.ndarray:
        """Voxels of the array (..., D) to pixels of the picture (..., 2); pixel centres lie at integers."""
        on_plane = np.asarray(points, dtype=np.float64)[..., self.plane.axes]
        return (on_plane - self.start + 0.5) * self.factor + self.offset - 0.5

    def cross(self, point: np.ndarray, colour: Colour, arm: float, diagonal: bool = False, edge: bool = False) -> None:
        """Draw a cross over a voxel, upright or diagonal, with a dark edge where asked for."""
        (x, y), d = self.place(point), arm * (0.75 if diagonal else 1)
        strokes = [(x - d, y - d, x + d, y + d), (x - d, y + d, x + d, y - d)]
        if not diagonal:
            strokes = [(x - d, y, x + d, y), (x, y - d, x, y + d)]
        for width, fill in ([(5, BLACK)] if edge else []) + [(3 if edge else 2, colour)]:
            for stroke in strokes:
                self.canvas.line(stroke, fill=fill, width=width)

    def ring(self, point: np.ndarray, colour: Colour, radius: float) -> None:
        """Draw a ring around a voxel."""
        x, y = self.place(point)
        self.canvas.ellipse([x - radius, y - radius, x + radius, y + radius], outline=colour, width=2)

    def write(self, place: tuple[float, float], text: str, anchor: str, colour: Colour = TEXT) -> None:
        """Write a word with a dark edge; anchors are PIL's."""
        self.canvas.text(place, text, fill=colour, font=self.font, anchor=anchor, stroke_width=2, stroke_fill=BLACK)

    def label(self, pixels_per_unit: float, unit: str) -> None:
        """Write the plane's name, the letters of its four sides and a scale bar: 10 mm, less where that is too long."""
        width, height = self.picture.size
        (left, right), (top, bottom) = (ENDS[axis] for axis in self.plane.axes)
        self.write((4, 3), self.plane.name, "la")
        self.write((4, height / 2), left, "lm")
        self.write((width - 5, height / 2), right, "rm")
        self.write((width / 2, 3), top, "ma")
        self.write((width / 2, height - 4), bottom, "md")
        length = next((n for n in (10, 5, 2, 1) if n * pixels_per_unit <= width / 3), 0)
        if length:
            y = height - 8
            bar = [5, y, 5 + length * pixels_per_unit - 1, y + 2]
            self.canvas.rectangle([bar[0] - 1, bar[1] - 1, bar[2] + 1, bar[3] + 1], fill=BLACK)
            self.canvas.rectangle(bar, fill=TEXT)
            self.write((5, y - 4), f"{length} {unit}", "ld")

    def off_plane(self, what: str, point: np.ndarray, spacing: np.ndarray, unit: str, colour: Colour) -> None:
        """Write in the corner how far from the slice a voxel lies, and to which side of the patient."""
        axis = self.plane.through
        distance = (point[axis] - self.index) * spacing[axis]
        side = f" {ENDS[axis][int(distance > 0)]}" if abs(distance) >= 0.05 else ""
        place = (self.picture.width - 5, self.picture.height - 4)
        self.write(place, f"{what} {abs(distance):.1f} {unit}{side}", "rd", colour)


def text_strip(lines: Sequence[Sequence[Piece]], width: int, font_size: int = 15) -> Image.Image:
    """A dark strip with lines of coloured pieces of text, broken where they would leave it."""
    font = picture_font(font_size)
    space, height = font.getlength(" "), font_size + 6
    words: list[tuple[float, int, str, Colour]] = []
    row = -1
    for line in lines:
        x, row = 0.0, row + 1
        for word, colour in ((w, colour) for text, colour in line for w in text.split(" ")):
            while word:
                part = word
                while len(part) > 1 and font.getlength(part) > width - 12:  # a word too long for a line of its own
                    part = part[:-1]
                if x and x + font.getlength(part) > width - 12:
                    x, row = 0.0, row + 1
                words.append((x, row, part, colour))
                x, word = x + font.getlength(part), word[len(part) :]
            x += space
    strip = Image.new("RGB", (width, (row + 1) * height + GAP))
    canvas = ImageDraw.Draw(strip)
    for x, at, word, colour in words:
        canvas.text((6 + x, GAP + at * height), word, fill=colour, font=font)
    return strip


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a row."""
    width = sum(p.width for p in pictures) + GAP * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(p.height for p in pictures)))
    x = 0
    for picture in pictures:
        row.paste(picture, (x, 0))
        x += picture.width + GAP
    return row


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a column."""
    column = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)))
    y = 0
    for picture in pictures:
        column.paste(picture, (0, y))
        y += picture.height
    return column
