"""How a network is applied to an image."""

from .autocast import AutocastInferer
from .voting import VotingInferer, tiled_grid
