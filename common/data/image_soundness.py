"""What makes an image file unfit or doubtful before its pixels are trusted."""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from ..errors import InputError
from .dicom_files import NUMBER_OF_FRAMES, dicom_tag

logger = logging.getLogger(__name__)

TOO_LARGE = "more than fit into memory; correct the header, or give a smaller image"
START = 16384  # bytes in which the text of a header stands
SOUND_SPACINGS = (0.01, 20.0)  # mm
LONGEST_SIDE = 3000.0  # mm
EXIF_ORIENTATION = 0x0112
SUGGESTED_DPI = (1, 72, 96)  # what software writes that measured nothing
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, SAMPLE_FORMAT = 258, 262, 277, 339  # tags of TIFF
WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE = 0, 1, 3  # values of PHOTOMETRIC
UNSIGNED, FLOATING_POINT = 1, 3  # values of SAMPLE_FORMAT


def file_start(path: Path) -> bytes:
    """The first bytes of a file that is to be read as an image.

    Raises:
        InputError: if there is no regular file, it is empty or cannot be opened, or its name is no text.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"{printable(path)}: has a name that is no UTF-8 text; rename it.") from None
    try:
        if os.path.islink(path) and not os.path.exists(path):
            raise InputError(f"{path}: is a link that leads nowhere; give the file itself.")
        if not os.path.isfile(path) and os.path.exists(path):  # reading a pipe would wait for ever
            raise InputError(f"{path}: is a pipe or a device and no image file; take it away.")
        with open(path, "rb") as file:
            start = file.read(START)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; check the path.") from None
    except (OSError, ValueError) as error:  # ValueError for a name with a zero byte
        told = (getattr(error, "strerror", None) or str(error)).lower()
        raise InputError(f"{path}: cannot be opened ({told}); check the path and its permissions.") from error
    if not start:
        raise InputError(f"{path}: is an empty file; copy it again.")
    return start


def printable(path: str | os.PathLike) -> str:
    """A path as text that can be printed and written, with escapes for bytes of its name that are no UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def check_memory(path: Path, sizes: Sequence[int], components: int = 1) -> None:
    """Refuse an image that does not fit into memory before some is taken for it; a damaged header may say any size.

    Counted are three arrays of float32: as ITK reads it, its grey values, and the copy that is given.
    """
    if int(np.prod([int(size) for size in sizes], dtype=object)) * components * 12 > memory_size():
        shape = " x ".join(str(int(size)) for size in sizes)
        raise InputError(f"{path}: its header states {shape} pixels, {TOO_LARGE}.")


def memory_size() -> int:
    """Bytes of memory that this process may have."""
    try:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every system
        size = 2**36
    try:  # a container's limit; "max" where there is none
        return min(size, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return size


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
    is_grey = components == 1 or (components == 2 and kind == "PNG")
    is_colour = components in (3, 4) and (pixel in ("rgb", "rgba") or number in ("unsigned_char", "unsigned_short"))
    if not is_grey and not is_colour:
        raise InputError(f"{path}: holds {components} numbers per voxel ({pixel}); give a grey or colour image.")


def check_voxel_sizes(path: Path, spacing: np.ndarray, shape: Sequence[int]) -> None:
    """Refuse a volume of a size that no patient has, such as one stated in metres: (3,) in mm, and voxels.

    A network's preprocessing would make it a single voxel, or more voxels than fit into memory.
    """
    low, high = SOUND_SPACINGS
    told = " x ".join(f"{size:.3g}" for size in spacing) + " mm"
    if (spacing < low).any() or (spacing > high).any():
        raise InputError(
            f"{path}: has voxels of {told} where {low:g} to {high:g} mm are believed; correct the spacing or its unit "
            "in the header."
        )
    if (longest := float((spacing * np.asarray(shape)).max())) > LONGEST_SIDE:
        raise InputError(
            f"{path}: is {longest:.0f} mm long with voxels of {told}; correct the spacing or its unit in the header."
        )


def tiff_white(path: Path) -> float | None:
    """The value that a TIFF of WhiteIsZero shows black, so that it must be turned; None where black is 0.

    ITK turns those of fewer than 8 bits itself.

    Raises:
        InputError: if its numbers are floating point of another size than 32 bits, which ITK takes for whole ones, or
            its grey or palette pixels have an alpha, which ITK takes for pixels.
    """
    with open(path, "rb") as file:
        start = file.read(8)
        directory = ImageFileDirectory_v2(start + (file.read(8) if start[2] == 43 else b""))
        file.seek(directory.next)
        directory.load(file)
    bits = directory.get(BITS_PER_SAMPLE, (1,))[0]
    number = directory.get(SAMPLE_FORMAT, (UNSIGNED,))[0]
    if number == FLOATING_POINT and bits != 32:
        raise InputError(f"{path}: holds floating point numbers of {bits} bits; save it with 32 bits.")
    is_single = directory.get(PHOTOMETRIC) in (WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE)
    if is_single and directory.get(SAMPLES_PER_PIXEL, 1) != 1:
        raise InputError(
            f"{path}: holds {directory[SAMPLES_PER_PIXEL]} numbers where a pixel has one, such as an alpha; save it "
            "without, or as PNG."
        )
    is_white = directory.get(PHOTOMETRIC) == WHITE_IS_ZERO and number == UNSIGNED and bits >= 8
    return 2.0**bits - 1 if is_white else None


def states_spacing(kind: str, start: bytes, affine: np.ndarray) -> bool:
    """Whether a file's header gives a physical size of its pixels; ITK says 1 where it does not."""
    if kind == "PNG":  # ITK leaves pHYs out, so the world is in pixels
        return False
    if kind in ("JPEG", "TIFF"):
        return not np.allclose(np.abs(np.diag(affine)[:2]), 1.0)
    keys = {"Meta": rb"^\s*Element(Spacing|Size)\s*=", "Nrrd": rb"^(space directions|spacings)\s*:"}
    return kind not in keys or re.search(keys[kind], start, re.MULTILINE) is not None


def warn_of_exif_turn(path: Path) -> None:
    """Say that a picture's tags turn it where some viewers show it."""
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


def is_measured_resolution(path: Path, dpi: np.ndarray) -> bool:
    """Whether a picture's resolution tells its size; not so, with a warning, where it is one that software suggests."""
    if not np.isclose(dpi[:, None], SUGGESTED_DPI, rtol=1e-3).any(1).all():
        return True
    logger.warning(
        "%s: its resolution of %.0f dpi is one that software writes without measuring, and is not taken for its size; "
        "give the spacing in the datalist, [%.4g, %.4g] where it is right.",
        path,
        dpi[0],
        *(25.4 / dpi[:2]),
    )
    return False
