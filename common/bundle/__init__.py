"""What a bundle's configs need to know about themselves and the processes that they run in."""

from .distributed import distribute, end_process_group, local_device, share_prediction, start_process_group
from .error_messages import show_input_errors
from .location import bundle_mean_shape, bundle_root
