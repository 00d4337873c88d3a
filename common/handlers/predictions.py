"""What a prediction leaves behind: one .mrk.json per image, tables of all images, pictures, lines and angles."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from ..bundle.distributed import from_all, from_first, process_rank, share
from ..clinical.markups import ClinicalMarkups
from ..data.atomic_writing import replaced_atomically
from ..data.datasets import PredictionDataset
from ..data.image_soundness import printable
from ..data.landmark_tables import landmark_table
from ..data.markups_files import found_points, markup_node, write_markup_nodes, write_markups
from ..data.prediction_results import PlannedImage, PredictionResults
from ..errors import InputError
from ..transforms.coordinates import voxel_to_world, world_to_voxel
from ..transforms.landmark_loading import to_file_space, upright_frame
from ..transforms.millimetres import MillimetreScaled
from ..visualize import overlay_picture
from .settings_digest import file_digest, settings_digest

logger = logging.getLogger(__name__)


class SaveLandmarks:
    """Write the predicted landmarks of every image while an evaluator runs, and go on where a stopped run was.

    Reads from every item `pred` (1, N, D) in world coordinates, `confidence` (N,), of networks whose patches vote the
    `spread` (N,) of these votes in world units, and the image's meta. Writes to the output folder `<stem>.mrk.json`,
    which 3D Slicer shows on the image, `overlays/<stem>.png`, of flat images where there are `measurements`
    `measurements/<stem>.mrk.json` with lines and angles for 3D Slicer, and at the end `landmarks.csv` with file pixels
    and world coordinates (LPS) of all images of the run, `failures.csv` where images have no prediction, and
    `unlikely.csv` where landmarks are unlikely to be of this anatomy (`common.transforms.Plausibilityd`). Images of
    one stem from different files get their suffix into the name.

    An image is done when its record is there (`common.data.PredictionResults`), and is not predicted again unless its
    file has changed. The processes of a torchrun divide the rest; the first of them writes the tables.

    Args:
        output_dir: folder to write to.
        landmarks: N names.
        dataset: the images; it is told which of them are left to do.
        weights: file of weights; results of others in the folder are refused.
        settings: objects that results depend on (network, transforms, inferer); results of others are refused too.
        overlays: whether to draw pictures.
        measurements: what makes lines and angles of landmarks, such as `common.clinical.CobbAngleMarkups`.
        resume: whether finished results are kept.
    """

    def __init__(
        self,
        output_dir: str | Path,
        landmarks: Sequence[str],
        dataset: PredictionDataset,
        weights: str | Path | None = None,
        settings: Sequence[Any] = (),
        overlays: bool = True,
        measurements: ClinicalMarkups | None = None,
        resume: bool = True,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.landmarks = list(landmarks)
        self.dataset = dataset
        self.weights = weights
        self.settings = settings_digest(self.landmarks, settings)
        self.overlays = overlays
        self.measurements = measurements
        self.resume = resume
        self.plan: list[PlannedImage] = []
        self.pending: dict[str, PlannedImage] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, engine: Engine) -> None:
        """Find out what is left to do.

        Raises:
            InputError: if the folder cannot be written, or holds results of other weights or settings.
        """
        digest = settings_digest(self.settings, from_first(lambda: file_digest(self.weights) if self.weights else ""))
        self.results = PredictionResults(self.output_dir, digest, self.overlays)
        self.plan = from_first(lambda: self.results.plan(self.dataset.data, self.resume))
        self.pending = {image.path: image for image in share([image for image in self.plan if not image.done])}
        self.dataset.pending = [image.item for image in self.pending.values()]

    def save(self, engine: Engine) -> None:
        """Write the files of one iteration; an image of which they cannot be made is left out."""
        for output in engine.state.output:
            planned = self.pending[str(output["image"].meta["filename_or_obj"])]
            try:
                self.write(planned, output)
            except OSError:  # such as no space: the next image would do no better
                raise
            except Exception as error:
                self.results.discard(planned.stem)
                self.dataset.leave_out(planned.path, error)

    def write(self, planned: PlannedImage, output: Mapping[str, Any]) -> None:
        """Write the files of one image, the record last."""
        image, pred = output["image"], torch.as_tensor(output["pred"])[0].cpu().double()
        confidence = torch.as_tensor(output["confidence"]).tolist()
        spread = torch.as_tensor(output["spread"]).tolist() if "spread" in output else None
        pixels, world = to_file_space(pred, image.meta)
        self.results.begin(planned.stem)
        write_markups(self.results.markups(planned.stem), found_points(world), self.landmarks, confidence)
        if self.measurements is not None:
            spacing = planned.item.get("spacing")
            nodes = measurement_nodes(self.measurements, pred, self.landmarks, image.meta, spacing)
            if nodes:
                write_markup_nodes(self.results.measurements(planned.stem), nodes)
        if self.overlays:
            title = f"{Path(planned.path).name}  lowest confidence {min(confidence):.2f}"
            scale = mm_per_world(image.meta, planned.item.get("spacing"))
            scale = scale if np.isfinite(scale) else 1.0
            picture = overlay_picture(image, pred, None, self.landmarks, title, mm_per_world=scale)
            with replaced_atomically(self.results.overlay(planned.stem)) as temporary:
                picture.save(temporary, format="PNG")
        table = landmark_table(planned.path, self.landmarks, pixels, world, confidence, spread)
        unlikely = str(output.get("unlikely", ""))
        if unlikely:
            logger.warning("%s: is unlikely to show this anatomy: %s.", printable(planned.path), unlikely)
        self.results.finish(planned, *table, unlikely)

    def finish(self, engine: Engine) -> None:
        """Write the tables when all processes are done, and tell in one line what came of the images."""
        self.dataset.failures = {path: why for own in from_all(self.dataset.failures) for path, why in own.items()}
        if process_rank() != 0:
            return
        failed, before = len(self.dataset.failures), sum(image.done for image in self.plan)
        count, unlikely = self.results.write_tables(self.plan, self.dataset.failures)
        told = [f"{count} predicted" + (f" ({before} of them before)" if before else "")]
        told += [f"{failed} failed (reasons in {self.results.failures})"] if failed else []
        told += [f"{unlikely} unlikely to show this anatomy (reasons in {self.results.unlikely})"] if unlikely else []
        told += [f"landmarks in {self.results.table}"] if count else []
        print(f"{len(self.plan)} images: {', '.join(told)}")


def measurement_nodes(
    measurements: ClinicalMarkups,
    points: torch.Tensor,
    landmarks: Sequence[str],
    image_meta: Mapping[str, Any],
    spacing: Sequence[float] | None = None,
) -> list[dict[str, Any]]:
    """Lines and angles of a flat image as nodes of a `.mrk.json`, on the plane where 3D Slicer shows it.

    Args:
        measurements: what makes them.
        points: landmarks (N, D), the image's world RAS; those of a volume have no lines and angles.
        landmarks: N names.
        image_meta: meta of the image, with the file's `original_affine`, `plane_affine` and `spatial_shape`.
        spacing: size of a file pixel in mm per axis, where the datalist states it; it counts before the file's own. If
            it differs from that by another factor on each axis, no millimetres are known.
    """
    if points.shape[-1] != 2:
        return []
    affine, size = upright_frame(image_meta)
    mm = mm_per_world(image_meta, spacing)
    nodes = []
    for markup in measurements(world_to_voxel(points, affine), landmarks, size, affine[:3, :2].norm(dim=0), mm):
        world = to_file_space(voxel_to_world(markup.points, affine), image_meta)[1].numpy()
        told = [
            {"name": name, "value": value, "units": unit, "description": meaning}
            for name, value, unit, meaning in markup.values
        ]
        display = {"propertiesLabelVisibility": markup.kind == "Angle", "pointLabelsVisibility": False}
        nodes.append(markup_node(markup.kind, world, markup.labels, None, markup.name, told, display))
    return nodes


def mm_per_world(image_meta: Mapping[str, Any], spacing: Sequence[float] | None) -> float:
    """How many millimetres a unit of an image's world is, NaN where that is not known.

    Args:
        image_meta: of the image; what it says itself stands under "mm_per_world".
        spacing: size of a file pixel in mm per axis, where the datalist states it; it counts before the file's own.
    """
    if spacing is None:
        return float(image_meta.get("mm_per_world", np.nan))
    try:
        return MillimetreScaled.by_spacing(spacing, image_meta)
    except InputError as error:
        logger.warning("%s", error)
        return np.nan
