"""Handlers for MONAI's trainers and evaluators."""

from .checkpoint import (
    LoadWeights,
    ResumableCheckpoint,
    find_weights,
    load_initial_weights,
    load_weights,
    read_checkpoint,
    save_atomically,
)
from .expected_peak import ExpectedPeak
from .gradient_clip import GradientClip
from .landmark_training import LandmarkTraining
from .local_stage import LocalStage
from .measure import Measure
from .predictions import SaveLandmarks
from .progress import Progress
from .report import LandmarkReport, landmark_status
from .reproducibility import EpochSeed
from .tensorboard_overlay import TensorBoardOverlay
from .vector_fields import VectorFields
