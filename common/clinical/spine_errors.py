"""Errors of spine landmarks: as fractions of the image (FARNet's Table 3), of counting, and the 35 mm that scale them.

The films have no pixel spacing. "The physical distance between the L4 and L5 vertebra" is taken as 35 mm (reddy,
section IV), here between the centroids of their corners: `L4_L5_CENTROIDS` are the reference points that
`common.transforms.MillimetreScaled` takes. So read, the centroids from T1 to L5 lie along 441 mm in the median of
AASCE's 481 training films, as in adults; were it the gap between the end plates, along 1.4 m.
"""

import numpy as np
import torch

from .cobb import VERTEBRAE
from .geometry import clinical_points

# Corners of the last two of 17 vertebrae, counted from zero.
L4_L5_CENTROIDS = ((60, 61, 62, 63), (64, 65, 66, 67))
L4_L5_MM = 35.0


def image_fractions(points: torch.Tensor, image_size: torch.Tensor) -> torch.Tensor:
    """Points (..., N, 2) in file pixels as fractions of width and height; `image_size` (..., 2) in pixels, x first."""
    return clinical_points(points) / torch.as_tensor(np.asarray(image_size), dtype=torch.float64).unsqueeze(-2)


def mean_squared_fraction(pred: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean squared error over films, points and axes (ao2022, Table 3).

    Args:
        pred: (..., N, 2), fractions of the image (`image_fractions`).
        truth: likewise. Points without a position in either are left out.
    """
    return float((clinical_points(pred) - clinical_points(truth)).square().nanmean())


def pooled_correlation(pred: torch.Tensor, truth: torch.Tensor) -> float:
    """Pearson correlation of all coordinates of all films together (ao2022, Table 3), x and y pooled.

    Args:
        pred: (..., N, 2), fractions of the image, so that x and y have one scale.
        truth: likewise. Points without a position in either are left out.

    Returns:
        NaN where fewer than two coordinates are known or all are equal.
    """
    pred, truth = clinical_points(pred).flatten(), clinical_points(truth).flatten()
    known = pred.isfinite() & truth.isfinite()
    if known.sum() < 2:
        return float("nan")
    return float(torch.corrcoef(torch.stack([pred[known], truth[known]]))[0, 1])


def vertebra_levels(pred: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """At which true vertebra each predicted one lies: that with the nearest centroid of its corners.

    Args:
        pred: (B, 68, 2), four corners of each vertebra from the top.
        truth: likewise, in the same unit.

    Returns:
        int64 (B, 17), counted from 0 at the top; -1 for a predicted vertebra without a position, and on a film whose
        true vertebrae are not all known.
    """
    pred, truth = (clinical_points(p).unflatten(-2, (VERTEBRAE, 4)).mean(-2) for p in (pred, truth))
    distance = torch.cdist(pred, truth)
    return torch.where(distance.isnan().any(-1), -1, distance.nan_to_num().argmin(-1))


def counting_errors(pred: torch.Tensor, truth: torch.Tensor) -> dict[str, int]:
    """Vertebrae that a prediction skips or counts twice, the typical failure in a column of look-alikes.

    Args:
        pred: (B, 68, 2), four corners of each vertebra from the top.
        truth: likewise, in the same pixels.

    Returns:
        `films` with all 17 vertebrae in both; over all of them vertebrae `skipped` (no predicted vertebra lies there),
        `counted_twice` (two or more do), and `misnumbered` (predicted vertebrae that lie at another one than their
        own), `films_with_errors`, those with any of these, and of them `films_shifted`, those whose whole column is
        numbered higher or lower by the same number: each vertebra is found, under another's name. Annotators who
        count from another first vertebra make such films, too.
    """
    levels = vertebra_levels(pred, truth)
    levels = levels[(levels >= 0).all(-1)]
    visits = torch.nn.functional.one_hot(levels, VERTEBRAE).sum(-2)
    numbers = torch.arange(VERTEBRAE)
    misnumbered = levels != numbers
    shifts = torch.tensor([k for k in range(-(VERTEBRAE // 2), VERTEBRAE // 2 + 1) if k])
    columns = (numbers + shifts[:, None]).clamp(0, VERTEBRAE - 1)  # past its end the last vertebra is the nearest
    shifted = (levels[:, None] == columns).all(-1).any(-1)
    return {
        "films": len(levels),
        "films_with_errors": int(misnumbered.any(-1).sum()),
        "films_shifted": int(shifted.sum()),
        "skipped": int((visits == 0).sum()),
        "counted_twice": int((visits > 1).sum()),
        "misnumbered": int(misnumbered.sum()),
    }
