"""The second stage of a patch regression: after the global network, the local ones (noothout2020, Section V-A.1)."""

import logging
import math
from pathlib import Path

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events

from ..errors import InputError
from ..transforms.coordinates import is_present, world_to_voxel
from .checkpoint import load_weights

logger = logging.getLogger(__name__)


class LocalStage:
    """Train the local networks when the training of the global one has completed; a handler of its trainer.

    It takes the global weights that were best in validation, chooses the size of the local sub-images from the errors
    that these make there, and runs the local trainer. `model.pt` stays as it is, with the local networks switched off
    (`local_size` 0), until their landmarks are better in validation than those of the global one; a warning says where
    that never happens. An interrupted second stage goes on from its own checkpoint.

    `run` is the second stage alone, from the `model.pt` of a first one.

    Args:
        trainer: of the local networks; its handlers have a `LandmarkTraining` with the `stage` "local".
        network: `common.networks.PatchRegressionNet`, also inside DistributedDataParallel.
        evaluator: of the global stage.
        local_evaluator: of the local stage.
        output_dir: folder of `model.pt` and of the checkpoints.
        size: of the sub-images in voxels (16 in the paper); 0 for twice the `percentile` of the global radial error in
            validation, rounded up to an even number.
        percentile: which of the global errors a sub-image must still cover.
        smallest: least size, in voxels.
        largest: greatest size, in voxels.
        resume: whether to go on from a second stage's checkpoint.
        enabled: False to train the global network only.

    Raises:
        InputError: if the size is odd.
    """

    def __init__(
        self,
        trainer: Engine,
        network: torch.nn.Module,
        evaluator: Engine,
        local_evaluator: Engine,
        output_dir: str | Path,
        size: int = 0,
        percentile: float = 95.0,
        smallest: int = 16,
        largest: int = 128,
        resume: bool = True,
        enabled: bool = True,
    ) -> None:
        if size % 2:
            raise InputError(f"--local_size is {size}: give an even number of voxels, since patches have two.")
        self.trainer = trainer
        self.network = getattr(network, "module", network)
        self.evaluator = evaluator
        self.local_evaluator = local_evaluator
        self.output_dir = Path(output_dir)
        self.size = size
        self.percentile = percentile
        self.smallest = smallest
        self.largest = largest
        self.resume = resume
        self.enabled = enabled

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.forget)
        if self.enabled:
            engine.add_event_handler(Events.COMPLETED, self.run)

    @property
    def checkpoint(self) -> Path:
        return self.output_dir / "checkpoint_local.pt"

    def forget(self, engine: Engine) -> None:
        """Remove the checkpoint of a second stage whose first one goes on."""
        if idist.get_rank() == 0:
            self.checkpoint.unlink(missing_ok=True)

    def run(self, engine: Engine | None = None) -> None:
        """Choose the size of the sub-images, and train.

        Raises:
            InputError: if there is no `model.pt` of a first stage, or no error in validation to choose a size by, or
                the second stage that is to go on has sub-images of another size.
        """
        idist.barrier()  # rank 0 has written model.pt
        first = idist.get_rank() == 0
        resuming = self.resume and self.checkpoint.is_file()
        load_weights(self.network, self.checkpoint if resuming else self.output_dir / "model.pt")
        chosen = int(self.network.local_size)
        if resuming and self.size not in (0, chosen):
            raise InputError(
                f"{self.checkpoint}: its sub-images have {chosen} voxels; go on with --local_size {chosen}, or choose "
                "another --output_dir."
            )
        self.network.local_size.zero_()
        if not resuming:
            size = self.choose_size(engine.state.epoch if engine is not None else 1) if first else 0
            self.network.local_size.fill_(int(idist.broadcast(float(size), src=0)))
            self.require_lower(self.evaluator.state.best_metric)
        self.trainer.run()
        if first and self.local_evaluator.state.best_metric_epoch == 0:
            logger.warning(
                "%s: the local networks did not lower the validation error of the global one (%.3f) and are switched "
                "off.",
                self.output_dir / "model.pt",
                self.local_evaluator.state.best_metric,
            )

    def require_lower(self, error: float) -> None:
        """Count the global network's error as that of the local stage's epoch 0, where it could be measured."""
        if math.isfinite(error) and self.evaluator.state.best_metric_epoch >= 0:
            self.local_evaluator.state.best_metric = error
            self.local_evaluator.state.best_metric_epoch = 0

    def choose_size(self, epoch: int = 1) -> int:
        """Size of a sub-image in voxels, by the global errors in validation, which is logged as of `epoch`."""
        errors: list[np.ndarray] = []

        def collect(evaluator: Engine) -> None:
            for output in evaluator.state.output:
                pred, truth = (
                    world_to_voxel(torch.as_tensor(output[key])[0].cpu(), output["image"].affine)
                    for key in ("pred", "label")
                )
                errors.append((pred - truth).norm(dim=-1)[is_present(truth) & is_present(pred)].numpy())

        with self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, collect):
            self.evaluator.run(epoch)
        if self.size:
            return self.size
        measured = np.concatenate([np.empty(0), *errors])
        if not measured.size:
            raise InputError(
                f"{self.output_dir / 'model.pt'}: finds no landmark that is annotated in the validation images, so no "
                "size of sub-images follows from its errors; correct the list, or give a size with --local_size."
            )
        error = float(np.percentile(measured, self.percentile))
        size = min(max(2 * math.ceil(error), self.smallest), self.largest)
        logger.info(
            "local sub-images of %d voxels: %g %% of the global errors in validation are under %.1f voxels",
            size,
            self.percentile,
            error,
        )
        return size
