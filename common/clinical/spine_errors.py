"""Errors of spine landmarks: as fractions of the image (FARNet's Table 3), and the 35 mm that scale them.

The films have no pixel spacing. "The physical distance between the L4 and L5 vertebra" is taken as 35 mm (reddy,
section IV), here between the centroids of their corners: `L4_L5_CENTROIDS` are the reference points that
`common.transforms.MillimetreScaled` takes. So read, the centroids from T1 to L5 lie along 441 mm in the median of
AASCE's 481 training films, as in adults; were it the gap between the end plates, along 1.4 m.
"""

import numpy as np
import torch

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
