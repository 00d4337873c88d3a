"""Predictions as 3D Slicer's loader takes them: points, lines and angles where the anatomy is on the image."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import itk
import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import LoadImaged
from PIL import Image

from common.clinical import CephalometricMarkups, CobbAngleMarkups, cephalometric_measurements, cobb_angles
from common.clinical.markups import FMA
from common.data import (
    CEPHALOMETRIC_LANDMARKS,
    SPINE_LANDMARKS,
    LandmarkImageReader,
    PredictionDataset,
    load_datalist,
    read_landmarks,
)
from common.data.markups_files import markup_node, write_markup_nodes
from common.errors import InputError
from common.handlers import SaveLandmarks

from .slicer_markups import Refused, load_markups, main

TURN = np.array([[0.8, -0.48, 0.36], [0.6, 0.64, -0.48], [0.0, 0.6, 0.8]])  # orthonormal


def load(path):
    return LoadImaged("image", reader=LandmarkImageReader(), ensure_channel_first=True)({"image": str(path)})["image"]


def save(folder, image, pred, names, measurements=None, data=None):
    """Write a prediction (N, D) in the image's world."""
    data = data or PredictionDataset([{"image": image.meta["filename_or_obj"]}])
    handler = SaveLandmarks(folder, names, data, overlays=False, measurements=measurements, resume=False)
    handler.start(None)
    item = {"image": image, "pred": pred[None], "confidence": torch.full((len(names),), 0.5)}
    handler.save(SimpleNamespace(state=SimpleNamespace(output=[item])))
    assert data.failures == {}
    return folder / f"{Path(image.meta['filename_or_obj']).name.split('.')[0]}.mrk.json"


def film(path, size, **options):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, size[::-1], dtype=np.uint8)).save(path, **options)
    return load(path)


def oblique_volume(path, size=(20, 24, 16)):
    """A volume of 0.5 x 0.75 x 2 mm, its axes turned about all three of the world."""
    image = itk.image_from_array(np.random.default_rng(0).random(size[::-1]).astype(np.float32))
    image.SetSpacing([0.5, 0.75, 2.0])
    image.SetOrigin([7.0, -30.0, 100.0])
    image.SetDirection(itk.matrix_from_array(TURN))
    itk.imwrite(image, str(path))
    return itk.imread(str(path))


def spine_of(phantoms):
    """True corners (68, 2) of a phantom's film in file pixels, and the film's path."""
    item = load_datalist(phantoms, "test", SPINE_LANDMARKS)[1]
    return item["image"], torch.tensor(item["landmarks"], dtype=torch.float64)


def in_world(pixels):
    return -pixels  # of a PNG, in RAS


def test_points_on_an_oblique_volume_lie_on_the_voxels_that_itk_names(tmp_path):
    volume = oblique_volume(tmp_path / "ct.nii.gz")
    voxels = [[3, 2, 1], [19, 23, 15], [0, 0, 0]]
    lps = np.array([volume.TransformIndexToPhysicalPoint(voxel) for voxel in voxels])
    path = save(tmp_path / "out", load(tmp_path / "ct.nii.gz"), torch.tensor(lps * [-1, -1, 1]), ["a", "b", "c"])
    (node,) = load_markups(path)
    assert (node.kind, node.labels, node.statuses) == ("Fiducial", ["a", "b", "c"], ["defined"] * 3)
    assert np.allclose(node.points * [-1, -1, 1], lps, atol=1e-4)
    assert np.allclose(np.linalg.det(node.axes), 1)  # rotations, no mirror


