import json
import logging
import struct
import zlib

import itk
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import LoadImaged
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from common.data import LandmarkImageReader, list_images, read_image
from common.errors import InputError
from common.transforms.coordinates import voxel_to_world, world_to_voxel
from common.transforms.landmark_loading import to_file_space

GREY = np.random.default_rng(0).integers(0, 256, (12, 20), dtype=np.uint8)  # 12 rows, 20 columns
RGB = np.random.default_rng(1).integers(0, 256, (12, 20, 3), dtype=np.uint8)
DX, CT, SC = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("1.1", "2", "7"))


def load(path, **reader):
    loader = LoadImaged(keys="image", reader=LandmarkImageReader(**reader), ensure_channel_first=True)
    return loader({"image": str(path)})["image"]


def picture(path, array=GREY, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def dicom(path, array=GREY, sop=DX, **tags):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = sop, meta.MediaStorageSOPInstanceUID
    file.StudyInstanceUID, file.SeriesInstanceUID = generate_uid(), generate_uid()
    file.PatientName, file.PatientID, file.Modality = "phantom", "phantom", "DX"
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    if array.ndim == 3:
        file.SamplesPerPixel, file.PhotometricInterpretation, file.PlanarConfiguration = 3, "RGB", 0
    file.Rows, file.Columns = array.shape[:2]
    file.BitsAllocated = file.BitsStored = array.itemsize * 8
    file.HighBit, file.PixelRepresentation = file.BitsStored - 1, int(array.dtype.kind == "i")
    file.PixelData = array.tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return path


def series(folder, positions, orientation=(1, 0, 0, 0, 1, 0), uid=None):
    folder.mkdir(exist_ok=True)
    uid, study = uid or generate_uid(), generate_uid()
    for k, position in enumerate(positions):
        tags = {"ImagePositionPatient": list(position), "ImageOrientationPatient": list(orientation)}
        tags |= {"SeriesInstanceUID": uid, "StudyInstanceUID": study, "FrameOfReferenceUID": study}
        dicom(folder / f"{uid[-4:]}_{(k * 7) % 11}", GREY.astype(np.uint16) + 1000 * k, CT, PixelSpacing=[0.7, 0.5],
              InstanceNumber=k + 1, **tags)  # fmt: skip
    return folder


def itk_affine_ras(path):
    """Affine by asking ITK for the places of four voxels, independent of spacing and direction."""
    image = itk.imread(str(path), itk.F)
    dims = image.GetImageDimension()

    def place(index):
        continuous = itk.ContinuousIndex[itk.D, dims]()
        for axis in range(dims):
            continuous[axis] = float(index[axis])
        point = list(image.TransformContinuousIndexToPhysicalPoint(continuous))
        return np.array(point + [0.0] * (3 - dims)) * [-1, -1, 1]

    affine = np.eye(4)
    affine[:3, 3] = place((0, 0, 0))
    for axis in range(dims):
        affine[:3, axis] = place(np.eye(3)[axis]) - affine[:3, 3]
    return affine


def test_a_png_becomes_one_grey_channel_with_x_first_in_ras(tmp_path):
    image = load(picture(tmp_path / "a.png"))
    assert image.shape == (1, 20, 12) and image.dtype == torch.float32
    assert np.array_equal(image[0].numpy(), GREY.T)
    assert image.affine.tolist() == np.diag([-1.0, -1.0, 1.0, 1.0]).tolist()
    assert image.meta["space"] == "RAS" and tuple(image.meta["spatial_shape"]) == (20, 12)
    assert np.array_equal(image.meta["original_affine"], image.affine)
    assert np.array_equal(image.meta["plane_affine"], image.affine)
    assert image.meta["filename_or_obj"] == str(tmp_path / "a.png")


@pytest.mark.parametrize(
    "reader",
    [
        {"_target_": "common.data.LandmarkImageReader", "spatial_dims": 2},
        "common.data.LandmarkImageReader",
    ],
)
def test_a_config_names_the_reader(tmp_path, reader):
    config = {"_target_": "LoadImaged", "keys": "image", "reader": reader, "ensure_channel_first": True}
    loader = ConfigParser({"loader": config}).get_parsed_content("loader")
    image = loader({"image": str(picture(tmp_path / "a.jpg", dpi=(100, 100)))})["image"]
    assert np.allclose(image.affine[0, 0], -0.254)  # MONAI's own reader says -1 or 1


@pytest.mark.parametrize(
    "name, options, spacing, mm_per_world",
    [
        ("a.png", {}, (1, 1), np.nan),
        ("phys.png", {"dpi": (100, 100)}, (1, 1), np.nan),  # ITK leaves pHYs out
        ("a.bmp", {"dpi": (100, 100)}, (1, 1), np.nan),
        ("a.jpg", {}, (1, 1), np.nan),
        ("dpi.jpg", {"dpi": (100, 200)}, (0.254, 0.127), 1.0),
        ("a.tif", {}, (1, 1), np.nan),
        ("dpi.tif", {"dpi": (254, 254)}, (0.1, 0.1), 1.0),
        ("cm.tif", {"resolution_unit": 3, "x_resolution": 40.0, "y_resolution": 20.0}, (0.25, 0.5), 1.0),
        ("ratio.tif", {"resolution_unit": 1, "x_resolution": 4.0, "y_resolution": 2.0}, (1, 1), np.nan),
    ],
)
def test_the_world_of_a_picture_is_that_of_itk(tmp_path, name, options, spacing, mm_per_world):
    path = picture(tmp_path / name, **options)
    image = load(path)
    assert np.allclose(np.diag(image.affine), (-spacing[0], -spacing[1], 1, 1))
    assert np.allclose(image.affine, itk_affine_ras(path))
    assert np.array_equal(image.meta["mm_per_world"], mm_per_world, equal_nan=True)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
@pytest.mark.parametrize("mode", [None, "RGBA", "P", "1"])
def test_colours_palettes_and_bits_become_their_luminance(tmp_path, ending, mode):
    path = tmp_path / f"a.{ending}"
    picture(path, RGB, mode)
    if mode == "P":
        Image.fromarray(RGB).quantize(16).save(path)
    with Image.open(path) as stored:
        rgb = np.asarray(stored.convert("RGB"), dtype=np.float64)
    expected = (0.299 * rgb[..., 0] + 0.587 * rgb[..., 1] + 0.114 * rgb[..., 2]).T
    scale = 256 if (ending, mode) == ("tif", "P") else 1  # the colour map of a TIFF has 16 bits
    assert np.allclose(load(path)[0], expected * scale, atol=1e-3 * scale)


def test_alpha_does_not_darken_a_grey_image(tmp_path):
    picture(tmp_path / "a.png", np.stack([GREY, GREY // 2], -1))
    assert np.array_equal(load(tmp_path / "a.png")[0], GREY.T)


def test_sixteen_bits_are_kept_grey_and_coloured(tmp_path):
    deep = np.random.default_rng(2).integers(0, 65536, (12, 20, 3), dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        assert np.array_equal(load(picture(tmp_path / name, deep[..., 0]))[0], deep[..., 0].T)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20, 12, 16, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "rgb.png").write_bytes(png)
    assert np.allclose(load(tmp_path / "rgb.png")[0], (deep @ [0.299, 0.587, 0.114]).T, atol=0.05)


@pytest.mark.parametrize(
    "sop, tags, spacing, mm_per_world",
    [
        (DX, {"ImagerPixelSpacing": [0.2, 0.3]}, (0.3, 0.2), 1.0),
        (DX, {"ImagerPixelSpacing": [0.2, 0.3], "PixelSpacing": [0.1, 0.15]}, (0.3, 0.2), 0.5),
        (DX, {"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.2, 0.2]}, (0.2, 0.2), 1.0),
        (DX, {"PixelSpacing": [0.14, 0.14]}, (1, 1), 0.14),
        (DX, {"NominalScannedPixelSpacing": [0.14, 0.14]}, (1, 1), 0.14),
        (DX, {}, (1, 1), np.nan),
        (SC, {"PixelSpacing": [0.1, 0.15]}, (0.15, 0.1), 1.0),
        (CT, {"PixelSpacing": [0.1, 0.15], "ImagerPixelSpacing": [0.2, 0.3]}, (0.15, 0.1), 1.0),
    ],
)
def test_dicom_world_is_that_of_itk_and_millimetres_come_from_the_best_tag(tmp_path, sop, tags, spacing, mm_per_world):
    path = dicom(tmp_path / "a.dcm", GREY.astype(np.uint16), sop, **tags)
    image = load(path)
    assert image.shape == (1, 20, 12) and np.array_equal(image[0], GREY.T)
    assert np.allclose(np.diag(image.affine), (-spacing[0], -spacing[1], 1, 1))
    assert np.allclose(image.affine, itk_affine_ras(path))
    assert np.allclose(image.meta["mm_per_world"], mm_per_world, equal_nan=True)


@pytest.mark.parametrize(
    "tags",
    [
        {"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.1, 0.102]},
        {"PixelSpacing": [0.1, 0.2]},
        {"PixelSpacing": [0, 0]},
    ],
)
def test_a_dicom_scale_that_differs_between_the_axes_is_refused(tmp_path, tags):
    path = dicom(tmp_path / "a.dcm", **tags)
    with pytest.raises(InputError, match=r"a\.dcm: its PixelSpacing .*correct the DICOM header\.$"):
        load(path)


@pytest.mark.parametrize("ratio", [[2, 1], [10, 14], [1, 0], ["1"]])
def test_a_dicom_of_pixels_that_are_not_square_and_have_no_size_is_refused(tmp_path, ratio):
    """ITK takes them as square."""
    path = dicom(tmp_path / "a.dcm", PixelAspectRatio=ratio)
    with pytest.raises(InputError, match=r"a\.dcm: states a PixelAspectRatio of .* give it a PixelSpacing"):
        load(path)


@pytest.mark.parametrize(
    "tags", [{"PixelAspectRatio": [1, 1]}, {"PixelAspectRatio": [2, 1], "PixelSpacing": [0.1, 0.1]}]
)
def test_a_dicom_of_square_pixels_is_read_whatever_states_so(tmp_path, tags):
    assert np.allclose(np.diag(load(dicom(tmp_path / "a.dcm", **tags)).affine), (-1, -1, 1, 1))


@pytest.mark.parametrize("bits, dtype", [(8, np.uint8), (12, np.uint16), (16, np.uint16)])
@pytest.mark.parametrize("compressed", [False, True])
def test_monochrome1_is_turned_once_and_says_so(tmp_path, bits, dtype, compressed):
    stored = GREY.astype(dtype)
    tags = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": bits, "HighBit": bits - 1}
    path = dicom(tmp_path / "a.dcm", stored, **tags)
    if compressed:
        file = pydicom.dcmread(path)
        file.compress(RLELossless)
        file.save_as(path)
    image = load(path)
    assert np.array_equal(image[0], 2**bits - 1 - GREY.T.astype(np.float64))
    assert image.meta["monochrome1_turned"] is True
    assert load(dicom(tmp_path / "b.dcm")).meta["monochrome1_turned"] is False


def test_rescaled_monochrome1_is_turned_before_it_is_rescaled(tmp_path):
    tags = {"PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": 2, "RescaleIntercept": -100}
    image = load(dicom(tmp_path / "a.dcm", **tags))
    assert np.array_equal(image[0], (255 - GREY.T.astype(np.float64)) * 2 - 100)


def test_a_coloured_dicom_becomes_grey(tmp_path):
    image = load(dicom(tmp_path / "a.dcm", RGB))
    assert np.allclose(image[0], (RGB @ [0.299, 0.587, 0.114]).T, atol=1e-3)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1), (0.8, 0.6, 0, 0, 0, -1)])
def test_the_plane_of_a_coronal_sagittal_or_oblique_radiograph_is_kept_aside(tmp_path, orientation):
    path = dicom(tmp_path / "a.dcm", ImageOrientationPatient=list(orientation), ImagerPixelSpacing=[0.2, 0.3],
                 ImagePositionPatient=[10, 20, 30])  # fmt: skip
    image = load(path)
    assert np.allclose(image.affine, np.diag([-0.3, -0.2, 1, 1]))
    assert np.allclose(image.meta["plane_affine"], itk_affine_ras(path))
    right = np.array(orientation[:3]) * 0.3 * [-1, -1, 1]  # along the columns' index
    assert np.allclose(image.meta["plane_affine"] @ [1, 0, 0, 1], [*right + [-10, -20, 30], 1])


DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


@pytest.mark.parametrize("ending", ["nii.gz", "mha", "nrrd"])
@pytest.mark.parametrize("axes", ["RS", "LI", "LS", "SR", "IL", "AS", "PI", "SA", "RA", "LP", "AR"])
def test_a_flat_file_of_any_plane_is_read_head_up_whatever_the_order_of_its_pixels(tmp_path, axes, ending):
    """The patient's right at the left of a coronal one, looking to the right in a sagittal one, all of them tilted."""
    upright = GREY.T.astype(np.float32)  # x to the right, y down
    down = next((axis for axis in range(2) if axes[axis] in "SI"), None)
    down = next(axis for axis in range(2) if axes[axis] in "AP") if down is None else down
    stored = upright if down == 1 else upright.T
    backward = ("S" if {*"SI"} & {*axes} else "A") + ("R" if {*"RL"} & {*axes} else "P")
    stored = np.flip(stored, [axis for axis in range(2) if axes[axis] in backward])
    affine = np.eye(4)
    affine[:3, :2] = np.array([DIRECTIONS[axis] for axis in axes]).T * [0.5, 0.7]
    affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1]) / 0.35
    c, s = np.cos(np.deg2rad(1)), np.sin(np.deg2rad(1))
    affine[:3] = [[1, 0, 0], [0, c, -s], [0, s, c]] @ affine[:3]
    affine[:3, 3] = [3, 4, 5]
    path = tmp_path / f"a.{ending}"
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(stored[..., None]), affine), tmp_path / "a.nii.gz")
    itk.imwrite(itk.imread(str(tmp_path / "a.nii.gz")), str(path))
    loaded = load(path, spatial_dims=2)
    assert np.array_equal(loaded[0], upright)
    steps = [0.5, 0.7] if down == 1 else [0.7, 0.5]
    assert np.allclose(loaded.affine[:2, :2], -np.diag(steps), atol=1e-6)
    assert np.allclose(loaded.meta["plane_affine"], affine, atol=1e-4)
    pixels = world_to_voxel(torch.tensor([[4.0, 3.0]]), torch.eye(4))
    world = voxel_to_world(pixels, loaded.affine)
    file, place = to_file_space(world[None], loaded.meta)
    index = tuple(file.reshape(-1).round().int().tolist())
    assert np.isclose(stored[index], upright[4, 3])
    assert np.allclose(place.reshape(-1), (affine @ [*index, 0, 1])[:3], atol=1e-4)


