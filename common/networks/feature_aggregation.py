"""From an encoder's five feature maps to one: multi-scale feature aggregation of FARNet and its rivals (ao2022)."""

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv
from torch import nn


def convolution(
    spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1
) -> nn.Module:
    """Convolution, batch norm and ReLU; without a bias, which the norm would take out again."""
    return Convolution(
        spatial_dims,
        in_channels,
        out_channels,
        strides=stride,
        kernel_size=kernel_size,
        adn_ordering="NA",
        act=("relu", {"inplace": True}),
        norm="batch",
        bias=False,
    )


def upsampling(spatial_dims: int, factor: int = 2) -> nn.Module:
    """Bilinear or trilinear upsampling with half-pixel centres."""
    return nn.Upsample(scale_factor=factor, mode="bilinear" if spatial_dims == 2 else "trilinear", align_corners=False)


class UpFusion(nn.Module):
    """Upsample, concatenate with the maps of that resolution, reduce by a 1x1 convolution (Fig. 3a)."""

    def __init__(self, spatial_dims: int, in_channels: int, lateral_channels: int, out_channels: int) -> None:
        super().__init__()
        self.upsample = upsampling(spatial_dims)
        self.reduce = convolution(spatial_dims, in_channels + lateral_channels, out_channels)

    def forward(self, x: torch.Tensor, lateral: torch.Tensor) -> torch.Tensor:
        return self.reduce(torch.cat([self.upsample(x), lateral], dim=1))


class DownFusion(nn.Module):
    """A 3x3 convolution of stride 2 that doubles the channels, concatenate, reduce (Fig. 3b)."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        lateral_channels: int,
        out_channels: int,
        kernel_size: int = 1,
    ) -> None:
        super().__init__()
        self.downsample = convolution(spatial_dims, in_channels, 2 * in_channels, kernel_size=3, stride=2)
        self.reduce = convolution(spatial_dims, 2 * in_channels + lateral_channels, out_channels, kernel_size)

    def forward(self, x: torch.Tensor, lateral: torch.Tensor) -> torch.Tensor:
        return self.reduce(torch.cat([self.downsample(x), lateral], dim=1))


class UpAddition(nn.Module):
    """Upsample, add the maps of that resolution after a 1x1 convolution, smooth by 3x3 (FPN)."""

    def __init__(self, spatial_dims: int, lateral_channels: int, num_filters: int) -> None:
        super().__init__()
        self.upsample = upsampling(spatial_dims)
        self.lateral = convolution(spatial_dims, lateral_channels, num_filters)
        self.smooth = convolution(spatial_dims, num_filters, num_filters, kernel_size=3)

    def forward(self, x: torch.Tensor, lateral: torch.Tensor) -> torch.Tensor:
        return self.smooth(self.upsample(x) + self.lateral(lateral))


class DownAddition(nn.Module):
    """A 3x3 convolution of stride 2, add the maps of that resolution, smooth by 3x3 (PANet)."""

    def __init__(self, spatial_dims: int, num_filters: int) -> None:
        super().__init__()
        self.downsample = convolution(spatial_dims, num_filters, num_filters, kernel_size=3, stride=2)
        self.smooth = convolution(spatial_dims, num_filters, num_filters, kernel_size=3)

    def forward(self, x: torch.Tensor, lateral: torch.Tensor) -> torch.Tensor:
        return self.smooth(self.downsample(x) + lateral)


class BidirectionalAggregation(nn.Module):
    """Up, down and up again through levels 2 to 5, and at last to level 1 (Fig. 2); the subclasses name the blocks.

    Attributes:
        out_channels: of the result.
        stride: of the result with respect to the image.
    """

    stride = 2

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Five tensors (B, channels[i], *(spatial / 2 ** (i + 1))) -> (B, out_channels, *(spatial / 2))."""
        c1, c2, c3, c4, c5 = features
        p5 = self.top(c5)
        p4 = self.up4(p5, c4)
        p3 = self.up3(p4, c3)
        n2 = self.up2(p3, c2)
        n3 = self.down3(n2, p3)
        n4 = self.down4(n3, p4)
        n5 = self.down5(n4, p5)
        x = self.second_up4(self.bottom(n5), n4)
        x = self.second_up3(x, n3)
        x = self.second_up2(x, n2)
        return self.second_up1(x, c1)


