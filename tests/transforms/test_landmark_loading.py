import json
import logging

import itk
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd, LoadImaged, Resized, Rotate90d, TransformPointsWorldToImaged
from PIL import Image

from common.data import LandmarkImageReader, write_markups
from common.errors import InputError
from common.transforms import LoadLandmarksd, to_file_space

NAMES = ["a", "b", "c", "d"]
PIXELS = [[2.25, 3.5], None, "absent", [0, 11]]
LOAD = LoadImaged(keys="image", reader=LandmarkImageReader(), ensure_channel_first=True)


def write_image(path, size=(20, 12), spacing=None, origin=None, direction=None):
    """An image file of `size` (x first) by ITK."""
    values = np.random.default_rng(0).integers(0, 255, size[::-1]).astype(np.uint8)
    image = itk.image_from_array(values)
    if spacing is not None:
        image.SetSpacing(list(spacing))
    if origin is not None:
        image.SetOrigin(list(origin))
    if direction is not None:
        image.SetDirection(itk.matrix_from_array(np.asarray(direction, dtype=np.float64)))
    itk.imwrite(image, str(path))
    return path


def itk_places(path, indices):
    """LPS (N, 3) where ITK says that the voxels of a file lie."""
    image = itk.imread(str(path), itk.F)
    dims = image.GetImageDimension()
    places = []
    for index in indices:
        continuous = itk.ContinuousIndex[itk.D, dims]()
        for axis in range(dims):
            continuous[axis] = float(index[axis]) if axis < len(index) else 0.0
        places.append([*image.TransformContinuousIndexToPhysicalPoint(continuous), 0.0][:3])
    return np.array(places)


def markups(path, lps, names=NAMES):
    controls = [{"label": name, "position": list(point)} for name, point in zip(names, lps)]
    path.write_text(json.dumps({"markups": [{"coordinateSystem": "LPS", "controlPoints": controls}]}))
    return str(path)


def load(image, landmarks=None, names=NAMES, **options):
    item = {"image": str(image)} | ({} if landmarks is None else {"landmarks": landmarks})
    return LoadLandmarksd(names=names, **options)(LOAD(item))


TURNED = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
SAGITTAL = [[0, 0, -1], [1, 0, 0], [0, -1, 0]]
FLAT = {
    "png": ("a.png", {}),
    "mha": ("a.mha", {"spacing": (0.5, 0.7), "origin": (3, -4)}),
    "flipped": ("a.mha", {"spacing": (0.5, 0.7), "origin": (3, -4), "direction": np.diag([-1, 1])}),
    "turned in its plane": ("a.nrrd", {"origin": (3, -4), "direction": [[0.8, -0.6], [0.6, 0.8]]}),
    "axial with a third axis": ("a.nii", {"size": (20, 12, 1), "spacing": (0.5, 0.7, 3), "origin": (3, -4, 9)}),
    "sagittal": (
        "a.mha",
        {"size": (20, 12, 1), "spacing": (0.5, 0.7, 3), "origin": (3, -4, 9), "direction": SAGITTAL},
    ),
    "oblique": (
        "a.nrrd",
        {"size": (20, 12, 1), "spacing": (0.5, 0.7, 3), "origin": (3, -4, 9), "direction": TURNED},
    ),
}


def test_inline_pixels_become_world_ras(tmp_path):
    item = load(write_image(tmp_path / "a.png"), PIXELS)
    nan, inf = [np.nan] * 2, [np.inf] * 2
    expected = [[[-2.25, -3.5], nan, inf, [0, -11]]]
    assert item["label"].dtype == torch.float64 and type(item["label"]) is torch.Tensor
    assert np.array_equal(item["label"], expected, equal_nan=True)
    assert "landmarks" not in item  # points without a place would not collate


@pytest.mark.parametrize("case", FLAT)
def test_markups_and_pixels_of_a_flat_image_meet_on_the_same_pixel(tmp_path, case):
    name, geometry = FLAT[case]
    image = write_image(tmp_path / name, **geometry)
    pixels = np.array([[2.25, 3.5], [0, 0], [19, 11], [7, 0.5]])
    lps = itk_places(image, pixels)
    by_pixel = load(image, pixels.tolist())
    by_markups = load(image, markups(tmp_path / "a.mrk.json", lps))
    assert torch.allclose(by_pixel["label"], by_markups["label"], atol=1e-5)
    index = TransformPointsWorldToImaged(keys="label", refer_keys="image")(by_markups)["label"]
    file = np.squeeze(itk.array_from_image(itk.imread(str(image))))  # [y, x]
    for (x, y), place in zip(((0, 0), (19, 11)), index[0, 1:3].round().long().tolist()):
        assert by_markups["image"][0][tuple(place)] == file[y, x]  # wherever the loader has turned it
    file_pixels, world = to_file_space(by_pixel["label"], by_pixel["image"].meta)
    assert file_pixels.shape == (1, 4, 2) and world.shape == (1, 4, 3)
    assert np.allclose(file_pixels[0], pixels, atol=1e-5)
    assert np.allclose(world[0] * torch.tensor([-1, -1, 1]), lps, atol=1e-5)