def test_a_nifti_without_a_place_is_read_with_a_warning(tmp_path, caplog):
    for shape, warned in (((6, 5, 4), True), ((20, 12, 1), False)):
        image = nibabel.Nifti1Image(np.random.default_rng(0).random(shape, dtype=np.float32), np.eye(4))
        image.set_sform(None, code=0)
        image.set_qform(None, code=0)
        nibabel.save(image, tmp_path / "a.nii.gz")
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            load(tmp_path / "a.nii.gz")
        assert ("neither position nor orientation" in caplog.text) == warned


def test_a_flat_nifti_of_two_axes_may_lie_at_any_height(tmp_path):
    affine = np.diag([0.5, 0.7, 1, 1.0])
    affine[:3, 3] = [3, 4, 50]
    nibabel.save(nibabel.Nifti1Image(GREY.T.astype(np.float32), affine), tmp_path / "a.nii.gz")
    assert load(tmp_path / "a.nii.gz", spatial_dims=2).shape == (1, 20, 12)


def test_the_spacing_of_an_enhanced_dicom_is_in_millimetres(tmp_path):
    measures, plane, place, groups, frame = (pydicom.Dataset() for _ in range(5))
    measures.PixelSpacing, measures.SliceThickness = [0.2, 0.3], 1.0
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    place.ImagePositionPatient = [10, 20, 30]
    frame.PlanePositionSequence = pydicom.Sequence([place])
    groups.PixelMeasuresSequence = pydicom.Sequence([measures])
    groups.PlaneOrientationSequence = pydicom.Sequence([plane])
    path = dicom(tmp_path / "a.dcm", sop="1.2.840.10008.5.1.4.1.1.2.1", NumberOfFrames=1,
                 SharedFunctionalGroupsSequence=pydicom.Sequence([groups]),
                 PerFrameFunctionalGroupsSequence=pydicom.Sequence([frame]))  # fmt: skip
    image = load(path)
    assert image.meta["mm_per_world"] == 1.0 and image.meta["mm_source"] == "header"
    assert np.allclose(np.diag(image.affine)[:2], [-0.3, -0.2])


