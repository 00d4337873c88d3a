"""Trained weights into the folder from which a bundle takes them, in half precision."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import InputError
from ..handlers import load_weights, save_atomically
from .check import network_of
from .location import bundle_path
from .package import read_overlay

LARGEST = 25e6  # bytes of a file that a repository holds without git-lfs


def ship(weights: str, name: str, overlay: str | Sequence[str] | None = None) -> Path:
    """Write weights to `models/model.pt` of a bundle, or to `models/model_OVERLAY.pt`, for packages and predictions.

    Kernels are stored in half precision, biases, norms and buffers as they are; reading the file gives a network in
    single precision. Evaluate it afterwards: rounding moves landmarks a little.

    Args:
        weights: `model.pt` of a training (its best epoch by the validation list), or `checkpoint.pt` (its last epoch).
        name: a bundle of the repository, or its folder.
        overlay: the config that it was trained with, without `.json`; several by their order.

    Returns:
        the file that was written.

    Raises:
        InputError: if there is no such bundle or overlay, the weights belong to another network, are not finite or
            exceed the range of half precision, or would take more than 25 MB.
    """
    folder = bundle_path(name)
    overlays = [overlay] if isinstance(overlay, str) else list(overlay or ())
    for each in overlays:
        if Path(each).name != each or each.endswith(".json"):
            raise InputError(f"{each}: is a path; give the name of a config of {folder.name}, such as slim.")
        read_overlay(folder, each)
    network = network_of(folder, "inference", *overlays)
    load_weights(network, weights)
    kernels = {key for key, parameter in network.named_parameters() if parameter.ndim > 1}
    state = {key: value.half() if key in kernels else value for key, value in network.state_dict().items()}
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise InputError(f"{weights}: holds values that are no finite numbers in half precision; train it again.")
    size = sum(value.numel() * value.element_size() for value in state.values())
    if size > LARGEST:
        raise InputError(
            f"{weights}: takes {size / 1e6:.0f} MB in half precision, more than {LARGEST / 1e6:.0f}; ship the weights "
            "of an overlay with a smaller network."
        )
    path = folder / "models" / f"{'_'.join(['model', *overlays])}.pt"
    path.parent.mkdir(exist_ok=True)
    save_atomically(state, path)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {parameters:,} parameters")
    return path
