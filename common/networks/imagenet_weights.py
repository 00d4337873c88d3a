"""Weights of ImageNet for an encoder whose arrays are x first."""

import http.client
import os
import pickle
import re
from pathlib import Path

import torch
from torch import nn

from ..errors import InputError
from .tapped_encoder import TappedEncoder

# torchvision's files
WEIGHTS = {
    "densenet121": "densenet121-a639ec97.pth",
    "densenet169": "densenet169-b2777c0a.pth",
    "densenet201": "densenet201-c1103571.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
}
URL = "https://download.pytorch.org/models/"


def load_imagenet_weights(network: nn.Module, source: str | os.PathLike = "hub") -> nn.Module:
    """Load torchvision's ImageNet weights into the encoder of a 2D network, and return the network.

    Every tensor of the encoder must be in the file, with its shape, and nothing else but the classifier. Kernels
    are transposed, because images are x first here and rows first in torchvision. A network that is made for a
    model file needs no such call; a training calls it in its configuration's `network`.

    Args:
        network: a `TappedEncoder` or a network with one as `encoder`.
        source: "hub", torch's hub cache, and pytorch.org where the file is not there yet; a path of a state
            dictionary of torchvision; or "random", which leaves the network as it is.

    Raises:
        InputError: when there is no such file, it is not the state dictionary of this backbone, or the network is 3D.
    """
    if source == "random":
        return network
    encoder = network if isinstance(network, TappedEncoder) else network.encoder
    if encoder.spatial_dims != 2 or encoder.backbone not in WEIGHTS:
        raise InputError(
            f"There are no ImageNet weights for '{encoder.backbone}' in {encoder.spatial_dims}D: set encoder_weights "
            f'to "random", or take one of {", ".join(WEIGHTS)} in 2D.'
        )
    if source == "hub":
        source, state = hub_state(WEIGHTS[encoder.backbone], encoder.backbone)
    else:
        state = read_state(Path(source))
    encoder.load_state_dict(x_first_state(state, encoder, str(source)))
    return network


def hub_state(file_name: str, backbone: str) -> tuple[str, dict[str, torch.Tensor]]:
    """File and state dictionary in torch's hub cache; downloaded where no file of the backbone is there."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    cached = [folder / file_name, *sorted(folder.glob(f"{backbone}-*.pth"))]
    for path in cached:
        if path.is_file():
            return str(path), read_state(path)
    try:
        state = torch.hub.load_state_dict_from_url(
            URL + file_name, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise InputError(
            f"{folder / file_name} is missing and {URL + file_name} could not be downloaded ({error}): download it "
            'where there is a network and put it there, set encoder_weights to its path, or to "random" to train '
            "without ImageNet weights."
        ) from error
    return str(folder / file_name), state


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """State dictionary of a file."""
    if not path.is_file():
        raise InputError(
            f"{path} with ImageNet weights does not exist: set encoder_weights to torchvision's file, to "
            '"hub" or to "random".'
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {str(key): torch.as_tensor(value) for key, value in state.items()}
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not a state dictionary of torch: give the file that torchvision publishes."
        ) from error


def x_first_state(state: dict[str, torch.Tensor], encoder: TappedEncoder, source: str) -> dict[str, torch.Tensor]:
    """State of the encoder from torchvision's: names translated, kernels transposed, everything checked."""
    state = {modern_name(key): value for key, value in state.items() if not re.match(r"(classifier|fc)\.", key)}
    current = encoder.state_dict()
    names = {torchvision_name(key, encoder.backbone): key for key in current}
    if not any(key.endswith("running_mean") for key in current):  # instance norm has no running statistics
        state = {key: v for key, v in state.items() if not re.search(r"\.(running_\w+|num_batches_tracked)$", key)}
    translated, wrong = {}, sorted(state.keys() - names.keys())
    for name, key in names.items():
        if name in state and state[name].shape == current[key].shape:
            value = state[name]
            translated[key] = value.transpose(-1, -2).contiguous() if value.ndim == 4 else value
        elif name.endswith("num_batches_tracked") and name not in state:  # files older than this counter
            translated[key] = current[key]
        else:
            wrong.append(name)
    if wrong:
        raise InputError(
            f"{source} does not hold ImageNet weights of {encoder.backbone}: {len(wrong)} tensors are missing, of "
            f"another shape or unknown, the first is '{wrong[0]}'; give torchvision's file of this backbone."
        )
    return translated


def modern_name(key: str) -> str:
    """`denselayer1.norm.1.weight` of torchvision's files is `denselayer1.norm1.weight` in its networks."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key)


def torchvision_name(key: str, backbone: str) -> str:
    """Name in torchvision of a tensor of a `TappedEncoder`."""
    name = re.sub(r"^stages\.\d+\.", "", key)
    return "features." + name.replace(".layers.", ".") if backbone.startswith("densenet") else name
