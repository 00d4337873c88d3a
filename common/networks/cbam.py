"""The convolutional block attention module (Woo et al., ECCV 2018), in 2D and 3D."""

import torch
from monai.networks.blocks import Convolution
from torch import nn


class ChannelAttention(nn.Module):
    """Weigh each channel by what its mean and its maximum say (Eq. 2 of Woo et al. 2018).

    Args:
        spatial_dims: 2 or 3.
        channels: number of channels C.
        reduction: the hidden layer of the shared perceptron has C // reduction units, one at least.
    """

    def __init__(self, spatial_dims: int, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.axes = list(range(2, 2 + spatial_dims))
        self.perceptron = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> (B, C, *spatial)."""
        attention = torch.sigmoid(self.perceptron(x.mean(self.axes)) + self.perceptron(x.amax(self.axes)))
        for _ in self.axes:
            attention = attention.unsqueeze(-1)
        return x * attention


class SpatialAttention(nn.Module):
    """Weigh each position by the mean and the maximum of its channels (Eq. 3 of Woo et al. 2018).

    Args:
        spatial_dims: 2 or 3.
        kernel_size: odd size of the convolution.
        norm: a MONAI norm after the convolution; the authors' code has batch norm there, their equation none.
    """

    def __init__(self, spatial_dims: int, kernel_size: int = 7, norm: str | tuple | None = "batch") -> None:
        super().__init__()
        self.convolution = Convolution(
            spatial_dims, 2, 1, kernel_size=kernel_size, act=None, norm=norm, bias=norm is None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> (B, C, *spatial)."""
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.convolution(pooled))


class CBAM(nn.Sequential):
    """Channel attention, then spatial attention; the size stays.

    Args:
        spatial_dims: 2 or 3.
        channels: number of channels C.
        reduction: of the channel attention's perceptron.
        kernel_size: odd size of the spatial attention's convolution.
        norm: a MONAI norm in the spatial attention, or None.
    """

    def __init__(
        self,
        spatial_dims: int,
        channels: int,
        reduction: int = 16,
        kernel_size: int = 7,
        norm: str | tuple | None = "batch",
    ) -> None:
        super().__init__()
        self.channel_attention = ChannelAttention(spatial_dims, channels, reduction)
        self.spatial_attention = SpatialAttention(spatial_dims, kernel_size, norm)
