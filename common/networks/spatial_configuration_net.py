"""SpatialConfiguration-Net (Payer et al., Medical Image Analysis 54, 2019), and the paper's localisation U-Net."""

import math
from typing import Any

import torch
from monai.networks.layers.factories import Conv, Pool
from torch import nn

from .cubic_upsampling import CubicUpsampling, upsampling_to_image
from .unit_peak import UnitPeak

# A normal distribution cut at two deviations has 0.8796 of the deviation that it was drawn with.
TRUNCATED_STD = 0.87962566103423978


def truncated_normal_(conv: nn.Module, std: float) -> None:
    """Fill a convolution from a normal distribution truncated at two deviations; the bias becomes 0."""
    nn.init.trunc_normal_(conv.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(conv.bias)


def he_truncated_normal_(conv: nn.Module) -> None:
    """He initialisation by fan in with a truncated normal distribution; the bias becomes 0."""
    fan_in = conv.weight[0].numel()
    truncated_normal_(conv, math.sqrt(2 / fan_in) / TRUNCATED_STD)


def convolution(
    spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1
) -> nn.Module:
    """A zero-padded convolution that keeps the size, with He initialisation.

    With a stride the size is divided by it, and the kernel sees `kernel_size` blocks of `stride` voxels along each
    axis: the same as a convolution of that kernel size on these blocks as channels (space to depth).
    """
    conv = Conv[Conv.CONV, spatial_dims](
        in_channels, out_channels, kernel_size * stride, stride=stride, padding=kernel_size // 2 * stride
    )
    he_truncated_normal_(conv)
    return conv


class LocalAppearance(nn.Module):
    """The U-Net of local appearance: locally accurate, possibly ambiguous heatmaps (Section 2.1).

    All levels have the same number of filters. Contracting: two 3x3 convolutions with dropout between them, then
    average pooling. Every level, the bottom included, passes one parallel 3x3 convolution; expanding is linear
    upsampling and addition.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        num_landmarks: heatmap channels N.
        num_filters: filters of every convolution.
        num_levels: resolutions, each half of the one before.
        dropout: element-wise dropout probability in the contracting path.
        head_std: deviation of the last convolution's initial weights (1e-4 in 2D, 1e-3 in 3D).
        stride: of the first convolution, by which everything after it is smaller than the image.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        num_filters: int = 128,
        num_levels: int = 4,
        dropout: float = 0.5,
        head_std: float = 1e-4,
        stride: int = 1,
    ) -> None:
        super().__init__()
        activation = nn.LeakyReLU(0.1, inplace=True)  # on the fresh output of a convolution
        self.first = nn.Sequential(convolution(spatial_dims, in_channels, num_filters, stride=stride), activation)
        self.contracting = nn.ModuleList(
            nn.Sequential(
                convolution(spatial_dims, num_filters, num_filters),
                activation,
                nn.Dropout(dropout),
                convolution(spatial_dims, num_filters, num_filters),
                activation,
            )
            for _ in range(num_levels)
        )
        self.parallel = nn.ModuleList(
            nn.Sequential(convolution(spatial_dims, num_filters, num_filters), activation) for _ in range(num_levels)
        )
        self.downsample = Pool[Pool.AVG, spatial_dims](2)
        self.upsample = nn.Upsample(
            scale_factor=2, mode="bilinear" if spatial_dims == 2 else "trilinear", align_corners=False
        )
        self.head = convolution(spatial_dims, num_filters, num_landmarks)
        truncated_normal_(self.head, head_std)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> (B, N, *(spatial / stride)); these sizes are multiples of 2 ** (num_levels - 1)."""
        x = self.first(image)
        levels: list[torch.Tensor] = []
        for i, (contract, parallel) in enumerate(zip(self.contracting, self.parallel)):
            x = contract(x if i == 0 else self.downsample(x))
            levels.append(parallel(x))
        x = levels.pop()
        while len(levels) > 0:
            x = self.upsample(x).add_(levels.pop())
        return self.head(x)


class SpatialConfiguration(nn.Module):
    """The branch that turns candidate heatmaps into inaccurate, unambiguous ones (Section 2.1).

    Average pooling, three large convolutions, a fourth with tanh, cubic upsampling back.

    Args:
        spatial_dims: 2 or 3.
        num_landmarks: heatmap channels N, in and out.
        num_filters: filters of the first three convolutions.
        kernel_size: odd size of the four kernels (11 in 2D, 7 in 3D).
        downsampling: even factor of the average pooling (16 in 2D, 8 in 3D).
        head_std: deviation of the last convolution's initial weights.
    """

    def __init__(
        self,
        spatial_dims: int,
        num_landmarks: int,
        num_filters: int = 128,
        kernel_size: int = 11,
        downsampling: int = 16,
        head_std: float = 1e-4,
    ) -> None:
        super().__init__()
        activation = nn.LeakyReLU(0.1, inplace=True)
        head = convolution(spatial_dims, num_filters, num_landmarks, kernel_size)
        truncated_normal_(head, head_std)
        self.layers = nn.Sequential(
            Pool[Pool.AVG, spatial_dims](downsampling),
            convolution(spatial_dims, num_landmarks, num_filters, kernel_size),
            activation,
            convolution(spatial_dims, num_filters, num_filters, kernel_size),
            activation,
            convolution(spatial_dims, num_filters, num_filters, kernel_size),
            activation,
            head,
            nn.Tanh(),
            CubicUpsampling(spatial_dims, num_landmarks, downsampling),
        )

    def forward(self, heatmaps: torch.Tensor) -> torch.Tensor:
        """(B, N, *spatial) -> (B, N, *spatial); every size a multiple of `downsampling`."""
        return self.layers(heatmaps)


class SpatialConfigurationNet(nn.Module):
    """Heatmaps as the product of local appearance and spatial configuration (Eq. 1 of Payer et al. 2019).

    Every spatial size must be a multiple of `downsampling` and of 2 ** (num_levels - 1), both times `stride`. The
    defaults are the paper's in 2D; its 3D form has 64 filters, kernels of 7, a factor of 8 and heads of deviation 1e-3.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        num_landmarks: number of landmarks N.
        num_filters: filters of the local appearance network.
        num_levels: resolutions of the local appearance network.
        dropout: dropout probability in its contracting path.
        spatial_filters: filters of the spatial configuration branch; as `num_filters` where not given.
        spatial_kernel_size: kernel size of the spatial configuration branch.
        downsampling: average pooling factor of the spatial configuration branch.
        head_std: deviation of the initial weights of both heads.
        stride: 1 in the paper; with an even number the network works on blocks of so many voxels along each axis (see
            `convolution`), which takes a fraction of the time. Heatmaps are of that size in training, for a loss of the
            same stride, and at inference brought to the size of the image by cubic upsampling.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        num_filters: int = 128,
        num_levels: int = 4,
        dropout: float = 0.5,
        spatial_filters: int | None = None,
        spatial_kernel_size: int = 11,
        downsampling: int = 16,
        head_std: float = 1e-4,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.local_appearance = LocalAppearance(
            spatial_dims, in_channels, num_landmarks, num_filters, num_levels, dropout, head_std, stride
        )
        self.spatial_configuration = SpatialConfiguration(
            spatial_dims,
            num_landmarks,
            spatial_filters or num_filters,
            spatial_kernel_size,
            downsampling,
            head_std,
        )
        self.unit_peak = UnitPeak(num_landmarks, spatial_dims)
        self.upsample = upsampling_to_image(spatial_dims, num_landmarks, stride)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> heatmaps (B, N, *spatial), scaled to full peaks of 1 at inference.

        In training (B, N, *(spatial / stride)).
        """
        local = self.local_appearance(image)
        heatmaps = self.unit_peak(local * self.spatial_configuration(local))
        return heatmaps if self.training else self.upsample(heatmaps)


class LocalizationUNet(nn.Module):
    """The paper's localisation U-Net: local appearance alone, without spatial configuration (Section 3).

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        num_landmarks: heatmap channels N.
        stride: as of `SpatialConfigurationNet`.
        settings: further arguments of `LocalAppearance`.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, num_landmarks: int, stride: int = 1, **settings: Any
    ) -> None:
        super().__init__()
        self.local_appearance = LocalAppearance(spatial_dims, in_channels, num_landmarks, stride=stride, **settings)
        self.unit_peak = UnitPeak(num_landmarks, spatial_dims)
        self.upsample = upsampling_to_image(spatial_dims, num_landmarks, stride)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> heatmaps (B, N, *spatial), in training (B, N, *(spatial / stride))."""
        heatmaps = self.unit_peak(self.local_appearance(image))
        return heatmaps if self.training else self.upsample(heatmaps)
