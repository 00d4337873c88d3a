"""All handlers of a training together, so that a bundle's JSON shows its experiment and not the machinery."""

from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.handlers import LrScheduleHandler, TensorBoardStatsHandler, ValidationHandler
from torch.utils.data import Dataset

from .checkpoint import ResumableCheckpoint
from .expected_peak import ExpectedPeak
from .gradient_clip import GradientClip
from .progress import Progress
from .reproducibility import EpochSeed
from .tensorboard_overlay import TensorBoardOverlay


class LandmarkTraining:
    """Everything that happens around the steps of a training; a handler of the trainer.

    In this order: random state from seed and epoch (`EpochSeed`), a step of the learning rate's schedule after every
    iteration, the height of the targets copied into a heatmap network (`ExpectedPeak`), gradient clipping, validation
    (also after the last epoch, whatever the interval), TensorBoard with overlay pictures, a progress bar, and at last
    atomic checkpoints from which the same command goes on (`ResumableCheckpoint`). Of several processes only that of
    rank 0 validates, logs and saves.

    Args:
        output_dir: folder of `model.pt`, `checkpoint.pt` and `tensorboard`.
        network: also inside DistributedDataParallel.
        loss: likewise; its state is saved, since it may hold learned parameters.
        optimizer: of the trainer.
        lr_scheduler: stepped once an iteration.
        dataset: the training data, a `common.data.LandmarkDataset`.
        evaluator: engine that validates.
        landmarks: their names.
        val_interval: epochs between two validations and two checkpoints.
        max_gradient_norm: largest norm of the gradient of all parameters together; None for no limit.
        seed: seed of the run.
        resume: whether to go on from an existing checkpoint.
        stage: name of the stage, where a training has more than one; it then stands in the names of checkpoint,
            TensorBoard folder and progress bar. All stages write their best weights to `model.pt`.
    """

    def __init__(
        self,
        output_dir: str | Path,
        network: torch.nn.Module,
        loss: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
        dataset: Dataset,
        evaluator: Engine,
        landmarks: list[str],
        val_interval: int = 1,
        max_gradient_norm: float | None = None,
        seed: int = 0,
        resume: bool = True,
        stage: str = "",
    ) -> None:
        suffix = f"_{stage}" if stage else ""
        self.log_dir = str(Path(output_dir) / f"tensorboard{suffix}")
        self.evaluator = evaluator
        self.val_interval = val_interval
        self.landmarks = landmarks
        self.handlers = [
            EpochSeed(seed, dataset),
            LrScheduleHandler(lr_scheduler, print_lr=False, epoch_level=False),
        ]
        if hasattr(getattr(loss, "module", loss), "expected_peak"):
            self.handlers.append(ExpectedPeak(network, loss))
        if max_gradient_norm is not None:
            self.handlers.append(GradientClip(max_gradient_norm))
        self.first_rank_only = lambda: [  # TensorBoard opens its file as soon as its handler is made
            ValidationHandler(interval=val_interval, validator=evaluator, epoch_level=True),
            TensorBoardStatsHandler(
                log_dir=self.log_dir,
                tag_name="train_loss",
                iteration_log=10,
                output_transform=lambda output: output["loss"].item(),
            ),
            Progress(description=f"{stage} training".strip(), evaluator=evaluator),
        ]
        self.checkpoint = ResumableCheckpoint(
            output_dir,
            {"model": network, "loss": loss, "optimizer": optimizer, "lr_scheduler": lr_scheduler},
            evaluator=evaluator,
            interval=val_interval,
            resume=resume,
            name=f"checkpoint{suffix}.pt",
            identity=[*landmarks, *(Path(str(item["image"])).name for item in dataset.data)],
        )

    def attach(self, engine: Engine) -> None:
        for handler in self.handlers:
            handler.attach(engine)
        if engine.state.rank == 0:
            for handler in self.first_rank_only():
                handler.attach(engine)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.validate_last_epoch)
            TensorBoardStatsHandler(log_dir=self.log_dir, iteration_log=False).attach(self.evaluator)
            TensorBoardOverlay(log_dir=self.log_dir, landmarks=self.landmarks).attach(self.evaluator)
        self.checkpoint.attach(engine)

    def validate_last_epoch(self, engine: Engine) -> None:
        """Validate the weights with which the training ends, where the interval leaves them out."""
        if engine.state.epoch == engine.state.max_epochs and engine.state.epoch % self.val_interval:
            self.evaluator.run(engine.state.epoch)
