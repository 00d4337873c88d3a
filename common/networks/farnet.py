"""FARNet, the feature aggregation and refinement network (Ao and Wu, Journal of Digital Imaging 2022)."""

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv
from torch import nn

from ..errors import InputError
from .feature_aggregation import (
    AdditiveFeatureAggregation,
    FeaturePyramid,
    MultiScaleFeatureAggregation,
    convolution,
    upsampling,
)
from .tapped_encoder import TappedEncoder
from .unit_peak import UnitPeak

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageNetInput(nn.Module):
    """Images in [0, 1], grey or of three channels -> three channels, normalised as ImageNet networks want them."""

    def __init__(self, spatial_dims: int) -> None:
        super().__init__()
        shape = [1, 3] + [1] * spatial_dims
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(shape), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(shape), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1 or 3, *spatial) -> (B, 3, *spatial)."""
        return (image - self.mean) / self.std  # one channel is replicated by broadcasting


def heatmap_head(spatial_dims: int, in_channels: int, num_landmarks: int) -> nn.Module:
    """A 3x3 convolution of the same width and a 1x1 convolution to heatmaps, without activation."""
    conv = Conv[Conv.CONV, spatial_dims]
    return nn.Sequential(conv(in_channels, in_channels, 3, padding=1), conv(in_channels, num_landmarks, 1))


class NoRefinement(nn.Module):
    """Heatmaps of the upsampled feature maps (the rows FPN, MSFA(+) and MSFA of Table 5)."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        stride: int,
        stem_filters: int,
        stem_kernel_size: int,
    ) -> None:
        super().__init__()
        self.upsample = upsampling(spatial_dims, stride)
        self.fine_head = heatmap_head(spatial_dims, in_channels, num_landmarks)

    def forward(self, image: torch.Tensor, features: torch.Tensor) -> list[torch.Tensor]:
        return [self.fine_head(self.upsample(features))]


class NaiveRefinement(nn.Module):
    """FR* of Table 5: upsampled feature maps beside maps of the image, without coarse heatmaps."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        stride: int,
        stem_filters: int,
        stem_kernel_size: int,
    ) -> None:
        super().__init__()
        self.stem = convolution(spatial_dims, 3, stem_filters, stem_kernel_size)
        self.upsample = upsampling(spatial_dims, stride)
        self.fine_head = heatmap_head(spatial_dims, in_channels + stem_filters, num_landmarks)

    def forward(self, image: torch.Tensor, features: torch.Tensor) -> list[torch.Tensor]:
        return [self.fine_head(torch.cat([self.upsample(features), self.stem(image)], dim=1))]


class CoarseToFineRefinement(nn.Module):
    """FR: upsampled feature maps, maps of the image and upsampled coarse heatmaps; both heatmaps are supervised."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        stride: int,
        stem_filters: int,
        stem_kernel_size: int,
    ) -> None:
        super().__init__()
        self.stem = convolution(spatial_dims, 3, stem_filters, stem_kernel_size)
        self.upsample = upsampling(spatial_dims, stride)
        self.coarse_head = heatmap_head(spatial_dims, in_channels, num_landmarks)
        self.fine_head = heatmap_head(spatial_dims, in_channels + stem_filters + num_landmarks, num_landmarks)

    def forward(self, image: torch.Tensor, features: torch.Tensor) -> list[torch.Tensor]:
        coarse = self.coarse_head(features)
        x = torch.cat([self.upsample(features), self.stem(image), self.upsample(coarse)], dim=1)
        return [self.fine_head(x), coarse]


