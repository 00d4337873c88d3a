"""Print the packages that the bundles' metadata name, as pip takes them, torch first: one environment for all.

python tests/bundles/bundle_requirements.py
"""

import json
from pathlib import Path

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


def requirements() -> list[str]:
    """Pinned packages of all bundles.

    Raises:
        ValueError: if two bundles name different versions.
    """
    pinned: dict[str, str] = {}
    for path in sorted(BUNDLES.glob("*/configs/metadata.json")):
        content = json.loads(path.read_text())
        named = {"torch": content["pytorch_version"], "numpy": content["numpy_version"]}
        named |= {"monai": content["monai_version"], **content["required_packages_version"]}
        for package, version in named.items():
            if pinned.setdefault(package, version) != version:
                raise ValueError(f"{path}: names {package} {version}, another bundle {pinned[package]}.")
    return [f"{package}=={version}" for package, version in pinned.items()]


if __name__ == "__main__":
    print("\n".join(requirements()))
