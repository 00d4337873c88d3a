"""What a bundle must have before others use it: the checks of MONAI's model zoo, and more."""

import importlib.util
import json
import logging
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ckpt_export, onnx_export, verify_metadata, verify_net_in_out
from monai.bundle.properties import InferProperties, MetaProperties, TrainProperties

from ..errors import InputError
from ..handlers import load_weights
from .location import bundle_folders, bundle_path
from .unpack import unpacked

SCHEMA = Path(__file__).with_name("meta_schema.json")
FILES = (
    *(f"configs/{name}.json" for name in ("metadata", "train", "evaluate", "inference", "multi_gpu_train")),
    *("configs/logging.conf", "docs/README.md", "docs/data_license.txt", "LICENSE"),
)
SECTIONS = (
    *("Authors", "Tags", "Model description", "Data and preprocessing", "Performance", "How to run"),
    *("System configuration", "Limitations", "Citation", "References", "Licence"),
)
OTHER_TASKS = r"detection|classification|deepgrow|deepedit"  # what MONAI Label reads from a name
MONAI_LABEL_NEEDS = ("preprocessing", "postprocessing", "inferer", "dataset", "dataloader", "handlers", "run")
NEEDED = {"jsonschema": "metadata.json by MONAI's schema", "onnx": "the export to ONNX"}
SIZE = 64  # voxels along each axis of the images that the network is tried on, where its metadata allow any


def check(name: str, exports: bool = True) -> None:
    """Look for what would make a bundle fail elsewhere, and end with status 1 where there is something.

    Args:
        name: a bundle of the repository, "all" of them, the folder of a bundle, or the zip of a packaged one.
        exports: whether to try the network too, with random weights: its input and output as the metadata describe
            them, TorchScript and ONNX.

    Raises:
        InputError: if there is no such bundle, or a problem was found; each is printed before.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if name == "all":
            folders = bundle_folders()
        elif Path(name).suffix == ".zip":
            folders = [unpacked(name, scratch)]
        else:
            folders = [bundle_path(name)]
        for module, what in NEEDED.items():
            if not is_installed(module) and (exports or module != "onnx"):
                print(f"not looked at: {what}, for which {module} is missing here (pip install {module})")
        count = 0
        for folder in folders:
            logging.disable(logging.WARNING)  # what MONAI's verbs tell of their arguments
            found = list(problems(folder, exports))
            logging.disable(logging.NOTSET)
            for problem in found:
                print(f"{folder.name}: {problem}")
            if not found:
                print(f"{folder.name}: no problem found")
            count += len(found)
    if count:
        raise InputError(f"{name}: {count} problems, printed above; correct them before others get it.")


def is_installed(module: str) -> bool:
    """Whether a package is there that a check needs and a prediction does not."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # named in sys.modules, and not there
        return False


def problems(folder: Path, exports: bool = True) -> Iterator[str]:
    """All that is wrong with the bundle in a folder, a sentence each."""
    missing = [place for place in FILES if not (folder / place).is_file() or not (folder / place).stat().st_size]
    yield from (f"{place}: is missing or empty" for place in missing)
    try:
        configs = {path.stem: json.loads(path.read_text("utf-8")) for path in (folder / "configs").glob("*.json")}
    except ValueError as error:
        yield f"configs: one is no valid JSON ({error})"
        return
    if missing:
        return
    checks: list[Callable[..., Iterator[str]]] = [
        names, schema, versions, landmarks, inference_alone, imports, properties, readme_sections, links
    ]  # fmt: skip
    for each in checks:
        found = list(each(folder, configs))
        yield from found
        if found and each is schema:  # what else is to be compared may not be there
            return
    if exports:
        yield from network(folder, configs)


def names(folder: Path, configs: dict[str, Any]) -> Iterator[str]:
    """MONAI Label guesses the task from the name."""
    if re.search(OTHER_TASKS, folder.name):
        yield f"the name {folder.name} makes MONAI Label take it for another task ({OTHER_TASKS})"


