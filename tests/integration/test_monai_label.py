"""The MONAI Label app: the real server, in its own environment, between an image and the points on it.

MONAI_LABEL_PYTHON names the Python of that environment (`.ci/run` builds it); without it these tests are skipped.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

import common
from common.bundle.package import packaged_files
from common.data import load_datalist, read_landmarks
from common.data.markups_files import write_markups

from ..bundles.conftest import TinyBundle
from ..bundles.tiny import TINY, with_gaps_and_extras
from ..slicer.slicer_markups import load_markups

PYTHON = os.environ.get("MONAI_LABEL_PYTHON", "")
PACKAGE = Path(common.__file__).resolve().parent
STUB = Path(__file__).with_name("without_torchvision")
NAMES = ("scn_hand", "dacn_cephalometric", "patch_regression_ccta")
TURN = np.array([[0.8, -0.48, 0.36], [0.6, 0.64, -0.48], [0.0, 0.6, 0.8]])

pytestmark = pytest.mark.skipif(not PYTHON, reason="MONAI_LABEL_PYTHON names no Python with MONAI Label")


class Server:
    """A MONAI Label server and its HTTP interface."""

    def __init__(self, process, port, log):
        self.process, self.port, self.log = process, port, log

    def request(self, method, path, data=None, content_type=None):
        """Body of an answer; an error's body is raised as an AssertionError."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, method=method)
        if content_type:
            request.add_header("Content-Type", content_type)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read()

    def upload(self, path, file, field):
        """PUT a file as a browser or 3D Slicer would."""
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{file.name}"\r\n\r\n'
        body = head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        return json.loads(self.request("PUT", path, body, f"multipart/form-data; boundary={boundary}"))

    def add_image(self, file, name):
        assert self.upload(f"/datastore/?image={name}", file, "file") == {"image": name}

    def save_label(self, file, name):
        assert self.upload(f"/datastore/label?image={name}&tag=final", file, "label")["label"] == name

    def infer(self, model, image, target, **params):
        """Path of the `.mrk.json` for an image on the server."""
        form = urllib.parse.urlencode({"params": json.dumps(params)}).encode()
        body = self.request("POST", f"/infer/{model}?image={image}&output=image", form)
        target.write_bytes(body)
        return target

    def told(self, model, image):
        """The JSON beside the file."""
        return json.loads(self.request("POST", f"/infer/{model}?image={image}&output=json", b""))

    def train(self, model, **params):
        """Train in a process of its own, as clients do, and wait; status of the task."""
        self.request("POST", f"/train/{model}", json.dumps(params).encode(), "application/json")
        until = time.monotonic() + 120
        while time.monotonic() < until:
            task = json.loads(self.request("GET", "/train/"))
            if task["status"] not in ("SUBMITTED", "RUNNING"):
                return task
            time.sleep(0.5)
        pytest.fail("the training does not end:\n" + self.log.read_text()[-3000:])


def small(bundle, target):
    """Copy a bundle, with its tiny settings in its configs, as they would be after an overlay for good."""
    shutil.copytree(bundle.folder, target, ignore=shutil.ignore_patterns("output", "models", "predictions"))
    for name in ("train", "inference"):
        path = target / "configs" / f"{name}.json"
        config = json.loads(path.read_text()) | bundle.network_settings | {"device": "$torch.device('cpu')"}
        path.write_text(json.dumps(config | (bundle.tiny.training if name == "train" else {})))
    (target / "models").mkdir()
    torch.save(telling_weights(bundle), target / "models" / "model.pt")


def telling_weights(bundle):
    """Weights that nobody trained, with all that a training puts in before its first step, such as a template."""
    torch.manual_seed(0)
    network = bundle.build("train").parser.get_parsed_content("network")
    return bundle.tiny.output.telling(network.state_dict())


def packaged(folder):
    """Put the package of a bundle in its place: it stands alone, with the shared code as its `scripts`."""
    files = packaged_files(folder)
    shutil.rmtree(folder)
    for name, content in files.items():
        path = folder.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture(scope="module")
def served(tiny_phantoms_of, tmp_path_factory):
    """The bundles that the server gets, by name, with their data."""
    root = tmp_path_factory.mktemp("data")
    bundles = {}
    for name in NAMES:
        (root / name).mkdir()
        data = with_gaps_and_extras(tiny_phantoms_of(TINY[name].anatomy), root / name / "dataset")
        bundles[name] = TinyBundle(name, data, root / name)
    return bundles


@pytest.fixture(scope="module")
def images(served, tmp_path_factory):
    """Files to upload, by the bundle that takes them."""
    folder = tmp_path_factory.mktemp("images")
    hand, head, heart = (served[name] for name in NAMES)
    grey = np.asarray(Image.open(hand.image("test_001"))).astype(np.uint16) * 200 + 1000
    Image.fromarray(grey).save(folder / "deep.tif", dpi=(127, 127))
    volume = nibabel.load(heart.image("test_001"))
    oblique = np.eye(4)
    oblique[:3, :3] = TURN @ volume.affine[:3, :3]
    oblique[:3, 3] = [12.0, -34.0, 56.0]
    nibabel.save(nibabel.Nifti1Image(np.asarray(volume.dataobj), oblique), folder / "oblique.nii.gz")
    shutil.copy(hand.image("test_000"), folder / "film.png")
    shutil.copy(head.image("test_000"), folder / "head.png")
    return {
        "film": ("scn_hand", folder / "film.png"),
        "deep": ("scn_hand", folder / "deep.tif"),
        "head": ("dacn_cephalometric", folder / "head.png"),
        "oblique": ("patch_regression_ccta", folder / "oblique.nii.gz"),
    }


