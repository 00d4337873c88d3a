"""Small trainings with LandmarkTraining as the only handler of the trainer."""

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, from_engine
from torch import nn

from common.data import LandmarkDataset
from common.engines import PrepareBatchLandmarks
from common.errors import InputError
from common.handlers import LandmarkTraining, read_checkpoint
from common.losses import HeatmapLoss
from common.metrics import RadialError, is_lower
from common.networks.unit_peak import UnitPeak
from common.transforms import HeatmapsToLandmarksd

NAMES = ["first", "second"]


class Network(nn.Module):
    """A convolution to the heatmaps of two landmarks."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(1, 2, 3, padding=1)
        self.unit_peak = UnitPeak(2, 2)

    def forward(self, image):
        return self.unit_peak(self.head(image))


def film(item):
    """A bright spot at each landmark; world and voxels agree."""
    label = torch.tensor(item["points"], dtype=torch.float64)
    image = torch.full((1, 12, 12), 0.1 * len(item["image"]))
    for x, y in label.long().tolist():
        image[0, x, y] = 2.0
    return {"image": MetaTensor(image), "label": label[None], **({"unit": item["unit"]} if "unit" in item else {})}


DATA = [
    {"image": "a.png", "points": [[2.0, 3.0], [8.0, 8.0]]},
    {"image": "bcd.png", "points": [[4.0, 2.0], [7.0, 9.0]]},
    {"image": "ef.png", "points": [[3.0, 4.0], [9.0, 6.0]]},
]


class Run:
    """A training of `epochs` epochs of three steps, and what was seen in it."""

    def __init__(
        self,
        folder,
        epochs,
        rank=0,
        landmarks=NAMES,
        learning_rate=0.001,
        seed=0,
        schedule=None,
        items=DATA,
        **settings,
    ):
        torch.manual_seed(0)
        self.network = Network()
        self.loss = HeatmapLoss(2, 2, sigma=1.0, amplitude="normalised", scale=10.0, learnable_sigma=True)
        self.optimizer = torch.optim.SGD([*self.network.parameters(), *self.loss.parameters()], learning_rate)
        schedule = schedule or (lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5))
        self.scheduler = schedule(self.optimizer)
        data = LandmarkDataset(items, [film], progress=False)
        self.evaluator = SupervisedEvaluator(
            "cpu",
            DataLoader(data, batch_size=1),
            self.network,
            postprocessing=HeatmapsToLandmarksd("pred"),
            key_val_metric={"MRE": IgniteMetricHandler(RadialError(), output_transform=from_engine(["pred", "label"]))},
            metric_cmp_fn=is_lower,
        )
        self.trainer = SupervisedTrainer(
            "cpu",
            epochs,
            DataLoader(data, batch_size=1),
            self.network,
            self.optimizer,
            self.loss,
            prepare_batch=PrepareBatchLandmarks(),
            decollate=False,
        )
        self.trainer.state.rank = self.evaluator.state.rank = rank
        self.validated, self.steps, self.epochs, self.random = [], [], [], []
        self.evaluator.add_event_handler(Events.STARTED, self.look_at_validation)
        self.trainer.add_event_handler(Events.ITERATION_STARTED, lambda: self.steps.append(self.weights()))
        self.trainer.add_event_handler(Events.EPOCH_STARTED, lambda: self.epochs.append(self.trainer.state.epoch))
        things = [self.network, self.loss, self.optimizer, self.scheduler, data, self.evaluator, landmarks]
        LandmarkTraining(folder, *things, seed=seed, **settings).attach(self.trainer)
        self.trainer.add_event_handler(Events.EPOCH_STARTED, lambda: self.random.append(torch.rand(1).item()))
        self.trainer.run()
        self.steps.append(self.weights())

    def look_at_validation(self):
        same = torch.equal(self.network.unit_peak.expected_peak, self.loss.expected_peak())
        self.validated.append((self.trainer.state.epoch, same))

    def weights(self):
        return torch.cat([p.detach().flatten().clone() for p in [*self.network.parameters(), *self.loss.parameters()]])


def test_the_checkpoint_of_an_epoch_holds_all_that_the_epoch_did(tmp_path):
    """It is written last: after the last step of the schedule, the height of the targets and the validation."""
    run = Run(tmp_path, 1)
    state = read_checkpoint(tmp_path / "checkpoint.pt")
    assert state["lr_scheduler"]["last_epoch"] == 3 and run.optimizer.param_groups[0]["lr"] == 0.001 / 8
    expected = 10 / (2 * torch.pi * state["loss"]["sigma"] ** 2)
    torch.testing.assert_close(state["model"]["unit_peak.expected_peak"], expected)
    assert (state["loss"]["sigma"] != 1).all()
    epoch, best_epoch, best_metric = state["progress"].tolist()
    assert epoch == best_epoch == 1 and best_metric == pytest.approx(run.evaluator.state.metrics["MRE"])
    weights = read_checkpoint(tmp_path / "model.pt")
    assert all(torch.equal(value, state["model"][key]) for key, value in weights.items())


def test_a_validation_sees_the_height_of_the_targets_of_its_epoch(tmp_path):
    assert Run(tmp_path, 4, val_interval=2).validated == [(2, True), (4, True)]


@pytest.mark.parametrize(("epochs", "interval", "validated"), [(5, 2, [2, 4, 5]), (2, 3, [2]), (4, 4, [4])])
def test_the_last_epoch_is_validated_whatever_the_interval(tmp_path, epochs, interval, validated):
    run = Run(tmp_path, epochs, val_interval=interval)
    assert [epoch for epoch, _ in run.validated] == validated
    best = run.evaluator.state.best_metric
    assert read_checkpoint(tmp_path / "checkpoint.pt")["progress"].tolist()[::2] == [epochs, best]


def test_a_run_goes_on_from_its_checkpoint_unless_told_otherwise(tmp_path):
    Run(tmp_path / "stopped", 2)
    resumed, straight = Run(tmp_path / "stopped", 3), Run(tmp_path / "straight", 3)
    assert resumed.epochs == [3] and straight.epochs == [1, 2, 3]
    assert torch.equal(resumed.weights(), straight.weights())
    assert Run(tmp_path / "stopped", 3, resume=False).epochs == [1, 2, 3]


SCHEDULES = {
    "one cycle": lambda steps: (
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    ),
    "cosine": lambda steps: lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
    "milestones": lambda steps: lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [steps - 1]),
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_longer_run_is_not_continued_with_the_schedule_of_the_shorter_one(tmp_path, kind):
    Run(tmp_path, 2, schedule=SCHEDULES[kind](6))
    assert Run(tmp_path, 2, schedule=SCHEDULES[kind](6)).epochs == []
    with pytest.raises(InputError, match=r"learning rate was planned with .* \(now .*; give the settings of that run"):
        Run(tmp_path, 4, schedule=SCHEDULES[kind](12))


def test_another_learning_rate_is_not_passed_over(tmp_path):
    Run(tmp_path, 2)
    with pytest.raises(InputError, match=r"base_lrs \[0.001\] \(now \[0.1\]\)"):
        Run(tmp_path, 4, learning_rate=0.1)


def test_a_run_that_diverges_ends_and_keeps_its_last_sound_checkpoint(tmp_path):
    Run(tmp_path, 1)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match="the training has diverged"):
        Run(tmp_path / "other", 20, learning_rate=1e30)
    assert not (tmp_path / "other" / "checkpoint.pt").exists()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_images_without_millimetres_do_not_choose_the_best_weights(tmp_path, caplog):
    units = ["mm", "pixel", "mm"]
    items = [{**item, "unit": unit} for item, unit in zip(DATA, units)]
    mixed = Run(tmp_path / "mixed", 1, items=items)
    assert len(mixed.evaluator.data_loader.dataset) == 2 and mixed.evaluator.state.iteration == 2
    assert "1 of 3 validation images have no millimetres" in caplog.text
    for unit in ("mm", "pixel"):
        same = Run(tmp_path / unit, 1, items=[{**item, "unit": unit} for item in DATA])
        assert len(same.evaluator.data_loader.dataset) == 3


def test_a_checkpoint_of_other_landmarks_is_refused(tmp_path):
    Run(tmp_path, 1)
    with pytest.raises(InputError, match="other images or landmarks"):
        Run(tmp_path, 2, landmarks=["first", "third"])


def test_another_process_neither_validates_nor_writes(tmp_path):
    run = Run(tmp_path / "out", 2, rank=1)
    assert run.validated == [] and not (tmp_path / "out").exists()
    first = Run(tmp_path / "first", 2)
    assert run.epochs == [1, 2] and torch.equal(run.weights(), first.weights())  # it trains, decays and follows sigma
    assert torch.equal(run.network.unit_peak.expected_peak, first.network.unit_peak.expected_peak)


def test_the_first_process_logs_training_and_validation_into_one_folder(tmp_path):
    Run(tmp_path, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "model.pt", "tensorboard"]
    content = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert b"train_loss" in content and b"MRE" in content and b"validation/image_0" in content


@pytest.mark.parametrize("limit", [0.25, None])
def test_no_step_is_longer_than_the_largest_gradient_allows(tmp_path, limit):
    run = Run(tmp_path, 1, learning_rate=0.01, max_gradient_norm=limit)
    lengths = [float((after - before).norm()) for before, after in zip(run.steps, run.steps[1:])]
    if limit is None:
        assert lengths[0] > 0.005
    else:
        assert lengths == pytest.approx([0.0025, 0.00125, 0.000625], rel=1e-3)  # the schedule halves every step


def test_the_seed_decides_on_the_random_state_of_every_epoch(tmp_path):
    first, again, other = (Run(tmp_path / name, 2, seed=seed).random for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first == again and len({*first, *other}) == 4
