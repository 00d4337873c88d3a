"""The U-Net of Ronneberger et al. (MICCAI 2015) with zero padding and a norm, and heatmaps from it (ham2023)."""

from collections.abc import Callable
from typing import Any

import torch
from monai.networks.blocks import UpSample
from monai.networks.layers.factories import Conv, Pool
from monai.networks.nets.basic_unet import TwoConv
from torch import nn

from .cubic_upsampling import upsampling_to_image
from .unit_peak import UnitPeak

UPSAMPLING = ("linear", "transposed")


class ConcatenationUNet(nn.Module):
    """A U-Net whose filters double from level to level and whose skips are concatenated.

    Contracting: two 3x3 convolutions, each with norm and ReLU, then max pooling. Expanding: upsampling,
    concatenation, two such convolutions. A linear 1x1 convolution ends it. Every spatial size must be a multiple
    of 2 ** (num_levels - 1), and with instance norm more than that, since a single pixel has no deviation.

    MONAI's BasicUNet is nearly the same, with five levels. It differs where a paper's figure does not: in its
    highest level the transposed convolution keeps 128 channels, and its linear upsampling follows a 1x1
    convolution and aligns the corners, which shifts what it enlarges by an amount that depends on the position.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels C.
        out_channels: output channels N.
        num_filters: filters of the first level (64); each level has twice those of the one above.
        num_levels: resolutions, each half of the one before.
        norm: a MONAI norm for every 3x3 convolution; these have no bias of their own.
        upsampling: "linear", of all channels and without parameters, or "transposed", a 2x2 transposed convolution
            to half the channels as in Ronneberger et al.
        attention: called with a number of channels for the module that ends each level, contracting and expanding.

    Raises:
        ValueError: if `upsampling` is unknown.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        num_filters: int = 64,
        num_levels: int = 5,
        norm: str | tuple = ("instance", {"affine": True}),
        upsampling: str = "linear",
        attention: Callable[[int], nn.Module] = lambda channels: nn.Identity(),
    ) -> None:
        super().__init__()
        if upsampling not in UPSAMPLING:
            raise ValueError(f"The upsampling must be one of {UPSAMPLING}, got '{upsampling}'.")

        def level(before: int, after: int) -> nn.Module:
            convolutions = TwoConv(spatial_dims, before, after, act="relu", norm=norm, bias=False)
            return nn.Sequential(convolutions, attention(after))

        def upsample(channels: int) -> nn.Module:
            if upsampling == "transposed":
                return UpSample(spatial_dims, channels, channels // 2, mode="deconv")
            return UpSample(spatial_dims, channels, channels, mode="nontrainable", align_corners=False)

        filters = [num_filters * 2**i for i in range(num_levels)]
        self.contracting = nn.ModuleList(level(*pair) for pair in zip([in_channels, *filters], filters))
        self.downsample = Pool[Pool.MAX, spatial_dims](2)
        self.upsampling = nn.ModuleList(upsample(below) for below in filters[:0:-1])
        self.expanding = nn.ModuleList(
            level(skip + (below if upsampling == "linear" else below // 2), skip)
            for skip, below in zip(filters[-2::-1], filters[:0:-1])
        )
        self.head = Conv[Conv.CONV, spatial_dims](num_filters, out_channels, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> (B, N, *spatial); every size a multiple of 2 ** (num_levels - 1)."""
        x = image
        levels: list[torch.Tensor] = []
        for i, contract in enumerate(self.contracting):
            x = contract(x if i == 0 else self.downsample(x))
            levels.append(x)
        x = levels.pop()
        for upsample, expand in zip(self.upsampling, self.expanding):
            x = expand(torch.cat([levels.pop(), upsample(x)], 1))
        return self.head(x)


def block_layers(spatial_dims: int, in_channels: int, num_landmarks: int, stride: int) -> tuple[nn.Module, nn.Module]:
    """Layers before and after a network that works on blocks of `stride` voxels along each axis.

    The first one brings the grey values of a block into as many channels, (B, C, *spatial) -> (B, C * stride **
    spatial_dims, *(spatial / stride)), the second one heatmaps to the size of the image, by cubic upsampling. With a
    stride of 1 neither does anything.
    """
    upsampling = upsampling_to_image(spatial_dims, num_landmarks, stride)
    if stride == 1:
        return nn.Identity(), upsampling
    blocks = Conv[Conv.CONV, spatial_dims](in_channels, in_channels * stride**spatial_dims, stride, stride=stride)
    return blocks, upsampling


class HeatmapUNet(nn.Module):
    """Heatmaps from a U-Net with instance norm (ham2023, Section 3.1), scaled to full peaks of 1 at inference.

    With N = 37, five levels from 64 filters and linear upsampling it has 31.4 million parameters (31,386,021).

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels C.
        num_landmarks: heatmap channels N.
        stride: 1 in the paper; with an even number the U-Net works on blocks of so many voxels along each axis, whose
            grey values a first convolution brings into as many channels. Heatmaps are of that size in training, for a
            loss of the same stride, and at inference brought to the size of the image by cubic upsampling.
        settings: further arguments of `ConcatenationUNet`.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, num_landmarks: int, stride: int = 1, **settings: Any
    ) -> None:
        super().__init__()
        channels = in_channels * stride**spatial_dims
        self.blocks, self.upsample = block_layers(spatial_dims, in_channels, num_landmarks, stride)
        self.unet = ConcatenationUNet(spatial_dims, channels, num_landmarks, **settings)
        self.unit_peak = UnitPeak(num_landmarks, spatial_dims)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> heatmaps (B, N, *spatial), in training (B, N, *(spatial / stride))."""
        heatmaps = self.unit_peak(self.unet(self.blocks(image)))
        return heatmaps if self.training else self.upsample(heatmaps)
