"""What holds for the files of every bundle, without training or predicting anything."""

import json
import logging.config
import re
from pathlib import Path
from pydoc import locate

import jsonschema
import pytest
from monai.bundle import ConfigParser, ReferenceResolver, verify_metadata

import common

REPOSITORY = Path(common.__file__).resolve().parents[1]
SCHEMA = REPOSITORY / "common" / "bundle" / "meta_schema.json"
FILES = [
    *(f"configs/{name}.json" for name in ("metadata", "train", "evaluate", "inference", "multi_gpu_train")),
    *("configs/logging.conf", "docs/README.md", "docs/data_license.txt", "LICENSE"),
]
BUNDLES = sorted(path for path in (REPOSITORY / "bundles").iterdir() if path.is_dir())
CONFIGS = [path for bundle in BUNDLES for path in sorted((bundle / "configs").glob("*.json"))]
OVERLAYS = [path for path in CONFIGS if path.stem not in ("metadata", "train", "inference")]
# Names that MONAI and its applications ask for, whether or not anything in the config does.
KNOWN = {
    *("imports", "bundle_root", "device", "dataset_dir", "network_def", "run", "finalize"),
    *("dataset", "evaluator", "preprocessing", "postprocessing", "inferer", "handlers"),
    *("train::trainer", "train::dataset", "train::inferer", "validate::evaluator"),
}


def of(path):
    """Name of a test's parameter: the bundle, and the file where it is one."""
    return path.name if path in BUNDLES else f"{path.parents[1].name}-{path.stem}"


each_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=of)
each_config = pytest.mark.parametrize("path", CONFIGS, ids=of)
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS, ids=of)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def metadata(bundle):
    return read(bundle / "configs" / "metadata.json")


def items_of(*files):
    """All items of configs laid over each other, by id, unresolved."""
    parser = ConfigParser()
    parser.read_config([str(path) for path in files])
    parser.parse()
    return {name: item.get_config() for name, item in parser.ref_resolver.items.items() if name}


def references(items):
    """Every `@id` in the strings of a config, with the id of the item that holds it."""
    return {(ref, name) for name, value in items.items() if isinstance(value, str) for ref in refs_in(value)}


def refs_in(value):
    return ReferenceResolver.match_refs_pattern(value)


def strings(value):
    if isinstance(value, dict):
        for child in value.values():
            yield from strings(child)
    elif isinstance(value, list):
        for child in value:
            yield from strings(child)
    elif isinstance(value, str):
        yield value


def run_with(overlay):
    """The files that an overlay is documented to lie on: train.json, and cpu.json under quick.json."""
    train, cpu = (overlay.with_name(f"{name}.json") for name in ("train", "cpu"))
    return (train, cpu) if overlay.stem == "quick" and cpu.is_file() else (train,)


def combinations(bundle):
    """The files of a bundle that are run together."""
    train, inference = (bundle / "configs" / f"{name}.json" for name in ("train", "inference"))
    overlays = [path for path in OVERLAYS if path.parents[1] == bundle]
    modes = [path for path in overlays if "run" in read(path)]
    yield from [(train,), (inference,)]
    yield from ((*run_with(path), path) for path in overlays)
    yield from ((*run_with(path), path, mode) for path in overlays for mode in modes if path not in modes)
    settings = [path for path in overlays if path not in modes]
    yield from ((inference, path) for path in settings if set(read(path)) <= set(read(inference)))


@each_bundle
def test_the_files_that_monai_expects_are_there_and_not_empty(bundle):
    assert [name for name in FILES if not (bundle / name).is_file() or not (bundle / name).stat().st_size] == []


@each_bundle
def test_monai_label_does_not_mistake_the_name_for_another_task(bundle):
    assert not re.search("detection|classification|deepgrow|deepedit", bundle.name)


@each_bundle
def test_the_logging_file_is_one_that_logging_takes_and_writes_to_stderr(bundle, monkeypatch):
    logging.config.fileConfig(bundle / "configs" / "logging.conf", disable_existing_loggers=False)


@each_bundle
def test_verify_metadata_accepts_the_metadata_offline(bundle):
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(SCHEMA))


@pytest.mark.parametrize("field", read(SCHEMA)["required"])
def test_the_schema_refuses_metadata_without_a_mandatory_field(field):
    content = metadata(BUNDLES[0])
    del content[field]
    with pytest.raises(jsonschema.ValidationError, match=f"'{field}' is a required property"):
        jsonschema.validate(content, read(SCHEMA))


@pytest.mark.parametrize("kind", ["inputs", "outputs", "post_processed_outputs"])
@pytest.mark.parametrize("field", read(SCHEMA)["$defs"]["tensor"]["required"])
def test_the_schema_refuses_a_tensor_without_a_mandatory_field(kind, field):
    content = metadata(BUNDLES[0])
    tensors = content["network_data_format"][kind]
    del next(iter(tensors.values()))[field]
    with pytest.raises(jsonschema.ValidationError, match=f"'{field}' is a required property"):
        jsonschema.validate(content, read(SCHEMA))


@each_bundle
def test_the_changelog_ends_at_the_version(bundle):
    content = metadata(bundle)
    numbers = {tuple(map(int, version.split("."))) for version in content["changelog"]}
    assert tuple(map(int, content["version"].split("."))) == max(numbers)


