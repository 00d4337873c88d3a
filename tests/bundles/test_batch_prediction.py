"""A prediction of many files stops and goes on, is shared by processes, and never mixes results of other settings."""

import csv
import json
import os
import shutil
import signal

import pytest
import torch
from ignite.engine import Events
from PIL import Image

from common.data import input_error_in
from common.handlers import read_checkpoint

from .files import table

READABLE = ["a.bmp", "a.png", "b.png", "c.png", "d.png"]
STEMS = ["a", "a.png", "b", "c", "d"]  # in the order of the names
BROKEN = "broken.png"


@pytest.fixture
def films(scn_hand, tmp_path):
    """A folder of five films, two of one stem, and one that cannot be read."""
    folder = tmp_path / "films"
    folder.mkdir()
    for stem, name in zip(("test_000", "test_001", "test_002", "training_000"), ("a.png", "b.png", "c.png", "d.png")):
        shutil.copy(scn_hand.image(stem), folder / name)
    Image.open(scn_hand.image("training_001")).save(folder / "a.bmp")
    (folder / BROKEN).write_bytes((folder / "b.png").read_bytes()[:500])
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def predict(scn_hand, films, out, capsys):
    """Function that predicts the films into the folder `out`; gives the last line that it prints."""

    def run(**settings):
        try:
            scn_hand.predict(
                films, settings.pop("output_dir", out), overlays=settings.pop("overlays", False), **settings
            )
        except Exception as error:
            reason = input_error_in(error)
            if reason is None or "have no prediction" not in str(reason):
                raise
        return capsys.readouterr().out.splitlines()[-1]

    return run


def results(folder):
    """When each image's results were written, by stem."""
    return {path.name.removesuffix(".mrk.json"): path.stat().st_mtime_ns for path in folder.glob("*.mrk.json")}


def refusal(run):
    with pytest.raises(Exception) as raised:
        run()
    return str(input_error_in(raised.value))


def content(folder):
    """The tables, and the markups without the time of writing."""
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def at_iteration(action):
    """A line of `run` by which something is done at every iteration; it knows `engine` and the `paths` of its batch."""
    paths = "[output['image'].meta['filename_or_obj'] for output in engine.state.output]"
    event = "monai.engines.workflow.Events.ITERATION_COMPLETED"
    return f"$@evaluator.add_event_handler({event}, lambda engine: (lambda engine, paths: {action})(engine, {paths}))"


def overlay(folder, scn_hand, action):
    """A config that does something after every image."""
    lines = scn_hand.read("inference")["run"]
    run = [*lines[:2], at_iteration(action), *lines[2:]]
    path = folder / "act.json"
    path.write_text(json.dumps({"imports": ["$import os", "$import common"], "run": run}))
    return path


def test_a_killed_prediction_goes_on_and_ends_as_if_it_had_never_stopped(
    scn_hand, films, out, predict, processes, tmp_path
):
    kill = overlay(tmp_path, scn_hand, f"engine.state.iteration == 2 and os.kill(os.getpid(), {int(signal.SIGKILL)})")
    settings = {"dataset_dir": films, "output_dir": out, "ckpt_path": scn_hand.weights}
    arguments = scn_hand.arguments("inference", kill, **settings)
    status, stderr = processes.run(processes.python, ["monai.bundle", *arguments])
    assert status == -signal.SIGKILL, stderr[-2000:]
    before = results(out)
    assert list(before) and set(before) == {"a", "a.png"} and not (out / "landmarks.csv").exists()
    told = predict(overlays=True)
    assert told.startswith("6 images: 5 predicted (2 of them before), 1 failed (reasons in ")
    after = results(out)
    assert sorted(after) == STEMS and {stem: after[stem] for stem in before} == before
    predict(output_dir=tmp_path / "whole", overlays=True)
    assert content(out) == content(tmp_path / "whole")
    rows = table(out / "landmarks.csv")
    assert list(dict.fromkeys(row["image"] for row in rows)) == [str(films / name) for name in READABLE]
    assert len(rows) == 5 * 37


def test_an_interrupted_prediction_leaves_what_is_done(scn_hand, films, out, predict):
    workflow = scn_hand.build("inference", dataset_dir=str(films), output_dir=str(out), ckpt_path=str(scn_hand.weights),
                              overlays=False)  # fmt: skip

    def interrupt(engine):
        raise KeyboardInterrupt

    workflow.evaluator.add_event_handler(Events.ITERATION_COMPLETED(once=3), interrupt)
    with pytest.raises(KeyboardInterrupt):
        workflow.run()
    assert sorted(results(out)) == STEMS[:3]
    assert "(3 of them before)" in predict()


def test_a_second_run_does_nothing_but_try_again_what_failed(predict, films, out):
    predict()
    first, before = content(out), results(out)
    assert predict().startswith("6 images: 5 predicted (5 of them before), 1 failed")
    assert results(out) == before and content(out) == first
    shutil.copy(films / "b.png", films / BROKEN)
    assert predict().startswith("6 images: 6 predicted (5 of them before), ")
    assert not (out / "failures.csv").exists() and {s: results(out)[s] for s in before} == before


