"""What an optimiser is given."""

from .parameter_groups import kernel_decay_groups
