"""Volumes with landmark files, one table, or label masks become a data set."""

import json
import sys
from pathlib import Path

import itk
import nibabel
import numpy as np
import pydicom
import pytest
from monai.transforms import Compose, LoadImaged
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage
from scipy.spatial.transform import Rotation

import common
from common.data import LandmarkImageReader, load_datalist
from common.data.__main__ import main
from common.data.volume_import import import_volumes
from common.errors import InputError
from common.transforms import LoadLandmarksd

REAL = Path(common.__file__).resolve().parents[2] / "shared" / "data" / "hippocampus_mr"
SHAPE = (12, 10, 8)
NAMES = ("tip", "base")
VOXELS = np.array([[3.0, 4, 5], [8.25, 2, 6.5]])  # of the two landmarks


def oblique(seed, spacing=(0.8, 0.9, 2.0), flip=(1, 1, 1)):
    """An affine whose axes are turned by up to 20 degrees."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", rng.uniform(-20, 20, 3), degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag(np.multiply(spacing, flip))
    affine[:3, 3] = rng.uniform(-50, 50, 3)
    return affine


def world(affine, voxels=VOXELS):
    return np.array([affine @ [*voxel, 1] for voxel in voxels])[:, :3]


def write_volume(path, affine, values=None, dtype=np.float32):
    values = np.random.default_rng(1).normal(size=SHAPE) if values is None else values
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        image = nibabel.Nifti1Image(values.astype(dtype), affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, path)
        return
    image = itk.image_from_array(np.ascontiguousarray(values.T.astype(dtype)))
    lps = np.diag([-1.0, -1, 1]) @ affine[:3]
    spacing = np.linalg.norm(lps[:, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:, :3] / spacing)))
    image.SetOrigin(lps[:, 3].tolist())
    itk.imwrite(image, str(path))


def write_landmarks(path, points_ras, names=NAMES):
    path.parent.mkdir(parents=True, exist_ok=True)
    lps = points_ras * [-1, -1, 1]
    if path.name.endswith(".mrk.json"):
        points = [{"label": name, "position": point.tolist()} for name, point in zip(names, lps)]
        path.write_text(json.dumps({"markups": [{"coordinateSystem": "LPS", "controlPoints": points}]}))
    elif path.suffix == ".fcsv":
        rows = [f"{i},{x},{y},{z},0,0,0,1,1,1,0,{names[i]},," for i, (x, y, z) in enumerate(points_ras)]
        header = "# Markups fiducial file version = 4.11\n# CoordinateSystem = 0\n"
        path.write_text(header + "\n".join(rows) + "\n")
    else:
        rows = [f"{name},{x},{y},{z}" for name, (x, y, z) in zip(names, lps)]
        path.write_text("# space = LPS\nname,x,y,z\n" + "\n".join(rows) + "\n")


def loaded(target, names, lists=("training", "validation", "test")):
    """World coordinates (N, 3) of the landmarks of a data set as training loads them, by the image's file name."""
    load = Compose([
        LoadImaged("image", reader=LandmarkImageReader(3), ensure_channel_first=True, image_only=True),
        LoadLandmarksd("label", names=names, outside="error"),
    ])  # fmt: skip
    sizes = {key for key, value in json.loads((target / "datalist.json").read_text()).items() if value}
    items = [item for name in lists if name in sizes for item in load_datalist(target, name, names)]
    return {Path(item["image"]).name: load(item)["label"][0].numpy() for item in items}


@pytest.fixture
def three(tmp_path):
    """Three volumes in three formats, each with a landmark file of another kind beside it."""
    affines = {"a.nii.gz": oblique(0), "b.nrrd": oblique(1, flip=(-1, -1, 1)), "c.mha": oblique(2, flip=(-1, 1, 1))}
    for (name, affine), ending in zip(affines.items(), (".mrk.json", ".fcsv", ".csv")):
        write_volume(tmp_path / "scans" / name, affine)
        write_landmarks(tmp_path / "scans" / (name[0] + ending), world(affine))
    return tmp_path, affines


