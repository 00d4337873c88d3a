"""The scale of a heatmap network's output, kept with its weights."""

import torch
from torch import nn


class UnitPeak(nn.Module):
    """Scale heatmaps at inference so that a landmark's full peak is 1.

    A network learns targets of some peak height (100 / (2 pi sigma^2) with the learned sigma in payer2019).
    That height is a buffer of the model, `expected_peak` of shape (N,), kept up to date during training by
    `common.handlers.ExpectedPeak`. In training mode heatmaps pass unchanged, as the loss wants them; otherwise
    they are divided by it, so that a decoder reads a confidence off the peak, in PyTorch, TorchScript and ONNX.

    Args:
        num_landmarks: number of heatmap channels N.
        spatial_dims: 2 or 3.
    """

    def __init__(self, num_landmarks: int, spatial_dims: int) -> None:
        super().__init__()
        self.register_buffer("expected_peak", torch.ones(num_landmarks))
        self.shape = [1, num_landmarks] + [1] * spatial_dims

    def forward(self, heatmaps: torch.Tensor) -> torch.Tensor:
        """(B, N, *spatial) -> (B, N, *spatial)."""
        if self.training:
            return heatmaps
        return heatmaps / self.expected_peak.reshape(self.shape)
