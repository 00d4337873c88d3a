"""Where bundles lie on disk, and which version of this package they were made for."""

import functools
import hashlib
import sys
from pathlib import Path

from monai.bundle import ConfigParser

from .. import __version__
from ..errors import InputError

PACKAGE = Path(__file__).resolve().parents[1]
PACKAGE_NAME = __name__.split(".")[0]  # common; scripts in a packaged bundle
VERSION_FILE = "PACKAGE_VERSION"  # in a packaged bundle's `scripts`


def bundle_root(name: str, version: str | None = None) -> str:
    """The folder of a bundle, for its configs.

    A packaged bundle carries this package as its `scripts`, and MONAI puts its folder on Python's path; other bundles
    of the same process may have done so before it. So the folders on the path are asked first whether they hold the
    bundle, then the folder above this package, then `bundles/<name>` beside this package (as in the repository) and
    in the current directory, then the current directory.

    Args:
        name: of the bundle, as its own configs give it here.
        version: of this package that a packaged bundle was made with (`package_version`).

    Raises:
        InputError: if the bundle is in none of these places, or another version of this package is loaded.
    """
    if version not in (None, package_version()):
        raise InputError(
            f"{name}: was packaged with version {version} of its scripts, but version {package_version()} from "
            f"{PACKAGE} is loaded; use bundles of one release together, or a process for each."
        )
    above = PACKAGE.parent
    places = [*map(Path, sys.path), above, above / "bundles" / name, Path.cwd() / "bundles" / name, Path.cwd()]
    for folder in places:
        if is_bundle(folder, name):
            return str(folder.resolve())
    raise InputError(
        f"{name}: no such bundle beside {above} or in {Path.cwd()}; run from the folder that holds it, or add the "
        "bundle's folder to Python's path."
    )


def is_bundle(folder: Path, name: str) -> bool:
    """Whether a folder holds the bundle whose configs call it `name`, however the folder is called."""
    config = folder / "configs" / "inference.json"
    try:
        return f"bundle_root('{name}'" in config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def bundle_mean_shape(folder: str | Path) -> list[list[float]]:
    """The mean shape of a bundle's landmarks in its inference.json (`plausibility`), for other configs and commands.

    Args:
        folder: of the bundle.

    Returns:
        (N, D) in the axes of world coordinates, of size 1; empty where there is none.
    """
    config = ConfigParser.load_config_file(str(Path(folder) / "configs" / "inference.json"))
    return config.get("plausibility", {}).get("mean_shape", [])


def bundle_folders() -> list[Path]:
    """All bundles of the repository, or of `bundles` in the current directory.

    Raises:
        InputError: if there is no such folder.
    """
    for folder in (PACKAGE.parent / "bundles", Path.cwd() / "bundles"):
        found = sorted(path.parents[1] for path in folder.glob("*/configs/metadata.json"))
        if found:
            return found
    raise InputError(
        f"{Path.cwd() / 'bundles'}: there are no bundles; run from the root of the repository, or give a "
        "bundle's folder where the command takes one."
    )


def bundle_folder(name: str) -> Path:
    """The bundle of that name.

    Raises:
        InputError: if there is none.
    """
    folders = {folder.name: folder for folder in bundle_folders()}
    if name not in folders:
        raise InputError(f"{name}: there is no such bundle; choose one of {', '.join(folders)}.")
    return folders[name]


def bundle_path(name: str) -> Path:
    """Folder of a bundle that is given by its name or its folder."""
    return Path(name).resolve() if (Path(name) / "configs").is_dir() else bundle_folder(name)


@functools.cache
def package_version() -> str:
    """Version of this package and a digest of its code, such as "0.1.0+1a2b3c4d5e6f".

    Bundles whose packages have the same may share one in a process.
    """
    written = PACKAGE / VERSION_FILE
    if written.is_file():
        return written.read_text(encoding="utf-8").strip()
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"
