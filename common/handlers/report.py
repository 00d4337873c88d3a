"""What an evaluation leaves behind: errors.csv, metrics.json, the error curve and overlay pictures."""

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from ..data.atomic_writing import replaced_atomically, require_writable, write_atomically
from ..data.prediction_results import unique_stem
from ..metrics import error_intervals, error_statistics, radial_errors
from ..transforms.coordinates import is_annotated, is_present
from ..visualize import overlay_picture, save_error_curve
from .measure import Measure

logger = logging.getLogger(__name__)

STATUS = ("measured", "missed", "false detection", "absent", "not annotated")


def landmark_status(pred: torch.Tensor, truth: torch.Tensor) -> list[str]:
    """What became of each landmark, one of `STATUS`: points (N, D) -> N words.

    "missed": annotated with a position, not predicted; "false detection": predicted, but the annotator says absent.
    """
    table = []
    for found, known, there in zip(is_present(pred).tolist(), is_annotated(truth).tolist(), is_present(truth).tolist()):
        if not known:
            table.append("not annotated")
        elif there:
            table.append("measured" if found else "missed")
        else:
            table.append("false detection" if found else "absent")
    return table


class LandmarkReport:
    """Collect predictions and truth while an evaluator runs, and write the report when it completes.

    Reads from every item: `pred`, `label` (1, N, D) in world coordinates, `confidence` (N,), `mm_per_world`, `unit` and
    the image's meta; of networks whose patches vote also their `spread` (N,), in the image's unit. Writes to the output
    folder:

    - `errors.csv`: a row per image and landmark: error, status, predicted and true world coordinates (RAS), confidence;
    - `metrics.json`: `protocol`, `counts`, `overall` (with 95 % intervals by bootstrap over images), `per_landmark`,
      `per_image`; where only some images have millimetres, of these alone. The `offset` of a landmark is the mean of
      predicted minus true position, along the world's axes (RAS); `overall` has under `without_offsets` the errors
      that are left when each image's points are moved by the offsets of all others, which tells points that were
      annotated elsewhere from scatter;
    - `error_curve.png`, and `overlays/<image>.png` for the first `max_overlays` images;
    - for every measure its part of `metrics.json`, under its name, and its tables.

    Args:
        output_dir: folder to write to.
        landmarks: N names.
        thresholds: distances of the successful detection rate, in mm.
        protocol: whatever a reader must know to read the numbers: data, list, ground truth, how millimetres are made.
        max_overlays: number of overlay pictures.
        measures: what to measure beside the radial error, such as `common.clinical.CephalometricMeasure`, where the
            landmarks are those that it is made of.
    """

    def __init__(
        self,
        output_dir: str | Path,
        landmarks: Sequence[str],
        thresholds: Sequence[float],
        protocol: Mapping[str, Any] | None = None,
        max_overlays: int = 20,
        measures: Sequence[Measure] = (),
    ) -> None:
        self.output_dir = Path(output_dir)
        self.landmarks = list(landmarks)
        self.thresholds = list(thresholds)
        self.protocol = dict(protocol or {})
        self.max_overlays = max_overlays
        self.measures = [measure for measure in measures if self.has_landmarks_of(measure)]
        self.cases: list[dict[str, Any]] = []
        self.stems: dict[str, int] = {}

    def has_landmarks_of(self, measure: Measure) -> bool:
        """Whether the landmarks are those that a measure is made of; logs where they are not."""
        if list(measure.landmarks) == self.landmarks:
            return True
        logger.warning("%s: is not measured, since it needs the landmarks %s ...", measure.name, measure.landmarks[:3])
        return False

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self) -> None:
        """Forget all images, and see that the folder can be written."""
        require_writable(self.output_dir, "evaluation_dir")
        self.cases.clear()
        self.stems.clear()
        for measure in self.measures:
            measure.clear()

    def collect(self, engine: Engine) -> None:
        """Keep what the report needs of one iteration and draw its overlays."""
        for batch, output in zip(engine.state.batch, engine.state.output):
            image = output["image"]
            pred, truth = (torch.as_tensor(output[key])[0].cpu().double() for key in ("pred", "label"))
            scale = float(batch["mm_per_world"])
            case = {
                "image": str(image.meta["filename_or_obj"]),
                "pred": pred,
                "truth": truth,
                "errors": (radial_errors(pred, truth) * scale).numpy(),
                "differences": ((pred - truth) * scale).numpy(),
                "confidence": torch.as_tensor(output["confidence"]).tolist(),
                "spread": torch.as_tensor(output["spread"]).tolist() if "spread" in output else None,
                "scale": scale,
                "unit": str(batch["unit"]),
            }
            if len(self.cases) < self.max_overlays:
                self.draw(case, image)
            self.cases.append(case)
            for measure in self.measures:
                measure.collect(batch, output)

    def draw(self, case: Mapping[str, Any], image: torch.Tensor) -> None:
        """Write the overlay picture of one case."""
        mean = np.nanmean(case["errors"]) if np.isfinite(case["errors"]).any() else np.nan
        phantom = "SYNTHETIC PHANTOM  " if self.protocol.get("phantom") else ""
        name = Path(case["image"]).name
        title = f"{phantom}{name}  mean error {mean:.2f} {case['unit']}  (red: prediction, green: truth)"
        picture = overlay_picture(
            image, case["pred"], case["truth"], self.landmarks, title, mm_per_world=case["scale"], unit=case["unit"]
        )
        path = self.output_dir / "overlays" / f"{unique_stem(case['image'], self.stems)}.png"
        with replaced_atomically(path) as temporary:
            picture.save(temporary, format="PNG")

    def write(self, engine: Engine) -> None:
        """Write tables and curve, each atomically."""
        if not self.cases:
            return
        errors = np.stack([case["errors"] for case in self.cases])
        differences = np.stack([case["differences"] for case in self.cases])
        units = np.array([case["unit"] for case in self.cases])
        unit = "mm" if "mm" in units else str(units[0])
        odd = units != unit
        if odd.any():  # there is no mean of millimetres and pixels
            logger.warning(
                "%d of %d images have no known pixel spacing: their errors are in pixels and enter errors.csv alone.",
                odd.sum(),
                len(odd),
            )
            errors[odd] = np.nan
        self.write_errors()
        summary = self.summary(errors, differences, unit)
        if odd.any():
            summary["counts"]["images_in_pixels"] = int(odd.sum())
        for measure in self.measures:
            summary[measure.name] = json_safe(measure.summary())
            for name, (header, *rows) in measure.tables().items():
                self.write_table(name, header, rows)
        write_atomically(self.output_dir / "metrics.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
        save_error_curve({"all landmarks": errors}, self.output_dir / "error_curve.png", unit)
        self.announce(summary)

    def summary(self, errors: np.ndarray, differences: np.ndarray, unit: str) -> dict[str, Any]:
        """The content of metrics.json for errors (images, N) and differences (images, N, D)."""
        measured = np.isfinite(errors)
        differences = np.where(measured[..., None], differences, 0.0)
        count = measured.sum(0)
        offsets = differences.sum(0) / np.maximum(count, 1)[:, None]
        others = count / np.maximum(count - 1, 1)  # (d - mean of all) times this is d - mean of the others
        scatter = np.where(measured & (count > 1), np.linalg.norm(differences - offsets, axis=-1) * others, np.nan)
        status = [word for case in self.cases for word in landmark_status(case["pred"], case["truth"])]
        per_image = [np.nanmean(row) if np.isfinite(row).any() else np.nan for row in errors]
        return {
            "protocol": {
                **self.protocol,
                "unit": unit,
                "sdr": "percentage of landmarks at or under the distance",
            },
            "counts": {
                "images": len(self.cases),
                **{word.replace(" ", "_"): status.count(word) for word in STATUS},
            },
            "overall": {
                **error_statistics(errors, self.thresholds),
                "ci95": json_safe(error_intervals(errors, self.thresholds)),
                "per_image_mean": error_statistics(np.array(per_image)),
                "without_offsets": error_statistics(scatter, self.thresholds),
            },
            "per_landmark": {
                name: {
                    **error_statistics(errors[:, i], self.thresholds),
                    "offset": offsets[i].tolist() if measured[:, i].any() else None,
                }
                for i, name in enumerate(self.landmarks)
            },
            "per_image": {case["image"]: json_safe(float(mean)) for case, mean in zip(self.cases, per_image)},
        }

    def write_errors(self) -> None:
        """errors.csv: a row per image and landmark."""
        axes = ["x", "y", "z"][: self.cases[0]["pred"].shape[-1]]
        with_spread = self.cases[0]["spread"] is not None
        header = ["image", "landmark", "error", "unit", "status", "confidence", *(["spread"] if with_spread else [])]
        header += [f"{kind}_{axis}" for kind in ("predicted", "true") for axis in axes]

        rows = []
        for case in self.cases:
            status = landmark_status(case["pred"], case["truth"])
            for i, name in enumerate(self.landmarks):
                values = [*case["pred"][i].tolist(), *case["truth"][i].tolist()]
                error, confidence = float(case["errors"][i]), case["confidence"][i]
                spread = [case["spread"][i]] if with_spread else []
                rows.append([case["image"], name, error, case["unit"], status[i], confidence, *spread, *values])
        self.write_table("errors.csv", header, rows)

    def write_table(self, name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Write a CSV file to the output folder; real numbers by `number`, the rest as text."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([number(cell) if isinstance(cell, float) else cell for cell in row] for row in rows)
        write_atomically(self.output_dir / name, text.getvalue())

    def announce(self, summary: Mapping[str, Any]) -> None:
        """Print the result in a few lines."""
        overall, counts, unit = summary["overall"], summary["counts"], summary["protocol"]["unit"]
        if self.protocol.get("phantom"):
            print("SYNTHETIC PHANTOMS: these numbers say nothing about patients.")
        if not overall["count"]:
            print(f"no landmark could be measured ({counts}).")
            return
        low, high = overall["ci95"]["mean"]
        sdr = ", ".join(f"{rate:.1f} % within {t} {unit}" for t, rate in overall["sdr"].items())
        print(
            f"{counts['images']} images, {overall['count']} landmarks: mean radial error {overall['mean']:.3f} {unit} "
            f"(95 % interval {low:.3f} to {high:.3f}), median {overall['median']:.3f} {unit}; {sdr}\n"
            f"report: {self.output_dir}"
        )
        for measure in self.measures:
            print(measure.headline())


def number(value: float) -> str:
    """A finite number with six significant digits after the point, nothing for NaN and absent coordinates."""
    return f"{value:.6f}" if np.isfinite(value) else ""


def json_safe(value: Any) -> Any:
    """NaN and infinity, which JSON lacks, as None."""
    if isinstance(value, Mapping):
        return {k: json_safe(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
