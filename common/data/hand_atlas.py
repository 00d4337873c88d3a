"""Importer of the Digital Hand Atlas with the annotations and folds of Payer et al."""

import csv
import os
import shutil
from pathlib import Path

from ..errors import InputError
from .atomic_writing import require_folder_name
from .datalist import tell_lists, write_imported_datalist
from .hand import HAND_LANDMARKS
from .splits import is_validation

IMAGE_SUFFIXES = (".mha", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".nii.gz")


def read_annotations(path: Path) -> dict[str, list[list[float]]]:
    """Read `all.csv`: image id, then x and y of 37 points in zero-based pixels of the full-size file.

    Raises:
        InputError: if a row has another number of values or a value that is no number.
    """
    annotations = {}
    expected = 1 + 2 * len(HAND_LANDMARKS)
    with open(path, newline="") as file:
        for line, row in enumerate(csv.reader(file), start=1):
            if len(row) != expected:
                raise InputError(f"{path}: line {line} has {len(row)} values, not {expected}; restore the file.")
            try:
                values = [float(value) for value in row[1:]]
            except ValueError as error:
                raise InputError(f"{path}: line {line} holds no numbers ({error}); restore the file.") from None
            annotations[row[0].strip()] = [list(point) for point in zip(values[::2], values[1::2])]
    return annotations


def import_hand_atlas(
    source: str, target: str, fold: int = 1, validation: float = 0.1, copy: bool = False
) -> dict[str, int]:
    """Write `datalist.json` for one published fold of the Digital Hand Atlas.

    Lists of the datalist: `training` and `validation` (out of the fold's train.txt), `test` (the fold's test.txt), and
    `all` (every annotated image that is there). No spacing is written: millimetres come from the wrist width.

    Args:
        source: folder with `all.csv`, `cv/set1..3/{train,test}.txt` and `images/`.
        target: folder of the new `datalist.json`.
        fold: 1, 2 or 3.
        validation: share of the training images that is held out to choose a checkpoint.
        copy: whether to copy the images beside the datalist; otherwise it points to where they are.

    Returns:
        number of images per list.

    Raises:
        InputError: if a file of the layout is missing or no listed image is there.
    """
    require_folder_name(target)
    root, goal = Path(source), Path(target)
    lists = {name: root / "cv" / f"set{fold}" / f"{name}.txt" for name in ("train", "test")}
    for path in (root / "all.csv", root / "images", *lists.values()):
        if not path.exists():
            raise InputError(
                f"{path}: not there; give the folder that holds all.csv, cv/ and images/, and a fold of 1 to 3."
            )
    annotations = read_annotations(root / "all.csv")
    ids = {
        name: [line.strip() for line in path.read_text().splitlines() if line.strip()] for name, path in lists.items()
    }
    files = {}
    for path in sorted((root / "images").iterdir()):
        suffix = next((s for s in IMAGE_SUFFIXES if path.name.lower().endswith(s)), None)
        if suffix:
            files.setdefault(path.name[: -len(suffix)], path)

    goal.mkdir(parents=True, exist_ok=True)

    def item(image_id: str) -> dict:
        path = files[image_id]
        if copy:
            (goal / "images").mkdir(exist_ok=True)
            copied = goal / "images" / path.name
            if not copied.exists():
                shutil.copy2(path, copied)
            path = copied
        return {"image": os.path.relpath(path, goal), "landmarks": annotations[image_id], "group": image_id}

    there = {name: [i for i in listed if i in files and i in annotations] for name, listed in ids.items()}
    content = {
        "training": [item(i) for i in there["train"] if not is_validation(i, validation)],
        "validation": [item(i) for i in there["train"] if is_validation(i, validation)],
        "test": [item(i) for i in there["test"]],
        "all": [item(i) for i in sorted(files) if i in annotations],
    }
    for name, listed in ids.items():
        unannotated = [i for i in listed if i in files and i not in annotations]
        note = f", {len(unannotated)} of them without annotation (dropped)" if unannotated else ""
        print(f"{lists[name]}: {len(listed)} images listed, {sum(i in files for i in listed)} there{note}.")
    extra = [i for i in files if i in annotations and i not in {*ids["train"], *ids["test"]}]
    if extra:
        print(f"{len(extra)} annotated images are in neither list of fold {fold}; they stand in the list 'all' alone.")
    if not content["training"] or not content["test"]:
        raise InputError(f"{root / 'images'}: holds no image of fold {fold}; put the images of the atlas there.")
    write_imported_datalist(
        goal,
        name=f"Digital Hand Atlas, fold {fold}",
        phantom=False,
        landmarks=list(HAND_LANDMARKS),
        **content,
    )
    return tell_lists(goal)
