"""The eight cephalometric measurements of the ISBI 2015 challenge and the anatomical types they tell.

Landmarks are the 19 of the challenge in its order: sella, nasion, orbitale, porion, subspinale (A), supramentale (B),
pogonion, menton, gnathion, gonion, lower and upper incisal incision, upper and lower lip, subnasale, soft tissue
pogonion, posterior and anterior nasal spine, articulare.
"""

from dataclasses import dataclass

import torch

from ..errors import InputError
from .geometry import clinical_points, cross, sign, unsigned_angle

CEPHALOMETRIC_LANDMARK_COUNT = 19
UNKNOWN = -1


@dataclass(frozen=True)
class Measurement:
    """A measurement and its anatomical types, from low to high values.

    A type begins at each border of `begins` (the border belongs to it) and beyond each of `beyond` (the border belongs
    to the type before), so that a normal range has both its ends.
    """

    name: str
    unit: str
    begins: tuple[float, ...]
    beyond: tuple[float, ...]
    types: tuple[str, ...]

    def classify(self, values: torch.Tensor) -> torch.Tensor:
        """Values (...) -> index into `types`, int64 (...), `UNKNOWN` for NaN."""
        index = sum((values >= border).long() for border in self.begins)
        index = index + sum((values > border).long() for border in self.beyond)
        return index.where(values.isfinite(), UNKNOWN)

    def type_name(self, index: int) -> str:
        """Name of a type, empty for `UNKNOWN`."""
        return "" if index == UNKNOWN else self.types[index]


MEASUREMENTS = (
    Measurement("ANB", "degree", (3.2,), (5.7,), ("class 3", "class 1 (normal)", "class 2")),
    Measurement("SNB", "degree", (74.6,), (78.7,), ("retrognathic mandible", "normal mandible", "prognathic mandible")),
    Measurement("SNA", "degree", (79.4,), (83.2,), ("retrognathic maxilla", "normal maxilla", "prognathic maxilla")),
    Measurement("ODI", "degree", (68.4,), (80.5,), ("open bite tendency", "normal", "deep bite tendency")),
    Measurement("APDI", "degree", (77.6,), (85.2,), ("class 2 tendency", "normal", "class 3 tendency")),
    Measurement("FHI", "ratio", (0.65,), (0.75,), ("long face tendency", "normal", "short face tendency")),
    Measurement("FMA", "degree", (26.8,), (31.4,), ("low angle tendency", "normal", "high angle tendency")),
    Measurement("MW", "mm", (0.0, 2.0), (4.5,), ("anterior crossbite", "edge to edge", "normal", "large overjet")),
)
# Public code disagrees about an overjet of 0 to 2 mm: edge to edge above, here normal.
MW_WIDE_NORMAL = Measurement(
    "MW (0 to 2 mm normal)", "mm", (0.0,), (4.5,), ("anterior crossbite", "normal", "large overjet")
)


def cephalometric_measurements(points: torch.Tensor, mm: torch.Tensor | float) -> torch.Tensor:
    """The eight measurements of films, in the order of `MEASUREMENTS`; a mirrored film gives the same.

    Args:
        points: (B, 19, 2), in one unit for both axes (x right, y down); not annotated, absent or missed ones not
            finite.
        mm: millimetres per unit, one or (B,); NaN where unknown. Only MW needs it.

    Returns:
        (B, 8), float64: ANB, SNB, SNA, ODI, APDI, FMA in degrees, FHI a ratio, MW in mm; NaN where a landmark that
        the measurement needs has no position.

    Raises:
        InputError: if there are not 19 points in the plane.
    """
    points = clinical_points(points)
    if points.ndim != 3 or points.shape[1:] != (CEPHALOMETRIC_LANDMARK_COUNT, 2):
        raise InputError(
            f"cephalometric measurements need points of shape (B, {CEPHALOMETRIC_LANDMARK_COUNT}, 2), got "
            f"{tuple(points.shape)}; give the 19 landmarks of the ISBI 2015 challenge in its order."
        )

    def vector(start: int, end: int) -> torch.Tensor:
        return points[:, end - 1] - points[:, start - 1]  # landmarks counted from 1, as the literature does

    def turn(u: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return sign(facing * cross(u, w))

    facing = sign(vector(1, 2)[:, 0])  # 1 where the face looks to the right, -1 to the left
    sna = unsigned_angle(vector(2, 1), vector(2, 5))
    snb = unsigned_angle(vector(2, 1), vector(2, 6))
    palatal_plane = turn(vector(4, 3), vector(17, 18)) * unsigned_angle(vector(4, 3), vector(17, 18))
    odi = unsigned_angle(vector(8, 10), vector(6, 5)) + palatal_plane
    facial_plane, ab_plane = vector(2, 7), vector(5, 6)
    apdi = unsigned_angle(vector(3, 4), facial_plane) + palatal_plane
    apdi = apdi - turn(facial_plane, ab_plane) * unsigned_angle(facial_plane, ab_plane)
    fhi = vector(1, 10).norm(dim=-1) / vector(2, 8).norm(dim=-1)
    fma = unsigned_angle(vector(1, 2), vector(10, 9))
    overjet = vector(11, 12)
    mw = sign(facing * overjet[:, 0]) * overjet.norm(dim=-1) * torch.as_tensor(mm, dtype=torch.float64)
    return torch.stack([sna - snb, snb, sna, odi, apdi, fhi, fma, mw], 1)


def anatomical_types(values: torch.Tensor) -> torch.Tensor:
    """Types of measurements (B, 8): indices into each one's `types`, int64 (B, 8), `UNKNOWN` for NaN."""
    return torch.stack([m.classify(values[:, i]) for i, m in enumerate(MEASUREMENTS)], 1)


def type_agreement(values: torch.Tensor, reference: torch.Tensor) -> dict[str, float]:
    """Percentage of films (B, 8) whose anatomical type is that of the reference (B, 8), per measurement.

    A film without a type in the reference does not count; one without a type in `values` alone counts as wrong.

    Returns:
        the eight by name, their `mean`, and MW again where 0 to 2 mm counts as normal (not in the mean); NaN where
        no film counts.
    """

    def rate(measurement: Measurement, column: int) -> float:
        ours, theirs = measurement.classify(values[:, column]), measurement.classify(reference[:, column])
        known = theirs != UNKNOWN
        return 100 * float((ours == theirs)[known].double().mean())

    rates = {m.name: rate(m, i) for i, m in enumerate(MEASUREMENTS)}
    mean = float(torch.tensor(list(rates.values()), dtype=torch.float64).nanmean())
    return {**rates, "mean": mean, MW_WIDE_NORMAL.name: rate(MW_WIDE_NORMAL, len(MEASUREMENTS) - 1)}


def success_classification_rate(
    pred_points: torch.Tensor, true_points: torch.Tensor, mm: torch.Tensor | float
) -> dict[str, float]:
    """Success classification rate (SCR): percentage of films typed from predicted points as from the true ones.

    Points and mm as in `cephalometric_measurements`, result as of `type_agreement`.
    """
    return type_agreement(cephalometric_measurements(pred_points, mm), cephalometric_measurements(true_points, mm))