def test_lines_and_angles_on_an_oblique_volume_keep_lengths_angles_and_directions(tmp_path):
    volume = oblique_volume(tmp_path / "ct.nii.gz")
    voxels = np.array([[10, 4, 3], [2, 4, 3], [2, 8, 3]])  # along the volume's first axis, then along its second
    ras = np.array([volume.TransformIndexToPhysicalPoint(v) for v in voxels.tolist()]) * [-1, -1, 1]
    nodes = [
        markup_node("Line", ras[:2], ["from", "to"], name="width"),
        markup_node("Angle", ras, ["one", "vertex", "other"], name="corner", display={"color": [1.0, 0.5, 0.0]}),
    ]
    write_markup_nodes(tmp_path / "a.mrk.json", nodes)
    line, angle = load_markups(tmp_path / "a.mrk.json")
    assert (line.name, angle.name) == ("width", "corner")
    assert line.measured() == pytest.approx(8 * 0.5, abs=1e-4)
    assert angle.measured() == pytest.approx(90, abs=1e-3)
    along = (line.points[0] - line.points[1]) / 4.0 * [-1, -1, 1]
    assert np.allclose(along, TURN[:, 0], atol=1e-4)


def test_landmarks_without_a_position_are_undefined_points(tmp_path):
    image = film(tmp_path / "a.png", (20, 30))
    pred = torch.tensor([[-3.0, -4.0], [math.nan] * 2, [math.inf] * 2])
    (node,) = load_markups(save(tmp_path / "out", image, pred, ["tip", "base", "stem"]))
    assert node.statuses == ["defined", "undefined", "undefined"]
    assert np.allclose(node.points[0], [-3, -4, 0]) and np.isnan(node.points[1:]).all()


def test_the_angles_of_a_spine_are_its_cobb_angles(tmp_path, tiny_phantoms_of):
    path, corners = spine_of(tiny_phantoms_of("spine"))
    image = load(path)
    save(tmp_path, image, in_world(corners), SPINE_LANDMARKS, CobbAngleMarkups())
    nodes = load_markups(tmp_path / "measurements" / (path.split("/")[-1].replace(".png", ".mrk.json")))
    angles = [node for node in nodes if node.kind == "Angle"]
    expected = cobb_angles(corners[None], image.shape[2])[0].tolist()
    assert max(expected) > 5
    assert [node.measured() for node in angles] == pytest.approx(expected, abs=1e-6)
    assert [list(node.values.values())[0] for node in angles] == pytest.approx(expected)
    assert [node.name.split(",")[0] for node in angles] == ["first Cobb angle", "second Cobb angle", "third Cobb angle"]
    lines = {node.name: node for node in nodes if node.kind == "Line"}
    assert {f"end vertebra {v}" for node in angles for v in node.name.split(", ")[1].split(" to ")} == set(lines)
    for name, line in lines.items():
        number = [v.split("_")[0] for v in SPINE_LANDMARKS[::4]].index(name.split()[-1])
        middle = -corners[4 * number : 4 * number + 4].mean(0).numpy()
        assert np.allclose(line.points.mean(0)[:2], middle)


def test_a_spacing_that_does_not_fit_the_file_costs_millimetres_and_no_points(tmp_path, tiny_phantoms_of, caplog):
    path, corners = spine_of(tiny_phantoms_of("spine"))
    data = PredictionDataset([{"image": path, "spacing": [1.0, 1.2]}])
    markups = save(tmp_path, load(path), in_world(corners), SPINE_LANDMARKS, CobbAngleMarkups(), data)
    assert len(load_markups(markups)[0].points) == len(SPINE_LANDMARKS)
    assert [node.kind for node in load_markups(tmp_path / "measurements" / markups.name)].count("Angle") == 3
    assert "differ by another factor on each axis" in caplog.text


def test_the_angle_between_its_own_two_lines_is_that_of_the_node(tmp_path, tiny_phantoms_of):
    path, corners = spine_of(tiny_phantoms_of("spine"))
    save(tmp_path, load(path), in_world(corners), SPINE_LANDMARKS, CobbAngleMarkups())
    nodes = load_markups(next((tmp_path / "measurements").glob("*.mrk.json")))
    lines = {node.name.split()[-1]: node.points[1] - node.points[0] for node in nodes if node.kind == "Line"}
    for node in nodes:
        if node.kind == "Angle":
            u, w = (lines[name] for name in node.name.split(", ")[1].split(" to "))
            between = np.degrees(np.arccos(u @ w / np.linalg.norm(u) / np.linalg.norm(w)))
            assert node.measured() == pytest.approx(between, abs=1e-4)


