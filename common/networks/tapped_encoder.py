"""MONAI's classification networks as encoders, tapped at strides 2 to 32."""

from collections import OrderedDict

import torch
from monai.networks.nets import DenseNet121, DenseNet169, DenseNet201, EfficientNetBNFeatures, ResNet
from torch import nn

from ..errors import InputError

DENSENETS = {"densenet121": DenseNet121, "densenet169": DenseNet169, "densenet201": DenseNet201}
RESNETS = {
    "resnet18": ("basic", [2, 2, 2, 2]),
    "resnet34": ("basic", [3, 4, 6, 3]),
    "resnet50": ("bottleneck", [3, 4, 6, 3]),
    "resnet101": ("bottleneck", [3, 4, 23, 3]),
    "resnet152": ("bottleneck", [3, 8, 36, 3]),
}
# Its padding is fixed by the size that a network was designed for; of b0 alone it is right for all multiples of 32.
EFFICIENTNETS = ("efficientnet-b0",)
BACKBONES = (*DENSENETS, *RESNETS, *EFFICIENTNETS)


class TappedEncoder(nn.Module):
    """A backbone cut into five stages, whose outputs have strides 2, 4, 8, 16 and 32.

    - DenseNet: first convolution before its norm, dense blocks 1 to 3 before their transitions, final norm.
    - ResNet (with torchvision's shortcuts): first convolution, layers 1 to 4.
    - EfficientNet: the last block of each resolution.

    The modules keep MONAI's names behind `stages.<i>.`. MONAI has no VGG, the third family of ao2022's Table 4.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels; 3 for ImageNet weights.
        backbone: one of `BACKBONES`.

    Attributes:
        channels: of the five outputs, for example (64, 256, 512, 1024, 1024) of DenseNet-121.

    Raises:
        InputError: when the backbone is unknown.
    """

    def __init__(self, spatial_dims: int, in_channels: int = 3, backbone: str = "densenet121") -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise InputError(f"The backbone '{backbone}' is unknown: take one of {', '.join(BACKBONES)}.")
        self.spatial_dims = spatial_dims
        self.backbone = backbone
        if backbone in DENSENETS:
            stages, self.channels = densenet_stages(backbone, spatial_dims, in_channels)
        elif backbone in RESNETS:
            stages, self.channels = resnet_stages(backbone, spatial_dims, in_channels)
        else:
            stages, self.channels = efficientnet_stages(backbone, spatial_dims, in_channels)
        self.stages = nn.ModuleList(nn.Sequential(OrderedDict(stage)) for stage in stages)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """(B, C, *spatial) -> five tensors (B, channels[i], *(spatial / 2 ** (i + 1))); sizes multiples of 32."""
        features: list[torch.Tensor] = []
        x = image
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


Stages = list[list[tuple[str, nn.Module]]]


def densenet_stages(backbone: str, spatial_dims: int, in_channels: int) -> tuple[Stages, tuple[int, ...]]:
    """Stages and their channels: every stage ends with one of the tapped modules."""
    modules = DENSENETS[backbone](spatial_dims, in_channels, out_channels=1).features.named_children()
    stages: Stages = [[]]
    for name, module in modules:
        stages[-1].append((name, module))
        if name in ("conv0", "denseblock1", "denseblock2", "denseblock3"):
            stages.append([])
    channels = [stage[0][1].norm.num_features for stage in stages[2:]]  # a transition starts where a block ended
    return stages, (stages[0][0][1].out_channels, *channels, stages[4][-1][1].num_features)


def resnet_stages(backbone: str, spatial_dims: int, in_channels: int) -> tuple[Stages, tuple[int, ...]]:
    """Stages and their channels, the first convolution tapped before its norm as in a DenseNet."""
    block, layers = RESNETS[backbone]
    widths = [64, 128, 256, 512]
    network = ResNet(
        block,
        layers,
        widths,
        spatial_dims=spatial_dims,
        n_input_channels=in_channels,
        conv1_t_stride=2,
        feed_forward=False,
        bias_downsample=False,
    )
    expansion = 4 if block == "bottleneck" else 1
    first = [(name, getattr(network, name)) for name in ("bn1", "act", "maxpool", "layer1")]
    later = [[(name, getattr(network, name))] for name in ("layer2", "layer3", "layer4")]
    return [[("conv1", network.conv1)], first, *later], (64, *(expansion * width for width in widths))


def efficientnet_stages(backbone: str, spatial_dims: int, in_channels: int) -> tuple[Stages, tuple[int, ...]]:
    """Stages and their channels; a stack of blocks that halves the size starts a stage."""
    network = EfficientNetBNFeatures(backbone, pretrained=False, spatial_dims=spatial_dims, in_channels=in_channels)
    network.set_swish(memory_efficient=False)  # the other one cannot be scripted
    stages: Stages = [
        [(name, getattr(network, name)) for name in ("_conv_stem_padding", "_conv_stem", "_bn0", "_swish")]
    ]
    for index, stack in enumerate(network._blocks):
        if index in network.extract_stacks:
            stages.append([])
        stages[-1].append((f"stack{index}", stack))
    return stages, tuple(stage[-1][1][-1].out_channels for stage in stages)
