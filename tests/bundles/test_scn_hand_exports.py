"""scn_hand through MONAI's verbs: verify_net_in_out, ckpt_export, onnx_export, load."""

import json
import shutil

import monai
import onnxruntime
import pytest
import torch
from monai.bundle import ckpt_export, onnx_export, verify_net_in_out
from monai.data import load_net_with_metadata

from common.networks import SpatialConfigurationNet

SHAPES = [(1, 1, 64, 64), (2, 1, 96, 32)]


@pytest.fixture(scope="module")
def files(scn_hand):
    configs = scn_hand.folder / "configs"
    return {"meta_file": str(configs / "metadata.json"), "config_file": str(configs / "inference.json")}


@pytest.fixture(scope="module")
def model(scn_hand, trained):
    """The trained tiny network with peaks that differ from 1, and its weights."""
    workflow = scn_hand.build("inference", workflow_type="infer", ckpt_path=str(trained / "model.pt"))
    network = workflow.network_def
    network.unit_peak.expected_peak.copy_(torch.linspace(0.5, 2, 37))
    return network.eval()


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(model.state_dict(), path)
    return str(path)


def images():
    generator = torch.Generator().manual_seed(0)
    return [2 * torch.rand(shape, generator=generator) - 1 for shape in SHAPES]


def largest_difference(network, exported):
    """Over images of several sizes, and over the largest heatmap value, so that it is not met by vanishing ones."""
    differences = []
    for image in images():
        with torch.no_grad():
            expected = network(image)
        assert expected.abs().max() > 1e-3
        differences.append(float((exported(image) - expected).abs().max()))
    return max(differences)


@pytest.mark.parametrize("n", [1, 4])
def test_the_network_gives_what_the_metadata_says(files, n):
    verify_net_in_out(net_id="network_def", device="cpu", n=n, **files)


def test_torchscript_equals_pytorch_at_any_size(scn_hand, files, model, weights, tmp_path):
    path = str(tmp_path / "model.ts")
    ckpt_export(net_id="network_def", filepath=path, ckpt_file=weights, **files, **scn_hand.network_settings)
    scripted, metadata, extra = load_net_with_metadata(path, more_extra_files=("inference.json",))
    with torch.no_grad():
        assert largest_difference(model, scripted) < 1e-4
    assert metadata["version"] == json.loads((scn_hand.folder / "configs" / "metadata.json").read_text())["version"]
    assert json.loads(extra["inference.json"])["landmarks"][1] == "ulna_styloid"


def test_onnx_with_dynamic_axes_equals_pytorch_at_any_size(scn_hand, files, model, weights, tmp_path):
    axes = {0: "batch", 2: "width", 3: "height"}
    converter = {"input_names": ["image"], "output_names": ["pred"], "dynamic_axes": {"image": axes, "pred": axes}}
    path = str(tmp_path / "model.onnx")
    onnx_export(
        net_id="network_def",
        filepath=path,
        ckpt_file=weights,
        input_shape=[2, 1, 64, 128],
        converter_kwargs=converter,
        **files,
        **scn_hand.network_settings,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(image):
        return torch.as_tensor(session.run(["pred"], {"image": image.numpy()})[0])

    assert largest_difference(model, run) < 1e-4


@pytest.mark.parametrize("workflow_type", ["train", "inference"])
def test_load_gives_the_network_with_its_weights(scn_hand, tmp_path, workflow_type):
    bundles = tmp_path / "bundles"
    shutil.copytree(scn_hand.folder / "configs", bundles / "scn_hand" / "configs")
    (bundles / "scn_hand" / "models").mkdir()
    own = SpatialConfigurationNet(2, 1, 37, **{"num_filters": 8, "spatial_filters": 8, "spatial_kernel_size": 3})
    torch.save(own.state_dict(), bundles / "scn_hand" / "models" / "model.pt")
    network = monai.bundle.load(
        "scn_hand",
        bundle_dir=str(bundles),
        workflow_type=workflow_type,
        device="cpu",
        net_override={"num_filters": 8, "spatial_filters": 8, "spatial_kernel_size": 3},
    )
    assert type(network) is SpatialConfigurationNet
    loaded = network.state_dict()
    assert set(loaded) == set(own.state_dict())
    assert all(torch.equal(loaded[key], value) for key, value in own.state_dict().items())