@pytest.mark.parametrize("facing", [1, -1])
def test_the_angles_of_a_head_are_its_cephalometric_measurements(tmp_path, tiny_phantoms_of, facing):
    item = load_datalist(tiny_phantoms_of("skull"), "test", CEPHALOMETRIC_LANDMARKS)[0]
    points = torch.tensor(item["landmarks"], dtype=torch.float64)
    image = load(item["image"])
    if facing < 0:
        points = torch.stack([image.shape[1] - 1 - points[:, 0], points[:, 1]], 1)
    save(tmp_path, image, in_world(points), CEPHALOMETRIC_LANDMARKS, CephalometricMarkups())
    nodes = {node.name: node for node in load_markups(next((tmp_path / "measurements").glob("*.mrk.json")))}
    values = cephalometric_measurements(points[None], math.nan)[0].tolist()
    anb, snb, sna, odi, apdi, fhi, fma, _ = values
    for name, value in {"ANB": anb, "SNB": snb, "SNA": sna, "FMA": fma}.items():
        node = nodes[FMA if name == "FMA" else name]
        assert node.measured() == pytest.approx(abs(value), abs=1e-6)
        assert node.values[name] == pytest.approx(value)
    assert nodes["A-B plane"].values["ODI"] == pytest.approx(odi)
    assert nodes["facial plane"].values["APDI"] == pytest.approx(apdi)
    heights = [nodes[f"{end} face height"].measured() for end in ("posterior", "anterior")]
    assert heights[0] / heights[1] == pytest.approx(fhi) == nodes["posterior face height"].values["FHI"]
    assert nodes["incisal distance"].values == {}  # millimetres of a PNG are not known
    assert nodes["ANB"].labels == ["subspinale", "nasion", "supramentale"]


def test_the_sign_of_anb_stands_in_the_file(tmp_path):
    """B before A: a skeletal class 3."""
    points = torch.rand(19, 2, dtype=torch.float64) * 50 + 20
    points[[0, 1, 4, 5]] = torch.tensor([[20.0, 20.0], [80.0, 20.0], [78.0, 70.0], [84.0, 95.0]], dtype=torch.float64)
    save(
        tmp_path,
        film(tmp_path / "a.png", (100, 100)),
        in_world(points),
        CEPHALOMETRIC_LANDMARKS,
        CephalometricMarkups(),
    )
    nodes = {node.name: node for node in load_markups(tmp_path / "measurements" / "a.mrk.json")}
    assert nodes["ANB"].values["ANB"] == pytest.approx(-nodes["ANB"].measured()) and nodes["ANB"].measured() > 1
    content = json.loads((tmp_path / "measurements" / "a.mrk.json").read_text())
    told = [m for node in content["markups"] for m in node.get("measurements", []) if m["name"] == "ANB"]
    assert [m["description"] for m in told] == ["class 3"]


def test_millimetres_of_a_film_reach_the_lengths_and_the_overjet(tmp_path):
    """A TIFF of 127 dpi has pixels of 0.2 mm, and in its world lengths are millimetres."""
    points = torch.rand(19, 2, dtype=torch.float64) * 50 + 20
    points[[0, 1, 10, 11]] = torch.tensor([[20.0, 20], [80, 20], [70, 60], [80, 60]], dtype=torch.float64)
    image = film(tmp_path / "a.tif", (100, 100), dpi=(127, 127))
    world = torch.tensor(np.asarray(image.meta["original_affine"]))[:2, :2]
    assert world.diagonal().tolist() == pytest.approx([-0.2, -0.2])
    save(tmp_path, image, points @ world.T, CEPHALOMETRIC_LANDMARKS, CephalometricMarkups())
    nodes = {node.name: node for node in load_markups(tmp_path / "measurements" / "a.mrk.json")}
    assert nodes["incisal distance"].measured() == pytest.approx(2.0)
    assert nodes["incisal distance"].values == {"MW": pytest.approx(2.0)}


