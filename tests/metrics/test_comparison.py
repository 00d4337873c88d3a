"""Two evaluations of the same images are compared landmark by landmark."""

import itertools

import numpy as np
import pytest

from common.bundle.__main__ import main
from common.errors import InputError
from common.metrics import compare_errors


def write_errors(path, errors, unit="mm", status="measured"):
    lines = ["image,landmark,error,unit,status,confidence"]
    lines += [f"/data/{i}.nii.gz,ostium,{error:.6f},{unit},{status},1.0" for i, error in enumerate(errors)]
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


def test_only_landmarks_that_both_measured_count(tmp_path):
    first = write_errors(tmp_path / "a.csv", [1.0, 2.0, 3.0, 9.0])
    second = write_errors(tmp_path / "b.csv", [1.5, 2.6, 3.7])
    assert compare_errors(first, second)["pairs"] == 3


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
    with pytest.raises(InputError, match="mm, some in pixels"):
        compare_errors(path, write_errors(tmp_path / "c.csv", [1.0, 2.0], unit="pixel"))


def test_the_command_line_prints_the_result(tmp_path, monkeypatch, capsys):
    files = [str(write_errors(tmp_path / name, e)) for name, e in (("a.csv", [1, 2, 4]), ("b.csv", [2, 3, 6]))]
    monkeypatch.setattr("sys.argv", ["common.bundle", "compare", *files])
    main()
    assert "3 landmarks: median (IQR) 2.000 (1.500) mm and 3.000 (2.000) mm" in capsys.readouterr().out
