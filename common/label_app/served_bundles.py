"""Which bundles a server offers, and where they and their weights lie."""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ..errors import InputError, did_you_mean

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parents[1]
SETTINGS = ("bundles", "models", "overlay", "output")


@dataclass(frozen=True)
class ServedBundle:
    """A bundle of the repository, or an unpacked package with its code as `scripts`.

    Attributes:
        folder: of the bundle.
        overlay: name of a config or path of a JSON file that is laid over train.json and inference.json, or None.
        output: folder of what is trained on the server.
    """

    folder: Path
    overlay: str | None
    output: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def overlay_files(self) -> list[Path]:
        """Path of the overlay, if there is one."""
        if self.overlay is None:
            return []
        path = Path(self.overlay).expanduser()
        return [path if path.suffix == ".json" else self.folder / "configs" / f"{self.overlay}.json"]

    @property
    def has_overlay(self) -> bool:
        """Whether the overlay, if there is one, is a file."""
        return all(path.is_file() for path in self.overlay_files)

    def config_files(self, name: str) -> list[str]:
        """Paths of "train" or "inference", with the overlay."""
        files = [self.folder / "configs" / f"{name}.json", *self.overlay_files]
        for path in files:
            if not path.is_file():
                raise InputError(f"{path}: there is no such config of {self.name}; give another --conf overlay.")
        return [str(path) for path in files]

    def config(self, name: str) -> ConfigParser:
        """The parser of "train" or "inference", unresolved, with this folder as its bundle_root."""
        parser = ConfigParser()
        parser.read_config(self.config_files(name))
        parser.config["bundle_root"] = str(self.folder)
        return parser

    @property
    def metadata(self) -> Mapping[str, Any]:
        return json.loads((self.folder / "configs" / "metadata.json").read_text(encoding="utf-8"))

    @property
    def landmarks(self) -> list[str]:
        """Names of its landmarks in order."""
        return list(self.config("inference").config["landmarks"])

    @property
    def weights(self) -> list[str]:
        """Where weights may lie; of those that are there the last is taken: trained here, then shipped, then trained
        by the bundle's own command. With an overlay, the shipped ones are `models/model_OVERLAY.pt`."""
        shipped = "model.pt" if self.overlay is None else f"model_{Path(self.overlay).stem}.pt"
        places = (self.folder / "output" / "model.pt", self.folder / "models" / shipped, self.output / "model.pt")
        return [str(path) for path in places]


def find_bundles(conf: Mapping[str, str]) -> dict[str, ServedBundle]:
    """The bundles that a server's settings name.

    Args:
        conf: `bundles`, a folder of bundles (by default the `bundles` beside this package, or, where this package is
            the `scripts` of an unpacked bundle, the folder of that bundle); `models`, names separated by commas, or
            "all", which leaves out those without the overlay; `overlay`; `output`, a folder for what is trained (by
            default the bundle's `output`). Of each bundle it is `monai_label` there, or the bundle's name in a given
            folder, with an overlay `monai_label_OVERLAY` or `NAME_OVERLAY`, since its weights are of another network.

    Raises:
        InputError: if there is no such folder, bundle or overlay, or a setting is a misspelt one of these (others are
            MONAI Label's).
    """
    for key in conf.keys() - set(SETTINGS):
        if hint := did_you_mean(key, SETTINGS, "--conf "):
            raise InputError(f"--conf {key}: is no setting; {hint}")
    folder = Path(conf["bundles"]).expanduser().resolve() if conf.get("bundles") else default_folder()
    found = {path.parents[1].name: path.parents[1] for path in sorted(folder.glob("*/configs/inference.json"))}
    if not found:
        raise InputError(f"{folder}: holds no bundles; give their folder as --conf bundles FOLDER.")
    wanted = [name.strip() for name in (conf.get("models") or "all").split(",") if name.strip()]
    overlay = conf.get("overlay") or None
    if wanted == ["all"]:
        served = {name: ServedBundle(path, overlay, path) for name, path in found.items()}
        wanted = [name for name, bundle in served.items() if bundle.has_overlay] or list(found)
        if without := [name for name in found if name not in wanted]:
            logger.warning("not served, since they have no overlay %s: %s.", overlay, ", ".join(without))
    if unknown := [name for name in wanted if name not in found]:
        raise InputError(f"{folder}: has no bundle {', '.join(unknown)}; choose --conf models of {', '.join(found)}.")
    output = Path(conf["output"]).expanduser().resolve() if conf.get("output") else None
    suffix = f"_{Path(overlay).stem}" if overlay else ""
    bundles = {}
    for name in wanted:
        own = output / f"{name}{suffix}" if output else found[name] / "output" / f"monai_label{suffix}"
        bundles[name] = ServedBundle(found[name], overlay, own)
        bundles[name].config_files("inference")
    return bundles


def default_folder() -> Path:
    """`bundles` beside this package; where that is a bundle's `scripts`, the folder that holds this bundle."""
    above = PACKAGE.parent
    return above.parent if (above / "configs" / "inference.json").is_file() else above / "bundles"


@contextmanager
def on_python_path(folder: Path) -> Iterator[None]:
    """Let Python find what lies in a folder, such as the `scripts` of a packaged bundle."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def modified(path: str) -> tuple[str, int]:
    """A file and when it was written."""
    return path, os.stat(path).st_mtime_ns
