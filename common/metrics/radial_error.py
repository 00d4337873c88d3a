"""Radial errors: the distance between predicted and true landmarks, and what papers report of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric


def radial_errors(pred: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Euclidean distances (..., N) between points (..., N, D); NaN where either has no position."""
    distance = (pred - truth).norm(dim=-1)
    return torch.where(distance.isfinite(), distance, torch.nan)


class RadialError(CumulativeIterationMetric):
    """Radial error per image and landmark, in the unit of the points.

    Called with points of shape (B, 1, N, D), or lists of (1, N, D); keeps a table (images, N) in float64 with NaN
    for landmarks without a coordinate. `aggregate` gives the mean radial error (MRE) over all that have one.
    """

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        return radial_errors(y_pred.double()[:, 0], y.double()[:, 0])

    def aggregate(self) -> torch.Tensor:
        return self.get_buffer().nanmean()

    def _sync(self) -> None:
        """Take the table of this process: distributed runs evaluate in one, and the others answer no gathering."""
        if not self._synced and self._buffers is not None:
            self._synced_tensors = [torch.stack(buffer) for buffer in self._buffers]
            self._synced = True


def bootstrap_interval(
    table: np.ndarray, statistic: Any, repeats: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of a table (images, N), images drawn with replacement.

    Landmarks of one image are not independent, so whole images are drawn. `statistic` takes a flat array of the
    finite errors.
    """

    def of_images(drawn: np.ndarray) -> float:
        errors = table[drawn]
        errors = errors[np.isfinite(errors)]
        return statistic(errors) if errors.size else float("nan")

    return bootstrap_over_images(len(table), of_images, repeats, seed, level)


def bootstrap_over_images(
    count: int, statistic: Any, repeats: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic that takes the indices (count,) of images drawn with replacement.

    Draws of which it makes NaN do not count; NaN where no other is left.
    """
    rng = np.random.default_rng(seed)
    values = np.array([statistic(rng.integers(count, size=count)) for _ in range(repeats)], dtype=np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        return float("nan"), float("nan")
    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def error_statistics(errors: np.ndarray, thresholds: Sequence[float] = ()) -> dict[str, Any]:
    """What papers report of radial errors of any shape; NaN entries are left out and not counted.

    Returns:
        `count`, `mean` (MRE), `sd`, `median`, `q1`, `q3`, `iqr`, `max`, and for every threshold (unit of the errors)
        `sdr` (successful detection rate: percentage at or under it) and `edr` (percentage over it).
        All None where there is no error to report.
    """
    errors = np.asarray(errors, dtype=np.float64)
    errors = errors[np.isfinite(errors)]
    names = ("mean", "sd", "median", "q1", "q3", "iqr", "max")
    if not errors.size:
        return {"count": 0, **dict.fromkeys(names), "sdr": {}, "edr": {}}
    q1, median, q3 = np.percentile(errors, [25, 50, 75])
    values = (errors.mean(), errors.std(), median, q1, q3, q3 - q1, errors.max())
    sdr = {f"{t:g}": float(100 * (errors <= t).mean()) for t in thresholds}
    return {
        "count": int(errors.size),
        **{name: float(value) for name, value in zip(names, values)},
        "sdr": sdr,
        "edr": {t: 100 - rate for t, rate in sdr.items()},
    }


def error_intervals(table: np.ndarray, thresholds: Sequence[float] = ()) -> dict[str, Any]:
    """95 % bootstrap intervals over images of the mean, the median and the SDR of a table (images, N)."""
    return {
        "mean": bootstrap_interval(table, np.mean),
        "median": bootstrap_interval(table, np.median),
        "sdr": {f"{t:g}": bootstrap_interval(table, lambda e, t=t: 100 * (e <= t).mean()) for t in thresholds},
    }


def is_lower(current: float, best: float) -> bool:
    """Whether an error is better than the best so far; any number is better than NaN."""
    return bool(current < best or (np.isnan(best) and not np.isnan(current)))
