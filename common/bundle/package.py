"""Bundles as zip files that stand alone, with this package inside as their `scripts`."""

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from ..data.atomic_writing import replaced_atomically, require_writable, write_atomically
from ..errors import InputError
from ..handlers import load_weights
from .compact_json import compact_json
from .location import PACKAGE, VERSION_FILE, bundle_folder, bundle_folders, package_version

NAME_IN_ZIP = "scripts"  # what MONAI Label unloads between bundles, and the model zoo's name for a bundle's code
MODEL_INFO = "model_info.json"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can tell
LEFT_OUT = ("__pycache__", ".DS_Store")
NOT_PACKAGED = ("shipped_weights", "dataset_dir", "output_dir")  # weights become models/model.pt; no machine's folders


def package(name: str, output: str = "dist", overlay: str | Sequence[str] | None = None, url: str = "") -> None:
    """Write `NAME_vVERSION.zip`, a bundle that needs nothing of this repository, and enter it in `model_info.json`.

    The zip holds the bundle's folder with configs, docs, licence and weights (`models/`), and this package as
    `scripts`, to which the configs then refer. It is the same to the byte whenever its contents are. With the entry
    of its SHA-1 checksum in `model_info.json`, a release that has both works with
    `python -m monai.bundle download --source github`.

    Args:
        name: of the bundle, or "all".
        output: folder to write to.
        overlay: a config of the bundle (without `.json`) or the path of one, to be laid over train.json and
            inference.json for good: the zip is NAME_OVERLAY, with `models/model_OVERLAY.pt` as its `models/model.pt`.
            Of several, in their order, the names are joined by underscores.
        url: where the zips will be found, for `model_info.json`: a folder's address.

    Raises:
        InputError: if there is no such bundle or overlay, the weights are not those of the network with these
            settings, or the folder cannot be written.
    """
    target = Path(output)
    require_writable(target)
    for source in bundle_folders() if name == "all" else [bundle_folder(name)]:
        files = packaged_files(source, overlay)
        packaged = next(iter(files)).split("/")[0]
        version = json.loads(files[f"{packaged}/configs/metadata.json"])["version"]
        path = target / f"{packaged}_v{version}.zip"
        write_zip(path, files)
        checksum = hashlib.sha1(path.read_bytes()).hexdigest()
        enter_model_info(target / MODEL_INFO, path.stem, checksum, f"{url.rstrip('/')}/{path.name}" if url else "")
        weights = "with weights" if f"{packaged}/models/model.pt" in files else "without weights"
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {weights}, sha1 {checksum}")


def packaged_files(source: Path, overlay: str | Sequence[str] | None = None) -> dict[str, bytes]:
    """What goes into a bundle's zip: contents by their path in it, sorted.

    Args:
        source: the bundle's folder in the repository.
        overlay: as `package`.
    """
    configs = {path.stem: read_config(path) for path in sorted((source / "configs").glob("*.json"))}
    name = source.name
    weights = source / "models" / "model.pt"
    if overlay is not None:
        layers = [read_overlay(source, each) for each in ([overlay] if isinstance(overlay, str) else overlay)]
        label = "_".join(layer for layer, _ in layers)
        name = f"{source.name}_{label}"
        weights = source / "models" / f"model_{label}.pt"
        for layer, values in layers:
            configs = flattened(configs, values, layer)
    if weights.is_file():
        load_weights(ConfigParser(deepcopy(configs["inference"])).get_parsed_content("network_def"), weights)
    files = {
        f"configs/{stem}.json": compact_json(config if stem == "metadata" else renamed(config, source.name, name))
        for stem, config in configs.items()
    }
    for path in sorted(source.rglob("*")):
        place = path.relative_to(source).as_posix()
        if path.is_file() and place not in files and place.split("/")[0] in ("configs", "docs", "LICENSE"):
            is_config = path.suffix == ".json" and path.parent.name == "configs"
            if not is_config and not set(path.parts) & set(LEFT_OUT):
                files[place] = path.read_bytes()
    files["docs/README.md"] = packaged_readme(source, name)
    if weights.is_file():
        files["models/model.pt"] = weights.read_bytes()
    for path in sorted(PACKAGE.rglob("*")):
        if path.is_file() and not set(path.parts) & set(LEFT_OUT) and path.suffix != ".log":  # of a MONAI Label server
            files[f"{NAME_IN_ZIP}/{path.relative_to(PACKAGE).as_posix()}"] = path.read_bytes()
    files[f"{NAME_IN_ZIP}/{VERSION_FILE}"] = package_version() + "\n"
    encoded = {f"{name}/{p}": c.encode() if isinstance(c, str) else c for p, c in files.items()}
    return dict(sorted(encoded.items()))


