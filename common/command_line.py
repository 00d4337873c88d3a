"""Functions as verbs of a command line, with fire."""

import os
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fire
from fire.decorators import SetParseFns

from .data import input_error_in

TEXTS = {str, Path, os.PathLike}


def run_verbs(name: str, verbs: Mapping[str, Callable[..., Any]]) -> None:
    """Run the verb that the command line names; a text that it returns is printed, bad input ends it with status 1.

    Arguments that a verb's annotations call texts or paths are taken as they are written, where fire would make the
    number 202401 of a folder `2024_01`.

    Args:
        name: of the command, for its help.
        verbs: functions by name.
    """
    for verb in verbs.values():
        SetParseFns(**{argument: text_or_none for argument in texts_of(verb)})(verb)
    try:
        fire.Fire(dict(verbs), name=name, serialize=lambda value: value if isinstance(value, str) else None)
    except Exception as error:
        reason = input_error_in(error)
        if reason is None:
            raise
        sys.exit(f"error: {reason}")


def text_or_none(text: str) -> str | None:
    return None if text == "None" else text


def texts_of(verb: Callable[..., Any]) -> list[str]:
    """Names of the arguments that are texts or paths, or None, and nothing else."""
    found = []
    for argument, kind in typing.get_type_hints(verb).items():
        union = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
        kinds = set(typing.get_args(kind)) if union else {kind}
        if argument != "return" and kinds - {type(None)} and kinds - {type(None)} <= TEXTS:
            found.append(argument)
    return found