def masks_of(folder, count=4, size=SHAPE):
    """Volumes with masks of two labels in the same oblique grid; the volumes' affines."""
    affines = {}
    for seed in range(count):
        name = f"case_{seed}.nii.gz"
        affines[name] = oblique(seed)
        labels = np.zeros(size)
        labels[2 + seed : 5 + seed, 3:6, 2:5] = 1
        labels[1:3, 7:9, 4 : 6 + seed % 2] = 7
        labels[2, 7, 4] = 0
        write_volume(folder / "scans" / name, affines[name])
        write_volume(folder / "masks" / name, affines[name], labels, np.uint8)
    return affines


LABELS = {"tip": 1, "base": 7}


def test_landmark_files_beside_the_volumes_stay_the_truth(three, capsys):
    folder, affines = three
    assert import_volumes(folder / "scans", folder / "set", test=1, validation=0) == {
        "training": 2,
        "validation": 0,
        "test": 1,
    }
    told = capsys.readouterr().out
    assert "orientation of the axes: RAS in 1, LPS in 1, LAS in 1 volumes." in told
    assert "1 of 3 volumes have left-handed axes" in told and "left out" not in told
    found = loaded(folder / "set", NAMES)
    for name, affine in affines.items():
        np.testing.assert_allclose(found[name], world(affine), atol=1e-4)
    # a point that is corrected later counts, and files are matched by name
    write_landmarks(folder / "scans" / "a.mrk.json", world(affines["a.nii.gz"], VOXELS[::-1] + 0.5), NAMES[::-1])
    np.testing.assert_allclose(loaded(folder / "set", NAMES)["a.nii.gz"], world(affines["a.nii.gz"], VOXELS + 0.5))


def test_landmark_files_can_lie_in_a_folder_of_their_own_and_have_an_ending_more(three, capsys):
    folder, affines = three
    (folder / "points").mkdir()
    for path in [*(folder / "scans").glob("*.mrk.json"), *(folder / "scans").glob("*.[fc]*")]:
        path.rename(folder / "points" / path.name.replace(".", "_points.", 1))
    write_landmarks(folder / "points" / "d_points.fcsv", np.zeros((2, 3)))
    write_volume(folder / "scans" / "e.nii", oblique(4))
    import_volumes(folder / "scans", folder / "set", landmarks=folder / "points", test=0, validation=0)
    told = capsys.readouterr().out
    assert "matched up to the ending '_points'" in told
    assert "volumes without landmarks (1):\n    e.nii" in told
    assert "landmarks without a volume (1):\n    d_points" in told
    found = loaded(folder / "set", NAMES)
    assert sorted(found) == sorted(affines)
    np.testing.assert_allclose(found["b.nrrd"], world(affines["b.nrrd"]), atol=1e-4)


def test_where_files_differ_in_their_names_the_points_are_copied_and_the_gaps_told(three, capsys):
    folder, affines = three
    write_landmarks(folder / "scans" / "b.fcsv", world(affines["b.nrrd"])[:1], NAMES[:1])
    write_landmarks(folder / "scans" / "c.csv", np.vstack([world(affines["c.mha"]), [[1, 2, 3]]]), (*NAMES, "other"))
    import_volumes(folder / "scans", folder / "set", names=["base", "tip"], test=0, validation=0)
    told = capsys.readouterr().out
    assert "lack landmarks, which are taken as not annotated (1):\n    b.nrrd: base" in told
    assert "other: in 1 volumes" in told and "import again after correcting a file" in told
    found = loaded(folder / "set", ["base", "tip"])
    np.testing.assert_allclose(found["a.nii.gz"], world(affines["a.nii.gz"])[::-1], atol=1e-4)
    np.testing.assert_allclose(found["c.mha"], world(affines["c.mha"])[::-1], atol=1e-4)
    assert np.isnan(found["b.nrrd"][0]).all()
    np.testing.assert_allclose(found["b.nrrd"][1], world(affines["b.nrrd"])[0], atol=1e-4)
    import_volumes(folder / "scans", folder / "set", names=["base", "tip"], test=0, validation=0, missing="absent")
    assert np.isposinf(loaded(folder / "set", ["base", "tip"])["b.nrrd"][0]).all()


