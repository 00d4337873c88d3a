"""Losses between what a network gives and landmarks in voxels of its output."""

from .exponential_weighted_center import HeatmapRegressionLoss, adaptive_wing, exponential_weighted_center
from .heatmap_loss import HeatmapLoss
from .patch_regression_loss import PatchRegressionLoss
from .spatial_configuration_loss import SpatialConfigurationLoss, embed_heatmaps, spatial_feature_maps