def test_a_film_on_an_oblique_plane_has_its_lines_on_that_plane(tmp_path, tiny_phantoms_of):
    _, corners = spine_of(tiny_phantoms_of("spine"))
    plane = itk.image_from_array(np.random.default_rng(0).random((1, 160, 60)).astype(np.float32))
    plane.SetSpacing([0.5, 0.5, 1.0])
    plane.SetOrigin([10.0, 20.0, 30.0])
    plane.SetDirection(itk.matrix_from_array(TURN))
    itk.imwrite(plane, str(tmp_path / "a.nrrd"))
    image = load(tmp_path / "a.nrrd")
    affine = torch.tensor(np.asarray(image.meta["original_affine"]))
    save(tmp_path, image, corners @ affine[:2, :2].T + affine[:2, 3], SPINE_LANDMARKS, CobbAngleMarkups())
    nodes = load_markups(tmp_path / "measurements" / "a.mrk.json")
    normal = TURN[:, 2]
    for node in nodes:
        assert np.abs((node.points * [-1, -1, 1] - [10, 20, 30]) @ normal).max() < 1e-4
    angles = [node.measured() for node in nodes if node.kind == "Angle"]
    assert angles == pytest.approx(cobb_angles(corners[None], 160)[0].tolist(), abs=1e-4)


@pytest.mark.parametrize("signs", [(-1, -1), (1, 1), (-1, 1), (1, -1)])
@pytest.mark.parametrize("transposed", [False, True])
def test_measurements_do_not_depend_on_how_the_axes_of_a_file_lie(tmp_path, tiny_phantoms_of, signs, transposed):
    """The upright film has x to the left and y to the back; NIfTI may store it in any direction."""
    item = load_datalist(tiny_phantoms_of("skull"), "test", CEPHALOMETRIC_LANDMARKS)[0]
    upright = torch.tensor(item["landmarks"], dtype=torch.float64)
    size = np.asarray(load(item["image"]).shape[1:])
    values = cephalometric_measurements(upright[None], 1.0)[0].tolist()
    axes = np.diag(np.array(signs, dtype=float))
    affine = np.eye(4)
    affine[:2, :2] = axes[:, ::-1] if transposed else axes
    affine[:2, 3] = [1 - n if sign > 0 else 0 for n, sign in zip(size, signs)]
    shape = size[::-1] if transposed else size
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random((*shape, 1)), affine), tmp_path / "a.nii")
    save(tmp_path, load(tmp_path / "a.nii"), -upright, CEPHALOMETRIC_LANDMARKS, CephalometricMarkups())
    nodes = {node.name: node for node in load_markups(tmp_path / "measurements" / "a.mrk.json")}
    for name, node in (("ODI", "A-B plane"), ("APDI", "facial plane"), ("MW", "incisal distance"), ("FMA", FMA)):
        place = ["ANB", "SNB", "SNA", "ODI", "APDI", "FHI", "FMA", "MW"].index(name)
        assert nodes[node].values[name] == pytest.approx(values[place], abs=1e-4)
    sella, nasion = (upright[CEPHALOMETRIC_LANDMARKS.index(name)].numpy() for name in ("sella", "nasion"))
    assert np.allclose(nodes["sella-nasion line"].points[:, :2], [-sella, -nasion], atol=1e-4)


@pytest.mark.parametrize(("name", "options"), [("a.jpg", {"dpi": (72, 72)}), ("a.png", {})])
def test_the_spacing_of_a_datalist_counts_before_that_of_the_file(tmp_path, name, options):
    points = torch.rand(19, 2, dtype=torch.float64) * 50 + 20
    points[[0, 1, 10, 11]] = torch.tensor([[20.0, 20], [80, 20], [70, 60], [80, 60]], dtype=torch.float64)
    image = film(tmp_path / name, (100, 100), **options)
    world = torch.tensor(np.asarray(image.meta["original_affine"]))[:2, :2]
    data = PredictionDataset([{"image": image.meta["filename_or_obj"], "spacing": [0.1, 0.1]}])
    save(tmp_path, image, points @ world.T, CEPHALOMETRIC_LANDMARKS, CephalometricMarkups(), data)
    nodes = {node.name: node for node in load_markups(tmp_path / "measurements" / "a.mrk.json")}
    assert nodes["incisal distance"].values == {"MW": pytest.approx(1.0)}


