"""Verbs get the texts that were written, and other values as fire reads them."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from common.command_line import run_verbs
from common.errors import InputError


def verb(
    folder: str | os.PathLike,
    target: Path | None = None,
    *more: str,
    name: str = "",
    count: int = 1,
    lists: str | Sequence[str] | None = None,
) -> str:
    """Shows what it got."""
    return repr((folder, target, more, name, count, lists))


def refuse(folder: str) -> None:
    raise InputError(f"{folder}: is not there; check the path.")


def plain(folder: str, name: str | None = None, flag: bool = True) -> str:
    """Takes no more than these."""
    return f"{folder} {name} {flag}"


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    run_verbs("program", {"verb": verb, "refuse": refuse, "plain": plain})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["2024"], "('2024', None, (), '', 1, None)"),
        (["--folder", "2024_01", "--name=1e3", "--count", "2"], "('2024_01', None, (), '1e3', 2, None)"),
        (["--folder=[1]", "--target", "None", "--lists", "['a','b']"], "('[1]', None, (), '', 1, ['a', 'b'])"),
        (["True", "a b"], "('True', 'a b', (), '', 1, None)"),
    ],
)
def test_folders_may_be_called_like_numbers(arguments, told, monkeypatch, capsys):
    run(monkeypatch, "verb", *arguments)
    assert capsys.readouterr().out == f"{told}\n"


def test_bad_input_is_one_line_and_a_status(monkeypatch):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "refuse", "7")
    assert ended.value.code == "error: 7: is not there; check the path."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vreb", "a"], "program: has no verb vreb; did you mean verb?"),
        (["x"], "program: has no verb x; give one of verb, refuse, plain."),
        (["plain", "a", "--nmae", "b"], "program plain: has no --nmae; did you mean --name?"),
        (["plain", "a", "--nmae=b"], "program plain: has no --nmae; did you mean --name?"),
        (["plain", "a", "-x"], "program plain: has no --x; program plain --help tells what it takes."),
        (["plain", "--name", "b"], "program plain: needs folder; program plain --help tells what that is."),
        (["plain", "a", "b", "True", "d"], "program plain: does not know what 'd' is for; leave it out."),
        (["plain", "--folder", "a", "b", "True", "d"], "program plain: does not know what 'd' is for; leave it out."),
    ],
)
def test_a_verb_does_not_begin_where_an_argument_is_wrong(arguments, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *arguments)
    assert ended.value.code == f"error: {message}" and not capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["plain", "a"], "a None True"),
        (["plain", "a", "b", "False"], "a b False"),
        (["plain", "--folder", "a", "-n=b", "--noflag"], "a b False"),
        (["plain", "--flag", "False", "--name", "b", "a"], "a b False"),
        (["plain", "a", "--flag"], "a None True"),
        (["plain", "-0.5"], "-0.5 None True"),
    ],
)
def test_arguments_may_be_given_in_all_ways_of_fire(arguments, told, monkeypatch, capsys):
    run(monkeypatch, *arguments)
    assert capsys.readouterr().out == f"{told}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["plain", "--help"], ["plain", "--", "--help"]])
def test_help_is_shown(arguments, monkeypatch, capsys):
    def fresh(folder: str) -> str:
        """Has not been run before."""
        return folder

    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    with pytest.raises(SystemExit) as ended:
        run_verbs("program", {"plain": fresh})
    told = capsys.readouterr().err
    assert ended.value.code == 0 and "SYNOPSIS" in told
    assert "FIRE_METADATA" not in told  # which fire's help lists as a group of the verb
