"""A new bundle out of an existing one: the same network and settings, other landmarks and data."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..data import datalist_info
from ..errors import InputError
from .compact_json import compact_json
from .location import PACKAGE_NAME

CHANGED = {  # configs, and what a bundle of this collection has in them
    "train": ("bundle_root", "dataset_dir", "landmarks"),
    "inference": ("bundle_root", "dataset_dir", "landmarks", "handlers"),
    "evaluate": ("protocol", "measures"),
    "metadata": ("version", "network_data_format"),
}
COPIED = ("configs/multi_gpu_train.json", "configs/logging.conf", "LICENSE")
COPIED_WHERE_THERE = ("configs/cpu.json", "configs/local_stage.json")
OTHER_TASKS = ("detection", "classification", "deepgrow", "deepedit")  # what MONAI Label reads from such names
MEASURES_OF_ANY_ANATOMY = (".MeanShape",)
TO_BE_WRITTEN = "To be written by the owner"

README = """# {name}: {count} landmarks

Made from {source} with other landmarks. Search for "{todo}" in `docs/` and `configs/metadata.json`.

## Authors

{todo}: who made this bundle, after the authors of {source}.

## Tags

Landmark localisation, {method}. {todo}: anatomy and kind of image.

## Model description

Finds {count} landmarks, named in `configs/inference.json`, with the network and settings of {source}.
{todo}: the anatomy, and what was changed since.

## Data and preprocessing

Made for the data set "{dataset}"; preprocessing and augmentation are those of {source}.
Millimetres come {millimetres}.
{todo}: images, annotators, how the lists were divided.

## Performance

Not trained or evaluated yet; no weights are shipped.
{todo}: `metrics.json` of an evaluation, with its protocol.

## How to run

{where}{cpu_note}:

```bash
C={configs} R=runs/{name}

# train
python -m monai.bundle run --config_file "['$C/train.json'{cpu}]" --output_dir $R

# evaluate on the test list
python -m monai.bundle run --config_file "['$C/train.json'{cpu},'$C/evaluate.json']" --output_dir $R

# predict: PATH is a file, a folder or a datalist
P="--dataset_dir PATH --output_dir predictions --ckpt_path $R/model.pt"
python -m monai.bundle run --config_file "['$C/inference.json'{cpu}]" $P
```

## System configuration

Not measured. {todo}: machine, time and memory of a training.

## Limitations

For research; not a medical device. Points are found in every image, whatever it shows.
{todo}: which images it is not for.

## Citation

{todo}: how to cite this bundle.

## References

{references}

## Licence

Code: Apache 2.0 (LICENSE). Data: see data_license.txt.
"""

DATA_LICENSE = """{name} is trained and evaluated on data that are not part of it.

{dataset}
    {todo}: what the images and annotations are, whose they are, and the terms of their use.
