"""Tiny bundles that predict whatever they are given, in this process, with random weights."""

import csv
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

import common
from common.data import list_images, read_landmarks
from common.data.image_soundness import printable
from common.errors import InputError
from common.handlers import SaveLandmarks

from ..bundles.tiny import TINY

BUNDLES = Path(common.__file__).resolve().parents[1] / "bundles"


class Predictor:
    """A bundle of tiny settings whose workflow is built once and run on many images."""

    def __init__(self, name, folder, **settings):
        self.folder = folder
        self.weights = folder / "model.pt"
        self.dims = TINY[name].images.dims
        self.config = BUNDLES / name / "configs" / "inference.json"
        self.settings = {"device": "$torch.device('cpu')", "ckpt_path": str(self.weights), **TINY[name].settings}
        self.settings |= settings
        torch.manual_seed(0)
        workflow = ConfigWorkflow(
            str(self.config), logging_file=False, workflow_type="inference", dataset_dir=str(folder),
            output_dir=str(folder / "out"), **self.settings,
        )  # fmt: skip
        workflow.initialize()
        get = workflow.parser.get_parsed_content
        weights = TINY[name].output.telling(get("network_def").state_dict())
        for key in weights:  # without training patches hardly differ
            if key.endswith(("presence.4.weight", "displacement.4.weight")):
                weights[key] *= 30
        torch.save(weights, self.weights)
        self.landmarks = get("landmarks")
        workflow.parser["dataset"]["data"] = []  # the folder holds no image
        workflow.parser.parse(reset=True)
        self.dataset, self.evaluator = get("dataset"), get("evaluator")
        (self.saver,) = [handler for handler in get("handlers") if isinstance(handler, SaveLandmarks)]

    def __call__(self, path, overlays=False):
        """Predict a file or folder.

        Returns:
            rows by image, each (N, dims) file pixels and (N, 3) world RAS by landmarks.csv, and by its .mrk.json; why
            images have no prediction, by their paths; and the log.
        """
        out = self.folder / "out"
        for file in out.glob("*.*"):
            file.unlink()
        for picture in out.glob("overlays/*"):
            picture.unlink()
        try:
            items = list_images(path)
        except InputError as error:  # ends the command before anything is done
            return SimpleNamespace(rows={}, failures={printable(path): str(error)}, log=[])
        self.dataset.data = items
        self.saver.overlays, self.saver.resume = overlays, False
        self.evaluator.state.epoch_length = None  # else that of the run before
        logger, told = logging.getLogger("common"), []
        handler = logging.Handler()
        handler.emit = lambda record: told.append(record.getMessage())
        logger.addHandler(handler)
        try:
            self.evaluator.run()
        finally:
            logger.removeHandler(handler)
        if self.dataset.failures:
            with pytest.raises(InputError, match=f"{len(self.dataset.failures)} of {len(self.dataset.data)} images"):
                self.dataset.require_complete()
        else:
            self.dataset.require_complete()
        return SimpleNamespace(
            rows=rows_of(out, self.dims, overlays),
            failures={printable(path): why for path, why in self.dataset.failures.items()},
            log=told,
        )


def rows_of(folder, dims, overlays=False):
    """Landmarks of a prediction by the paths of its images: file pixels (N, dims) and world RAS (N, 3)."""
    table = folder / "landmarks.csv"
    rows = {}
    if table.is_file():
        with open(table, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                rows.setdefault(row["image"], []).append(row)
    found = {}
    markups = [read_landmarks(path).points for path in folder.glob("*.mrk.json")]
    assert len(markups) == len(rows)
    assert len(list(folder.glob("overlays/*.png"))) == (len(rows) if overlays else 0)
    for image, lines in rows.items():
        pixels = np.array([[float(line[f"pixel_{axis}"]) for axis in "xyz"[:dims]] for line in lines])
        world = np.array([[float(line[f"lps_{axis}"]) for axis in "xyz"] for line in lines]) * [-1, -1, 1]
        assert any(np.allclose(world, points, atol=1e-3) for points in markups)
        found[image] = SimpleNamespace(pixels=pixels, world=world)
    return found


@pytest.fixture(scope="session")
def predictor(tmp_path_factory):
    """Function from a bundle's name to its `Predictor`.

    Voxels of networks are of a size by which no volume here can be divided, so that rounding decides on no grid.
    """
    made = {}

    def get(name):
        if name not in made:
            settings = {"voxel_size": [6.3] * 3} if TINY[name].images.dims == 3 else {}
            made[name] = Predictor(name, tmp_path_factory.mktemp(name), **settings)
        return made[name]

    return get
