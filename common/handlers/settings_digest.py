"""Settings of a prediction as one short text: what makes its results others than those of other settings."""

import hashlib
import json
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import nn


def settings_digest(*settings: Any) -> str:
    """SHA-256 of what some objects of a config are made of, the same in every process.

    Objects count by their class and public attributes, networks by their modules and the shapes of their weights (not
    by their values, which a file has), functions by their name and code. Devices and random states do not count.
    """
    return hashlib.sha256(json.dumps(_described(settings, ())).encode()).hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _described(value: Any, above: tuple[int, ...]) -> Any:
    """JSON that tells a value; `above` are the objects that hold it, which are not told again."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (torch.device, np.random.RandomState, np.random.Generator, torch.Generator)):
        return None
    if isinstance(value, (bytes, Path, Enum, torch.dtype, np.dtype, np.generic)):
        return str(value)
    if isinstance(value, (torch.Tensor, np.ndarray)):
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        return [str(array.dtype), array.shape, hashlib.sha256(np.ascontiguousarray(array)).hexdigest()]
    if id(value) in above:
        return "itself"
    above = (*above, id(value))
    if isinstance(value, dict):
        return [[str(key), _described(value[key], above)] for key in sorted(value, key=str)]
    if isinstance(value, (list, tuple)):
        return [_described(each, above) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(_described(each, above)) for each in value)
    if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        code = getattr(value, "__code__", None)
        return [_name(value), *([code.co_code.hex(), str(code.co_names), repr(code.co_consts)] if code else [])]
    attributes = {key: each for key, each in getattr(value, "__dict__", {}).items() if not key.startswith("_")}
    if isinstance(value, nn.Module):
        del attributes["training"]
        own = [*value.named_parameters(recurse=False), *value.named_buffers(recurse=False)]
        attributes["shapes of weights"] = {key: tuple(tensor.shape) for key, tensor in own}
        attributes["parts"] = dict(value.named_children())
    return [_name(type(value)), _described(attributes, above)]


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
