import shutil
from pathlib import Path

import pytest

import common
from common.bundle import bundle_root, location
from common.errors import InputError

REPOSITORY = Path(common.__file__).resolve().parents[1]


def bundle(folder):
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text("{}")
    return folder


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The package as if it were installed in a folder without bundles; the current directory is another one."""
    package = tmp_path / "site-packages" / "common" / "bundle"
    package.mkdir(parents=True)
    monkeypatch.setattr(location, "__file__", str(package / "location.py"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_in_the_repository_a_bundle_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bundle_root("scn_hand") == str(REPOSITORY / "bundles" / "scn_hand")


def test_a_packaged_bundle_is_the_folder_above_its_scripts_whatever_its_name(elsewhere, monkeypatch):
    root = bundle(elsewhere / "renamed")
    (root / "scripts" / "bundle").mkdir(parents=True)
    monkeypatch.setattr(location, "__file__", str(root / "scripts" / "bundle" / "location.py"))
    assert bundle_root("scn_hand") == str(root)


def test_an_installed_package_looks_into_the_current_directory(elsewhere, monkeypatch):
    inside = bundle(elsewhere / "here" / "bundles" / "scn_hand")
    assert bundle_root("scn_hand") == str(inside)
    shutil.rmtree(inside)
    own = bundle(elsewhere / "scn_hand_v0.1.0")
    monkeypatch.chdir(own)
    assert bundle_root("scn_hand") == str(own)


def test_a_folder_of_another_bundle_is_not_taken(elsewhere, monkeypatch):
    monkeypatch.chdir(bundle(elsewhere / "farnet_hand"))
    with pytest.raises(InputError, match="^scn_hand: no such bundle .*; run from the folder that holds it.$"):
        bundle_root("scn_hand")