@pytest.mark.parametrize("ending", ["mha", "mhd", "nrrd", "nii", "nii.gz"])
@pytest.mark.parametrize("third_axis", [False, True])
def test_flat_files_of_medical_formats_lie_in_their_axial_plane_and_are_turned_as_slicer_shows_them(
    tmp_path, ending, third_axis
):
    values = np.random.default_rng(0).random((1, 12, 20) if third_axis else (12, 20), dtype=np.float32)
    image = itk.image_from_array(values)
    image.SetSpacing([0.5, 0.7, 2.0][: values.ndim])
    image.SetOrigin([3.0, 4.0, 5.0][: values.ndim])
    direction = np.diag([-1.0, 1.0, -1.0])[: values.ndim, : values.ndim]  # flipped
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(direction)))
    path = tmp_path / f"a.{ending}"
    itk.imwrite(image, str(path))
    loaded = load(path, spatial_dims=2)
    assert loaded.shape == (1, 20, 12) and np.array_equal(loaded[0], values.reshape(12, 20).T[::-1])
    assert np.allclose(loaded.affine, [[-0.5, 0, 0, 19 * 0.5 - 3], [0, -0.7, 0, -4], [0, 0, 1, 0], [0, 0, 0, 1]])
    file = [[0.5, 0, 0, -3], [0, -0.7, 0, -4], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert np.allclose(loaded.meta["original_affine"], file)
    assert np.allclose(loaded.meta["plane_affine"], itk_affine_ras(path))
    assert loaded.meta["mm_per_world"] == 1.0


@pytest.mark.parametrize("ending", ["mha", "nrrd", "nii.gz"])
def test_an_oblique_volume_lies_where_itk_puts_it(tmp_path, ending):
    values = np.random.default_rng(0).integers(-1000, 3000, (5, 12, 20)).astype(np.int16)
    image = itk.image_from_array(values)
    image.SetSpacing([0.5, 0.7, 2.0])
    image.SetOrigin([3.0, -4.0, 50.0])
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    image.SetDirection(itk.matrix_from_array(turn))
    path = tmp_path / f"a.{ending}"
    itk.imwrite(image, str(path))
    loaded = load(path, spatial_dims=3)
    assert loaded.shape == (1, 20, 12, 5) and np.array_equal(loaded[0], values.T)
    assert np.allclose(loaded.affine, itk_affine_ras(path), atol=1e-6)
    assert "plane_affine" not in loaded.meta and loaded.meta["mm_per_world"] == 1.0


def test_a_nifti_agrees_with_nibabel(tmp_path):
    affine = np.array([[-1.5, 0, 0, 10], [0, 0, -3, 20], [0, 2, 0, 30], [0, 0, 0, 1.0]])
    values = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "a.nii.gz")
    image = load(tmp_path / "a.nii.gz")
    assert np.allclose(image.affine, affine) and np.array_equal(image[0], values)


