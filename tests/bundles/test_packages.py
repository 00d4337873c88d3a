"""Packaged bundles in the hands of others: an environment with the packages that their metadata name and no others.

The environment's python is BUNDLE_PYTHON, which `.ci/run` makes (tests/bundles/bundle_requirements.py prints what
belongs into it).
"""

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from common.bundle import location
from common.bundle.package import package
from common.data import read_landmarks

HERE = Path(__file__).parent
PYTHON = os.environ.get("BUNDLE_PYTHON")
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="BUNDLE_PYTHON names no python of an environment with the bundles' packages alone"
)


def version(name):
    return json.loads((HERE.parents[1] / "bundles" / name / "configs" / "metadata.json").read_text())["version"]


def strangers(*arguments, cwd, **environment):
    """A command of the other environment; it sees nothing of this repository."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "BUNDLE_PYTHON")}
    return subprocess.run(
        [PYTHON, *map(str, arguments)],
        cwd=cwd,
        env={**kept, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def commands(folder, name, *argument_lists):
    """Run `python -m monai.bundle` there with each of the arguments; what they wrote, if all ended well."""
    listed = [
        {"arguments": [str(a) for a in arguments], "cwd": str(folder), "output": str(folder / f"{name}_{i}.txt")}
        for i, arguments in enumerate(argument_lists)
    ]
    (folder / f"{name}.json").write_text(json.dumps(listed))
    result = strangers(HERE / "forked.py", folder / f"{name}.json", cwd=folder)
    assert result.returncode == 0, result.stderr[-3000:]
    outputs = [Path(each["output"]).read_text() for each in listed]
    for arguments, status, output in zip(argument_lists, json.loads(result.stdout.splitlines()[-1]), outputs):
        assert status == 0, f"{arguments}: {output[-3000:]}"
    return outputs


@pytest.fixture(scope="module")
def tiny(tiny_bundles, tmp_path_factory):
    """Copies of all bundles with an overlay `tiny.json` and its weights, as if they were shipped."""
    root = tmp_path_factory.mktemp("repository")
    for name, bundle in tiny_bundles.items():
        folder = root / "bundles" / name
        shutil.copytree(bundle.folder, folder, ignore=shutil.ignore_patterns("output", "predictions"))
        settings = {**bundle.network_settings, **bundle.tiny.training}
        (folder / "configs" / "tiny.json").write_text(json.dumps(settings))
        (folder / "models").mkdir(exist_ok=True)
        shutil.copy(bundle.weights, folder / "models" / "model_tiny.pt")
    return root


@pytest.fixture(scope="module")
def release(tiny, tmp_path_factory):
    """Zips of all bundles, each with its overlay `tiny.json` for good."""
    folder = tmp_path_factory.mktemp("release")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(location, "PACKAGE", tiny / "common")
        package("all", output=str(folder), overlay="tiny")
    return folder


@pytest.fixture(scope="module")
def server(release):
    """Address of a server with the zips."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(release))
    handler.log_message = lambda *_: None
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


@pytest.fixture(scope="module")
def zoo(server, tiny_bundles, tmp_path_factory):
    """Folder of the downloaded bundles, in a folder that has nothing else."""
    folder = tmp_path_factory.mktemp("stranger")
    zips = {f"{name}_tiny": f"{server}/{name}_tiny_v{version(name)}.zip" for name in tiny_bundles}
    downloads = [["download", "--name", name, "--url", url, "--bundle_dir", "zoo"] for name, url in zips.items()]
    commands(folder, "download", *downloads)
    return folder / "zoo"


def test_every_zip_is_downloaded_by_monai(zoo, tiny_bundles):
    assert sorted(p.name for p in zoo.iterdir() if p.is_dir()) == sorted(f"{name}_tiny" for name in tiny_bundles)


