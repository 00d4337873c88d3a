"""Hostile and odd image files and folders, each with what must come of it: its pixels and its place, or a sentence."""

import bz2
import gzip
import io
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

from .writers import CT, bmp, cut, dicom, mha, nifti, nrrd, png, tiff, x_first

random = np.random.default_rng(5)


def smooth(shape):
    """Whole numbers 0 to 255 with structures of several pixels."""
    grid = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    waves = sum(np.sin(g * f) for g, f in zip(grid, (0.31, 0.23, 0.4))) + np.cos(grid[0] * 0.11 + grid[1] * 0.17)
    values = 150 * (waves - waves.min()) / np.ptp(waves) + random.uniform(0, 100, shape)
    return np.rint(values * 255 / values.max()).astype(np.uint8)


ROWS = smooth((56, 44))  # a film, rows by columns
FILM = ROWS.T.astype(np.float64)  # x first
VOLUME = smooth((20, 18, 16)).astype(np.int16) * 4 - 300  # x first
SPACING = np.array([5.0, 6.0, 7.0])
OFFSET = np.array([10.0, 20.0, 30.0])
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
UNREADABLE = "cannot be read as an image"
GEOMETRY = "no usable spacing and direction"
MEMORY = "its header states 60000 x 60000.* more than fit into memory"


@dataclass
class Entry:
    """A file or folder, and what must come of it.

    Args:
        make: writes it to the path that it is given.
        sentence: pattern of the one sentence that refuses it, None where it has a right result.
        grey: values in the file, x first.
        affine: (4, 4) from file voxel to world RAS.
        turn: for flat images, from `grey` to what 3D Slicer shows.
        warning: pattern of what the log must say.
        tolerance: of grey values.
    """

    make: Callable
    sentence: str | None = None
    grey: np.ndarray | None = None
    affine: np.ndarray | None = field(default_factory=lambda: TO_RAS)
    turn: Callable = staticmethod(lambda grey: grey)
    warning: str | None = None
    tolerance: float = 1e-4


FILMS: dict[str, Entry] = {}
VOLUMES: dict[str, Entry] = {}


def right(name, grey=FILM, corpus=FILMS, **more):
    """Add an entry whose content is read: `@right("a.png", grey)` above its writer."""

    def add(make):
        assert name not in corpus
        corpus[name] = Entry(make, grey=np.asarray(grey, dtype=np.float64), **more)
        return make

    return add


def refused(name, sentence, corpus=FILMS):
    def add(make):
        assert name not in corpus
        corpus[name] = Entry(make, sentence)
        return make

    return add


