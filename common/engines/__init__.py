"""How batches reach the engines, and the engine of prediction."""

from .prediction import PredictionEvaluator
from .prepare_batch import PrepareBatchLandmarks
