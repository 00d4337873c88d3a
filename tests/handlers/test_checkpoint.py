import errno
import itertools
import os
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, ValidationHandler, from_engine
from torch import nn

from common.errors import InputError
from common.handlers import ResumableCheckpoint, read_checkpoint, save_atomically
from common.metrics import RadialError, is_lower


class FullDisk:
    """Raises in the midst of writing, as a disk without space does."""

    def __reduce__(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sentence(raised, path):
    """The message of an InputError, which is one line that starts with the path and names a cure."""
    text = str(raised.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and "; " in text and text.endswith(".")
    return text


class Point(nn.Module):
    """A network that predicts one point whatever it sees."""

    def __init__(self, landmarks=1):
        super().__init__()
        self.point = nn.Parameter(torch.zeros(landmarks, 2))
        self.finds = True

    def forward(self, image):
        points = self.point.expand(len(image), 1, *self.point.shape)
        return points if self.finds else points * torch.nan


def training(folder, errors, validate=True, fail_in=None, rank=0, landmarks=1, **options):
    """Train a point whose radial error after each epoch is one of `errors`; NaN means that nothing was found."""
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
        error = errors[engine.state.epoch - 1]
        network.finds = error == error
        network.point.data[:] = torch.tensor([error if network.finds else -1.0, 0.0])

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


def test_an_epoch_long_after_the_last_checkpoint_is_saved_too(tmp_path, monkeypatch):
    errors = [3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    clock = itertools.count(0.0, 50.0)  # each look at it is 50 seconds later; there are two before the first epoch
    monkeypatch.setattr("common.handlers.checkpoint.time", SimpleNamespace(monotonic=lambda: next(clock)))
    training(tmp_path, errors, validate=False, interval=100, fail_in=5)
    assert progress(tmp_path)[0] == 3
    monkeypatch.undo()
    run = training(tmp_path, errors, validate=False, interval=100)
    assert run.epochs == [4, 5, 6, 7]


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


def test_a_further_round_of_a_trainer_goes_on_with_the_weights_that_its_network_has(tmp_path):
    """As in federated learning, where the weights of all clients come in between."""
    run = training(tmp_path, [3.0, 2.0, 1.0, 0.5], resume=True)
    run.trainer.state.max_epochs = 3  # as if two of four rounds were done
    run.trainer.state.epoch, run.trainer.state.iteration = 2, 4
    run.network.point.data[:] = 7.0
    seen = []
    run.trainer.add_event_handler(Events.EPOCH_STARTED, lambda: seen.append(run.network.point.max().item()))
    run.trainer.run()
    assert seen == [7.0] and run.epochs == [1, 2, 3, 4, 3]


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    training(tmp_path, [3.0, 2.0])
    before = {name: (tmp_path / name).read_bytes() for name in ("model.pt", "checkpoint.pt")}
    with pytest.raises(
        InputError, match="checkpoint.pt: the training has diverged, weights are not finite; lower --lea"
    ):
        training(tmp_path, [3.0, 2.0, float("inf")])
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
