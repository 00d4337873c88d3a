"""Networks: image in, one tensor out at inference."""

from .cubic_upsampling import CubicUpsampling, cubic_kernel
from .spatial_configuration_net import (
    LocalAppearance,
    LocalizationUNet,
    SpatialConfiguration,
    SpatialConfigurationNet,
)
from .unit_peak import UnitPeak
