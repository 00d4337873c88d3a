"""The baseline that every model must beat: predicting the mean shape of the training set, whatever the image shows."""

import torch

from ..metrics import radial_errors
from .geometry import clinical_points


def mean_shape_error(training_points: torch.Tensor, test_points: torch.Tensor) -> torch.Tensor:
    """Radial errors (B, N) of predicting, for every test film, the mean of the training points.

    Args:
        training_points: (M, N, D), in one frame and unit: mm of images of one size, or fractions of the image.
            Landmarks without a position are left out of their mean.
        test_points: (B, N, D), in the same frame and unit.

    Returns:
        float64, in the unit of the points; NaN where a landmark has no position.
    """
    mean = clinical_points(training_points).nanmean(0)
    return radial_errors(mean, clinical_points(test_points))
