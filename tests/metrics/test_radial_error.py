import math
import statistics

import numpy as np
import pytest
import torch

from common.metrics import (
    RadialError,
    bootstrap_interval,
    error_intervals,
    error_statistics,
    is_lower,
    radial_errors,
)

NAN, INF = math.nan, math.inf
# Six errors whose mean is 3.
ERRORS = [1.0, 1.0, 2.0, 3.0, 4.0, 7.0]


def test_the_mean_radial_error_is_that_of_triangles_known_by_heart():
    pred = torch.tensor([[[[3.0, 4.0], [5.0, 12.0]]]])
    truth = torch.zeros(1, 1, 2, 2)
    metric = RadialError()
    metric(pred, truth)
    assert metric.aggregate().item() == pytest.approx((5 + 13) / 2)


def test_errors_in_space_are_euclidean_too():
    error = radial_errors(torch.tensor([[2.0, 3.0, 6.0]]), torch.zeros(1, 3))
    assert error.tolist() == [7.0]


@pytest.mark.parametrize("pred, truth", [([NAN, NAN], [1, 1]), ([1, 1], [NAN, NAN]), ([1, 1], [INF, INF]),
                                         ([NAN, NAN], [INF, INF]), ([INF, INF], [INF, INF])])  # fmt: skip
def test_a_landmark_without_a_coordinate_on_either_side_has_no_error(pred, truth):
    error = radial_errors(torch.tensor([pred, [0.0, 3.0]]), torch.tensor([truth, [4.0, 0.0]]))
    assert error[0].isnan() and error[1] == 5


def test_the_metric_pools_landmarks_of_all_images_and_leaves_out_the_missing():
    """Images with fewer landmarks weigh less: (1 + 2 + 6) / 3, not the mean of the images' means."""
    metric = RadialError()
    metric(torch.tensor([[[[1.0, 0.0], [0.0, 2.0]]]]), torch.zeros(1, 1, 2, 2))
    metric([torch.tensor([[[6.0, 0.0], [9.0, 9.0]]])], [torch.tensor([[[0.0, 0.0], [NAN, NAN]]])])
    assert metric.aggregate().item() == pytest.approx(3.0)
    assert metric.get_buffer().shape == (2, 2) and metric.get_buffer().dtype == torch.float64
    metric.reset()
    metric(torch.tensor([[[[0.0, 1.0]]]]), torch.zeros(1, 1, 1, 2))
    assert metric.aggregate().item() == 1.0


def test_points_in_single_precision_far_from_the_origin_are_subtracted_in_double():
    pred, truth = torch.tensor([[[[1e6 + 0.125, 0.0]]]]), torch.tensor([[[[1e6, 0.0]]]], dtype=torch.float64)
    metric = RadialError()
    metric(pred, truth)
    assert metric.aggregate().item() == 0.125


def test_a_batch_without_any_coordinate_gives_no_number():
    metric = RadialError()
    metric(torch.full((1, 1, 3, 2), NAN), torch.zeros(1, 1, 3, 2))
    assert metric.aggregate().isnan()


def test_statistics_are_those_of_the_standard_library_with_the_deviation_of_a_population():
    result = error_statistics(np.array(ERRORS))
    assert result["count"] == 6
    assert result["mean"] == 3.0
    # squared deviations 4, 4, 1, 0, 1, 16 over 6, not over 5
    assert result["sd"] == pytest.approx(math.sqrt(26 / 6)) == pytest.approx(statistics.pstdev(ERRORS))
    assert result["median"] == 2.5 == statistics.median(ERRORS)
    q1, _, q3 = statistics.quantiles(ERRORS, n=4, method="inclusive")
    assert (result["q1"], result["q3"], result["iqr"]) == (q1, q3, q3 - q1) == (1.25, 3.75, 2.5)
    assert result["max"] == 7.0


def test_a_detection_at_the_very_distance_is_successful():
    result = error_statistics(np.array(ERRORS), [2.0, 2.5, 10.0, 0.5])
    assert result["sdr"] == {"2": 50.0, "2.5": 50.0, "10": 100.0, "0.5": 0.0}


def test_the_error_detection_rate_is_the_complement():
    result = error_statistics(np.array(ERRORS), [1.0, 3.0])
    assert result["edr"] == {"1": pytest.approx(100 * 4 / 6), "3": pytest.approx(100 * 2 / 6)}


