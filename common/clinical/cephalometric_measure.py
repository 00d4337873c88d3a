"""What an evaluation of cephalograms reports beside the radial error."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..data.cephalometric import CEPHALOMETRIC_LANDMARKS
from ..metrics import error_statistics, radial_errors
from .cephalometry import MEASUREMENTS, anatomical_types, cephalometric_measurements, type_agreement
from .film import Film, evaluated_film


class CephalometricMeasure:
    """The eight measurements, the success classification rate, the doctors' agreement, and all that without duplicates.

    One of the `measures` of `common.handlers.LandmarkReport`. `metrics.json` gets, under "cephalometric", a block for
    `all` films and, where items carry a true "duplicate" (the film also stands in the training set), another
    `without_duplicates`. A block holds

    - `radial_error`: statistics of the prediction (`common.metrics.error_statistics`);
    - `success_classification_rate`: percentages (`common.clinical.type_agreement`); `without_value`: how many
      measurements lack a landmark or the millimetres that they need;
    - `doctors`, where items carry the annotations of two observers: `to_mean`, the radial error of each of them against
      the mean of both; `difference`, that between them; `type_agreement`, the percentages of films that both give one
      type. It is the human line.

    `measurements.csv` has a row per film and measurement: predicted and true value and type, and the observers' values.

    Args:
        thresholds: distances of the successful detection rate, in mm.
        observers: keys of the items under which the annotations of two doctors stand, loaded by
            `common.transforms.LoadLandmarksd(keys=observers, allow_missing_keys=True)` after the label.
        duplicate_key: key of the items that marks a film which also stands in the training set.
    """

    name = "cephalometric"
    landmarks = CEPHALOMETRIC_LANDMARKS

    def __init__(
        self,
        thresholds: Sequence[float] = (2.0, 2.5, 3.0, 4.0),
        observers: tuple[str, str] = ("senior", "junior"),
        duplicate_key: str = "duplicate",
    ) -> None:
        self.thresholds = list(thresholds)
        self.observers = tuple(observers)
        self.duplicate_key = duplicate_key
        self.films: list[Film] = []

    def clear(self) -> None:
        self.films.clear()

    def collect(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> None:
        self.films.append(evaluated_film(batch, output, self.observers, (self.duplicate_key,)))

    def is_duplicate(self, film: Film) -> bool:
        return bool(film.item.get(self.duplicate_key, False))

    def summary(self) -> dict[str, Any]:
        blocks = {"all": self.block(self.films)}
        once = [film for film in self.films if not self.is_duplicate(film)]
        if len(once) < len(self.films):
            blocks["without_duplicates"] = self.block(once)
        return blocks

    def block(self, films: Sequence[Film]) -> dict[str, Any]:
        """The results of some films."""
        if not films:
            return {"films": 0}
        pred, truth = (stacked(films, [getattr(film, key) for film in films]) for key in ("pred", "truth"))
        values = {"predicted": measured(films, pred), "true": measured(films, truth)}
        result = {
            "films": len(films),
            "radial_error": self.radial_error(films, pred, truth),
            "success_classification_rate": type_agreement(values["predicted"], values["true"]),
            "without_value": {key: int(table.isnan().sum()) for key, table in values.items()},
        }
        annotated = [film for film in films if set(self.observers) <= set(film.observers)]
        if annotated:
            result["doctors"] = self.doctors(annotated)
        return result

    def radial_error(self, films: Sequence[Film], pred: torch.Tensor, truth: torch.Tensor) -> dict[str, Any]:
        """Statistics of radial errors in mm, or in pixels where no film has millimetres: there is no mean of both."""
        errors = radial_errors(pred, truth)
        in_mm = torch.tensor([film.unit == "mm" for film in films])
        return error_statistics((errors[in_mm] if in_mm.any() else errors).numpy(), self.thresholds)

    def doctors(self, films: Sequence[Film]) -> dict[str, Any]:
        """How far the two observers are from their mean and from each other."""
        points = {key: stacked(films, [film.observers[key] for film in films]) for key in self.observers}
        first, second = points.values()
        mean = (first + second) / 2

        return {
            "films": len(films),
            "to_mean": {key: self.radial_error(films, own, mean) for key, own in points.items()},
            "difference": self.radial_error(films, first, second),
            "type_agreement": type_agreement(measured(films, first), measured(films, second)),
        }

    def tables(self) -> dict[str, list[list[Any]]]:
        sources = {"predicted": [film.pred for film in self.films], "true": [film.truth for film in self.films]}
        for key in self.observers:
            if self.films and all(key in film.observers for film in self.films):
                sources[key] = [film.observers[key] for film in self.films]
        values = {key: measured(self.films, stacked(self.films, points)) for key, points in sources.items()}
        types = {key: anatomical_types(table) for key, table in values.items()}
        rows = [["image", "duplicate", "measurement", "unit", *values, *(f"{key}_type" for key in types)]]
        for i, film in enumerate(self.films):
            for j, measurement in enumerate(MEASUREMENTS):
                rows.append(
                    [film.image, int(self.is_duplicate(film)), measurement.name, measurement.unit]
                    + [float(table[i, j]) for table in values.values()]
                    + [measurement.type_name(int(table[i, j])) for table in types.values()]
                )
        return {"measurements.csv": rows}

    def headline(self) -> str:
        blocks = self.summary()
        lines = []
        error = blocks.get("without_duplicates", {}).get("radial_error", {})
        if error.get("count"):
            left, rates = blocks["without_duplicates"]["films"], error["sdr"].items()
            lines.append(
                f"without films that also stand in the training set: {left} of {len(self.films)} films, "
                f"mean {error['mean']:.3f}, median {error['median']:.3f}; "
                + ", ".join(f"{rate:.1f} % within {t}" for t, rate in rates)
            )
        rates = blocks["all"]["success_classification_rate"]
        each = ", ".join(f"{m.name} {rates[m.name]:.1f}" for m in MEASUREMENTS)
        lines.append(f"success classification rate {rates['mean']:.2f} % ({each})")
        doctors = blocks["all"].get("doctors")
        if doctors and all(error["count"] for error in doctors["to_mean"].values()):
            means = ", ".join(f"{key} {error['mean']:.2f}" for key, error in doctors["to_mean"].items())
            agreement = doctors["type_agreement"]
            each = ", ".join(f"{m.name} {agreement[m.name]:.1f}" for m in MEASUREMENTS)
            lines.append(
                f"human line: each doctor to the mean of both {means}; they agree on the type in "
                f"{agreement['mean']:.2f} % ({each})"
            )
        return "\n".join(lines)


def stacked(films: Sequence[Film], points: Sequence[torch.Tensor]) -> torch.Tensor:
    """Points (19, 2) in file pixels of each film -> (B, 19, 2) in the films' units, y down."""
    return torch.stack([film.scaled(p) for film, p in zip(films, points)])


def measured(films: Sequence[Film], points: torch.Tensor) -> torch.Tensor:
    """The eight measurements (B, 8) of points (B, 19, 2) in the films' units."""
    return cephalometric_measurements(points, torch.tensor([film.mm for film in films], dtype=torch.float64))
