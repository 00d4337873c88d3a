"""What crosses from the data loader to the device: the image and N points."""

from typing import Any

import torch
from monai.engines import PrepareBatch

from ..transforms.coordinates import world_to_voxel


class PrepareBatchLandmarks(PrepareBatch):
    """Give the trainer images and landmarks in voxels of these images.

    The one place where world coordinates become voxels for a loss; the affine is the one that the image carries
    after all its spatial transforms. Targets are made in the loss, on the device.

    Args:
        image_key: images, MetaTensor (B, C, *spatial) with affines (B, 4, 4).
        label_key: landmarks in world coordinates (RAS), float64 (B, 1, N, D).
    """

    def __init__(self, image_key: str = "image", label_key: str = "label") -> None:
        self.image_key = image_key
        self.label_key = label_key

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns images (B, C, *spatial) and points (B, N, D) in float32, both on the device."""
        image = batchdata[self.image_key]
        points = world_to_voxel(batchdata[self.label_key][:, 0], image.affine).float()
        image = image.as_tensor().to(device=device, non_blocking=non_blocking, **kwargs)
        return image, points.to(device=device, non_blocking=non_blocking)
