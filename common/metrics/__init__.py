"""Metrics of landmark localisation, as the papers define them."""

from .agreement import Agreement, show_agreement
from .comparison import compare_errors
from .radial_error import (
    RadialError,
    bootstrap_interval,
    bootstrap_over_images,
    error_intervals,
    error_statistics,
    is_lower,
    radial_errors,
)
