import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from common.visualize import save_error_curve


@pytest.fixture
def drawn(monkeypatch):
    """What goes into the figure, beside its pixels."""
    kept = {}
    save = Figure.savefig

    def keep(figure, path, **options):
        kept["axes"] = figure.axes[0]
        save(figure, path, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def curve(axes, distance):
    """Percentage of the first curve at a distance, by the points of its line."""
    x, y = axes.lines[0].get_data()
    return y[np.nonzero(x <= distance)[0].max()] if (x <= distance).any() else 0.0


def test_the_curve_is_the_percentage_within_each_distance(drawn, tmp_path):
    save_error_curve({"all": np.array([[4.0, 1.0], [math.nan, 2.0], [8.0, math.inf]])}, tmp_path / "a.png")
    assert [curve(drawn["axes"], d) for d in (0.5, 1, 1.5, 2, 4, 7.9, 8)] == [0, 25, 25, 50, 75, 75, 100]
    assert drawn["axes"].get_xlabel() == "radial error [mm]"
    assert drawn["axes"].get_legend_handles_labels()[1] == ["all (mean 3.75 mm)"]


def test_the_axis_ends_at_the_99th_percentile_or_where_it_is_told(drawn, tmp_path):
    errors = np.append(np.linspace(0, 10, 1001), 1e4)
    save_error_curve({"all": errors}, tmp_path / "a.png", unit="pixel")
    assert drawn["axes"].get_xlim() == (0, pytest.approx(np.percentile(errors, 99)))
    assert "pixel" in drawn["axes"].get_xlabel()
    save_error_curve({"all": errors}, tmp_path / "a.png", limit=5)
    assert drawn["axes"].get_xlim() == (0, 5)


@pytest.mark.parametrize("errors", [{}, {"all": np.full((2, 3), math.nan)}, {"all": np.zeros(3)}])
def test_nothing_to_draw_is_an_empty_picture(errors, tmp_path):
    save_error_curve(errors, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (720, 480)
