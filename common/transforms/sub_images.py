"""Sub-images around landmarks, for the local networks (noothout2020, Section V-A.1)."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable

from .coordinates import is_present, world_to_voxel


def sub_images(image: torch.Tensor, starts: torch.Tensor, size: int) -> torch.Tensor:
    """Cut one sub-image per landmark, with zeros beyond the image's borders.

    Args:
        image: shape (B, C, *spatial).
        starts: first voxel of each, shape (B, N, D), int64; may lie off the image.
        size: voxels along each axis.

    Returns:
        shape (B, N * C, size, ...).
    """
    batch, channels, dims = image.shape[0], image.shape[1], image.ndim - 2
    count = starts.shape[1]
    index = torch.zeros([batch, count] + [1] * dims, dtype=torch.int64, device=image.device)
    valid = torch.ones([batch, count] + [1] * dims, dtype=torch.bool, device=image.device)
    for axis in range(dims):
        shape = [batch, count] + [1] * dims
        shape[2 + axis] = size
        extent = image.shape[2 + axis]
        along = (starts[:, :, axis].unsqueeze(-1) + torch.arange(size, device=image.device)).reshape(shape)
        valid = valid & (along >= 0) & (along < extent)
        index = index * extent + along.clamp(0, extent - 1)
    picked = index.reshape(batch, 1, -1).expand(batch, channels, -1)
    values = image.flatten(2).gather(2, picked).reshape([batch, channels, count] + [size] * dims)
    values = values * valid.unsqueeze(1).to(values.dtype)
    return values.transpose(1, 2).flatten(1, 2)


class RandLandmarkSubImagesd(Randomizable, MapTransform):
    """Cut a sub-image per landmark, at a random place that holds the landmark.

    All N lie side by side in the channels, as `common.networks.LocalPatchNets` takes them. Each has its own voxels, so
    that the result's affine is the identity and the landmarks' coordinates are voxels of their own sub-image. For a
    landmark without a position the place is anywhere in the image. Beyond the image's borders there are zeros.

    Args:
        keys: image, MetaTensor (C, *spatial); becomes (N * C, size, ...).
        label_key: landmarks in world coordinates (RAS), (1, N, D); become voxels of their sub-images.
        network: `common.networks.PatchRegressionNet`; its `local_size` at the time when an image is cut is the size.
        num_samples: sets of sub-images from each image.
    """

    def __init__(
        self,
        keys: KeysCollection,
        network: torch.nn.Module,
        label_key: str = "label",
        num_samples: int = 1,
    ) -> None:
        super().__init__(keys)
        self.label_key = label_key
        self.network = getattr(network, "module", network)
        self.num_samples = num_samples

    def randomize(self, points: torch.Tensor, spatial_size: np.ndarray, size: int) -> torch.Tensor:
        """First voxels (1, N, D) of sub-images that hold the points (N, D), in voxels."""
        anywhere = torch.as_tensor(self.R.uniform(-0.5, spatial_size - 0.5, size=tuple(points.shape)))
        held = torch.where(is_present(points).unsqueeze(-1), points, anywhere)
        held = (held + 0.5 + 1e-9).floor().long()  # half voxels up, for patches are half open; an affine may round them
        return (held - torch.as_tensor(self.R.randint(0, size, size=tuple(points.shape)))).unsqueeze(0)

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        size = int(self.network.local_size)
        samples = []
        for _ in range(self.num_samples):
            item = dict(data)
            for key in self.keys:
                image = item[key]
                points = world_to_voxel(item[self.label_key][0], image.affine)
                starts = self.randomize(points, np.asarray(image.shape[1:]), size)
                cut = sub_images(image.as_tensor().unsqueeze(0), starts.to(image.device), size)[0]
                item[key] = MetaTensor(cut, affine=torch.eye(4, dtype=torch.float64))
                item[self.label_key] = points[None] - starts
            samples.append(item)
        return samples