@pytest.mark.parametrize("direction", [np.eye(3), np.diag([-1, 1, -1]), SAGITTAL, TURNED])
@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
def test_markups_and_voxels_of_a_volume_meet_on_the_same_voxel(tmp_path, ending, direction):
    image = write_image(tmp_path / f"a.{ending}", (20, 12, 5), (0.5, 0.7, 2), (3, -4, 50), direction)
    voxels = np.array([[2.25, 3.5, 1.5], [0, 0, 0], [19, 11, 4], [7, 0.5, 2]])
    lps = itk_places(image, voxels)
    by_voxel = load(image, voxels.tolist())
    by_markups = load(image, markups(tmp_path / "a.mrk.json", lps))
    assert np.allclose(by_voxel["label"][0], lps * [-1, -1, 1], atol=1e-4)
    assert torch.allclose(by_voxel["label"], by_markups["label"], atol=1e-4)
    rows = "\n".join(f"{name},{x!r},{y!r},{z!r},LPS" for name, (x, y, z) in zip(NAMES, lps.tolist()))
    (tmp_path / "a.csv").write_text(f"name,x,y,z,space\n{rows}\n")
    assert torch.equal(load(image, str(tmp_path / "a.csv"))["label"], by_markups["label"])
    file_voxels, world = to_file_space(by_markups["label"], by_markups["image"].meta)
    assert np.allclose(file_voxels[0], voxels, atol=1e-4)
    assert np.allclose(world[0], lps * [-1, -1, 1], atol=1e-4)


def test_predictions_of_a_sagittal_radiograph_are_written_on_its_plane(tmp_path):
    name, geometry = FLAT["sagittal"]
    image = write_image(tmp_path / name, **geometry)
    item = load(image, PIXELS)
    pixels, world = to_file_space(item["label"][0], item["image"].meta)
    assert torch.isnan(world[1]).all() and torch.isinf(world[2]).all() and torch.isinf(pixels[2]).all()
    write_markups(tmp_path / "out.mrk.json", world.numpy(), NAMES)
    again = load(image, str(tmp_path / "out.mrk.json"))
    assert torch.allclose(item["label"], again["label"], equal_nan=True)


def test_points_follow_the_image_through_spatial_transforms(tmp_path):
    values = np.zeros((12, 20), np.uint8)
    values[4, 15] = 200  # pixel (15, 4)
    Image.fromarray(values).save(tmp_path / "a.jpg", dpi=(100, 100), quality=100)
    after = Compose([Flipd("image", 0), Rotate90d("image"), Resized("image", (24, 40), mode="nearest")])
    item = after(load(tmp_path / "a.jpg", [[15, 4]], names=["a"]))
    index = TransformPointsWorldToImaged(keys="label", refer_keys="image")(item)["label"][0, 0]
    bright = (item["image"][0] > 100).nonzero().double().mean(0)
    assert torch.allclose(index, bright, atol=0.5)
    pixels, _ = to_file_space(item["label"], item["image"].meta)  # the file's pixels, whatever came after
    assert np.allclose(pixels, [[[15, 4]]])


def test_a_path_under_label_is_read_as_monai_label_sends_it(tmp_path):
    image = write_image(tmp_path / "a.png")
    path = markups(tmp_path / "a.mrk.json", itk_places(image, [[1, 2]]), ["a"])
    item = LoadLandmarksd(names=["a"])(LOAD({"image": str(image), "label": path}))
    assert item["label"].tolist() == [[[-1, -2]]]
    item = LoadLandmarksd(names=["a"])(LOAD({"image": str(image), "label": np.array([[1, 2]])}))
    assert item["label"].tolist() == [[[-1, -2]]]


def test_a_csv_of_pixels_is_matched_by_name(tmp_path):
    (tmp_path / "a.csv").write_text("name,x,y\nb,3,4\nd,,\na,1,2\nc,absent,\n")
    item = load(write_image(tmp_path / "a.mha", spacing=(0.5, 0.5)), str(tmp_path / "a.csv"))
    expected = [[-0.5, -1], [-1.5, -2], [np.inf] * 2, [np.nan] * 2]
    assert np.array_equal(item["label"][0], expected, equal_nan=True)


def test_a_landmark_that_a_file_does_not_name_is_an_error_or_nan(tmp_path):
    image = write_image(tmp_path / "a.png")
    (tmp_path / "a.csv").write_text("name,x,y\na,1,2\n")
    with pytest.raises(InputError, match="lacks 'b'"):
        load(image, str(tmp_path / "a.csv"), names=["a", "b"])
    item = load(image, str(tmp_path / "a.csv"), names=["a", "b"], allow_missing_landmarks=True)
    assert np.array_equal(item["label"][0], [[-1, -2], [np.nan] * 2], equal_nan=True)


