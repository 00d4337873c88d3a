"""Bad input ends a command with one sentence instead of a page of traceback."""

import os
import sys
from types import TracebackType

from tqdm import tqdm

from ..data import input_error_in


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
