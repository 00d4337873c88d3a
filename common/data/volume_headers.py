"""Geometry in the headers of NIfTI, NRRD, MHA and MHD that ITK would mend, or place otherwise than other software."""

import logging
import os
import re
from pathlib import Path

import nibabel
import numpy as np
from nibabel.openers import ImageOpener

from ..errors import InputError

logger = logging.getLogger(__name__)

NO_GEOMETRY = "its header gives no usable spacing and direction; correct the header"
META_NUMBERS = (
    rb"^\s*(?:ElementSpacing|ElementSize|Offset|Origin|Position|TransformMatrix|Orientation|Rotation)\s*=(.*)"
)
META_SIZES = rb"^\s*(?:ElementSpacing|ElementSize)\s*=(.*)"
META_DATA = rb"^\s*ElementDataFile\s*=(.*)"
NRRD_FIELDS = (b"sizes", b"spacings", b"space directions", b"space origin")
NRRD_UNITS = rb"^(?:space units|units)\s*:(.*)"
NRRD_DATA = rb"^data ?file\s*:(.*)"
MILLIMETRES = {"mm", "millimeter", "millimeters", "millimetre", "millimetres", "", "???"}


def check_geometry(path: Path, kind: str, start: bytes) -> None:
    """Refuse a header whose numbers ITK would replace in silence.

    Args:
        kind: ITK's name of the format.
        start: the first bytes of the file.

    Raises:
        InputError: if a spacing, place or direction is no number or not finite, a spacing is 0, the unit is not mm, or
            the file with the pixels is none.
    """
    if kind == "Nifti":
        _check_nifti(path)
    elif kind == "Meta":
        _check_numbers(path, re.findall(META_NUMBERS, start, re.MULTILINE))
        if any(float(number) == 0 for line in re.findall(META_SIZES, start, re.MULTILINE) for number in line.split()):
            raise InputError(f"{path}: {NO_GEOMETRY}.")
        _check_data_file(path, re.search(META_DATA, start, re.MULTILINE))
    elif kind == "Nrrd":
        start = re.split(rb"\r?\n\r?\n", start)[0]
        _check_nrrd(path, start)
        units = {unit for line in re.findall(NRRD_UNITS, start, re.MULTILINE) for unit in re.findall(rb'"(.*?)"', line)}
        if other := sorted({unit.decode(errors="replace").strip() for unit in units} - MILLIMETRES):
            raise InputError(f"{path}: states its size in {' and '.join(other)}; write it in mm.")
        _check_data_file(path, re.search(NRRD_DATA, start, re.MULTILINE))


def _check_numbers(path: Path, lines: list[bytes]) -> None:
    try:
        finite = all(np.isfinite(float(number)) for line in lines for number in line.split())
    except ValueError:
        finite = False
    if not finite:
        raise InputError(f"{path}: {NO_GEOMETRY}.")


def _check_nrrd(path: Path, header: bytes) -> None:
    """Every axis has a spacing or direction, but for short ones without, which are colours or points in time."""
    fields = {key: re.search(rb"^" + key + rb"\s*:(.*)", header, re.MULTILINE) for key in NRRD_FIELDS}
    sizes, spacings, directions, origin = (match[1] if match else b"" for match in fields.values())
    vectors = [vector.strip(b"()").replace(b",", b" ") for vector in re.findall(rb"none|\(.*?\)", directions)]
    stated = [vector for vector in vectors if vector != b"none"]
    own = [number for number, size in zip(spacings.split(), sizes.split()) if number.lower() != b"nan" or int(size) > 4]
    _check_numbers(path, [origin.strip(b" ()\r").replace(b",", b" "), *stated, *own])
    zero = any(not any(map(float, vector.split())) for vector in [*stated, *own])
    lacking = stated and len(stated) < len(vectors) and len(stated) < len(stated[0].split())
    if zero or lacking:
        raise InputError(f"{path}: {NO_GEOMETRY}.")


def _check_data_file(path: Path, stated: re.Match | None) -> None:
    """The file that a header names for its pixels is one; reading from a pipe would wait for ever."""
    name = os.fsdecode(stated[1].strip()) if stated else "LOCAL"
    data = path.parent / name
    if name.upper() != "LOCAL" and " " not in name and "%" not in name and name != "LIST" and not os.path.isfile(data):
        raise InputError(f"{path}: its pixels are to be in {data}, which is no file; put it there.")


def _check_nifti(path: Path) -> None:
    with ImageOpener(path) as file:
        header = nibabel.Nifti1Header.from_fileobj(file, check=False)
    sizes = header["pixdim"][1 : 1 + min(int(header["dim"][0]), 3)]
    placed = [header[f"quatern_{axis}"] for axis in "bcd"] + [header[f"qoffset_{axis}"] for axis in "xyz"]
    if header["qform_code"] <= 0:
        placed = []
    elif np.sum(np.square(placed[:3], dtype=np.float64)) > 1.001:  # no rotation
        placed = [np.nan]
    if header["sform_code"] > 0:
        placed += [number for axis in "xyz" for number in header[f"srow_{axis}"]]
    if not np.isfinite([*sizes, *placed]).all() or (sizes <= 0).any():
        raise InputError(f"{path}: {NO_GEOMETRY}.")


def check_nifti_places(path: Path, affine: np.ndarray, shape: tuple[int, ...]) -> None:
    """See that a NIfTI lies where its header says, and tell of two places, sform and qform, that differ, or of none.

    Args:
        affine: (4, 4) from voxel to world RAS as ITK reads it, in mm.
        shape: (3,) voxels.

    Raises:
        InputError: if it lies neither by its sform nor by its qform, to a tenth of a voxel.
    """
    header = nibabel.load(path).header
    unit = {"meter": 1e3, "micron": 1e-3}.get(header.get_xyzt_units()[0], 1.0)
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], [1.0], indexing="ij"), -1).reshape(-1, 4)
    apart = {}
    for name, stated in (("sform", header.get_sform(coded=True)[0]), ("qform", header.get_qform(coded=True)[0])):
        if stated is not None:
            scaled = np.diag([unit, unit, unit, 1.0]) @ stated
            off = (corners @ (scaled - affine).T)[:, : 2 if header["dim"][0] == 2 else 3]  # ITK leaves z out of 2D
            apart[name] = np.linalg.norm(off, axis=1).max()
    if not apart and shape[2] > 1:
        logger.warning(
            "%s: its header states neither position nor orientation (qform and sform code 0); left and right are as "
            "ITK and 3D Slicer take them, which may be exchanged, see that they are right.",
            path,
        )
    tolerance = 0.1 * np.linalg.norm(affine[:3, :3], axis=0).min()
    other = {name: distance for name, distance in apart.items() if distance > tolerance}
    if other and len(other) == len(apart):
        raise InputError(
            f"{path}: its {' and '.join(other)} {'do' if len(other) > 1 else 'does'} not fit the voxel sizes beside; "
            "correct the header, or resample it to a straight grid."
        )
    for name, distance in other.items():
        logger.warning(
            "%s: its %s would place it up to %.3g mm off where ITK and 3D Slicer show it and where it is taken; check "
            "where landmarks of other software lie.",
            path,
            name,
            distance,
        )
