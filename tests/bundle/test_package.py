"""Bundles as zip files, checked, packed and unpacked, in this process."""

import hashlib
import json
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

import common
from common.bundle.check import check, problems
from common.bundle.listing import list_bundles
from common.bundle.location import PACKAGE, bundle_folders, package_version
from common.bundle.package import flattened, package
from common.bundle.unpack import unpack
from common.errors import InputError

BUNDLES = bundle_folders()
NAMES = [folder.name for folder in BUNDLES]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Folder with the zips of all bundles."""
    folder = tmp_path_factory.mktemp("release")
    package("all", output=str(folder), url="https://example.org/release/")
    return folder


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def version(name):
    folder = next(folder for folder in BUNDLES if folder.name == name)
    return json.loads((folder / "configs" / "metadata.json").read_text())["version"]


ZIP = f"scn_hand_v{version('scn_hand')}.zip"


def test_every_bundle_has_a_zip_and_its_checksum(release):
    zips = [f"{name}_v{version(name)}" for name in NAMES]
    assert sorted(path.name for path in release.iterdir()) == sorted([*(f"{z}.zip" for z in zips), "model_info.json"])
    for name, entry in json.loads((release / "model_info.json").read_text()).items():
        assert entry["checksum"] == hashlib.sha1((release / f"{name}.zip").read_bytes()).hexdigest()
        assert entry["source"] == f"https://example.org/release/{name}.zip"


def test_a_zip_is_the_same_to_the_byte_whenever_it_is_made(release, tmp_path):
    os.utime(BUNDLES[NAMES.index("scn_hand")] / "LICENSE")
    package("scn_hand", output=str(tmp_path))
    assert (tmp_path / ZIP).read_bytes() == (release / ZIP).read_bytes()


def test_a_zip_holds_the_bundle_and_the_whole_package_as_scripts(release):
    for folder in BUNDLES:
        found = contents(release / f"{folder.name}_v{version(folder.name)}.zip")
        assert {name.split("/")[0] for name in found} == {folder.name}
        for path in [folder / "LICENSE", *folder.glob("docs/*"), *folder.glob("configs/*")]:
            inside = found[f"{folder.name}/{path.relative_to(folder)}"]
            assert path.suffix in (".md", ".json") or inside == path.read_bytes()
        for path in PACKAGE.rglob("*.py"):
            assert found[f"{folder.name}/scripts/{path.relative_to(PACKAGE)}"] == path.read_bytes()
        assert not [name for name in found if "pycache" in name or "/output/" in name]
        assert found[f"{folder.name}/scripts/PACKAGE_VERSION"].decode().strip() == package_version()


def test_configs_in_a_zip_differ_by_the_name_of_the_package_alone(release):
    for folder in BUNDLES:
        found = contents(release / f"{folder.name}_v{version(folder.name)}.zip")
        for path in folder.glob("configs/*.json"):
            text = json.dumps(json.loads(found[f"{folder.name}/configs/{path.name}"]))
            if path.stem != "metadata":
                assert "common" not in text
                text = text.replace(f"', '{package_version()}')", "')")
                text = re.sub(r"\bscripts\b", "common", text)
            assert text == json.dumps(json.loads(path.read_text()))


def test_the_readme_in_a_zip_has_commands_and_links_that_work_there(release):
    for name in NAMES:
        text = contents(release / f"{name}_v{version(name)}.zip")[f"{name}/docs/README.md"].decode()
        assert "configs/train.json" in text and "bundles/" not in text and "-m common" not in text
        assert not re.search(r"\bcommon\.", text)
        assert "](../" not in text and "'common." not in text and "From the folder of this bundle:" in text


def test_a_packaged_bundle_passes_the_check(release, capsys):
    check(str(release / ZIP), exports=False)
    assert capsys.readouterr().out == "scn_hand: no problem found\n"


def test_the_check_tells_what_it_cannot_look_at(release, capsys, monkeypatch):
    """Where the packages that metadata.json names are there, and no more."""
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    check(str(release / ZIP))
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("not looked at: metadata.json by MONAI's schema, for which jsonschema is missing")
    assert told[1].startswith("not looked at: the export to ONNX, for which onnx is missing here (pip install onnx)")
    assert told[-1] == "scn_hand: no problem found"


@pytest.mark.parametrize("name", ["scn_hand", "patch_regression_olfactory_mr"])
def test_an_overlay_becomes_the_settings_of_a_bundle_of_its_own(name, tmp_path, monkeypatch):
    bundles = tmp_path / "bundles"
    source = shutil.copytree(BUNDLES[NAMES.index(name)], bundles / name, ignore=shutil.ignore_patterns("output"))
    (source / "models").mkdir(exist_ok=True)
    networks = ConfigParser()
    networks.read_config([str(source / "configs" / f"{stem}.json") for stem in ("inference", "cpu")])
    torch.save(networks.get_parsed_content("network_def").state_dict(), source / "models" / "model_cpu.pt")
    monkeypatch.setattr("common.bundle.location.PACKAGE", tmp_path / "common")
    package(name, output=str(tmp_path), overlay="cpu")
    found = contents(tmp_path / f"{name}_cpu_v{version(name)}.zip")
    assert found[f"{name}_cpu/models/model.pt"] == (source / "models" / "model_cpu.pt").read_bytes()
    configs = {
        Path(place).stem: json.loads(text)
        for place, text in found.items()
        if place.startswith(f"{name}_cpu/configs/") and place.endswith(".json")
    }
    assert {"train", "inference", "evaluate", "metadata", "multi_gpu_train"} <= set(configs)
    assert not {"cpu", "quick"} & set(configs)  # made for the bundle without the overlay
    overlay = json.loads((source / "configs" / "cpu.json").read_text())
    for stem in ("train", "inference"):
        own = json.loads((source / "configs" / f"{stem}.json").read_text())
        parser = ConfigParser()
        parser.read_config([str(source / "configs" / f"{stem}.json"), str(source / "configs" / "cpu.json")])
        laid_over = {key: value for key, value in parser.get().items() if key != "_meta_"}
        laid_over["shipped_weights"] = own["shipped_weights"]  # models/model.pt in the package
        wanted = {key: value for key, value in laid_over.items() if stem == "train" or key in own}
        text = re.sub(r"\bscripts\b", "common", json.dumps(configs[stem]))
        text = text.replace(f"'{name}_cpu', '{package_version()}'", f"'{name}'")
        assert json.loads(text) == wanted != own
    assert set(overlay) & set(configs["inference"])


OVERLAYS = [(folder.name, path.stem) for folder in BUNDLES for path in sorted((folder / "configs").glob("*.json"))]


@pytest.mark.parametrize(
    ("name", "overlay"), [each for each in OVERLAYS if each[1] in ("cpu", "slim", "localization_unet")]
)
def test_a_packaged_overlay_trains_and_predicts_with_one_network(name, overlay):
    source = BUNDLES[NAMES.index(name)]
    configs = {path.stem: json.loads(path.read_text()) for path in (source / "configs").glob("*.json")}
    packaged = flattened(configs, {**configs[overlay], "network_def::in_channels": 1}, overlay)
    train, inference = (
        ConfigParser(packaged[stem]).get_parsed_content("network_def") for stem in ("train", "inference")
    )
    assert str(train) == str(inference)


def test_an_overlay_with_shipped_weights_finds_them_where_they_are_in_the_package(tmp_path):
    package("scn_hand", output=str(tmp_path), overlay="slim")
    folder = unpack(str(tmp_path / f"scn_hand_slim_v{version('scn_hand')}.zip"), str(tmp_path))
    shipped = BUNDLES[NAMES.index("scn_hand")] / "models" / "model_slim.pt"
    assert (folder / "models" / "model.pt").read_bytes() == shipped.read_bytes()
    for stem in ("train", "inference"):
        config = json.loads((folder / "configs" / f"{stem}.json").read_text())
        assert config["shipped_weights"] == "$@bundle_root + '/models/model.pt'"
        assert config["stride"] == 2
    readme = (folder / "docs" / "README.md").read_text()
    files = {path.name for path in (folder / "configs").glob("*.json")}
    commands = [
        line for line in readme.splitlines() if line.startswith("python -m monai.bundle") and "--config" in line
    ]
    named = [set(re.findall(r"configs/(\w+\.json)", line)) for line in commands]
    assert len(named) > 5 and all(names <= files for names in named)
    assert "--config_file configs/inference.json --dataset_dir PATH --output_dir predictions\n" in readme
    assert "model_slim.pt" not in readme and "models/model.pt" in readme and "--overlay slim" not in readme
    assert "\n# train with the settings of `slim`\n" in readme and "Overlays, given" not in readme
    verbs = [line for line in readme.splitlines() if line.startswith("python -m scripts.bundle")]
    assert verbs[0] == "python -m scripts.bundle ship runs/hand_all/checkpoint.pt ."
    assert verbs[1].endswith("--sizes \"[10,50,'all']\" --networks \"['']\"")


def test_an_overlay_that_is_not_there_or_is_a_command_is_refused(tmp_path):
    for overlay, match in (("slimmest", "no such overlay"), ("evaluate", "not an overlay of settings")):
        with pytest.raises(InputError, match=match):
            package("scn_hand", output=str(tmp_path), overlay=overlay)
    (tmp_path / "knee.json").write_text('{"landmarks": ["femur", "tibia"], "dataset_dir": "knees"}')
    with pytest.raises(InputError, match="knee.json: has other landmarks than the metadata of scn_hand"):
        package("scn_hand", output=str(tmp_path), overlay=str(tmp_path / "knee.json"))
    with pytest.raises(InputError, match="choose one of .*scn_hand"):
        package("scn_foot", output=str(tmp_path))
    assert list(tmp_path.glob("*.zip")) == []


def test_overlays_are_laid_over_each_other_and_weights_of_another_network_are_refused(tmp_path, monkeypatch):
    source = shutil.copytree(
        BUNDLES[NAMES.index("scn_hand")], tmp_path / "bundles" / "scn_hand", ignore=shutil.ignore_patterns("output")
    )
    (source / "models").mkdir(exist_ok=True)
    monkeypatch.setattr("common.bundle.location.PACKAGE", tmp_path / "common")
    package("scn_hand", output=str(tmp_path), overlay=["cpu", "quick"])
    found = contents(tmp_path / f"scn_hand_cpu_quick_v{version('scn_hand')}.zip")
    quick = json.loads((source / "configs" / "quick.json").read_text())
    inference = json.loads(found["scn_hand_cpu_quick/configs/inference.json"])
    assert inference["image_size"] == quick["image_size"]
    torch.save({"weight": torch.ones(1)}, source / "models" / "model_cpu.pt")
    with pytest.raises(InputError, match="model_cpu.pt: the weights are of another network"):
        package("scn_hand", output=str(tmp_path), overlay="cpu")
    assert not list(tmp_path.glob("scn_hand_cpu_v*"))


def test_a_zip_is_unpacked_once(release, tmp_path, capsys):
    folder = unpack(str(release / ZIP), str(tmp_path))
    assert capsys.readouterr().out == f"unpacked: {folder}\n"
    assert folder == tmp_path / "scn_hand" and list(tmp_path.iterdir()) == [folder]
    for name, content in contents(release / ZIP).items():
        assert (tmp_path / name).read_bytes() == content
    with pytest.raises(InputError, match="is there already"):
        unpack(str(release / ZIP), str(tmp_path))


@pytest.fixture
def tampered(release, tmp_path):
    """A folder with a copy of a zip and its checksum, to be changed."""
    for name in (ZIP, "model_info.json"):
        shutil.copy(release / name, tmp_path)
    return tmp_path


def refused(folder, match):
    target = folder / "target"
    with pytest.raises(InputError, match=match):
        unpack(str(folder / ZIP), str(target))
    assert not target.exists() or list(target.iterdir()) == []


def test_a_zip_with_another_checksum_is_refused(tampered):
    with zipfile.ZipFile(tampered / ZIP, "a") as archive:
        archive.writestr("scn_hand/scripts/more.py", "")
    refused(tampered, "its checksum is not that of")
    (tampered / "model_info.json").write_text("{}")
    refused(tampered, f"has no checksum of {Path(ZIP).stem}")


@pytest.mark.parametrize("place", ["../outside.py", "scn_hand/../../outside.py", "/outside.py"])
def test_a_zip_whose_paths_lead_out_of_its_folder_is_refused(tampered, place):
    (tampered / "model_info.json").unlink()
    with zipfile.ZipFile(tampered / ZIP, "a") as archive:
        archive.writestr(zipfile.ZipInfo(place), "")
    refused(tampered, "lead out of its folder|no zip of one bundle")
    assert not list(tampered.rglob("outside.py"))


def test_a_zip_without_a_bundle_or_that_cannot_be_written_is_refused(tampered):
    (tampered / "model_info.json").unlink()
    with zipfile.ZipFile(tampered / ZIP, "w") as archive:
        archive.writestr("b", "a file")
    refused(tampered, "holds no bundle, there is no configs/metadata.json in it")
    with zipfile.ZipFile(tampered / ZIP, "w") as archive:
        archive.writestr("b/a", "a file")
        archive.writestr("b/a/c", "in a file")
    refused(tampered, "cannot be unpacked")


def test_a_file_that_is_no_zip_is_refused(tampered):
    (tampered / "model_info.json").unlink()
    content = (tampered / ZIP).read_bytes()
    for damaged in (b"", content[:5000], content[:100_000] + b"x" * 1000 + content[101_000:]):
        (tampered / ZIP).write_bytes(damaged)
        refused(tampered, "no readable zip|damaged")


def test_bundles_of_the_repository_have_no_problem(capsys):
    check("all", exports=False)
    assert capsys.readouterr().out == "".join(f"{name}: no problem found\n" for name in NAMES)


def edit(stem, change):
    """A fault: change a config."""

    def apply(folder):
        path = folder / "configs" / f"{stem}.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    return apply


def replace(place, old, new):
    """A fault: change a text file."""

    def apply(folder):
        text = (folder / place).read_text()
        assert old in text
        (folder / place).write_text(text.replace(old, new))

    return apply


FAULTS = {
    "'channel_def' is a required property": edit(
        "metadata", lambda config: config["network_data_format"]["outputs"]["pred"].pop("channel_def")
    ),
    "docs/data_license.txt: is missing or empty": lambda folder: (folder / "docs" / "data_license.txt").unlink(),
    "LICENSE: is missing or empty": lambda folder: (folder / "LICENSE").write_text(""),
    "is no valid JSON": replace("configs/evaluate.json", "{", "{{"),
    "'authors' is a required property": edit("metadata", lambda c: c.pop("authors")),
    "version 9.0.0 is not in the changelog": edit("metadata", lambda c: c.update(version="9.0.0")),
    "the changelog goes on after": edit("metadata", lambda c: c["changelog"].update({"0.10.0": "more"})),
    "its landmarks are not those": edit("train", lambda c: c["landmarks"].reverse()),
    "a name stands twice": edit("inference", lambda c: c["landmarks"].append(c["landmarks"][0])),
    "the channels of pred": edit(
        "metadata", lambda c: c["network_data_format"]["outputs"]["pred"]["channel_def"].update({"0": "toe"})
    ),
    "have not one point per landmark": edit(
        "metadata", lambda c: c["network_data_format"]["post_processed_outputs"]["pred"].update(spatial_shape=[36, 2])
    ),
    "needs another file": edit("inference", lambda c: c.update(device="%train.json::device")),
    "has no postprocessing": edit("inference", lambda c: c.pop("postprocessing")),
    "refers to optimiser": edit("train", lambda c: c.update(seed="@optimiser")),
    "configs/evaluate.json: .* refers to model_dir": edit("evaluate", lambda c: c.update(extra="$@model_dir")),
    "refers to scripts": edit("train", lambda c: c["network_def"].update(_target_="scripts.networks.FARNet")),
    "MONAI's property max_epochs": edit("train", lambda c: c["train"]["trainer"].pop("max_epochs")),
    "MONAI's property evaluator": edit("inference", lambda c: c.pop("evaluator")),
    "the section Limitations is missing": replace("docs/README.md", "## Limitations", "## Limits"),
    "links to phantom.png": lambda folder: (folder / "docs" / "phantom.png").unlink(),
    "fails with network_data_format": edit(
        "metadata", lambda c: c["network_data_format"]["outputs"]["pred"].update(num_channels=36)
    ),
    r"model\.pt: is (damaged|no readable)": lambda folder: (folder / "models" / "model.pt").write_bytes(b"no weights"),
    r"model_cpu\.pt: the weights are of another network": lambda folder: torch.save(
        {"weight": torch.ones(1)}, folder / "models" / "model_cpu.pt"
    ),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: re.sub(r"\W+", "_", fault))
def test_the_check_finds(fault, tmp_path):
    source = Path(common.__file__).parents[1] / "bundles" / "scn_hand"
    folder = shutil.copytree(source, tmp_path / "scn_hand", ignore=shutil.ignore_patterns("output", "models"))
    (folder / "models").mkdir()
    small = {"num_filters": 4, "num_levels": 3, "spatial_filters": 4, "spatial_kernel_size": 3}
    for stem in ("train", "inference"):
        edit(stem, lambda config: config.update(small))(folder)
    FAULTS[fault](folder)
    exports = "fails with" in fault or "model" in fault.split(":")[0]
    found = list(problems(folder, exports))
    assert [problem for problem in found if re.search(fault, problem)] != []
    with pytest.raises(InputError, match="problems, printed above"):
        check(str(folder), exports)


def test_a_bundle_whose_name_means_another_task_is_told(tmp_path):
    source = Path(common.__file__).parents[1] / "bundles" / "scn_hand"
    folder = shutil.copytree(source, tmp_path / "hand_detection", ignore=shutil.ignore_patterns("output"))
    assert "another task" in next(problems(folder, exports=False))


def test_the_list_tells_name_version_landmarks_and_weights(capsys, tmp_path, monkeypatch):
    list_bundles()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["name", "version", "landmarks", "weights"] and [line[0] for line in lines[1:]] == NAMES
    assert ["scn_hand", version("scn_hand"), "37"] in [line[:3] for line in lines]
    shutil.copytree(BUNDLES[0] / "configs", tmp_path / "bundles" / "own" / "configs")
    (tmp_path / "bundles" / "own" / "models").mkdir()
    (tmp_path / "bundles" / "own" / "models" / "model_slim.pt").write_bytes(b"")
    monkeypatch.setattr("common.bundle.location.PACKAGE", tmp_path / "common")
    list_bundles()
    assert capsys.readouterr().out.splitlines()[1].split() == ["own", version(NAMES[0]), "19", "model_slim.pt"]
