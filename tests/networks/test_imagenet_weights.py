"""ImageNet weights: all of them or none, with kernels for arrays that are x first."""

import re
import urllib.error

import pytest
import torch
from monai.networks.nets import DenseNet121

from common.errors import InputError
from common.networks import FARNet, TappedEncoder, load_imagenet_weights


@pytest.fixture(scope="module")
def published():
    """A DenseNet-121 with random weights and statistics, rows first, and its state with torchvision's names."""
    torch.manual_seed(0)
    network = DenseNet121(2, 3, 1000).eval()
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    state = {}
    for name, tensor in network.state_dict().items():
        name = re.sub(r"(denselayer\d+)\.layers\.", r"\1.", name).replace("class_layers.out", "classifier")
        state[name] = tensor
    assert len(state) == 727  # torchvision's densenet121: 120 convolutions, 121 norms of five tensors, a classifier
    assert (
        "features.denseblock4.denselayer16.norm2.running_var" in state and "features.transition1.conv.weight" in state
    )
    return network, state


def old_style(state):
    """As in the file that torchvision publishes: `norm.1` for `norm1`, and from before the counter of batches."""
    renamed = {re.sub(r"(denselayer\d+\.\w+)([12])\.", r"\1.\2.", name): tensor for name, tensor in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in renamed
    return {name: tensor for name, tensor in renamed.items() if "num_batches_tracked" not in name}


@pytest.mark.parametrize("style", [dict, old_style])
def test_a_transposed_image_gives_the_transposed_features_of_torchvisions_network(published, tmp_path, style):
    network, state = published
    torch.save(style(state), tmp_path / "densenet121.pth")
    encoder = load_imagenet_weights(TappedEncoder(2, 3, "densenet121"), tmp_path / "densenet121.pth").eval()
    rows_first = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        first = network.features.conv0(rows_first)
        last = network.features(rows_first)
        features = encoder(rows_first.transpose(2, 3))
    torch.testing.assert_close(features[0], first.transpose(2, 3), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(features[4], last.transpose(2, 3), atol=1e-4, rtol=1e-3)
    kernel = encoder.stages[0].conv0.weight
    assert torch.equal(kernel, state["features.conv0.weight"].transpose(2, 3)) and kernel.is_contiguous()


def test_they_are_loaded_into_the_encoder_of_a_network_and_nothing_else_changes(published, tmp_path):
    _, state = published
    torch.save(old_style(state), tmp_path / "densenet121.pth")
    network = FARNet(2, 1, 3, num_filters=16)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert load_imagenet_weights(network, str(tmp_path / "densenet121.pth")) is network
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("encoder.") for name in changed)
    convolutions = {name for name in before if name.startswith("encoder.") and before[name].ndim == 4}
    assert len(convolutions) == 120 and convolutions <= changed


def test_instance_norm_takes_its_weights_and_leaves_the_running_statistics(published, tmp_path):
    _, state = published
    torch.save(old_style(state), tmp_path / "densenet121.pth")
    network = FARNet(2, 1, 3, num_filters=16, norm="instance")
    load_imagenet_weights(network, tmp_path / "densenet121.pth")
    assert torch.equal(network.encoder.stages[0].conv0.weight, state["features.conv0.weight"].transpose(2, 3))
    assert torch.equal(network.encoder.stages[1].norm0.bias, state["features.norm0.bias"])


def test_a_file_in_the_hub_cache_is_found(published, tmp_path, monkeypatch):
    _, state = published
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(old_style(state), tmp_path / "checkpoints" / "densenet121-a639ec97.pth")
    encoder = load_imagenet_weights(TappedEncoder(2, 3, "densenet121"))
    assert torch.equal(encoder.stages[4].norm5.bias, state["features.norm5.bias"])


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("features.denseblock2.denselayer3.conv2.weight"),
        lambda state: state.pop("features.norm0.running_var"),
        lambda state: state.update({"features.denseblock5.weight": torch.ones(3)}),
        lambda state: state.update({"features.conv0.weight": torch.ones(64, 1, 7, 7)}),
    ],
)
def test_incomplete_and_foreign_files_are_refused_and_leave_the_encoder_as_it_was(published, tmp_path, change):
    state = dict(published[1])
    change(state)
    torch.save(state, tmp_path / "weights.pth")
    encoder = TappedEncoder(2, 3, "densenet121")
    before = encoder.stages[0].conv0.weight.clone()
    with pytest.raises(InputError, match="weights.pth does not hold ImageNet weights of densenet121: 1 tensors"):
        load_imagenet_weights(encoder, tmp_path / "weights.pth")
    assert torch.equal(encoder.stages[0].conv0.weight, before)


def test_weights_of_another_densenet_are_refused(published, tmp_path):
    torch.save(published[1], tmp_path / "densenet121.pth")
    with pytest.raises(InputError, match="does not hold ImageNet weights of densenet169"):
        load_imagenet_weights(TappedEncoder(2, 3, "densenet169"), tmp_path / "densenet121.pth")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
def test_files_that_torch_cannot_read_are_refused(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(InputError, match="weights.pth is not a state dictionary"):
        load_imagenet_weights(TappedEncoder(2, 3, "resnet18"), tmp_path / "weights.pth")


def test_resnets_keep_torchvisions_names(tmp_path):
    encoder = TappedEncoder(2, 3, "resnet50")
    state = {re.sub(r"^stages\.\d\.", "", name): torch.rand(t.shape) for name, t in encoder.state_dict().items()}
    assert len(state) + 2 == 320  # torchvision's resnet50: 53 convolutions, 53 norms of five tensors, fc
    assert {"conv1.weight", "bn1.bias", "layer1.0.downsample.1.running_var", "layer4.2.conv3.weight"} <= state.keys()
    torch.save({**state, "fc.weight": torch.ones(1000, 2048), "fc.bias": torch.ones(1000)}, tmp_path / "resnet50.pth")
    load_imagenet_weights(encoder, tmp_path / "resnet50.pth")
    assert torch.equal(encoder.stages[1].layer1[0].conv2.weight, state["layer1.0.conv2.weight"].transpose(2, 3))


def test_without_file_and_network_the_message_says_what_to_do(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(InputError, match='densenet121-a639ec97.pth is missing .* "random"'):
        load_imagenet_weights(TappedEncoder(2, 3, "densenet121"))


def test_a_path_that_does_not_exist_is_told(tmp_path):
    with pytest.raises(InputError, match="mine.pth with ImageNet weights does not exist"):
        load_imagenet_weights(TappedEncoder(2, 3, "resnet18"), tmp_path / "mine.pth")


def test_random_weights_stay_when_they_are_asked_for():
    encoder = TappedEncoder(3, 3, "resnet18")
    before = encoder.stages[0].conv1.weight.clone()
    assert load_imagenet_weights(encoder, "random") is encoder
    assert torch.equal(encoder.stages[0].conv1.weight, before)


@pytest.mark.parametrize(("spatial_dims", "backbone"), [(3, "resnet18"), (2, "efficientnet-b0")])
def test_networks_without_published_weights_say_so(spatial_dims, backbone):
    with pytest.raises(InputError, match="no ImageNet weights"):
        load_imagenet_weights(TappedEncoder(spatial_dims, 3, backbone))
