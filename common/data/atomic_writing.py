"""Files that are there wholly or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError


def require_writable(folder: str | os.PathLike, setting: str = "output_dir") -> None:
    """Make a folder where it lacks, and see that files can be written there before hours of work.

    Raises:
        InputError: if they cannot; the sentence names the setting that gives another folder.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give another --{setting}.") from error


def require_folder_name(folder: str | os.PathLike, setting: str = "target") -> None:
    """See that a folder is one or can become one, without making it.

    Raises:
        InputError: if it, or what it would lie in, is a file.
    """
    for place in (path := Path(folder).absolute(), *path.parents):
        if place.exists():
            if not place.is_dir():
                raise InputError(f"{folder}: cannot be a folder, {place} is a file; give another --{setting}.")
            return


@contextmanager
def replaced_atomically(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` to write to, moved there at the end of the block.

    The folder is made where it lacks. When the block raises, the temporary file goes and what was at `path` stays; a
    process that is killed leaves it behind, under a name that the next writing uses again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: str | os.PathLike, text: str) -> None:
    """Write text (UTF-8) to a file that is there wholly or not at all."""
    with replaced_atomically(path) as temporary:
        temporary.write_bytes(text.encode())
