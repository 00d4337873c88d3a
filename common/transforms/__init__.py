from .deformation import RandAffineElastic, RandAffineElasticd
from .heatmap_decoding import (
    HeatmapsToLandmarksd,
    decode_heatmaps,
    heatmap_blob_centroid,
    heatmap_maximum,
    heatmap_parabola,
    heatmap_soft_argmax,
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
from .resize_to_fit import ResizeToFit, ResizeToFitd
from .template_fitting import fit_template
from .template_registration import RegisterToTemplate, RegisterToTemplated, average_template, make_template
