"""How batches reach the engines."""

from .prepare_batch import PrepareBatchLandmarks
