"""Settings that make each bundle so small that seconds suffice, and the data for it."""

import json
import shutil
from dataclasses import dataclass, field

from .files import FILM, VOLUME, Film
from .outputs import HEATMAPS, VOTES, Heatmaps


@dataclass(frozen=True)
class Tiny:
    """What makes a bundle small.

    Args:
        anatomy: of its phantoms.
        fitting: how its preprocessing brings an image to the network, one of `network_input.FITTINGS`.
        size: setting by which it does: the size of the network's input, or that of its voxels.
        network: settings of the network, in train.json and inference.json alike.
        training: settings of train.json alone.
        multiple: what every size of an image must be a multiple of, with any overlay; 0 for any size.
        grey: what it makes of grey values, one of `network_input.GREYS`.
        images: what its files are, films or volumes.
        output: what its network gives, heatmaps or votes of patches.
    """

    anatomy: str
    fitting: str
    size: dict
    network: dict
    training: dict = field(default_factory=dict)
    multiple: int = 0
    grey: str = "range"
    images: Film = FILM
    output: Heatmaps = HEATMAPS

    @property
    def settings(self):
        """Of train.json and inference.json alike."""
        return {**self.size, **self.network}


def pixels(x, y):
    return {"image_size": [x, y]}


def voxels(spacing):
    return {"voxel_size": [spacing] * 3}


SCN = {
    "num_filters": 4,
    "num_levels": 3,
    "spatial_filters": 4,
    "spatial_kernel_size": 3,
    "spatial_downsampling": 8,
    "head_std": 0.1,
}
DACN = {"num_filters": 4, "context_size": [8, 8], "context_filters": 4}
FARNET = {"num_filters": 8}  # its encoder has one width
RANDOM = {"encoder_weights": "random"}
PATCHES = {
    "filters": [2, 4, 4, 4, 8],
    "blocks": [1, 1, 1, 1],
    "head_filters": 8,
    "local_filters": [2, 4],
    "local_head_filters": 4,
}
PATCHES_OF_FILMS = {**PATCHES, "pooled_blocks": [0, 1, 2, 3]}  # quick.json has fewer
CUBES = {"sub_image_size": [16, 16, 16], "local_size": 8}

TINY = {
    "scn_hand": Tiny("hand", "fit", pixels(64, 64), SCN, multiple=16),
    "scf_unet_hand": Tiny("hand", "fit", pixels(48, 64), {"num_filters": 2}, multiple=64),
    "farnet_cephalometric": Tiny("skull", "stretch", pixels(64, 96), FARNET, RANDOM, multiple=64),
    "farnet_hand": Tiny("hand", "fit", pixels(64, 96), FARNET, RANDOM, multiple=64),
    "farnet_spine": Tiny("spine", "stretch", pixels(64, 96), FARNET, RANDOM, multiple=64),
    # A template with a pixel for about every pixel of the film, so that nothing is averaged before registration.
    "dacn_cephalometric": Tiny("skull", "register", pixels(112, 112), DACN, {"template_films": 2}, multiple=32),
    "dacn_spine": Tiny("spine", "fit", pixels(64, 96), {**DACN, "context_crop": [40, -1]}, multiple=16),
    "patch_regression_ccta": Tiny(
        *("aortic_root", "resample", voxels(6.0), PATCHES, CUBES), grey="window", images=VOLUME, output=VOTES
    ),
    "patch_regression_olfactory_mr": Tiny(
        *("olfactory_bulbs", "resample", voxels(3.0), PATCHES, CUBES), grey="percentiles", images=VOLUME, output=VOTES
    ),
    "patch_regression_cephalometric": Tiny(
        *("skull", "shrink", pixels(72, 96), PATCHES_OF_FILMS, {"sub_image_size": [64, 64]}),
        grey="histogram",
        output=VOTES,
    ),
}


def with_gaps_and_extras(phantoms, folder):
    """Copy a tiny data set, and give it what real ones have.

    The first training and test images lack landmark 7, and have landmark 10 absent; where there are fewer, the first
    and the last. The test images carry what the importers write: heads two observers around the truth, the first film
    a duplicate; spines published Cobb angles.
    """
    shutil.copytree(phantoms / "images", folder / "images")
    content = json.loads((phantoms / "datalist.json").read_text())
    lacking, absent = gaps(content["landmarks"])
    for section in ("training", "test"):
        content[section][0]["landmarks"][lacking] = None
        content[section][0]["landmarks"][absent] = "absent"
    if len(content["landmarks"]) == 19:
        content |= {"truth": "mean of the two doctors", "observers": {"senior": "the first", "junior": "the second"}}
        for item in content["test"]:
            for key, shift in (("senior", 1), ("junior", -1)):
                item[key] = [[x[0], x[1] + shift] if isinstance(x, list) else x for x in item["landmarks"]]
        content["test"][0]["duplicate"] = True
    if len(content["landmarks"]) == 68:
        for item in content["test"]:
            item["cobb_angles"] = [30.0, 20.0, 10.0]
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder


def gaps(landmarks):
    """Numbers of the landmark that the first images lack, and of the one that is absent there."""
    return (7, 10) if len(landmarks) > 10 else (0, len(landmarks) - 1)
