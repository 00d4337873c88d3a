"""How far two predictions of the same images lie apart: a second opinion where no truth is at hand."""

import csv
import os
from dataclasses import dataclass
from math import inf

import numpy as np

from ..data.atomic_writing import replaced_atomically
from ..data.landmark_tables import PredictedLandmarks, read_landmark_table
from ..errors import InputError

MOST_LINES = 20


@dataclass(frozen=True)
class Agreement:
    """Two predictions of one image.

    Args:
        image: its path.
        mean_percent: mean distance between the two positions of a landmark, in percent of the extent of the landmarks
            (the diagonal of the box around the points midway); infinite where fewer than two landmarks have both.
        farthest: landmark whose positions are farthest apart, "" where none has two.
        farthest_percent: their distance.
        found_by_one: number of landmarks that only one prediction found.
    """

    image: str
    mean_percent: float
    farthest: str
    farthest_percent: float
    found_by_one: int

    @classmethod
    def of(cls, image: str, first: PredictedLandmarks, second: PredictedLandmarks) -> "Agreement":
        """Compare two predictions of an image, landmarks by their names, in world coordinates."""
        other = second.world[[second.names.index(name) for name in first.names]]
        found = np.isfinite(first.world).all(axis=1), np.isfinite(other).all(axis=1)
        both = found[0] & found[1]
        alone = int((found[0] ^ found[1]).sum())
        extent = np.linalg.norm(np.ptp((first.world + other)[both] / 2, axis=0)) if both.any() else 0.0
        if not extent:
            return cls(image, inf, "", inf, alone)
        percent = np.where(both, 100 * np.linalg.norm(first.world - other, axis=1) / extent, np.nan)
        farthest = int(np.nanargmax(percent))
        return cls(image, float(percent[both].mean()), first.names[farthest], float(percent[farthest]), alone)

    def __str__(self) -> str:
        alone = f"; {self.found_by_one} found by one alone" if self.found_by_one else ""
        if not self.farthest:
            return f"{self.image}: not comparable{alone}"
        return f"{self.image}: {self.mean_percent:.2f} % ({self.farthest} {self.farthest_percent:.2f} %){alone}"


def show_agreement(
    first: str | os.PathLike,
    second: str | os.PathLike,
    max_percent: float = 1.0,
    table: str | os.PathLike | None = None,
) -> list[Agreement]:
    """Print on which images two predictions disagree, the worst first: where one of them at least is wrong.

    Two bundles of one anatomy, or two trainings of one, make other mistakes; what they agree on may still be wrong.

    Args:
        first: `landmarks.csv` of a prediction.
        second: of another prediction of the same files and landmarks.
        max_percent: images whose landmarks lie farther apart on average, in percent of their extent, are listed, and
            those with landmarks that one prediction alone found.
        table: a CSV to write with all images.

    Returns:
        the listed images, all of them; the 20 worst are printed.

    Raises:
        InputError: if a file is no `landmarks.csv`, they have no image in common, other landmarks or too few, the limit
            is no percentage, or the table a folder.
    """
    if isinstance(max_percent, bool) or not isinstance(max_percent, (int, float)) or not max_percent >= 0:
        raise InputError(f"--max_percent {max_percent}: is no percentage; give a number from 0 on.")
    if table and os.path.isdir(table):
        raise InputError(f"--table {table}: is a folder; give the name of a CSV to write.")
    one, other = read_landmark_table(first), read_landmark_table(second)
    images = [image for image in one if image in other]
    if not images:
        raise InputError(f"{second}: has no image in common with {first}; give predictions of the same files.")
    for image in images:
        if odd := sorted({*one[image].names} ^ {*other[image].names}):
            raise InputError(
                f"{second}: {image} has other landmarks than in {first} ({odd[0]}); give predictions of the same ones."
            )
    results = [Agreement.of(image, one[image], other[image]) for image in images]
    results.sort(key=lambda each: -each.mean_percent)
    listed = [each for each in results if each.mean_percent > max_percent or each.found_by_one]
    alone = len(one) + len(other) - 2 * len(images)
    means = [each.mean_percent for each in results if each.farthest]
    if not means:
        raise InputError(f"{second}: no image has two landmarks that both found; give predictions of more landmarks.")
    print(
        f"{len(images)} images{f' ({alone} more are in one file alone)' if alone else ''}: landmarks lie "
        f"{np.median(means):.2f} % of their extent apart (median of the images' means); {len(listed)} "
        f"{'image lies' if len(listed) == 1 else 'images lie'} over {max_percent:g} %"
    )
    for each in listed[:MOST_LINES]:
        print(f"  {each}")
    if len(listed) > MOST_LINES:
        print(f"  and {len(listed) - MOST_LINES} more{'' if table else ' (--table FILE writes all)'}")
    if table:
        with replaced_atomically(table) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["image", "mean_percent", "farthest", "farthest_percent", "found_by_one"])
            rows.writerows(
                [e.image, f"{e.mean_percent:.3f}", e.farthest, f"{e.farthest_percent:.3f}", e.found_by_one]
                for e in results
            )
    return listed