def test_points_without_names_of_their_own_are_taken_in_the_order_given_and_told(three, capsys):
    folder, affines = three
    for path, name in (("a.mrk.json", "a.nii.gz"), ("b.fcsv", "b.nrrd"), ("c.csv", "c.mha")):
        write_landmarks(folder / "scans" / path, world(affines[name]), ("F-1", "F-2"))
    import_volumes(folder / "scans", folder / "set", names=["tip", "base"], test=0, validation=0)
    np.testing.assert_allclose(loaded(folder / "set", NAMES)["b.nrrd"], world(affines["b.nrrd"]), atol=1e-4)
    told = capsys.readouterr().out
    assert "points without names, taken in their order (3):\n    a.nii.gz: F-1 is tip, F-2 is base\n" in told


def test_what_slicer_counts_through_are_no_names(three, capsys):
    """Without --names: the other files tell the names and their order; where none does, the user must."""
    folder, affines = three
    write_landmarks(folder / "scans" / "c.csv", world(affines["c.mha"]), ("F-1", "F-2"))
    import_volumes(folder / "scans", folder / "set", test=0, validation=0)
    told = capsys.readouterr().out
    assert "landmarks: tip, base." in told
    assert "points without names, taken in their order (1):\n    c.mha: F-1 is tip, F-2 is base\n" in told
    for path, name in (("a.mrk.json", "a.nii.gz"), ("b.fcsv", "b.nrrd")):
        write_landmarks(folder / "scans" / path, world(affines[name]), ("F-1", "F-2"))
    with pytest.raises(InputError, match="no landmark has a name of its own; give --names in the order of the points"):
        import_volumes(folder / "scans", folder / "other")


@pytest.mark.parametrize("names", [("right_ear", "left_ear"), ("inferior", "superior"), ("Hook A", "Hook P")])
@pytest.mark.parametrize("against", [False, True])
def test_sides_against_the_names_are_told(three, names, against, capsys):
    """Of all volumes alike, as where LPS was taken for RAS; where one volume differs, the others tell."""
    folder, affines = three
    further = {"right_ear": [9, 0, 0], "inferior": [0, 0, 0], "Hook A": [0, 9, 0]}[names[0]]
    other = [0, 0, 9] if names[0] == "inferior" else [0, 0, 0]
    points = np.array([further, other]) + world(affines["a.nii.gz"])[0]
    points = points[::-1] if against else points
    for path in ("a.mrk.json", "b.fcsv", "c.csv"):
        write_landmarks(folder / "scans" / path, points, names)
    import_volumes(folder / "scans", folder / "set", test=0, validation=0)
    told = capsys.readouterr().out
    if names[0] == "Hook A":  # what single letters mean is known for sides alone
        assert "sides against" not in told
    elif against:
        which = names if names[0] == "right_ear" else names[::-1]
        side = {"right_ear": "left", "superior": "feet"}[which[0]]
        text = f"{which[0]} lies further towards the patient's {side} than {which[1]} in 3 of 3 volumes"
        assert (
            f"sides against their names (labels exchanged, or another space than that stated?) (1):\n    {text}\n"
            in told
        )
    else:
        assert "sides against" not in told


def test_a_name_that_is_spelled_in_two_ways_is_refused(three):
    folder, affines = three
    write_landmarks(folder / "scans" / "c.csv", world(affines["c.mha"]), ("Tip", "base"))
    with pytest.raises(InputError, match=r"c.csv: names 'Tip' what .*a.mrk.json names 'tip'"):
        import_volumes(folder / "scans", folder / "set")


@pytest.mark.parametrize("space", ["voxel", "RAS", "LPS"])
def test_one_table_of_all_volumes_is_taken_in_the_space_that_is_stated(three, space):
    folder, affines = three
    rows = ["image,name,x,y,z"]
    for image, affine in affines.items():
        points = VOXELS if space == "voxel" else world(affine) * ([-1, -1, 1] if space == "LPS" else [1, 1, 1])
        rows += [f"{image},{name},{x},{y},{z}" for name, (x, y, z) in zip(NAMES, points.tolist())]
    rows[-1] = "c.mha,base,,,"
    (folder / "points.csv").write_text("\n".join(rows))
    import_volumes(folder / "scans", folder / "set", points=folder / "points.csv", space=space, test=0, validation=0)
    found = loaded(folder / "set", NAMES)
    for image in ("a.nii.gz", "b.nrrd"):
        np.testing.assert_allclose(found[image], world(affines[image]), atol=1e-4)
    assert np.isnan(found["c.mha"][1]).all() and np.isfinite(found["c.mha"][0]).all()