"""


def new_bundle(source: str, name: str, dataset_dir: str) -> Path:
    """Make a bundle for the landmarks of a data set, with the network and settings of another bundle.

    Landmarks, data set, channels and texts become the new ones. Millimetres come from the spacing of the images, and
    the evaluation writes no measure of the source's anatomy. Overlays other than `cpu.json` and `local_stage.json`,
    weights, outputs and pictures stay behind. The data set's path becomes absolute, so that commands find it from any
    directory.

    Args:
        source: folder of a bundle, such as `bundles/scn_hand`.
        name: folder of the new one, such as `bundles/scn_knee`; its last part is the bundle's name.
        dataset_dir: data set whose `datalist.json` names the landmarks.

    Returns:
        the new folder.

    Raises:
        InputError: if the source is no bundle of landmarks, the target exists or cannot be written, the name is not
            usable, or the data set or its landmarks cannot stand in a config.
    """
    source_dir, target = Path(os.path.abspath(str(source))), Path(os.path.abspath(str(name)))
    if (source_dir / "scripts").is_dir():
        raise InputError(f"{source}: is a package, with its code as scripts; give the bundle as the repository has it.")
    configs = _read_bundle(source_dir)
    _check_name(target)
    info = datalist_info(str(dataset_dir))
    landmarks = _landmarks(str(dataset_dir), info["landmarks"])
    dataset = os.path.abspath(os.path.expanduser(str(dataset_dir)))
    if _means_more(dataset):
        raise InputError(f"{dataset}: MONAI's configs misread a path with #; rename the folder.")

    origin = f"{source_dir.name} {configs['metadata']['version']}"
    described = {"name": target.name, "source": origin, "landmarks": landmarks, "dataset": info["name"]}
    for config in (configs["train"], configs["inference"]):
        config["bundle_root"] = f"${PACKAGE_NAME}.bundle.bundle_root('{target.name}')"
        config["dataset_dir"] = dataset
        config["landmarks"] = landmarks
    _forget_shape(configs["inference"])
    _take_millimetres_from_spacing(configs["train"])
    volumes = len(_format_of(configs["metadata"], "inputs", "image")["spatial_shape"]) == 3
    _forget_anatomy(configs["evaluate"], "by the voxel spacing of the files" if volumes else "by pixel spacing")
    _describe(configs["metadata"], **described)

    files = {f"configs/{key}.json": compact_json(config).encode() for key, config in configs.items()}
    copied = [*COPIED, *(path for path in COPIED_WHERE_THERE if (source_dir / path).is_file())]
    files |= {path: (source_dir / path).read_bytes() for path in copied}
    files["docs/README.md"] = _readme(
        target,
        configs["metadata"],
        has_cpu="configs/cpu.json" in files,
        millimetres=f"from the {'voxel' if volumes else 'pixel'} spacing",
        **described,
    )
    files["docs/data_license.txt"] = _data_license(source_dir, target.name, info["name"])
    _write_folder(target, files)
    print(f"{target}: made from {origin} for {len(landmarks)} landmarks; docs/README.md has its commands.")
    size = "image_size" if "image_size" in configs["train"] else "voxel_size"
    print(f"Before a training look at {size} and augmentation; search its files for '{TO_BE_WRITTEN}'.")
    return target


def _read_bundle(source: Path) -> dict[str, dict[str, Any]]:
    """The configs that are changed, or InputError where the folder is no bundle of landmarks."""
    wanted = [*(f"configs/{name}.json" for name in CHANGED), *COPIED]
    if missing := [path for path in wanted if not (source / path).is_file()]:
        raise InputError(f"{source}: is no bundle, for it has no {missing[0]}; give the folder of one.")
    configs = {}
    for name, keys in CHANGED.items():
        path = source / "configs" / f"{name}.json"
        try:
            configs[name] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path}: is no well-formed JSON ({error}); correct it.") from error
        if lacking := [key for key in keys if key not in configs[name]]:
            raise InputError(f"{path}: has no '{lacking[0]}'; take a bundle of this collection.")
    output = _format_of(configs["metadata"], "outputs", "pred")
    if not (_gives_heatmaps(output) or _gives_patch_grid(output)):
        raise InputError(
            f"{source}: its network gives neither a heatmap nor displacements and presence for each landmark; take a "
            "bundle whose network does."
        )
    return configs


def _format_of(metadata: dict[str, Any], side: str, name: str) -> dict[str, Any]:
    """What `network_data_format` says of an input or output; nothing where it is silent."""
    return metadata["network_data_format"].get(side, {}).get(name, {})


def _gives_heatmaps(output: dict[str, Any]) -> bool:
    return output.get("format") == "heatmap"


def _gives_patch_grid(output: dict[str, Any]) -> bool:
    return any(channel.endswith(" presence") for channel in output.get("channel_def", {}).values())


def _channels(output: dict[str, Any], landmarks: list[str]) -> list[str]:
    """Names of the channels: landmarks, or displacements along each axis and then presence (noothout2020)."""
    if _gives_heatmaps(output):
        return landmarks
    axes = "xyz"[: len(output["spatial_shape"])]
    displacements = [f"{landmark} {axis} displacement" for landmark in landmarks for axis in axes]
    return displacements + [f"{landmark} presence" for landmark in landmarks]


def _forget_shape(config: dict[str, Any]) -> None:
    """Take out what tells images of something else, which was measured on the source's anatomy, and its lines."""
    for handler in config["handlers"]:
        handler.pop("measurements", None)
    if "plausibility" in config:
        config["plausibility"]["mean_shape"] = []
        config["min_mean_confidence"] = 0.0
        config["max_shape_distance"] = 1.0


def _check_name(target: Path) -> None:
    """Raise InputError where a bundle cannot have this folder, or would not be found by its name."""
    name = target.name
    if not (name.isidentifier() and name.isascii()):
        raise InputError(
            f"{target}: '{name}' is no name for a bundle; take letters, digits and underscores, a letter first."
        )
    if found := [task for task in OTHER_TASKS if task in name.lower()]:
        raise InputError(f"{target}: MONAI Label takes '{found[0]}' in a name for another task; choose another name.")
    if os.path.lexists(target):
        raise InputError(f"{target}: exists; choose another name, or remove it.")
    namesake = Path(__file__).resolve().parents[2] / "bundles" / name
    if namesake.exists():
        raise InputError(f"{target}: configs would find {namesake} under this name; choose another name.")


def _landmarks(dataset_dir: str, names: list[str] | None) -> list[str]:
    """A data set's names, or InputError where there are none or a config cannot hold them."""
    if not names:
        raise InputError(f"{dataset_dir}: its datalist names no landmarks; add their names as the list 'landmarks'.")
    if odd := [name for name in names if _means_more(name)]:
        raise InputError(f"{dataset_dir}: MONAI's configs misread the landmark '{odd[0]}'; name it without $, @, %, #.")
    return names


