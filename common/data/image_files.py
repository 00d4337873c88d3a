"""Image files as ITK and 3D Slicer place them in the world: one grey channel, x first, a 4x4 RAS affine."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import itk
import nibabel
import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from PIL import Image

from ..errors import InputError
from .dicom_files import (
    PHOTOMETRIC_INTERPRETATION,
    check_dicom,
    check_slices,
    dicom_header,
    dicom_millimetres,
    dicom_tag,
    is_dicom,
    pixel_data_size,
    series_files,
)
from .image_damage import NOT_FINITE, check_complete
from .image_soundness import (
    TOO_LARGE,
    check_frames,
    check_memory,
    check_voxel_sizes,
    file_start,
    is_measured_resolution,
    states_spacing,
    tiff_white,
    warn_of_exif_turn,
)
from .volume_headers import NO_GEOMETRY, check_geometry, check_nifti_places

logger = logging.getLogger(__name__)

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
FARTHEST = 1e6  # mm from the world's origin
LPS = np.array([[0, -1], [1, -1]])  # axes of a flat image as nibabel writes them
UNSOUND = (
    "cannot be read as an image, it may be truncated or of another format than its ending says; copy or export it again"
)
NOT_IN_TWO_AXES = f"{NO_GEOMETRY} (a flat image of a plane that is not axial needs a third axis of length 1)"
NOT_STRAIGHT = (
    "its axes are not at right angles, or its sform does not fit the voxel sizes beside it; resample it to a straight "
    "grid"
)


@dataclass
class _FileImage:
    """Grey values (X, Y, Z) and the affine from voxel index to RAS, before a flat image is told from a
    volume."""

    array: np.ndarray
    affine: np.ndarray
    mm_per_world: float
    mm_source: str
    monochrome1: bool = False
    is_dicom: bool = False


class LandmarkImageReader(ImageReader):
    """Read one image so that its world is the one in which 3D Slicer shows it.

    For stock `LoadImaged(keys="image", reader=LandmarkImageReader(), ensure_channel_first=True)`, which then
    gives float32 (1, W, H) or (1, X, Y, Z). See `read_image` for formats and meta.

    Bad files raise in `get_data`, not in `read`: `LoadImage` would answer an error in `read` by trying
    MONAI's own readers, whose affines say another world.

    Args:
        spatial_dims: 2 or 3 to refuse volumes or flat images, None to take both.

    Raises:
        InputError: see `read_image`.
    """

    def __init__(self, spatial_dims: int | None = None) -> None:
        super().__init__()
        if spatial_dims not in (None, 2, 3):
            raise ValueError(f"spatial_dims must be 2, 3 or None, got {spatial_dims}")
        self.spatial_dims = spatial_dims

    def verify_suffix(self, filename: Sequence[str | os.PathLike] | str | os.PathLike) -> bool:
        return True

    def read(self, data: Sequence[str | os.PathLike] | str | os.PathLike, **kwargs) -> tuple:
        return ensure_tuple(data)

    def get_data(self, img: tuple) -> tuple[np.ndarray, dict]:
        if len(img) != 1:
            raise InputError(f"{img[0]}: comes as {len(img)} files in one item; give one image file per item.")
        return read_image(img[0], self.spatial_dims)


def read_image(path: str | os.PathLike, spatial_dims: int | None = None) -> tuple[np.ndarray, dict]:
    """Read PNG, JPEG, BMP, TIFF, DICOM (file, or folder of one series), NIfTI, NRRD, MHA or MHD.

    Colours become grey by their luminance, alpha is left out, DICOM MONOCHROME1 is turned so that bone is
    bright. A third axis of length 1 is dropped.

    Returns:
        float32 array (W, H) or (X, Y, Z), x first, and its meta: `affine` and `original_affine` (4, 4) from
        voxel to world RAS; `space`; `spatial_shape`; `mm_per_world`, millimetres per world unit, NaN where
        the file states no physical size; `mm_source`; `monochrome1_turned`; and for a flat image
        `plane_affine` (4, 4), from index (i, j, 0) to the file's place in RAS, of which `affine` is the
        in-plane part if the plane is axial. Else it tells how the image is shown upright: as it is for DICOM,
        whose rows and columns are those of a display; by its axes for other formats, head up, the patient's right
        at the left of a coronal plane, looking to the right in a sagittal one, a tilted one as without the tilt.

    Raises:
        InputError: if the file is missing, empty, truncated or no image, holds several frames, points in time
            or a vector field, has non-finite values or a degenerate geometry, or is not of `spatial_dims`.
    """
    path = Path(path)
    image = _read_series(path) if os.path.isdir(path) else _read_file(path)
    array, affine = image.array, image.affine
    if array.size == 0:
        raise InputError(f"{path}: is an image of size zero; replace the file.")
    if not (np.abs(affine) < FARTHEST).all() or abs(np.linalg.det(affine)) < 1e-12:
        raise InputError(f"{path}: {NO_GEOMETRY}.")
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise InputError(f"{path}: {NOT_FINITE}.")
    if low == high:
        logger.warning("%s: all its pixels have the value %g; no landmark can be found in it.", path, low)
    is_flat = array.shape[2] == 1
    if spatial_dims is not None and spatial_dims != (2 if is_flat else 3):
        shape = " x ".join(str(n) for n in array.shape[: 2 if is_flat else 3])
        found, wanted = ("a flat image", "a volume") if is_flat else ("a volume", "a flat image")
        raise InputError(f"{path}: is {found} of {shape} where {wanted} is expected; give {wanted}.")

    meta = {
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
        "mm_per_world": image.mm_per_world,
        "mm_source": image.mm_source,
        "monochrome1_turned": image.monochrome1,
    }
    if is_flat:
        array = array[..., 0]
        meta["plane_affine"] = affine
        affine = _in_plane(affine, image.is_dicom)
    elif image.mm_per_world > 0:
        check_voxel_sizes(path, np.linalg.norm(affine[:3, :3], axis=0) * image.mm_per_world, array.shape)
    meta[MetaKeys.ORIGINAL_AFFINE] = affine
    meta[MetaKeys.SPATIAL_SHAPE] = np.asarray(array.shape)
    if is_flat:
        turn, affine, _ = upright_geometry(affine, array.shape)
        array = nibabel.apply_orientation(array, turn)
    meta[MetaKeys.AFFINE] = affine.copy()
    return np.ascontiguousarray(array, dtype=np.float32), meta


def _in_plane(plane: np.ndarray, is_dicom: bool) -> np.ndarray:
    """4x4 affine in a flat image's own plane: the file's if the plane is axial, else one along the picture's axes."""
    affine = np.eye(4)
    sizes = np.linalg.norm(plane[:3, :2], axis=0)
    if (np.abs(plane[2, :2]) < 1e-3 * sizes).all():
        affine[:2, :2] = plane[:2, :2]
        affine[:2, 3] = plane[:2, 3]
    elif is_dicom:
        affine[:2, :2] = np.diag(-sizes)
    else:
        normal = int(np.abs(np.cross(plane[:3, 0], plane[:3, 1])).argmax())
        affine[:2, :2] = axis_parallel(np.delete(plane[:3, :2], normal, axis=0))
        affine[:2, :2] *= sizes / np.linalg.norm(affine[:2, :2], axis=0)
        if normal == 0:
            affine[0, :2] *= -1
    return affine


