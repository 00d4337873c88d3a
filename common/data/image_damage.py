"""Damage of image files that ITK would fill up without a word."""

import gzip
import os
import re
import zlib
from pathlib import Path
from typing import BinaryIO

import nibabel
import numpy as np
from PIL import Image

from ..errors import InputError

NOT_FINITE = "holds values that are not finite; replace them in the file"
BLOCK = 1 << 20  # bytes


def check_complete(path: Path, kind: str, size: int) -> None:
    """See that the pixels of a JPEG, NIfTI, MHA or MHD are all there as they were written.

    Args:
        kind: ITK's name of the format.
        size: bytes of all pixels by the header.

    Raises:
        OSError, EOFError or zlib.error: if they are not.
        InputError: if a NIfTI holds numbers that are not finite.
    """
    if kind == "JPEG":
        _check_jpeg(path)
    elif kind == "Nifti":
        _check_nifti(path)
    elif kind == "Meta":
        _check_meta(path, size)


def _check_jpeg(path: Path) -> None:
    with open(path, "rb") as file:
        file.seek(-2, os.SEEK_END)
        ends = file.read() == b"\xff\xd9"
    if not ends:  # something may follow the image; decoding tells
        with Image.open(path) as picture:
            picture.load()


def _check_nifti(path: Path) -> None:
    image = nibabel.load(path)
    needed = image.dataobj.offset + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    data_path = Path(image.file_map["image"].filename)
    if _unpacked_size(data_path, needed) < needed:
        raise OSError(f"{data_path} holds less than the {needed} bytes of its header")
    if image.get_data_dtype().kind == "f":  # ITK reads what is not finite as 0
        values = np.asanyarray(image.dataobj.get_unscaled())
        if values.size and not np.isfinite([values.min(), values.max()]).all():
            raise InputError(f"{path}: {NOT_FINITE}.")


def _unpacked_size(path: Path, expected: int) -> int:
    """Bytes of a file, unpacked if it is gzip, or as many as expected if there are more; the gzip trailer is trusted
    where it says what is expected."""
    with open(path, "rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path.stat().st_size
        file.seek(-4, os.SEEK_END)
        if int.from_bytes(file.read(4), "little") == expected % 2**32:
            return expected
    size = 0
    with gzip.open(path) as file:
        while size < expected and (block := file.read(BLOCK)):
            size += len(block)
    return size


def _check_meta(path: Path, size: int) -> None:
    """ITK gives noise where the pixels of an MHA do not unpack."""
    with open(path, "rb") as file:
        header, name = b"", b""
        while not name and (line := file.readline(BLOCK)):  # ElementDataFile is the last line of the header
            header += line
            name = re.sub(rb"^\s*ElementDataFile\s*=\s*", b"", line).strip() if b"ElementDataFile" in line else b""
        if not re.search(rb"^\s*CompressedData\s*=\s*(True|1)", header, re.MULTILINE | re.IGNORECASE):
            return
        stated = re.search(rb"^\s*CompressedDataSize\s*=\s*(\d+)", header, re.MULTILINE)
        if name.upper() == b"LOCAL":
            _check_deflated(file, int(stated[1]) if stated else 0, size)
        elif b" " not in name and b"%" not in name:  # several files are left to ITK
            with open(path.parent / os.fsdecode(name), "rb") as data:
                _check_deflated(data, int(stated[1]) if stated else os.fstat(data.fileno()).st_size, size)


def _check_deflated(file: BinaryIO, packed_size: int, size: int) -> None:
    """Raise if the next bytes of a file are no stream of zlib or gzip with a right check sum and enough bytes."""
    unpacker, found = zlib.decompressobj(wbits=47), 0
    while not unpacker.eof and found <= size:
        packed = unpacker.unconsumed_tail
        if not packed:
            packed = file.read(min(BLOCK, packed_size))
            packed_size -= len(packed)
        if not packed:
            break
        found += len(unpacker.decompress(packed, BLOCK))
    if found != size or not unpacker.eof:
        raise OSError(f"{file.name} unpacks to {found} bytes where its header needs {size}")
