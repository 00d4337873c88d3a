"""The template of a network, made of its training films."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tqdm import tqdm

from ..errors import InputError
from .landmark_loading import load_annotated
from .template_registration import average_template, make_template


def fit_template(
    network: torch.nn.Module,
    data: Sequence[Mapping[str, Any]],
    landmarks: Sequence[str],
    num_films: int = 20,
    margin: float = 0.15,
) -> torch.nn.Module:
    """Fill the template of a network from training films, and return the network.

    The first film, cut so that it shows all landmarks, is the template of reddy (Section IV-A); the average of
    `num_films` films registered to it shows no single patient and takes its place. A template that is there already,
    as with the weights from which a training starts, is left as it is.

    Args:
        network: with the buffers `template` (1, W, H) and `template_window` (4,).
        data: items of a datalist, as `common.data.load_datalist` gives them.
        landmarks: names of the landmarks.
        num_films: films whose average is taken, evenly spaced in the list; 1 for the first film alone, as the paper.
        margin: around the landmarks of the first film (`make_template`).

    Raises:
        InputError: if a film cannot be read, or the first one has no landmarks.
    """
    if num_films < 1:
        raise InputError(f"A template of {num_films} films cannot be made: set template_films to 1 or more.")
    if network.template.any():
        return network
    first, label = load_annotated(data[0], landmarks)
    template = make_template(first, label, network.template.shape[1:], margin)
    if num_films > 1:
        step = max(1, len(data) // num_films)
        films = tqdm(data[::step][:num_films], desc="template", unit="film", leave=False)
        template = average_template((load_annotated(item, landmarks)[0] for item in films), template)
    network.template.copy_(template.image)
    network.template_window.copy_(template.window)
    return network
