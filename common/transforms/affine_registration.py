"""Affine registration of flat images by ITK, from indices to indices, the same on every run.

All pixels are sampled and one thread adds them up, so that nothing depends on chance or on the machine's cores.
"""

from typing import Any

import itk
import numpy as np

SHRINK_FACTORS = (8, 4, 2)
SMOOTHING = (4.0, 2.0, 1.0)  # deviation in pixels of the template
ITERATIONS = 100  # on each level
BINS = 32
SEARCH = [SHRINK_FACTORS, SMOOTHING, ITERATIONS, BINS]


def affine_registration(
    fixed: np.ndarray, moving: np.ndarray, begin: np.ndarray, levels: int = len(SHRINK_FACTORS)
) -> np.ndarray:
    """Register two flat images by Mattes' mutual information.

    Args:
        fixed: float32 (W, H).
        moving: float32, likewise.
        begin: (3, 3), where the search begins.
        levels: how many of the resolutions, from the coarsest on.

    Returns:
        (3, 3), from indices of `fixed` to indices of `moving`.

    Raises:
        RuntimeError: ITK's, such as where the images do not overlap.
    """
    transform = itk_transform(begin, np.array(fixed.shape) / 2 - 0.5)
    fixed, moving = itk_image(fixed), itk_image(moving)
    metric = mattes_metric(fixed)
    scales = itk.RegistrationParameterScalesFromPhysicalShift[type(metric)].New()
    scales.SetMetric(metric)
    optimizer = itk.RegularStepGradientDescentOptimizerv4[itk.D].New(
        LearningRate=1.0, MinimumStepLength=0.01, RelaxationFactor=0.6, NumberOfIterations=ITERATIONS
    )
    optimizer.SetScalesEstimator(scales)
    optimizer.SetNumberOfWorkUnits(1)
    method = itk.ImageRegistrationMethodv4[type(fixed), type(moving)].New()
    method.SetFixedImage(fixed)
    method.SetMovingImage(moving)
    method.SetMetric(metric)
    method.SetOptimizer(optimizer)
    method.SetInitialTransform(transform)
    method.InPlaceOn()
    method.SetNumberOfLevels(levels)
    method.SetShrinkFactorsPerLevel(list(SHRINK_FACTORS[:levels]))
    method.SetSmoothingSigmasPerLevel(list(SMOOTHING[:levels]))
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetMetricSamplingStrategy(itk.ImageRegistrationMethodv4Enums.MetricSamplingStrategy_NONE)
    method.Update()
    return itk_matrix(transform)


def itk_image(array: np.ndarray) -> Any:
    """An array (W, H) as an ITK image whose physical points are the indices."""
    return itk.image_from_array(np.ascontiguousarray(array.T, dtype=np.float32))


def mattes_metric(fixed: Any) -> Any:
    """Mattes' mutual information (negative, in nats) with nothing that depends on threads."""
    metric = itk.MattesMutualInformationImageToImageMetricv4[type(fixed), type(fixed)].New()
    metric.SetNumberOfHistogramBins(BINS)
    metric.SetMaximumNumberOfWorkUnits(1)
    metric.SetUseMovingImageGradientFilter(False)
    metric.SetUseFixedImageGradientFilter(False)
    return metric


def mutual_information(fixed: np.ndarray, moving: np.ndarray, matrix: np.ndarray) -> float:
    """Mutual information in nats of two flat images (W, H) under a map (3, 3); 0 where they do not overlap."""
    fixed, moving = itk_image(fixed), itk_image(moving)
    metric = mattes_metric(fixed)
    metric.SetFixedImage(fixed)
    metric.SetMovingImage(moving)
    metric.SetMovingTransform(itk_transform(matrix, np.zeros(2)))
    try:
        metric.Initialize()
        return -metric.GetValue()
    except RuntimeError:
        return 0.0


def itk_transform(matrix: np.ndarray, centre: np.ndarray) -> Any:
    """An ITK affine transform that maps as a matrix (3, 3) does, with its parameters about a centre."""
    transform = itk.AffineTransform[itk.D, 2].New()
    transform.SetCenter(centre.tolist())
    transform.SetMatrix(itk.matrix_from_array(np.ascontiguousarray(matrix[:2, :2])))
    transform.SetTranslation((matrix[:2, 2] + matrix[:2, :2] @ centre - centre).tolist())
    return transform


def itk_matrix(transform: Any) -> np.ndarray:
    """The matrix (3, 3) of an ITK affine transform."""
    matrix = np.eye(3)
    matrix[:2, :2] = itk.array_from_matrix(transform.GetMatrix())
    matrix[:2, 2] = list(transform.GetOffset())
    return matrix
