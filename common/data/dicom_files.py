"""What DICOM says beside the pixels: the millimetres of a radiograph, and the slices of a volume."""

import mmap
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import itk
import numpy as np

from ..errors import InputError

PHOTOMETRIC_INTERPRETATION = "0028|0004"
NUMBER_OF_FRAMES = "0028|0008"
SERIES_UID = "0020|000e"
IMAGE_POSITION = "0020|0032"
IMAGE_ORIENTATION = "0020|0037"
SAMPLES, ROWS, COLUMNS = "0028|0002", "0028|0010", "0028|0011"
BITS_ALLOCATED, BITS_STORED, HIGH_BIT = "0028|0100", "0028|0101", "0028|0102"
# Pixel data: the tag, the kind of value where it is explicit, the number of bytes.
PIXEL_DATA = re.compile(
    rb"\xe0\x7f\x10\x00(?:O[BW]\0\0)?(?P<little>[\s\S]{4})|\x7f\xe0\x00\x10O[BW]\0\0(?P<big>[\s\S]{4})"
)
FRAGMENT, END_OF_FRAGMENTS, UNDEFINED = 0xE000FFFE, 0xE0DDFFFE, 0xFFFFFFFF
PIXEL_ASPECT_RATIO = "0028|0034"  # height to width of a pixel, stated where no spacing is (PS3.3, C.7.6.3.1.7)
# In the order in which they count: PixelSpacing is the calibrated one where both are given (PS3.3, 10.7.1.3).
PIXEL_SPACINGS = {
    "PixelSpacing": "0028|0030",
    "ImagerPixelSpacing": "0018|1164",
    "NominalScannedPixelSpacing": "0018|2010",
}


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM files do, whatever its name."""
    if not os.path.isfile(path):  # reading from a pipe would wait for ever
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_slice(path: Path) -> bool:
    """Whether a file of a folder is meant to be an image in DICOM, by its start or its ending."""
    named = path.suffix.lower() in (".dcm", ".dicom") and not path.name.startswith(".")
    return path.name != "DICOMDIR" and (named or is_dicom(path))


def dicom_tag(header, key: str) -> str | None:
    """Text of a tag such as "0028|0030" of an ITK image's or reader's dictionary, None where it is not
    there."""
    tags = header.GetMetaDataDictionary()
    return str(tags[key]).strip(" \0") if tags.HasKey(key) else None


def dicom_header(path: Path):
    """ITK's reader of a DICOM file with the header read; raises RuntimeError where ITK does."""
    header = itk.GDCMImageIO.New(FileName=str(path))
    header.ReadImageInformation()
    return header


