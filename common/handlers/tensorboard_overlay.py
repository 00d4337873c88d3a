"""Overlay pictures in TensorBoard during validation."""

from collections.abc import Sequence

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter

from ..visualize import overlay_picture


class TensorBoardOverlay:
    """Draw prediction and truth of the first images of every validation into TensorBoard.

    Args:
        log_dir: folder of the event files.
        landmarks: N names.
        max_images: number of images.
    """

    def __init__(self, log_dir: str, landmarks: Sequence[str], max_images: int = 2) -> None:
        self.log_dir = log_dir
        self.landmarks = list(landmarks)
        self.max_images = max_images
        self.writer: SummaryWriter | None = None
        self.drawn = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.draw)

    def start(self, engine: Engine) -> None:
        self.drawn = 0

    def draw(self, engine: Engine) -> None:
        for output in engine.state.output:
            image = output["image"]
            if self.drawn >= self.max_images:
                return
            pred, truth = (torch.as_tensor(output[key])[0].cpu() for key in ("pred", "label"))
            picture = overlay_picture(image, pred, truth, self.landmarks, size=768)
            self.writer = self.writer or SummaryWriter(self.log_dir)
            tag = f"validation/image_{self.drawn}"
            self.writer.add_image(tag, np.asarray(picture), engine.state.epoch, dataformats="HWC")
            self.drawn += 1
