import json
import os

import pytest

from common.data import PredictionResults
from common.data.prediction_results import image_source, unique_stem
from common.errors import InputError


@pytest.fixture
def items(tmp_path):
    """Two images, as far as this module looks at them."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text(name)
    return [{"image": str(tmp_path / name)} for name in ("a.png", "b.png")]


def finish(results, image, value="1"):
    results.markups(image.stem).write_text("{}")
    results.finish(image, ["image", "x"], [[image.path, value]])


def test_an_image_is_done_when_its_record_is_there(items, tmp_path):
    results = PredictionResults(tmp_path / "out", "digest", overlays=False)
    plan = results.plan(items)
    assert [(image.stem, image.done) for image in plan] == [("a", False), ("b", False)]
    finish(results, plan[1])
    results.begin("a")
    results.markups("a").write_text("{}")  # and then the process was killed
    plan = results.plan(items)
    assert [image.done for image in plan] == [False, True]
    assert not results.markups("a").exists() and results.markups("b").exists()
    assert results.write_tables(plan, {plan[0].path: "a.png: is broken, really; mend it."}) == (1, 0)
    assert results.table.read_text() == f"image,x\n{plan[1].path},1\n"
    assert results.failures.read_text() == f'image,reason\n{plan[0].path},"a.png: is broken, really; mend it."\n'
    results.plan(items)
    assert not results.table.exists() and not results.failures.exists()


@pytest.mark.parametrize("lost", ["markups", "overlay", "measurements"])
def test_an_image_that_lacks_one_of_its_files_is_not_done(items, tmp_path, lost):
    results = PredictionResults(tmp_path / "out", "digest")
    (image, other) = results.plan(items)
    for path in (results.overlay("a"), results.overlay("b"), results.measurements("a")):
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    finish(results, image)
    finish(results, other)  # of which nothing was measured
    getattr(results, lost)("a").unlink()
    assert [image.done for image in results.plan(items)] == [False, True]


@pytest.mark.parametrize("own", ["a.mrk.json", "landmarks.csv", "failures.csv", "unlikely.csv", "overlays/b.png"])
@pytest.mark.parametrize("resume", [True, False])
def test_files_that_no_prediction_wrote_are_neither_removed_nor_replaced(items, tmp_path, own, resume):
    """The folder of the images as output folder, with annotations beside them."""
    (tmp_path / own).parent.mkdir(exist_ok=True)
    (tmp_path / own).write_text("days of work")
    with pytest.raises(InputError, match=f"holds {own} that no prediction wrote .*; give another --output_dir"):
        PredictionResults(tmp_path, "digest").plan(items, resume)
    assert (tmp_path / own).read_text() == "days of work" and not (tmp_path / "records").exists()


def test_annotations_put_beside_results_stop_the_next_run(items, tmp_path):
    results = PredictionResults(tmp_path / "out", "digest", overlays=False)
    results.begin("a")
    finish(results, results.plan(items[:1])[0])
    results.markups("b").write_text("days of work")
    with pytest.raises(InputError, match="b.mrk.json that no prediction wrote"):
        results.plan(items)
    assert results.markups("b").read_text() == "days of work" and results.markups("a").exists()


def test_unlikely_landmarks_stand_in_the_table_and_their_reasons_beside_it(items, tmp_path):
    results = PredictionResults(tmp_path / "out", "digest", overlays=False)
    for image, reason in zip(results.plan(items), ("shape 0.70 from the mean, over 0.25", "")):
        results.markups(image.stem).write_text("{}")
        results.finish(image, ["image", "x"], [[image.path, "1"]], reason)
    plan = results.plan(items)
    assert [image.done for image in plan] == [True, True] and results.write_tables(plan, {}) == (2, 1)
    assert results.unlikely.read_text() == (f'image,reason\n{plan[0].path},"shape 0.70 from the mean, over 0.25"\n')
    results.plan(items)
    assert not results.unlikely.exists()


def test_results_of_another_image_of_that_name_stay(items, tmp_path):
    results = PredictionResults(tmp_path / "out", "digest", overlays=False)
    finish(results, results.plan(items)[0])
    (tmp_path / "other").mkdir()
    os.link(tmp_path / "a.png", tmp_path / "other" / "a.png")
    other = [{"image": str(tmp_path / "other" / "a.png")}]
    with pytest.raises(InputError, match="a.mrk.json: is the result of .*a.png, another image of this name; give"):
        results.plan(other)
    assert [image.done for image in results.plan(items)] == [True, False]
    both = results.plan([*other, *items])  # in which the names go to others
    assert [(image.stem, image.done) for image in both] == [("a", False), ("a.png", False), ("b", False)]
    finish(results, results.plan(other)[0])
    with pytest.raises(InputError, match="another image of this name"):
        results.plan(items)
    assert [image.done for image in results.plan(items, resume=False)] == [False, False]


def test_only_results_of_these_images_are_refused(items, tmp_path):
    results = PredictionResults(tmp_path / "out", "digest", overlays=False)
    finish(results, results.plan(items[:1])[0])
    other = PredictionResults(tmp_path / "out", "another", overlays=False)
    assert [image.done for image in other.plan(items[1:])] == [False]
    with pytest.raises(InputError, match="1 of these 2 images .*; give another --output_dir"):
        other.plan(items)
    assert json.loads(results.record("a").read_text())["digest"] == "digest"
    assert [image.done for image in other.plan(items, resume=False)] == [False, False]
    assert not results.record("a").exists()


def test_what_a_list_says_of_an_image_belongs_to_it(items, tmp_path):
    results = PredictionResults(tmp_path / "out", "digest", overlays=False)
    finish(results, results.plan([{**items[0], "spacing": [0.1, 0.1]}])[0])
    assert [image.done for image in results.plan([{**items[0], "spacing": [0.1, 0.1]}])] == [True]
    assert [image.done for image in results.plan([{**items[0], "spacing": [0.2, 0.2]}])] == [False]


def test_a_change_of_any_file_of_an_image_is_seen(tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    header, pixels = tmp_path / "v.mhd", tmp_path / "v.raw"
    for path in (series / "1.dcm", series / "2.dcm", header, pixels):
        path.write_text("abc")
    for image, part in ((series, series / "1.dcm"), (header, pixels), (header, header)):
        item = {"image": str(image)}
        before = image_source(item)
        assert image_source(item) == before == json.loads(json.dumps(before))
        part.write_text(part.read_text() + "d")
        assert image_source(item)["bytes"] == before["bytes"] + 1
        before = image_source(item)
        os.utime(part, (2e9, 2e9))
        assert image_source(item) != before
        os.utime(part, (1, 1))
    assert image_source({"image": str(tmp_path / "missing.png")})["bytes"] == 0


def test_ten_thousand_files_of_one_name_have_stems_of_their_own():
    taken = {}
    stems = [unique_stem(f"{folder}/film.nii.gz", taken) for folder in range(10_000)]
    assert stems[:4] == ["film", "film.nii.gz", "film.nii.gz_2", "film.nii.gz_3"]
    assert len(set(stems)) == 10_000
    assert unique_stem("x/film.png", taken) == "film.png"
    assert unique_stem("x/film.nii.gz_7.png", taken) == "film.nii.gz_7.png"
    assert [unique_stem(f"{folder}/IM1", taken) for folder in "abc"] == ["IM1", "IM1_2", "IM1_3"]