def read_config(path: Path) -> dict[str, Any]:
    """A JSON file.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is no readable JSON file ({error}); correct it.") from error


def read_overlay(source: Path, overlay: str) -> tuple[str, dict[str, Any]]:
    """Name and content of an overlay, a config of the bundle or a path.

    Raises:
        InputError: if there is none, or it is no overlay.
    """
    path = Path(overlay) if overlay.endswith(".json") else source / "configs" / f"{overlay}.json"
    if not path.is_file():
        raise InputError(f"{path}: there is no such overlay of {source.name}; give the name of one of its configs.")
    values = read_config(path)
    if "run" in values or path.stem in ("metadata", "train", "inference"):
        raise InputError(f"{path}: is a command, not an overlay of settings; give one such as cpu.json.")
    if "landmarks" in values:
        raise InputError(
            f"{path}: has other landmarks than the metadata of {source.name}; make a bundle of them with "
            "python -m common.bundle new, and package that."
        )
    return path.stem, values


def flattened(configs: Mapping[str, dict], values: dict[str, Any], label: str) -> dict[str, dict]:
    """Configs with an overlay laid over train.json, and what of it inference.json has too over that.

    Other overlays that change what inference.json has are left out, since they were made for the bundle without it.
    """
    inference = configs["inference"]
    kept = {
        stem: config
        for stem, config in configs.items()
        if "run" in config or stem == "metadata" or not any(top_level(key) in inference for key in config)
    }
    values = {key: value for key, value in values.items() if key not in NOT_PACKAGED}
    kept["train"] = merged(configs["train"], values)
    kept["inference"] = merged(inference, {key: value for key, value in values.items() if top_level(key) in inference})
    kept["metadata"] = {**configs["metadata"], "name": f"{configs['metadata']['name']} ({label})"}
    return kept


def top_level(key: str) -> str:
    """The key of a config to which an overlay's key leads, as `network_def` of `network_def::stride`."""
    return re.split("::|#", key)[0]


def merged(config: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """A config with another laid over it, as MONAI does with several `--config_file`."""
    parser = ConfigParser(deepcopy(config))
    for key, value in deepcopy(overlay).items():
        merge_kv(parser, key, value)
    return parser.get()


def renamed(config: Any, name: str, name_in_zip: str) -> Any:
    """A config that refers to `scripts` in place of this package, and to the bundle by its name in the zip.

    Names in targets (`"_target_": "common.networks..."`) and in expressions (`"$common.data..."`) are changed; other
    text is not.
    """
    if isinstance(config, dict):
        return {
            key: in_zip(value) if key == "_target_" and isinstance(value, str) else renamed(value, name, name_in_zip)
            for key, value in config.items()
        }
    if isinstance(config, list):
        return [renamed(value, name, name_in_zip) for value in config]
    if isinstance(config, str) and config.startswith("$"):
        found = f"{NAME_IN_ZIP}.bundle.bundle_root('{name_in_zip}', '{package_version()}')"
        return in_zip(config).replace(f"{NAME_IN_ZIP}.bundle.bundle_root('{name}')", found)
    return config


def in_zip(code: str) -> str:
    """Code with this package's name as it is in the zip."""
    return re.sub(r"(?<![\w.@'\"/])common(?=\.|$)", NAME_IN_ZIP, code)


def packaged_readme(source: Path, name: str) -> str:
    """The bundle's README with commands that run from the folder of the unpacked bundle."""
    text = (source / "docs" / "README.md").read_text(encoding="utf-8")
    text = text.replace(f"bundles/{source.name}/configs/", "configs/").replace(f"bundles/{source.name}", ".")
    text = re.sub(r"(-m |['$`])common\.", rf"\1{NAME_IN_ZIP}.", text)
    text = re.sub(r"\[([^\]]*)\]\((?:\.\./){2,}[^)]*\)", r"\1", text)  # to files that are not in the zip
    text = text.replace("From the root of the repository:", "From the folder of this bundle:")
    text = re.sub(rf"({NAME_IN_ZIP}\.bundle (?:ship \S+|plausibility)) {source.name}\b", r"\1 .", text)
    if name == source.name:
        return text
    title, rest = text.split("\n", 1)
    label = name.removeprefix(f"{source.name}_")
    # the overlay's settings stand in the other configs now, and other overlays are not in the zip
    rest = re.sub(rf",'configs/{re.escape(label)}\.json'| --overlay {re.escape(label)}\b", "", rest)
    rest = re.sub(r"\"\['(configs/[^',]*)'\]\"", r"\1", rest)
    rest = rest.replace(f"model_{label}.pt", "model.pt").replace("predict with their overlay", "predict")
    rest = re.sub(r" \(add configs/[^()]*\)", "", rest)
    rest = re.sub(r"with the paper's setting(?=[,\n])", f"with the settings of `{label}`", rest)
    rest = re.sub(r" --overlays \"\[[^\"]*\"", " --networks \"['']\"", rest)
    rest = re.sub(r"\n?(\n| )Overlays, given after `train\.json`: [^\n]*", "", rest)
    return (
        f"{title}\n\nThis is {source.name} with the settings of its overlay `{label}`, which stand in `train.json` and "
        f"`inference.json` here. The text below is that of the whole bundle: `configs/{label}.json` and overlays of "
        "other trainings are not here, and sizes, numbers of parameters and times of the paper's setting are not those "
        f"of this package.\n{rest}"
    )


def write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a zip file whose bytes depend on its files alone."""
    with replaced_atomically(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for place, content in files.items():
            info = zipfile.ZipInfo(place, EPOCH)
            info.create_system = 3  # Unix, wherever it is written
            info.external_attr = 0o644 << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED, compresslevel=9)


def enter_model_info(path: Path, name: str, checksum: str, source: str) -> None:
    """Enter a bundle's checksum in `model_info.json`, in the form of MONAI's model zoo."""
    entries = read_config(path) if path.is_file() else {}
    entries[name] = {"checksum": checksum, "source": source}
    write_atomically(path, json.dumps(dict(sorted(entries.items())), indent=4) + "\n")
