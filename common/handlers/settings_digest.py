"""Settings of a prediction as one short text: what makes its results others than those of other settings."""

import hashlib
import json
from enum import Enum
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import nn


def settings_digest(*settings: Any) -> str:
    """SHA-256 of what some objects of a config are made of, the same in every process.

    Objects count by their class and public attributes, networks by their modules and the shapes of their weights (not
    by their values, which a file has), functions by their name, code and what they capture, also of a config
    (`"$lambda x: x * @gain"`). Devices and random states do not count.
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
    if isinstance(value, FunctionType):
        captured = [cell.cell_contents for cell in value.__closure__ or ()]
        references = value.__globals__.get("__local_refs", {})  # where MONAI keeps what a config's expression refers to
        captured += [references[name] for name in _texts(value.__code__) if name in references]
        kept = [captured, value.__defaults__, value.__kwdefaults__]
        return [_name(value), _described_code(value.__code__), _described(kept, above)]
    if isinstance(value, MethodType):
        return [_name(value), _described(value.__self__, above)]
    if isinstance(value, partial):
        return ["partial", _described([value.func, value.args, value.keywords], above)]
    if isinstance(value, (type, BuiltinFunctionType)):
        return _name(value)
    attributes = {key: each for key, each in getattr(value, "__dict__", {}).items() if not key.startswith("_")}
    if isinstance(value, nn.Module):
        del attributes["training"]
        own = [*value.named_parameters(recurse=False), *value.named_buffers(recurse=False)]
        attributes["shapes of weights"] = {key: tuple(tensor.shape) for key, tensor in own}
        attributes["parts"] = dict(value.named_children())
    return [_name(type(value)), _described(attributes, above)]


def _described_code(code: CodeType) -> list[Any]:
    """JSON that tells code, with that of the functions in it, whose `repr` would tell their place in memory."""
    constants = [
        _described_code(each) if isinstance(each, CodeType) else [_name(type(each)), _described(each, ())]
        for each in code.co_consts
    ]
    return [code.co_code.hex(), str(code.co_names), constants]


def _texts(code: CodeType) -> list[str]:
    """Texts that stand in code and in that of the functions in it."""
    inner = [text for each in code.co_consts if isinstance(each, CodeType) for text in _texts(each)]
    return [each for each in code.co_consts if isinstance(each, str)] + inner


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
