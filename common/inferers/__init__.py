"""How a network is applied to an image."""

from .autocast import AutocastInferer
from .mirror import MirrorAveragingInferer
from .voting import VotingInferer, tiled_grid
