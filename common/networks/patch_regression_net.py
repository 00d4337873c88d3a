"""Joint regression and classification of patches, global and then local (noothout2020, Section II and Fig. 2)."""

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv, Norm, Pool
from torch import nn
from torch.nn import functional as F

from ..transforms.patch_grid import vote_landmarks
from ..transforms.sub_images import sub_images

METHODS = ("joint", "regression", "classification")


class ConvolutionPair(nn.Module):
    """Two 3^d convolutions, each with batch norm, around which the input is added (He et al., CVPR 2016, Fig. 2).

    Where the number of channels changes, the input goes through a 1^d convolution with batch norm.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the input, all groups together.
        channels: of the output, all groups together.
        groups: number of networks that lie side by side.
    """

    def __init__(self, spatial_dims: int, in_channels: int, channels: int, groups: int = 1) -> None:
        super().__init__()
        self.first = normed_convolution(spatial_dims, in_channels, channels, 3, groups=groups)
        self.second = normed_convolution(spatial_dims, channels, channels, 3, groups=groups)
        same = in_channels == channels
        self.shortcut = (
            nn.Identity() if same else normed_convolution(spatial_dims, in_channels, channels, 1, groups=groups)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, *spatial) -> (B, channels, *spatial)."""
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


def normed_convolution(
    spatial_dims: int, in_channels: int, channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution with zero padding and batch norm."""
    convolution = Conv[Conv.CONV, spatial_dims](
        in_channels, channels, kernel_size, stride=stride, padding=kernel_size // 2, groups=groups, bias=False
    )
    return nn.Sequential(convolution, Norm[Norm.BATCH, spatial_dims](channels))


class OutputHead(nn.Sequential):
    """Two dense layers, as 1^d convolutions with batch norm and ReLU, and a linear output layer."""

    def __init__(self, spatial_dims: int, in_channels: int, filters: int, out_channels: int, groups: int = 1) -> None:
        super().__init__(
            normed_convolution(spatial_dims, in_channels, filters, 1, groups=groups),
            nn.ReLU(),
            normed_convolution(spatial_dims, filters, filters, 1, groups=groups),
            nn.ReLU(),
            Conv[Conv.CONV, spatial_dims](filters, out_channels, 1, groups=groups),
        )


class GlobalPatchNet(nn.Module):
    """The network that looks at whole images: ResNet-34 with average pooling in place of strides.

    A 7^d convolution of stride 2, four blocks of 3, 4, 6 and 3 pairs of convolutions, average pooling before some of
    them, and two heads. Every halving doubles the spacing of the grid.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels C.
        num_landmarks: N.
        filters: of the first convolution and of the four blocks.
        blocks: number of pairs in each block.
        pooled_blocks: which blocks, counted from 0, have average pooling before them: the first two in 3D, all four
            for cephalograms (Section V-A.3).
        head_filters: of the dense layers.

    Attributes:
        grid_spacing: s, voxels from patch to patch.
        receptive_field: voxels along an axis that an output depends on.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        filters: Sequence[int] = (16, 32, 64, 128, 256),
        blocks: Sequence[int] = (3, 4, 6, 3),
        pooled_blocks: Sequence[int] = (0, 1),
        head_filters: int = 256,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [normed_convolution(spatial_dims, in_channels, filters[0], 7, stride=2), nn.ReLU()]
        self.grid_spacing, self.receptive_field = 2, 7
        channels = filters[0]
        for i, (count, width) in enumerate(zip(blocks, filters[1:])):
            if i in pooled_blocks:
                layers.append(Pool[Pool.AVG, spatial_dims](2))
                self.receptive_field += self.grid_spacing
                self.grid_spacing *= 2
            for _ in range(count):
                layers.append(ConvolutionPair(spatial_dims, channels, width))
                self.receptive_field += 2 * 2 * self.grid_spacing
                channels = width
        self.body = nn.Sequential(*layers)
        self.displacement = OutputHead(spatial_dims, channels, head_filters, num_landmarks * spatial_dims)
        self.presence = OutputHead(spatial_dims, channels, head_filters, num_landmarks)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> (B, N * (D + 1), *grid): displacements, N times D, then N logits of presence.

        Images are padded with zeros at their end to multiples of the grid's spacing.
        """
        padding: list[int] = []
        for size in image.shape[2:]:
            padding = [0, -size % self.grid_spacing] + padding
        x = self.body(F.pad(image, padding))
        return torch.cat([self.displacement(x), self.presence(x)], 1)


class LocalPatchNets(nn.Module):
    """One small network per landmark for sub-images around it, all in one pass as groups of one network.

    Each has a pair of convolutions, average pooling, a second pair and two heads. They share nothing: group i sees
    sub-image i and tells of landmark i.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels C.
        num_landmarks: N.
        filters: of the two pairs, per landmark.
        head_filters: of the dense layers, per landmark.

    Attributes:
        grid_spacing: 2.
    """

    grid_spacing = 2

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        filters: Sequence[int] = (32, 64),
        head_filters: int = 64,
    ) -> None:
        super().__init__()
        n = num_landmarks
        first, second = (n * f for f in filters)
        self.body = nn.Sequential(
            ConvolutionPair(spatial_dims, n * in_channels, first, groups=n),
            Pool[Pool.AVG, spatial_dims](2),
            ConvolutionPair(spatial_dims, first, second, groups=n),
        )
        self.displacement = OutputHead(spatial_dims, second, n * head_filters, n * spatial_dims, groups=n)
        self.presence = OutputHead(spatial_dims, second, n * head_filters, n, groups=n)

    def forward(self, sub_images: torch.Tensor) -> torch.Tensor:
        """(B, N * C, *size), one sub-image per landmark, of even size -> (B, N * (D + 1), *size / 2), as above."""
        x = self.body(sub_images)
        return torch.cat([self.displacement(x), self.presence(x)], 1)


