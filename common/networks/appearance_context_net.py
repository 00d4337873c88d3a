"""The deep appearance-context network (Reddy et al.): a U-Net with attention times a dilated network of context."""

from collections.abc import Sequence
from functools import partial

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv
from monai.utils import ensure_tuple_rep
from torch import nn
from torch.nn import functional as F

from ..transforms.resize_to_fit import averaging_weights
from .cbam import CBAM
from .heatmap_unet import ConcatenationUNet, block_layers
from .unit_peak import UnitPeak


class GlobalContext(nn.Module):
    """The network that sees image and local heatmaps whole, on a small grid (Section III, Fig. 1).

    Both are averaged onto the grid of `context_size` and concatenated, seven dilated convolutions with norm and
    ReLU follow, a linear 1x1 convolution, and linear upsampling back. With 3x3 kernels the receptive field is 33 x
    33 grid points, with 5x3 kernels (rows x columns) 65 x 33.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels C.
        num_landmarks: heatmap channels N.
        context_size: size of the grid, x first.
        context_crop: size in pixels of the central part of the image that the grid covers, x first, -1 for a whole
            axis; outside it the context is zero. Everything where not given.
        num_filters: filters of the dilated convolutions.
        kernel_size: odd kernel size, one for each axis, x first, or one for all.
        dilations: one for each convolution.
        norm: a MONAI norm.

    Raises:
        ValueError: if a size has another length than `spatial_dims`.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        context_size: Sequence[int],
        context_crop: Sequence[int] | None = None,
        num_filters: int = 128,
        kernel_size: int | Sequence[int] = 3,
        dilations: Sequence[int] = (1, 1, 2, 2, 4, 4, 2),
        norm: str | tuple = "batch",
    ) -> None:
        super().__init__()
        self.context_size = [int(size) for size in ensure_tuple_rep(context_size, spatial_dims)]
        crop = -1 if context_crop is None else context_crop
        self.context_crop = [int(size) for size in ensure_tuple_rep(crop, spatial_dims)]
        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"
        channels = [in_channels + num_landmarks] + [num_filters] * len(dilations)
        kernel_size = ensure_tuple_rep(kernel_size, spatial_dims)
        self.layers = nn.Sequential(
            *(
                Convolution(
                    spatial_dims,
                    before,
                    after,
                    kernel_size=kernel_size,
                    dilation=dilation,
                    act="relu",
                    norm=norm,
                    bias=False,
                )
                for before, after, dilation in zip(channels, channels[1:], dilations)
            )
        )
        self.head = Conv[Conv.CONV, spatial_dims](num_filters, num_landmarks, 1)

    def reduce(self, x: torch.Tensor) -> torch.Tensor:
        """Average the central part onto the grid: (B, C, *spatial) -> (B, C, *context_size)."""
        for i, (crop, reduced) in enumerate(zip(self.context_crop, self.context_size)):
            axis = i + 2
            size = x.shape[axis]
            if 0 < crop < size:
                x = x.narrow(axis, size // 2 - crop // 2, crop)
            weights = averaging_weights(x.shape[axis], reduced, x)
            x = torch.matmul(x.transpose(axis, -1), weights.t()).transpose(axis, -1)
        return x

    def enlarge(self, context: torch.Tensor, spatial_size: list[int]) -> torch.Tensor:
        """Put the grid back on the image, zero outside the central part: (B, N, *context_size) -> (B, N, *spatial)."""
        inner: list[int] = []
        padding: list[int] = []  # the last axis first
        for crop, size in zip(self.context_crop, spatial_size):
            if 0 < crop < size:
                before = size // 2 - crop // 2
                inner.append(crop)
                padding = [before, size - crop - before] + padding
            else:
                inner.append(size)
                padding = [0, 0] + padding
        context = F.interpolate(context, size=inner, mode=self.mode, align_corners=False)
        return F.pad(context, padding) if max(padding) > 0 else context

    def forward(self, image: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial), (B, N, *spatial) -> (B, N, *spatial)."""
        x = torch.cat([self.reduce(image), self.reduce(local)], 1)  # the input's skip connection
        return self.enlarge(self.head(self.layers(x)), image.shape[2:])