def _means_more(text: str) -> bool:
    """Whether a string of a config is no plain text to MONAI: an expression, a reference, a macro or an id."""
    return re.search("^[$@%]|#|[@%]::", text) is not None


def _take_millimetres_from_spacing(train: dict[str, Any]) -> None:
    """Take out the source's reference landmarks, with the settings that only they use."""
    for transform in list(_dictionaries(train)):
        if str(transform.get("_target_")).endswith(".MillimetreScaled"):
            settings = [transform.pop(key, "") for key in ("reference_points", "reference_length")]
            for reference in settings:
                train.pop(str(reference).removeprefix("@"), None)


def _dictionaries(value: Any) -> Iterator[dict[str, Any]]:
    """All dictionaries within a value."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _dictionaries(child)


def _forget_anatomy(evaluate: dict[str, Any], millimetres: str) -> None:
    """Take out what an evaluation does with the source's landmarks alone, and its observers."""
    evaluate["protocol"]["millimetres"] = millimetres
    evaluate["measures"] = [m for m in evaluate["measures"] if m["_target_"].endswith(MEASURES_OF_ANY_ANATOMY)]
    if evaluate.pop("observers", None) is not None:
        for key in [key for key, value in evaluate.items() if re.search(r"@observers\b", str(value))]:
            del evaluate[key]


def _describe(metadata: dict[str, Any], name: str, source: str, landmarks: list[str], dataset: str) -> None:
    """Give metadata the new channels, and texts that claim nothing of the source's for the new bundle."""
    count = len(landmarks)
    output = _format_of(metadata, "outputs", "pred")
    metadata |= {
        "version": "0.1.0",
        "changelog": {"0.1.0": f"Made from {source} for {count} landmarks; no weights yet"},
        "name": name,
        "task": f"Localisation of {count} landmarks. {TO_BE_WRITTEN}: the anatomy and the kind of image",
        "description": f"Network and settings of {source}, for other landmarks; not trained yet. "
        f"{TO_BE_WRITTEN}: what it finds, and how well",
        "data_source": f"Data set '{dataset}'. {TO_BE_WRITTEN}: its origin, and who annotated it",
        "label_classes": f"{count} points, none where a landmark was not annotated",
        "pred_classes": f"{count} heatmaps with a full peak of 1"
        if _gives_heatmaps(output)
        else f"for every patch, displacements to {count} landmarks and logits of their presence",
        "eval_metrics": {},
        "references": [
            *(reference for reference in metadata.get("references", []) if not reference.startswith(TO_BE_WRITTEN)),
            f"{TO_BE_WRITTEN}: publications of the data; those above are of the network, from {source}",
        ],
    }
    channels = _channels(output, landmarks)
    output |= {
        "num_channels": len(channels),
        "channel_def": {str(number): channel for number, channel in enumerate(channels)},
    }
    points = _format_of(metadata, "post_processed_outputs", "pred")
    points["spatial_shape"] = [count, *points["spatial_shape"][1:]]


def _readme(target: Path, metadata: dict[str, Any], has_cpu: bool, landmarks: list[str], **described: str) -> bytes:
    """README.md with the sections of every bundle, and commands that find the bundle where it lies."""
    in_bundles = target.parent.name == "bundles"
    heatmaps = _gives_heatmaps(_format_of(metadata, "outputs", "pred"))
    return README.format(
        count=len(landmarks),
        todo=TO_BE_WRITTEN,
        where="From the folder that holds `bundles`" if in_bundles else "From the folder of this bundle",
        configs=f"bundles/{target.name}/configs" if in_bundles else "configs",
        cpu=",'$C/cpu.json'" if has_cpu else "",
        cpu_note="; without `cpu.json` on a machine with a GPU" if has_cpu else "",
        references="\n".join(f"{number}. {text}" for number, text in enumerate(metadata["references"], 1)),
        method="heatmap regression" if heatmaps else "patch regression and classification",
        **described,
    ).encode()


def _data_license(source: Path, name: str, dataset: str) -> bytes:
    """data_license.txt, which keeps what the source says of the weights that its network starts from."""
    path = source / "docs" / "data_license.txt"
    paragraphs = path.read_text(encoding="utf-8").split("\n\n") if path.is_file() else []
    weights = [text.strip() + "\n" for text in paragraphs if text.startswith("ImageNet weights")]
    return "\n".join([DATA_LICENSE.format(todo=TO_BE_WRITTEN, name=name, dataset=dataset), *weights]).encode()


def _write_folder(target: Path, files: dict[str, bytes]) -> None:
    """Write a folder that is there wholly or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent) as temporary:
            folder = Path(temporary) / target.name
            for path, content in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
            os.rename(folder, target)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); choose another folder.") from error
