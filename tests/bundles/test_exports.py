"""Every bundle through MONAI's verbs for networks: verify_net_in_out, ckpt_export, onnx_export, load."""

import csv
import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import monai
import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import ckpt_export, onnx_export, verify_net_in_out
from monai.data import load_net_with_metadata

import common
from common.handlers import load_weights, read_checkpoint

from .files import columns, table

REPOSITORY = Path(common.__file__).resolve().parents[1]
REAL = REPOSITORY.parent / "shared" / "data"
REAL_IMAGES = {
    "hand": "digital_hand_atlas/images/**/*.*",
    "skull": "isbi2015_cephalometric/RawImage/Test1Data/*.*",
    "spine": "aasce2019_spine/data/**/*.jpg",
    "olfactory_bulbs": "hippocampus_mr/images/*.nii.gz",  # another region in the same kind of image
}


def files(bundle):
    meta_file, config_file = bundle.config_files("metadata", "inference")
    return {"meta_file": meta_file, "config_file": config_file, **bundle.network_settings}


def shapes(bundle):
    """Of images."""
    return bundle.tiny.output.shapes[bundle.tiny.images.dims]


def random_images(bundle):
    """Of several sizes and numbers."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(shape, generator=generator) for shape in shapes(bundle)]


def seen_by_the_network(bundle, path):
    """An image file after the bundle's preprocessing, (1, 1, *spatial)."""
    workflow = bundle.build("inference", dataset_dir=str(path), ckpt_path=str(bundle.weights))
    load_weights(workflow.parser.get_parsed_content("network"), bundle.weights)  # of which a template is part
    (item,) = workflow.dataset
    return item["image"].as_tensor()[None]


def largest_difference(network, exported, images):
    """Over some images, as a share of the largest value of the answer, which for trained heatmaps is about 1."""
    differences = []
    for image in images:
        with torch.no_grad():
            expected = network(image)
            found = exported(image)
        assert expected.abs().max() > 1e-3 and found.shape == expected.shape
        differences.append(float((found - expected).abs().max() / expected.abs().max()))
    return max(differences)


def test_the_metadata_tell_the_multiples_that_the_network_needs(bundle):
    formats = bundle.read("metadata")["network_data_format"]
    size = f"{bundle.tiny.multiple}*n" if bundle.tiny.multiple else "*"
    for tensor in (formats["inputs"]["image"], formats["outputs"]["pred"]):
        assert tensor["spatial_shape"] == bundle.tiny.images.dims * [size]
    assert formats["outputs"]["pred"]["format"] == bundle.tiny.output.format


@pytest.mark.parametrize("n", [1, 3])
def test_the_network_gives_what_the_metadata_says(bundle, n):
    verify_net_in_out(net_id="network_def", device="cpu", n=n, any=17 * n, **files(bundle))


def test_torchscript_equals_pytorch_at_any_size(bundle, tmp_path):
    path = str(tmp_path / "model.ts")
    ckpt_export(net_id="network_def", filepath=path, ckpt_file=str(bundle.weights), **files(bundle))
    scripted, metadata, extra = load_net_with_metadata(path, more_extra_files=("inference.json",))
    assert largest_difference(bundle.network, scripted, random_images(bundle)) < 1e-4
    assert metadata["version"] == bundle.read("metadata")["version"]
    assert json.loads(extra["inference.json"])["landmarks"] == bundle.read("inference")["landmarks"]


def test_landmarks_are_localised_in_torchscript_as_in_pytorch(bundle):
    scripted = torch.jit.script(bundle.network)
    if not hasattr(bundle.network, "localise"):
        assert bundle.tiny.output.format == "heatmap"
        return
    assert largest_difference(bundle.network.localise, scripted.localise, random_images(bundle)) < 1e-5