def test_a_header_without_spacing_states_no_millimetres(tmp_path):
    header = b"ObjectType = Image\nNDims = 2\nDimSize = 2 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(header + b"1234")
    assert np.isnan(load(tmp_path / "a.mha").meta["mm_per_world"])


def test_a_dicom_series_becomes_a_volume_in_the_order_of_its_slices(tmp_path):
    folder = series(tmp_path / "ct", [(5, 6, z) for z in (6, 4, 2, 0)])
    image = load(folder, spatial_dims=3)
    assert image.shape == (1, 20, 12, 4)
    assert image[0, 0, 0].tolist() == [int(GREY[0, 0]) + 1000 * k for k in (3, 2, 1, 0)]
    expected = [[-0.5, 0, 0, -5], [0, -0.7, 0, -6], [0, 0, 2, 0], [0, 0, 0, 1]]
    assert np.allclose(image.affine, expected) and image.meta["mm_per_world"] == 1.0


def test_a_sagittal_series_has_the_axes_of_its_slices(tmp_path):
    folder = series(tmp_path / "mr", [(x, 6, 7) for x in (0, 2, 4)], orientation=(0, 1, 0, 0, 0, -1))
    image = load(folder)
    slices = {round(image[0, 0, 0, k].item()) - int(GREY[0, 0]): k for k in range(3)}
    for number, x in enumerate((0, 2, 4)):  # each slice where its header says, LPS turned to RAS
        index = np.array([3, 2, slices[1000 * number], 1])
        assert np.allclose(image.affine.numpy() @ index, [-x, -(6 + 3 * 0.5), 7 - 2 * 0.7, 1])


