"""What DICOM says beside the pixels: the millimetres of a radiograph, and the slices of a volume."""

from collections.abc import Sequence
from pathlib import Path

import itk
import numpy as np

from ..errors import InputError

PHOTOMETRIC_INTERPRETATION = "0028|0004"
NUMBER_OF_FRAMES = "0028|0008"
SERIES_UID = "0020|000e"
IMAGE_POSITION = "0020|0032"
# In the order in which they count: PixelSpacing is the calibrated one where both are given (PS3.3, 10.7.1.3).
PIXEL_SPACINGS = {
    "PixelSpacing": "0028|0030",
    "ImagerPixelSpacing": "0018|1164",
    "NominalScannedPixelSpacing": "0018|2010",
}


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM files do, whatever its name."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


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


def dicom_millimetres(header, path: Path) -> tuple[float, str]:
    """Millimetres per world unit of a DICOM image, and the name of the tag that says so.

    ITK takes the world of projection radiographs from ImagerPixelSpacing alone (1 where it is missing), that
    of other images from PixelSpacing. Where a tag says better, the ratio is the scale.

    Returns:
        (NaN, "none") where no tag states a spacing.

    Raises:
        InputError: if a spacing is no pair of positive numbers, or differs from the world's by over 1 %
            between axes.
    """
    name, text = next(((n, t) for n, k in PIXEL_SPACINGS.items() if (t := dicom_tag(header, k))), ("none", None))
    if text is None:
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


def series_files(folder: Path) -> list[Path]:
    """Files of the one DICOM series in a folder, in the order of their slices.

    Raises:
        InputError: if there is no series or more than one.
    """
    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction("0008|0021")
    names.SetDirectory(str(folder))
    series = names.GetSeriesUIDs()
    if len(series) != 1:
        found = f"holds {len(series)} DICOM series" if series else "is a folder without DICOM files"
        raise InputError(f"{folder}: {found}; give an image file or a folder with the slices of one series.")
    return [Path(name) for name in names.GetFileNames(series[0])]


def check_slices(files: Sequence[Path], folder: Path) -> None:
    """Refuse slices from which ITK would build a volume of wrong geometry.

    ITK stacks slices along their normal with the mean distance. A gap, a slice that is there twice, or a
    tilted gantry would move landmarks.

    Raises:
        InputError: if a slice has no position, lies off its place by over 2 % of the slice distance, or half
            a pixel aside of the normal.
    """
    headers = [dicom_header(file) for file in files]
    lacking = [file.name for file, header in zip(files, headers) if dicom_tag(header, IMAGE_POSITION) is None]
    if lacking:
        raise InputError(f"{folder}: slice {lacking[0]} states no position; export the series with positions.")
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
