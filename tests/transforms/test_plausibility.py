import math
import re

import numpy as np
import pytest
import torch

from common.transforms import Plausibilityd, mean_shape_of, shape_distance

HOUSE = np.array([[0.0, 0], [4, 0], [4, 3], [2, 5], [0, 3]])
BARN = np.array([[0.0, 0, 0], [4, 0, 0], [4, 3, 1], [2, 5, 2], [0, 3, 0], [1, 1, 6]])


def moved(shape, angle=0.7, scale=3.0, mirrored=False):
    """A similarity transform in the first two axes."""
    turn = np.eye(shape.shape[1])
    turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    turned = shape @ turn.T * scale + 100
    return turned * [-1, *[1] * (shape.shape[1] - 1)] if mirrored else turned


@pytest.mark.parametrize("shape", [HOUSE, BARN], ids=["2D", "3D"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_pose_size_and_side_are_no_matter_of_shape(shape, mirrored):
    assert shape_distance(moved(shape, mirrored=mirrored), shape) == pytest.approx(0, abs=1e-7)


def test_the_distance_is_what_is_left_after_the_best_fit():
    """By brute force over angles, with the best scale for each."""
    other = HOUSE + np.random.default_rng(0).normal(0, 0.5, HOUSE.shape)
    a, b = (s - s.mean(0) for s in (HOUSE, other))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    turned = [moved(b, angle, 1.0) - 100 for angle in np.linspace(0, 2 * np.pi, 20001)]
    best = min(np.linalg.norm(a - t * (a * t).sum()) for t in turned)
    assert shape_distance(other, HOUSE) == pytest.approx(best, abs=1e-6) and best > 0.05


def test_landmarks_without_a_position_are_left_out_of_both_shapes():
    points = moved(HOUSE)
    points[1], points[3] = math.nan, math.inf
    assert shape_distance(points, HOUSE) == pytest.approx(0, abs=1e-7)
    points[0] = math.nan
    assert math.isnan(shape_distance(points, HOUSE))  # two points have every shape
    assert math.isnan(shape_distance(np.full((5, 2), 7.0), HOUSE))


def test_the_mean_of_moved_copies_is_the_shape():
    copies = np.stack([moved(HOUSE, angle, scale) for angle, scale in ((0.1, 1), (2.0, 5), (4.0, 0.3))])
    mean = mean_shape_of(copies)
    assert shape_distance(mean, HOUSE) == pytest.approx(0, abs=1e-7)
    assert np.linalg.norm(mean) == pytest.approx(1) and np.allclose(mean.mean(0), 0)


def item(points, confidence):
    return {"pred": torch.from_numpy(points)[None], "confidence": torch.full((len(points),), confidence)}


@pytest.mark.parametrize(
    ("points", "confidence", "reason"),
    [
        (moved(HOUSE), 0.9, ""),
        (moved(HOUSE), 0.2, "mean confidence 0.20 under 0.5"),
        (moved(HOUSE)[[2, 0, 4, 1, 3]], 0.9, "shape 0.[0-9]+ from the mean, over 0.3"),
        (moved(HOUSE)[[2, 0, 4, 1, 3]], 0.2, "mean confidence .* and shape .*"),
        (HOUSE[:4], 0.9, ""),  # a selection of landmarks
        (np.full((5, 2), np.nan), 0.9, ""),
    ],
)
def test_the_reason_is_told_beside_the_landmarks(points, confidence, reason):
    transform = Plausibilityd("pred", mean_shape=HOUSE.tolist(), max_shape_distance=0.3, min_mean_confidence=0.5)
    given = item(points, confidence)
    found = transform(given)
    assert np.array_equal(found["pred"][0].numpy(), points, equal_nan=True)
    assert re.fullmatch(reason, found["unlikely"])


def test_without_a_mean_shape_confidence_alone_counts():
    transform = Plausibilityd("pred", min_mean_confidence=0.5)
    assert transform(item(HOUSE[[2, 0, 4, 1, 3]], 0.6))["unlikely"] == ""
    assert transform(item(HOUSE, 0.4))["unlikely"] != ""