def axis_parallel(steps: np.ndarray) -> np.ndarray:
    """Steps of pixels in a plane (2, 2), one in each column, turned to the nearest ones along its axes."""
    square = np.eye(3)
    square[:2, :2] = steps
    turned = np.zeros((2, 2))
    for column, (row, sign) in enumerate(nibabel.io_orientation(square)):
        turned[int(row), column] = sign * np.linalg.norm(steps[:, column])
    return turned


def upright_geometry(affine: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """How a flat image is flipped and transposed so that it has the axes of PNG files, left and posterior.

    So 3D Slicer shows it: x to the right and y down.

    Args:
        affine: (4, 4), from file pixels to the image's world.
        shape: width and height in file pixels.

    Returns:
        the turn, for `nibabel.apply_orientation`; the affine (4, 4) from upright pixels to the world; the upright
        width and height.
    """
    axes = nibabel.io_orientation(affine[np.ix_([0, 1, 3], [0, 1, 3])])
    turn = nibabel.orientations.ornt_transform(axes, LPS)
    back = np.eye(4)
    back[np.ix_([0, 1, 3], [0, 1, 3])] = nibabel.orientations.inv_ornt_aff(turn, shape)
    width, height = (int(shape[int(np.flatnonzero(turn[:, 0] == axis)[0])]) for axis in range(2))
    return turn, affine @ back, (width, height)


def _read_file(path: Path) -> _FileImage:
    start = file_start(path)
    try:
        if start.startswith(b"BM"):
            return _read_bitmap(path)
        if is_dicom(path):
            pixel_data_size(path)
        header = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
        if header is None:
            raise RuntimeError("no ITK reader takes it")
        header.SetFileName(str(path))
        kind = header.GetNameOfClass().removesuffix("ImageIO")
        check_geometry(path, kind, start)
        header.ReadImageInformation()
        check_frames(path, header, kind)
        if kind == "GDCM":
            check_dicom(header, path)
        sizes = [header.GetDimensions(axis) for axis in range(header.GetNumberOfDimensions())]
        check_memory(path, sizes, header.GetNumberOfComponents())
        check_complete(path, kind, header.GetImageSizeInBytes())
        white = tiff_white(path) if kind == "TIFF" else None
        pixel = itk.Image if header.GetNumberOfComponents() == 1 else itk.VectorImage
        reader = itk.ImageFileReader[pixel[itk.F, 3]].New(FileName=str(path), ImageIO=header)
        reader.Update()
        image = _from_itk(reader.GetOutput())
    except InputError:
        raise
    except Exception as error:  # whatever the readers of many formats make of a damaged file
        raise InputError(f"{path}: {_reason(error)}.") from error

    if kind == "GDCM":
        image.is_dicom = True
        image.mm_per_world, image.mm_source = dicom_millimetres(header, path)
        # ITK has turned it already.
        image.monochrome1 = dicom_tag(header, PHOTOMETRIC_INTERPRETATION) == "MONOCHROME1"
    elif not states_spacing(kind, start, image.affine):
        image.mm_per_world, image.mm_source = float("nan"), "none"
    if white is not None:
        image.array, image.monochrome1 = white - image.array, True
    if kind in ("JPEG", "TIFF", "PNG"):
        warn_of_exif_turn(path)
        dpi = 25.4 / np.abs(np.diag(image.affine)[:2])
        if image.mm_source == "header" and not is_measured_resolution(path, dpi):
            image.mm_per_world, image.mm_source = float("nan"), "none"
    if kind == "Nifti":
        check_nifti_places(path, image.affine, image.array.shape)
    return image


def _reason(error: Exception) -> str:
    """What is wrong with a file that a reader gave up, and what to do."""
    logger.debug("%s", error)
    if isinstance(error, (MemoryError, Image.DecompressionBombError)) or "allocate memory" in str(error):
        return f"its header states {TOO_LARGE}"
    if "determinant is 0" in str(error):
        return NOT_IN_TWO_AXES
    return NOT_STRAIGHT if "orthonormal" in str(error) else UNSOUND


def _read_bitmap(path: Path) -> _FileImage:
    """BMP by Pillow, in ITK's geometry: ITK takes a truncated one as whole, and none of 1 bit per pixel."""
    with Image.open(path) as picture:
        check_memory(path, picture.size)
        values = np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"), dtype=np.float32)
    grey = values if values.ndim == 2 else _luminance(values)
    return _FileImage(grey.T[..., None], LPS_TO_RAS.copy(), float("nan"), "none")


def _read_series(folder: Path) -> _FileImage:
    files = series_files(folder)
    if len(files) == 1:
        return _read_file(files[0])
    try:
        check_slices(files, folder)
        size = dicom_header(files[0])
        check_memory(folder, [size.GetDimensions(0), size.GetDimensions(1), len(files)])
        reader = itk.ImageSeriesReader[itk.Image[itk.F, 3]].New(
            FileNames=[str(file) for file in files], ImageIO=itk.GDCMImageIO.New()
        )
        reader.Update()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{folder}: its DICOM series cannot be read; copy or export it again.") from error
    image = _from_itk(reader.GetOutput())
    header = dicom_header(files[0])
    image.monochrome1 = dicom_tag(header, PHOTOMETRIC_INTERPRETATION) == "MONOCHROME1"
    image.mm_per_world, image.mm_source = dicom_millimetres(header, folder)
    return image


def _from_itk(image) -> _FileImage:
    """Grey values and RAS affine of an ITK image in 3D."""
    values = itk.array_from_image(image)
    grey = values if values.ndim == 3 else _luminance(values)
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return _FileImage(grey.T, LPS_TO_RAS @ affine, 1.0, "header")


def _luminance(values: np.ndarray) -> np.ndarray:
    """Grey of colours in the last axis: (..., 2) grey and alpha, (..., 3) RGB, (..., 4) RGB and alpha."""
    grey = values[..., 0]
    if values.shape[-1] == 2 or all(np.array_equal(grey, values[..., c]) for c in (1, 2)):
        return grey
    return values[..., :3] @ LUMINANCE
