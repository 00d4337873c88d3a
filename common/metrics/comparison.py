"""Whether one model is better than another on the same images (Wilcoxon signed rank test, as in noothout2020)."""

import csv
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from ..errors import InputError

LEAST = 0.01  # of errors and of distances, under which six decimals tell no scale


@dataclass(frozen=True)
class MeasuredError:
    """A measured row of an `errors.csv`.

    Args:
        error: in `unit`.
        unit: "mm" or "pixel".
        truth: the true point in the world, (D,).
        distance: of prediction and truth in units of the world.
    """

    error: float
    unit: str
    truth: np.ndarray
    distance: float


def read_errors(path: str | os.PathLike) -> dict[tuple[str, str], MeasuredError]:
    """Measured errors of an `errors.csv` of an evaluation, by image and landmark.

    Raises:
        InputError: if it is no such file.
    """
    found = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["status"] == "measured":
                    axes = "xyz" if "true_z" in row else "xy"
                    truth = np.array([float(row[f"true_{axis}"]) for axis in axes])
                    predicted = np.array([float(row[f"predicted_{axis}"]) for axis in axes])
                    distance = float(np.linalg.norm(predicted - truth))
                    measured = MeasuredError(float(row["error"]), row["unit"], truth, distance)
                    found[row["image"], row["landmark"]] = measured
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; give the errors.csv of an evaluation.") from None
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise InputError(
            f"{path}: is no errors.csv of an evaluation ({error}); give the file as it was written."
        ) from error
    return found


def check_same_measure(one: MeasuredError, other: MeasuredError, key: tuple[str, str], files: str) -> None:
    """See that two errors of a landmark are of one truth and in one unit of length.

    Raises:
        InputError: if they are not.
    """
    where = f"{files}: {key[1]} of {key[0]}"
    if one.unit != other.unit:
        raise InputError(f"{where} is measured in {one.unit} and in {other.unit}; compare lists of one unit.")
    if one.truth.shape != other.truth.shape or not np.allclose(one.truth, other.truth, rtol=1e-6, atol=1e-3):
        raise InputError(f"{where} has another true point in each; compare evaluations against one annotation.")
    scales = [m.error / m.distance for m in (one, other) if min(m.distance, m.error) > LEAST]
    if len(scales) == 2 and not np.isclose(*scales, rtol=1e-3):
        raise InputError(
            f"{where} has {scales[0]:.4g} and {scales[1]:.4g} {one.unit} for a unit of its world; evaluate both with "
            "one spacing or reference length."
        )


def compare_errors(first: str | os.PathLike, second: str | os.PathLike) -> dict[str, Any]:
    """Compare two evaluations of the same images, landmark by landmark, and print the result.

    Only landmarks that both measured count; how many others either has, such as those that the other model missed, is
    printed. The test is two-sided and takes landmarks as independent, as the paper
    does; those of one image are not quite.

    Args:
        first: `errors.csv` of one evaluation.
        second: `errors.csv` of the other.

    Returns:
        `pairs`, the medians, interquartile ranges and `unit` of both, `p`, and `alone`: how many landmarks the first
        and the second measured that the other did not.

    Raises:
        InputError: if a file is none of an evaluation, or they have fewer than two landmarks in common, or measure one
            by another truth, unit or scale.
    """
    one, other = read_errors(first), read_errors(second)
    common = [key for key in one if key in other]
    if len(common) < 2:
        raise InputError(f"{second}: has {len(common)} landmarks in common with {first}; give evaluations of one list.")
    for key in common:
        check_same_measure(one[key], other[key], key, f"{first} and {second}")
    pairs = np.array([[one[key].error, other[key].error] for key in common])
    alone = [len(table) - len(common) for table in (one, other)]
    same = np.array_equal(pairs[:, 0], pairs[:, 1])
    quartiles = np.percentile(pairs, [25, 50, 75], axis=0)
    result = {
        "pairs": len(common),
        "unit": one[common[0]].unit,
        "median": quartiles[1].tolist(),
        "iqr": (quartiles[2] - quartiles[0]).tolist(),
        "p": 1.0 if same else float(wilcoxon(pairs[:, 0], pairs[:, 1]).pvalue),
        "alone": alone,
    }
    texts = [f"{median:.3f} ({iqr:.3f})" for median, iqr in zip(result["median"], result["iqr"])]
    print(
        f"{result['pairs']} landmarks: median (IQR) {texts[0]} {result['unit']} and {texts[1]} {result['unit']}; "
        f"Wilcoxon signed rank test p = {result['p']:.3g}"
    )
    if any(alone):
        print(f"not compared: {alone[0]} landmarks of the first and {alone[1]} of the second, which the other has not.")
    return result