def with_instance_norm(module: nn.Module) -> nn.Module:
    """A module with instance norm in place of its batch norms, with their weights; itself where it is one."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        kind = {nn.BatchNorm1d: nn.InstanceNorm1d, nn.BatchNorm2d: nn.InstanceNorm2d, nn.BatchNorm3d: nn.InstanceNorm3d}
        norm = kind[type(module)](module.num_features, eps=module.eps, affine=True)
        norm.load_state_dict({"weight": module.weight, "bias": module.bias})
        return norm
    for name, child in module.named_children():
        setattr(module, name, with_instance_norm(child))
    return module


NORMS = ("batch", "instance")
AGGREGATIONS = {
    "msfa": MultiScaleFeatureAggregation,
    "msfa_addition": AdditiveFeatureAggregation,
    "fpn": FeaturePyramid,
}
REFINEMENTS = {"coarse_to_fine": CoarseToFineRefinement, "naive": NaiveRefinement, "none": NoRefinement}


class FARNet(nn.Module):
    """Heatmaps by a pre-trained encoder, multi-scale feature aggregation and feature refinement (Fig. 2 of ao2022).

    Takes images in [0, 1]: the normalisation of ImageNet is part of the network. Every spatial size must be a
    multiple of 32; in training the coarsest maps need more than one voxel, that is two images or a size of 64.
    Weights are random here, so that a model file can be loaded without anything else; a training starts from
    `common.networks.load_imagenet_weights`.

    The rows of Table 5 are settings: FPN is aggregation "fpn" with refinement "none", MSFA(+) "msfa_addition" and
    "none", MSFA "msfa" and "none", MSFA+FR* "msfa" and "naive", MSFA+FR the default. (Its U-Net has no pre-trained
    encoder: it is `common.networks.HeatmapUNet`.)

    Args:
        spatial_dims: 2 or 3; for 3D the paper proposes fewer filters.
        in_channels: image channels, 1 (replicated) or 3.
        num_landmarks: number of landmarks N.
        backbone: encoder, a name of `common.networks.TappedEncoder` (Table 4).
        aggregation: "msfa", "msfa_addition" or "fpn".
        refinement: "coarse_to_fine", "naive" or "none".
        num_filters: channels of the aggregation's up paths; the maps of the image have an eighth of them.
        stem_kernel_size: of the image's convolution: 1 in the published code, 3 in the paper.
        bottom_kernel_size: of MSFA's reduction at stride 32: 3 in the published code, 1 in the paper.
        last_filters: channels of MSFA's last two maps, at strides 4 and 2; None for a half and a quarter of
            `num_filters`. All coarse heatmaps are linear in the last of them, so that their rank is at most its
            number of channels.
        norm: "batch" as in the paper, or "instance". With batches of one image both are trained alike, by the image's
            own statistics; the running ones, with which batch norm then infers, are those of the last few images, and
            instance norm infers as it trained. Its sizes are more than 32.

    Raises:
        InputError: when a name is unknown, the number of channels is neither 1 nor 3, or `last_filters` does not fit.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        backbone: str = "densenet121",
        aggregation: str = "msfa",
        refinement: str = "coarse_to_fine",
        num_filters: int = 256,
        stem_kernel_size: int = 1,
        bottom_kernel_size: int = 3,
        last_filters: Sequence[int] | None = None,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise InputError(f"FARNet has no norm '{norm}': take one of {', '.join(NORMS)}.")
        if in_channels not in (1, 3) or aggregation not in AGGREGATIONS or refinement not in REFINEMENTS:
            raise InputError(
                f"FARNet with {in_channels} channels, aggregation '{aggregation}' and refinement '{refinement}' does "
                f"not exist: take 1 or 3 channels, one of {', '.join(AGGREGATIONS)} and one of "
                f"{', '.join(REFINEMENTS)}."
            )
        if last_filters is not None and (
            aggregation != "msfa" or len(last_filters) != 2 or not all(type(n) is int and n > 0 for n in last_filters)
        ):
            raise InputError(
                f"last_filters {last_filters} with aggregation '{aggregation}' does not fit: give two numbers of "
                "channels, and aggregation 'msfa'."
            )
        self.normalise = ImageNetInput(spatial_dims)
        self.encoder = TappedEncoder(spatial_dims, 3, backbone)
        settings = (
            {"bottom_kernel_size": bottom_kernel_size, "last_filters": last_filters} if aggregation == "msfa" else {}
        )
        self.aggregation = AGGREGATIONS[aggregation](spatial_dims, self.encoder.channels, num_filters, **settings)
        self.refinement = REFINEMENTS[refinement](
            spatial_dims,
            self.aggregation.out_channels,
            num_landmarks,
            self.aggregation.stride,
            num_filters // 8,
            stem_kernel_size,
        )
        self.unit_peak = UnitPeak(num_landmarks, spatial_dims)
        if norm == "instance":
            with_instance_norm(self)

    def forward(self, image: torch.Tensor):
        """(B, C, *spatial) -> heatmaps (B, N, *spatial).

        In training a list for the loss: these heatmaps, and with coarse-to-fine refinement those of half the size.
        The type is left open because TorchScript, which always returns the tensor, has to infer it.
        """
        image = self.normalise(image)
        outputs = self.refinement(image, self.aggregation(self.encoder(image)))
        if not torch.jit.is_scripting() and self.training:
            return outputs
        return self.unit_peak(outputs[0])
