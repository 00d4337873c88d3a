import logging

import pytest
import torch

from common.errors import InputError
from common.inferers import AutocastInferer, autocast


@pytest.fixture(autouse=True)
def cpu_with_bfloat16(monkeypatch):
    monkeypatch.setattr(autocast, "cpu_computes_bfloat16", lambda: True)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_convolution_is_computed_in_the_type_that_was_asked_for(dtype):
    network = torch.nn.Conv2d(1, 2, 3)
    with torch.no_grad():
        result = AutocastInferer(dtype)(torch.rand(1, 1, 8, 8), network)
    assert result.dtype == getattr(torch, dtype)
    assert network.weight.dtype == torch.float32


def test_single_precision_means_no_autocast_even_within_one():
    with torch.autocast("cpu", torch.bfloat16):
        result = AutocastInferer("float32")(torch.rand(1, 1, 8, 8), torch.nn.Conv2d(1, 2, 3))
    assert result.dtype == torch.float32


def test_gradients_pass_through_to_the_weights():
    network = torch.nn.Conv2d(1, 2, 3)
    AutocastInferer("bfloat16")(torch.rand(1, 1, 8, 8), network).float().sum().backward()
    assert network.weight.grad.dtype == torch.float32 and (network.weight.grad != 0).any()


def test_a_training_in_float16_is_refused_for_want_of_a_gradient_scaler():
    with pytest.raises(InputError, match="--training_dtype bfloat16"):
        AutocastInferer("float16")(torch.rand(1, 1, 8, 8), torch.nn.Conv2d(1, 2, 3))


def test_further_arguments_reach_the_network():
    result = AutocastInferer("float32")(torch.ones(1), lambda x, factor, plus=0: x * factor + plus, 3, plus=1)
    assert result.item() == 4


@pytest.mark.parametrize("supported", [True, False])
def test_bfloat16_is_float32_where_the_cpu_would_emulate_it(monkeypatch, caplog, supported):
    monkeypatch.undo()  # of the fixture
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    autocast.cpu_computes_bfloat16.cache_clear()
    inferer = AutocastInferer("bfloat16")
    with caplog.at_level(logging.WARNING):
        types = {inferer(torch.rand(1, 1, 8, 8), torch.nn.Conv2d(1, 2, 3)).dtype for _ in range(2)}
    autocast.cpu_computes_bfloat16.cache_clear()
    assert types == {torch.bfloat16 if supported else torch.float32}
    warnings = [] if supported else ["This CPU has no instructions for bfloat16: float32 is taken instead."]
    assert caplog.messages == warnings