class PatchRegressionNet(nn.Module):
    """The global and the local networks, with the way from an image to landmarks, in one file of weights.

    `forward` gives the global grid, which is what the global stage is trained on. `localise` finds the landmarks:
    every patch of the grid points to each of them, and the mean of these votes is weighted by the probability that a
    patch holds the landmark; then the landmark's local network does the same in a sub-image around that place. Both
    are there in TorchScript.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels C.
        num_landmarks: N.
        filters, blocks, pooled_blocks, head_filters: of `GlobalPatchNet`.
        local_filters, local_head_filters: of `LocalPatchNets`.
        log_displacements: whether the networks tell displacements d as sign(d) log(1 + |d|), as the paper's do.
        norm_momentum: share of a batch in the running statistics of the batch norm; less than 0.1 steadies these where
            a mini-batch has few sub-images.
        method: "joint"; "regression": all patches have the same vote and all landmarks the confidence 1; or
            "classification": patches vote for their own centre (the rows R and C of Table I).

    Attributes:
        local_size: buffer, the size of a local sub-image in voxels; 0 until the local networks have been trained, and
            then the landmarks are those of the global network.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        filters: Sequence[int] = (16, 32, 64, 128, 256),
        blocks: Sequence[int] = (3, 4, 6, 3),
        pooled_blocks: Sequence[int] = (0, 1),
        head_filters: int = 256,
        local_filters: Sequence[int] = (32, 64),
        local_head_filters: int = 64,
        log_displacements: bool = True,
        method: str = "joint",
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        if method not in METHODS:
            raise ValueError(f"The method must be one of {METHODS}, got '{method}'.")
        self.spatial_dims = spatial_dims
        self.num_landmarks = num_landmarks
        self.log_displacements = log_displacements
        self.method = method
        self.global_net = GlobalPatchNet(
            spatial_dims, in_channels, num_landmarks, filters, blocks, pooled_blocks, head_filters
        )
        self.local_nets = LocalPatchNets(spatial_dims, in_channels, num_landmarks, local_filters, local_head_filters)
        for part in (self.global_net, self.local_nets):  # a head that no loss sees: none waits for its gradient
            part.displacement.requires_grad_(method != "classification")
            part.presence.requires_grad_(method != "regression")
        for module in self.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                module.momentum = norm_momentum
        self.grid_spacing = self.global_net.grid_spacing
        self.local_spacing = self.local_nets.grid_spacing
        self.register_buffer("local_size", torch.zeros((), dtype=torch.int64))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> (B, N * (D + 1), *grid), the output of `GlobalPatchNet`."""
        return self.global_net(image)

    @torch.jit.export
    def localise(self, image: torch.Tensor) -> torch.Tensor:
        """Find the landmarks of images.

        Args:
            image: shape (B, C, *spatial), any size.

        Returns:
            shape (B, N, D + 2): coordinates in voxels, confidence (see `refine`) and spread of the votes in voxels.
        """
        return self.refine(image, self.global_net(image))

    @torch.jit.export
    def refine(self, image: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """Landmarks from the global grid of images, refined by the local networks where these are trained.

        The confidence is the highest presence probability of a patch, in the global or the local grid, whichever is
        lower. The spread is the weighted root mean square distance of the last stage's votes.

        Args:
            image: shape (B, C, *spatial).
            grid: shape (B, N * (D + 1), *grid), what `forward` gives of them.

        Returns:
            as `localise`.
        """
        points, confidence, spread = self.vote(grid, self.grid_spacing)
        size = int(self.local_size.item())
        if size > 0:
            starts = self.centred(points, image.shape[2:], size)
            local_grid = self.local_nets(sub_images(image, starts, size).to(image.dtype))
            local_points, local_confidence, spread = self.vote(local_grid, self.local_spacing)
            points = torch.where(points.isnan(), points, local_points + starts.to(points.dtype))
            confidence = torch.minimum(confidence, local_confidence)
        return torch.cat([points, confidence.unsqueeze(-1), spread.unsqueeze(-1)], -1)

    def centred(self, points: torch.Tensor, spatial_size: list[int], size: int) -> torch.Tensor:
        """First voxels (B, N, D) of sub-images around points (B, N, D); one off the image counts as on its border."""
        last = torch.tensor(spatial_size, device=points.device, dtype=points.dtype) - 1
        inside = torch.minimum(points.nan_to_num(0.0).clamp(min=0.0), last)
        return (inside - (size - 1) / 2).round().long()

    def vote(self, grid: torch.Tensor, spacing: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Points (B, N, D) in voxels, confidences (B, N) and spreads (B, N) in voxels from an output grid."""
        n, d = self.num_landmarks, self.spatial_dims
        grid = grid.float()
        displacement = grid[:, : n * d].reshape([grid.shape[0], n, d] + list(grid.shape[2:]))
        presence = grid[:, n * d :].sigmoid()
        if self.method == "classification":
            displacement = torch.zeros_like(displacement)
        elif self.method == "regression":
            presence = torch.ones_like(presence)
        points, spread = vote_landmarks(displacement, presence, spacing, self.log_displacements)
        return points, presence.flatten(2).amax(-1), spread
