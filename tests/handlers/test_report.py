import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image

from common.errors import InputError
from common.handlers import LandmarkReport, landmark_status

NAN, INF = math.nan, math.inf
NAMES = ["a", "b", "c", "d", "e"]
NOWHERE, ABSENT = [NAN, NAN], [INF, INF]

# The first image has 0.5 mm per world unit. Distances by Pythagoras: 5 world units, so 2.5 mm.
FIRST = {
    "pred": [[3.0, 4.0], NOWHERE, [2.0, 2.0], NOWHERE, [1.0, 1.0]],
    "true": [[0.0, 0.0], [1.0, 1.0], ABSENT, ABSENT, NOWHERE],
    "scale": 0.5,
}
# The second has millimetres; errors 1, 2, 3, 4 and 10 mm.
SECOND = {
    "pred": [[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 4.0], [6.0, 8.0]],
    "true": [[0.0, 0.0]] * 5,
    "scale": 1.0,
}
WORDS = ["measured", "missed", "false detection", "absent", "not annotated"]


def step(path, pred, true, scale=1.0, unit="mm", size=(20, 30)):
    """One item of an evaluator's batch and output."""
    image = MetaTensor(torch.rand(1, *size), affine=torch.eye(4), meta={"filename_or_obj": str(path)})
    output = {
        "image": image,
        "pred": torch.tensor([pred], dtype=torch.float64),
        "label": torch.tensor([true], dtype=torch.float64),
        "confidence": torch.linspace(0, 1, len(pred)),
    }
    return {"mm_per_world": torch.tensor(scale), "unit": unit}, output


