"""Files that are there wholly or not at all."""

import os
from pathlib import Path


def write_atomically(path: str | os.PathLike, text: str) -> None:
    """Write text (UTF-8) to a temporary file beside `path` and move it there; the folder is made where it
    lacks."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
