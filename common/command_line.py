"""Functions as verbs of a command line, with fire."""

import inspect
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fire
from fire.decorators import SetParseFns

from .data import input_error_in
from .errors import InputError, did_you_mean

TEXTS = {str, Path, os.PathLike}


def run_verbs(name: str, verbs: Mapping[str, Callable[..., Any]]) -> None:
    """Run the verb that the command line names; a text that it returns is printed, bad input ends it with status 1.

    Arguments that the verb does not have are refused before it begins, where fire would run it without them first.

    Arguments that a verb's annotations call texts or paths are taken as they are written, where fire would make the
    number 202401 of a folder `2024_01`.

    Args:
        name: of the command, for its help.
        verbs: functions by name.
    """
    arguments = sys.argv[1:]
    if not asks_for_help(arguments):  # which would list what SetParseFns writes into a function
        for verb in verbs.values():
            SetParseFns(**{argument: text_or_none for argument in texts_of(verb)})(verb)
    try:
        require_known_arguments(name, verbs, arguments)
        fire.Fire(dict(verbs), name=name, serialize=lambda value: value if isinstance(value, str) else None)
    except Exception as error:
        reason = input_error_in(error)
        if reason is None:
            raise
        sys.exit(f"error: {reason}")


def require_known_arguments(name: str, verbs: Mapping[str, Callable[..., Any]], arguments: Sequence[str]) -> None:
    """See that there is such a verb, that it has what it is given, and that nothing it needs is missing.

    Args:
        name: of the command.
        verbs: functions by name.
        arguments: the verb's name and what follows it, read as fire reads them; those that ask for help are right.

    Raises:
        InputError: if not, with what was perhaps meant.
    """
    if not arguments or arguments[0].startswith("-") or asks_for_help(arguments):
        return
    verb, *given = arguments
    if verb not in verbs:
        hint = did_you_mean(verb, verbs) or f"give one of {', '.join(verbs)}."
        raise InputError(f"{name}: has no verb {verb}; {hint}")
    known = inspect.signature(verbs[verb]).parameters
    if any(each.kind is each.VAR_KEYWORD for each in known.values()):
        return
    named, places = set(), []
    while given:
        argument = given.pop(0)
        if not is_flag(argument):
            places.append(argument)
            continue
        key, equals, _ = argument.lstrip("-").partition("=")
        key = key.replace("-", "_")
        alone = not equals and (not given or is_flag(given[0]))
        short = [each for each in known if len(key) == 1 and each.startswith(key)]
        if key not in known and len(short) == 1:
            key = short[0]
        elif key not in known and alone and key.removeprefix("no") in known:
            key = key.removeprefix("no")
        if key not in known:
            hint = did_you_mean(key, known, "--") or f"{name} {verb} --help tells what it takes."
            raise InputError(f"{name} {verb}: has no --{key}; {hint}")
        if not equals and not alone:
            given.pop(0)
        named.add(key)
    left = [each for each in known.values() if each.name not in named]
    if len(places) > len(left) and not any(each.kind is each.VAR_POSITIONAL for each in left):
        raise InputError(f"{name} {verb}: does not know what '{places[len(left)]}' is for; leave it out.")
    missing = [
        each.name for each in left[len(places) :] if each.default is each.empty and each.kind < each.VAR_POSITIONAL
    ]
    if missing:
        raise InputError(f"{name} {verb}: needs {' and '.join(missing)}; {name} {verb} --help tells what that is.")


def asks_for_help(arguments: Sequence[str]) -> bool:
    return not {"-h", "--help"}.isdisjoint(arguments)


def is_flag(argument: str) -> bool:
    """Whether fire takes it for the name of an argument, as it does not with -0.5."""
    return argument.startswith("--") or re.match(r"-[a-zA-Z](=|$)", argument) is not None


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