def export_to_onnx(bundle, path, **options):
    """As a function from images to what `forward` gives."""
    dims = bundle.tiny.images.dims
    axes = {0: "batch", 2: "width", 3: "height", 4: "depth"}
    axes = {axis: name for axis, name in axes.items() if axis < 2 + dims}
    onnx_export(
        net_id="network_def",
        filepath=path,
        ckpt_file=str(bundle.weights),
        input_shape=[2, 1, *(64, 128, 96)[:dims]],
        use_trace=True,
        converter_kwargs={
            "input_names": ["image"],
            "output_names": ["pred"],
            "dynamic_axes": {"image": axes, "pred": axes},
            **options,
        },
        **files(bundle),
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: torch.as_tensor(session.run(["pred"], {"image": image.numpy()})[0])


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    """Function from a bundle to its exported network, written once."""

    @functools.cache
    def export(bundle):
        path = tmp_path_factory.mktemp("onnx") / "model.onnx"
        # torch's other exporter takes 40 times as long and fails on dynamic sizes of FARNet
        return path, export_to_onnx(bundle, str(path), dynamo=False)

    return export


def test_onnx_with_dynamic_axes_equals_pytorch_at_any_size(bundle, onnx_file):
    assert largest_difference(bundle.network, onnx_file(bundle)[1], random_images(bundle)) < 1e-4


def test_onnx_equals_pytorch_on_a_phantom(bundle, onnx_file):
    image = seen_by_the_network(bundle, bundle.image("test_001"))
    assert largest_difference(bundle.network, onnx_file(bundle)[1], [image]) < 1e-4


def test_onnx_equals_pytorch_on_a_real_image(bundle, onnx_file):
    if bundle.tiny.anatomy not in REAL_IMAGES:
        pytest.skip(f"there are no real images for {bundle.name}")
    path = next(iter(sorted(REAL.glob(REAL_IMAGES[bundle.tiny.anatomy]))), None)
    if path is None:
        pytest.skip(f"{REAL / REAL_IMAGES[bundle.tiny.anatomy]} is not there")
    assert largest_difference(bundle.network, onnx_file(bundle)[1], [seen_by_the_network(bundle, path)]) < 1e-4


@pytest.mark.parametrize(
    "name, margin",
    [("scn_hand", None), ("farnet_cephalometric", None), ("farnet_hand", 8)],  # fits the film into a size, stretches it
)
def test_the_script_without_torch_finds_the_points_of_the_bundle(tiny_bundles, onnx_file, tmp_path, name, margin):
    bundle = tiny_bundles[name]
    script = REPOSITORY / "docs" / "onnx_prediction.py"
    assert len(script.read_text().splitlines()) <= 60
    settings = {} if margin is None else {"margin": margin}
    (tmp_path / "tiny.json").write_text(json.dumps(bundle.network_settings | settings))
    prediction = bundle.prediction
    if settings:
        bundle.predict(bundle.image("test_001"), prediction := tmp_path / "prediction", overlays=False, **settings)
    arguments = [
        onnx_file(bundle)[0],
        *bundle.config_files("inference"),
        tmp_path / "tiny.json",
        bundle.image("test_001"),
    ]
    code = (
        f"import runpy, sys; sys.argv = {['script', *map(str, arguments)]}; "
        f"runpy.run_path({str(script)!r}, run_name='__main__'); "
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'monai', 'common')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "[]\n", done.stderr
    rows, expected = list(csv.DictReader(done.stdout.splitlines())), table(prediction / "landmarks.csv")
    assert [row["name"] for row in rows] == [row["name"] for row in expected]
    assert np.abs(columns(rows, "pixel", 2) - columns(expected, "pixel", 2)).max() < 0.05
    assert np.allclose(*([float(row["confidence"]) for row in each] for each in (rows, expected)), atol=2e-3)


def test_the_exporter_that_torch_takes_by_itself_gives_the_same(scn_hand, tmp_path):
    exported = export_to_onnx(scn_hand, str(tmp_path / "model.onnx"))
    assert largest_difference(scn_hand.network, exported, random_images(scn_hand)) < 1e-4


@pytest.mark.parametrize("workflow_type", ["train", "inference"])
def test_load_gives_the_network_with_its_weights(bundle, workflow_type, tmp_path):
    configs = tmp_path / bundle.name / "configs"
    shutil.copytree(bundle.folder / "configs", configs)
    for path in (configs / "train.json", configs / "inference.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), **bundle.network_settings}))
    (tmp_path / bundle.name / "models").mkdir()
    shutil.copy(bundle.weights, tmp_path / bundle.name / "models" / "model.pt")

    network = monai.bundle.load(bundle.name, bundle_dir=str(tmp_path), workflow_type=workflow_type, device="cpu").eval()
    with torch.no_grad():
        pred = network(torch.zeros(1, 1, *[64] * bundle.tiny.images.dims))

    assert pred.shape == bundle.tiny.output.shape(bundle.read("inference"), [64] * bundle.tiny.images.dims)
    assert f"common.networks.{type(network).__name__}" == bundle.read("inference")["network_def"]["_target_"]
    saved, loaded = read_checkpoint(bundle.weights), network.state_dict()
    assert set(loaded) == set(saved)
    assert [key for key, value in saved.items() if not torch.equal(loaded[key], value)] == []
