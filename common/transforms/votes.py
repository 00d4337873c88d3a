"""From a patch network's answer for one image to landmarks in the world."""

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import TransformBackends

from .coordinates import voxel_to_world


class VotesToLandmarksd(MapTransform):
    """World landmarks from what `common.inferers.VotingInferer` found, for postprocessing of a decollated batch.

    Args:
        keys: shape (N, D + 2): voxels of the image, confidence, spread of the votes in voxels; replaced by landmarks
            (1, N, D), world coordinates (RAS), float64, on the CPU.
        image_key: the image, a MetaTensor with a 4x4 affine.
        min_confidence: a landmark with less, in which no patch believes, is absent: a row of +inf.
        confidence_key: where the confidences go, float32, shape (N,), on the CPU.
        spread_key: where the spreads go, likewise, in millimetres where `scale_key` is there, else in world units.
        scale_key: millimetres per world unit.
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection = "pred",
        image_key: str = "image",
        min_confidence: float = 0.0,
        confidence_key: str = "confidence",
        spread_key: str = "spread",
        scale_key: str = "mm_per_world",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.min_confidence = min_confidence
        self.confidence_key = confidence_key
        self.spread_key = spread_key
        self.scale_key = scale_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        item = dict(data)
        affine = item[self.image_key].affine
        for key in self.key_iterator(item):
            votes = torch.as_tensor(item[key]).detach().cpu()
            dims = votes.shape[1] - 2
            points, confidence, spread = votes[:, :dims].double(), votes[:, dims].float(), votes[:, dims + 1].float()
            points[confidence < self.min_confidence] = torch.inf
            voxel = float(torch.linalg.det(affine[:dims, :dims].double()).abs() ** (1 / dims))
            item[key] = voxel_to_world(points.as_subclass(torch.Tensor)[None], affine)
            item[self.confidence_key] = confidence.as_subclass(torch.Tensor)
            item[self.spread_key] = spread.as_subclass(torch.Tensor) * voxel * float(item.get(self.scale_key, 1.0))
        return item
