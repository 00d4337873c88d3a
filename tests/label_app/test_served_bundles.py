"""Which bundles a server offers; the server itself is tested in tests/integration/test_monai_label.py."""

import re
from pathlib import Path

import pytest

import common
from common.errors import InputError
from common.label_app import served_bundles
from common.label_app.served_bundles import default_folder, find_bundles

PACKAGE = Path(common.__file__).resolve().parent


@pytest.fixture
def folder(tmp_path):
    """Two bundles and something else."""
    for name, landmarks in {"a": '["tip"]', "b": '["base", "tip"]'}.items():
        (tmp_path / name / "configs").mkdir(parents=True)
        config = f'{{"landmarks": {landmarks}, "image_size": [8, 8], "bundle_root": "x"}}'
        (tmp_path / name / "configs" / "inference.json").write_text(config)
    (tmp_path / "b" / "configs" / "cpu.json").write_text('{"image_size": [4, 4]}')
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_the_bundles_of_the_repository_are_served_where_nothing_is_said():
    names = sorted(path.name for path in (PACKAGE.parent / "bundles").iterdir() if path.is_dir())
    bundles = find_bundles({})
    assert list(bundles) == names and len(names) >= 10
    assert len(bundles["scn_hand"].landmarks) == 37
    assert bundles["scn_hand"].output == PACKAGE.parent / "bundles" / "scn_hand" / "output" / "monai_label"


def test_a_choice_of_models_is_served_in_its_order(folder):
    bundles = find_bundles({"bundles": str(folder), "models": "b, a"})
    assert list(bundles) == ["b", "a"] and bundles["b"].landmarks == ["base", "tip"]


def test_an_overlay_changes_the_config_and_the_bundle_root_is_the_folder(folder):
    bundle = find_bundles({"bundles": str(folder), "models": "b", "overlay": "cpu"})["b"]
    config = bundle.config("inference").config
    assert (config["image_size"], config["bundle_root"]) == ([4, 4], str(folder / "b"))
    (folder / "mine.json").write_text('{"image_size": [6, 6]}')
    mine = find_bundles({"bundles": str(folder), "overlay": str(folder / "mine.json")})["a"]
    assert mine.config("inference").config["image_size"] == [6, 6]


def test_weights_that_were_trained_on_the_server_come_last_and_count(folder):
    bundle = find_bundles({"bundles": str(folder), "models": "a", "output": str(folder / "out")})["a"]
    places = [str(folder / "a" / place / "model.pt") for place in ("output", "models")]
    assert bundle.weights == [*places, str(folder / "out" / "a" / "model.pt")]


def test_weights_of_one_overlay_are_not_taken_for_those_of_another(folder):
    def weights(**conf):
        return find_bundles({"bundles": str(folder), "models": "b", **conf})["b"].weights[-1]

    assert weights() == str(folder / "b" / "output" / "monai_label" / "model.pt")
    assert weights(overlay="cpu") == str(folder / "b" / "output" / "monai_label_cpu" / "model.pt")
    assert weights(overlay="cpu", output=str(folder / "out")) == str(folder / "out" / "b_cpu" / "model.pt")


def test_all_with_an_overlay_are_those_that_have_it(folder, caplog):
    assert list(find_bundles({"bundles": str(folder), "overlay": "cpu"})) == ["b"]
    assert "not served, since they have no overlay cpu: a." in caplog.text


@pytest.mark.parametrize(
    "conf, sentence",
    [
        ({"models": "a,c,d"}, "has no bundle c, d; choose --conf models of a, b"),
        ({"models": "b,a", "overlay": "cpu"}, "cpu.json: there is no such config of a; give another --conf overlay"),
        ({"overlay": "slim"}, "slim.json: there is no such config of a; give another --conf overlay"),
        ({"bundles": "notes"}, "holds no bundles; give their folder as --conf bundles FOLDER"),
        ({"modles": "a"}, "--conf modles: is no setting; did you mean --conf models?"),
    ],
)
def test_a_wrong_setting_is_told(folder, conf, sentence):
    conf = {**conf, "bundles": str(folder / conf.get("bundles", ""))}
    with pytest.raises(InputError, match=re.escape(sentence)):
        find_bundles(conf)


def test_the_app_in_a_package_serves_the_bundles_beside_its_own(folder, monkeypatch):
    monkeypatch.setattr(served_bundles, "PACKAGE", folder / "a" / "scripts")
    assert default_folder() == folder and list(find_bundles({})) == ["a", "b"]


def test_monai_label_is_needed_by_the_app_alone():
    files = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "label_app"]
    needing = [str(path) for path in files if re.search(r"^\s*(import|from) monailabel", path.read_text(), re.M)]
    assert needing == [] and len(files) > 100


def test_the_pins_of_the_server_name_the_versions_of_monai_and_torch_that_the_bundles_have():
    def pins(path):
        lines = path.read_text().splitlines()
        return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))

    own, theirs = pins(PACKAGE / "label_app" / "requirements.txt"), pins(PACKAGE.parent / "requirements.txt")
    assert {name: own[name] for name in ("torch", "monai", "itk", "nibabel")} == {
        name: theirs[name] for name in ("torch", "monai", "itk", "nibabel")
    }
