"""Clinical measurements from landmarks: cephalometry, Cobb angles, and what evaluations report of them."""

from .cephalometric_measure import CephalometricMeasure
from .cephalometry import (
    MEASUREMENTS,
    UNKNOWN,
    Measurement,
    anatomical_types,
    cephalometric_measurements,
    success_classification_rate,
    type_agreement,
)
from .cobb import COBB_ANGLES, cobb_angles, cobb_curves, cobb_smape, cobb_smape_per_film, is_s_shaped
from .markups import CephalometricMarkups, ClinicalMarkup, ClinicalMarkups, CobbAngleMarkups
from .mean_shape import MeanShape, mean_shape_error
from .spine_errors import (
    L4_L5_CENTROIDS,
    L4_L5_MM,
    counting_errors,
    image_fractions,
    mean_squared_fraction,
    pooled_correlation,
    vertebra_levels,
)
from .spine_measure import SpineMeasure
