"""Bad input ends a command with one sentence instead of a page of traceback."""

import inspect
import os
import re
import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import fire.parser
import torch
from monai.bundle import ConfigParser
from monai.bundle.scripts import run
from tqdm import tqdm

from ..data import input_error_in
from ..errors import InputError, did_you_mean


def file_error_in(error: BaseException) -> str | None:
    """One sentence about the file of the `OSError` that is the first cause of an exception, None if it is another."""
    while error.__cause__ is not None:
        error = error.__cause__
    if not isinstance(error, OSError) or not error.filename or not error.strerror:
        return None
    return f"{error.filename}: {error.strerror.lower()}; check the path, its permissions and the free space."


def show_input_errors() -> None:
    """Let the interpreter print an `InputError`, wherever it stands in the chain of causes, as one line.

    So it does with an `OSError` about a file (no permission, no space) that is the first cause of all, and with Ctrl-C.
    Meant as the first line of a config's `run`, so that only commands are affected and no application that loads the
    bundle. Other exceptions keep their traceback; with `LANDMARKS_TRACEBACK=1` in the environment all but Ctrl-C do.

    Raises:
        InputError: if the command sets a key that its configs do not have, or another kind of value
            (`require_known_settings`).
    """
    default = sys.__excepthook__

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        for bar in list(getattr(tqdm, "_instances", ())):  # else an open bar is printed once more after the error
            bar.close()
        if isinstance(error, KeyboardInterrupt):
            print("interrupted; give the same command again to go on", file=sys.stderr)
            return
        reason = input_error_in(error) or file_error_in(error)
        if reason is None or os.environ.get("LANDMARKS_TRACEBACK"):
            default(kind, error, traceback)
        else:
            print(f"error: {reason}", file=sys.stderr)

    sys.excepthook = hook
    require_known_settings(sys.argv)


def require_known_settings(arguments: Sequence[str]) -> None:
    """See that every setting of a command `python -m monai.bundle run` is a key of its configs, with a value of its
    kind; MONAI takes any.

    Args:
        arguments: of the process, the program first; those of other programs are not looked at.

    Raises:
        InputError: if a setting is none, or has no such value.
    """
    if not re.search(r"monai[/\\]bundle[/\\]__main__\.py$", arguments[0]):
        return
    given: dict[str, str] = {}
    for argument, following in zip(arguments[1:], [*arguments[2:], "--"]):
        if match := re.match(r"--([^=]+)(=?)(.*)", argument, re.DOTALL):
            alone = not match[2] and following.startswith("--")
            given[match[1].replace("-", "_")] = match[3] if match[2] else "True" if alone else following
    if "config_file" not in given:
        return
    files = fire.parser.DefaultParseValue(given["config_file"])
    require_keys(given, files, taken=inspect.signature(run).parameters)
    config = ConfigParser.load_config_files(files)
    for name, text in given.items():
        value = fire.parser.DefaultParseValue(text)
        if value is None and config.get(name, ...) is not None and name not in inspect.signature(run).parameters:
            raise InputError(f"--{name} None: MONAI leaves out what is None; write --{name} '$None'.")
        if name in config:
            require_kind(name, value, config[name])


def require_kind(name: str, value: Any, default: Any) -> None:
    """See that a value is a number or a truth value where the config's own is one, and that a device is there.

    Expressions and references of a config (`$...`, `@...`) and None are taken as they are.

    Raises:
        InputError: if not.
    """
    if value is None or (isinstance(value, str) and value.startswith(("$", "@", "%"))):
        return
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(default, bool) and not isinstance(value, bool):
        raise InputError(f"--{name} {value}: is neither True nor False; give one of these.")
    if isinstance(default, (int, float)) and not isinstance(default, bool) and isinstance(value, (str, bool)):
        raise InputError(f"--{name} {value}: is no number; give one, such as {default}.")
    if name.startswith("min_") and name.endswith("confidence") and not (is_number and 0 <= value <= 1):
        raise InputError(f"--{name} {value}: is no confidence; give a number from 0 to 1.")
    if name == "device":
        try:
            torch.empty(0, device=value)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise InputError(f"--device {value}: there is no such device here; give cpu, or leave it out.") from error


def require_keys(names: Iterable[str], config_file: str | Sequence[str], taken: Iterable[str] = ()) -> None:
    """See that settings such as `iterations` or `train::dataset::data` are keys of config files.

    Args:
        names: of the settings, without hyphens.
        config_file: one or several.
        taken: names that are right without being keys; so are those that start with an underscore.

    Raises:
        InputError: if a setting is none, with the key that was perhaps meant.
    """
    known = {first_key(key) for key in ConfigParser.load_config_files(config_file)}
    for name in names:
        key = first_key(name)
        if key not in known and not key.startswith("_") and key not in taken:
            hint = did_you_mean(key, known, "--") or "the settings are the keys of the configs."
            raise InputError(f"--{name}: is no setting of {config_file}; {hint}")


def first_key(name: str) -> str:
    """The top-level key of a setting such as `train::dataset::data`."""
    return re.split(r"::|#", name)[0]