@each_bundle
def test_versions_in_the_metadata_are_those_of_the_requirements(bundle):
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    pinned = dict(line.lower().split("==") for line in lines if "==" in line and not line.startswith("#"))
    content = metadata(bundle)
    named = {**content["required_packages_version"], "monai": content["monai_version"]}
    named |= {"torch": content["pytorch_version"], "numpy": content["numpy_version"]}
    assert {name: version for name, version in named.items() if pinned.get(name.lower()) != version} == {}


@each_bundle
def test_the_channels_of_the_metadata_are_those_of_the_landmarks(bundle):
    names = items_of(bundle / "configs" / "inference.json")["landmarks"]
    formats = metadata(bundle)["network_data_format"]
    for tensor in [*formats["inputs"].values(), *formats["outputs"].values()]:
        assert list(tensor["channel_def"]) == [str(channel) for channel in range(tensor["num_channels"])]
    pred = formats["outputs"]["pred"]
    if pred["format"] == "heatmap":
        assert list(pred["channel_def"].values()) == names
    points = formats["post_processed_outputs"]["pred"]
    assert points["spatial_shape"] == [len(names), len(formats["inputs"]["image"]["spatial_shape"])]


@each_config
def test_no_key_stands_twice_in_an_object(path):
    def unique(pairs):
        keys = [key.replace("#", "::") for key, _ in pairs]
        assert sorted(keys) == sorted(set(keys))
        return dict(pairs)

    json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)


@each_config
def test_there_is_no_initialize_and_imports_are_whole(path):
    content = read(path)
    assert "initialize" not in content
    assert [line for line in content.get("imports", []) if re.search(r"\bfrom\b.*,", line)] == []


@each_config
def test_everything_named_of_the_shared_package_can_be_imported(path):
    named = {name for text in strings(read(path)) for name in re.findall(r"(?<![\w./])common(?:\.[A-Za-z_]\w*)+", text)}
    targets = {name for name in named if locate(name) is None}
    assert targets == set()


@each_bundle
def test_every_reference_names_a_key_also_after_overlays(bundle):
    for files in combinations(bundle):
        items = items_of(*files)
        missing = {(ref, name) for ref, name in references(items) if ref not in items}
        assert missing == set(), [path.name for path in files]


@each_bundle
def test_predictions_have_the_same_settings_in_every_bundle(bundle):
    items = items_of(bundle / "configs" / "inference.json")
    defaults = {"min_confidence": 0.0, "overlays": True, "resume": True, "prediction_lists": []}
    assert {name: items[name] for name in defaults} == defaults


@each_bundle
def test_the_inference_config_needs_no_other_file(bundle):
    values = list(strings(read(bundle / "configs" / "inference.json")))
    assert [value for value in values if value.startswith("%") or "_meta_" in value] == []


def dead_keys(keys, items):
    """Those of the ids that neither MONAI asks for nor anything in the config refers to."""
    used = {ref for ref, name in references(items)} | KNOWN
    live = {"::".join(ref.split("::")[:depth]) for ref in used for depth in range(1, 9)}
    return [key for key in keys if key not in live and not any(ref + "::" in key + "::" for ref in used)]


@pytest.mark.parametrize("name", ["train", "inference"])
@each_bundle
def test_every_setting_is_used(bundle, name):
    path = bundle / "configs" / f"{name}.json"
    sections = {"train", "validate"}
    keys = [k for k in read(path) if k not in sections]
    keys += [f"{section}::{k}" for section in sections for k in read(path).get(section, {})]
    dead = dead_keys(keys, items_of(path))
    if name == "train":  # what the evaluation makes of its settings
        dead = dead_keys(dead, items_of(path, path.with_name("evaluate.json")))
    assert dead == []


@each_overlay
def test_every_setting_of_an_overlay_is_used_and_differs(overlay):
    below = run_with(overlay)
    before, after = items_of(*below), items_of(*below, overlay)
    content = {key.replace("#", "::"): value for key, value in read(overlay).items()}
    added = [key for key in content if key not in before]
    assert [key for key, value in content.items() if key in before and before[key] == value] == []
    if overlay.stem == "evaluate":  # its settings need no training, so they may leave parts of it without use
        assert dead_keys(added, after) == []
    else:
        dead = dead_keys(content, after)
        assert dead_keys(dead, items_of(*below, overlay, overlay.with_name("evaluate.json"))) == []


def settings_behind(roots, items):
    """All items that some items are made of, followed through their references, but for `network` and `device`."""
    found, waiting = {}, list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in ("device", "network"):  # in a training with its first weights
            found[name] = items[name]
            waiting += [ref for text in strings(items[name]) for ref in refs_in(text)]
    return found


def image_preprocessing(config):
    """The transforms that touch the image, without those of landmarks."""
    transforms = config["preprocessing"]
    transforms = transforms["transforms"] if isinstance(transforms, dict) else transforms
    return [t for t in transforms if t.get("keys") == "image" or "image" in list(t.get("keys", []))]


@each_bundle
def test_training_and_inference_see_the_same_image_and_network(bundle):
    train, inference = (items_of(bundle / "configs" / f"{name}.json") for name in ("train", "inference"))
    assert image_preprocessing(train) == image_preprocessing(inference) != []
    train["preprocessing"] = inference["preprocessing"] = image_preprocessing(inference)
    roots = ["landmarks", "network_def", "preprocessing"]
    assert settings_behind(roots, train) == settings_behind(roots, inference)
