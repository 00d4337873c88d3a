import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, EnsureTyped, Lambdad, RandGaussianNoised, ScaleIntensityd
from torch import nn

from common.handlers.settings_digest import file_digest, settings_digest


def transforms(maxv=1.0, device="cpu", seed=0, function=lambda x: x + 1):
    noise = RandGaussianNoised("image").set_random_state(seed)
    parts = [ScaleIntensityd("image", maxv=maxv), EnsureTyped("image", device=torch.device(device)), noise]
    return Compose([*parts, Lambdad("image", function)])


def network(filters=4, dilation=1):
    return nn.Sequential(nn.Conv2d(1, filters, 3, dilation=dilation), nn.ModuleDict({"norm": nn.BatchNorm2d(filters)}))


def test_what_gives_the_same_results_has_one_digest():
    digest = settings_digest(["tip"], transforms(), network())
    assert settings_digest(["tip"], transforms(device="meta", seed=1), network().eval()) == digest
    assert settings_digest(("tip",), transforms(), network()) == digest
    assert len(digest) == 64


@pytest.mark.parametrize("other", [
    (["base"], transforms(), network()),
    (["tip"], transforms(maxv=2.0), network()),
    (["tip"], transforms(function=lambda x: x + 2), network()),
    (["tip"], transforms(), network(filters=5)),
    (["tip"], transforms(), network(dilation=2)),
    (["tip"], transforms(), None),
])  # fmt: skip
def test_other_settings_have_another_digest(other):
    assert settings_digest(*other) != settings_digest(["tip"], transforms(), network())


def scaled_by(factor):
    return lambda x: x * factor


def of_config(gain):
    """A function that a user's overlay may hold, with another setting in it."""
    parser = ConfigParser({"gain": gain, "part": {"_target_": "Lambda", "func": "$lambda x: (lambda y: y * @gain)(x)"}})
    return parser.get_parsed_content("part")


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def apply(self, x):
        return x * self.factor


@pytest.mark.parametrize("make", [
    scaled_by,
    of_config,
    lambda factor: partial(pow, factor),
    lambda factor: Scale(factor).apply,
    lambda factor: eval(f"lambda x, by={factor}: x * by"),
    lambda factor: eval(f"lambda x, *, by={factor}: x * by"),
])  # fmt: skip
def test_what_a_function_captures_counts(make):
    assert settings_digest(make(2.0)) == settings_digest(make(2.0)) != settings_digest(make(3.0))


def test_values_of_all_kinds_are_told_apart():
    values = [0, 0.5, "0", b"0", None, True, [], {"a": 1}, {"a", "b"}, {"a", "c"}, torch.float16, np.float32(3), len,
              np.zeros(3), np.ones(3), np.zeros((3, 1)), torch.zeros(3, dtype=torch.float64), max, int]  # fmt: skip
    digests = [settings_digest(value) for value in values]
    same = [(i, j) for i in range(len(values)) for j in range(i) if digests[i] == digests[j]]
    assert same == [(16, 13)]  # an array and a tensor of the same values
    holds_itself = []
    holds_itself.append(holds_itself)
    assert settings_digest(holds_itself) == settings_digest(holds_itself)


def test_a_digest_is_the_same_in_every_process():
    function = "lambda x: (lambda y: y in {'p', 'q', 'r'})(x)"
    code = (
        "from common.handlers.settings_digest import settings_digest; "
        f"print(settings_digest({{'b', 'a', 'c'}}, {{'y': 1, 'x': len}}, {function}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": "7"})
    nested = eval(function, {"__name__": "__main__"})
    assert found.stdout.strip() == settings_digest({"c", "a", "b"}, {"x": len, "y": 1}, nested), found.stderr


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
