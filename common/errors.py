"""The one exception for bad input: files, folders, landmarks and settings that a user can mend."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input, told in one sentence: the file, what is wrong with it, and what to do."""


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """The question for the known word that is most like another, such as "did you mean --test?"; empty where none is.

    Args:
        word: what was given.
        known: what could have been meant.
        prefix: written before the known word.
    """
    similar = difflib.get_close_matches(word, known, n=1, cutoff=0.75)
    return f"did you mean {prefix}{similar[0]}?" if similar else ""
