"""Pictures of landmarks and of their errors."""

from .error_curve import save_error_curve
from .markups_picture import draw_markups
from .overlay import draw_overlay, grey_picture
from .overlay_picture import overlay_picture
from .vector_field import draw_vector_field
from .volume_overlay import draw_volume_overlay