def lps(spacing=(1, 1, 1), offset=(0, 0, 0), matrix=None):
    """World RAS of a grid that a file describes in LPS; the columns of the matrix are directions."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if matrix is None else matrix) @ np.diag(spacing)
    affine[:3, 3] = offset
    return TO_RAS @ affine


# -- pictures ----------------------------------------------------------------------------------------------------------

RAMP = bytes(np.repeat(np.arange(256), 3).astype(np.uint8))
INVERSE_RAMP = bytes(np.repeat(255 - np.arange(256), 3).astype(np.uint8))
COLOURED = np.stack([ROWS, 255 - ROWS, ROWS // 2], -1)
GREY_OF_COLOURED = (COLOURED @ [0.299, 0.587, 0.114]).T

right("grey.png")(lambda path: png(path, ROWS))
right("rgb.png", GREY_OF_COLOURED)(lambda path: png(path, COLOURED, colour=2))
right("rgba.png", GREY_OF_COLOURED)(lambda path: png(path, np.dstack([COLOURED, ROWS // 3]), colour=6))
right("grey_alpha.png")(lambda path: png(path, np.dstack([ROWS, ROWS // 3]), colour=4))
right("palette.png", 255 - FILM)(lambda path: png(path, ROWS, colour=3, palette=INVERSE_RAMP))
right("palette_alpha.png")(lambda path: png(path, ROWS, colour=3, palette=RAMP, alpha=bytes(range(256))))
right("transparent_grey.png")(lambda path: png(path, ROWS, alpha=b"\0\x05"))
right("bits_1.png", (FILM // 128) * 255)(lambda path: png(path, ROWS // 128, bits=1))
right("bits_2.png", (FILM // 64) * 85)(lambda path: png(path, ROWS // 64, bits=2))
right("bits_4.png", (FILM // 16) * 17)(lambda path: png(path, ROWS // 16, bits=4))
right("bits_16.png", FILM * 257)(lambda path: png(path, ROWS.astype(int) * 257, bits=16))
right("pixel.png", np.array([[7.0]]), warning="all its pixels have the value 7")(
    lambda path: png(path, np.array([[7]], np.uint8))
)
right("line.png", FILM[:1])(lambda path: png(path, ROWS[:, :1]))
right("constant.png", FILM * 0 + 9, warning="all its pixels have the value 9")(lambda path: png(path, ROWS * 0 + 9))
right("ünïcödé 骨 😀.png")(lambda path: png(path, ROWS))
right("100%d %s\n{name}.png")(lambda path: png(path, ROWS))
right("-rf.PNG")(lambda path: png(path, ROWS))
right("n" * 251 + ".png")(lambda path: png(path, ROWS))
right("really_a_png.jpg")(lambda path: png(path, ROWS))
right("really_a_png.dcm")(lambda path: png(path, ROWS))
refused("really_a_jpeg.png", UNREADABLE)(lambda path: Image.fromarray(ROWS).save(path, format="JPEG"))
refused("huge.png", MEMORY + "|" + UNREADABLE)(lambda path: png(path, ROWS, width=60000, height=60000))
refused("more_rows_than_there_are.png", UNREADABLE)(lambda path: png(path, ROWS, height=90))
refused("text.png", UNREADABLE)(lambda path: path.write_text("no image"))
refused("empty.png", "is an empty file")(lambda path: path.touch())
refused("noise.jpg", UNREADABLE)(lambda path: path.write_bytes(random.bytes(3000)))
refused("wrong_magic.png", UNREADABLE)(
    lambda path: (png(path, ROWS), path.write_bytes(b"XXXX" + path.read_bytes()[4:]))
)


def decoded(mode="L", **options):
    """What Pillow decodes of a JPEG of the film, x first."""
    content = io.BytesIO()
    Image.fromarray(ROWS).convert(mode).save(content, "JPEG", **options)
    return np.asarray(Image.open(content).convert("L"), dtype=np.float64).T


def jpeg(path, mode="L", **options):
    Image.fromarray(ROWS).convert(mode).save(path, "JPEG", **options)


right("grey.jpg", decoded())(jpeg)
right("progressive.jpg", decoded(progressive=True))(lambda path: jpeg(path, progressive=True))
right("cmyk.jpg", decoded("CMYK"), tolerance=2)(lambda path: jpeg(path, "CMYK"))
right("colour.jpg", decoded("RGB"), tolerance=2)(lambda path: jpeg(path, "RGB"))
right("resolution.jpg", decoded(dpi=(254, 127)), affine=lps((0.1, 0.2, 1)))(lambda path: jpeg(path, dpi=(254, 127)))
right("screen.jpg", decoded(), affine=lps((25.4 / 72, 25.4 / 72, 1)), warning="72 dpi")(
    lambda path: jpeg(path, dpi=(72, 72))
)


@right("turned_by_exif.jpg", decoded(), warning="Exif orientation 6")
def _(path):
    turned = Image.Exif()
    turned[0x0112] = 6  # as ITK and 3D Slicer, which show the pixels as they are stored
    jpeg(path, exif=turned)


right("grey.bmp")(lambda path: bmp(path, ROWS[::-1]))
right("top_down.bmp")(lambda path: bmp(path, ROWS, height=-len(ROWS)))
refused("huge.bmp", MEMORY + "|more than fit into memory")(lambda path: bmp(path, ROWS, 60000, 60000))

right("grey.tif")(lambda path: tiff(path, ROWS))
right("white_is_zero.tif", 255 - FILM)(lambda path: tiff(path, ROWS, photometric=0))
right("white_is_zero_16.tif", 65535 - 256 * FILM)(lambda path: tiff(path, ROWS.astype("<u2") * 256, photometric=0))
right("white_is_zero_1.tif", 255 - (FILM // 128) * 255)(lambda path: tiff(path, ROWS // 128, photometric=0, bits=1))
right("signed.tif", FILM - 100)(lambda path: tiff(path, ROWS.astype("<i2") - 100, number=2))
right("float.tif", FILM / 7 - 9)(lambda path: tiff(path, (ROWS / 7 - 9).astype("<f4"), number=3))
right("bits_32.tif", FILM * 1000)(lambda path: tiff(path, ROWS.astype("<u4") * 1000))
right("packed.tif")(lambda path: Image.fromarray(ROWS).save(path, compression="tiff_lzw"))
refused("half_float.tif", "floating point numbers of 16 bits")(lambda path: tiff(path, ROWS.astype("<f2"), number=3))
refused("nan.tif", "not finite")(lambda path: tiff(path, np.where(ROWS > 99, ROWS, np.nan).astype("<f4"), number=3))
refused("bits_12.tif", UNREADABLE)(lambda path: tiff(path, ROWS, bits=12))
refused("huge.tif", MEMORY + "|" + UNREADABLE)(lambda path: tiff(path, ROWS, size=(60000, 60000)))
refused("pages.tif", "holds 3 frames")(
    lambda path: Image.fromarray(ROWS).save(path, save_all=True, append_images=[Image.fromarray(ROWS)] * 2)
)

# -- DICOM -------------------------------------------------------------------------------------------------------------

DEEP = ROWS.astype(np.uint16) * 16
BITS_12 = {"BitsStored": 12, "HighBit": 11}
INVERTED = {"PhotometricInterpretation": "MONOCHROME1"}

right("grey.dcm")(lambda path: dicom(path, ROWS))
right("bits_12.dcm", FILM * 16)(lambda path: dicom(path, DEEP, **BITS_12))
right("overlay_in_high_bits.dcm", FILM * 16)(lambda path: dicom(path, DEEP | 0xA000, **BITS_12))
right("inverted.dcm", 255 - FILM)(lambda path: dicom(path, ROWS, **INVERTED))
right("inverted_12.dcm", 4095 - FILM * 16)(lambda path: dicom(path, DEEP, **BITS_12, **INVERTED))
right("inverted_signed.dcm", 99 - FILM)(lambda path: dicom(path, ROWS.astype(np.int16) - 100, **INVERTED))
right("inverted_with_window.dcm", 255 - FILM)(
    lambda path: dicom(path, ROWS, **INVERTED, WindowCenter="90", WindowWidth="40", PresentationLUTShape="INVERSE")
)
right("window.dcm")(lambda path: dicom(path, ROWS, WindowCenter="90", WindowWidth="40"))
right("rescaled.dcm", FILM / 2 + 3)(lambda path: dicom(path, ROWS, RescaleSlope="0.5", RescaleIntercept="3"))
right("rgb.dcm", GREY_OF_COLOURED)(lambda path: dicom(path, COLOURED))
right("no_ending")(lambda path: dicom(path, ROWS))
right("really_a_dicom.png")(lambda path: dicom(path, ROWS))
right("imager_spacing.dcm", affine=lps((0.3, 0.2, 1)))(lambda path: dicom(path, ROWS, ImagerPixelSpacing=[0.2, 0.3]))
right("both_spacings.dcm", affine=lps((0.2, 0.2, 1)))(
    lambda path: dicom(path, ROWS, ImagerPixelSpacing=[0.2, 0.2], PixelSpacing=[0.1, 0.1])
)
right("implicit.dcm")(lambda path: dicom(path, ROWS, syntax=ImplicitVRLittleEndian))
right("deflated.dcm")(lambda path: dicom(path, ROWS, syntax=DeflatedExplicitVRLittleEndian))
right("few_tags.dcm")(lambda path: dicom(path, ROWS, remove=("PatientName", "PhotometricInterpretation", "Modality")))


@right("big_endian.dcm", FILM * 16)
def _(path):
    file = dicom(path, DEEP)
    file.PixelData = DEEP.astype(">u2").tobytes()
    file.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(path, file, implicit_vr=False, little_endian=False, force_encoding=True)


def compressed(path, syntax, form, **options):
    file, content = dicom(path, ROWS), io.BytesIO()
    Image.fromarray(ROWS).save(content, form, **options)
    file.PixelData, file.file_meta.TransferSyntaxUID = encapsulate([content.getvalue()]), syntax
    file["PixelData"].is_undefined_length = True
    file.save_as(path)


right("jpeg.dcm", decoded(quality=95), tolerance=2)(lambda path: compressed(path, JPEGBaseline8Bit, "JPEG", quality=95))
right("jpeg_2000.dcm")(lambda path: compressed(path, JPEG2000Lossless, "JPEG2000"))


def run_lengths(path):
    file = dicom(path, ROWS)
    file.compress(RLELossless)
    file.save_as(path)


right("run_lengths.dcm")(run_lengths)
refused("frames.dcm", "holds 2 frames")(lambda path: dicom(path, ROWS, NumberOfFrames=2, Rows=len(ROWS) // 2))
refused("huge_frames.dcm", "holds 1000 frames")(
    lambda path: dicom(path, ROWS, Rows=60000, Columns=60000, NumberOfFrames=1000)
)
refused("huge.dcm", "holds 2464 bytes of pixels where its header states 60000 x 60000")(
    lambda path: dicom(path, ROWS, Rows=60000, Columns=60000)
)
refused("a_row_too_many.dcm", "where its header states 44 x 57 pixels")(lambda path: dicom(path, ROWS, Rows=57))
refused("bits_elsewhere.dcm", "its 12 bits per pixel end at bit 15")(
    lambda path: dicom(path, DEEP << 4, BitsStored=12, HighBit=15)
)
refused("no_pixels.dcm", UNREADABLE)(lambda path: dicom(path, ROWS, remove=("PixelData",)))
refused("no_rows.dcm", UNREADABLE)(lambda path: dicom(path, ROWS, remove=("Rows",)))
refused("spacing_0.dcm", r"its PixelSpacing is '0.0?\\0.0?'")(lambda path: dicom(path, ROWS, PixelSpacing=[0, 0]))
refused("spacing_negative.dcm", "not two positive numbers")(
    lambda path: dicom(path, ROWS, ImagerPixelSpacing=[-0.1, -0.1])
)
refused("spacings_contradict.dcm", "differ by another factor")(lambda path: dicom(path, ROWS, PixelSpacing=[0.1, 0.2]))
refused("sheared.dcm", "not two perpendicular directions")(
    lambda path: dicom(path, ROWS, ImageOrientationPatient=[1, 0, 0, 0.5, 0.9, 0])
)
refused("directions_0.dcm", "not two perpendicular directions")(
    lambda path: dicom(path, ROWS, ImageOrientationPatient=[0] * 6)
)

# -- flat images of medical formats ------------------------------------------------------------------------------------

FLAT = ROWS.T.copy()
QUARTER = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
AT = "ElementSpacing = 0.5 0.7\nOffset = 3 4\n"

right("flat.mha", affine=lps((0.5, 0.7, 1), (3, 4, 0)))(lambda path: mha(path, FLAT, AT))
right("flat_flipped.mha", affine=lps((0.5, 0.7, 1), (3, 4, 0), np.diag([-1, 1, 1])), turn=lambda grey: grey[::-1])(
    lambda path: mha(path, FLAT, AT + "TransformMatrix = -1 0 0 1\n")
)
right(
    "flat_turned.mha", affine=lps((0.5, 0.7, 1), (3, 4, 0), QUARTER), turn=lambda grey: np.swapaxes(grey, 0, 1)[::-1]
)(lambda path: mha(path, FLAT, AT + "TransformMatrix = 0 1 -1 0\n"))
right("flat_sheared.mha", affine=lps((0.5, 0.7, 1), (3, 4, 0), np.array([[1, 0.2, 0], [0, 1, 0], [0, 0, 1]])))(
    lambda path: mha(path, FLAT, AT + "TransformMatrix = 1 0 0.2 1\n")
)
right("flat_ras.nii", affine=np.diag([0.5, 0.7, 1, 1]), turn=lambda grey: grey[::-1, ::-1])(
    lambda path: nifti(path, FLAT[..., None], np.diag([0.5, 0.7, 1, 1]))
)
right("flat_of_three_axes.nrrd", affine=lps((0.5, 0.7, 2), (1, 2, 3)))(
    lambda path: nrrd(
        path, FLAT[..., None],
        "space: LPS\nspace directions: (0.5,0,0) (0,0.7,0) (0,0,2)\nspace origin: (1,2,3)\n",
    )
)  # fmt: skip
refused("volume.mha", "is a volume of 20 x 18 x 16 where a flat image is expected")(lambda path: mha(path, VOLUME))
refused("sizes_0.mha", "size zero|" + UNREADABLE)(lambda path: mha(path, FLAT, size=(0, 4)))

# -- no files ----------------------------------------------------------------------------------------------------------

refused("folder.png", "is a folder without DICOM files|holds no image files")(lambda path: path.mkdir())
refused("pipe.png", "is a pipe or a device")(os.mkfifo)
refused("loop.png", "is a link that leads nowhere")(lambda path: path.symlink_to(path.name))
refused("dead_link.png", "is a link that leads nowhere")(lambda path: path.symlink_to("nothing"))
refused("zeros.png", "is a pipe or a device")(lambda path: path.symlink_to("/dev/zero"))
refused(os.fsdecode(b"\xff\xfe.png"), "no UTF-8 text")(lambda path: png(path, ROWS))
right("linked.png")(lambda path: (png(path.with_name(".hidden"), ROWS), path.symlink_to(".hidden")))

PLACES = np.random.default_rng(7).uniform(0.02, 0.97, 3).round(3).tolist()  # where files are cut off, as shares of them
PICTURES = ("grey.png", "grey.jpg", "grey.bmp", "grey.tif", "packed.tif", "flat.mha", "flat_ras.nii")
for share in (0.97, 0.6, 0.2, 0.01, *PLACES):
    for whole in (*PICTURES, "grey.dcm", "run_lengths.dcm", "jpeg.dcm", "deflated.dcm"):
        name = f"cut_{share}_{whole}"

        def make(path, whole=whole, share=share):
            FILMS[whole].make(path.with_name("whole_" + whole))
            cut(path.with_name("whole_" + whole), share, path.name)

        refused(name, UNREADABLE)(make)

# -- volumes -----------------------------------------------------------------------------------------------------------

PLACED = lps(SPACING, OFFSET)
RAS = np.diag([*SPACING, 1.0])
RAS[:3, 3] = OFFSET
META = "ElementSpacing = 5 6 7\nOffset = 10 20 30\n"
DIRECTIONS = "space directions: (5,0,0) (0,6,0) (0,0,7)\nspace origin: (10,20,30)\n"
LPS_SPACE = "space: left-posterior-superior\n" + DIRECTIONS
TIMES = LPS_SPACE.replace("(0,0,7)", "(0,0,7) none") + "kinds: domain domain domain list\n"


def volume(name, affine, **more):
    return right(name, more.pop("grey", VOLUME), VOLUMES, affine=affine, **more)


def no_volume(name, sentence):
    return refused(name, sentence, VOLUMES)


def rotation(axis, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(3)
    other = [i for i in range(3) if i != axis]
    turn[np.ix_(other, other)] = [[c, -s], [s, c]]
    return turn


OBLIQUE = rotation(0, 20) @ rotation(2, -35)
SHEAR = np.array([[1, 0.15, 0], [0, 1, 0], [0, 0, 1.0]])


def matrix_text(matrix):
    """MetaImage writes the direction of one axis after the other."""
    return "TransformMatrix = " + " ".join(f"{number:.12g}" for number in np.asarray(matrix).T.ravel()) + "\n"


volume("placed.mha", PLACED)(lambda path: mha(path, VOLUME, META))
volume("turned.mha", lps(SPACING, OFFSET, QUARTER))(lambda path: mha(path, VOLUME, META + matrix_text(QUARTER)))
volume("oblique.mha", lps(SPACING, OFFSET, OBLIQUE))(lambda path: mha(path, VOLUME, META + matrix_text(OBLIQUE)))
volume("sheared.mha", lps(SPACING, OFFSET, SHEAR))(lambda path: mha(path, VOLUME, META + matrix_text(SHEAR)))
volume("spacing_negative.mha", lps(SPACING * [-1, 1, 1], OFFSET))(
    lambda path: mha(path, VOLUME, META.replace("= 5", "= -5"))
)
volume("one_time.mha", PLACED)(
    lambda path: mha(path, VOLUME[..., None], "ElementSpacing = 5 6 7 1\nOffset = 10 20 30 0\n")
)
PACKED = zlib.compress(x_first(VOLUME))
META_PACKED = META + f"CompressedData = True\nCompressedDataSize = {len(PACKED)}\n"
DAMAGED = PACKED[: len(PACKED) // 2] + bytes([PACKED[len(PACKED) // 2] ^ 255]) + PACKED[len(PACKED) // 2 + 1 :]
volume("packed.mha", PLACED)(lambda path: mha(path, VOLUME, META_PACKED, data=PACKED))
no_volume("packed_damaged.mha", UNREADABLE)(lambda path: mha(path, VOLUME, META_PACKED, data=DAMAGED))
no_volume("packed_too_little.mha", UNREADABLE)(lambda path: mha(path, VOLUME, META_PACKED, (20, 18, 17), PACKED))
no_volume("packed_without_size.mha", UNREADABLE)(
    lambda path: mha(path, VOLUME, META + "CompressedData = True\n", data=PACKED)
)
no_volume("huge.mha", MEMORY)(lambda path: mha(path, VOLUME, META, (60000, 60000, 1000)))
no_volume("spacing_0.mha", GEOMETRY)(lambda path: mha(path, VOLUME, META.replace("= 5", "= 0")))
no_volume("spacing_nan.mha", GEOMETRY)(lambda path: mha(path, VOLUME, META.replace("= 5", "= nan")))
no_volume("spacing_comma.mha", GEOMETRY)(lambda path: mha(path, VOLUME, "ElementSpacing = 5,5 6,5 7,5\n"))
no_volume("offset_nan.mha", GEOMETRY)(lambda path: mha(path, VOLUME, META.replace("= 10", "= nan")))
no_volume("offset_far.mha", GEOMETRY)(lambda path: mha(path, VOLUME, META.replace("= 10", "= 1e30")))
no_volume("directions_0.mha", GEOMETRY + "|" + UNREADABLE)(
    lambda path: mha(path, VOLUME, META + matrix_text(np.zeros((3, 3))))
)
no_volume("metres.mha", "has voxels of 0.005 x 0.006 x 0.007 mm")(
    lambda path: mha(path, VOLUME, "ElementSpacing = 0.005 0.006 0.007\n")
)
no_volume("longer_than_a_patient.mha", "is 20000 mm long")(
    lambda path: mha(path, np.zeros((1000, 2, 2), np.uint8), "ElementSpacing = 20 20 20\n")
)
no_volume("nan.mha", "not finite")(lambda path: mha(path, np.where(VOLUME > 0, VOLUME, np.nan).astype("<f4"), META))
no_volume("vectors.mha", "3 numbers per voxel")(
    lambda path: mha(path, VOLUME.astype("<f4"), META + "ElementNumberOfChannels = 3\n", data=b"\0" * VOLUME.size * 12)
)
no_volume("flat.mha", "is a flat image of 44 x 56 where a volume is expected")(lambda path: mha(path, FLAT))


def detached(path, data, size="20 18 16"):
    text = f"ObjectType = Image\nNDims = 3\n{META}DimSize = {size}\nElementType = MET_SHORT\nElementDataFile = {data}\n"
    path.write_text(text)


volume("detached.mhd", PLACED)(
    lambda path: (detached(path, "pixels.raw"), path.with_name("pixels.raw").write_bytes(x_first(VOLUME)))
)
no_volume("pixels_missing.mhd", "pixels are to be in .*nothing.raw, which is no file")(
    lambda path: detached(path, "nothing.raw")
)
no_volume("pixels_in_a_pipe.mhd", "which is no file")(
    lambda path: (detached(path, "a_pipe"), os.mkfifo(path.with_name("a_pipe")))
)
no_volume("pixels_of_zero.mhd", "which is no file")(lambda path: detached(path, "/dev/zero"))

for space, signs in (("left-posterior-superior", (-1, -1, 1)), ("right-anterior-superior", (1, 1, 1)),
                     ("left-anterior-superior", (-1, 1, 1)), ("LPS", (-1, -1, 1)), ("RAS", (1, 1, 1))):  # fmt: skip
    volume(f"{space}.nrrd", np.diag([*signs, 1]) @ RAS)(
        lambda path, space=space: nrrd(path, VOLUME, f"space: {space}\n{DIRECTIONS}")
    )
volume("sheared.nrrd", lps(SPACING, OFFSET, SHEAR))(
    lambda path: nrrd(path, VOLUME, LPS_SPACE.replace("(0,6,0)", "(0.9,6,0)"))
)
volume("gzip.nrrd", PLACED)(
    lambda path: nrrd(path, VOLUME, LPS_SPACE, encoding="gzip", data=gzip.compress(x_first(VOLUME)))
)
volume("text.nrrd", PLACED)(
    lambda path: nrrd(
        path, VOLUME, LPS_SPACE, encoding="ascii", data=" ".join(map(str, VOLUME.ravel(order="F"))).encode()
    )
)
volume("one_time.nrrd", PLACED)(lambda path: nrrd(path, VOLUME[..., None], TIMES))
no_volume("bzip2.nrrd", UNREADABLE)(
    lambda path: nrrd(path, VOLUME, LPS_SPACE, encoding="bzip2", data=bz2.compress(x_first(VOLUME)))
)
no_volume("gzip_cut.nrrd", UNREADABLE)(
    lambda path: nrrd(path, VOLUME, LPS_SPACE, encoding="gzip", data=gzip.compress(x_first(VOLUME))[:-30])
)
no_volume("micrometres.nrrd", "states its size in um; write it in mm")(
    lambda path: nrrd(path, VOLUME, 'space units: "um" "um" "um"\n' + LPS_SPACE)
)
no_volume("direction_missing.nrrd", GEOMETRY)(lambda path: nrrd(path, VOLUME, LPS_SPACE.replace("(0,6,0)", "none")))
no_volume("direction_0.nrrd", GEOMETRY)(lambda path: nrrd(path, VOLUME, LPS_SPACE.replace("(0,6,0)", "(0,0,0)")))
no_volume("spacing_nan.nrrd", GEOMETRY)(lambda path: nrrd(path, VOLUME, "spacings: nan 6 7\n"))
no_volume("spacing_0.nrrd", GEOMETRY)(lambda path: nrrd(path, VOLUME, "spacings: 0 6 7\n"))
no_volume("space_unknown.nrrd", UNREADABLE)(lambda path: nrrd(path, VOLUME, "space: here-and-there\n" + DIRECTIONS))
no_volume("times.nrrd", "2 numbers per voxel|holds 2 frames")(
    lambda path: nrrd(
        path, np.stack([VOLUME] * 2, -1), TIMES
    )
)  # fmt: skip
no_volume("huge.nrrd", MEMORY)(lambda path: nrrd(path, VOLUME, LPS_SPACE, (60000, 60000, 1000)))
no_volume("pixels_in_a_pipe.nhdr", "which is no file")(
    lambda path: (nrrd(path, VOLUME, LPS_SPACE + "data file: b_pipe\n", data=b""), os.mkfifo(path.with_name("b_pipe")))
)

ELSEWHERE = RAS.copy()
ELSEWHERE[:3, 3] += 50
TURNED = RAS @ np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
Q = ((0, 0, 0), SPACING, ELSEWHERE[:3, 3])
volume("sform.nii", RAS)(lambda path: nifti(path, VOLUME, RAS))
volume("sform_over_qform.nii", RAS, warning="its qform would place it up to 86.6 mm off")(
    lambda path: nifti(path, VOLUME, RAS, Q, (1, 1))
)
volume("qform_over_sform.nii", ELSEWHERE, warning="its sform would place it up to 86.6 mm off")(
    lambda path: nifti(path, VOLUME, RAS, Q, (2, 1))
)
volume("qform.nii", ELSEWHERE)(lambda path: nifti(path, VOLUME, RAS, Q, (0, 1)))
volume("sheared_beside_qform.nii", ELSEWHERE, warning="its sform would place it up to")(
    lambda path: nifti(path, VOLUME, RAS @ [[1, 0.15, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], Q, (1, 1))
)
volume("oblique.nii", TO_RAS @ lps(SPACING, OFFSET, OBLIQUE))(
    lambda path: nifti(path, VOLUME, TO_RAS @ lps(SPACING, OFFSET, OBLIQUE))
)
volume("flipped.nii", RAS @ np.diag([-1, 1, -1, 1]))(lambda path: nifti(path, VOLUME, RAS @ np.diag([-1, 1, -1, 1])))
volume("packed.nii.gz", RAS)(lambda path: nifti(path, VOLUME, RAS, packed=True))
volume("big_endian.nii", RAS)(lambda path: nifti(path, VOLUME, RAS, order=">"))
volume("one_time.nii", RAS)(lambda path: nifti(path, VOLUME[..., None], RAS))
volume("float.nii", RAS, grey=VOLUME / 8)(lambda path: nifti(path, (VOLUME / 8).astype("<f4"), RAS))
volume("double.nii", RAS, grey=VOLUME / 8)(lambda path: nifti(path, (VOLUME / 8).astype("<f8"), RAS))
volume("rescaled.nii", RAS, grey=VOLUME * 2.0 - 7)(lambda path: nifti(path, VOLUME, RAS, edit=[(112, "<2f", (2, -7))]))
volume("scale_nan.nii", RAS)(lambda path: nifti(path, VOLUME, RAS, edit=[(112, "<2f", (np.nan, np.nan))]))
no_volume("sheared.nii", "not at right angles")(
    lambda path: nifti(path, VOLUME, RAS @ [[1, 0.15, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
)
no_volume("sizes_contradict.nii", "its sform does not fit the voxel sizes")(
    lambda path: nifti(path, VOLUME, RAS, edit=[(80, "<3f", (1, 2, 7))])
)
no_volume("times.nii", "holds 2 frames")(lambda path: nifti(path, np.stack([VOLUME] * 2, -1), RAS))
no_volume("nan.nii", "not finite")(lambda path: nifti(path, np.where(VOLUME > 0, VOLUME, np.nan).astype("<f4"), RAS))
no_volume("infinite.nii.gz", "not finite")(
    lambda path: nifti(path, np.where(VOLUME > 0, VOLUME, np.inf).astype("<f8"), RAS, packed=True)
)
no_volume("spacing_0.nii", GEOMETRY)(lambda path: nifti(path, VOLUME, RAS, Q, (0, 1), [(80, "<3f", (0, 6, 7))]))
no_volume("spacing_negative.nii", GEOMETRY)(
    lambda path: nifti(path, VOLUME, RAS, Q, (0, 1), [(80, "<3f", (-5, -6, -7))])
)
no_volume("turn_nan.nii", GEOMETRY)(lambda path: nifti(path, VOLUME, RAS, ((np.nan, 0, 0), SPACING, OFFSET), (0, 1)))
no_volume("no_rotation.nii", GEOMETRY)(lambda path: nifti(path, VOLUME, RAS, ((3, 3, 3), SPACING, OFFSET), (0, 1)))
no_volume("sform_nan.nii", GEOMETRY)(lambda path: nifti(path, VOLUME, RAS, edit=[(280, "<f", (np.nan,))]))
no_volume("micrometres.nii", "has voxels of 0.005 x 0.006 x 0.007 mm")(
    lambda path: nifti(path, VOLUME, RAS, edit=[(123, "B", (3,))])
)
no_volume("huge.nii", "more than fit into memory|" + UNREADABLE)(
    lambda path: nifti(path, VOLUME, RAS, edit=[(42, "<3h", (32000, 32000, 3600))])
)
no_volume("dimensions_negative.nii", UNREADABLE)(lambda path: nifti(path, VOLUME, RAS, edit=[(42, "<h", (-20,))]))
no_volume("pixels_far_off.nii", UNREADABLE)(lambda path: nifti(path, VOLUME, RAS, edit=[(108, "<f", (1e9,))]))
no_volume("wrong_magic.nii", UNREADABLE)(lambda path: nifti(path, VOLUME, RAS, edit=[(344, "4s", (b"xxxx",))]))
no_volume("unknown_numbers.nii", UNREADABLE)(lambda path: nifti(path, VOLUME, RAS, edit=[(70, "<h", (9999,))]))
no_volume("really_packed.nii", UNREADABLE)(lambda path: nifti(path, VOLUME, RAS, packed=True))
no_volume("not_packed.nii.gz", UNREADABLE)(lambda path: nifti(path, VOLUME, RAS))
no_volume("packed_bomb.nii.gz", UNREADABLE)(
    lambda path: path.write_bytes(gzip.compress(b"\0" * (1 << 26), compresslevel=9))
)

for share in (0.97, 0.5, 0.05, *PLACES):
    for whole in (
        "placed.mha",
        "packed.mha",
        "left-posterior-superior.nrrd",
        "gzip.nrrd",
        "sform.nii",
        "packed.nii.gz",
    ):
        name = f"cut_{share}_{whole}"

        def make(path, whole=whole, share=share):
            VOLUMES[whole].make(path.with_name("whole_" + whole))
            cut(path.with_name("whole_" + whole), share, path.name)

        refused(name, UNREADABLE, VOLUMES)(make)

# -- DICOM series, folders ---------------------------------------------------------------------------------------------


def series(folder, places=range(0, 32, 2), tags=None, shift=0.0):
    """Slices of the volume, those of larger z named first; `tags` gives more tags of a slice by its number."""
    folder.mkdir()
    uid, study = generate_uid(), generate_uid()
    for k, z in enumerate(places):
        more = {"ImagePositionPatient": [10, 20 + shift * z, 30 + z], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "PixelSpacing": [6, 5], "SeriesInstanceUID": uid, "StudyInstanceUID": study,
                "FrameOfReferenceUID": study, "RescaleSlope": 1, "RescaleIntercept": 0}  # fmt: skip
        rows = np.ascontiguousarray(VOLUME[:, :, k].T)
        dicom(folder / f"slice_{99 - k}", rows, CT, ExplicitVRLittleEndian, **(more | (tags or {}).get(k, {})))
    return folder


def damaged(folder):
    path = sorted(folder.iterdir())[3]
    path.write_bytes(path.read_bytes()[:-100])


volume("series.dcm", lps([5, 6, 2], OFFSET))(series)
volume("series_beside_notes.dcm", lps([5, 6, 2], OFFSET))(
    lambda path: (series(path), (path / "notes.txt").write_text("-"), (path / "more").mkdir())
)
no_volume("series_gap.dcm", "not evenly spaced")(lambda path: series(path, [*range(0, 28, 2), 30, 32]))
no_volume("series_twice.dcm", "not evenly spaced")(lambda path: series(path, [0, 0, 2, 2, 4, 4]))
no_volume("series_tilted.dcm", "are sheared")(lambda path: series(path, shift=0.5))
no_volume("series_of_two_grids.dcm", "another size, spacing or direction|holds 2 DICOM series")(
    lambda path: series(path, tags={4: {"PixelSpacing": [6, 5.5]}})
)
no_volume("series_without_a_place.dcm", "not evenly spaced|states no position")(
    lambda path: series(path, tags={4: {"ImagePositionPatient": None}})
)
no_volume("series_with_a_cut_slice.dcm", "slice")(lambda path: damaged(series(path)))
no_volume("series_with_a_cut_header.dcm", "slice_84: is a damaged slice")(
    lambda path: (series(path), (path / "slice_84").write_bytes((path / "slice_84").read_bytes()[:140]))
)
no_volume("series_with_a_pipe.dcm", "a pipe or a device")(lambda path: (series(path), os.mkfifo(path / "slice_7")))
no_volume("two_series.dcm", "holds 2 DICOM series|beside other images such as")(
    lambda path: (series(path), series(path.with_name("tmp")), [
        file.rename(path / f"b{file.name}") for file in path.with_name("tmp").iterdir()
    ], path.with_name("tmp").rmdir())
)  # fmt: skip
