import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import common
from common.clinical import cobb_angles, cobb_smape, is_s_shaped
from common.errors import InputError

LABELS = Path(common.__file__).resolve().parents[2] / "shared/data/aasce2019_spine/labels"


def spine(tilts, step=50.0, top=(300.0, 60.0)):
    """Corners (1, 68, 2) of 17 vertebrae 60 wide and 30 high, each tilted (degrees), stacked along their own axes."""
    corners, middle = [], np.array(top)
    for tilt in np.radians(tilts):
        right, down = np.array([np.cos(tilt), np.sin(tilt)]), np.array([-np.sin(tilt), np.cos(tilt)])
        corners += [middle + x * right + y * down for y in (-15, 15) for x in (-30, 30)]
        middle = middle + step * down
    return torch.tensor(np.array(corners))[None]


def angles(tilts, height=1000.0, **options):
    return cobb_angles(spine(tilts), height, **options)[0].tolist()


C_SHAPE = np.linspace(20, -15, 17)
# Tilts rise to 20 at vertebra 4, fall to -15 at vertebra 11 and rise to 5.
S_SHAPE = np.interp(np.arange(17), [0, 4, 11, 16], [2, 20, -15, 5])


def test_a_straight_spine_has_no_angle():
    assert angles(np.zeros(17)) == [0, 0, 0]


def test_a_single_curve_has_its_whole_angle_and_nothing_beyond_its_ends():
    assert not is_s_shaped(spine(C_SHAPE))[0]
    assert angles(C_SHAPE) == pytest.approx([35, 0, 0], abs=1e-9)


def test_a_single_curve_is_measured_to_the_first_and_last_vertebra():
    tilts = np.interp(np.arange(17), [0, 3, 12, 16], [12, 20, -15, -10])
    assert not is_s_shaped(spine(tilts))[0]
    assert angles(tilts) == pytest.approx([35, 8, 5], abs=1e-9)


def test_an_s_shape_in_the_upper_half_has_a_curve_above_and_one_below():
    assert is_s_shaped(spine(S_SHAPE))[0]
    assert angles(S_SHAPE, height=2000) == pytest.approx([35, 18, 20], abs=1e-9)


def test_an_s_shape_in_the_lower_half_has_two_curves_above():
    tilts = np.interp(np.arange(17), [0, 2, 5, 11, 16], [4, -3, 20, -15, 5])
    assert is_s_shaped(spine(tilts))[0]
    assert angles(tilts, height=500) == pytest.approx([35, 23, 7], abs=1e-9)


def test_the_end_plate_that_says_the_half_is_a_setting():
    corners = spine(S_SHAPE)[0]
    upper, lower = (float(sum(corners[4 * v + k : 4 * v + k + 2, 1].mean() for v in (4, 11))) for k in (0, 2))
    height = (upper + lower) / 2
    assert angles(S_SHAPE, height=height, plate="upper")[2] == pytest.approx(20)
    assert angles(S_SHAPE, height=height, plate="lower")[2] == pytest.approx(0, abs=1e-9)


def test_the_mirrored_spine_has_the_same_angles():
    corners = spine(S_SHAPE)
    mirror = corners.reshape(17, 2, 2, 2).flip(2).reshape(1, 68, 2) * torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(cobb_angles(mirror, 2000), cobb_angles(corners, 2000))


def test_a_spine_whose_ends_lie_above_each_other_can_be_s_shaped():
    corners = spine(S_SHAPE)
    last = corners[:, -2:].mean(1) - corners[:, :2].mean(1)
    corners[..., 0] -= corners[..., 1] * (last[:, 0] / last[:, 1])[:, None]  # sheared until the line is vertical
    assert is_s_shaped(corners)[0]


def test_an_angle_over_90_degrees_stays_one():
    assert angles(np.linspace(60, -60, 17))[0] == pytest.approx(120)


def test_a_spine_with_a_missing_corner_has_no_angles_and_the_others_keep_theirs():
    corners = torch.cat([spine(S_SHAPE)] * 3)
    corners[1, 30] = torch.nan
    result = cobb_angles(corners, torch.tensor([2000.0, 2000.0, 500.0]))
    assert result[1].isnan().all()
    assert result[0].tolist() == pytest.approx([35, 18, 20], abs=1e-9)
    assert result[2].tolist() == pytest.approx([35, 18, 0], abs=1e-9)


def test_another_number_of_corners_is_told():
    with pytest.raises(InputError, match="four corners for each of 17 vertebrae"):
        cobb_angles(torch.zeros(1, 64, 2), 100)


def test_smape_is_the_mean_over_films_of_differences_over_sums():
    pred = torch.tensor([[30.0, 10, 20], [0, 0, 0], [torch.nan] * 3])
    truth = torch.tensor([[20.0, 10, 10], [0, 0, 0], [10, 10, 10]])
    assert cobb_smape(pred, truth) == pytest.approx(100 * (20 / 100 + 0) / 2)


@pytest.fixture(scope="module")
def aasce():
    """Published corners and those in order, (481, 68, 2) pixels; heights, whether reordered, published angles."""
    if not LABELS.is_dir():
        pytest.skip(f"the AASCE 2019 labels are not in {LABELS}")
    with open(LABELS / "training_px_sorted.csv", newline="") as file:
        rows = {row["filename"]: row for row in csv.DictReader(file)}
    names = (LABELS / "training/filenames.csv").read_text().split("\n")
    rows = [rows[name.strip()] for name in names if name.strip()]
    size = torch.tensor([[float(row["width"]), float(row["height"])] for row in rows], dtype=torch.float64)
    fractions = torch.tensor(np.loadtxt(LABELS / "training/landmarks.csv", delimiter=","))
    published = fractions.reshape(-1, 2, 68).transpose(1, 2) * size[:, None]
    ordered = torch.tensor([[[float(row[f"{a}{i}"]) for a in "xy"] for i in range(1, 69)] for row in rows]).double()
    reordered = torch.tensor([row["reordered"] == "1" for row in rows])
    return (
        published,
        ordered,
        size[:, 1],
        reordered,
        torch.tensor(np.loadtxt(LABELS / "training/angles.csv", delimiter=",")),
    )


def test_the_published_corners_give_the_published_angles_of_all_films(aasce):
    published, _, height, _, truth = aasce
    difference = (cobb_angles(published, height) - truth).abs()
    assert len(difference) == 481
    assert difference.median() < 0.01
    assert difference.max() < 0.1
    assert cobb_smape(cobb_angles(published, height), truth) < 0.01


def test_halving_by_upper_end_plates_fails_on_twelve_s_shapes_and_in_the_third_angle_alone(aasce):
    published, _, height, _, truth = aasce
    result = cobb_angles(published, height, plate="upper")
    wrong = (result - truth).abs() > 0.1
    assert wrong.sum(0).tolist() == [0, 0, 12]
    assert is_s_shaped(published)[wrong.any(1)].all()
    assert cobb_smape(result, truth) == pytest.approx(0.27, abs=0.01)


def test_corners_in_order_change_the_angles_of_reordered_films_alone(aasce):
    _, ordered, height, reordered, truth = aasce
    result = cobb_angles(ordered, height)
    wrong = ((result - truth).abs() > 0.1).any(1)
    assert int(wrong.sum()) == 21 and int(reordered.sum()) == 26
    assert reordered[wrong].all()
    assert cobb_smape(result, truth) == pytest.approx(0.51, abs=0.01)
