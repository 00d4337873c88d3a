"""Weights that the repository holds are those of their bundle, and find landmarks on real films of any view."""

import json

import pytest
import torch
from monai.bundle import ConfigWorkflow

from common.bundle.check import network_of
from common.data import load_datalist, write_datalist
from common.data.changed_copies import changed_copies
from common.data.hand_atlas import import_hand_atlas
from common.data.isbi2015 import import_isbi2015
from common.handlers import load_weights, read_checkpoint

from .conftest import BUNDLES

SHIPPED = sorted(BUNDLES.glob("*/models/*.pt"))
FILMS = [path for path in SHIPPED if path.parents[1].name.endswith(("_hand", "_cephalometric"))]


def overlays(path):
    """Names of the configs that weights were trained with, as their file tells."""
    label = path.stem.removeprefix("model").removeprefix("_")
    known = (path.parents[1] / "configs" / f"{label}.json").is_file()
    return [label] if known else [part for part in label.split("_") if part]


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: f"{path.parents[1].name}-{path.stem}")


def in_views(paths):
    """Each of the paths with each view that its bundle claims to find; patch regression has no second look."""
    for path in paths:
        name = path.parents[1].name
        views = ["unchanged", "rotated_left"]
        views += [] if name.startswith("patch_regression") else ["mirrored", "inverted"]
        yield from (pytest.param(path, change, id=f"{name}-{path.stem}-{change}") for change in views)


def test_the_hand_bundle_ships_weights():
    assert BUNDLES / "scn_hand" / "models" / "model_slim.pt" in SHIPPED


@each(SHIPPED)
def test_they_fit_into_a_repository_and_into_their_network(path):
    assert path.stat().st_size <= 25e6
    weights, network = read_checkpoint(path), network_of(path.parents[1], "inference", *overlays(path))
    kernels = [name for name, parameter in network.named_parameters() if parameter.ndim > 1]
    assert {weights[name].dtype for name in kernels} == {torch.float16}
    assert all(tensor.isfinite().all() for tensor in weights.values())
    load_weights(network, path)


@each(SHIPPED)
def test_the_bundle_has_a_version_for_them_and_says_how_they_were_trained(path):
    bundle = path.parents[1]
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert "weights" in metadata["changelog"][metadata["version"]]
    assert "no weights" not in metadata["changelog"][metadata["version"]]
    assert f"models/{path.name}" in (bundle / "docs" / "README.md").read_text()


@pytest.fixture(scope="module")
def hands(real_hands, tmp_path_factory):
    """Two real hands in several views. The weights have seen them: this is no measurement, it shows that all fits."""
    folder = tmp_path_factory.mktemp("hands")
    import_hand_atlas(str(real_hands), str(folder / "all"))
    return views(folder, "test")


@pytest.fixture(scope="module")
def heads(real_heads, tmp_path_factory):
    """Two real heads of a test set in several views; no measurement either."""
    folder = tmp_path_factory.mktemp("heads")
    import_isbi2015(str(real_heads), str(folder / "all"), find_duplicates=False)
    return views(folder, "test1", degrees=10.0)


def views(folder, list_name, **changes):
    content = json.loads((folder / "all" / "datalist.json").read_text())
    items = load_datalist(folder / "all", list_name)[:2]
    write_datalist(folder, name="two", phantom=False, landmarks=content["landmarks"], training=items, test=items)
    changed_copies(str(folder), str(folder / "copies"), **changes)
    return folder / "copies"


@pytest.mark.parametrize(("path", "change"), in_views(FILMS))
def test_real_films_are_found_in_every_view(path, change, request, tmp_path):
    hand = path.parents[1].name.endswith("_hand")
    films = request.getfixturevalue("hands" if hand else "heads")
    names = ["train", *overlays(path), "evaluate"]
    workflow = ConfigWorkflow(
        [str(path.parents[1] / "configs" / f"{name}.json") for name in names],
        workflow_type="train",
        logging_file=False,
        device="$torch.device('cpu')",
        dataset_dir=str(films),
        output_dir=str(tmp_path),
        evaluation_list=change,
        max_overlays=0,
    )
    workflow.initialize()
    workflow.run()
    metrics = json.loads((tmp_path / f"evaluation_{change}" / "metrics.json").read_text())
    assert metrics["protocol"]["weights"] == path.name
    assert metrics["overall"]["count"] >= (70 if hand else 36)
    assert metrics["overall"]["median"] < 1.5
