"""Bad input ends a command with one sentence instead of a page of traceback."""

import os
import sys
from types import TracebackType

from ..data import input_error_in


def show_input_errors() -> None:
    """Let the interpreter print an `InputError`, wherever it stands in the chain of causes, as one line.

    Meant as the first line of a config's `run`, so that only commands are affected and no application that loads the
    bundle. Other exceptions keep their traceback; with `LANDMARKS_TRACEBACK=1` in the environment all do.
    """
    default = sys.__excepthook__

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        reason = input_error_in(error)
        if reason is None or os.environ.get("LANDMARKS_TRACEBACK"):
            default(kind, error, traceback)
        else:
            print(f"error: {reason}", file=sys.stderr)

    sys.excepthook = hook
