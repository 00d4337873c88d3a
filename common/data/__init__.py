from .aortic_root import AORTIC_ROOT_LANDMARKS
from .cephalometric import CEPHALOMETRIC_LANDMARKS
from .datalist import all_items, datalist_info, load_datalist, write_datalist
from .datasets import AugmentedView, LandmarkDataset, PredictionDataset, input_error_in
from .hand import HAND_LANDMARKS, WRIST_LANDMARKS, WRIST_WIDTH_MM
from .image_files import LandmarkImageReader, read_image
from .image_listing import list_images
from .landmark_files import (
    LandmarkFile,
    inline_points,
    landmark_table,
    match_landmarks,
    read_landmarks,
    write_landmark_table,
    write_markups,
)
from .olfactory_bulbs import OLFACTORY_BULB_LANDMARKS
from .phantom_hand import draw_hand
from .phantoms import phantom_dataset
from .prediction_results import PredictionResults
from .spine import SPINE_LANDMARKS