def test_without_a_corner_there_is_no_file_and_an_old_one_goes(tmp_path, tiny_phantoms_of):
    path, corners = spine_of(tiny_phantoms_of("spine"))
    save(tmp_path, load(path), in_world(corners), SPINE_LANDMARKS, CobbAngleMarkups())
    assert len(list((tmp_path / "measurements").iterdir())) == 1
    corners[5] = math.nan
    save(tmp_path, load(path), in_world(corners), SPINE_LANDMARKS, CobbAngleMarkups())
    assert list((tmp_path / "measurements").iterdir()) == []


def test_a_head_without_the_mandible_keeps_the_rest(tmp_path, tiny_phantoms_of):
    item = load_datalist(tiny_phantoms_of("skull"), "test", CEPHALOMETRIC_LANDMARKS)[0]
    points = torch.tensor(item["landmarks"], dtype=torch.float64)
    points[CEPHALOMETRIC_LANDMARKS.index("supramentale")] = math.inf  # absent, as below min_confidence
    save(tmp_path, load(item["image"]), in_world(points), CEPHALOMETRIC_LANDMARKS, CephalometricMarkups())
    names = {node.name for node in load_markups(next((tmp_path / "measurements").glob("*.mrk.json")))}
    assert "SNA" in names and not {"ANB", "SNB", "A-B plane"} & names


@pytest.mark.parametrize("measurements", [CobbAngleMarkups(), CephalometricMarkups()])
def test_other_landmarks_get_no_lines_and_no_error(tmp_path, measurements):
    image = film(tmp_path / "a.png", (20, 30))
    path = save(tmp_path / "out", image, torch.tensor([[-3.0, -4.0]]), ["tip"], measurements)
    assert path.is_file() and not (tmp_path / "out" / "measurements").exists()


def test_the_points_of_a_file_are_read_back_as_landmarks(tmp_path):
    image = film(tmp_path / "a.png", (20, 30))
    path = save(tmp_path / "out", image, torch.tensor([[-3.0, -4.0], [-5.5, -6.0]]), ["tip", "base"])
    assert read_landmarks(path).points.tolist() == load_markups(path)[0].points.tolist()


def test_a_line_of_three_points_is_refused_before_it_is_written():
    with pytest.raises(InputError, match="make no markup 'Line'"):
        markup_node("Line", np.zeros((3, 3)), ["a", "b", "c"])


BROKEN = {
    "no schema": lambda content: content.pop("@schema"),
    "another schema": lambda content: content.update({"@schema": "landmarks-v2.json"}),
    "no markups": lambda content: content.update(markups=[]),
    "an unknown type": lambda content: content["markups"][0].update(type="Points"),
    "two coordinates": lambda content: content["markups"][0]["controlPoints"][0].update(position=[1, 2]),
    "a null position": lambda content: content["markups"][0]["controlPoints"][0].update(position=None),
    "a defined point without position": lambda content: content["markups"][0]["controlPoints"][0].pop("position"),
    "eight numbers of orientation": lambda content: content["markups"][0]["controlPoints"][0].update(
        orientation=[0] * 8
    ),
    "an angle of two points": lambda content: content["markups"][0].update(type="Angle"),
    "centimetres": lambda content: content["markups"][0].update(coordinateUnits="cm"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_the_check_refuses_what_slicer_would(tmp_path, fault, capsys):
    path = tmp_path / "a.mrk.json"
    write_markup_nodes(path, [markup_node("Line", np.eye(3)[:2], ["a", "b"])])
    assert main([path]) == 0
    content = json.loads(path.read_text())
    BROKEN[fault](content)
    path.write_text(json.dumps(content))
    with pytest.raises(Refused):
        load_markups(path)
    assert main([path]) == 1 and "refused" in capsys.readouterr().out