@pytest.fixture(scope="module")
def server(served, images, tmp_path_factory):
    """A server with two bundles as they lie in the repository and one as an unpacked package, and all images."""
    root = tmp_path_factory.mktemp("server")
    for name in NAMES:
        small(served[name], root / "bundles" / name)
    packaged(root / "bundles" / "patch_regression_ccta")
    # The server writes logs into its app's folder.
    shutil.copytree(PACKAGE, root / "common", ignore=shutil.ignore_patterns("__pycache__", "logs"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, "-m", "monailabel.main", "start_server", "--app", root / "common" / "label_app"]
    command += ["--studies", root / "studies", "--host", "127.0.0.1", "--port", port]
    command += ["--conf", "models", ",".join(NAMES)]
    own = {"PYTHONPATH": str(STUB), "MONAI_LABEL_SESSION_PATH": str(root / "sessions"), "CUDA_VISIBLE_DEVICES": ""}
    own |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    log = root / "server.log"
    with open(log, "w") as output:
        process = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, cwd=root, env={**os.environ, **own}
        )
    running = Server(process, port, log)
    try:
        until = time.monotonic() + 90
        while True:
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
            with contextlib.suppress(OSError):
                running.info = json.loads(running.request("GET", "/info/"))
                break
            time.sleep(0.3)
        running.root = root
        for name, (_, path) in images.items():
            running.add_image(path, name)
        yield running
    finally:
        process.terminate()
        process.wait(timeout=30)
    with pytest.raises(OSError):
        running.request("GET", "/info/")


def directly(bundle, weights, image, folder):
    """What the bundle's own prediction writes for an image."""
    bundle.run("inference", dataset_dir=str(image), output_dir=str(folder), ckpt_path=str(weights))
    return next(folder.glob("*.mrk.json"))


def furthest(path, other):
    """Greatest distance in mm of points of one name in two files."""
    first, second = read_landmarks(path), read_landmarks(other)
    assert first.names == second.names
    return np.linalg.norm(first.points - second.points, axis=1).max()


def test_the_server_offers_the_bundles_with_their_landmarks(server, served):
    for name in NAMES:
        landmarks = served[name].read("inference")["landmarks"]
        assert list(server.info["models"][name]["labels"]) == landmarks
        assert server.info["models"][name]["dimension"] == served[name].tiny.images.dims
    assert set(server.info["models"]) == set(server.info["trainers"]) == set(NAMES)


@pytest.mark.parametrize("name", ["film", "deep", "head", "oblique"])
def test_the_points_of_the_server_are_those_of_the_bundle(name, server, images, served, tmp_path):
    model, image = images[name]
    answer = server.infer(model, name, tmp_path / "answer.mrk.json")
    weights = server.root / "bundles" / model / "models" / "model.pt"
    distance = furthest(answer, directly(served[model], weights, image, tmp_path / "direct"))
    print(f"{name}: {distance:.2e} mm at most")
    assert distance < 0.01
    (node,) = load_markups(answer)
    assert (node.kind, node.name) == ("Fiducial", model)
    assert np.ptp(node.points, axis=0).max() > 1  # not all in one place


def test_points_on_the_oblique_volume_are_inside_it(server, images, tmp_path):
    (node,) = load_markups(server.infer("patch_regression_ccta", "oblique", tmp_path / "a.mrk.json"))
    volume = nibabel.load(images["oblique"][1])
    voxels = nibabel.affines.apply_affine(np.linalg.inv(volume.affine), node.points)
    assert (voxels > -8).all() and (voxels < np.array(volume.shape) + 8).all()
    assert np.abs(node.points - voxels).max() > 10  # the affine says more than the voxels


def test_confidences_and_measurements_come_with_the_file(server, tmp_path):
    told = server.told("scn_hand", "film")
    assert len(told["confidence"]) == 37 and told["measurements"] == {}
    assert "shape" in told["unlikely"] or "confidence" in told["unlikely"]  # the network was never trained
    measured = server.told("dacn_cephalometric", "head")["measurements"]
    nodes = load_markups(server.infer("dacn_cephalometric", "head", tmp_path / "a.mrk.json", measurements=True))
    assert [node.kind for node in nodes[:2]] == ["Fiducial", "Angle"]
    sna = next(node for node in nodes if node.name == "SNA")
    assert measured["SNA"]["value"] == pytest.approx(sna.measured()) == pytest.approx(sna.values["SNA"])


