"""Atomic checkpoints, exact resume, and weights with a check of what they belong to."""

import hashlib
import logging
import pickle
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from ..data.atomic_writing import replaced_atomically, require_writable
from ..errors import InputError

logger = logging.getLogger(__name__)

LESS = "lower --learning_rate or set --max_gradient_norm 1, and give the same command with another --output_dir"


def save_atomically(content: Any, path: str | Path) -> None:
    """Write a file with `torch.save` beside `path`, then rename it: a failed write leaves the old file as it was.

    Raises:
        InputError: if the file cannot be written (no permission, no space).
    """
    path = Path(path)
    try:
        with replaced_atomically(path) as temporary, open(temporary, "wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        # torch tells its own writer's state where the disk said why, some causes before
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        reason = (getattr(cause, "strerror", None) or str(error)).splitlines()[0]
        kept = "; the file written before is unharmed" if path.exists() else ""
        raise InputError(f"{path}: cannot be written ({reason}); free space or choose another folder{kept}.") from error


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> Any:
    """Read what `torch.save` wrote, tensors only.

    Raises:
        InputError: if the file is missing, damaged or holds more than tensors.
    """
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; train first, or give the path of the weights.") from None
    except pickle.UnpicklingError as error:  # torch's own text advises to load it all the same
        raise InputError(
            f"{path}: is damaged, or holds more than tensors, which might be code; give a file of weights alone."
        ) from error
    except Exception as error:  # whatever the unpickler meets in a damaged file
        raise InputError(
            f"{path}: is no readable PyTorch checkpoint, it may be truncated; copy it again, or give a file of weights."
        ) from error


def read_weights(path: str | Path) -> Mapping[str, Any]:
    """State dictionary in a file, alone or under "model" (a training checkpoint).

    Raises:
        InputError: if the file cannot be read or holds none.
    """
    content = read_checkpoint(path)
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: holds no weights of a network; give a model.pt that this bundle trained.")
    return content


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Fill a network with weights from a file, all of them or none.

    Raises:
        InputError: if the file cannot be read or belongs to another network.
    """
    content, own = read_weights(path), network.state_dict()
    differing = sorted(map(str, set(own) ^ set(content)))
    differing = differing or [k for k in own if own[k].shape != getattr(content[k], "shape", None)]
    if differing:
        raise InputError(
            f'{path}: the weights are of another network ({len(differing)} entries differ, first "{differing[0]}"); '
            "give weights that were trained with these settings (network, number of landmarks, overlay)."
        )
    network.load_state_dict(content)


def load_initial_weights(
    network: nn.Module, path: str | Path | None = None, resumed: str | Path | None = None
) -> nn.Module:
    """Fill a network with weights from which its training starts, and return it.

    Weights of another number of landmarks fit in part: the layers whose shape depends on it start at random, with a
    warning. A template of images (`common.transforms.fit_template`) is taken where everything fits; with other
    landmarks it is of other films. Of patch regression, local networks are off until they have been trained here.

    Args:
        network: whatever the training changes.
        path: `model.pt` or `checkpoint.pt` of a training, or weights that a bundle ships; None leaves the network as
            it is.
        resumed: output folder of a training that goes on where it stopped. Where it has a `checkpoint.pt`, which
            `ResumableCheckpoint` loads later, nothing else is loaded but the template, since films are registered to
            it before.

    Raises:
        InputError: if the file cannot be read, or half of the network's tensors or more find none of theirs in it.
    """
    own = network.state_dict()
    if resumed is not None and (Path(resumed) / "checkpoint.pt").is_file():
        if templates := [key for key in own if key.startswith("template")]:
            content = read_weights(Path(resumed) / "checkpoint.pt")
            network.load_state_dict({key: content[key] for key in templates if fits(content, key, own)}, strict=False)
        return network
    if path is None:
        return network
    content = read_weights(path)
    fitting = [key for key in own if fits(content, key, own)]
    others = [key for key in own if key not in fitting]
    if 2 * len(fitting) <= len(own):
        raise InputError(
            f"{path}: only {len(fitting)} of the network's {len(own)} tensors find one of their name and shape in it; "
            "give weights of a training with the same network (bundle, overlay, number of filters)."
        )
    if others:
        logger.warning(
            '%s: %d tensors are missing there or of another shape and start anew, first "%s".',
            path,
            len(others),
            others[0],
        )
    fitting = [key for key in fitting if key != "local_size" and not (others and key.startswith("template"))]
    logger.info("%s: the training starts from %d of %d tensors.", path, len(fitting), len(own))
    network.load_state_dict({key: content[key] for key in fitting}, strict=False)
    return network


def fits(content: Mapping[str, Any], key: str, own: Mapping[str, torch.Tensor]) -> bool:
    """Whether weights hold a tensor of that name and shape."""
    return getattr(content.get(key), "shape", None) == own[key].shape


def shipped_overlays(folder: Path) -> list[str]:
    """Names of the overlays whose weights `model_OVERLAY.pt` lie in a folder."""
    return sorted(path.stem.removeprefix("model_") for path in folder.glob("model_*.pt"))


def find_weights(*candidates: str | Path) -> str:
    """The first of some files of weights that exists; logs which, and warns where it is not the first of all.

    Raises:
        InputError: if none exists.
    """
    for path in map(Path, candidates):
        if path.is_file():
            if path != Path(candidates[0]):
                logger.warning("%s: there are no weights here; those of %s are taken.", candidates[0], path)
            logger.info("weights: %s", path)
            return str(path)
    overlays = [f"configs/{name}.json" for name in shipped_overlays(Path(candidates[0]).parent)]
    way = f"add {' or '.join(overlays)}, whose weights are there, " if overlays else "train first, "
    raise InputError(
        f"{candidates[0]}: there are no weights here{''.join(f', nor in {p}' for p in candidates[1:])}; "
        f"{way}or give the file with --ckpt_path."
    )


class LoadWeights:
    """Handler that fills a network when an engine starts (`load_weights`)."""

    def __init__(self, network: nn.Module, path: str | Path) -> None:
        self.network = network
        self.path = path

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda: load_weights(self.network, self.path))


PROGRESS = {"last_epoch", "_step_count", "_last_lr", "_is_initial", "_get_lr_called_within_step"}


def changed_plan(content: Mapping[str, Any], objects: Mapping[str, Any]) -> str:
    """What of the learning rate's schedule in a checkpoint is other than now, in words; empty where nothing is.

    A schedule that was made for a run of another length or height would go on as it was made.

    Args:
        content: states by name, as saved.
        objects: what they belong to.
    """
    changed = []
    for name, thing in objects.items():
        saved = content[name]
        if isinstance(thing, torch.optim.lr_scheduler.LRScheduler) and isinstance(saved, Mapping):
            own = thing.state_dict()
            changed += [
                f"{key} {saved[key]} (now {own[key]})"
                for key in own
                if key in saved
                and key not in PROGRESS
                and plain(own[key])
                and plain(saved[key])
                and own[key] != saved[key]
            ]
    return ", ".join(changed)


def plain(value: Any) -> bool:
    """Whether a value is a number, a text or a collection of these, which can be compared."""
    if isinstance(value, Mapping):
        return all(map(plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    return isinstance(value, (bool, int, float, str, type(None)))


class ResumableCheckpoint:
    """Save the whole state of a training run after every `interval` epochs or `seconds`, and go on from there.

    Writes `checkpoint.pt` or a file of another name (model, loss, optimiser, scheduler, epoch, best metric), and
    `model.pt`: the weights of the epoch with the best key metric of the evaluator, or of the last epoch where there is
    no evaluator or it never ran. An evaluator that has a best metric when the run starts must find a better one before
    `model.pt` is written. Both are written atomically by the process of rank 0. Attach it as the last handler of the
    trainer.

    An interrupted run starts again after the last saved epoch; with `EpochSeed` it ends as if it had never stopped.
    A trainer that runs again in the same process, as a federated client does for every round, goes on with the weights
    that its network has then.

    Args:
        output_dir: folder of the two files.
        objects: what to save and to restore, by name: modules, optimisers, schedulers, scalers; "model" is the
            network.
        evaluator: engine whose `state.best_metric` decides about `model.pt`.
        interval: epochs between two checkpoints; the last epoch always has one, and so has an epoch that ends `seconds`
            or more after the last checkpoint, so that little is lost where validations are hours apart.
        seconds: of that.
        resume: whether to start from an existing `checkpoint.pt`.
        name: of the file that holds the whole state.
        identity: what the run is about (landmarks, image names ...): a checkpoint with another identity is refused.
    """

    def __init__(
        self,
        output_dir: str | Path,
        objects: Mapping[str, Any],
        evaluator: Engine | None = None,
        interval: int = 1,
        seconds: float = 120.0,
        resume: bool = True,
        identity: Iterable[Any] = (),
        name: str = "checkpoint.pt",
    ) -> None:
        self.path = Path(output_dir) / name
        self.model_path = Path(output_dir) / "model.pt"
        self.objects = {name: getattr(o, "module", o) for name, o in objects.items()}
        self.evaluator = evaluator
        self.interval = interval
        self.seconds = seconds
        self.resume = resume
        digest = hashlib.sha256("\n".join(map(str, identity)).encode()).digest()
        self.identity = torch.frombuffer(bytearray(digest), dtype=torch.uint8)
        self.saved_best_epoch = -1
        self.saved_at = time.monotonic()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def start(self, engine: Engine) -> None:
        """Check that the folder can be written, and restore the run that was interrupted.

        Raises:
            InputError: if the folder cannot be written, or the checkpoint belongs to another run or to other settings
                of the learning rate or its schedule.
        """
        self.saved_at = time.monotonic()
        if engine.state.rank == 0:
            require_writable(self.path.parent)
        if self.evaluator is not None:
            self.saved_best_epoch = self.evaluator.state.best_metric_epoch
        if engine.state.iteration or not (self.resume and self.path.is_file()):  # or a further round of this trainer
            return
        content = read_checkpoint(self.path)
        advice = "choose another --output_dir, or start anew with --resume False"
        if not isinstance(content, Mapping) or set(content) != {*self.objects, "progress", "identity"}:
            raise InputError(f"{self.path}: not a checkpoint of this training; {advice}.")
        if not torch.equal(content["identity"], self.identity):
            raise InputError(f"{self.path}: belongs to a run on other images or landmarks; {advice}.")
        if changed := changed_plan(content, self.objects):
            raise InputError(
                f"{self.path}: its learning rate was planned with {changed}; give the settings of that run, or begin "
                "another from its weights (--initial_weights) in another --output_dir."
            )
        try:
            for name, thing in self.objects.items():
                thing.load_state_dict(content[name])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f'{self.path}: its "{name}" is of another network or optimiser; {advice}.') from error
        epoch, best_epoch, best_metric = content["progress"].tolist()
        engine.state.epoch = int(epoch)
        engine.state.iteration = int(epoch) * engine.state.epoch_length
        if self.evaluator is not None and best_epoch >= 0:
            self.evaluator.state.best_metric = best_metric
            self.evaluator.state.best_metric_epoch = int(best_epoch)
        self.saved_best_epoch = int(best_epoch)
        if engine.state.epoch >= engine.state.max_epochs:
            logger.warning("%s: all %d epochs are done; nothing to train.", self.path, engine.state.max_epochs)
        else:
            logger.info("%s: resuming after epoch %d of %d.", self.path, engine.state.epoch, engine.state.max_epochs)

    def save(self, engine: Engine) -> None:
        """Write both files where this epoch asks for them; `model.pt` first, so that no best weights are lost.

        Raises:
            InputError: if a weight is not finite; the files stay as they were.
        """
        state = self.evaluator.state if self.evaluator is not None else None
        best_epoch = state.best_metric_epoch if state is not None else engine.state.epoch
        last = engine.state.epoch >= engine.state.max_epochs
        new_best = best_epoch >= 0 and best_epoch != self.saved_best_epoch
        late = time.monotonic() - self.saved_at >= self.seconds
        due = engine.state.epoch % self.interval == 0 or last or late
        if engine.state.rank != 0 or not (due or (state is not None and new_best)):
            return
        weights = self.objects["model"].state_dict().values()
        if not all(weight.isfinite().all() for weight in weights if torch.is_tensor(weight)):
            raise InputError(f"{self.path}: the training has diverged, weights are not finite; {LESS}.")
        if new_best or (last and self.saved_best_epoch < 0):
            save_atomically(self.objects["model"].state_dict(), self.model_path)
            self.saved_best_epoch = best_epoch
        best_metric = float(state.best_metric) if state is not None else 0.0
        content = {name: thing.state_dict() for name, thing in self.objects.items()}
        content["progress"] = torch.tensor([engine.state.epoch, best_epoch, best_metric], dtype=torch.float64)
        content["identity"] = self.identity
        save_atomically(content, self.path)
        self.saved_at = time.monotonic()
