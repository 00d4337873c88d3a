"""What makes an image file unfit or doubtful before its pixels are trusted."""

import gzip
import logging
import os
import re
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from ..errors import InputError
from .dicom_files import NUMBER_OF_FRAMES, dicom_tag

logger = logging.getLogger(__name__)

EXIF_ORIENTATION = 0x0112
SUGGESTED_DPI = (1, 72, 96)  # what software writes that measured nothing


def check_frames(path: Path, header, kind: str) -> None:
    """Refuse what is not one grey or coloured image."""
    sizes = [header.GetDimensions(axis) for axis in range(header.GetNumberOfDimensions())]
    frames = int(np.prod(sizes[3:]))
    if kind == "TIFF":
        frames = max(frames, int(np.prod(sizes[2:])))
    if kind == "GDCM":
        frames = max(frames, int(dicom_tag(header, NUMBER_OF_FRAMES) or 1))
    if frames > 1:
        raise InputError(
            f"{path}: holds {frames} frames, pages or points in time; save the one to be used as its own file."
        )
    components = header.GetNumberOfComponents()
    pixel = header.GetPixelTypeAsString(header.GetPixelType())
    number = header.GetComponentTypeAsString(header.GetComponentType())
    is_grey = components == 1 or (components == 2 and kind in ("PNG", "TIFF"))
    is_colour = components in (3, 4) and (pixel in ("rgb", "rgba") or number in ("unsigned_char", "unsigned_short"))
    if not is_grey and not is_colour:
        raise InputError(f"{path}: holds {components} numbers per voxel ({pixel}); give a grey or colour image.")


def check_complete(path: Path, kind: str) -> None:
    """Raise OSError for truncated files that ITK would fill up without a word: JPEG and NIfTI."""
    if kind == "JPEG":
        with open(path, "rb") as file:
            file.seek(-2, os.SEEK_END)
            ends = file.read() == b"\xff\xd9"
        if not ends:  # something may follow the image; decoding tells
            with Image.open(path) as picture:
                picture.load()
    elif kind == "Nifti":
        image = nibabel.load(path)
        needed = image.dataobj.offset + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
        data_path = Path(image.file_map["image"].filename)
        if _unpacked_size(data_path, needed) < needed:
            raise OSError(f"{data_path} holds less than the {needed} bytes of its header")


def _unpacked_size(path: Path, expected: int) -> int:
    """Bytes of a file, unpacked if it is gzip; the gzip trailer is trusted where it says what is expected."""
    with open(path, "rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path.stat().st_size
        file.seek(-4, os.SEEK_END)
        if int.from_bytes(file.read(4), "little") == expected % 2**32:
            return expected
    size = 0
    with gzip.open(path) as file:
        while block := file.read(1 << 20):
            size += len(block)
    return size


def states_spacing(kind: str, start: bytes, affine: np.ndarray) -> bool:
    """Whether a file's header gives a physical size of its pixels; ITK says 1 where it does not."""
    if kind == "PNG":  # ITK leaves pHYs out, so the world is in pixels
        return False
    if kind in ("JPEG", "TIFF"):
        return not np.allclose(np.abs(np.diag(affine)[:2]), 1.0)
    keys = {"Meta": rb"^\s*Element(Spacing|Size)\s*=", "Nrrd": rb"^(space directions|spacings)\s*:"}
    return kind not in keys or re.search(keys[kind], start, re.MULTILINE) is not None


def warn_of_picture_tags(path: Path, dpi: np.ndarray | None) -> None:
    """Say what a picture's tags leave in doubt: how it is to be turned, and a resolution never measured."""
    try:
        with Image.open(path) as picture:
            turn = picture.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # Pillow knows fewer kinds of TIFF than ITK; the tags only serve this warning
        turn = 1
    if turn not in (0, 1):
        logger.warning(
            "%s: states the Exif orientation %s, by which some viewers turn it; landmarks refer to the pixels "
            "as ITK and 3D Slicer show them.",
            path,
            turn,
        )
    if dpi is not None and any(np.allclose(dpi, value, rtol=1e-3) for value in SUGGESTED_DPI):
        logger.warning(
            "%s: its resolution of %.0f dpi is one that software writes without measuring; check that a "
            "pixel is %.4g mm, or give the spacing in the datalist.",
            path,
            dpi[0],
            25.4 / dpi[0],
        )
