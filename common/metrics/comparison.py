"""Whether one model is better than another on the same images (Wilcoxon signed rank test, as in noothout2020)."""

import csv
import os
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from ..errors import InputError


def read_errors(path: str | os.PathLike) -> dict[tuple[str, str], tuple[float, str]]:
    """Measured errors of an `errors.csv` of an evaluation: (error, unit) by image and landmark.

    Raises:
        InputError: if it is no such file.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return {
                (row["image"], row["landmark"]): (float(row["error"]), row["unit"])
                for row in csv.DictReader(file)
                if row["status"] == "measured"
            }
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; give the errors.csv of an evaluation.") from None
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path}: is no errors.csv of an evaluation ({error}); give the file as it was written."
        ) from error


def compare_errors(first: str | os.PathLike, second: str | os.PathLike) -> dict[str, Any]:
    """Compare two evaluations of the same images, landmark by landmark, and print the result.

    Only landmarks that both measured count. The test is two-sided and takes landmarks as independent, as the paper
    does; those of one image are not quite.

    Args:
        first: `errors.csv` of one evaluation.
        second: `errors.csv` of the other.

    Returns:
        `pairs`, the medians, interquartile ranges and `unit` of both, and `p`.

    Raises:
        InputError: if a file is none of an evaluation, or they have fewer than two landmarks in common, or other units.
    """
    one, other = read_errors(first), read_errors(second)
    common = [key for key in one if key in other]
    if len(common) < 2:
        raise InputError(f"{second}: has {len(common)} landmarks in common with {first}; give evaluations of one list.")
    pairs = np.array([[one[key][0], other[key][0]] for key in common])
    units = {table[key][1] for key in common for table in (one, other)}
    if len(units) > 1:
        raise InputError(f"{first} and {second}: some errors are in mm, some in pixels; compare lists of one unit.")
    same = np.array_equal(pairs[:, 0], pairs[:, 1])
    quartiles = np.percentile(pairs, [25, 50, 75], axis=0)
    result = {
        "pairs": len(common),
        "unit": units.pop(),
        "median": quartiles[1].tolist(),
        "iqr": (quartiles[2] - quartiles[0]).tolist(),
        "p": 1.0 if same else float(wilcoxon(pairs[:, 0], pairs[:, 1]).pvalue),
    }
    texts = [f"{median:.3f} ({iqr:.3f})" for median, iqr in zip(result["median"], result["iqr"])]
    print(
        f"{result['pairs']} landmarks: median (IQR) {texts[0]} {result['unit']} and {texts[1]} {result['unit']}; "
        f"Wilcoxon signed rank test p = {result['p']:.3g}"
    )
    return result
