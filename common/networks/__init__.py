"""Networks: image in, one tensor out at inference."""

from .appearance_context_net import AppearanceContextNet, GlobalContext
from .cbam import CBAM, ChannelAttention, SpatialAttention
from .cubic_upsampling import CubicUpsampling, cubic_kernel
from .farnet import FARNet
from .heatmap_unet import ConcatenationUNet, HeatmapUNet
from .imagenet_weights import load_imagenet_weights
from .patch_regression_net import GlobalPatchNet, LocalPatchNets, PatchRegressionNet
from .spatial_configuration_net import (
    LocalAppearance,
    LocalizationUNet,
    SpatialConfiguration,
    SpatialConfigurationNet,
)
from .tapped_encoder import TappedEncoder
from .unit_peak import UnitPeak
