"""Where a bundle lies on disk."""

from pathlib import Path

from ..errors import InputError


def bundle_root(name: str) -> str:
    """The folder of a bundle, found from this package's own place.

    In a packaged bundle this package is its `scripts` folder, so the bundle is the folder above; in the repository
    it is `bundles/<name>` beside this package; an installed package looks for `bundles/<name>` or a bundle in the
    current directory.

    Raises:
        InputError: if the bundle is in none of these places.
    """
    above = Path(__file__).resolve().parents[2]
    candidates = [above, above / "bundles" / name, Path.cwd() / "bundles" / name, Path.cwd()]
    for folder in candidates:
        if (folder / "configs" / "metadata.json").is_file() and (folder.name.startswith(name) or folder == above):
            return str(folder)
    raise InputError(f"{name}: no such bundle beside {above} or in {Path.cwd()}; run from the folder that holds it.")
