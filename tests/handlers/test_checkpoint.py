import errno
import logging
import os
import resource
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, ValidationHandler, from_engine
from torch import nn

from common.errors import InputError
from common.handlers import (
    LoadWeights,
    ResumableCheckpoint,
    find_weights,
    load_weights,
    read_checkpoint,
    save_atomically,
)
from common.metrics import RadialError, is_lower


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


class Point(nn.Module):
    """A network that predicts one point whatever it sees."""

    def __init__(self, landmarks=1):
        super().__init__()
        self.point = nn.Parameter(torch.zeros(landmarks, 2))

    def forward(self, image):
        return self.point.expand(len(image), 1, *self.point.shape)


def training(folder, errors, validate=True, fail_in=None, rank=0, landmarks=1, **options):
    """Train a point whose radial error after each epoch is one of `errors`; NaN means an image without truth."""
    network = Point(landmarks)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9)
    items = [{"image": torch.zeros(1, 1), "label": torch.zeros(1, 1, landmarks, 2)}] * 2
    trainer = SupervisedTrainer("cpu", len(errors), items, network, optimizer, nn.MSELoss(), decollate=False)
    trainer.state.rank = rank
    evaluator = None
    seen = []

    @trainer.on(Events.EPOCH_STARTED)
    def begin(engine):
        seen.append(engine.state.epoch)
        if engine.state.epoch == fail_in:
            raise KeyboardInterrupt

    @trainer.on(Events.EPOCH_COMPLETED)
    def learn(engine):
        network.point.data[:] = torch.tensor([errors[engine.state.epoch - 1], 0.0])

    if validate:
        metric = IgniteMetricHandler(metric_fn=RadialError(), output_transform=from_engine(["pred", "label"]))
        evaluator = SupervisedEvaluator(
            "cpu", items[:1], network, key_val_metric={"error": metric}, metric_cmp_fn=is_lower
        )
        ValidationHandler(1, evaluator).attach(trainer)
    objects = {"model": network, "optimizer": optimizer}
    checkpoint = ResumableCheckpoint(folder, objects, evaluator, **options)
    checkpoint.attach(trainer)
    try:
        trainer.run()
    except KeyboardInterrupt:
        assert fail_in is not None
    return SimpleNamespace(network=network, evaluator=evaluator, trainer=trainer, epochs=seen)


def saved_error(folder):
    return read_checkpoint(folder / "model.pt")["point"][0, 0].item()


def progress(folder):
    return read_checkpoint(folder / "checkpoint.pt")["progress"].tolist()


def test_the_weights_of_the_best_epoch_are_kept_beside_the_last_state(tmp_path):
    training(tmp_path, [3.0, 1.0, 2.0])
    assert saved_error(tmp_path) == 1.0
    assert read_checkpoint(tmp_path / "checkpoint.pt")["model"]["point"][0, 0] == 2.0
    assert progress(tmp_path) == [3, 2, 1.0]
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.pt", "model.pt"]


def test_without_validation_the_last_weights_are_kept(tmp_path):
    training(tmp_path, [3.0, 1.0, 2.0], validate=False)
    assert saved_error(tmp_path) == 2.0


def test_an_epoch_without_a_metric_is_worse_than_any(tmp_path):
    training(tmp_path, [float("nan"), 5.0, float("nan"), 4.0, 6.0])
    assert saved_error(tmp_path) == 4.0 and progress(tmp_path) == [5, 4, 4.0]


@pytest.mark.parametrize("later, best", [([2.5, 2.0], [4, 2, 1.0]), ([2.5, 0.5], [4, 4, 0.5])])
def test_the_best_metric_survives_an_interruption(tmp_path, later, best):
    training(tmp_path, [3.0, 1.0, *later], fail_in=3)
    run = training(tmp_path, [3.0, 1.0, *later])
    assert run.epochs == [3, 4]
    assert progress(tmp_path) == best and saved_error(tmp_path) == best[2]
    assert run.evaluator.state.best_metric == best[2] and run.evaluator.state.best_metric_epoch == best[1]


def test_an_interrupted_epoch_is_begun_anew_and_iterations_go_on(tmp_path):
    training(tmp_path, [3.0, 2.0, 1.0], fail_in=2)
    run = training(tmp_path, [3.0, 2.0, 1.0])
    assert run.epochs == [2, 3] and run.trainer.state.iteration == 6


