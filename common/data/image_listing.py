"""From what a user names, a file, a folder or a datalist, to the images in it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .datalist import DATALIST, all_items
from .dicom_files import IMAGE_POSITION, SERIES_UID, dicom_header, dicom_tag, is_dicom

IMAGE_ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom"),
    *(".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"),
)


def list_images(path: str | os.PathLike, lists: Sequence[str] | str | None = None) -> list[dict[str, Any]]:
    """Images to predict, as data dictionaries.

    Args:
        path: an image file; a folder, of which the images are taken in the order of their names, DICOM files
            also without ending, hidden files and subfolders not, and the slices of one DICOM volume as one
            image (what has the ending of an image and is no file is listed too, so that somebody is told of it);
            or a `datalist.json` or a folder that holds one.
        lists: names of the datalist's lists, all where None.

    Returns:
        `{"image": absolute path}`, with the "spacing" of a datalist's item where it has one.

    Raises:
        InputError: if the path is missing, there is no image, or DICOM slices of a volume lie beside other
            images.
    """
    path = Path(path).expanduser().absolute()
    if not os.path.lexists(path):
        raise InputError(f"{path}: there is no such file or folder; check the path.")
    if path.suffix.lower() == ".json" or os.path.isfile(path / DATALIST):
        # without landmarks: nobody needs them here, and those without a place do not collate
        return [
            {key: item[key] for key in ("image", "spacing") if item.get(key) is not None}
            for item in all_items(path, lists)
        ]
    if lists is not None:
        raise InputError(f"{path}: holds no {DATALIST}, so there is no list '{lists}'; leave the list out.")
    if not os.path.isdir(path):
        return [{"image": str(path)}]
    if not (images := list_folder(path)):
        raise InputError(f"{path}: holds no image files; give a file, a folder with images or a {DATALIST}.")
    return images


def list_folder(path: Path) -> list[dict[str, Any]]:
    """Images that lie in a folder, as `list_images` gives them, whether or not a `datalist.json` is there too.

    Raises:
        InputError: if DICOM slices of a volume lie beside other images.
    """
    files = sorted(file for file in path.iterdir() if _is_image(file))
    volumes, damaged = _volume_slices(files)
    largest = max(volumes.values(), key=len, default=[])
    if len(largest) > 1:
        if others := [file for file in files if file not in largest and file not in damaged]:
            raise InputError(
                f"{path}: holds the slices of a DICOM volume beside other images such as {others[0].name}; give each "
                "volume its own folder."
            )
        return [{"image": str(path)}]
    return [{"image": str(file)} for file in files]


def _is_image(file: Path) -> bool:
    """Whether an entry of a folder is meant to be an image; by its ending also what cannot be read, to be told of."""
    if file.name.startswith(".") or file.name == "DICOMDIR":
        return False
    return file.name.lower().endswith(IMAGE_ENDINGS) or is_dicom(file)


def _volume_slices(files: Sequence[Path]) -> tuple[dict[str, list[Path]], list[Path]]:
    """DICOM files with a position in the patient, by their series; and those whose header cannot be read."""
    series: dict[str, list[Path]] = {}
    damaged = []
    for file in filter(is_dicom, files):
        try:
            header = dicom_header(file)
        except RuntimeError:  # told when it is read
            damaged.append(file)
            continue
        if dicom_tag(header, IMAGE_POSITION) is not None:
            series.setdefault(dicom_tag(header, SERIES_UID) or file.name, []).append(file)
    return series, damaged
