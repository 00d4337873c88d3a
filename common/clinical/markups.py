"""Clinical measurements as lines and angles to be drawn on the film, as 3D Slicer's markups show them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ..data.cephalometric import CEPHALOMETRIC_LANDMARKS
from ..data.spine import SPINE_LANDMARKS
from .cephalometry import MEASUREMENTS, anatomical_types, cephalometric_measurements
from .cobb import COBB_ANGLES, cobb_curves, vertebra_directions
from .geometry import clinical_points

logger = logging.getLogger(__name__)

# Nodes of the cephalometric measurements (common.clinical.cephalometry), and which value stands with each.
CEPHALOMETRIC_ANGLES = {
    "SNA": ("sella", "nasion", "subspinale"),
    "SNB": ("sella", "nasion", "supramentale"),
    "ANB": ("subspinale", "nasion", "supramentale"),
}
CEPHALOMETRIC_LINES = {
    "sella-nasion line": ("sella", "nasion", None),
    "Frankfort horizontal": ("porion", "orbitale", None),
    "palatal plane": ("posterior_nasal_spine", "anterior_nasal_spine", None),
    "mandibular plane": ("menton", "gonion", None),
    "facial plane": ("nasion", "pogonion", "APDI"),
    "A-B plane": ("subspinale", "supramentale", "ODI"),
    "posterior face height": ("sella", "gonion", "FHI"),
    "anterior face height": ("nasion", "menton", None),
    "incisal distance": ("lower_incisal_incision", "upper_incisal_incision", "MW"),
}
# The challenge's, which the Frankfort horizontal has no part in, whatever its name.
FMA = "FMA (sella-nasion to gonion-gnathion)"
UNITS = {"degree": "deg", "ratio": "", "mm": "mm"}


@dataclass(frozen=True, eq=False)
class ClinicalMarkup:
    """A line or an angle on a film.

    Attributes:
        kind: "Line" or "Angle".
        name: what it measures.
        points: (2, 2) or (3, 2), upright pixels; the second of three is the vertex.
        labels: names of the points.
        values: name, number, unit and meaning of clinical values that belong to it.
    """

    kind: str
    name: str
    points: torch.Tensor
    labels: tuple[str, ...]
    values: tuple[tuple[str, float, str, str], ...] = ()


class ClinicalMarkups(Protocol):
    """What `common.handlers.SaveLandmarks` asks for lines and angles."""

    def __call__(
        self,
        points: torch.Tensor,
        landmarks: Sequence[str],
        size: Sequence[int],
        pixel_size: torch.Tensor,
        mm: float,
    ) -> list[ClinicalMarkup]:
        """Lines and angles of one film, without those of which a landmark has no position.

        Args:
            points: (N, 2), pixels of the upright film (x right, y down).
            landmarks: N names.
            size: width and height in such pixels.
            pixel_size: (2,), width and height of a pixel in units of the world.
            mm: millimetres per unit of the world, NaN where unknown.
        """


class CobbAngleMarkups:
    """The three Cobb angles of a spine radiograph (`cobb_curves`), and a line through each of their end vertebrae.

    The vertex of an angle is the middle of the lower end vertebra. One arm runs along that vertebra, the other one in
    the direction of the upper end vertebra, so that 3D Slicer measures the Cobb angle. Landmarks other than the 68
    corners give nothing.
    """

    def __call__(
        self,
        points: torch.Tensor,
        landmarks: Sequence[str],
        size: Sequence[int],
        pixel_size: torch.Tensor,
        mm: float,
    ) -> list[ClinicalMarkup]:
        if not named(landmarks, SPINE_LANDMARKS):
            return []
        corners = clinical_points(points) * pixel_size
        if not corners.isfinite().all():
            return []
        found, ends = cobb_curves(corners[None], float(size[1] * pixel_size[1]))
        directions = vertebra_directions(corners)
        middles = corners.reshape(-1, 4, 2).mean(1)
        names = [SPINE_LANDMARKS[4 * vertebra].split("_")[0] for vertebra in range(len(middles))]
        if not (directions != 0).any(-1).all():
            return []
        lines = [
            ClinicalMarkup(
                "Line",
                f"end vertebra {names[v]}",
                torch.stack([middles[v] - directions[v], middles[v] + directions[v]]) / pixel_size,
                (f"{names[v]} left", f"{names[v]} right"),
            )
            for v in sorted(set(ends.flatten().tolist()))
        ]
        arm = 2 * directions.norm(dim=-1).mean()
        along = arm * directions / directions.norm(dim=-1, keepdim=True)
        angles = []
        for name, value, (upper, lower) in zip(COBB_ANGLES, found[0].tolist(), ends[0].tolist()):
            vertex = middles[lower]
            angles.append(
                ClinicalMarkup(
                    "Angle",
                    f"{name} Cobb angle, {names[upper]} to {names[lower]}",
                    torch.stack([vertex + along[upper], vertex, vertex + along[lower]]) / pixel_size,
                    (f"direction of {names[upper]}", f"middle of {names[lower]}", f"direction of {names[lower]}"),
                    ((f"{name} Cobb angle", value, "deg", f"{names[upper]} to {names[lower]}"),),
                )
            )
        return angles + lines


class CephalometricMarkups:
    """The lines and angles of a cephalogram behind the eight measurements (`cephalometric_measurements`).

    SNA, SNB, ANB and FMA are angles; 3D Slicer measures them without a sign, and the value in the file has it. Sums of
    angles (ODI, APDI), the ratio FHI and the incisal distance MW stand with a line of theirs. Landmarks other than the
    19 of the challenge give nothing.
    """

    def __call__(
        self,
        points: torch.Tensor,
        landmarks: Sequence[str],
        size: Sequence[int],
        pixel_size: torch.Tensor,
        mm: float,
    ) -> list[ClinicalMarkup]:
        if not named(landmarks, CEPHALOMETRIC_LANDMARKS):
            return []
        pixels = clinical_points(points)
        place = dict(zip(CEPHALOMETRIC_LANDMARKS, pixels * pixel_size))
        values = cephalometric_measurements(pixels[None] * pixel_size, mm)
        types = anatomical_types(values)[0].tolist()
        told = {
            m.name: ((m.name, value, UNITS[m.unit], m.type_name(kind)),)
            for m, value, kind in zip(MEASUREMENTS, values[0].tolist(), types)
            if kind >= 0
        }

        def markup(kind: str, name: str, ends: Sequence[torch.Tensor], labels: Sequence[str], value: str | None = None):
            return ClinicalMarkup(kind, name, torch.stack(list(ends)) / pixel_size, tuple(labels), told.get(value, ()))

        angles = [
            markup("Angle", name, [place[label] for label in labels], labels, name)
            for name, labels in CEPHALOMETRIC_ANGLES.items()
        ]
        # Of the sella-nasion line with that from gonion to gnathion, which need not meet on the film.
        gonion = place["gonion"]
        arms = [gonion + place["nasion"] - place["sella"], gonion, place["gnathion"]]
        angles.append(markup("Angle", FMA, arms, ("direction of sella-nasion", "gonion", "gnathion"), "FMA"))
        lines = [
            markup("Line", name, [place[start], place[end]], (start, end), value)
            for name, (start, end, value) in CEPHALOMETRIC_LINES.items()
        ]
        return [each for each in angles + lines if each.points.isfinite().all()]


def named(landmarks: Sequence[str], expected: Sequence[str]) -> bool:
    """Whether landmarks are those that a measurement is made of, in their order; logs where they are not."""
    if list(landmarks) == list(expected):
        return True
    logger.info("no clinical lines and angles: they need the landmarks %s ...", ", ".join(expected[:3]))
    return False
