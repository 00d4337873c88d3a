import errno
import logging
import os
import resource

import pytest
import torch
from monai.engines import SupervisedEvaluator
from torch import nn

from common.errors import InputError
from common.handlers import (
    LoadWeights,
    find_weights,
    load_initial_weights,
    load_weights,
    read_checkpoint,
    save_atomically,
)


class Code:
    """What a pickle can do to who loads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class FullDisk:
    """Raises in the midst of writing, as a disk without space does."""

    def __reduce__(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sentence(raised, path):
    """The message of an InputError, which is one line that starts with the path and names a cure."""
    text = str(raised.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and "; " in text and text.endswith(".")
    return text


def test_what_was_saved_is_read_again(tmp_path):
    path = tmp_path / "new" / "folder" / "a.pt"
    save_atomically({"weight": torch.arange(3.0), "epoch": 7}, path)
    content = read_checkpoint(path)
    assert content["weight"].tolist() == [0, 1, 2] and content["epoch"] == 7
    assert os.listdir(path.parent) == ["a.pt"]


def test_a_write_that_fails_midway_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.pt"
    save_atomically({"epoch": 1}, path)
    with pytest.raises(InputError) as raised:
        save_atomically({"weight": torch.zeros(1000), "full": FullDisk()}, path)
    assert "No space left on device" in sentence(raised, path) and "unharmed" in str(raised.value)
    assert read_checkpoint(path) == {"epoch": 1} and os.listdir(tmp_path) == ["a.pt"]


def test_a_disk_that_takes_no_more_leaves_the_old_file_and_nothing_else(tmp_path):
    """The operating system itself ends the write: no file may grow beyond 20 kB."""
    path = tmp_path / "a.pt"
    save_atomically({"epoch": 1}, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(InputError) as raised:
            save_atomically({"weight": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in sentence(raised, path)
    assert read_checkpoint(path) == {"epoch": 1} and os.listdir(tmp_path) == ["a.pt"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as raised:
        save_atomically({}, tmp_path / "file" / "a.pt")
    assert "cannot be written" in sentence(raised, tmp_path / "file" / "a.pt")
    assert "unharmed" not in str(raised.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError) as raised:
        read_checkpoint(tmp_path / "no.pt")
    assert "no such file" in sentence(raised, tmp_path / "no.pt")


@pytest.mark.parametrize("content", [b"", b"weights", b"\x80\x02.", b"\x80\x02K", b"PK\x03\x04", os.urandom(200)])
def test_what_is_no_checkpoint_is_told(tmp_path, content):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(InputError) as raised:
        read_checkpoint(path)
    sentence(raised, path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_told(tmp_path, part):
    path = tmp_path / "a.pt"
    save_atomically(nn.Linear(50, 50).state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(InputError) as raised:
        load_weights(nn.Linear(50, 50), path)
    assert "truncated" in sentence(raised, path)


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(InputError) as raised:
        read_checkpoint(tmp_path)
    sentence(raised, tmp_path)


def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    torch.save({"model": Code(tmp_path / "harm")}, tmp_path / "a.pt")
    with pytest.raises(InputError) as raised:
        load_weights(nn.Linear(2, 2), tmp_path / "a.pt")
    text = sentence(raised, tmp_path / "a.pt")
    assert "code" in text and "weights_only" not in text  # torch's own advice is to load it all the same
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "wrap", [lambda weights: weights, lambda weights: {"model": weights, "progress": torch.ones(3)}]
)
def test_weights_are_loaded_alone_or_out_of_a_training_checkpoint(tmp_path, wrap):
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(wrap(source.state_dict()), tmp_path / "a.pt")
    load_weights(target, tmp_path / "a.pt")
    assert torch.equal(source.weight, target.weight) and torch.equal(source.bias, target.bias)


FOREIGN = {
    "other size": {"weight": torch.ones(2, 4), "bias": torch.ones(2)},
    "part of it": {"weight": torch.ones(2, 3)},
    "more than it": {"weight": torch.ones(2, 3), "bias": torch.ones(2), "head": torch.ones(1)},
    "last entry": {"weight": torch.ones(2, 3), "bias": torch.ones(3)},
    "no tensors": {"weight": 1, "bias": [2.0]},
    "numbered": {1: torch.ones(2, 3), "bias": torch.ones(2)},
    "wrapped": {"state_dict": {"weight": torch.ones(2, 3), "bias": torch.ones(2)}, "epoch": 3},
    "a list": [torch.ones(2, 3), torch.ones(2)],
    "a tensor": torch.ones(2, 3),
    "nothing": {},
    "empty model": {"model": {}},
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_weights_of_another_network_are_refused_whole(tmp_path, content):
    network = nn.Linear(3, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError) as raised:
        load_weights(network, tmp_path / "a.pt")
    sentence(raised, tmp_path / "a.pt")
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


class Localiser(nn.Module):
    """A body and a head of so many landmarks, and a template as of registered films."""

    def __init__(self, landmarks):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
        self.head = nn.Linear(4, landmarks)
        self.register_buffer("template", torch.rand(1, 5))


def equal_entries(network, other):
    return {key for key, value in network.state_dict().items() if torch.equal(value, other.state_dict()[key])}


def test_a_training_of_the_same_landmarks_starts_from_all_weights(tmp_path, caplog):
    source, network = Localiser(2), Localiser(2)
    torch.save(source.half().state_dict(), tmp_path / "a.pt")
    assert load_initial_weights(network, None) is network and equal_entries(network, source.float()) == set()
    with caplog.at_level(logging.INFO):
        assert load_initial_weights(network, tmp_path / "a.pt") is network
    assert equal_entries(network, source.float()) == set(source.state_dict())
    assert [record.levelname for record in caplog.records] == ["INFO"] and "7 of 7 tensors" in caplog.text


def test_a_training_of_other_landmarks_starts_from_the_body_without_the_template(tmp_path, caplog):
    source, network = Localiser(2), Localiser(3)
    torch.save({"model": source.state_dict()}, tmp_path / "a.pt")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    load_initial_weights(network, tmp_path / "a.pt")
    after = network.state_dict()
    assert {key for key in before if not torch.equal(before[key], after[key])} == {k for k in before if "body" in k}
    assert equal_entries(network.body, source.body) == set(source.body.state_dict())
    assert 'a.pt: 2 tensors are missing there or of another shape and start anew, first "head.weight"' in caplog.text


@pytest.mark.parametrize("content", [nn.Linear(4, 4).state_dict(), {"body.0.weight": torch.zeros(4, 3)}])
def test_no_training_starts_from_weights_of_another_network(tmp_path, content):
    network = Localiser(2)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError) as raised:
        load_initial_weights(network, tmp_path / "a.pt")
    assert "of the network's 7 tensors" in sentence(raised, tmp_path / "a.pt")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_the_first_existing_file_of_weights_is_found_and_named(tmp_path, caplog):
    for name in ("b.pt", "c.pt"):
        (tmp_path / name).touch()
    with caplog.at_level(logging.INFO, "common"):
        assert find_weights(tmp_path / "a.pt", tmp_path / "b.pt", str(tmp_path / "c.pt")) == str(tmp_path / "b.pt")
    assert str(tmp_path / "b.pt") in caplog.text


def test_where_no_weights_are_found_all_places_and_the_cure_are_told(tmp_path):
    (tmp_path / "a.pt").mkdir()
    with pytest.raises(InputError, match="--ckpt_path") as raised:
        find_weights(tmp_path / "a.pt", tmp_path / "b.pt")
    assert str(tmp_path / "b.pt") in sentence(raised, tmp_path / "a.pt")


def test_where_an_overlay_has_shipped_weights_it_is_named(tmp_path):
    (tmp_path / "model_slim.pt").touch()
    with pytest.raises(
        InputError, match="add configs/slim.json, whose weights are there, or give the file with --ckpt_path"
    ):
        find_weights(tmp_path / "model.pt")


def test_a_network_is_filled_when_an_engine_starts(tmp_path):
    source, network = nn.Linear(3, 1), nn.Linear(3, 1)
    torch.save(source.state_dict(), tmp_path / "a.pt")
    handler = LoadWeights(network, tmp_path / "a.pt")
    items = [{"image": torch.ones(1, 3), "label": torch.zeros(1, 1)}]
    evaluator = SupervisedEvaluator("cpu", items, network, val_handlers=[handler], decollate=False)
    assert not torch.equal(network.weight, source.weight)
    evaluator.run()
    assert torch.equal(network.weight, source.weight)
