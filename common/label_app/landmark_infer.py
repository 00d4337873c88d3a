"""Prediction of one image on the server."""

import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.basic_infer import BasicInferTask
from monailabel.tasks.infer.bundle import BundleConstants, BundleInferTask
from monailabel.utils.others.class_utils import unload_module

from ..data.markups_files import found_points, markup_node, write_markup_nodes
from ..handlers.checkpoint import load_weights, shipped_overlays
from ..handlers.predictions import measurement_nodes
from ..transforms.landmark_loading import to_file_space
from .client_errors import told_to_the_client
from .served_bundles import ServedBundle, modified, on_python_path

logger = logging.getLogger(__name__)


class LandmarkInferTask(BundleInferTask):
    """A bundle's inference.json behind MONAI Label; the answer is a `.mrk.json` with a point for each landmark.

    Points are in the image's own coordinates, as 3D Slicer shows it. Beside the file come the `confidence` of each
    landmark, why the image may show something else (`unlikely`, else empty), and, of heads and spines, the clinical
    `measurements`. With the request's parameter `measurements` the file holds their lines and angles too.

    Unlike MONAI Label's own task it does without weights as long as there are none, reads them again when they change,
    and refuses those of another network. Its network is the one that the config's transforms refer to, so that a
    template among the weights is there for the registration.

    Args:
        bundle: what to serve.
    """

    def __init__(self, bundle: ServedBundle) -> None:
        self.bundle = bundle
        self.bundle_path = str(bundle.folder)
        self.bundle_config = bundle.config("inference")
        self.const = BundleConstants()
        self.pre_filter, self.post_filter = None, []
        self.extend_load_image, self.add_post_restore = True, False
        self.dropout = 0.0
        self.landmarks = bundle.landmarks
        metadata = bundle.metadata
        self.version = metadata["version"]
        (self.key_image, image), *_ = metadata["network_data_format"]["inputs"].items()
        self.key_pred = next(iter(metadata["network_data_format"]["outputs"]))
        self.loaded: tuple[str, int] | None = None
        # Not the parent's own constructor, which refuses a bundle without models/model.pt.
        BasicInferTask.__init__(
            self,
            path=bundle.weights,
            network=None,
            type=InferType.SEGMENTATION,  # clients run models of this type on an image alone
            labels={name: number for number, name in enumerate(self.landmarks)},
            dimension=len(image["spatial_shape"]),
            description=metadata.get("description", ""),
            input_key=self.key_image,
            output_label_key=self.key_pred,
            config={"measurements": False} if self.measurements_id else None,
        )
        self.valid = True

    @property
    def measurements_id(self) -> str | None:
        """Id in the config of what draws lines and angles, None where there is none."""
        for number, handler in enumerate(self.bundle_config.config.get("handlers", [])):
            if handler.get("measurements"):
                return f"handlers::{number}::measurements"
        return None

    def is_valid(self) -> bool:
        """Whether there are weights."""
        return self.get_path() is not None

    def __call__(self, request: Mapping[str, Any], callbacks: Any = None) -> tuple[str, dict[str, Any]]:
        if not request.get("image"):  # the path that MONAI Label found for the name
            raise HTTPException(
                status_code=400, detail="The studies folder has no image of this name; upload it first."
            )
        with told_to_the_client():
            return super().__call__(request, callbacks)

    def pre_transforms(self, data: Mapping[str, Any] | None = None) -> Sequence[Callable]:
        self._get_network(data["device"] if data else "cpu", data)
        return super().pre_transforms(data)

    def run_pre_transforms(self, data: dict[str, Any], transforms: Sequence[Callable]) -> dict[str, Any]:
        # The transforms get what they get in the bundle's own prediction: MONAI's Spacing stumbles over "image_path".
        request = {self.input_key: data[self.input_key]}
        return {**data, **super().run_pre_transforms(request, transforms)}

    def _get_network(self, device: str, data: Mapping[str, Any] | None) -> torch.nn.Module:
        path = self.get_path()
        if path is None:
            overlays = shipped_overlays(Path(self.path[1]).parent)
            way = "".join(f"serve those there with --conf overlay {name}, " for name in overlays)
            raise HTTPException(
                status_code=400,
                detail=f"{self.bundle.name}: has no weights yet; {way}train it, or put them to {self.path[1]}.",
            )
        with on_python_path(self.bundle.folder):
            unload_module("scripts")
            self._update_device({"device": device})
            network = self.bundle_config.get_parsed_content("network", instantiate=True)
        if self.loaded != modified(path):
            self.loaded = None
            load_weights(network, path)
            self.loaded = modified(path)
            logger.info("%s: weights from %s", self.bundle.name, path)
        return network.to(device).eval()

    def writer(self, data: dict[str, Any], extension: Any = None, dtype: Any = None) -> tuple[str, dict[str, Any]]:
        """The `.mrk.json`, and what goes with it as JSON."""
        meta = data[self.input_key].meta
        points = torch.as_tensor(data[self.output_label_key])[0].double().cpu()
        confidence = [float(value) for value in data["confidence"]]
        _, world = to_file_space(points, meta)
        told = [f"confidence {value:.3f}" if math.isfinite(value) else "" for value in confidence]
        nodes = [markup_node("Fiducial", found_points(world.numpy()), self.landmarks, told, name=self.bundle.name)]
        drawn = self.measurements(points, meta)
        if data.get("measurements") in (True, "true", "True"):
            nodes += drawn
        with tempfile.NamedTemporaryFile(suffix=".mrk.json", delete=False) as file:
            path = Path(file.name)
        write_markup_nodes(path, nodes)
        values = {value["name"]: value for node in drawn for value in node.get("measurements", [])}
        told_of_each = ("value", "units", "description")
        return str(path), {
            "unlikely": str(data.get("unlikely", "")),
            "confidence": {n: c if math.isfinite(c) else None for n, c in zip(self.landmarks, confidence)},
            "measurements": {name: {key: value[key] for key in told_of_each} for name, value in values.items()},
        }

    def measurements(self, points: torch.Tensor, meta: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Lines and angles as nodes of a `.mrk.json`, none where the bundle has none."""
        if self.measurements_id is None:
            return []
        with on_python_path(self.bundle.folder):
            unload_module("scripts")
            draw = self.bundle_config.get_parsed_content(self.measurements_id, instantiate=True)
        return measurement_nodes(draw, points, self.landmarks, meta)