def test_every_downloaded_bundle_predicts_what_the_repository_does(zoo, tiny_bundles, tmp_path):
    arguments = [
        ["run", "--config_file", zoo / f"{name}_tiny" / "configs" / "inference.json", "--output_dir", tmp_path / name]
        + ["--dataset_dir", bundle.image("test_001"), "--device", "$torch.device('cpu')"]
        for name, bundle in tiny_bundles.items()
    ]
    commands(tmp_path, "predict", *arguments)
    for name, bundle in tiny_bundles.items():
        (found,) = (tmp_path / name).glob("*.mrk.json")
        (own,) = bundle.prediction.glob("*.mrk.json")
        assert np.allclose(read_landmarks(found).points, read_landmarks(own).points, atol=1e-3), name


def test_every_downloaded_bundle_trains_and_evaluates(zoo, tiny_bundles, tmp_path):
    arguments = []
    for name, bundle in tiny_bundles.items():
        configs = zoo / f"{name}_tiny" / "configs"
        settings = ["--dataset_dir", bundle.dataset, "--output_dir", tmp_path / name]
        settings += ["--device", "$torch.device('cpu')", "--batch_size", 2, "--max_epochs", 1, "--val_interval", 1]
        arguments.append(["run", "--config_file", configs / "train.json", *settings])
        both = str([str(configs / "train.json"), str(configs / "evaluate.json")])
        arguments.append(["run", "--config_file", both, *settings])
    commands(tmp_path, "train", *arguments)
    for name in tiny_bundles:
        assert (tmp_path / name / "model.pt").is_file() and list((tmp_path / name).rglob("metrics.json")), name


FIVE_LINES = """
import sys, torch
from monai.bundle import load
sys.path.insert(0, "zoo/scn_hand_tiny")
network = load("scn_hand_tiny", bundle_dir="zoo", workflow_type="inference", device="cpu").eval()
print(tuple(network(torch.zeros(1, 1, 64, 64)).shape))
"""


def test_a_bundle_is_loaded_in_five_lines_beside_a_foreign_package_named_common(zoo, tmp_path):
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").write_text("raise ImportError('another package')")
    (tmp_path / "zoo").symlink_to(zoo)
    result = strangers("-c", FIVE_LINES, cwd=tmp_path)
    assert result.stdout.splitlines()[-1:] == ["(1, 37, 64, 64)"], result.stderr[-2000:]


TWO = """
import sys, torch
from monai.bundle import ConfigWorkflow, load
names = sys.argv[1:]
sys.path[:0] = [f"zoo/{name}" for name in names]
for name in names:
    network = load(name, bundle_dir="zoo", workflow_type="inference", device="cpu").eval()
    workflow = ConfigWorkflow(f"zoo/{name}/configs/inference.json", workflow_type="inference", logging_file=False)
    workflow.initialize()
    print(workflow.bundle_root, type(network).__module__, sys.modules["scripts"].__path__[0])
"""


def test_two_bundles_of_one_release_share_their_scripts_in_a_process(zoo, tmp_path):
    (tmp_path / "zoo").symlink_to(zoo)
    names = ["dacn_spine_tiny", "patch_regression_ccta_tiny"]
    result = strangers("-c", TWO, *names, cwd=tmp_path)
    lines = [line.split() for line in result.stdout.splitlines() if "scripts.networks" in line]
    assert [line[0] for line in lines] == [str((zoo / name).resolve()) for name in names], result.stderr[-2000:]
    assert len({line[2] for line in lines}) == 1


def test_bundles_of_different_releases_are_refused_in_one_process(zoo, tmp_path):
    other = shutil.copytree(zoo / "scn_hand_tiny", tmp_path / "zoo" / "scn_hand_tiny")
    shutil.copytree(zoo / "dacn_spine_tiny", tmp_path / "zoo" / "dacn_spine_tiny")
    written = other / "scripts" / "PACKAGE_VERSION"
    version = written.read_text().strip()
    written.write_text("9.0.0+x\n")
    for config in (other / "configs").glob("*.json"):
        config.write_text(config.read_text().replace(version, "9.0.0+x"))
    assert strangers("-c", TWO, "scn_hand_tiny", cwd=tmp_path).returncode == 0
    result = strangers("-c", TWO, "dacn_spine_tiny", "scn_hand_tiny", cwd=tmp_path)
    sentence = "scn_hand_tiny: was packaged with version 9.0.0+x of its scripts, but version "
    assert result.returncode != 0 and sentence in result.stderr and "a process for each." in result.stderr


