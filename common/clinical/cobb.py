"""Cobb angles of the spine from the corners of its vertebrae, as the AASCE challenge defines them."""

import torch

from ..errors import InputError
from .geometry import clinical_points, cross, unsigned_angle

VERTEBRAE = 17  # T1 to L5
COBB_ANGLES = ("first", "second", "third")


def end_plate_middles(corners: torch.Tensor) -> torch.Tensor:
    """Middles of the end plates from top to bottom, two per vertebra: corners (..., 68, 2) -> (..., 34, 2).

    Corners of a vertebra come as top left, top right, bottom left, bottom right.
    """
    return (corners[..., 0::2, :] + corners[..., 1::2, :]) / 2


def vertebra_directions(corners: torch.Tensor) -> torch.Tensor:
    """From the middle of the left corners to that of the right: corners (..., 68, 2) -> (..., 17, 2)."""
    left = corners[..., 0::4, :] + corners[..., 2::4, :]
    right = corners[..., 1::4, :] + corners[..., 3::4, :]
    return (right - left) / 2


def is_s_shaped(corners: torch.Tensor) -> torch.Tensor:
    """Whether end plates lie on both sides of the line from the first to the last: (..., 68, 2) -> bool (...).

    The same as a change of sign in AASCE's l_i = (y_i - y_33) / (y_0 - y_33) - (x_i - x_33) / (x_0 - x_33), of which
    this is the common numerator: it needs no guard where the line is vertical.
    """
    arms = end_plate_middles(corners)
    arms = arms - arms[..., -1:, :]
    side = cross(arms[..., :-2, :], arms[..., :1, :])
    return (side > 0).any(-1) & (side < 0).any(-1)


def cobb_angles(corners: torch.Tensor, image_height: torch.Tensor | float, plate: str = "lower") -> torch.Tensor:
    """The three Cobb angles of AASCE's labels, in degrees: (B, 3), those of `cobb_curves`."""
    return cobb_curves(corners, image_height, plate)[0]


def cobb_curves(
    corners: torch.Tensor, image_height: torch.Tensor | float, plate: str = "lower"
) -> tuple[torch.Tensor, torch.Tensor]:
    """The three Cobb angles of AASCE's labels, and the vertebrae between which they are measured.

    The first is the largest angle between two vertebrae p (above) and q (below). In a spine that is not S-shaped the
    others are those of p with the uppermost and of q with the lowest vertebra. In an S-shaped one the second is the
    largest of p with one above it, k. The third is the largest of q with one below it if the curve p to q lies in the
    upper half of the image, else the largest of k with one above it.

    The half is judged by an end plate of p and one of q. The lower ones give the published angles of all 481
    training films to 0.1 degree; the upper ones, which descriptions of the definition name, fail on 12 of them.

    Args:
        corners: (B, 68, 2), in one unit for both axes (x right, y down); vertebrae from the top, each as top left, top
            right, bottom left, bottom right.
        image_height: height of the image in that unit, one or (B,).
        plate: "lower" or "upper", the end plate of p and q that says in which half the curve lies.

    Returns:
        angles in degrees (B, 3), float64, NaN for a spine of which a corner has no position; and for each angle the
        numbers of its upper and lower vertebra, 0 for T1 to 16 for L5, int64 (B, 3, 2).

    Raises:
        InputError: if there are not 68 corners.
    """
    corners = clinical_points(corners)
    if corners.ndim != 3 or corners.shape[1:] != (4 * VERTEBRAE, 2):
        raise InputError(
            f"Cobb angles need corners of shape (B, {4 * VERTEBRAE}, 2), got {tuple(corners.shape)}; "
            "give four corners for each of 17 vertebrae."
        )
    if plate not in ("lower", "upper"):
        raise ValueError(f"plate must be 'lower' or 'upper', got {plate!r}")
    row = torch.arange(len(corners))
    vertebra = torch.arange(VERTEBRAE)
    directions = vertebra_directions(corners)
    angles = unsigned_angle(directions[:, :, None], directions[:, None])  # (B, 17, 17)
    known = angles.isfinite().flatten(1).all(1)
    angles = angles.nan_to_num()

    pairs = angles.triu().flatten(1)  # symmetric: the upper triangle makes p the upper of the two
    largest, place = pairs.max(1)
    p, q = place // VERTEBRAE, place % VERTEBRAE

    def largest_of(end: torch.Tensor, candidates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return angles[row, end].where(candidates, -1.0).max(1)

    above_p, k = largest_of(p, vertebra <= p[:, None])
    below_q, m = largest_of(q, vertebra >= q[:, None])
    above_k, n = largest_of(k, vertebra <= k[:, None])

    height = torch.as_tensor(image_height, dtype=torch.float64)
    y = end_plate_middles(corners)[..., int(plate == "lower") :: 2, 1]
    in_upper_half = y[row, p] + y[row, q] < height
    s_shaped = is_s_shaped(corners)
    second = above_p.where(s_shaped, angles[row, 0, p])
    third = below_q.where(in_upper_half, above_k).where(s_shaped, angles[row, q, -1])

    first_and_last = torch.zeros_like(p), torch.full_like(q, VERTEBRAE - 1)
    upper = torch.stack([p, k.where(s_shaped, first_and_last[0]), q.where(in_upper_half, n).where(s_shaped, q)], 1)
    lower = torch.stack([q, p, m.where(in_upper_half, k).where(s_shaped, first_and_last[1])], 1)
    found = torch.stack([largest, second, third], 1).where(known[:, None], torch.nan)
    return found, torch.stack([upper, lower], 2)


def cobb_smape_per_film(pred: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Symmetric absolute percentage error of each film: angles (B, 3) and (B, 3) -> (B,) in percent.

    The sum of absolute differences over the sum of both, three angles each; NaN where an angle is NaN, 0 where all
    angles are 0.
    """
    pred, truth = (torch.as_tensor(angles, dtype=torch.float64) for angles in (pred, truth))
    difference = (pred - truth).abs().sum(-1)
    return 100 * difference / (pred + truth).sum(-1).clamp_min(torch.finfo(torch.float64).tiny)


def cobb_smape(pred: torch.Tensor, truth: torch.Tensor) -> float:
    """Symmetric mean absolute percentage error (SMAPE) of AASCE, in percent: angles (B, 3) in degrees.

    The mean over films of `cobb_smape_per_film`; films with a NaN are left out.
    """
    return float(cobb_smape_per_film(pred, truth).nanmean())
