"""Files of images byte by byte, so that headers can say what no library would write."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

DX, CT = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.2"
MHA_TYPES = {"u1": "MET_UCHAR", "i2": "MET_SHORT", "u2": "MET_USHORT", "f4": "MET_FLOAT"}
NIFTI_TYPES = {"u1": 2, "i2": 4, "f4": 16, "f8": 64}


def x_first(values):
    """Bytes of values (X, Y(, Z)) as medical formats keep them, x fastest."""
    return np.asarray(values).tobytes(order="F")


def short_type(values):
    return np.asarray(values).dtype.str[1:]


def mha(path, values, header="", size=None, data=None):
    """MetaImage; `header` holds further lines, `size` and `data` stand for what the values say."""
    size = " ".join(map(str, size or values.shape))
    text = f"ObjectType = Image\nNDims = {len(size.split())}\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    text += f"{header}DimSize = {size}\nElementType = {MHA_TYPES[short_type(values)]}\nElementDataFile = LOCAL\n"
    path.write_bytes(text.encode() + (x_first(values) if data is None else data))


def nrrd(path, values, header="", sizes=None, encoding="raw", data=None):
    sizes = " ".join(map(str, sizes or values.shape))
    kind = {"u1": "uint8", "i2": "int16", "f4": "float"}[short_type(values)]
    text = f"NRRD0004\ntype: {kind}\ndimension: {len(sizes.split())}\nsizes: {sizes}\nendian: little\n"
    path.write_bytes(f"{text}encoding: {encoding}\n{header}\n".encode() + (x_first(values) if data is None else data))


def nifti(path, values, affine=None, qform=None, codes=(1, 0), edit=(), order="<", packed=False, data=None):
    """NIfTI-1 with sform `affine` and qform `qform` (rotation and spacing from (b, c, d), (sx, sy, sz), offset).

    `codes` are those of sform and qform; `edit` holds (byte, format, numbers) that are written over the header.
    """
    values = np.asarray(values)
    affine = np.eye(4) if affine is None else np.asarray(affine, dtype=float)
    header = bytearray(352)
    struct.pack_into(order + "i", header, 0, 348)
    struct.pack_into(order + "8h", header, 40, values.ndim, *values.shape, *[1] * (7 - values.ndim))
    struct.pack_into(order + "hh", header, 70, NIFTI_TYPES[short_type(values)], values.itemsize * 8)
    quaternion, spacing, offset = qform or ((0, 0, 0), np.linalg.norm(affine[:3, :3], axis=0), affine[:3, 3])
    struct.pack_into(order + "8f", header, 76, 1.0, *spacing, 1, 1, 1, 1)
    struct.pack_into(order + "f", header, 108, 352.0)
    struct.pack_into("B", header, 123, 2)  # mm
    struct.pack_into(order + "hh", header, 252, codes[1], codes[0])
    struct.pack_into(order + "18f", header, 256, *quaternion, *offset, *affine[:3].ravel())
    header[344:348] = b"n+1\0"
    for place, form, numbers in edit:
        struct.pack_into(form, header, place, *numbers)
    content = bytes(header) + (x_first(values.astype(values.dtype.newbyteorder(order))) if data is None else data)
    path.write_bytes(gzip.compress(content) if packed else content)


def packed_bits(rows, bits):
    """Rows of whole numbers in `bits` bits each, every row from a new byte."""
    lines = ["".join(f"{value:0{bits}b}" for value in row) for row in rows]
    lines = [line + "0" * (-len(line) % 8) for line in lines]
    return [bytes(int(line[i : i + 8], 2) for i in range(0, len(line), 8)) for line in lines]


def png(path, rows, bits=8, colour=0, width=None, height=None, palette=None, alpha=None):
    """PNG of rows (H, W) or (H, W, C); `colour` is 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    flat = rows.reshape(len(rows), -1)
    lines = [row.astype(">u2").tobytes() for row in flat] if bits == 16 else packed_bits(flat, bits)
    size = struct.pack(">IIBBBBB", width or rows.shape[1], height or len(rows), bits, colour, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size)
    content += (chunk(b"PLTE", palette) if palette else b"") + (chunk(b"tRNS", alpha) if alpha else b"")
    content += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines))) + chunk(b"IEND", b"")
    path.write_bytes(content)


def tiff(path, rows, photometric=1, number=1, bits=None, size=None, more=()):
    """TIFF of one strip; `photometric` 0 is WhiteIsZero, `number` 1 unsigned, 2 signed, 3 floating point."""
    data = b"".join(packed_bits(rows, bits)) if bits else rows.tobytes()
    bits = bits or rows.itemsize * 8
    height, width = size or rows.shape
    fields = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, height)]
    fields = sorted([*fields, (279, len(data)), (339, number), *more])
    data += b"\0" * (len(data) % 2)
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(fields)) + directory
                     + b"\0" * 4)  # fmt: skip


def bmp(path, rows, width=None, height=None):
    """BMP of 24 bits; a negative height begins with the upper row."""
    lines = b"".join(np.repeat(row, 3).tobytes() + b"\0" * (-3 * len(row) % 4) for row in rows)
    size = (width or rows.shape[1], height or len(rows))
    header = struct.pack("<2sIHHI", b"BM", 54 + len(lines), 0, 0, 54)
    path.write_bytes(header + struct.pack("<IiiHHIIiiII", 40, *size, 1, 24, 0, 0, 0, 0, 0, 0) + lines)


def dicom(path, rows, sop=DX, syntax=ExplicitVRLittleEndian, remove=(), **tags):
    """DICOM of one grey or RGB image, by pydicom, with further or other tags."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop, generate_uid()
    meta.TransferSyntaxUID = syntax
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = sop, meta.MediaStorageSOPInstanceUID
    file.StudyInstanceUID, file.SeriesInstanceUID = generate_uid(), generate_uid()
    file.PatientName, file.PatientID, file.Modality = "phantom", "phantom", "DX"
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    if rows.ndim == 3:
        file.SamplesPerPixel, file.PhotometricInterpretation, file.PlanarConfiguration = 3, "RGB", 0
    file.Rows, file.Columns = rows.shape[:2]
    file.BitsAllocated = file.BitsStored = rows.itemsize * 8
    file.HighBit, file.PixelRepresentation = file.BitsStored - 1, int(rows.dtype.kind == "i")
    file.PixelData = rows.tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    for name in remove:
        delattr(file, name)
    file.save_as(path, enforce_file_format=True)
    return file


def cut(path, share, name):
    """A truncated copy beside a file, which goes."""
    content = Path(path).read_bytes()
    Path(path).with_name(name).write_bytes(content[: max(1, int(len(content) * share))])
    Path(path).unlink()
