"""What an evaluation of spine radiographs reports beside the radial error."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..data.spine import SPINE_LANDMARKS
from ..metrics import bootstrap_interval, bootstrap_over_images, radial_errors
from .cobb import COBB_ANGLES, VERTEBRAE, cobb_angles, cobb_smape, cobb_smape_per_film
from .film import Film, evaluated_film
from .spine_errors import (
    counting_errors,
    image_fractions,
    mean_squared_fraction,
    pooled_correlation,
    vertebra_levels,
)


class SpineMeasure:
    """Cobb angles, and the errors of FARNet's Table 3.

    One of the `measures` of `common.handlers.LandmarkReport`. `metrics.json` gets, under "spine":

    - `percent_of_image_height`: the mean radial error; `mean_squared_error`: as a fraction of the image, over films,
      points and axes; `correlation`: Pearson's, of all coordinates together, as fractions of the image;
    - `counting`: how often a vertebra is skipped, counted twice or misnumbered (`counting_errors`);
    - `counted_right`: how many `films` have no such error, and their `percent_of_image_height` and Cobb `smape`: what
      the points would be worth if vertebrae were counted right on all;
    - `cobb`: `films` with predicted and true angles, `smape` in percent, `mean_absolute_difference` of each angle in
      degrees, against the angles of the true corners;
    - `cobb_published`, where items carry published angles: the same against these, and their `smape_floor`, that of
      the true corners.

    `ci95` beside these are 95 % intervals by bootstrap over films. `cobb_angles.csv` has a row per film.

    Args:
        angles_key: key of the items with three published Cobb angles in degrees.
    """

    name = "spine"
    landmarks = SPINE_LANDMARKS

    def __init__(self, angles_key: str = "cobb_angles") -> None:
        self.angles_key = angles_key
        self.films: list[Film] = []

    def clear(self) -> None:
        self.films.clear()

    def collect(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> None:
        self.films.append(evaluated_film(batch, output, keep=(self.angles_key,)))

    def angles(self) -> dict[str, torch.Tensor]:
        """Cobb angles (B, 3) by their source: "predicted", "true" and, where there are any, "published"."""
        heights = torch.tensor([film.height for film in self.films], dtype=torch.float64)
        corners = self.corners()
        tables = {name: cobb_angles(corners[name], heights) for name in ("predicted", "true")}
        if any(self.angles_key in film.item for film in self.films):
            rows = [film.item.get(self.angles_key, [float("nan")] * 3) for film in self.films]
            tables["published"] = torch.tensor([[float(a) for a in row] for row in rows], dtype=torch.float64)
        return tables

    def corners(self) -> dict[str, torch.Tensor]:
        """Predicted and true corners (B, 68, 2) in the films' units."""
        films = self.films
        return {
            "predicted": torch.stack([film.scaled(film.pred) for film in films]),
            "true": torch.stack([film.scaled(film.truth) for film in films]),
        }

    def summary(self) -> dict[str, Any]:
        sizes = torch.tensor([film.size for film in self.films], dtype=torch.float64)
        pixels = [torch.stack([getattr(film, key) for film in self.films]) for key in ("pred", "truth")]
        pred, truth = (image_fractions(points, sizes) for points in pixels)
        angles, corners = self.angles(), self.corners()
        heights = torch.tensor([film.height for film in self.films], dtype=torch.float64)
        errors = radial_errors(corners["predicted"], corners["true"]) / heights[:, None]
        measures = {
            "percent_of_image_height": lambda films: float(100 * errors[films].nanmean()),
            "mean_squared_error": lambda films: mean_squared_fraction(pred[films], truth[films]),
            "correlation": lambda films: pooled_correlation(pred[films], truth[films]),
        }
        count = len(self.films)
        result = {
            **{name: measure(np.arange(count)) for name, measure in measures.items()},
            "ci95": {name: bootstrap_over_images(count, measure) for name, measure in measures.items()},
            "counting": counting_errors(corners["predicted"], corners["true"]),
            "counted_right": self.counted_right(corners, angles, errors),
            "cobb": cobb_errors(angles["predicted"], angles["true"]),
        }
        if "published" in angles:
            published = cobb_errors(angles["predicted"], angles["published"])
            result["cobb_published"] = {**published, "smape_floor": cobb_smape(angles["true"], angles["published"])}
        return result

    @staticmethod
    def counted_right(
        corners: dict[str, torch.Tensor], angles: dict[str, torch.Tensor], errors: torch.Tensor
    ) -> dict[str, float]:
        """Of `errors` (B, 68), shares of the image height, and `angles`: films whose vertebrae all lie at their own."""
        right = (vertebra_levels(corners["predicted"], corners["true"]) == torch.arange(VERTEBRAE)).all(-1)
        return {
            "films": int(right.sum()),
            "percent_of_image_height": float(100 * errors[right].nanmean()),
            "smape": cobb_smape(angles["predicted"][right], angles["true"][right]),
        }

    def tables(self) -> dict[str, list[list[Any]]]:
        angles = self.angles()
        smape = cobb_smape_per_film(angles["predicted"], angles["true"])
        rows = [["image", *(f"{source}_{name}" for source in angles for name in COBB_ANGLES), "smape_percent"]]
        for i, film in enumerate(self.films):
            rows.append([film.image, *(a for table in angles.values() for a in table[i].tolist()), float(smape[i])])
        return {"cobb_angles.csv": rows}

    def headline(self) -> str:
        summary = self.summary()
        cobb, counting = summary["cobb"], summary["counting"]
        each = ", ".join(f"{value:.2f}" for value in cobb["mean_absolute_difference"].values())
        return (
            f"mean error {summary['percent_of_image_height']:.2f} % of the image height; "
            f"Cobb angles of {cobb['films']} films: SMAPE {cobb['smape']:.2f} %, mean absolute difference {each} "
            f"degrees; MSE {summary['mean_squared_error']:.5f} of the image, "
            f"correlation {summary['correlation']:.4f}; vertebrae miscounted in "
            f"{counting['films_with_errors']} of {counting['films']} films, all by one number in "
            f"{counting['films_shifted']} of them"
        )


def cobb_errors(pred: torch.Tensor, truth: torch.Tensor) -> dict[str, Any]:
    """Number of films with angles in both, SMAPE in percent, mean absolute differences in degrees: angles (B, 3)."""
    difference = (pred - truth).abs()
    smape = cobb_smape_per_film(pred, truth).unsqueeze(1).numpy()
    intervals = [bootstrap_interval(column.unsqueeze(1).numpy(), np.mean) for column in difference.T]
    return {
        "films": int(difference.isfinite().all(1).sum()),
        "smape": cobb_smape(pred, truth),
        "mean_absolute_difference": dict(zip(COBB_ANGLES, difference.nanmean(0).tolist())),
        "ci95": {
            "smape": bootstrap_interval(smape, np.mean),
            "mean_absolute_difference": dict(zip(COBB_ANGLES, intervals)),
        },
    }
