"""What bundles there are."""

import json
from pathlib import Path

from .location import bundle_folders


def list_bundles() -> None:
    """Print name, version, number of landmarks and weights of every bundle.

    Raises:
        InputError: if there are none.
    """
    rows = [("name", "version", "landmarks", "weights"), *map(row, bundle_folders())]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for each in rows:
        print("  ".join(text.ljust(width) for text, width in zip(each, widths)).rstrip())


def row(folder: Path) -> tuple[str, str, str, str]:
    """Of one bundle."""
    metadata, inference = (
        json.loads((folder / "configs" / f"{n}.json").read_text()) for n in ("metadata", "inference")
    )
    weights = sorted(path.name for path in (folder / "models").glob("*.pt"))
    return folder.name, metadata["version"], str(len(inference["landmarks"])), ", ".join(weights) or "none"
