"""Whether predicted landmarks look like the anatomy at all: the image may show something else."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import TransformBackends
from scipy.spatial import procrustes

FEWEST_POINTS = {2: 3, 3: 4}  # of which similarity transforms leave a shape


def shape_distance(points: np.ndarray, mean_shape: np.ndarray) -> float:
    """How far a shape is from another after the best translation, rotation, reflection and scaling.

    Args:
        points: landmarks (N, D) in any unit; those without a position (NaN, +inf) are left out of both shapes. Those of
            a flat image may lie in a plane of the world (N, 3).
        mean_shape: likewise, (N, D), without gaps.

    Returns:
        the full Procrustes distance, between 0 (the same shape) and 1; NaN where fewer than D + 1 landmarks have a
        position, or all lie on one place.
    """
    known = np.isfinite(points).all(axis=-1)
    if known.sum() < FEWEST_POINTS[mean_shape.shape[-1]] or np.ptp(points[known], axis=0).max() == 0:
        return float("nan")
    mean_shape = np.pad(mean_shape, ((0, 0), (0, points.shape[-1] - mean_shape.shape[-1])))
    return float(np.sqrt(procrustes(mean_shape[known], points[known])[2]))


def mean_shape_of(shapes: np.ndarray, rounds: int = 10) -> np.ndarray:
    """The mean of shapes that are aligned to it (generalised Procrustes analysis, Gower 1975).

    Args:
        shapes: landmarks (M, N, D) without gaps.
        rounds: of alignment.

    Returns:
        (N, D), centred, of norm 1.
    """
    mean = shapes[0]
    for _ in range(rounds):
        aligned = [procrustes(mean, shape)[1] for shape in shapes]
        mean = np.mean(aligned, axis=0)
        mean = (mean - mean.mean(axis=0)) / np.linalg.norm(mean - mean.mean(axis=0))
    return mean


class Plausibilityd(MapTransform):
    """Tell of landmarks that are unlikely to be those of the anatomy, since the image may show something else.

    Args:
        keys: landmarks (1, N, D), world coordinates (RAS), as decoded; they stay as they are.
        mean_shape: N points in any unit and pose; empty to look at the confidence alone. It is not looked at where
            the number of landmarks is another, as it is with a selection of them.
        max_shape_distance: largest likely `shape_distance` from it.
        min_mean_confidence: smallest likely mean of the landmarks' confidences.
        confidence_key: confidences (N,).
        unlikely_key: where the reason is written; "" for landmarks that are likely.
    """

    backend = [TransformBackends.NUMPY]

    def __init__(
        self,
        keys: KeysCollection = "pred",
        mean_shape: Sequence[Sequence[float]] = (),
        max_shape_distance: float = 1.0,
        min_mean_confidence: float = 0.0,
        confidence_key: str = "confidence",
        unlikely_key: str = "unlikely",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mean_shape = np.asarray(mean_shape, dtype=np.float64)
        self.max_shape_distance = max_shape_distance
        self.min_mean_confidence = min_mean_confidence
        self.confidence_key = confidence_key
        self.unlikely_key = unlikely_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[self.unlikely_key] = self.reason(
                torch.as_tensor(item[key])[0].cpu().double().numpy(),
                float(torch.as_tensor(item[self.confidence_key]).float().mean()),
            )
        return item

    def reason(self, points: np.ndarray, confidence: float) -> str:
        """Why landmarks (N, D) with this mean confidence are unlikely, or ""."""
        reasons = []
        if confidence < self.min_mean_confidence:
            reasons.append(f"mean confidence {confidence:.2f} under {self.min_mean_confidence:g}")
        if self.mean_shape.shape == points.shape:
            distance = shape_distance(points, self.mean_shape)
            if distance > self.max_shape_distance:
                reasons.append(f"shape {distance:.2f} from the mean, over {self.max_shape_distance:g}")
        return " and ".join(reasons)
