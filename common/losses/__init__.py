"""Losses between what a network gives and landmarks in voxels of its output."""

from .heatmap_loss import HeatmapLoss
