import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.bundle import show_input_errors
from common.bundle.error_messages import require_known_settings
from common.errors import InputError


def told(error, capsys):
    """What the interpreter would print for an exception that nobody caught."""
    show_input_errors()
    sys.excepthook(type(error), error, error.__traceback__)
    return capsys.readouterr().err


def wrapped(error, times=3):
    """An exception as MONAI's config parser wraps it, more than once."""
    for _ in range(times):
        try:
            raise RuntimeError("Failed to evaluate") from error
        except RuntimeError as outer:
            error = outer
    return error


@pytest.fixture(autouse=True)
def hook(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.delenv("LANDMARKS_TRACEBACK", raising=False)


def test_bad_input_is_one_line_however_deep_it_stands(capsys):
    assert told(InputError("a.png: is broken; mend it."), capsys) == "error: a.png: is broken; mend it.\n"
    assert told(wrapped(InputError("a.png: is broken; mend it.")), capsys) == "error: a.png: is broken; mend it.\n"


def test_a_file_that_the_system_refuses_is_one_line_too(capsys):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/curve.png")
    message = "error: /data/curve.png: no space left on device; check the path, its permissions and the free space.\n"
    assert told(error, capsys) == told(wrapped(error), capsys) == message


def test_an_interruption_is_one_line(capsys):
    assert told(KeyboardInterrupt(), capsys) == "interrupted; give the same command again to go on\n"


@pytest.mark.parametrize("error", [ZeroDivisionError("a fault"), OSError("without a file"), KeyError("x")])
def test_other_faults_keep_their_traceback(capsys, error):
    text = told(wrapped(error), capsys)
    assert "Failed to evaluate" in text and type(error).__name__ in text and not text.startswith("error: ")


def test_an_error_about_a_file_that_was_dealt_with_hides_no_other(capsys):
    try:
        try:
            Path("/nowhere/at/all").read_text()
        except FileNotFoundError:
            raise ZeroDivisionError("a fault")  # noqa: B904
    except ZeroDivisionError as error:
        assert "ZeroDivisionError: a fault" in told(error, capsys)


def test_the_traceback_can_be_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("LANDMARKS_TRACEBACK", "1")
    assert "Failed to evaluate" in told(wrapped(InputError("a: b; c.")), capsys)


SCRIPT = """
import common
common.bundle.show_input_errors()
try:
    try:
        raise common.errors.InputError("a.png: is broken; mend it.")
    except ValueError as error:
        raise RuntimeError("applying transform") from error
except RuntimeError as error:
    raise RuntimeError("Failed to evaluate") from error
"""


def test_a_process_ends_with_one_line_and_status_1():
    run = subprocess.run([sys.executable, "-c", SCRIPT], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (1, "", "error: a.png: is broken; mend it.\n")


COMMAND = ["/somewhere/monai/bundle/__main__.py", "run"]
CONFIGS = "['bundles/farnet_hand/configs/train.json','bundles/farnet_hand/configs/evaluate.json']"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--learning_rte", "0.1"], "--learning_rte: is no setting of .*evaluate.json.*; did you mean --learning_rate"),
        (["--iterations", "100"], "--iterations: is no setting of .*; the settings are the keys of the configs"),
        (["--trian::dataset::seed=3"], "--trian::dataset::seed: is no setting of .*; did you mean --train"),
        (["--learning_rate", "fast"], "--learning_rate fast: is no number; give one, such as 0"),
        (["--batch_size"], "--batch_size True: is no number"),
        (["--resume", "Flase"], "--resume Flase: is neither True nor False"),
        (["--resume=0"], "--resume 0: is neither True nor False"),
        (["--min_confidence", "1.5"], "--min_confidence 1.5: is no confidence; give a number from 0 to 1"),
        (["--sigma", "None"], r"--sigma None: MONAI leaves out what is None; write --sigma '\$None'"),
        (["--inferer::turns=None"], "--inferer::turns None: MONAI leaves out"),
        (["--min_confidence", "high"], "--min_confidence high: is no number"),
        (["--device", "cudda"], "--device cudda: there is no such device here; give cpu"),
    ],
)
def test_a_setting_that_the_configs_do_not_have_is_refused(settings, message, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(InputError, match=message):
        require_known_settings([*COMMAND, "--config_file", CONFIGS, *settings])
    with pytest.raises(InputError, match=message):
        require_known_settings([*COMMAND, f"--config_file={CONFIGS}", *settings])


def test_settings_that_are_there_and_other_programs_pass(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    settings = ["--learning_rate", "-1e-4", "--evaluation_list", "test1", "--train::dataset::cache_rate=0", "--resume"]
    settings += [
        "--batch_size",
        "$2 * 3",
        "--seed",
        "$None",
        "--initial_weights",
        "None",
        "--min_confidence",
        "1",
        "--device",
        "cpu",
        "--image_size",
        "8",
    ]
    arguments = ["--meta_file", "m.json", "--logging_file", "False", "--run_id=run", "--bundle-root", "x"]
    require_known_settings([*COMMAND, *settings, "--config_file", CONFIGS, *arguments])
    require_known_settings([*COMMAND, "run", "--args_file", "args.json", "--odd", "1"])
    require_known_settings(["/usr/bin/pytest", "--config_file", CONFIGS, "--odd", "1"])