def report(folder, *iterations, landmarks=NAMES, thresholds=(2.0, 4.0), runs=1, **options):
    """Run an engine over iterations, each a list of steps, and read what it wrote."""
    engine = Engine(lambda engine, batch: [output for _, output in batch])
    handler = LandmarkReport(folder, landmarks, thresholds, **options)

    def split(engine):
        engine.state.batch = [item for item, _ in engine.state.batch]

    engine.add_event_handler("ITERATION_COMPLETED", split)
    handler.attach(engine)
    for _ in range(runs):
        engine.run(list(iterations), max_epochs=1)
    with open(folder / "errors.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return json.loads((folder / "metrics.json").read_text()), rows


@pytest.fixture(scope="module")
def hand_made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    steps = [step("/data/first.png", *FIRST.values()), step("/data/second.png", *SECOND.values())]
    metrics, rows = report(folder, steps[:1], steps[1:], protocol={"list": "test"})
    return folder, metrics, rows


def test_every_landmark_has_one_status():
    status = landmark_status(*(torch.tensor(FIRST[key]) for key in ("pred", "true")))
    assert status == WORDS


def test_every_status_is_counted(hand_made):
    counts = hand_made[1]["counts"]
    assert counts == {
        "images": 2, "measured": 6, "missed": 1, "false_detection": 1, "absent": 1, "not_annotated": 1,
    }  # fmt: skip


def test_the_summary_is_in_millimetres_and_leaves_out_what_has_no_error(hand_made):
    """Errors 2.5, 1, 2, 3, 4 and 10 mm; the median lies between 2.5 and 3, five of six are at or under 4 mm."""
    overall = hand_made[1]["overall"]
    assert overall["count"] == 6
    assert overall["mean"] == pytest.approx(22.5 / 6)
    assert overall["median"] == pytest.approx(2.75)
    assert overall["max"] == 10
    assert overall["sdr"] == {"2": pytest.approx(100 / 3), "4": pytest.approx(250 / 3)}
    assert overall["edr"] == {"2": pytest.approx(200 / 3), "4": pytest.approx(50 / 3)}
    assert hand_made[1]["protocol"]["unit"] == "mm" and hand_made[1]["protocol"]["list"] == "test"


def test_the_intervals_are_over_images(hand_made):
    """Resamples of two images: the first twice, 2.5; both, 3.75; the second twice, 4."""
    assert hand_made[1]["overall"]["ci95"]["mean"] == [2.5, 4.0]


def test_each_landmark_and_each_image_has_its_own_mean(hand_made):
    metrics = hand_made[1]
    assert [metrics["per_landmark"][name]["mean"] for name in NAMES] == [1.75, 2, 3, 4, 10]
    assert [metrics["per_landmark"][name]["count"] for name in NAMES] == [2, 1, 1, 1, 1]
    assert metrics["per_image"] == {"/data/first.png": 2.5, "/data/second.png": 4.0}
    assert metrics["overall"]["per_image_mean"]["mean"] == 3.25


def test_the_offset_of_a_landmark_is_its_mean_difference_and_is_taken_off_by_the_other_images(hand_made, tmp_path):
    """a differs by (1.5, 2) and (1, 0) mm; each by the other's offset moved, both are (0.5, 2) off."""
    metrics = hand_made[1]
    assert metrics["per_landmark"]["a"]["offset"] == [1.25, 1.0]
    assert metrics["per_landmark"]["b"]["offset"] == [0, 2]  # of the one image in which it is measured
    left = metrics["overall"]["without_offsets"]
    assert left["count"] == 2 and left["mean"] == left["max"] == pytest.approx(math.hypot(0.5, 2.0))
    shifted = [step(f"/data/{i}.png", [[i + 3.0, 4.0], NOWHERE], [[i, 0.0], [0.0, 0.0]]) for i in range(5)]
    metrics, _ = report(tmp_path, shifted, landmarks=["a", "b"])
    assert metrics["overall"]["mean"] == 5 and metrics["overall"]["without_offsets"]["mean"] == pytest.approx(0)
    assert metrics["per_landmark"]["b"]["offset"] is None


def test_the_table_has_a_row_for_each_landmark(hand_made):
    rows = hand_made[2]
    assert [row["landmark"] for row in rows] == 2 * NAMES
    assert [row["status"] for row in rows] == WORDS + 5 * ["measured"]
    assert [row["error"] for row in rows[:5]] == ["2.500000", "", "", "", ""]
    assert [float(row["error"]) for row in rows[5:]] == [1, 2, 3, 4, 10]
    assert [float(row["confidence"]) for row in rows[:5]] == [0, 0.25, 0.5, 0.75, 1]
    assert {row["unit"] for row in rows} == {"mm"}


def test_the_coordinates_of_the_table_are_world_and_empty_where_there_are_none(hand_made):
    rows = [[row[f"{kind}_{axis}"] for kind in ("predicted", "true") for axis in "xy"] for row in hand_made[2][:5]]
    assert rows[0] == ["3.000000", "4.000000", "0.000000", "0.000000"]
    assert rows[1] == ["", "", "1.000000", "1.000000"]
    assert rows[2] == ["2.000000", "2.000000", "", ""]
    assert rows[3] == ["", "", "", ""]
    assert rows[4] == ["1.000000", "1.000000", "", ""]


def test_curve_and_overlays_are_drawn_and_nothing_else_is_left(hand_made):
    found = sorted(str(path.relative_to(hand_made[0])) for path in hand_made[0].rglob("*") if path.is_file())
    assert found == ["error_curve.png", "errors.csv", "metrics.json", "overlays/first.png", "overlays/second.png"]
    with Image.open(hand_made[0] / "overlays" / "first.png") as picture:
        assert picture.size == (683, 1024)  # 20 x 30, enlarged


def test_overlays_of_images_of_one_name_are_kept_apart(tmp_path):
    paths = ["a/film.png", "b/film.png", "1.2.840.1", "1.2.840.2"]
    report(tmp_path, *[[step(path, *SECOND.values())] for path in paths], max_overlays=4)
    assert len(list((tmp_path / "overlays").iterdir())) == 4


def test_no_more_overlays_are_drawn_than_asked_for(tmp_path):
    report(tmp_path, *[[step(f"{i}.png", *SECOND.values())] for i in range(3)], max_overlays=1)
    assert [path.name for path in (tmp_path / "overlays").iterdir()] == ["0.png"]


def test_without_a_pixel_spacing_the_numbers_are_called_pixels(tmp_path, capsys):
    metrics, rows = report(tmp_path, [step("a.png", **{**SECOND, "unit": "pixel"})])
    assert metrics["protocol"]["unit"] == "pixel" and {row["unit"] for row in rows} == {"pixel"}
    assert metrics["overall"]["mean"] == 4.0
    assert "4.000 pixel" in capsys.readouterr().out


def test_pixels_and_millimetres_are_never_averaged(tmp_path, caplog):
    pixels = step("b.png", **{**SECOND, "scale": 1.0}, unit="pixel")
    metrics, rows = report(tmp_path, [step("a.png", *FIRST.values())], [pixels])
    assert metrics["protocol"]["unit"] == "mm"
    assert metrics["overall"]["count"] == 1 and metrics["overall"]["mean"] == 2.5
    assert metrics["per_image"] == {"a.png": 2.5, "b.png": None}
    assert metrics["counts"]["images_in_pixels"] == 1
    assert [row["unit"] for row in rows] == 5 * ["mm"] + 5 * ["pixel"]
    assert float(rows[-1]["error"]) == 10
    assert "1 of 2 images" in caplog.text


def test_an_image_without_any_landmark_has_no_mean_and_spoils_none(tmp_path):
    nothing = {"pred": [NOWHERE] * 5, "true": [NOWHERE] * 5}
    metrics, _ = report(tmp_path, [step("a.png", **nothing)], [step("b.png", *SECOND.values())])
    assert metrics["per_image"] == {"a.png": None, "b.png": 4.0}
    assert metrics["overall"]["mean"] == 4.0 and metrics["overall"]["per_image_mean"]["count"] == 1


def test_an_evaluation_that_measures_nothing_still_leaves_a_report(tmp_path, capsys):
    metrics, rows = report(tmp_path, [step("a.png", [NOWHERE] * 5, [[1.0, 1.0]] * 5)])
    assert metrics["counts"]["missed"] == 5 and metrics["overall"]["mean"] is None and len(rows) == 5
    assert metrics["overall"]["ci95"]["mean"] == [None, None]
    assert "no landmark could be measured" in capsys.readouterr().out


def test_one_landmark_in_one_image_is_enough(tmp_path):
    metrics, _ = report(tmp_path, [step("a.png", [[0.0, 3.0]], [[4.0, 0.0]])], landmarks=["apex"])
    assert metrics["overall"]["mean"] == 5.0 and metrics["overall"]["sd"] == 0.0
    assert metrics["per_landmark"]["apex"]["count"] == 1


def test_volumes_have_a_third_coordinate_and_an_overlay_in_three_planes(tmp_path):
    metrics, rows = report(
        tmp_path, [step("a.nii.gz", [[2.0, 3.0, 6.0]], [[0.0, 0.0, 0.0]], size=(4, 5, 6))], landmarks=["apex"]
    )
    assert metrics["overall"]["mean"] == 7.0
    assert (rows[0]["predicted_z"], rows[0]["true_z"]) == ("6.000000", "0.000000")
    with Image.open(tmp_path / "overlays" / "a.png") as picture:
        width, height = picture.size
    assert width == pytest.approx(1024, abs=2) and width / 3 < height < width / 2  # one row of three squares, and text


def test_a_second_run_forgets_the_first(tmp_path):
    metrics, rows = report(tmp_path, [step("a.png", *SECOND.values())], runs=2)
    assert metrics["counts"]["images"] == 1 and len(rows) == 5
    assert [path.name for path in (tmp_path / "overlays").iterdir()] == ["a.png"]


def test_several_images_of_one_batch_are_all_taken(tmp_path):
    metrics, _ = report(tmp_path, [step("a.png", *FIRST.values()), step("b.png", *SECOND.values())])
    assert metrics["counts"]["images"] == 2


def test_an_evaluation_of_phantoms_says_so_first(tmp_path, capsys):
    report(tmp_path, [step("a.png", *SECOND.values())], protocol={"phantom": True})
    assert capsys.readouterr().out.startswith("SYNTHETIC PHANTOMS")


def test_an_evaluation_says_its_result_in_one_line(tmp_path, capsys):
    report(tmp_path, [step("a.png", *SECOND.values())])
    told = capsys.readouterr().out
    assert "1 images, 5 landmarks: mean radial error 4.000 mm (95 % interval 4.000 to 4.000), median 3.000 mm" in told
    assert "40.0 % within 2 mm, 80.0 % within 4 mm" in told and str(tmp_path) in told
    assert "SYNTHETIC" not in told


def test_a_folder_that_cannot_be_written_is_told_before_the_first_image(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give another --evaluation_dir") as raised:
        report(tmp_path / "file" / "evaluation", [step("a.png", *SECOND.values())])
    assert str(raised.value).startswith(str(tmp_path / "file" / "evaluation"))


def test_the_json_holds_no_number_that_json_lacks(hand_made):
    def refuse(constant):
        raise AssertionError(constant)

    json.loads((Path(hand_made[0]) / "metrics.json").read_text(), parse_constant=refuse)
    assert np.isfinite(hand_made[1]["overall"]["sd"])
