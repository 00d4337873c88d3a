"""Pictures of landmarks and of their errors."""

from .error_curve import save_error_curve
from .overlay import draw_overlay, grey_picture
