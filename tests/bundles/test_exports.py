"""Every bundle through MONAI's verbs for networks: verify_net_in_out, ckpt_export, onnx_export, load."""

import json
import shutil

import monai
import onnxruntime
import pytest
import torch
from monai.bundle import ckpt_export, onnx_export, verify_net_in_out
from monai.data import load_net_with_metadata

from common.handlers import read_checkpoint


def files(bundle):
    meta_file, config_file = bundle.config_files("metadata", "inference")
    return {"meta_file": meta_file, "config_file": config_file, **bundle.network_settings}


def shapes(bundle):
    """Of images."""
    return bundle.tiny.output.shapes[bundle.tiny.images.dims]


def largest_difference(network, exported, shapes):
    """Over images of several sizes; the answers must not be so low that they would agree anyhow."""
    generator = torch.Generator().manual_seed(0)
    differences = []
    for shape in shapes:
        image = torch.rand(shape, generator=generator)
        with torch.no_grad():
            expected = network(image)
            found = exported(image)
        assert expected.abs().max() > 1e-3 and found.shape == expected.shape
        differences.append(float((found - expected).abs().max()))
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
    assert largest_difference(bundle.network, scripted, shapes(bundle)) < 1e-4
    assert metadata["version"] == bundle.read("metadata")["version"]
    assert json.loads(extra["inference.json"])["landmarks"] == bundle.read("inference")["landmarks"]


def test_landmarks_are_localised_in_torchscript_as_in_pytorch(bundle):
    scripted = torch.jit.script(bundle.network)
    if not hasattr(bundle.network, "localise"):
        assert bundle.tiny.output.format == "heatmap"
        return
    assert largest_difference(bundle.network.localise, scripted.localise, shapes(bundle)) < 1e-3


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


def test_onnx_with_dynamic_axes_equals_pytorch_at_any_size(bundle, tmp_path):
    # torch's other exporter takes 40 times as long and fails on dynamic sizes of FARNet
    exported = export_to_onnx(bundle, str(tmp_path / "model.onnx"), dynamo=False)
    assert largest_difference(bundle.network, exported, shapes(bundle)) < 1e-4


def test_the_exporter_that_torch_takes_by_itself_gives_the_same(scn_hand, tmp_path):
    exported = export_to_onnx(scn_hand, str(tmp_path / "model.onnx"))
    assert largest_difference(scn_hand.network, exported, shapes(scn_hand)) < 1e-4


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
