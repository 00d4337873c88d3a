"""What a network gives, heatmaps or votes of patches, and what tests of bundles must know of each."""

from dataclasses import dataclass

import torch

from common.transforms import decode_heatmaps


@dataclass(frozen=True)
class Stage:
    """A part of a training.

    Args:
        section: of train.json that has its trainer.
        network: id of what it trains, as a training in several processes wraps it.
        weights: what the names of the weights that it trains begin with.
    """

    section: str
    network: str
    weights: str

    @property
    def suffix(self):
        """What the names of its files end with."""
        return "" if self.section == "train" else f"_{self.section}"

    @property
    def checkpoint(self):
        return f"checkpoint{self.suffix}.pt"


class Heatmaps:
    """A heatmap per landmark, of the size of the image.

    Attributes:
        stages: of a training.
        interruptions: for each stage, the settings of a training of two epochs a stage that ends in its middle.
        format: of the output in the metadata.
        shapes: of images for exported networks, by dimensions.
        report: settings of an evaluation.
    """

    stages = (Stage("train", "network", ""),)
    interruptions = ({"max_epochs": 1},)
    format = "heatmap"
    shapes = {2: [(1, 1, 64, 64), (2, 1, 96, 32)]}
    report = {}

    @staticmethod
    def telling(weights):
        """Weights whose expected peaks differ from 1 and from each other."""
        weights["unit_peak.expected_peak"] = torch.linspace(0.5, 2, len(weights["unit_peak.expected_peak"]))
        return weights

    @staticmethod
    def shape(config, spatial):
        """Of what the network of an inference.json gives for one image of a size."""
        return (1, len(config["landmarks"]), *spatial)

    @staticmethod
    def landmarks(network, image, config):
        """Points (N, D) in voxels, confidences (N,) and spreads (N,) or None, by a direct call for one image.

        inference.json says how points are read off heatmaps, with the settings that it refers to.
        """
        transform = config["postprocessing"]["transforms"][0]
        settings = {key: transform[key] for key in ("method", "threshold") if key in transform}
        settings = {k: config[v[1:]] if isinstance(v, str) and v.startswith("@") else v for k, v in settings.items()}
        with torch.no_grad():
            points, confidence = decode_heatmaps(network(image[None, None]), **settings)
        return points[0].double().numpy(), confidence[0].numpy(), None


class Votes:
    """Displacements and presence for every patch, by a global network; local networks refine the landmarks."""

    stages = (Stage("train", "train::network", "global_net."), Stage("local", "local::network", "local_nets."))
    interruptions = ({"max_epochs": 1, "local_stage": False}, {"max_epochs": 2, "local::max_epochs": 1})
    format = "magnitude"
    shapes = {2: [(1, 1, 64, 64), (2, 1, 90, 37)], 3: [(1, 1, 24, 24, 24), (2, 1, 30, 17, 21)]}
    report = {"max_vector_fields": 1}

    @staticmethod
    def telling(weights):
        """Weights whose local networks are switched on, and whose patches differ in what they believe."""
        weights["local_size"] = torch.tensor(8)
        for part in ("global_net", "local_nets"):
            weights[f"{part}.presence.4.weight"] *= 100
            weights[f"{part}.displacement.4.weight"] *= 3
        return weights

    @staticmethod
    def shape(config, spatial):
        patch = 2 * 2 ** len(config["pooled_blocks"])  # the first convolution halves, and so does every pooling
        return (1, len(config["landmarks"]) * (len(spatial) + 1), *(-(-n // patch) for n in spatial))

    @staticmethod
    def landmarks(network, image, config):
        with torch.no_grad():
            found = network.localise(image[None, None])[0].double().numpy()
        return found[:, :-2], found[:, -2], found[:, -1]


HEATMAPS, VOTES = Heatmaps(), Votes()
