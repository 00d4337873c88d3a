"""All handlers of a training together, so that a bundle's JSON shows its experiment and not the machinery."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.handlers import LrScheduleHandler, TensorBoardStatsHandler, ValidationHandler
from torch.utils.data import Dataset, Subset

from ..errors import InputError
from .checkpoint import LESS, ResumableCheckpoint
from .expected_peak import ExpectedPeak
from .gradient_clip import GradientClip
from .progress import Progress
from .reproducibility import EpochSeed
from .tensorboard_overlay import TensorBoardOverlay

logger = logging.getLogger(__name__)


class LandmarkTraining:
    """Everything that happens around the steps of a training; a handler of the trainer.

    In this order: random state from seed and epoch (`EpochSeed`), a step of the learning rate's schedule after every
    iteration, the height of the targets copied into a heatmap network (`ExpectedPeak`), gradient clipping, validation
    (also after the last epoch, whatever the interval), TensorBoard with overlay pictures, a progress bar, and at last
    atomic checkpoints from which the same command goes on (`ResumableCheckpoint`). Of several processes only that of
    rank 0 validates, logs and saves.

    A loss that is not finite ends the training. Where some images of the validation have no millimetres and others do,
    errors in pixels would outweigh the others in the choice of the best weights: these images are left out of it.

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
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=10), self.require_finite_loss)
        for handler in self.handlers:
            handler.attach(engine)
        if engine.state.rank == 0:
            engine.add_event_handler(Events.STARTED, self.validate_in_one_unit)
            for handler in self.first_rank_only():
                handler.attach(engine)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.validate_last_epoch)
            TensorBoardStatsHandler(log_dir=self.log_dir, iteration_log=False).attach(self.evaluator)
            TensorBoardOverlay(log_dir=self.log_dir, landmarks=self.landmarks).attach(self.evaluator)
        self.checkpoint.attach(engine)

    def require_finite_loss(self, engine: Engine) -> None:
        """Look at the loss now and then, since reading it waits for the device.

        Raises:
            InputError: if it is not finite.
        """
        if not torch.as_tensor(engine.state.output["loss"]).isfinite():
            raise InputError(
                f"the training has diverged: the loss of step {engine.state.iteration} is not finite; {LESS}."
            )

    def validate_in_one_unit(self, engine: Engine) -> None:
        """Leave images without millimetres out of the validation where others have them."""
        loader = self.evaluator.data_loader
        data = getattr(loader, "dataset", ())
        items = (data[number] for number in range(len(data)))  # MONAI's data sets wrap around and never end
        units = [item.get("unit") if isinstance(item, Mapping) else None for item in items]
        if {"mm", "pixel"} <= set(units):
            kept = [number for number, unit in enumerate(units) if unit == "mm"]
            self.evaluator.data_loader = DataLoader(Subset(data, kept), batch_size=loader.batch_size)
            self.evaluator.state.epoch_length = len(self.evaluator.data_loader)  # MONAI's is of the loader it was given
            logger.warning(
                "%d of %d validation images have no millimetres and do not count in the choice of the best weights.",
                *(len(units) - len(kept), len(units)),
            )

    def validate_last_epoch(self, engine: Engine) -> None:
        """Validate the weights with which the training ends, where the interval leaves them out."""
        if engine.state.epoch == engine.state.max_epochs and engine.state.epoch % self.val_interval:
            self.evaluator.run(engine.state.epoch)