GITHUB = """
import sys
import monai.bundle.scripts as verbs
server = sys.argv[1]
verbs._get_git_release_url = lambda repo_owner, repo_name, tag_name, filename: f"{server}/{filename}?{tag_name}"
verbs.download("scn_hand_tiny", version=sys.argv[2], source="github", repo="owner/bundles/v1", bundle_dir="here")
"""


def test_a_release_has_the_names_that_a_download_from_github_asks_for(server, zoo, tmp_path):
    result = strangers("-c", GITHUB, server, version("scn_hand"), cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    for path in (zoo / "scn_hand_tiny").rglob("*.json"):
        assert (tmp_path / "here" / "scn_hand_tiny" / path.relative_to(zoo / "scn_hand_tiny")).is_file()


def test_monai_refuses_a_zip_whose_paths_lead_out_of_its_folder(release, server, tmp_path):
    import zipfile

    with zipfile.ZipFile(release / "evil_v0.1.0.zip", "w") as archive:
        archive.writestr("../../outside.py", "")
    try:
        arguments = ["--name", "evil", "--url", f"{server}/evil_v0.1.0.zip", "--bundle_dir", "zoo"]
        result = strangers("-m", "monai.bundle", "download", *arguments, cwd=tmp_path)
    finally:
        (release / "evil_v0.1.0.zip").unlink()
    assert result.returncode != 0 and "Unsafe path" in result.stderr
    assert not list(tmp_path.parent.rglob("outside.py"))


@pytest.mark.parametrize("name", ["scn_hand", "patch_regression_cephalometric"])
def test_a_federated_client_trains_a_packaged_bundle_for_two_rounds(name, zoo, tiny_bundles, tmp_path):
    bundle = tiny_bundles[name]
    settings = {"dataset_dir": str(bundle.dataset), "output_dir": str(tmp_path / "out"), "batch_size": 2}
    settings |= {"device": "$torch.device('cpu')", "val_interval": 1, "evaluation_list": "test"}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    arguments = (zoo / f"{name}_tiny", tmp_path / "settings.json", tmp_path / "weights.pt")
    result = strangers(HERE / "federated_round.py", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    for sent in weights["rounds"]:
        moved = [key for key, value in sent.items() if not torch.equal(value, weights["received"][key])]
        assert moved and all(value.isfinite().all() for value in sent.values())
        close = [torch.allclose(v.float(), weights["received"][k].float(), atol=0.1) for k, v in sent.items()
                 if k.endswith("weight")]  # fmt: skip
        assert all(close)  # both rounds began with what was received
    assert json.loads(result.stdout.splitlines()[-1])


def test_pip_installs_the_package(tmp_path):
    repository = Path(location.__file__).parents[2]
    source = tmp_path / "source"  # a build leaves files beside the sources
    for part in ("common", "setup.cfg", "pyproject.toml", "README.md"):
        copy = shutil.copytree if (repository / part).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(repository / part, source / part)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), str(source)], check=True, capture_output=True)
    result = subprocess.run(
        [sys.executable, "-m", "common.bundle", "list"],
        cwd=repository / "tests",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert "there are no bundles; run from the root of the repository" in result.stderr
    (tmp_path / "bundles").symlink_to(repository / "bundles")
    command = [sys.executable, "-m", "common.bundle", "check", "scn_hand", "--exports", "False"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.stdout == "scn_hand: no problem found\n", result.stderr
