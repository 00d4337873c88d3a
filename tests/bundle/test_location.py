import json
import shutil
import sys
from pathlib import Path

import pytest

import common
from common.bundle import bundle_root, location
from common.errors import InputError

REPOSITORY = Path(common.__file__).resolve().parents[1]


def bundle(folder, name="scn_hand"):
    (folder / "configs").mkdir(parents=True)
    config = {"bundle_root": f"$scripts.bundle.bundle_root('{name}')"}
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The package as if it were installed in a folder without bundles; the current directory is another one."""
    monkeypatch.setattr(location, "PACKAGE", tmp_path / "site-packages" / "common")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_in_the_repository_a_bundle_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bundle_root("scn_hand") == str(REPOSITORY / "bundles" / "scn_hand")


def test_a_packaged_bundle_is_the_folder_above_its_scripts_whatever_its_name(elsewhere, monkeypatch):
    root = bundle(elsewhere / "renamed")
    monkeypatch.setattr(location, "PACKAGE", root / "scripts")
    assert bundle_root("scn_hand") == str(root)


def test_bundles_that_share_the_scripts_of_one_are_found_by_their_names_on_pythons_path(elsewhere, monkeypatch):
    roots = {name: bundle(elsewhere / name, name) for name in ("scn_hand", "scn_hand_slim", "dacn_spine")}
    monkeypatch.setattr(location, "PACKAGE", roots["dacn_spine"] / "scripts")
    for name in ("scn_hand", "scn_hand_slim"):
        monkeypatch.syspath_prepend(roots[name])
    assert {name: bundle_root(name) for name in roots} == {name: str(root) for name, root in roots.items()}


def test_an_installed_package_looks_into_the_current_directory(elsewhere, monkeypatch):
    inside = bundle(elsewhere / "here" / "bundles" / "scn_hand")
    assert bundle_root("scn_hand") == str(inside)
    shutil.rmtree(inside)
    own = bundle(elsewhere / "scn_hand_v0.1.0")
    monkeypatch.chdir(own)
    assert bundle_root("scn_hand") == str(own)


def test_a_folder_of_another_bundle_is_not_taken(elsewhere, monkeypatch):
    monkeypatch.chdir(bundle(elsewhere / "farnet_hand", "farnet_hand"))
    with pytest.raises(InputError, match="^scn_hand: no such bundle .*; run from the folder that holds it, .*path.$"):
        bundle_root("scn_hand")


def test_a_bundle_that_was_packaged_with_other_scripts_is_refused(elsewhere, monkeypatch):
    monkeypatch.syspath_prepend(bundle(elsewhere / "scn_hand"))
    assert bundle_root("scn_hand", location.package_version()) in sys.path
    with pytest.raises(InputError, match=r"^scn_hand: was packaged with version 9\.0\.0\+x .* a process for each\.$"):
        bundle_root("scn_hand", "9.0.0+x")