def test_a_table_of_predictions_can_be_imported(three):
    folder, affines = three
    header = "image,name,pixel_x,pixel_y,pixel_z,lps_x,lps_y,lps_z,confidence"
    (x, y, z), (i, j, k) = world(affines["a.nii.gz"])[0], VOXELS[0]
    row = f"/elsewhere/a.nii.gz,tip,{i},{j},{k},{-x},{-y},{z},0.9"
    (folder / "landmarks.csv").write_text(f"{header}\n{row}\n")
    for space in ("voxel", "LPS"):
        options = {"points": folder / "landmarks.csv", "space": space, "test": 0, "validation": 0}
        import_volumes(folder / "scans", folder / space, **options)
        np.testing.assert_allclose(loaded(folder / space, ["tip"])["a.nii.gz"], [[x, y, z]], atol=1e-4)


def test_numbers_are_names_in_a_table(three, capsys):
    folder, affines = three
    lines = ["image,name,x,y,z"]
    lines += [",".join(map(str, [image, i + 1, *voxel])) for image in affines for i, voxel in enumerate(VOXELS)]
    (folder / "points.csv").write_text("\n".join(lines) + "\n")
    import_volumes(folder / "scans", folder / "set", points=folder / "points.csv", space="voxel", test=0, validation=0)
    assert "landmarks: 1, 2." in capsys.readouterr().out


def test_columns_that_name_the_space_count_before_those_that_do_not(three):
    folder, affines = three
    lines = ["image,name,x,y,z,lps_x,lps_y,lps_z"]
    for image, affine in affines.items():
        for name, voxel, ras in zip(NAMES, VOXELS, world(affine)):
            lines.append(",".join(map(str, [image, name, *voxel, *(ras * [-1, -1, 1])])))
    (folder / "points.csv").write_text("\n".join(lines) + "\n")
    import_volumes(folder / "scans", folder / "set", points=folder / "points.csv", space="LPS", test=0, validation=0)
    np.testing.assert_allclose(loaded(folder / "set", NAMES)["b.nrrd"], world(affines["b.nrrd"]), atol=1e-4)


def test_a_column_of_the_table_that_states_the_space_counts(three):
    folder, affines = three
    rows = ["image,name,x,y,z,space"]
    for image, affine in affines.items():
        points = world(affine) * [-1, -1, 1]
        rows += [f"{image},{name},{x},{y},{z},LPS" for name, (x, y, z) in zip(NAMES, points.tolist())]
    (folder / "points.csv").write_text("\n".join(rows))
    import_volumes(folder / "scans", folder / "set", points=folder / "points.csv", test=0, validation=0)
    np.testing.assert_allclose(loaded(folder / "set", NAMES)["a.nii.gz"], world(affines["a.nii.gz"]), atol=1e-4)
    with pytest.raises(InputError, match="points.csv: its column space says lps, --space RAS; correct one"):
        import_volumes(folder / "scans", folder / "other", points=folder / "points.csv", space="RAS")


def test_a_wrong_space_is_told_by_what_would_fit(three):
    folder, affines = three
    rows = [f"{image},tip,{','.join(map(str, world(affine)[0]))}" for image, affine in affines.items()]
    (folder / "points.csv").write_text("\n".join(["image,name,x,y,z", *rows]))
    with pytest.raises(InputError, match="none of the 3 points lies inside .* LPS and RAS exchanged 3 of them would"):
        import_volumes(folder / "scans", folder / "set", points=folder / "points.csv", space="LPS")
    with pytest.raises(InputError, match="space of its coordinates is not stated; give --space voxel, RAS or LPS"):
        import_volumes(folder / "scans", folder / "set", points=folder / "points.csv")
    assert not (folder / "set").exists()


def test_the_centroid_of_a_label_is_its_landmark(tmp_path):
    affines = masks_of(tmp_path)
    counts = import_volumes(
        tmp_path / "scans", tmp_path / "set", masks=tmp_path / "masks", labels=LABELS, test=1, validation=1
    )
    assert counts == {"training": 2, "validation": 1, "test": 1}
    assert json.loads((tmp_path / "set" / "datalist.json").read_text())["truth"] == "centroids of label masks"
    found = loaded(tmp_path / "set", NAMES)
    for name, affine in affines.items():
        mask = np.asarray(nibabel.load(tmp_path / "masks" / name).dataobj)
        centres = np.array([ndimage.center_of_mass(mask == label) for label in (1, 7)])
        np.testing.assert_allclose(found[name], world(affine, centres), atol=1e-4)