def pixel_data_size(path: Path) -> int | None:
    """Bytes of the uncompressed pixels in a DICOM file, None where they are compressed.

    GDCM takes gigabytes for a compressed image of which the end is missing, so that this is asked first.

    Raises:
        OSError: if the file ends within compressed pixels.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = None
        for match in PIXEL_DATA.finditer(content):
            size = struct.unpack("<I", match["little"])[0] if match["little"] else struct.unpack(">I", match["big"])[0]
            if size == UNDEFINED:
                _check_fragments(content, match.end(), path)
                return None
            if match.end() + size <= len(content):  # else no pixel data, or truncated, of which GDCM tells
                found = max(found or 0, size)
        return found


def _check_fragments(content: mmap.mmap, place: int, path: Path) -> None:
    tag = None
    while tag != END_OF_FRAGMENTS:
        if place + 8 > len(content):
            raise OSError(f"{path} ends within its pixels")
        tag, size = struct.unpack("<II", content[place : place + 8])
        if tag not in (FRAGMENT, END_OF_FRAGMENTS):
            raise OSError(f"{path} has pixels in damaged fragments")
        place += 8 + size


def check_dicom(header, path: Path) -> None:
    """Refuse a header by which ITK would give other pixels or another place without a word.

    Raises:
        InputError: if there are fewer pixels than the header says, their bits are not the lowest ones, or the
            orientation is no pair of perpendicular directions.
    """
    rows, columns, allocated, stored, high = (
        int(dicom_tag(header, key) or 0) for key in (ROWS, COLUMNS, BITS_ALLOCATED, BITS_STORED, HIGH_BIT)
    )
    samples = int(dicom_tag(header, SAMPLES) or 1)
    size = pixel_data_size(path)
    colours = 2 if (dicom_tag(header, PHOTOMETRIC_INTERPRETATION) or "").endswith("_422") else samples
    needed = (rows * columns * colours * allocated + 7) // 8
    if size is not None and size < needed:
        raise InputError(
            f"{path}: holds {size} bytes of pixels where its header states {columns} x {rows} pixels of {needed} "
            "bytes; export it again."
        )
    if stored and high and high != stored - 1:
        raise InputError(f"{path}: its {stored} bits per pixel end at bit {high}, not {stored - 1}; export it again.")
    text = dicom_tag(header, IMAGE_ORIENTATION)
    if text:
        read = [*header.GetDirection(0), *header.GetDirection(1)]
        try:
            agrees = np.allclose([float(number) for number in text.split("\\")], read, atol=1e-3)
        except ValueError:
            agrees = False
        if not agrees:
            raise InputError(
                f"{path}: its ImageOrientationPatient is '{text}', not two perpendicular directions; correct the DICOM "
                "header."
            )


def dicom_millimetres(header, path: Path) -> tuple[float, str]:
    """Millimetres per world unit of a DICOM image, and the name of the tag that says so.

    ITK takes the world of projection radiographs from ImagerPixelSpacing alone (1 where it is missing), that
    of other images from PixelSpacing. Where a tag says better, the ratio is the scale.

    Returns:
        (NaN, "none") where no tag states a spacing.

    Raises:
        InputError: if a spacing is no pair of positive numbers, or differs from the world's by over 1 %
            between axes; or pixels are not square and no tag states a spacing.
    """
    name, text = next(((n, t) for n, k in PIXEL_SPACINGS.items() if (t := dicom_tag(header, k))), ("none", None))
    if text is None:
        if not np.allclose([header.GetSpacing(0), header.GetSpacing(1)], 1):
            return 1.0, "header"  # enhanced objects and those of radiotherapy have another tag, which ITK reads
        if not has_square_pixels(aspect := dicom_tag(header, PIXEL_ASPECT_RATIO)):
            raise InputError(
                f"{path}: states a PixelAspectRatio of {aspect} and no spacing, so that its distances and angles are "
                "not those of its pixels; give it a PixelSpacing, or resample it."
            )
        return float("nan"), name
    try:
        row, column = (float(value) for value in text.split("\\"))
    except ValueError:
        row = column = 0.0
    if not (0 < row < np.inf and 0 < column < np.inf):
        raise InputError(f"{path}: its {name} is '{text}', not two positive numbers; correct the DICOM header.")
    scale = np.array([column, row]) / [header.GetSpacing(0), header.GetSpacing(1)]
    if abs(scale[0] / scale[1] - 1) > 0.01:
        raise InputError(
            f"{path}: its {name} {text} and the spacing {header.GetSpacing(1):g}\\{header.GetSpacing(0):g} "
            "of its pixels differ by another factor on each axis; correct the DICOM header."
        )
    return (1.0 if np.allclose(scale, 1.0, rtol=1e-6) else float(scale.mean())), name


def has_square_pixels(aspect: str | None) -> bool:
    """Whether the text of a PixelAspectRatio is that of square pixels, to 1 %; so it is where there is none."""
    if not aspect:
        return True
    try:
        height, width = (float(value) for value in aspect.split("\\"))
    except ValueError:
        return False
    return width > 0 and abs(height / width - 1) <= 0.01


def series_files(folder: Path) -> list[Path]:
    """Files of the one DICOM series in a folder, in the order of their slices.

    Raises:
        InputError: if there is no series or more than one, or files that look like slices are not among them.
    """
    for entry in os.scandir(folder):
        if not entry.is_file() and not entry.is_dir():  # reading from a pipe would wait for ever
            raise InputError(f"{entry.path}: is a link to nothing, a pipe or a device; take it out of the folder.")
    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction("0008|0021")
    names.SetDirectory(str(folder))
    series = names.GetSeriesUIDs()
    if len(series) != 1:
        found = f"holds {len(series)} DICOM series" if series else "is a folder without DICOM files"
        raise InputError(f"{folder}: {found}; give an image file or a folder with the slices of one series.")
    files = [Path(name) for name in names.GetFileNames(series[0])]
    left_out = {path for path in folder.iterdir() if path.is_file() and is_slice(path)} - set(files)
    if left_out:
        raise InputError(f"{min(left_out)}: is a damaged slice of the series beside it; copy or export it again.")
    return files


def check_slices(files: Sequence[Path], folder: Path) -> None:
    """Refuse slices from which ITK would build a volume of wrong geometry.

    ITK stacks slices along their normal with the mean distance. A gap, a slice that is there twice, or a
    tilted gantry would move landmarks.

    Raises:
        InputError: if a slice cannot be read, has no position, is of another grid than the first, lies off its place by
            over 2 % of the slice distance, or half a pixel aside of the normal.
    """
    headers = []
    for file in files:
        try:
            headers.append(dicom_header(file))
            check_dicom(headers[-1], file)
        except (RuntimeError, OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{file}: is a slice that cannot be read; copy or export the series again.") from error
    lacking = [file.name for file, header in zip(files, headers) if dicom_tag(header, IMAGE_POSITION) is None]
    if lacking:
        raise InputError(f"{folder}: slice {lacking[0]} states no position; export the series with positions.")
    grids = np.array([[f(a) for f in (h.GetDimensions, h.GetSpacing) for a in (0, 1)] for h in headers])
    axes = np.array([[*h.GetDirection(0), *h.GetDirection(1)] for h in headers])
    grids = np.hstack([grids, axes])
    if len(other := np.flatnonzero(np.abs(grids - grids[0]).max(1) > 1e-3)):
        raise InputError(
            f"{folder}: slice {files[other[0]].name} has another size, spacing or direction than {files[0].name}; give "
            "the slices of one volume."
        )
    positions = np.array([[header.GetOrigin(axis) for axis in range(3)] for header in headers])
    normal = np.array(headers[0].GetDirection(2))
    pixel = min(headers[0].GetSpacing(0), headers[0].GetSpacing(1))
    step = (positions[-1] - positions[0]) / (len(files) - 1)
    distance = np.linalg.norm(step)
    place = positions[0] + np.arange(len(files))[:, None] * step
    aside = np.linalg.norm(step - (step @ normal) * normal) * (len(files) - 1)
    if np.linalg.norm(positions - place, axis=1).max() > 0.02 * distance or distance == 0:
        raise InputError(
            f"{folder}: its {len(files)} slices are not evenly spaced; a slice is missing or there twice, "
            "give one complete volume."
        )
    if aside > 0.5 * pixel:
        raise InputError(f"{folder}: its slices are sheared (tilted gantry); resample the volume to a straight one.")