class MultiScaleFeatureAggregation(BidirectionalAggregation):
    """MSFA of FARNet: maps are concatenated, and the higher resolution keeps more channels (ao2022).

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the encoder's five outputs.
        num_filters: channels w of the up paths; the down path has 2w, 4w and 8w.
        bottom_kernel_size: of the reduction to 4w at stride 32: 3 in the published code, 1 in the paper.
        last_filters: channels of the last two maps, at strides 4 and 2; None for w/2 and w/4.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: Sequence[int],
        num_filters: int = 256,
        bottom_kernel_size: int = 3,
        last_filters: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = in_channels
        w = num_filters
        w2, w1 = (w // 2, w // 4) if last_filters is None else last_filters
        self.top = nn.Sequential(convolution(spatial_dims, c5, 2 * w, 3), convolution(spatial_dims, 2 * w, w))
        self.up4 = UpFusion(spatial_dims, w, c4, w)
        self.up3 = UpFusion(spatial_dims, w, c3, w)
        self.up2 = UpFusion(spatial_dims, w, c2, w)
        self.down3 = DownFusion(spatial_dims, w, w, 2 * w)
        self.down4 = DownFusion(spatial_dims, 2 * w, w, 4 * w)
        self.down5 = DownFusion(spatial_dims, 4 * w, w, 4 * w, bottom_kernel_size)
        self.bottom = convolution(spatial_dims, 4 * w, w)
        self.second_up4 = UpFusion(spatial_dims, w, 4 * w, w)
        self.second_up3 = UpFusion(spatial_dims, w, 2 * w, w)
        self.second_up2 = UpFusion(spatial_dims, w, w, w2)
        self.second_up1 = UpFusion(spatial_dims, w2, c1, w1)
        self.out_channels = w1


class AdditiveFeatureAggregation(BidirectionalAggregation):
    """MSFA(+) of Table 5: the same paths, merged by addition, with the same channels at every level.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the encoder's five outputs.
        num_filters: channels of every map.
    """

    def __init__(self, spatial_dims: int, in_channels: Sequence[int], num_filters: int = 256) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = in_channels
        self.top = convolution(spatial_dims, c5, num_filters)
        self.up4 = UpAddition(spatial_dims, c4, num_filters)
        self.up3 = UpAddition(spatial_dims, c3, num_filters)
        self.up2 = UpAddition(spatial_dims, c2, num_filters)
        self.down3 = DownAddition(spatial_dims, num_filters)
        self.down4 = DownAddition(spatial_dims, num_filters)
        self.down5 = DownAddition(spatial_dims, num_filters)
        self.bottom = nn.Identity()
        self.second_up4 = UpAddition(spatial_dims, num_filters, num_filters)
        self.second_up3 = UpAddition(spatial_dims, num_filters, num_filters)
        self.second_up2 = UpAddition(spatial_dims, num_filters, num_filters)
        self.second_up1 = UpAddition(spatial_dims, c1, num_filters)
        self.out_channels = num_filters


class FeaturePyramid(nn.Module):
    """FPN of Table 5 (Lin et al. 2017): 1x1 laterals of levels 2 to 5, added from the top down; its finest map.

    MONAI's FeaturePyramidNetwork smooths every level, which heatmaps of the finest one would leave unused.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the encoder's five outputs.
        num_filters: channels of every map.
    """

    stride = 4

    def __init__(self, spatial_dims: int, in_channels: Sequence[int], num_filters: int = 256) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.upsample = upsampling(spatial_dims)
        self.lateral2, self.lateral3, self.lateral4, self.lateral5 = (conv(c, num_filters, 1) for c in in_channels[1:])
        self.smooth = conv(num_filters, num_filters, 3, padding=1)
        self.out_channels = num_filters

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Five tensors (B, channels[i], *(spatial / 2 ** (i + 1))) -> (B, out_channels, *(spatial / 4))."""
        _, c2, c3, c4, c5 = features
        x = self.lateral4(c4) + self.upsample(self.lateral5(c5))
        x = self.lateral3(c3) + self.upsample(x)
        x = self.lateral2(c2) + self.upsample(x)
        return self.smooth(x)