def test_a_mask_may_have_another_grid_and_format_in_the_same_world(tmp_path, capsys):
    """A ball of 3 mm around a point of the world, drawn into a coarser, turned grid of another size."""
    volume, grid = oblique(0, (1, 1, 1)), oblique(5, (0.7, 0.6, 0.8), flip=(-1, 1, 1))
    centre = world(volume, [[6.0, 5, 4]])[0]
    grid[:3, 3] = centre - grid[:3, :3] @ [9.3, 10.1, 8.2]
    index = np.stack(np.meshgrid(*map(np.arange, (20, 22, 18)), indexing="ij"), -1) @ grid[:3, :3].T + grid[:3, 3]
    ball = np.linalg.norm(index - centre, axis=-1) < 3
    write_volume(tmp_path / "scans" / "x.nii.gz", volume)
    write_volume(tmp_path / "masks" / "x-label.nrrd", grid, 5 * ball, np.uint8)
    labels = {"labels": {"0": "background", "5": "bulb"}}
    (tmp_path / "dataset.json").write_text(json.dumps(labels))
    options = {"masks": tmp_path / "masks", "labels": str(tmp_path / "dataset.json"), "test": 0, "validation": 0}
    import_volumes(tmp_path / "scans", tmp_path / "set", **options)
    assert np.linalg.norm(loaded(tmp_path / "set", ["bulb"])["x.nii.gz"][0] - centre) < 0.1
    assert "matched up to the ending '-label'" in capsys.readouterr().out


def test_a_label_that_a_mask_lacks_is_not_annotated_or_absent(tmp_path, capsys):
    affines = masks_of(tmp_path)
    write_volume(tmp_path / "masks" / "case_2.nii.gz", affines["case_2.nii.gz"], np.eye(12, 10)[..., None] * np.ones(8))
    write_volume(tmp_path / "masks" / "case_3.nii.gz", affines["case_3.nii.gz"], np.zeros(SHAPE))
    options = {"masks": tmp_path / "masks", "labels": LABELS, "test": 0, "validation": 0}
    assert import_volumes(tmp_path / "scans", tmp_path / "set", **options)["training"] == 3
    told = capsys.readouterr().out
    assert "taken as not annotated (1):\n    case_2.nii.gz: base" in told
    assert "no landmark has a position (1):\n    case_3.nii.gz" in told
    found = loaded(tmp_path / "set", NAMES)
    assert np.isnan(found["case_2.nii.gz"][1]).all() and np.isfinite(found["case_2.nii.gz"][0]).all()
    assert import_volumes(tmp_path / "scans", tmp_path / "set", missing="absent", **options)["training"] == 4
    found = loaded(tmp_path / "set", NAMES)
    assert np.isposinf(found["case_2.nii.gz"][1]).all() and np.isposinf(found["case_3.nii.gz"]).all()


def test_stray_voxels_of_a_label_are_told(tmp_path, capsys):
    affines = masks_of(tmp_path, 2)
    mask = np.array(nibabel.load(tmp_path / "masks" / "case_0.nii.gz").dataobj)
    assert "pieces" not in capsys.readouterr().out
    mask[mask == 1] = 0
    mask[1:4, 1:4, 1:4] = 1  # 27 voxels around (2, 2, 2)
    mask[11, 8:10, 7] = 1  # moves the centroid by 18/29 along x, 13/29 along y
    write_volume(tmp_path / "masks" / "case_0.nii.gz", affines["case_0.nii.gz"], mask)
    import_volumes(tmp_path / "scans", tmp_path / "set", masks=tmp_path / "masks", labels=LABELS, test=0, validation=0)
    told = capsys.readouterr().out
    assert (
        "case_0.nii.gz: has label 1 (tip) in pieces, of which all but the largest move its centroid by 0.6 voxels"
        in told
    )
    assert told.count("pieces") == 1


