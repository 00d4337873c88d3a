"""Small trainings in two stages, global and local, by real engines."""

import math

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, from_engine
from monai.transforms import Transform

from common.data import AugmentedView, LandmarkDataset
from common.engines import PrepareBatchLandmarks
from common.errors import InputError
from common.handlers import LandmarkTraining, LocalStage, TensorBoardOverlay, read_checkpoint
from common.inferers import VotingInferer
from common.losses import PatchRegressionLoss
from common.metrics import RadialError, is_lower
from common.networks import PatchRegressionNet
from common.transforms import RandLandmarkSubImagesd, VotesToLandmarksd

NAMES = ["wide", "narrow"]
AFFINE = torch.tensor([[0.0, -2.0, 0, 40], [2.0, 0, 0, -7], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
POINTS = [
    [[10.0, 12.0], [25.0, 20.0]],
    [[14.0, 9.0], [28.0, 24.0]],
    [[8.0, 16.0], [22.0, 25.0]],
    [[12.0, 14.0], [27.0, 17.0]],
]


class Film(Transform):
    """Draw two spots of different width on a film of 2 world units a pixel."""

    def __call__(self, item):
        points = torch.tensor(item["points"], dtype=torch.float64)
        x, y = torch.meshgrid(torch.arange(36.0), torch.arange(33.0), indexing="ij")
        image = sum(
            torch.exp(-((x - px) ** 2 + (y - py) ** 2) / w) for (px, py), w in zip(points.nan_to_num(0), (12, 3))
        )
        label = points @ AFFINE[:2, :2].T + AFFINE[:2, 3]
        return {"image": MetaTensor(image[None].float(), affine=AFFINE), "label": label[None]}


def films(points):
    return [{"image": f"{number}.png", "points": place} for number, place in enumerate(points)]


class Run:
    """A training of `epochs` epochs of two steps, then `local_epochs`; what happened in it."""

    def __init__(
        self,
        folder,
        epochs=3,
        local_epochs=3,
        alone=False,
        stop=None,
        bias=0.0,
        learning_rate=0.03,
        validation=POINTS[:2],
        **settings,
    ):
        torch.manual_seed(0)
        self.folder = folder
        self.network = PatchRegressionNet(
            2, 1, 2, filters=(8, 16), blocks=(1,), pooled_blocks=(0,), head_filters=16, local_filters=(8, 16),
            local_head_filters=16,
        )  # fmt: skip
        self.network.local_nets.displacement[-1].bias.data += bias
        data = LandmarkDataset(films(POINTS), [Film()], progress=False)
        local_data = AugmentedView(data, [RandLandmarkSubImagesd("image", self.network, num_samples=8)], seed=1)
        validation_data = LandmarkDataset(films(validation), [Film()], progress=False)
        self.evaluator, local_evaluator = (self.evaluator_on(validation_data) for _ in range(2))
        stages = {
            "global": (self.network, self.network.global_net, data, self.evaluator, epochs, 0.01),
            "local": (self.network.local_nets, self.network.local_nets, local_data, local_evaluator, local_epochs,
                      learning_rate),
        }  # fmt: skip
        self.trainers, self.epochs = {}, {"global": [], "local": []}
        resume = settings.get("resume", True)
        for stage, (network, part, dataset, evaluator, count, rate) in stages.items():
            optimizer = torch.optim.Adam(part.parameters(), rate)
            scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
            loss = PatchRegressionLoss(part.grid_spacing)
            loader = DataLoader(dataset, batch_size=2, shuffle=True)
            trainer = SupervisedTrainer(
                "cpu", count, loader, network, optimizer, loss, prepare_batch=PrepareBatchLandmarks(), decollate=False
            )
            things = [self.network, loss, optimizer, scheduler, dataset, evaluator, NAMES]
            LandmarkTraining(folder, *things, resume=resume, stage=stage.replace("global", "")).attach(trainer)
            trainer.add_event_handler(Events.EPOCH_STARTED, self.begin, stage, stop)
            self.trainers[stage] = trainer
        self.stage = LocalStage(
            self.trainers["local"], self.network, self.evaluator, local_evaluator, folder,
            **{"smallest": 2, "largest": 1000, **settings},
        )  # fmt: skip
        self.stage.attach(self.trainers["global"])
        self.local_evaluator = local_evaluator
        try:
            self.stage.run() if alone else self.trainers["global"].run()
        except KeyboardInterrupt:
            assert stop is not None

    def evaluator_on(self, data):
        return SupervisedEvaluator(
            "cpu",
            DataLoader(data, batch_size=1),
            self.network,
            inferer=VotingInferer(),
            postprocessing=VotesToLandmarksd("pred"),
            key_val_metric={"MRE": IgniteMetricHandler(RadialError(), output_transform=from_engine(["pred", "label"]))},
            metric_cmp_fn=is_lower,
        )

    def begin(self, engine, stage, stop):
        self.epochs[stage].append(engine.state.epoch)
        if stop == (stage, engine.state.epoch):
            raise KeyboardInterrupt

    def saved(self, name="model.pt"):
        return read_checkpoint(self.folder / name)

    def local_size(self):
        return int(self.saved()["local_size"])

    def errors(self, local):
        """Radial errors in voxels of the saved weights on the films of the validation."""
        weights = self.saved()
        self.network.load_state_dict(weights)
        if not local:
            self.network.local_size.zero_()
        with torch.no_grad():
            found = [self.network.eval().localise(Film()({"points": p})["image"].as_tensor()[None]) for p in POINTS[:2]]
        return np.linalg.norm(torch.cat(found)[:, :, :2].numpy() - np.array(POINTS[:2]), axis=-1)


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Drawing into TensorBoard would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TensorBoardOverlay, "draw", lambda self, engine: None)
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A training in which the local networks lower the error."""
    return Run(tmp_path_factory.mktemp("straight"), local_epochs=5)


@pytest.fixture(scope="module")
def only_global(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("global"), enabled=False)


def test_the_local_networks_are_trained_after_the_global_one_and_switched_on(straight, only_global, caplog):
    assert straight.epochs == {"global": [1, 2, 3], "local": list(range(1, 6))}
    assert straight.local_size() > 0
    assert straight.errors(local=True).mean() < straight.errors(local=False).mean()
    best = straight.errors(local=True).mean() * 2  # world units
    assert straight.local_evaluator.state.best_metric == pytest.approx(best, rel=1e-4)
    globally = {key: value for key, value in only_global.saved().items() if key.startswith("global_net.")}
    assert equal({key: straight.saved()[key] for key in globally}, globally)  # the best ones, and as they were
    names = sorted(path.name for path in straight.folder.iterdir())
    assert names == ["checkpoint.pt", "checkpoint_local.pt", "model.pt", "tensorboard", "tensorboard_local"]


def test_a_stage_that_is_not_wanted_does_nothing(only_global):
    assert only_global.epochs == {"global": [1, 2, 3], "local": []}
    assert only_global.local_size() == 0
    assert not (only_global.folder / "checkpoint_local.pt").exists()


def test_sub_images_are_twice_the_95th_percentile_of_the_global_errors(straight, only_global):
    error = np.percentile(only_global.errors(local=False), 95)
    assert straight.local_size() == 2 * math.ceil(error) > 2


@pytest.mark.parametrize(
    ("settings", "size"),
    [({"smallest": 60}, 60), ({"largest": 4}, 4), ({"size": 10}, 10), ({"percentile": 0.0}, None)],
)
def test_the_size_has_limits_and_may_be_given(tmp_path, only_global, settings, size):
    run = Run(tmp_path, local_epochs=1, **settings)
    size = size or 2 * math.ceil(only_global.errors(local=False).min())
    assert run.saved("checkpoint_local.pt")["model"]["local_size"] == size


def test_validation_landmarks_without_a_position_have_no_say_in_the_size(tmp_path, only_global):
    nan, inf = math.nan, math.inf
    validation = [[POINTS[0][0], [nan, nan]], [[inf, inf], POINTS[1][1]]]
    run = Run(tmp_path, epochs=1, local_epochs=1, validation=validation)
    size = run.saved("checkpoint_local.pt")["model"]["local_size"]
    errors = run.errors(local=False)[[0, 1], [0, 1]]
    assert size == 2 * math.ceil(np.percentile(errors, 95))


def test_where_nothing_was_measured_a_size_must_be_given(tmp_path):
    nothing = [[[math.nan, math.nan]] * 2]
    with pytest.raises(InputError, match="--local_size") as raised:
        Run(tmp_path, epochs=1, local_epochs=1, validation=nothing)
    assert str(raised.value).startswith(str(tmp_path / "model.pt")) and "\n" not in str(raised.value)
    assert Run(tmp_path, epochs=1, local_epochs=1, validation=nothing, size=8).epochs["local"] == [1]


def test_local_networks_that_are_no_better_are_switched_off_with_a_warning(tmp_path, caplog):
    settings = {"epochs": 2, "local_epochs": 2, "bias": 5.0, "learning_rate": 0.0}  # votes 147 voxels off
    run = Run(tmp_path, **settings)
    assert run.local_size() == 0 and "are switched off" in caplog.text
    assert run.saved("checkpoint_local.pt")["model"]["local_size"] > 0
    globally = Run(tmp_path / "global", epochs=2, enabled=False)
    assert run.errors(local=True) == pytest.approx(globally.errors(local=True))
    again = Run(tmp_path, **settings)
    assert again.epochs == {"global": [], "local": []} and again.local_size() == 0


def test_weights_of_an_unfinished_second_stage_find_landmarks_no_worse_than_the_global_ones(tmp_path, only_global):
    run = Run(tmp_path, local_epochs=3, bias=5.0, learning_rate=0.0, stop=("local", 3))
    assert run.local_evaluator.state.best_metric == pytest.approx(2 * only_global.errors(local=False).mean())
    assert run.local_size() == 0 and equal(only_global.saved(), run.saved() | local_nets(only_global))
    resumed = Run(tmp_path, local_epochs=3, bias=5.0, learning_rate=0.0)
    assert resumed.epochs == {"global": [], "local": [3]} and resumed.local_size() == 0


def local_nets(run):
    """The untrained local networks, which a bias makes differ between runs."""
    return {key: value for key, value in run.saved().items() if key.startswith("local_nets.")}


@pytest.mark.parametrize("stop", [("global", 2), ("local", 1), ("local", 4)])
def test_an_interrupted_training_ends_as_if_it_had_never_stopped(tmp_path, straight, stop):
    stopped = Run(tmp_path, local_epochs=5, stop=stop)
    assert stopped.epochs[stop[0]][-1] == stop[1]
    resumed = Run(tmp_path, local_epochs=5)
    assert resumed.epochs["global"] == ([2, 3] if stop[0] == "global" else [])
    assert resumed.epochs["local"] == list(range(stop[1] if stop[0] == "local" else 1, 6))
    assert equal(resumed.saved(), straight.saved())
    states = [run.saved("checkpoint_local.pt") for run in (resumed, straight)]
    assert equal(states[0]["model"], states[1]["model"])
    assert torch.equal(states[0]["progress"], states[1]["progress"])


def test_the_second_stage_alone_goes_on_from_the_weights_of_a_first(tmp_path, straight):
    """Also after an interruption; then the error of the global network comes from the second stage's checkpoint."""
    Run(tmp_path, enabled=False)
    (tmp_path / "checkpoint.pt").unlink()
    run = Run(tmp_path, local_epochs=5, alone=True, stop=("local", 4))
    assert run.epochs == {"global": [], "local": [1, 2, 3, 4]}
    resumed = Run(tmp_path, local_epochs=5, alone=True)
    assert resumed.epochs == {"global": [], "local": [4, 5]}
    assert equal(resumed.saved(), straight.saved()) and resumed.local_size() > 0


def test_the_second_stage_without_a_first_is_told_what_it_lacks(tmp_path):
    with pytest.raises(InputError, match="train first"):
        Run(tmp_path, alone=True)


def test_a_second_stage_is_begun_anew_when_the_first_goes_on(tmp_path):
    Run(tmp_path, epochs=1, local_epochs=2)
    assert Run(tmp_path, epochs=1, local_epochs=3).epochs == {"global": [], "local": [3]}
    assert Run(tmp_path, epochs=2, local_epochs=2).epochs == {"global": [2], "local": [1, 2]}
    run = Run(tmp_path, epochs=3, local_epochs=2, enabled=False)
    assert run.epochs == {"global": [3], "local": []} and not run.stage.checkpoint.exists()


def test_a_run_that_is_not_to_resume_trains_both_stages_anew(tmp_path):
    Run(tmp_path, epochs=1, local_epochs=1)
    run = Run(tmp_path, epochs=1, local_epochs=2, resume=False)
    assert run.epochs == {"global": [1], "local": [1, 2]}


def test_the_validation_that_chooses_the_size_is_logged_with_the_last_epoch(tmp_path):
    run = Run(tmp_path, epochs=2, local_epochs=1)
    assert run.evaluator.state.epoch == 2


def test_an_odd_size_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(InputError, match="--local_size is 15: give an even number"):
        LocalStage(None, torch.nn.Identity(), None, None, tmp_path, size=15)


def test_a_second_stage_does_not_go_on_with_sub_images_of_another_size(tmp_path):
    run = Run(tmp_path, local_epochs=3, size=10, stop=("local", 2))
    with pytest.raises(InputError, match="its sub-images have 10 voxels; go on with --local_size 10") as raised:
        Run(tmp_path, local_epochs=3, size=12)
    assert str(raised.value).startswith(str(run.stage.checkpoint)) and "\n" not in str(raised.value)
    assert Run(tmp_path, local_epochs=3).epochs["local"] == [2, 3]
