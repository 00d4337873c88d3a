"""Training on the server, with the points that users saved."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.bundle import BundleTrainTask

from ..data.datalist import write_datalist
from ..data.landmark_files import match_landmarks, read_landmarks
from ..errors import InputError
from .client_errors import told_to_the_client
from .served_bundles import ServedBundle

logger = logging.getLogger(__name__)


class LandmarkTrainTask(BundleTrainTask):
    """A bundle's train.json behind MONAI Label, on the images whose points are saved.

    It starts from the weights that are served, where there are any and the request's `pretrained` is true, and writes
    to the output folder of the served bundle, whose `model.pt` then is what predicts. Labels of other landmarks are
    left out, so that several bundles may share a folder of studies. Of `max_epochs` a tenth lies between two
    validations. The part `val_split` of the images is for validation; where that leaves none, all are for both.

    Args:
        bundle: what to train.
        conf: settings of the app.
    """

    def __init__(self, bundle: ServedBundle, conf: Mapping[str, str]) -> None:
        super().__init__(str(bundle.folder), conf)
        self.bundle = bundle
        self.bundle_config_path = bundle.config_files("train")
        self.bundle_config = bundle.config("train")
        self.pretrained = True

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        with told_to_the_client():
            return super().__call__(request, datastore)

    def _fetch_datalist(self, request: Mapping[str, Any], datastore: Datastore) -> list[dict[str, str]]:
        names, found, reasons = self.bundle.landmarks, [], []
        for item in datastore.datalist():
            try:
                saved = read_landmarks(item["label"])
                if np.isnan(match_landmarks(saved, names, item["label"]).points).all():
                    raise InputError(f"{item['label']}: none of its points has a position; place them and save again.")
                if not set(saved.names) & set(names):
                    logger.warning("%s: its points have no names and are taken in their order.", item["label"])
            except InputError as error:
                reasons.append(str(error))
                logger.warning("left out: %s", error)
                continue
            found.append({"image": item["image"], "label": item["label"]})
        if not found:
            why = f" ({reasons[0]})" if reasons else ""
            raise InputError(f"{self.bundle.name}: no image has its points saved{why}; save some and train again.")
        return found

    def _partition_datalist(
        self, datalist: Sequence[dict[str, str]], request: Mapping[str, Any], shuffle: bool = False
    ) -> tuple[list, list]:
        training, validation = super()._partition_datalist(list(datalist), request, shuffle)
        if not training or not validation:
            logger.warning("%d images with points: all are for training and for validation.", len(datalist))
            return list(datalist), list(datalist)
        return list(training), list(validation)

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list) -> None:
        # Weights are there before the first image is loaded, since a template among them decides how.
        self.pretrained = pretrained

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """What differs on the server from the bundle's own training."""
        lists = {"training": overrides["train#dataset#data"], "validation": overrides["validate#dataset#data"]}
        lists = {key: [{"image": i["image"], "landmarks": i["label"]} for i in items] for key, items in lists.items()}
        output = self.bundle.output
        output.mkdir(parents=True, exist_ok=True)
        name = f"{self.bundle.name} on MONAI Label"
        write_datalist(output, name=name, phantom=False, landmarks=self.bundle.landmarks, **lists)
        epochs = int(overrides["train#trainer#max_epochs"])
        overrides |= {"dataset_dir": str(output), "output_dir": str(output), "resume": False}
        overrides |= {"max_epochs": epochs, "val_interval": max(1, epochs // 10)}
        weights = [path for path in self.bundle.weights if Path(path).is_file()]
        pretrained = self.pretrained and bool(weights)
        if pretrained and "initial_weights" not in self.bundle_config.config:
            raise InputError(
                f"{self.bundle.name}: its train.json has no setting initial_weights, from which a training starts; "
                "take a newer version of the bundle, or train with pretrained false."
            )
        overrides["initial_weights"] = weights[-1] if pretrained else None
        return overrides