def test_an_image_that_cannot_be_read_is_told_in_a_sentence(server, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    server.add_image(tmp_path / "broken.png", "broken")
    with pytest.raises(urllib.error.HTTPError) as error:
        server.infer("scn_hand", "broken", tmp_path / "a.mrk.json")
    assert error.value.code == 400 and "cannot be read as an image" in json.loads(error.value.read())["detail"]


def test_an_image_that_is_not_there_is_told_in_a_sentence(server, tmp_path):
    with pytest.raises(urllib.error.HTTPError) as error:
        server.infer("scn_hand", "nofilm", tmp_path / "a.mrk.json")
    assert error.value.code == 400 and "has no image of this name" in json.loads(error.value.read())["detail"]


def test_a_model_that_is_not_served_is_told_in_a_sentence(server, tmp_path):
    with pytest.raises(urllib.error.HTTPError) as error:
        server.infer("scn_hnd", "nofilm", tmp_path / "a.mrk.json")
    assert error.value.code == 400 and json.loads(error.value.read())["detail"].endswith("did you mean scn_hand?")


def test_a_training_without_saved_points_is_refused_with_a_sentence(server):
    with pytest.raises(urllib.error.HTTPError) as error:
        server.request("POST", "/train/patch_regression_ccta?run_sync=true", b"{}", "application/json")
    assert error.value.code == 400 and "no image has its points saved" in json.loads(error.value.read())["detail"]


@pytest.mark.parametrize(
    ("points", "prefix", "reason"),
    [(np.nan, "", "none of its points has a position"), (1.0, "F-", "has landmarks without names, of which no order")],
)
def test_saved_lists_that_say_nothing_are_no_points(server, served, tmp_path, points, prefix, reason):
    """Points that nobody has placed, and points without names where sides are told by names alone."""
    names = served["patch_regression_ccta"].read("inference")["landmarks"]
    labels = [f"{prefix}{number}" for number in range(1, len(names) + 1)] if prefix else names
    write_markups(tmp_path / "a.mrk.json", np.full((len(names), 3), points), labels)
    server.save_label(tmp_path / "a.mrk.json", "oblique")
    with pytest.raises(urllib.error.HTTPError) as error:
        server.request("POST", "/train/patch_regression_ccta?run_sync=true", b"{}", "application/json")
    told = json.loads(error.value.read())["detail"]
    assert error.value.code == 400 and "no image has its points saved" in told and reason in told


def true_points(bundle, item, path, affine):
    """Save the landmarks of an item of a datalist as a user would, in the world of the uploaded file."""
    points = [p if isinstance(p, list) else [np.nan] * bundle.tiny.images.dims for p in item["landmarks"]]
    points = np.array(points)
    points = np.hstack([points, np.zeros((len(points), 3 - points.shape[1]))])
    world = nibabel.affines.apply_affine(affine, points)
    write_markups(path, world, bundle.read("inference")["landmarks"])
    return path


def test_a_training_on_a_saved_film_gives_the_weights_that_then_predict(server, images, served, tmp_path):
    bundle = served["scn_hand"]
    item = load_datalist(bundle.dataset, "test")[0]
    before = server.infer("scn_hand", "film", tmp_path / "before.mrk.json")
    label = true_points(bundle, item, tmp_path / "film.mrk.json", np.diag([-1.0, -1, 1, 1]))
    server.save_label(label, "film")
    form = json.dumps({"max_epochs": 1, "val_split": 0.2}).encode()
    server.request("POST", "/train/scn_hand?run_sync=true", form, "application/json")  # answers when it is trained
    weights = server.root / "bundles" / "scn_hand" / "output" / "monai_label" / "model.pt"
    after = server.infer("scn_hand", "film", tmp_path / "after.mrk.json")
    assert furthest(after, directly(bundle, weights, images["film"][1], tmp_path / "direct")) < 0.01
    started = torch.load(server.root / "bundles" / "scn_hand" / "models" / "model.pt", weights_only=True)
    trained = torch.load(weights, weights_only=True)
    moved = [float((trained[key] - started[key]).abs().max()) for key in started if "weight" in key]
    assert max(moved) > 0  # trained
    assert max(moved) < 0.1  # from the weights that were served, not from new ones
    assert before.read_bytes() != after.read_bytes()  # the server took the new ones


def test_a_packaged_bundle_trains_on_a_saved_volume(server, images, served, tmp_path):
    bundle = served["patch_regression_ccta"]
    item = load_datalist(bundle.dataset, "test")[1]
    affine = nibabel.load(images["oblique"][1]).affine
    server.save_label(true_points(bundle, item, tmp_path / "oblique.mrk.json", affine), "oblique")
    task = server.train("patch_regression_ccta", max_epochs=1)
    assert task["status"] == "DONE", server.log.read_text()[-3000:]
    weights = server.root / "bundles" / "patch_regression_ccta" / "output" / "monai_label" / "model.pt"
    answer = server.infer("patch_regression_ccta", "oblique", tmp_path / "a.mrk.json")
    assert furthest(answer, directly(bundle, weights, images["oblique"][1], tmp_path / "direct")) < 0.01
