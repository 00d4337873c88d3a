"""Progress bars of training, evaluation and prediction."""

import sys

from ignite.engine import Engine, Events
from tqdm import tqdm

from ..bundle.distributed import process_count, process_rank
from ..data.datasets import PredictionDataset


class Progress:
    """One progress bar over all iterations of a run, with the loss and the validation metric where there are any.

    A terminal gets a live bar; a log file gets a line now and then. Of several processes the first shows it.

    Args:
        description: word before the bar.
        evaluator: engine whose key metric is printed after every validation and shown in the bar.
        unit: unit of that metric, until the first validation tells it.
        dataset: images of a prediction, whose length the engine does not know; the bar counts those that cannot be
            read too, and begins at those that are done; of several processes it shows the share of the first.
    """

    def __init__(
        self,
        description: str = "training",
        evaluator: Engine | None = None,
        unit: str = "mm",
        dataset: PredictionDataset | None = None,
    ) -> None:
        self.description = description
        self.evaluator = evaluator
        self.unit = unit
        self.dataset = dataset
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)  # after a checkpoint was restored
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.advance)
        engine.add_event_handler(Events.COMPLETED, self.close)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self.report, engine)

    def start(self, engine: Engine) -> None:
        if self.bar is not None:
            return
        total, done = self.extent(engine)
        processes = process_count()
        shared = self.dataset is not None and processes > 1
        self.bar = tqdm(
            total=total,
            initial=done,
            desc=f"{self.description}, process 1 of {processes}" if shared else self.description,
            unit="image" if self.evaluator is None else "step",
            mininterval=0.5 if sys.stderr.isatty() else 15,
            dynamic_ncols=True,
            disable=process_rank() != 0,
        )

    def extent(self, engine: Engine) -> tuple[int | None, int]:
        """How far the bar goes, None where nobody knows, and how much of it is done."""
        if self.dataset is None:
            length = engine.state.epoch_length
            return length * engine.state.max_epochs if length else None, engine.state.iteration
        total = len(self.dataset.data if process_count() == 1 else self.dataset.pending)
        return total, total - len(self.dataset.pending) + self.dataset.tried

    def advance(self, engine: Engine) -> None:
        due = engine.state.iteration % 10 == 0  # reading the loss waits for the device
        if due and isinstance(engine.state.output, dict) and "loss" in engine.state.output:
            metric = ""
            if self.evaluator is not None and self.evaluator.state.best_metric_epoch >= 0:
                metric = f", best {self.evaluator.state.best_metric:.2f} {self.unit}"
            self.bar.set_postfix_str(f"loss {engine.state.output['loss'].item():.4g}{metric}", refresh=False)
        self.bar.update(self.extent(engine)[1] - self.bar.n)

    def report(self, evaluator: Engine, trainer: Engine) -> None:
        """Print the metric of a validation above the bar."""
        state = evaluator.state
        if state.key_metric_name in state.metrics:
            if isinstance(state.batch, list) and "unit" in state.batch[0]:
                self.unit = str(state.batch[0]["unit"])
            value = state.metrics[state.key_metric_name]
            line = f"epoch {trainer.state.epoch}/{trainer.state.max_epochs}: {state.key_metric_name} {value:.2f}"
            tqdm.write(f"{line} {self.unit} (best {state.best_metric:.2f} in epoch {state.best_metric_epoch})")

    def close(self, engine: Engine) -> None:
        if self.bar is not None:
            self.bar.update(self.extent(engine)[1] - self.bar.n)  # images that cannot be read may be the last
            self.bar.close()
            self.bar = None
