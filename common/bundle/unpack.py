"""Unpacking of a packaged bundle that is what it says it is."""

import json
import logging
import os
import tempfile
import zipfile
import zlib
from pathlib import Path

from monai.apps.utils import check_hash, extractall

from ..data.atomic_writing import require_writable
from ..errors import InputError

logger = logging.getLogger(__name__)


def unpack(file: str, target: str = ".", model_info: str | None = None) -> Path:
    """Unpack a bundle's zip after checking it, and print where the bundle is.

    MONAI's `download` does not look at checksums; this does.

    Args:
        file: the zip, NAME_vVERSION.zip.
        target: folder in which the bundle's folder is made.
        model_info: file with the checksum; by default `model_info.json` beside the zip, where there is one.

    Returns:
        the bundle's folder.

    Raises:
        InputError: if the file is no zip of one bundle, has another checksum, holds paths that lead out of its
            folder, or the bundle's folder is there already. Nothing is then written.
    """
    folder = unpacked(file, target, model_info)
    print(f"unpacked: {folder}")
    return folder


def unpacked(file: str, target: str = ".", model_info: str | None = None) -> Path:
    """`unpack` without a word."""
    path = Path(file)
    info = Path(model_info) if model_info else path.with_name("model_info.json")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; check the path.")
    if model_info or info.is_file():
        require_checksum(path, info)
    try:
        with zipfile.ZipFile(path) as archive:
            tops = {name.split("/")[0] for name in archive.namelist()}
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: is no readable zip file ({error}); download it again.") from error
    if len(tops) != 1 or damaged or tops & {"", ".", ".."}:
        raise InputError(f"{path}: is damaged or no zip of one bundle; download it again.")
    if not model_info and not info.is_file():
        logger.warning("%s: there is no model_info.json beside it, so that its checksum was not compared.", path)
    require_writable(target, "target")
    folder = Path(target) / tops.pop()
    if folder.exists():
        raise InputError(f"{folder}: is there already; remove it, or choose another --target.")
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        try:
            logging.disable(logging.INFO)  # MONAI tells the scratch folder, which is gone at the end
            extractall(path, scratch, has_base=False)
        except ValueError as error:
            raise InputError(f"{path}: holds paths that lead out of its folder ({error}); do not use it.") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be unpacked ({error.strerror or error}); download it again.") from error
        finally:
            logging.disable(logging.NOTSET)
        if not (Path(scratch) / folder.name / "configs" / "metadata.json").is_file():
            raise InputError(
                f"{path}: holds no bundle, there is no configs/metadata.json in it; give that of a bundle."
            )
        os.replace(Path(scratch) / folder.name, folder)
    return folder


def require_checksum(path: Path, info: Path) -> None:
    """Compare a zip's SHA-1 with `model_info.json`.

    Raises:
        InputError: if they differ, or one cannot be read.
    """
    try:
        entry = json.loads(info.read_text(encoding="utf-8"))[path.stem]
        checksum = entry["checksum"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{info}: has no checksum of {path.stem}; give the model_info.json of its release.") from error
    if not check_hash(path, checksum, hash_type="sha1"):
        raise InputError(f"{path}: its checksum is not that of {info}; download it again.")
