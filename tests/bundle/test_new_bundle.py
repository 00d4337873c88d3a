"""One command makes a bundle for an own anatomy out of another one, and it trains, evaluates and predicts."""

import copy
import csv
import importlib.util
import inspect
import itertools
import json
import os
import re
import runpy
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata
from PIL import Image

import common
from common.bundle import new_bundle as module
from common.bundle.compact_json import compact_json
from common.bundle.new_bundle import new_bundle
from common.errors import InputError

REPOSITORY = Path(common.__file__).resolve().parents[1]
BUNDLES = REPOSITORY / "bundles"
RULES = REPOSITORY / "tests" / "bundles" / "test_configs.py"
SCHEMA = REPOSITORY / "common" / "bundle" / "meta_schema.json"

NAMES = ["femur", "tibia", "patella"]
POINTS = [[20, 30], [44, 26], [33, 60]]
SPACING = 0.5
FILM, VOLUME = {"image_size": [64, 64]}, {"voxel_size": [1.0, 1.0, 1.0]}
DACN = {**FILM, "num_filters": 4, "context_size": [8, 8], "context_filters": 4}
PATCHES = {
    "filters": [2, 4, 4], "blocks": [1, 1], "pooled_blocks": [0], "head_filters": 4, "local_filters": [4, 4],
    "local_head_filters": 4,
}  # fmt: skip
# Every source with settings that make its network tiny, and others that make its training so.
TINY = {
    "scn_hand": (
        {
            **FILM,
            **{"num_filters": 4, "num_levels": 3},
            **{"spatial_filters": 4, "spatial_kernel_size": 3, "spatial_downsampling": 8},
        },
        {"iterations": 1, "validation_iterations": 1},
    ),
    "farnet_spine": ({**FILM, "num_filters": 8}, {"max_epochs": 1, "val_interval": 1, "encoder_weights": "random"}),
    "dacn_cephalometric": (DACN, {"max_epochs": 1, "val_interval": 1, "template_films": 1}),
    "patch_regression_olfactory_mr": (
        {**VOLUME, **PATCHES},
        {"iterations": 1, "validation_iterations": 1, "local_iterations": 1, "sub_image_size": [16, 16, 16]},
    ),
    "patch_regression_cephalometric": (
        {**FILM, **PATCHES},
        {"iterations": 1, "validation_iterations": 1, "local_iterations": 1, "sub_image_size": [32, 32]},
    ),
}
VOLUMES = ("patch_regression_olfactory_mr",)
each_source = pytest.mark.parametrize("source", TINY)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with data sets `knees` of four films and `scans` of four volumes, and a bundle made from each source."""
    home = tmp_path_factory.mktemp("home")
    (home / "knees").mkdir()
    film = np.add.outer(np.arange(96), np.arange(64)).astype(np.uint8) // 2
    for x, y in POINTS:
        film[y - 4 : y + 5, x - 4 : x + 5] += 150
    items = []
    for number in range(4):
        Image.fromarray(film + np.uint8(number)).save(home / "knees" / f"{number}.png")
        items.append({"image": f"{number}.png", "landmarks": POINTS, "spacing": [SPACING] * 2})
    lists = {"training": items[:2], "validation": items[2:3], "test": items[3:]}
    (home / "knees" / "datalist.json").write_text(json.dumps({"name": "our knees", "landmarks": NAMES, **lists}))
    (home / "scans").mkdir()
    for items in lists.values():
        for item in items:
            item["image"] = item["image"].replace(".png", ".nii")
            item["landmarks"] = [[*point, number] for number, point in enumerate(POINTS, 4)]
            del item["spacing"]
            volume = np.repeat(film.T[..., None], 16, axis=2).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(volume, np.diag([SPACING] * 3 + [1])), home / "scans" / item["image"])
    (home / "scans" / "datalist.json").write_text(json.dumps({"name": "our knees", "landmarks": NAMES, **lists}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for source in TINY:
            data = "scans" if source in VOLUMES else "knees"
            arguments = ["new", str(BUNDLES / source), f"bundles/{source}_knee", "--dataset_dir", data]
            patch.setattr(sys, "argv", ["common.bundle", *arguments])
            runpy.run_module("common.bundle", run_name="__main__")
    return home


def configs_of(bundle):
    return {path.stem: json.loads(path.read_text()) for path in (bundle / "configs").glob("*.json")}


def test_only_what_the_new_bundle_needs_is_there(home):
    made = home / "bundles" / "scn_hand_knee"
    assert sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()) == [
        "LICENSE", "configs/cpu.json", "configs/evaluate.json", "configs/inference.json", "configs/logging.conf",
        "configs/metadata.json", "configs/multi_gpu_train.json", "configs/train.json", "docs/README.md",
        "docs/data_license.txt",
    ]  # fmt: skip
    for same in ("LICENSE", "configs/cpu.json", "configs/multi_gpu_train.json", "configs/logging.conf"):
        assert (made / same).read_bytes() == (BUNDLES / "scn_hand" / same).read_bytes()
    assert sorted(path.name for path in (home / "bundles").iterdir()) == sorted(f"{name}_knee" for name in TINY)


def test_the_configs_of_the_hand_differ_in_what_is_special_about_it_alone(home):
    made, expected = configs_of(home / "bundles" / "scn_hand_knee"), configs_of(BUNDLES / "scn_hand")
    for name in ("train", "inference"):
        expected[name] |= {"dataset_dir": str(home / "knees"), "landmarks": NAMES}
        expected[name]["bundle_root"] = "$common.bundle.bundle_root('scn_hand_knee')"
        assert list(made[name]) == [key for key in expected[name] if not key.startswith("wrist_")]
    expected["inference"] |= {"min_mean_confidence": 0.0, "max_shape_distance": 1.0}
    assert len(expected["inference"]["plausibility"]["mean_shape"]) == 37
    expected["inference"]["plausibility"]["mean_shape"] = []
    del expected["train"]["wrist_landmarks"], expected["train"]["wrist_width_mm"]
    assert expected["train"]["preprocessing"][2]["_target_"] == "common.transforms.MillimetreScaled"
    expected["train"]["preprocessing"][2] = {"_target_": "common.transforms.MillimetreScaled"}
    expected["evaluate"]["protocol"]["millimetres"] = "by pixel spacing"
    for name in ("train", "inference", "evaluate"):
        assert made[name] == expected[name]


def test_the_evaluation_of_heads_loses_its_measure_and_its_observers(home):
    made, expected = (
        configs_of(home / "bundles" / "dacn_cephalometric_knee"),
        configs_of(BUNDLES / "dacn_cephalometric"),
    )
    assert [m["_target_"] for m in expected["evaluate"]["measures"]][1:] == ["common.clinical.CephalometricMeasure"]
    del expected["evaluate"]["measures"][1:], expected["evaluate"]["observers"]
    del expected["evaluate"]["validate::preprocessing::transforms"]
    assert made["evaluate"] == expected["evaluate"]
    assert "CephalometricMarkups" in json.dumps(expected["inference"]) and "Markups" not in json.dumps(
        made["inference"]
    )
    for key in ("network_def", "context_size", "context_kernel_size", "context_filters", "dilations"):
        assert made["train"][key] == made["inference"][key] == expected["train"][key]


def test_the_bundle_of_the_spine_loses_its_measure_and_the_distance_of_its_vertebrae(home):
    made = configs_of(home / "bundles" / "farnet_spine_knee")
    assert [m["_target_"] for m in made["evaluate"]["measures"]] == ["common.clinical.MeanShape"]
    assert "l4_l5" not in json.dumps(made)
    assert "ImageNet" in (home / "bundles" / "farnet_spine_knee" / "docs" / "data_license.txt").read_text()


@each_source
def test_metadata_has_the_new_channels_and_claims_nothing_of_the_source(home, source):
    path = home / "bundles" / f"{source}_knee" / "configs" / "metadata.json"
    made, old = json.loads(path.read_text()), configs_of(BUNDLES / source)["metadata"]
    verify_metadata(meta_file=str(path), filepath=str(SCHEMA))
    formats = copy.deepcopy(old["network_data_format"])
    channels = NAMES
    if source.startswith("patch_regression"):
        axes = "xyz" if source in VOLUMES else "xy"
        moves = [f"{name} {axis} displacement" for name in NAMES for axis in axes]
        channels = [*moves, "femur presence", "tibia presence", "patella presence"]
    channel_def = {str(number): channel for number, channel in enumerate(channels)}
    formats["outputs"]["pred"] |= {"num_channels": len(channels), "channel_def": channel_def}
    formats["post_processed_outputs"]["pred"]["spatial_shape"] = [3, 3 if source in VOLUMES else 2]
    assert made["network_data_format"] == formats
    assert (made["version"], list(made["changelog"]), made["name"]) == ("0.1.0", ["0.1.0"], f"{source}_knee")
    kept = {key for key in old if made[key] == old[key]} - {"version", "eval_metrics"}
    assert kept == {
        "schema", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "supported_apps",
        "authors", "copyright", "data_type", "image_classes", "intended_use",
    }  # fmt: skip
    assert made["references"][:-1] == old["references"]  # of the network
    text = " ".join(str(made[key]) for key in set(old) - kept - {"references", "network_data_format"})
    assert source in text and "our knees" in text and "To be written by the owner" in text
    number = len(configs_of(BUNDLES / source)["train"]["landmarks"])
    assert not re.search(rf"(?<![\d.]){number} ", text) and "phantoms" not in text


@each_source
def test_the_readme_has_the_sections_of_the_others(home, source):
    def sections(bundle):
        return [line for line in (bundle / "docs" / "README.md").read_text().splitlines() if line.startswith("## ")]

    assert sections(home / "bundles" / f"{source}_knee") == sections(BUNDLES / source)


@each_source
def test_the_new_bundle_keeps_the_rules_of_all_bundles(home, source, request):
    specification = importlib.util.spec_from_file_location("rules_of_bundles", RULES)
    rules = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(rules)
    bundle = home / "bundles" / f"{source}_knee"
    configs = sorted((bundle / "configs").glob("*.json"))
    rules.OVERLAYS = [path for path in configs if path.stem not in ("metadata", "train", "inference")]
    subjects = {"bundle": [bundle], "path": configs, "overlay": rules.OVERLAYS}
    checked = 0
    for rule in [value for name, value in vars(rules).items() if name.startswith("test_")]:
        marked = {mark.args[0]: mark.args[1] for mark in getattr(rule, "pytestmark", [])}
        if set(marked) & set(subjects):
            choices = {name: subjects.get(name, values) for name, values in marked.items()}
            fixtures = set(inspect.signature(rule).parameters) - set(choices)
            for chosen in itertools.product(*choices.values()):
                rule(**dict(zip(choices, chosen)), **{name: request.getfixturevalue(name) for name in fixtures})
                checked += 1
    assert checked > 20


@each_source
def test_the_new_bundle_trains_evaluates_and_predicts(home, source, tmp_path, monkeypatch):
    bundle = home / "bundles" / f"{source}_knee"
    monkeypatch.chdir(bundle)  # where the relative path of the data set, as given, leads nowhere
    network, training = TINY[source]

    def run(*names, **overrides):
        files = [str(bundle / "configs" / f"{name}.json") for name in names]
        settings = {"device": "$torch.device('cpu')", **network, **overrides}
        workflow = ConfigWorkflow(files, logging_file=False, workflow_type=names[0], **settings)
        workflow.initialize()
        workflow.run()
        return workflow.parser

    training = {**training, "batch_size": 2, "output_dir": str(tmp_path / "run")}
    trainer = run("train", **training).get_parsed_content("train::trainer")
    assert trainer.state.iteration == 1
    run("train", "evaluate", **training, max_overlays=1)
    report = json.loads((tmp_path / "run" / "evaluation_test" / "metrics.json").read_text())
    assert report["protocol"]["bundle"] == f"{source}_knee"
    millimetres = "by the voxel spacing of the files" if source in VOLUMES else "by pixel spacing"
    assert (report["protocol"]["millimetres"], report["protocol"]["unit"]) == (millimetres, "mm")
    weights = str(tmp_path / "run" / "model.pt")
    run("inference", output_dir=str(tmp_path / "predictions"), prediction_lists=["test"], ckpt_path=weights)
    rows = list(csv.DictReader((tmp_path / "predictions" / "landmarks.csv").open()))
    assert [row["name"] for row in rows] == NAMES
    truth = np.array([[*point, number] for number, point in enumerate(POINTS, 4)] if source in VOLUMES else POINTS)
    columns = [key for key in ("pixel_x", "pixel_y", "pixel_z") if rows[0].get(key)]
    found = np.array([[float(row[key]) for key in columns] for row in rows])
    assert report["overall"]["mean"] == pytest.approx(SPACING * np.linalg.norm(found - truth, axis=1).mean(), rel=1e-3)
    shutil.rmtree(tmp_path / "run")  # checkpoints of a hundred megabytes


def test_a_bundle_that_was_made_can_be_made_from(home, tmp_path):
    first = home / "bundles" / "scn_hand_knee"
    again = new_bundle(first, tmp_path / "bundles" / "scn_ankle", home / "knees")
    for name in ("train", "inference", "evaluate"):
        text = (first / "configs" / f"{name}.json").read_text()
        assert (again / "configs" / f"{name}.json").read_text() == text.replace("scn_hand_knee", "scn_ankle")
    assert len(configs_of(again)["metadata"]["references"]) == 2


def test_the_commands_of_a_bundle_outside_of_a_folder_bundles_run_in_it(home, tmp_path, monkeypatch):
    monkeypatch.chdir(new_bundle(BUNDLES / "scn_hand", tmp_path / "scn_knee", home / "knees"))
    assert "From the folder of this bundle" in Path("docs/README.md").read_text()
    parser = ConfigParser()
    parser.read_config("configs/inference.json")
    assert parser.get_parsed_content("bundle_root") == str(tmp_path / "scn_knee")


REFUSED = {
    "name is taken": ({"name": "taken"}, "taken: exists"),
    "name is that of another bundle": ({"name": "scf_unet_hand"}, "would find .*scf_unet_hand under this name"),
    "name has a hyphen": ({"name": "scn-knee"}, "'scn-knee' is no name for a bundle"),
    "name begins with a digit": ({"name": "2_knees"}, "'2_knees' is no name for a bundle"),
    **{
        f"name has {task}": ({"name": f"knee_{task}"}, f"takes '{task}' in a name for another task")
        for task in ("detection", "classification", "deepgrow", "deepedit")
    },
    "source is not there": ({"source": "nothing"}, "is no bundle, for it has no configs/train.json"),
    "source is no bundle": ({"source": "knees"}, "is no bundle, for it has no configs/train.json"),
    "source is broken": ({"source": "broken"}, "broken/configs/train.json: is no well-formed JSON"),
    "source has no landmarks": ({"source": "foreign"}, "foreign/configs/inference.json: has no 'landmarks'"),
    "source is a package": ({"source": "packaged"}, "packaged: is a package, with its code as scripts"),
    "source gives something else": ({"source": "grids"}, "grids: its network gives neither a heatmap nor"),
    "data set is not there": ({"dataset_dir": "nothing"}, "there is no such data set"),
    "data set has no names": ({"dataset_dir": "unnamed"}, "unnamed: its datalist names no landmarks"),
    "name of a landmark is an expression": ({"dataset_dir": "$"}, "misread the landmark '\\$tibia'"),
    "name of a landmark is a reference": ({"dataset_dir": "@"}, "misread the landmark '@tibia'"),
    "name of a landmark is a macro": ({"dataset_dir": "%"}, "misread the landmark '%tibia'"),
    "path of the data set has a separator of ids": ({"dataset_dir": "a#b"}, "a#b: MONAI's configs misread a path"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_bad_input_is_refused_in_a_sentence_and_leaves_nothing(home, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(home / "knees", tmp_path / "knees")
    for path in ("bundles/taken", "broken", "foreign", "grids", "packaged"):
        shutil.copytree(home / "bundles" / "scn_hand_knee", tmp_path / path)
    Path("packaged/scripts").mkdir()
    Path("broken/configs/train.json").write_text('{"landmarks": [')
    Path("foreign/configs/inference.json").write_text('{"bundle_root": ".", "dataset_dir": "."}')
    metadata = Path("grids/configs/metadata.json")
    metadata.write_text(metadata.read_text().replace('"heatmap"', '"grid"'))
    for folder, content in {
        "unnamed": {"training": []},
        "a#b": {"landmarks": NAMES},
        **{sign: {"landmarks": ["femur", f"{sign}tibia"]} for sign in "$@%"},
    }.items():
        Path(folder).mkdir()
        Path(folder, "datalist.json").write_text(json.dumps(content))
    before = sorted(tmp_path.rglob("*"))
    changes, message = REFUSED[reason]
    wanted = {"source": str(BUNDLES / "scn_hand"), "name": "scn_knee", "dataset_dir": "knees", **changes}
    with pytest.raises(InputError, match=message) as refused:
        new_bundle(**wanted | {"name": f"bundles/{wanted['name']}"})
    assert "\n" not in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_writing_that_fails_leaves_nothing_behind(home, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(module.os, "rename", full)
    with pytest.raises(InputError, match="scn_knee: cannot be written .No space left"):
        new_bundle(BUNDLES / "scn_hand", tmp_path / "scn_knee", home / "knees")
    assert list(tmp_path.iterdir()) == []


def test_json_stands_on_one_line_where_it_fits_into_118_characters():
    word = "w" * 23
    config = {
        "short": {"a": [1, 2.5e-06, None], "é": True},
        "words": [word] * 5,
        "run": ["$" + word * 4, "$" + "last" * 5],
        "fits": ["x" * (118 - 4 - len('"fits": [""]'))],
        "over": ["x" * (118 - 4 - len('"over": [""]') + 1)],
        "deep": {"list": [{"name": word * 4}, {}, {"a": 1}]},
    }
    text = compact_json(config)
    assert json.loads(text) == config
    assert text == "\n".join(
        [
            "{",
            '    "short": {"a": [1, 2.5e-06, null], "é": true},',
            '    "words": [',
            f'        "{word}", "{word}", "{word}", "{word}",',
            f'        "{word}"',
            "    ],",
            '    "run": [',
            f'        "${word * 4}",',
            '        "$lastlastlastlastlast"',
            "    ],",
            f'    "fits": ["{"x" * 102}"],',
            '    "over": [',
            f'        "{"x" * 103}"',
            "    ],",
            '    "deep": {',
            '        "list": [',
            f'            {{"name": "{word * 4}"}},',
            "            {},",
            '            {"a": 1}',
            "        ]",
            "    }",
            "}",
            "",
        ]
    )
