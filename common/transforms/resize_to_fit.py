"""Images as large as a size allows, with their aspect kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Resize, Transform
from monai.utils import ensure_tuple_rep


class ResizeToFit(Transform):
    """Scale an image so that it just fits into a size; MONAI's `Resize` knows the longest axis alone.

    Padding comes after it (`ResizeWithPadOrCropd`), where the value of the padding is known. Nothing is cut off, also
    where image and size have another aspect.

    Args:
        spatial_size: size to fit into, one for each axis, x first, or one for all.
        mode: interpolation of `monai.transforms.Resize`.
    """

    def __init__(self, spatial_size: int | Sequence[int], mode: str = "area") -> None:
        self.spatial_size = spatial_size
        self.mode = mode

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """(C, *spatial) with affine -> (C, *smaller or equal to `spatial_size`, equal on one axis)."""
        shape = image.shape[1:]
        limits = ensure_tuple_rep(self.spatial_size, len(shape))
        factor = min(limit / n for limit, n in zip(limits, shape))
        return Resize([max(1, round(n * factor)) for n in shape], mode=self.mode)(image)


class ResizeToFitd(MapTransform):
    """Dictionary-based `ResizeToFit`.

    Args:
        keys: images, each resized on its own.
        spatial_size: see `ResizeToFit`.
        mode: see `ResizeToFit`.
        allow_missing_keys: whether an item without the image is left as it is.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: int | Sequence[int],
        mode: str = "area",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.resize = ResizeToFit(spatial_size, mode)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.resize(item[key])
        return item