class AppearanceContextNet(nn.Module):
    """Heatmaps as the product of local appearance and global context (Eq. 2 of Reddy et al.).

    Local appearance is a U-Net with batch norm, ReLU and an attention module (`CBAM`) at every level of encoder
    and decoder. Every spatial size must be a multiple of 2 ** (num_levels - 1). The defaults are the paper's for
    cephalograms, with 32.2 million parameters at N = 19; its spine has a context of (32, 64) over the central
    (300, -1) pixels and kernels of (3, 5), here x first, with 32.9 million at N = 68.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels C.
        num_landmarks: number of landmarks N.
        context_size: grid of the global context, x first, or one size for all axes.
        context_crop: central part of the image that the grid covers, as in `GlobalContext`.
        num_filters: filters of the first level of the U-Net.
        num_levels: resolutions of the U-Net.
        upsampling: of the U-Net, "transposed" or "linear".
        attention_reduction: reduction of the channel attention.
        attention_kernel_size: kernel size of the spatial attention.
        context_filters: filters of the dilated convolutions.
        context_kernel_size: their kernel size, one for each axis, x first, or one for all.
        dilations: their dilations.
        norm: a MONAI norm after every convolution but the transposed ones and the heads. With batches of one image
            batch norm trains on each image's own statistics and infers with running ones: no harm at the sizes of
            the bundles, but where maps are a few pixels small it fits badly, and ("instance", {"affine": True}) infers
            as it trained.
        stride: 1 in the paper; with an even number both parts work on blocks of so many pixels along each axis, whose
            grey values a first convolution brings into as many channels. Heatmaps are of that size in training, for a
            loss of the same stride, and at inference brought to the size of the image by cubic upsampling. Spatial
            sizes are then multiples of `stride` times those above.
        template_size: size in pixels, x first, of the template to which images are registered before the network
            (`common.transforms.RegisterToTemplated`): it travels with the weights, as the buffers `template` (1,
            *template_size), grey values, and `template_window` (4,). None where images are not registered.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        context_size: int | Sequence[int] = 32,
        context_crop: Sequence[int] | None = None,
        num_filters: int = 64,
        num_levels: int = 5,
        upsampling: str = "transposed",
        attention_reduction: int = 16,
        attention_kernel_size: int = 7,
        context_filters: int = 128,
        context_kernel_size: int | Sequence[int] = 3,
        dilations: Sequence[int] = (1, 1, 2, 2, 4, 4, 2),
        norm: str | tuple = "batch",
        stride: int = 1,
        template_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        channels = in_channels * stride**spatial_dims
        self.blocks, self.upsample = block_layers(spatial_dims, in_channels, num_landmarks, stride)
        self.local_appearance = ConcatenationUNet(
            spatial_dims,
            channels,
            num_landmarks,
            num_filters,
            num_levels,
            norm,
            upsampling,
            partial(CBAM, spatial_dims, reduction=attention_reduction, kernel_size=attention_kernel_size, norm=norm),
        )
        crop = -1 if context_crop is None else context_crop
        self.global_context = GlobalContext(
            spatial_dims,
            channels,
            num_landmarks,
            context_size,
            [size // stride if size > 0 else -1 for size in ensure_tuple_rep(crop, spatial_dims)],
            context_filters,
            context_kernel_size,
            dilations,
            norm,
        )
        self.unit_peak = UnitPeak(num_landmarks, spatial_dims)
        if template_size is not None:
            self.register_buffer("template", torch.zeros(1, *template_size))
            self.register_buffer("template_window", torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> heatmaps (B, N, *spatial), scaled to full peaks of 1 at inference.

        In training (B, N, *(spatial / stride)).
        """
        blocks = self.blocks(image)
        local = self.local_appearance(blocks)
        heatmaps = self.unit_peak(local * self.global_context(blocks, local))
        return heatmaps if self.training else self.upsample(heatmaps)
