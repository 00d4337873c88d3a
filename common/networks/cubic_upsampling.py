"""Cubic upsampling as a fixed transposed convolution (payer2019), in 2D and 3D."""

import torch
from torch import nn
from torch.nn import functional as F


def cubic_kernel(distance: torch.Tensor, a: float = -0.5) -> torch.Tensor:
    """Cubic convolution kernel (Keys 1981) at the given distances, in samples; zero from 2 on."""
    x = distance.abs()
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


class CubicUpsampling(nn.Module):
    """Upsample by an even integer factor with half-pixel centres and cubic coefficient -0.5.

    `torch.nn.functional.interpolate` differs: its cubic has the coefficient -0.75, repeats borders and has no
    3D. One axis after the other, each a depthwise transposed convolution with a constant kernel, so that the
    module is scripted and exported with dynamic sizes like any convolution (and under autocast computed in its type).

    Args:
        spatial_dims: 2 or 3.
        channels: number of channels C.
        factor: even upsampling factor.
        border: what lies outside, "zeros", or "gaussian": what a Gaussian through the outermost three samples says, so
            that a heatmap's peak near the border stays where it is. Spatial sizes are then 3 or more.

    Raises:
        ValueError: if the factor is not a positive even number, or the border is none of these.
    """

    def __init__(self, spatial_dims: int, channels: int, factor: int, border: str = "zeros") -> None:
        super().__init__()
        if border not in ("zeros", "gaussian"):
            raise ValueError(f'The border must be "zeros" or "gaussian", got "{border}".')
        if factor < 2 or factor % 2:
            raise ValueError(f"The upsampling factor must be a positive even number, got {factor}.")
        self.spatial_dims = spatial_dims
        self.channels = channels
        self.factor = factor
        self.border = border
        # output sample k of a kernel of 4 input samples lies at (k + 0.5) / factor - 2 from its input sample
        distance = (torch.arange(4 * factor, dtype=torch.float64) + 0.5) / factor - 2
        self.register_buffer("kernel", cubic_kernel(distance).float(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> (B, C, *(factor * spatial))."""
        f, pad = self.factor, self.factor * 3 // 2
        if self.border == "gaussian":
            for axis in range(2, self.spatial_dims + 2):
                x = extrapolated(x, axis)
            pad += 2 * f  # what lies outside is not given back
        if self.spatial_dims == 2:
            weight = self.kernel.to(x.dtype).expand(self.channels, 1, -1)
            x = F.conv_transpose2d(x, weight.unsqueeze(-1), stride=[f, 1], padding=[pad, 0], groups=self.channels)
            return F.conv_transpose2d(x, weight.unsqueeze(-2), stride=[1, f], padding=[0, pad], groups=self.channels)
        weight = self.kernel.to(x.dtype).reshape(1, 1, -1, 1, 1).expand(self.channels, 1, -1, 1, 1)
        groups = self.channels
        x = F.conv_transpose3d(x, weight, stride=[f, 1, 1], padding=[pad, 0, 0], groups=groups)
        weight = weight.transpose(2, 3)
        x = F.conv_transpose3d(x, weight, stride=[1, f, 1], padding=[0, pad, 0], groups=groups)
        weight = weight.transpose(3, 4)
        return F.conv_transpose3d(x, weight, stride=[1, 1, f], padding=[0, 0, pad], groups=groups)


def extrapolated(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Two more samples at either end of an axis, on the Gaussian through the three that are nearest.

    None is more than the largest of the three, and all are 0 where one of the three is not positive.
    """
    x = x.transpose(axis, -1)
    before, after = samples_beyond(x[..., :3].flip(-1)), samples_beyond(x[..., -3:])
    return torch.cat([before.flip(-1), x, after], -1).transpose(axis, -1)


def samples_beyond(three: torch.Tensor) -> torch.Tensor:
    """Two samples (..., 2) that come after three (..., 3)."""
    positive = (three > 0).all(-1, keepdim=True)
    logarithm = torch.where(positive, three, 1.0).log()
    first, second, third = logarithm[..., 0], logarithm[..., 1], logarithm[..., 2]
    after = torch.stack([first - 3 * second + 3 * third, 3 * first - 8 * second + 6 * third], -1)
    return torch.where(positive, torch.minimum(after.exp(), three.amax(-1, keepdim=True)), 0.0)


def upsampling_to_image(spatial_dims: int, num_landmarks: int, stride: int) -> nn.Module:
    """From heatmaps of blocks of `stride` voxels to those of the voxels; with a stride of 1 nothing is done."""
    return CubicUpsampling(spatial_dims, num_landmarks, stride, "gaussian") if stride > 1 else nn.Identity()