def test_masks_that_cannot_be_trusted_are_named(tmp_path, capsys):
    affines = masks_of(tmp_path, 5)
    mask = np.asarray(nibabel.load(tmp_path / "masks" / "case_0.nii.gz").dataobj)
    away, shifted = affines["case_0.nii.gz"].copy(), affines["case_1.nii.gz"].copy()
    away[:3, 3] += 500
    shifted[:3, 3] += shifted[:3, :3] @ [2, 0, 0]
    write_volume(tmp_path / "masks" / "case_0.nii.gz", away, mask)
    write_volume(tmp_path / "masks" / "case_1.nii.gz", shifted, mask)
    write_volume(tmp_path / "masks" / "case_2.nii.gz", affines["case_2.nii.gz"], 0.3 * mask)
    write_volume(tmp_path / "masks" / "case_3.nii.gz", affines["case_3.nii.gz"], np.where(mask == 0, 9, mask))
    options = {"masks": tmp_path / "masks", "labels": LABELS, "test": 0, "validation": 0}
    assert import_volumes(tmp_path / "scans", tmp_path / "set", **options)["training"] == 3
    told = capsys.readouterr().out
    for text in (
        "case_0.nii.gz: lies nowhere on its volume",
        "case_1.nii.gz: has the size of its volume but lies up to 2 voxels off it",
        "case_2.nii.gz: holds values between whole numbers",
        "case_3.nii.gz: holds labels without a name: 9",
    ):
        assert text in told


def test_labels_must_be_named(tmp_path):
    masks_of(tmp_path, 1)
    folders = {"source": tmp_path / "scans", "target": tmp_path / "set", "masks": tmp_path / "masks"}
    with pytest.raises(InputError, match="holds the labels 1, 7; name them with --labels"):
        import_volumes(**folders)
    for labels, message in (
        ({"tip": 1, "base": 1}, "not one label over 0 for each name"),
        ({"tip": -1}, "not one label over 0"),
        ({"tip": 1.5}, "no whole number"),
        ([1, 7], "no names of labels"),
        ("nowhere.json", "no JSON file that can be read"),
    ):
        with pytest.raises(InputError, match=message):
            import_volumes(**folders, labels=labels)
    with pytest.raises(InputError, match="holds the volumes themselves"):
        import_volumes(**(folders | {"masks": tmp_path / "scans"}), labels=LABELS)


def test_a_folder_of_one_dicom_series_is_a_volume(tmp_path):
    series, position = generate_uid(), np.array([-20.0, 30.0, 100.0])
    (tmp_path / "scans" / "patient.1").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 1000, (8, 10, 12), np.uint16)  # z, y, x
    for k, plane in enumerate(pixels):
        slice_ = pydicom.Dataset()
        slice_.file_meta = pydicom.dataset.FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.SOPClassUID = slice_.file_meta.MediaStorageSOPClassUID = CTImageStorage
        slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        slice_.SeriesInstanceUID, slice_.Modality, slice_.InstanceNumber = series, "CT", k + 1
        slice_.Rows, slice_.Columns = plane.shape
        slice_.PixelSpacing, slice_.SliceThickness = [0.8, 0.5], 1.5
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.ImagePositionPatient = (position + [0, 0, 1.5 * k]).tolist()
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated = slice_.BitsStored = 16
        slice_.HighBit, slice_.PixelRepresentation, slice_.PixelData = 15, 0, plane.tobytes()
        slice_.save_as(tmp_path / "scans" / "patient.1" / f"{k}.dcm", enforce_file_format=True)
    expected = (position + [3 * 0.5, 4 * 0.8, 5 * 1.5]) * [-1, -1, 1]  # voxel (3, 4, 5)
    write_landmarks(tmp_path / "scans" / "patient.1.mrk.json", expected[None], ["tip"])
    import_volumes(tmp_path / "scans", tmp_path / "set", test=0, validation=0)
    assert (
        tmp_path / "set" / json.loads((tmp_path / "set" / "datalist.json").read_text())["training"][0]["image"]
    ).is_dir()
    np.testing.assert_allclose(loaded(tmp_path / "set", ["tip"])["patient.1"], expected[None])