@pytest.mark.parametrize(
    "positions",
    [
        [(0, 0, z) for z in (0, 2, 4, 8)],
        [(0, 0, z) for z in (0, 0, 2, 2)],
        [(0, 0.5 * z, z) for z in (0, 2, 4, 6)],
    ],
)
def test_slices_with_a_gap_twice_or_tilted_are_refused(tmp_path, positions):
    with pytest.raises(InputError, match="not evenly spaced|sheared"):
        load(series(tmp_path / "ct", positions))


def test_two_series_in_a_folder_are_refused(tmp_path):
    for uid in ("1.2.3.1111", "1.2.3.2222"):
        series(tmp_path / "ct", [(0, 0, z) for z in (0, 2)], uid=uid)
    with pytest.raises(InputError, match="holds 2 DICOM series"):
        load(tmp_path / "ct")
    with pytest.raises(InputError, match="its own folder"):
        list_images(tmp_path / "ct")


def bad_files(folder):
    """Files that cannot be read: name, and what the sentence must say."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 80), dtype=np.uint8)
    volume = itk.image_from_array(np.random.default_rng(0).integers(0, 99, (5, 12, 14)).astype(np.int16))
    whole = [picture(folder / f"whole.{ending}", noise) for ending in ("png", "jpg", "tif", "bmp")]
    for ending in ("mha", "nrrd", "nii", "nii.gz"):
        itk.imwrite(volume, str(folder / f"whole.{ending}"))
        whole.append(folder / f"whole.{ending}")
    whole.append(dicom(folder / "whole.dcm", noise))
    for path in whole:
        content = path.read_bytes()
        for part in (0.98, 0.5, 0.02):
            cut = folder / path.name.replace("whole", f"cut{part}")
            cut.write_bytes(content[: int(len(content) * part)])
            yield cut, "cannot be read as an image"
    (folder / "empty.png").touch()
    yield folder / "empty.png", "is an empty file"
    yield folder / "nowhere.png", "there is no such file"
    (folder / "text.png").write_text("no image")
    yield folder / "text.png", "cannot be read as an image"
    (folder / "nothing").mkdir()
    yield folder / "nothing", "folder without DICOM files"
    zero = b"NDims = 2\nDimSize = 0 4\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    (folder / "zero.mha").write_bytes(b"ObjectType = Image\n" + zero)
    yield folder / "zero.mha", "size zero"
    pages = [Image.fromarray(noise)] * 2
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])
    yield folder / "pages.tif", "holds 2 frames"
    frames = np.zeros((24, 20), np.uint16)
    yield picture(folder / "alpha.tif", mode="LA"), "2 numbers where a pixel has one"
    yield picture(folder / "palette.tif", mode="PA"), "2 numbers where a pixel has one"
    coronal = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(GREY.T.astype(np.float32), coronal), folder / "coronal.nii")
    yield folder / "coronal.nii", "needs a third axis of length 1"
    yield dicom(folder / "frames.dcm", frames, NumberOfFrames=2, Rows=12), "holds 2 frames"
    for name, shape in (("time.nii", (4, 4, 4, 3)), ("five.nii", (4, 4, 1, 1, 3))):
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.float32), np.eye(4)), folder / name)
        yield folder / name, "holds 3 "
    shear = np.array([[1.5, 0.2, 0, 0], [-0.3, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), shear), folder / "shear.nii")
    yield folder / "shear.nii", "not at right angles"
    values = np.ones((4, 4, 4), np.float32)
    values[0, 0, 0] = np.nan
    itk.imwrite(itk.image_from_array(values), str(folder / "nan.mha"))  # of NIfTI, ITK itself reads NaN as 0
    yield folder / "nan.mha", "not finite"
    field = itk.image_from_array(np.zeros((4, 4, 4, 3), np.float32), is_vector=True)
    itk.imwrite(field, str(folder / "field.mha"))
    yield folder / "field.mha", "3 numbers per voxel"


def test_bad_files_are_told_in_one_sentence_that_names_them(tmp_path):
    for path, reason in bad_files(tmp_path):
        with pytest.raises(InputError) as caught:
            load(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and reason in message, message
        assert message.endswith(".") and "\n" not in message and ". " not in message.replace(str(path), "")


def test_a_volume_is_no_flat_image_and_a_flat_image_no_volume(tmp_path):
    itk.imwrite(itk.image_from_array(np.ones((5, 12, 20), np.int16)), str(tmp_path / "v.nii"))
    with pytest.raises(InputError, match="is a volume of 20 x 12 x 5 where a flat image is expected"):
        load(tmp_path / "v.nii", spatial_dims=2)
    with pytest.raises(InputError, match="is a flat image of 20 x 12 where a volume is expected"):
        load(picture(tmp_path / "a.png"), spatial_dims=3)


def test_a_jpeg_with_something_after_its_end_is_whole(tmp_path):
    path = picture(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + b"\0\0appended")
    assert load(path).shape == (1, 20, 12)


def test_constant_turned_and_screen_resolution_images_are_read_with_a_warning(tmp_path, caplog):
    turned = Image.Exif()
    turned[0x0112] = 6
    cases = {
        "constant.png": picture(tmp_path / "constant.png", np.full((12, 20), 7, np.uint8)),
        "Exif orientation 6": picture(tmp_path / "turned.jpg", exif=turned),
        "72 dpi": picture(tmp_path / "screen.jpg", dpi=(72, 72)),
    }
    for expected, path in cases.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert load(path).shape == (1, 20, 12)
        assert expected in caplog.text and str(path) in caplog.text


@pytest.mark.parametrize("ending", ["jpg", "tif"])
@pytest.mark.parametrize("dpi, measured", [(72, False), (96, False), (254, True), (300, True)])
def test_millimetres_come_from_a_resolution_that_somebody_measured(tmp_path, ending, dpi, measured):
    image = load(picture(tmp_path / f"a.{ending}", dpi=(dpi, dpi)))
    assert image.meta["mm_source"] == ("header" if measured else "none")
    assert np.isfinite(image.meta["mm_per_world"]) == measured
    assert np.allclose(np.diag(image.affine)[:2], -25.4 / dpi)  # the world stays that of ITK and 3D Slicer


def test_an_item_of_two_files_is_refused(tmp_path):
    paths = [str(picture(tmp_path / name)) for name in ("a.png", "b.png")]
    with pytest.raises(InputError, match="comes as 2 files"):
        LoadImaged(keys="image", reader=LandmarkImageReader())({"image": paths})


def test_read_image_gives_the_array_that_the_reader_gives(tmp_path):
    array, meta = read_image(picture(tmp_path / "a.png"))
    assert array.flags.c_contiguous and array.dtype == np.float32 and np.array_equal(array, GREY.T)
    assert meta["affine"].shape == (4, 4)


def test_list_images_takes_a_file_and_the_sorted_images_of_a_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.PNG", "a.jpeg", "._a.jpeg", "sub/c.png"):
        picture(tmp_path / name, format=None if name != "b.PNG" else "png") if not name.startswith(".") else (
            tmp_path / name
        ).touch()
    dicom(tmp_path / "IM0001")
    (tmp_path / "notes").write_text("no image")
    (tmp_path / "points.csv").write_text("name,x,y\n")
    (tmp_path / "a.mrk.json").write_text("{}")
    assert [item["image"] for item in list_images(tmp_path)] == [
        str(tmp_path / name) for name in ("IM0001", "a.jpeg", "b.PNG")
    ]
    assert list_images(tmp_path / "b.PNG") == [{"image": str(tmp_path / "b.PNG")}]


def test_list_images_takes_the_folder_of_a_dicom_volume_as_one_image(tmp_path):
    folder = series(tmp_path / "ct", [(0, 0, z) for z in (0, 2, 4)])
    assert list_images(folder) == [{"image": str(folder)}]
    two_views = tmp_path / "dx"
    two_views.mkdir()
    for view in ("ap", "lateral"):
        dicom(two_views / view, SeriesInstanceUID="1.2.3")
    assert len(list_images(two_views)) == 2


def test_list_images_takes_all_or_some_lists_of_a_datalist(tmp_path):
    lists = {"training": [{"image": "a.png", "spacing": [0.1, 0.1]}], "test": [{"image": "b.png"}]}
    (tmp_path / "datalist.json").write_text(json.dumps({"landmarks": ["one"], **lists}))
    first = {"image": str(tmp_path / "a.png"), "spacing": [0.1, 0.1]}
    assert list_images(tmp_path) == [first, {"image": str(tmp_path / "b.png")}]
    assert list_images(tmp_path / "datalist.json", lists="training") == [first]
    with pytest.raises(InputError, match="no list 'fold'; take one of training, test"):
        list_images(tmp_path, lists=["fold"])


def test_list_images_refuses_missing_paths_and_folders_without_images(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no image files"):
        list_images(tmp_path)