def test_the_state_of_the_optimiser_is_restored(tmp_path):
    training(tmp_path, [3.0, 2.0], fail_in=2)
    content = read_checkpoint(tmp_path / "checkpoint.pt")
    content["optimizer"]["param_groups"][0]["momentum"] = 0.25
    save_atomically(content, tmp_path / "checkpoint.pt")
    run = training(tmp_path, [3.0, 2.0])
    assert run.trainer.optimizer.param_groups[0]["momentum"] == 0.25


def test_between_checkpoints_only_a_new_best_is_saved(tmp_path):
    training(tmp_path, [3.0, 4.0, 5.0, 2.0, 6.0, 7.0], interval=3, fail_in=3)
    assert progress(tmp_path) == [1, 1, 3.0]
    training(tmp_path, [3.0, 4.0, 5.0, 2.0, 6.0, 7.0], interval=3, fail_in=6)
    assert progress(tmp_path) == [4, 4, 2.0]
    training(tmp_path, [3.0, 4.0, 5.0, 2.0, 6.0, 7.0, 8.0], interval=3)
    assert progress(tmp_path) == [7, 4, 2.0]  # the last epoch always has one


def test_a_finished_run_says_that_nothing_is_left(tmp_path, caplog):
    training(tmp_path, [3.0, 1.0])
    run = training(tmp_path, [3.0, 1.0])
    assert run.epochs == [] and "nothing to train" in caplog.text


def test_a_run_may_start_anew(tmp_path):
    training(tmp_path, [1.0, 1.0])
    assert training(tmp_path, [3.0, 2.0], resume=False).epochs == [1, 2]
    assert saved_error(tmp_path) == 2.0


def test_only_the_first_process_writes(tmp_path):
    training(tmp_path / "new", [3.0, 1.0], rank=1)
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    training(tmp_path, [3.0], identity=["a.png", "b.png"])
    with pytest.raises(InputError) as raised:
        training(tmp_path, [3.0, 2.0], identity=["a.png", "c.png"])
    assert "other images or landmarks" in sentence(raised, tmp_path / "checkpoint.pt")
    assert "--output_dir" in str(raised.value) and "--resume False" in str(raised.value)
    assert progress(tmp_path)[0] == 1


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    training(tmp_path, [3.0])
    with pytest.raises(InputError) as raised:
        training(tmp_path, [3.0, 2.0], landmarks=2)
    assert "another network" in sentence(raised, tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("damage", [
    lambda content: content.pop("optimizer"),
    lambda content: content.update(other=1),
    lambda content: content.update(model=torch.ones(1)),
    lambda content: content.update(optimizer={}),
    lambda content: content.update(optimizer=[1]),
])  # fmt: skip
def test_a_checkpoint_of_another_training_is_refused(tmp_path, damage):
    training(tmp_path, [3.0])
    content = read_checkpoint(tmp_path / "checkpoint.pt")
    damage(content)
    save_atomically(content, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError) as raised:
        training(tmp_path, [3.0, 2.0])
    sentence(raised, tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_ends_a_run_with_one_sentence(tmp_path, content):
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(InputError) as raised:
        training(tmp_path, [3.0])
    sentence(raised, tmp_path / "checkpoint.pt")


def test_a_folder_that_cannot_be_written_is_told_before_the_first_epoch(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as raised:
        training(tmp_path / "file" / "output", [3.0])
    assert "--output_dir" in sentence(raised, tmp_path / "file" / "output")


def test_a_full_disk_during_training_ends_it_and_keeps_what_was_saved(tmp_path, monkeypatch):
    training(tmp_path, [3.0], identity=["a"])
    monkeypatch.setattr(Point, "get_extra_state", lambda self: FullDisk(), raising=False)
    monkeypatch.setattr(Point, "set_extra_state", lambda self, state: None, raising=False)
    content = read_checkpoint(tmp_path / "checkpoint.pt")
    content["model"]["_extra_state"] = 0
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError) as raised:
        training(tmp_path, [3.0, 2.0], identity=["a"])
    assert "No space left" in sentence(raised, tmp_path / "model.pt")
    assert progress(tmp_path)[0] == 1 and saved_error(tmp_path) == 3.0
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.pt", "model.pt"]


def test_a_network_is_filled_when_an_engine_starts(tmp_path):
    source, network = nn.Linear(3, 1), nn.Linear(3, 1)
    torch.save(source.state_dict(), tmp_path / "a.pt")
    handler = LoadWeights(network, tmp_path / "a.pt")
    items = [{"image": torch.ones(1, 3), "label": torch.zeros(1, 1)}]
    evaluator = SupervisedEvaluator("cpu", items, network, val_handlers=[handler], decollate=False)
    assert not torch.equal(network.weight, source.weight)
    evaluator.run()
    assert torch.equal(network.weight, source.weight)