def schema(folder: Path, configs: dict[str, Any]) -> Iterator[str]:
    """MONAI's schema of metadata.json."""
    if not is_installed("jsonschema"):
        return
    try:
        verify_metadata(meta_file=str(folder / "configs" / "metadata.json"), filepath=str(SCHEMA))
    except Exception as error:
        yield f"configs/metadata.json: {str(error).splitlines()[0]}"


def versions(folder: Path, configs: dict[str, Any]) -> Iterator[str]:
    """The version at the end of the changelog."""
    version, changelog = configs["metadata"]["version"], configs["metadata"]["changelog"]
    numbers = [each for each in (version, *changelog) if re.fullmatch(r"\d+\.\d+\.\d+", each)]
    if len(numbers) <= len(changelog) or version not in changelog:
        yield f"configs/metadata.json: version {version} is not in the changelog, or a version is not like 1.2.3"
    elif max(changelog, key=numbered) != version:
        yield f"configs/metadata.json: the changelog goes on after version {version}"


def numbered(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def landmarks(folder: Path, configs: dict[str, Any]) -> Iterator[str]:
    """The same names in the same order everywhere, once each."""
    wanted = configs["inference"].get("landmarks")
    if not wanted or len(set(wanted)) != len(wanted):
        yield "configs/inference.json: landmarks are missing, or a name stands twice"
        return
    for stem, config in configs.items():
        if config.get("landmarks", wanted) != wanted:
            yield f"configs/{stem}.json: its landmarks are not those of inference.json"
    formats = configs["metadata"]["network_data_format"]
    pred = formats["outputs"]["pred"]
    if pred["format"] == "heatmap" and list(pred["channel_def"].values()) != wanted:
        yield "configs/metadata.json: the channels of pred are not the landmarks of inference.json"
    points = formats.get("post_processed_outputs", {}).get("pred", {})
    if points.get("spatial_shape") != [len(wanted), len(formats["inputs"]["image"]["spatial_shape"])]:
        yield "configs/metadata.json: post_processed_outputs have not one point per landmark"


def inference_alone(folder: Path, configs: dict[str, Any]) -> Iterator[str]:
    """inference.json needs no other file, and every `@reference` of a config exists."""
    foreign = [text for text in texts(configs["inference"]) if text.startswith("%") or "_meta_" in text]
    yield from (f"configs/inference.json: '{text}' needs another file" for text in foreign)
    if foreign:
        return
    for key in MONAI_LABEL_NEEDS:
        if key not in configs["inference"]:
            yield f"configs/inference.json: has no {key}"
    for stem in configs.keys() - {"metadata"}:
        over = [] if stem in ("train", "inference") else ["train"]
        parser = ConfigParser()
        parser.read_config([str(folder / "configs" / f"{each}.json") for each in [*over, stem]])
        parser.parse()
        items = parser.ref_resolver.items
        for item in items.values():
            if isinstance(item.get_config(), str):
                for reference in type(parser.ref_resolver).match_refs_pattern(item.get_config()):
                    if reference not in items:
                        yield f"configs/{stem}.json: '{item.get_config()}' refers to {reference}, which is not there"


def texts(value: Any) -> Iterator[str]:
    """All strings in a config."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for child in value.values() if isinstance(value, dict) else value:
            yield from texts(child)


def imports(folder: Path, configs: dict[str, Any]) -> Iterator[str]:
    """A packaged bundle has code named `scripts` and refers to no other, one in the repository to `common`."""
    carried = (folder / "scripts").is_dir()
    other = "common" if carried else "scripts"
    for stem in configs.keys() - {"metadata"}:
        for text in texts(configs[stem]):
            if re.match(rf"\$.*(?<![\w.@'\"/]){other}\.", text) or text.startswith(f"{other}."):
                yield f"configs/{stem}.json: '{text}' refers to {other}, which is not where this bundle is"


def properties(folder: Path, configs: dict[str, Any]) -> Iterator[str]:
    """What MONAI's workflows ask for."""
    for stem, wanted in (("train", TrainProperties), ("inference", InferProperties)):
        parser = ConfigParser({**configs[stem], "_meta_": configs["metadata"]})
        for name, each in {**wanted, **MetaProperties}.items():
            if each["required"] and each["id"] not in parser:
                yield f"configs/{stem}.json: has no {each['id']}, MONAI's property {name}"


def readme_sections(folder: Path, configs: dict[str, Any]) -> Iterator[str]:
    """The sections of the model zoo, none empty."""
    parts = re.split(r"^## +(.*)$", (folder / "docs" / "README.md").read_text("utf-8"), flags=re.MULTILINE)
    filled = {title.strip() for title, text in zip(parts[1::2], parts[2::2]) if text.strip()}
    yield from (f"docs/README.md: the section {title} is missing or empty" for title in SECTIONS if title not in filled)


def links(folder: Path, configs: dict[str, Any]) -> Iterator[str]:
    """Links and pictures of the README that are no web addresses lie beside it."""
    text = re.sub(r"```.*?```|`[^`]*`", "", (folder / "docs" / "README.md").read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"<img[^>]*src=\"([^\"]+)\"", text):
        place = target.split("#")[0]
        if place and not re.match(r"[a-z]+:", place) and not (folder / "docs" / place).exists():
            yield f"docs/README.md: links to {target}, which is not there"


def network(folder: Path, configs: dict[str, Any]) -> Iterator[str]:
    """The weights, the network's input and output, TorchScript and ONNX, by random weights where there are none."""
    files = {"meta_file": str(folder / "configs" / "metadata.json")}
    files["config_file"] = str(folder / "configs" / "inference.json")
    sys.path.insert(0, str(folder))  # a packaged bundle's own code
    try:
        with tempfile.TemporaryDirectory() as scratch:
            wrong = list(wrong_weights(folder, configs))
            yield from wrong
            if wrong:
                return
            weights = folder / "models" / "model.pt"
            if not weights.is_file():
                weights = Path(scratch) / "model.pt"
                torch.save(network_of(folder, "inference").state_dict(), weights)
            image = configs["metadata"]["network_data_format"]["inputs"]["image"]
            shape = [1, image["num_channels"], *[SIZE] * len(image["spatial_shape"])]
            options = {"dynamo": False, "input_names": ["image"], "output_names": ["pred"]}
            trials = {
                "network_data_format": lambda: verify_net_in_out("network_def", device="cpu", n=2, any=SIZE, **files),
                "TorchScript": lambda: ckpt_export(
                    "network_def", filepath=f"{scratch}/model.ts", ckpt_file=str(weights), **files
                ),
                "ONNX": lambda: onnx_export(
                    *("network_def", f"{scratch}/model.onnx", str(weights)),
                    **{"input_shape": shape, "use_trace": True, "converter_kwargs": options, **files},
                ),
            }
            if not is_installed("onnx"):
                del trials["ONNX"]
            for what, trial in trials.items():
                try:
                    trial()
                except Exception as error:
                    yield f"the network fails with {what} ({type(error).__name__}: {str(error).splitlines()[0]})"
    finally:
        sys.path.remove(str(folder))


def network_of(folder: Path, *stems: str) -> torch.nn.Module:
    """The network of some configs laid over each other."""
    parser = ConfigParser()
    parser.read_config([str(folder / "configs" / f"{stem}.json") for stem in stems])
    return parser.get_parsed_content("network_def")


def wrong_weights(folder: Path, configs: dict[str, Any]) -> Iterator[str]:
    """Weights that are not those of the network: `model.pt`, and `model_OVERLAY.pt` with that overlay."""
    for path in sorted((folder / "models").glob("*.pt")):
        overlay = path.stem.removeprefix("model").removeprefix("_")
        if overlay and overlay not in configs:
            continue  # of several overlays, or another file
        try:
            load_weights(network_of(folder, "inference", *([overlay] if overlay else [])), path)
        except InputError as error:
            yield str(error)
