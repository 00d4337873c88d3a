"""Weights of a training become those that a bundle ships."""

import shutil

import pytest
import torch

from common.bundle.check import network_of
from common.bundle.location import bundle_folder
from common.bundle.ship import ship
from common.errors import InputError
from common.handlers import load_weights


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of a bundle without its weights, found in place of those of the repository."""
    ignored = shutil.ignore_patterns("output", "models")
    copy = shutil.copytree(bundle_folder("scn_hand"), tmp_path / "bundles" / "scn_hand", ignore=ignored)
    monkeypatch.setattr("common.bundle.location.PACKAGE", tmp_path / "common")
    return copy


@pytest.mark.parametrize("overlay", ["slim", ["cpu", "quick"]])
def test_the_network_is_the_same_to_half_precision(folder, overlay, tmp_path, capsys):
    overlays = [overlay] if isinstance(overlay, str) else overlay
    torch.manual_seed(0)
    trained = network_of(folder, "inference", *overlays)
    trained.unit_peak.expected_peak.fill_(0.123456)
    torch.save({"model": trained.state_dict()}, tmp_path / "checkpoint.pt")
    path = ship(str(tmp_path / "checkpoint.pt"), "scn_hand" if overlay == "slim" else str(folder), overlay)
    assert path == folder / "models" / f"model_{'_'.join(overlays)}.pt"
    assert path.stat().st_size < 0.6 * (tmp_path / "checkpoint.pt").stat().st_size
    shipped = network_of(folder, "inference", *overlays)
    load_weights(shipped, path)
    for name, tensor in trained.state_dict().items():
        torch.testing.assert_close(shipped.state_dict()[name], tensor, rtol=2**-11, atol=2**-25)
    assert torch.equal(shipped.unit_peak.expected_peak, trained.unit_peak.expected_peak)
    assert f"{sum(p.numel() for p in trained.parameters()):,} parameters" in capsys.readouterr().out


def test_what_cannot_be_shipped_is_refused_and_nothing_is_written(folder, tmp_path):
    slim = network_of(folder, "inference", "slim")
    weights = str(tmp_path / "model.pt")
    torch.save(slim.state_dict(), weights)
    path = str(folder / "configs" / "cpu.json")
    refused = (
        (path, "is a path; give the name"),
        ("slimmest", "no such overlay"),
        ("evaluate", "a command"),
        ("cpu", "another network"),
    )
    for overlay, match in (*refused, (None, "another network")):
        with pytest.raises(InputError, match=match):
            ship(weights, "scn_hand", overlay)
    state = slim.state_dict()
    state["local_appearance.head.weight"][0, 0, 0, 0] = 1e6
    torch.save(state, weights)
    with pytest.raises(InputError, match="no finite numbers in half precision"):
        ship(weights, "scn_hand", "slim")
    assert not (folder / "models").exists()


def test_a_network_that_is_too_large_for_a_repository_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("common.bundle.ship.LARGEST", 1e6)
    torch.save(network_of(folder, "inference", "slim").state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match="MB in half precision, more than 1; ship the weights of an overlay"):
        ship(str(tmp_path / "model.pt"), "scn_hand", "slim")