def test_volumes_that_cannot_be_used_are_named_and_the_others_taken(three, capsys):
    folder, affines = three
    scans = folder / "scans"
    for name, affine, values in (
        ("flat", np.eye(4), np.zeros((9, 8, 1))),
        ("huge", oblique(3, (30, 30, 30)), None),
        ("tiny", oblique(3, (0.005, 1, 1)), None),
    ):
        write_volume(scans / f"{name}.nii.gz", affine, values)
        write_landmarks(scans / f"{name}.fcsv", world(affine))
    (scans / "broken.nrrd").write_bytes((scans / "b.nrrd").read_bytes()[:400])
    write_landmarks(scans / "broken.fcsv", world(affines["b.nrrd"]))
    write_landmarks(scans / "a.fcsv", world(affines["a.nii.gz"]))
    write_volume(scans / "film.nii.gz", oblique(3))
    (scans / "film.csv").write_text("name,x,y\ntip,3,4\nbase,1,2\n")
    assert import_volumes(scans, folder / "set", test=0, validation=0)["training"] == 2
    told = capsys.readouterr().out
    for text in (
        "left out: unusable (6)",
        "a.nii.gz: has 2 files of landmarks, a.fcsv, a.mrk.json; keep one",
        "broken.nrrd: cannot be read",
        "film.csv: its landmarks have two coordinates",
        "flat.nii.gz: is a flat image",
        "huge.nii.gz: has voxels of 30 x 30 x 30 mm where 0.01 to 20 mm are believed",
        "tiny.nii.gz: has voxels of 0.005 x 1 x 1 mm",
    ):
        assert text in told


def test_doubtful_geometry_and_points_outside_are_told(three, capsys):
    folder, affines = three
    scans = folder / "scans"
    write_volume(scans / "thick.nii.gz", np.diag([0.8, 0.9, 9.0, 1]))
    write_landmarks(scans / "thick.fcsv", np.array([[0.8 * 11.4, 4, 20], [0.8 * 13, 4, 20]]))
    unplaced = nibabel.Nifti1Image(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), None)
    unplaced.header["qform_code"] = unplaced.header["sform_code"] = 0
    nibabel.save(unplaced, scans / "unplaced.nii.gz")
    (scans / "unplaced.csv").write_text("# space = voxel\nname,x,y,z\ntip,3,4,5\nbase,1,1,1\n")
    values = np.random.default_rng(0).normal(size=SHAPE).astype("<f4")
    header = "NRRD0004\ntype: float\ndimension: 3\nsizes: 12 10 8\nendian: little\nencoding: raw\n\n"
    (scans / "unstated.nrrd").write_bytes(header.encode() + values.T.tobytes())
    (scans / "unstated.csv").write_text("# space = voxel\nname,x,y,z\ntip,3,4,5\nbase,1,1,1\n")
    import_volumes(scans, folder / "set", test=0, validation=0)
    told = capsys.readouterr().out
    assert "points outside their volume (1):\n    thick.nii.gz: base by 1.5 voxels" in told
    assert "unplaced.nii.gz: its header states neither position nor orientation, and a spacing of 1 mm" in told
    assert "unstated.nrrd: its header states no spacing" in told
    assert "the spacing along S runs from 1 mm (unplaced.nii.gz) to 9 mm (thick.nii.gz)" in told
    assert "orientations differ" in told


def test_spacings_are_compared_along_the_axes_of_the_patient(three, capsys):
    """A sagittal file, of which the first axis runs to the front, with the same voxels as the others."""
    folder, _ = three
    affine = np.array([[0, 0, 0.8, 3], [0.9, 0, 0, 5], [0, 2.0, 0, 7], [0, 0, 0, 1]])
    write_volume(folder / "scans" / "sagittal.nii.gz", affine)
    write_landmarks(folder / "scans" / "sagittal.csv", world(affine))
    import_volumes(folder / "scans", folder / "set", test=0, validation=0)
    told = capsys.readouterr().out
    assert "spacing: 0.8 x 0.9 x 2 mm in all 4 volumes." in told and "ASR in 1" in told


