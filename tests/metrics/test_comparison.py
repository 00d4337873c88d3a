"""Two evaluations of the same images are compared landmark by landmark."""

import itertools

import numpy as np
import pytest

from common.bundle.__main__ import main
from common.errors import InputError
from common.metrics import compare_errors


def write_errors(path, errors, unit="mm", status="measured", scale=1.0, true_x=7.0):
    """Errors along y, `scale` of a unit for a unit of the world."""
    axes = [f"{kind}_{axis}" for kind in ("predicted", "true") for axis in "xyz"]
    lines = [",".join(["image,landmark,error,unit,status,confidence", *axes])]
    for i, error in enumerate(errors):
        points = f"{true_x},{error / scale:.6f},0.0,{true_x},0.0,0.0"
        lines.append(f"/data/{i}.nii.gz,ostium,{error:.6f},{unit},{status},1.0,{points}")
    path.write_text("\n".join(lines) + "\n")
    return path


def signed_rank_p(differences):
    """Two-sided p of the signed rank test, by all 2^n signs of the ranks; no ties."""
    ranks = np.abs(differences).argsort().argsort() + 1
    observed = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    sums = [sum(r for r, s in zip(ranks, signs) if s) for signs in itertools.product((0, 1), repeat=len(ranks))]
    return min(1.0, 2 * np.mean(np.array(sums) <= observed))


def test_medians_and_significance_of_two_evaluations(tmp_path):
    first = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    second = first - np.array([0.1, 0.22, 0.34, -0.05, 0.5, 0.61, 0.73])
    result = compare_errors(write_errors(tmp_path / "a.csv", first), write_errors(tmp_path / "b.csv", second))
    assert result["pairs"] == 7 and result["unit"] == "mm"
    assert result["median"] == pytest.approx([4.0, np.median(second)])
    assert result["p"] == pytest.approx(signed_rank_p(first - second))


def test_only_landmarks_that_both_measured_count_and_the_others_are_told(tmp_path, capsys):
    first = write_errors(tmp_path / "a.csv", [1.0, 2.0, 3.0, 9.0])
    second = write_errors(tmp_path / "b.csv", [1.5, 2.6, 3.7])
    result = compare_errors(first, second)
    assert result["pairs"] == 3 and result["alone"] == [1, 0]
    assert "not compared: 1 landmarks of the first and 0 of the second" in capsys.readouterr().out
    compare_errors(second, second)
    assert "not compared" not in capsys.readouterr().out


def test_an_evaluation_does_not_differ_from_itself(tmp_path):
    path = write_errors(tmp_path / "a.csv", [1.0, 2.0, 3.0])
    assert compare_errors(path, path)["p"] == 1


def test_what_cannot_be_compared_is_refused_in_a_sentence(tmp_path):
    path = write_errors(tmp_path / "a.csv", [1.0, 2.0])
    with pytest.raises(InputError, match="no such file"):
        compare_errors(path, tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("name,x,y\na,1,2\n")
    with pytest.raises(InputError, match="no errors.csv"):
        compare_errors(path, tmp_path / "other.csv")
    with pytest.raises(InputError, match="0 landmarks in common"):
        compare_errors(path, write_errors(tmp_path / "b.csv", [1.0, 2.0], status="missed"))
    with pytest.raises(InputError, match="ostium of /data/0.nii.gz is measured in mm and in pixel"):
        compare_errors(path, write_errors(tmp_path / "c.csv", [1.0, 2.0], unit="pixel"))
    with pytest.raises(InputError, match="has 1 and 0.92 mm for a unit of its world"):
        compare_errors(path, write_errors(tmp_path / "d.csv", [0.92, 1.84], scale=0.92))
    with pytest.raises(InputError, match="has another true point in each"):
        compare_errors(path, write_errors(tmp_path / "e.csv", [1.0, 2.0], true_x=7.1))


def test_the_command_line_prints_the_result(tmp_path, monkeypatch, capsys):
    files = [str(write_errors(tmp_path / name, e)) for name, e in (("a.csv", [1, 2, 4]), ("b.csv", [2, 3, 6]))]
    monkeypatch.setattr("sys.argv", ["common.bundle", "compare", *files])
    main()
    assert "3 landmarks: median (IQR) 2.000 (1.500) mm and 3.000 (2.000) mm" in capsys.readouterr().out
