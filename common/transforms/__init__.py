from .chain_decoding import along_chain
from .deformation import RandAffineElastic, RandAffineElasticd
from .heatmap_decoding import (
    HeatmapsToLandmarksd,
    decode_heatmaps,
    heatmap_blob_centroid,
    heatmap_maximum,
    heatmap_parabola,
    heatmap_soft_argmax,
    smooth_heatmaps,
)
from .heatmaps import (
    GaussianHeatmap,
    GaussianHeatmapd,
    LaplaceHeatmap,
    LaplaceHeatmapd,
    draw_heatmaps,
    peak_height,
)
from .landmark_loading import LoadLandmarksd, to_file_space, to_image_world
from .millimetres import InMillimetresd, MillimetreScaled
from .patch_grid import (
    LandmarksToPatchGrid,
    LandmarksToPatchGridd,
    PatchGridToLandmarks,
    PatchGridToLandmarksd,
    encode_patch_grid,
    linear_displacement,
    log_displacement,
    patch_centres,
    patch_grid_size,
    vote_landmarks,
)
from .plausibility import Plausibilityd, mean_shape_of, shape_distance
from .resize_to_fit import ResizeToFit, ResizeToFitd
from .sub_images import RandLandmarkSubImagesd, sub_images
from .template_fitting import fit_template
from .template_registration import RegisterToTemplate, RegisterToTemplated, average_template, make_template
from .votes import VotesToLandmarksd
