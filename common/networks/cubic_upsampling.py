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
    """Upsample by an even integer factor with half-pixel centres, cubic coefficient -0.5 and zeros outside.

    `torch.nn.functional.interpolate` differs: its cubic has the coefficient -0.75, repeats borders and has no
    3D. One axis after the other, each a depthwise transposed convolution with a constant kernel, so that the
    module is scripted and exported with dynamic sizes like any convolution (and under autocast computed in its type).

    Args:
        spatial_dims: 2 or 3.
        channels: number of channels C.
        factor: even upsampling factor.

    Raises:
        ValueError: if the factor is not a positive even number.
    """

    def __init__(self, spatial_dims: int, channels: int, factor: int) -> None:
        super().__init__()
        if factor < 2 or factor % 2:
            raise ValueError(f"The upsampling factor must be a positive even number, got {factor}.")
        self.spatial_dims = spatial_dims
        self.channels = channels
        self.factor = factor
        # output sample k of a kernel of 4 input samples lies at (k + 0.5) / factor - 2 from its input sample
        distance = (torch.arange(4 * factor, dtype=torch.float64) + 0.5) / factor - 2
        self.register_buffer("kernel", cubic_kernel(distance).float(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> (B, C, *(factor * spatial))."""
        f, pad = self.factor, self.factor * 3 // 2
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
