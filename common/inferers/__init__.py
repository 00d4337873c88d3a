"""How a network is applied to an image."""

from .autocast import AutocastInferer
from .view_selection import OtherViews, ViewSelectingInferer
from .voting import VotingInferer, tiled_grid