def test_a_file_that_has_changed_is_done_again(predict, films, out):
    predict()
    before = results(out)
    os.utime(films / "c.png", (1, 1))
    shutil.copy(films / "a.png", films / "d.png")
    (films / "b.png").write_bytes((films / "b.png").read_bytes()[:500])
    assert predict().startswith("6 images: 4 predicted (2 of them before), 2 failed")
    after = results(out)
    assert {stem for stem in before if after.get(stem) != before[stem]} == {"b", "c", "d"}
    assert "b" not in after and {row["image"] for row in table(out / "failures.csv")} == {
        str(films / "b.png"), str(films / BROKEN)
    }  # fmt: skip
    rows = table(out / "landmarks.csv")
    assert [row["pixel_x"] for row in rows[37:74]] == [row["pixel_x"] for row in rows[111:]]  # a.png and d.png


def test_results_that_were_lost_are_made_again(predict, out):
    predict(overlays=True)
    (out / "a.mrk.json").unlink()
    (out / "overlays" / "c.png").unlink()
    (out / "records" / "d.json").write_text('{"half')
    assert "(2 of them before)" in predict(overlays=True)
    assert sorted(results(out)) == STEMS


@pytest.mark.parametrize("change", [
    {"min_confidence": 0.5},
    {"image_size": [48, 64]},
    {"landmarks": [f"point {n}" for n in range(37)]},
    {"preprocessing::transforms::2::maxv": 2.0},
    {"postprocessing::transforms::0::method": "maximum"},
    {"ckpt_path": "other.pt"},
])  # fmt: skip
def test_results_of_other_weights_and_settings_are_refused_or_replaced(scn_hand, predict, out, tmp_path, change):
    if "ckpt_path" in change:
        weights = read_checkpoint(scn_hand.weights)
        weights["unit_peak.expected_peak"] *= 2
        torch.save(weights, tmp_path / "other.pt")
        change = {"ckpt_path": tmp_path / "other.pt"}
    change = {key: value if isinstance(value, (list, float)) else str(value) for key, value in change.items()}

    def changed(**more):
        settings = {"dataset_dir": str(tmp_path / "films"), "output_dir": str(out), "ckpt_path": str(scn_hand.weights)}
        scn_hand.run("inference", **{**settings, "overlays": False, **change, **more})

    predict()
    before, first = results(out), content(out)
    message = refusal(changed)
    assert message.startswith(f"{out}: holds results of 5 of these 6 images by other weights") and "--resume" in message
    assert results(out) == before and content(out) == first  # nothing is touched
    assert "6 images have no prediction" in refusal(lambda: changed(resume=False))
    assert all(results(out)[stem] != before[stem] for stem in STEMS) and content(out) != first
    assert "6 images have no prediction" in refusal(changed)  # and goes on with those


def test_pictures_are_drawn_later_and_left_out_without_a_word_about_settings(predict, out):
    predict()
    assert not (out / "overlays").exists()
    assert "5 predicted, 1 failed" in predict(overlays=True)
    assert len(list((out / "overlays").iterdir())) == 5
    assert "(5 of them before)" in predict(overlays=False)


def test_an_image_that_the_network_cannot_take_does_not_stop_the_others(scn_hand, films, out):
    workflow = scn_hand.build("inference", dataset_dir=str(films), output_dir=str(out), ckpt_path=str(scn_hand.weights),
                              overlays=False)  # fmt: skip
    infer, count = workflow.evaluator.inferer, iter(range(9))

    def inferer(inputs, network):
        if next(count) == 1:
            raise torch.OutOfMemoryError("an image too large\nfor this machine")
        return infer(inputs, network)

    workflow.evaluator.inferer = inferer
    assert "2 of 6 images have no prediction" in refusal(workflow.run)
    assert sorted(results(out)) == ["a", "b", "c", "d"]
    with open(out / "failures.csv", newline="") as file:
        rows = list(csv.reader(file))
    reason = f"{films / 'a.png'}: OutOfMemoryError: an image too large for this machine"
    assert rows[:2] == [["image", "reason"], [str(films / "a.png"), reason]] and len(rows) == 3


def test_two_processes_do_every_image_once(scn_hand, films, out, predict, processes, tmp_path):
    note = "[open(os.path.join(os.environ['NOTES'], os.environ['RANK']), 'a').write(path + chr(10)) for path in paths]"
    arguments = scn_hand.arguments(
        "inference", overlay(tmp_path, scn_hand, note), device=None, dataset_dir=films, output_dir=out,
        ckpt_path=scn_hand.weights,
    )  # fmt: skip
    notes = tmp_path / "notes"
    notes.mkdir()
    launcher = [*processes.torchrun, "-m", "monai.bundle"]
    status, stderr = processes.run(launcher, arguments, CUDA_VISIBLE_DEVICES="", NOTES=str(notes))
    assert status == 1 and "error: 1 of 6 images have no prediction" in stderr, stderr[-3000:]
    assert "prediction, process 1 of 2" in stderr and "process 2 of 2" not in stderr
    first, second = ((notes / rank).read_text().split() for rank in "01")
    assert len(first) >= 2 and len(second) >= 2  # of six, one of which cannot be read
    assert sorted([*first, *second]) == [str(films / name) for name in READABLE]
    predict(output_dir=tmp_path / "alone", overlays=True)
    assert content(out) == content(tmp_path / "alone")
    status, stderr = processes.run(launcher, [*arguments, "--min_confidence", "0.5"], CUDA_VISIBLE_DEVICES="")
    told = [f"[rank{rank}]: error: {out}: holds results of 5 of these 6 images" in stderr for rank in (0, 1)]
    assert status == 1 and all(told) and "broadcast" not in stderr, stderr  # none waits for one that refused
