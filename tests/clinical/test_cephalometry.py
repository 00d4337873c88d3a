"""A face here is a dictionary of landmark number (from 1) and file pixel; all other landmarks are not annotated."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import common
from common.clinical import (
    MEASUREMENTS,
    anatomical_types,
    cephalometric_measurements,
    mean_shape_error,
    success_classification_rate,
    type_agreement,
)
from common.clinical.cephalometry import MW_WIDE_NORMAL
from common.errors import InputError

NAMES = [measurement.name for measurement in MEASUREMENTS]
ANNOTATIONS = Path(common.__file__).resolve().parents[2] / "shared/data/isbi2015_cephalometric/AnnotationsByMD"
DOCTORS_AGREE = {"ANB": 73, "SNB": 78, "SNA": 67, "ODI": 80, "APDI": 83, "FHI": 80, "FMA": 81, "MW": 85}


def face(points):
    table = torch.full((1, 19, 2), torch.nan, dtype=torch.float64)
    for number, point in points.items():
        table[0, number - 1] = torch.tensor(point, dtype=torch.float64)
    return table


def polar(start, degrees, length):
    """The point at a distance and direction from another; 0 degrees to the right, 90 degrees down."""
    return start[0] + length * math.cos(math.radians(degrees)), start[1] + length * math.sin(math.radians(degrees))


def measure(points, name, mm=0.1):
    return float(cephalometric_measurements(face(points), mm)[0, NAMES.index(name)])


def mirrored(points):
    return {number: (1000 - x, y) for number, (x, y) in points.items()}


def type_of(name, value):
    measurement = MEASUREMENTS[NAMES.index(name)]
    return measurement.type_name(int(measurement.classify(torch.tensor([value], dtype=torch.float64))[0]))


NASION = (800.0, 400.0)
# The face looks to the right; sella lies level with the nasion, to its left.
CASES = {
    "SNA": ({1: (500, 400), 2: NASION, 5: polar(NASION, 180 - 81, 200)}, 81),
    "SNB": ({1: (500, 400), 2: NASION, 6: polar(NASION, 180 - 76.5, 300)}, 76.5),
    "ANB": ({1: (500, 400), 2: NASION, 5: polar(NASION, 180 - 78, 200), 6: polar(NASION, 180 - 80.5, 300)}, -2.5),
    # palatal plane tilted down by 5 towards the face, mandibular plane 70 from B to A
    "ODI": (
        {1: (500, 400), 2: NASION, 4: (450, 450), 3: (700, 450), 17: (600, 600), 18: polar((600, 600), 5, 200)}
        | {6: (780, 800), 5: (780, 600), 8: (740, 900), 10: polar((740, 900), 200, 300)},
        70 + 5,
    ),
    # facial plane 85 from the Frankfurt plane, A to B turned from it by 4 backwards, palatal plane up by 3
    "APDI": (
        {1: (500, 400), 4: (450, 450), 3: (700, 450), 17: (600, 600), 18: polar((600, 600), -3, 200)}
        | {2: NASION, 7: polar(NASION, 95, 400), 5: (790, 600), 6: polar((790, 600), 99, 200)},
        85 - 4 - 3,
    ),
    "FHI": ({1: (500, 400), 10: (560, 480), 2: NASION, 8: (800, 560)}, 100 / 160),
    "FMA": ({1: (500, 400), 2: NASION, 10: (500, 700), 9: polar((500, 700), 29, 250)}, 29),
    "MW": ({1: (500, 400), 2: NASION, 11: (820, 700), 12: (850, 740)}, 5),
}


@pytest.mark.parametrize("name", CASES)
def test_a_hand_made_face_has_the_drawn_measurement(name):
    points, expected = CASES[name]
    assert measure(points, name) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_the_mirrored_film_has_the_same_measurement(name):
    points, expected = CASES[name]
    assert measure(mirrored(points), name) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_a_measurement_without_one_of_its_landmarks_is_nan_and_no_other_is(name, lost):
    points = {number: point for case, _ in CASES.values() for number, point in case.items()}
    whole = cephalometric_measurements(face(points), 0.1)[0]
    assert whole.isfinite().all()
    for number in CASES[name][0]:
        values = cephalometric_measurements(face(points | {number: (lost, lost)}), 0.1)[0]
        assert math.isnan(values[NAMES.index(name)])
        using = {other for other, (case, _) in CASES.items() if number in case}
        assert all(math.isfinite(value) for other, value in zip(NAMES, values) if other not in using)


def test_an_overjet_behind_the_lower_incisor_is_negative_and_scales_with_the_pixel():
    points = CASES["MW"][0] | {12: (790, 740)}
    assert measure(points, "MW", mm=0.2) == pytest.approx(-10)
    assert math.isnan(measure(points, "MW", mm=math.nan))


def test_films_are_measured_together_as_they_are_alone():
    points = torch.rand(5, 19, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1000
    mm = torch.tensor([0.1, 0.2, 0.3, 0.1, 0.5])
    together = cephalometric_measurements(points, mm)
    alone = [cephalometric_measurements(points[i : i + 1], float(mm[i])) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "name, low, high, below, above",
    [
        ("ANB", 3.2, 5.7, "class 3", "class 2"),
        ("SNB", 74.6, 78.7, "retrognathic", "prognathic"),
        ("SNA", 79.4, 83.2, "retrognathic", "prognathic"),
        ("ODI", 68.4, 80.5, "open bite", "deep bite"),
        ("APDI", 77.6, 85.2, "class 2", "class 3"),
        ("FHI", 0.65, 0.75, "long face", "short face"),
        ("FMA", 26.8, 31.4, "low angle", "high angle"),
        ("MW", 2.0, 4.5, "edge to edge", "large overjet"),
    ],
)
def test_both_borders_belong_to_the_normal_type(name, low, high, below, above):
    assert "normal" in type_of(name, low) and "normal" in type_of(name, high)
    assert type_of(name, low - 1e-9).startswith(below)
    assert type_of(name, high + 1e-9).startswith(above)


def test_an_overjet_is_edge_to_edge_from_zero_and_a_crossbite_below():
    assert type_of("MW", 0.0) == "edge to edge"
    assert type_of("MW", -1e-9) == "anterior crossbite"
    wide = [MW_WIDE_NORMAL.types[i] for i in MW_WIDE_NORMAL.classify(torch.tensor([-0.1, 0.0, 1.0, 4.6]))]
    assert wide == ["anterior crossbite", "normal", "normal", "large overjet"]


def test_an_unknown_value_has_no_type():
    assert type_of("SNA", math.nan) == ""


def test_success_needs_the_type_of_the_truth_and_unknown_truth_does_not_count():
    normal = torch.tensor([[4.0, 76, 81, 75, 80, 0.7, 29, 3]], dtype=torch.float64)
    truth = normal.repeat(4, 1)
    pred = truth.clone()
    pred[0, 2] = 90  # another type
    pred[1, 2] = torch.nan  # missed
    truth[2, 2] = torch.nan  # not annotated
    pred[3, 7] = 1.0  # normal in the other reading alone
    rates = type_agreement(pred, truth)
    assert rates["SNA"] == pytest.approx(100 / 3)
    assert rates["MW"] == 75 and rates["MW (0 to 2 mm normal)"] == 100
    assert rates["mean"] == pytest.approx((6 * 100 + 100 / 3 + 75) / 8)


def test_another_number_of_landmarks_is_told():
    with pytest.raises(InputError, match=r"19, 2\), got \(1, 18, 2\)"):
        cephalometric_measurements(torch.zeros(1, 18, 2), 0.1)


def test_the_mean_shape_is_as_far_from_a_film_as_the_film_from_the_mean():
    training = torch.tensor([[[0.0, 0.0], [10, 0]], [[2, 0], [torch.nan, torch.nan]]])
    test = torch.tensor([[[1.0, 3.0], [10, 4]], [[1, 0], [torch.inf, torch.inf]]])
    expected = torch.tensor([[3, 4], [0, torch.nan]], dtype=torch.float64)
    torch.testing.assert_close(mean_shape_error(training, test), expected, equal_nan=True)


@pytest.fixture(scope="module")
def doctors():
    """Annotations of both doctors on Test1, (150, 19, 2) each, in pixels of 0.1 mm."""
    if not ANNOTATIONS.is_dir():
        pytest.skip(f"the ISBI 2015 annotations are not in {ANNOTATIONS}")

    def read(folder, number):
        return np.loadtxt(ANNOTATIONS / folder / f"{number:03d}.txt", delimiter=",", max_rows=19)

    return [
        torch.tensor(np.stack([read(folder, number) for number in range(151, 301)]))
        for folder in ("400_senior", "400_junior")
    ]


def test_the_two_doctors_agree_on_test1_as_published(doctors):
    rates = success_classification_rate(*doctors, 0.1)
    assert {name: round(rates[name]) for name in NAMES} == DOCTORS_AGREE
    assert rates["MW (0 to 2 mm normal)"] == pytest.approx(91.33, abs=0.01)


def test_each_doctor_is_1_18_mm_from_their_mean_on_test1(doctors):
    senior, junior = doctors
    assert float((senior - (senior + junior) / 2).norm(dim=-1).mean()) * 0.1 == pytest.approx(1.18, abs=0.005)


def test_mirrored_real_films_have_the_same_measurements_and_types(doctors):
    senior = doctors[0]
    mirror = senior * torch.tensor([-1.0, 1.0]) + torch.tensor([1934.0, 0.0])
    values, mirror_values = (cephalometric_measurements(points, 0.1) for points in (senior, mirror))
    torch.testing.assert_close(values, mirror_values, atol=1e-9, rtol=0)
    assert (anatomical_types(values) == anatomical_types(mirror_values)).all()
