"""Shapes of landmarks on each other: Procrustes alignment, labels that are exchanged, directions that are reversed."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.spatial.transform import Rotation

from .landmark_points import opposite_names


def similarity_fit(
    shape: np.ndarray, target: np.ndarray, mirror: bool = False, weights: np.ndarray | None = None
) -> np.ndarray:
    """The shape (N, D), mirrored if asked, moved onto the target by the best rotation, scale and translation.

    The best by the sum of squared distances, each times its weight (N,). Rows that are not finite in either are left
    out of the fit and stay NaN.
    """
    valid = np.isfinite(shape).all(1) & np.isfinite(target).all(1)
    weight = np.ones(valid.sum()) if weights is None else weights[valid]
    flip = np.ones(shape.shape[1])
    flip[0] = -1 if mirror else 1
    source = shape * flip
    centre, goal = (np.average(points[valid], axis=0, weights=weight) for points in (source, target))
    a, b = source[valid] - centre, target[valid] - goal
    if shape.shape[1] == 2:  # a rotation in the plane
        angle = np.arctan2(weight @ (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]), weight @ (a * b).sum(1))
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    else:
        matrix = Rotation.align_vectors(b, a, weight)[0].as_matrix()
    rotated = (source - centre) @ matrix.T
    scale = weight @ (rotated[valid] * b).sum(1) / max(weight @ (a**2).sum(1), 1e-12)
    return scale * rotated + goal


def mean_shape(shapes: Sequence[np.ndarray], rounds: int = 5) -> np.ndarray:
    """The median of shapes (N, D) after alignment to it, scaled to a root mean square radius of 1 (Procrustes)."""
    mean = max(shapes, key=lambda s: np.isfinite(s).all(1).sum())
    for _ in range(rounds):
        mean = mean - np.nanmean(mean, axis=0)
        mean = mean / np.sqrt(np.nanmean((mean**2).sum(1)))
        mean = np.nanmedian([similarity_fit(shape, mean) for shape in shapes], axis=0)
    return mean


def residuals(shape: np.ndarray, mean: np.ndarray, mirror: bool = False, rounds: int = 10) -> np.ndarray:
    """Distance of every landmark of an aligned shape from the mean shape, in units of its radius: (N,).

    Distances over a tenth of the radius enter the alignment by themselves, not by their squares (Huber's loss,
    iteratively reweighted), so that a few wrong landmarks do not pull the others off their places.
    """
    distance = np.zeros(len(shape))
    for _ in range(rounds):
        distance = np.linalg.norm(similarity_fit(shape, mean, mirror, 1 / np.maximum(distance, 0.1)) - mean, axis=1)
    return distance


def exchange_swapped(
    shape: np.ndarray, mean: np.ndarray, limit: np.ndarray
) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Pairs of odd landmarks that lie much closer to the mean shape once their labels are exchanged, the best first.

    Returns:
        the pairs, and the residuals (N,) after all exchanges.
    """
    shape, swaps = shape.copy(), []
    row = residuals(shape, mean)
    while True:
        after = {}
        for pair in combinations(np.flatnonzero(np.nan_to_num(row) > limit), 2):
            exchanged = shape.copy()
            exchanged[list(pair)] = exchanged[list(pair[::-1])]
            new = residuals(exchanged, mean)
            if (new[list(pair)] < 0.5 * row[list(pair)]).all() and np.nansum(new) < np.nansum(row):
                after[pair] = exchanged, new
        if not after:
            return swaps, row
        best = min(after, key=lambda pair: np.nansum(after[pair][1]))
        shape, row = after[best]
        swaps.append(best)


def reversed_pairs(shapes: Sequence[np.ndarray], minimum: int = 5) -> list[list[tuple[int, int]]]:
    """Pairs of landmarks that lie the other way round than in the other shapes, without any alignment.

    Patients lie about alike in the world of a scanner, so that the direction from one landmark to another tells an
    exchange of two labels, or a wrong orientation, where there are too few landmarks for a shape. A pair counts if half
    of the shapes have it within 25 degrees of the median direction, and it is reversed where it departs by over 120
    and is no shorter than half of the median length: neighbours that lie a little otherwise are not exchanged.

    Args:
        shapes: world coordinates (N, 3), NaN without a place.
        minimum: number of shapes that must have both landmarks.

    Returns:
        pairs (i, j), i < j, for each shape.
    """
    table = np.stack(shapes)
    found: list[list[tuple[int, int]]] = [[] for _ in shapes]
    for i, j in combinations(range(table.shape[1]), 2):
        step = table[:, j] - table[:, i]
        length = np.linalg.norm(step, axis=1, keepdims=True)
        known = np.isfinite(length[:, 0]) & (length[:, 0] > 0)
        if known.sum() < minimum:
            continue
        direction = step[known] / length[known]
        usual = np.median(direction, axis=0)
        cosine = direction @ usual / max(np.linalg.norm(usual), 1e-12)
        if np.median(cosine) > np.cos(np.radians(25)):
            long = length[known, 0] > 0.5 * np.median(length[known])
            for index in np.flatnonzero(known)[long & (cosine < np.cos(np.radians(120)))]:
                found[index].append((i, j))
    return found


def contradicted_sides(shapes: Sequence[np.ndarray], names: Sequence[str]) -> list[str]:
    """Landmarks of volumes that lie to the other side of each other than their names say, in most of the volumes.

    Nothing tells an exchange of all volumes alike but the world: x is larger to the patient's right, y further to the
    front, z higher.

    Args:
        shapes: world coordinates (N, 3), RAS, NaN without a place.
        names: N names.

    Returns:
        one text for each pair of `opposite_names`.
    """
    table, told = np.stack(shapes), []
    table = np.where(np.isfinite(table), table, np.nan)
    for i, j, axis in opposite_names(names):
        apart = table[:, i, axis] - table[:, j, axis]
        apart = apart[np.isfinite(apart) & (apart != 0)]
        wrong = int((apart < 0).sum())
        if 2 * wrong > len(apart):
            side = ("left", "back", "feet")[axis]
            where = f"in {wrong} of {len(apart)} volumes"
            told.append(f"{names[i]} lies further towards the patient's {side} than {names[j]} {where}")
    return told