def test_patients_stay_in_one_list_and_the_choice_is_fixed(tmp_path, capsys):
    affine = oblique(0)
    for patient in range(8):
        for visit in range(2):
            write_volume(tmp_path / "scans" / f"sub{patient}_v{visit}.nii", affine)
            write_landmarks(tmp_path / "scans" / f"sub{patient}_v{visit}.csv", world(affine))
    options = {"test": 5, "validation": 0.25, "groups": r"sub(\d)"}
    counts = import_volumes(tmp_path / "scans", tmp_path / "set", **options)
    assert counts == {"training": 8, "validation": 4, "test": 4}  # a fifth test volume would divide a patient
    assert "patients: 8 of 16 images" in capsys.readouterr().out
    lists = {name: load_datalist(tmp_path / "set", name) for name in counts}
    patients = {name: {item["group"] for item in items} for name, items in lists.items()}
    assert sorted(group for groups in patients.values() for group in groups) == list("01234567")
    assert all(Path(item["image"]).name[3] == item["group"] for items in lists.values() for item in items)
    import_volumes(tmp_path / "scans", tmp_path / "again", **options)
    import_volumes(tmp_path / "scans", tmp_path / "other", **options, seed=1)
    assert (tmp_path / "again" / "datalist.json").read_text().replace("again", "set") == (
        tmp_path / "set" / "datalist.json"
    ).read_text()
    other = {name: {item["group"] for item in load_datalist(tmp_path / "other", name)} for name in counts}
    assert other != patients


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": "p.csv", "masks": "m"}, "three sources of landmarks"),
        ({"missing": "gone"}, "--missing gone"),
        ({"space": "RAS"}, "--space belongs to --points"),
        ({"labels": {"tip": 1}}, "--labels to --masks"),
        ({"test": 2, "validation": 1}, "leave none of the 3 images"),
        ({"test": -1}, "--test -1"),
        ({"validation": 1.5}, "--validation 1.5"),
        ({"groups": "("}, "no regular expression"),
        ({"groups": "patient"}, "finds no patient in names such as 'a'"),
        ({"landmarks": "nowhere"}, "there is no such folder"),
        ({"names": ["apex"]}, "no volume with landmarks is left"),
    ],
)
def test_wrong_settings_are_refused(three, options, message):
    folder, _ = three
    with pytest.raises(InputError, match=message):
        import_volumes(folder / "scans", folder / "set", **options)
    assert not (folder / "set").exists()


def test_folders_that_do_not_fit_are_refused(three):
    folder, affines = three
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no volume"):
        import_volumes(folder / "empty", folder / "set")
    with pytest.raises(InputError, match=r"no landmarks have the name of a volume .*landmarks: none, .*such as 'a'"):
        import_volumes(folder / "scans", folder / "set", landmarks=folder / "empty")
    write_volume(folder / "scans" / "a.nrrd", affines["a.nii.gz"])
    with pytest.raises(InputError, match="a.nii.gz and a.nrrd have the same name"):
        import_volumes(folder / "scans", folder / "set")


def test_the_command_takes_labels_and_counts(tmp_path, monkeypatch, capsys):
    masks_of(tmp_path)
    command = f"common.data import_volumes --source {tmp_path}/scans --masks {tmp_path}/masks --target {tmp_path}/set"
    labels = ["--labels", "{'tip': 1, 'base': 7}", "--test", "1", "--validation", "1"]
    monkeypatch.setattr(sys, "argv", [*command.split(), *labels])
    main()
    assert capsys.readouterr().out.endswith("2 training, 1 validation, 1 test.\n")
    monkeypatch.setattr(sys, "argv", [*command.split(), *labels[:-3], "4"])
    with pytest.raises(SystemExit, match="^error: test 4 and validation 0.15 leave none of the 4 images"):
        main()


def test_the_real_hippocampi_are_taken_with_the_centroids_of_their_masks(tmp_path, capsys):
    if not (REAL / "masks").is_dir():
        pytest.skip(f"the hippocampus volumes are not in {REAL}")
    options = {"masks": REAL / "masks", "labels": {"anterior": 1, "posterior": 2}, "test": 30, "validation": 8}
    counts = import_volumes(REAL / "images", tmp_path, **options)
    assert counts == {"training": 62, "validation": 8, "test": 30}
    told = capsys.readouterr().out
    assert "1 x 1 x 1 mm in all 100 volumes" in told and "RAS in 100 volumes" in told and "left out" not in told
    assert "sides against" not in told and "pieces" not in told
    names = ("anterior", "posterior")
    for name, points in loaded(tmp_path, names, ["validation"]).items():
        mask = nibabel.load(REAL / "masks" / name)
        centres = [ndimage.center_of_mass(np.asarray(mask.dataobj) == label) for label in (1, 2)]
        np.testing.assert_allclose(points, nibabel.affines.apply_affine(mask.affine, centres), atol=1e-4)
        assert points[0, 1] > points[1, 1]  # the head lies before the tail
