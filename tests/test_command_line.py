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


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    run_verbs("program", {"verb": verb, "refuse": refuse})


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