def test_missing_landmarks_enter_neither_count_nor_rate():
    table = np.array([[1.0, NAN], [3.0, INF]])
    result = error_statistics(table, [2.0])
    assert (result["count"], result["mean"], result["sdr"]) == (2, 2.0, {"2": 50.0})


@pytest.mark.parametrize("errors", [np.zeros(0), np.zeros((0, 4)), np.full((3, 2), NAN)])
def test_where_nothing_was_measured_nothing_is_reported(errors):
    result = error_statistics(errors, [2.0])
    assert result["count"] == 0
    assert {result[name] for name in ("mean", "sd", "median", "q1", "q3", "iqr", "max")} == {None}


def test_one_error_has_a_spread_of_zero():
    result = error_statistics(np.array([[4.0]]), [4.0])
    assert (result["mean"], result["sd"], result["iqr"], result["sdr"]) == (4.0, 0.0, 0.0, {"4": 100.0})


def test_the_interval_of_a_mean_of_two_images_takes_every_resample_with_its_probability():
    """Of images with errors 0 and 1 the resampled mean is 0, 0.5, 1 with 1/4, 1/2, 1/4: the inner 40 % are all 0.5,
    the inner 60 % reach both ends."""
    table = np.array([[0.0], [1.0]])
    assert bootstrap_interval(table, np.mean, 4000, level=0.4) == (0.5, 0.5)
    assert bootstrap_interval(table, np.mean, 4000, level=0.6) == (0.0, 1.0)


def test_the_interval_of_the_mean_has_the_width_of_the_normal_approximation():
    """Independent images: half the width is 1.96 population deviations over the root of their number."""
    table = np.random.default_rng(1).normal(10, 2, (400, 1))
    low, high = bootstrap_interval(table, np.mean, 2000)
    half = 1.96 * table.std() / math.sqrt(400)
    assert low == pytest.approx(table.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(table.mean() + half, abs=0.1 * half)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Errors drawn from an exponential distribution of mean 1: the interval of 200 experiments, 95 % nominal. With
    60 images the percentile bootstrap is known to cover a little less."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.exponential(1.0, (60, 1)), np.mean, 200)
        covered += low <= 1.0 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_images_are_drawn_not_landmarks():
    """25 landmarks with one error per image say no more than one: the interval is that of the images."""
    errors = np.random.default_rng(2).normal(10, 2, (50, 1))
    repeated = np.repeat(errors, 25, axis=1)
    assert bootstrap_interval(repeated, np.mean) == pytest.approx(bootstrap_interval(errors, np.mean))


def test_missing_landmarks_leave_an_interval_of_the_others():
    table = np.array([[1.0, NAN], [1.0, NAN], [NAN, NAN]])
    assert bootstrap_interval(table, np.mean, 100) == (1.0, 1.0)


@pytest.mark.parametrize("table", [np.full((3, 2), NAN), np.zeros((0, 2))])
def test_an_interval_of_nothing_is_no_number(table):
    assert np.isnan(bootstrap_interval(table, np.mean, 10)).all()


def test_intervals_are_the_same_every_time_and_leave_numpy_alone():
    table = np.random.default_rng(3).exponential(2.0, (12, 4))
    np.random.seed(5)  # noqa: NPY002
    first = error_intervals(table, [2.0])
    drawn = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    assert drawn == np.random.random()  # noqa: NPY002
    assert error_intervals(table, [2.0]) == first
    assert bootstrap_interval(table, np.mean, seed=1) != bootstrap_interval(table, np.mean, seed=0)


def test_every_distance_has_its_own_interval():
    table = np.array([[0.5, 5.0]] * 4)
    result = error_intervals(table, [1.0, 10.0, 0.1])
    assert result["sdr"] == {"1": (50.0, 50.0), "10": (100.0, 100.0), "0.1": (0.0, 0.0)}
    assert result["mean"] == result["median"] == (2.75, 2.75)


@pytest.mark.parametrize("current, best, answer", [(1.0, 2.0, True), (2.0, 1.0, False), (1.0, 1.0, False),
                                                   (1.0, NAN, True), (NAN, 1.0, False), (NAN, NAN, False)])  # fmt: skip
def test_the_lower_error_is_the_better_one_and_any_number_beats_none(current, best, answer):
    assert is_lower(current, best) is answer