def test_landmarks_off_the_plane_of_a_flat_image_are_refused(tmp_path):
    for name, geometry in FLAT.values():
        image = write_image(tmp_path / name, **geometry)
        lps = itk_places(image, [[3, 4], [5, 6], [1, 1]])
        normal = np.cross(lps[1] - lps[0], lps[2] - lps[0])
        normal /= np.linalg.norm(normal)
        load(image, markups(tmp_path / "near.mrk.json", lps + 0.4 * normal, "abc"), names=list("abc"))
        with pytest.raises(InputError, match="'a' lies .* pixels off the plane"):
            load(image, markups(tmp_path / "far.mrk.json", lps + 2 * normal, "abc"), names=list("abc"))


@pytest.mark.parametrize(
    "landmarks, reason",
    [
        (None, "has no landmarks under 'landmarks' or 'label'"),
        ([[1, 2]], "has 1 landmarks where 4 are expected"),
        ([[1, 2, 3]] * 4, "3 coordinates where 2 are expected"),
        ([[1, 2], [1, float("nan")], None, None], "landmark 1"),
        ("nowhere.csv", "no such landmark file"),
    ],
)
def test_landmarks_that_do_not_fit_are_told_in_one_sentence(tmp_path, landmarks, reason):
    image = write_image(tmp_path / "a.png")
    with pytest.raises(InputError, match=reason) as caught:
        load(image, landmarks)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_flat_points_do_not_fit_a_volume_nor_voxels_a_flat_image(tmp_path):
    volume = write_image(tmp_path / "v.nii", (20, 12, 5))
    (tmp_path / "flat.csv").write_text("name,x,y\na,1,2\n")
    with pytest.raises(InputError, match=r"have 2 coordinates, the image .*v\.nii has 3 dimensions"):
        load(volume, str(tmp_path / "flat.csv"), names=["a"])
    flat = write_image(tmp_path / "a.png")
    (tmp_path / "voxel.csv").write_text("# space = voxel\nname,x,y,z\na,1,2,0\n")
    with pytest.raises(InputError, match="have 3 coordinates"):
        load(flat, str(tmp_path / "voxel.csv"), names=["a"])


def test_an_item_without_landmarks_passes_where_that_is_allowed(tmp_path):
    item = load(write_image(tmp_path / "a.png"), allow_missing_keys=True)
    assert "label" not in item


def test_points_off_the_image_are_named_once_or_refused(tmp_path, caplog):
    image = write_image(tmp_path / "a.png")  # 20 x 12
    edge = [[20.4, 0], [0, 12.4], [-1.4, -1.4], None]  # within a pixel of the border
    off = [[20.6, 0], [0, 12.6], [-1.6, 5], [3, 3]]
    data = LOAD({"image": str(image)})
    transform = LoadLandmarksd(names=NAMES)
    with caplog.at_level(logging.WARNING):
        transform({**data, "landmarks": edge})
        assert "outside" not in caplog.text
        for _ in range(2):
            transform({**data, "landmarks": off})
    told = [record.getMessage() for record in caplog.records if "outside" in record.getMessage()]
    assert told == [f"{image}: a, b, c lies outside the image of 20 x 12; check the coordinates and their space."]
    with pytest.raises(InputError, match="a, b, c lies outside"):
        LoadLandmarksd(names=NAMES, outside="error")({**data, "landmarks": off})
    LoadLandmarksd(names=NAMES, outside="error", outside_tolerance=2)({**data, "landmarks": off})


def test_pixels_that_are_given_as_world_are_seen_to_lie_outside(tmp_path, caplog):
    """A PNG's world has negative x and y: RAS taken for LPS shows as points outside, not as a mirrored label."""
    image = write_image(tmp_path / "a.png")
    with caplog.at_level(logging.WARNING):
        load(image, markups(tmp_path / "a.mrk.json", -itk_places(image, [[5, 6]]), ["a"]), names=["a"])
    assert "a lies outside the image" in caplog.text


def test_the_image_must_be_loaded_first():
    with pytest.raises(ValueError, match="must be loaded before"):
        LoadLandmarksd(names=["a"])({"image": "a.png", "landmarks": [[1, 2]]})


def test_predictions_on_a_meta_tensor_on_any_device_are_mapped(tmp_path):
    image = LOAD({"image": str(write_image(tmp_path / "a.mha", spacing=(0.5, 0.5)))})["image"]
    points = MetaTensor(torch.tensor([[-1.0, -2.0]], dtype=torch.float32))
    pixels, world = to_file_space(points, image.meta)
    assert type(pixels) is torch.Tensor and pixels.tolist() == [[2, 4]] and world.tolist() == [[-1, -2, 0]]
