"""`datalist.json`: named lists of images and landmarks in the folder of a data set, in MONAI's form.

    {"name": "...", "phantom": false, "landmarks": ["sella", ...],
     "training": [{"image": "images/a.png", "landmarks": [[x, y], null, "absent", ...], "spacing": [sx, sy],
                   "group": "patient"}, ...],
     "validation": [...], "test": [...], ...}

Paths are relative to the file. Inline points are zero-based file pixels (voxels) with centres at integers;
null is not annotated, "absent" is absent. Landmarks may also be the path of a landmark file.

Where several people annotated, `"observers": {"senior": "who that is", ...}` beside the lists names the keys under
which items hold the landmarks of each, and "landmarks" holds the truth that was made of them.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .atomic_writing import write_atomically
from .landmark_files import read_landmarks
from .landmark_points import check_unique, inline_points, is_finite_number, is_unnamed

DATALIST = "datalist.json"


def load_datalist(
    dataset_dir: str | os.PathLike,
    name: str = "training",
    landmarks: Sequence[str] | None = None,
    observers: bool = True,
) -> list[dict[str, Any]]:
    """One list of a data set, with absolute paths, checked.

    Args:
        dataset_dir: folder with a `datalist.json`, or the path of such a file.
        name: which list.
        landmarks: the bundle's names in order; inline points are brought to it. Where the data set has another order,
            landmark files must name their points.
        observers: whether the landmarks of observers are wanted too; where nothing loads them, those that are null do
            not collate.

    Returns:
        one dictionary per image: "image", "landmarks" and those of observers (lists of points or paths), and
        what else the item holds.

    Raises:
        InputError: if the folder, the file or the list is missing or malformed, the list is empty or names an
            image twice, files are missing, or points, their number or their names are wrong.
    """
    path, content = _read(dataset_dir)
    items = content.get(name)
    lists = _list_names(content)
    if name not in lists:
        raise InputError(f"{path}: has no list '{name}'; take one of {', '.join(lists) or 'none, for it has no list'}.")
    if not items:
        raise InputError(f"{path}: its list '{name}' is empty; add images or take another list.")
    known = _observers(content, path)
    places = [f"{path}: item {number} of '{name}'" for number in range(len(items))]
    items = [_absolute(item, path, place, known) for item, place in zip(items, places)]
    if not observers:
        items = [{key: value for key, value in item.items() if key not in known} for item in items]
    seen = set()
    for item in items:
        if (real := os.path.realpath(item["image"])) in seen:
            raise InputError(f"{path}: its list '{name}' holds {item['image']} more than once; remove one.")
        seen.add(real)
    _check_files([item["image"] for item in items], f"{path}: list '{name}'", "image")
    keys = ("landmarks", *known)
    files = [item[key] for item in items for key in keys if isinstance(item.get(key), str)]
    _check_files(files, f"{path}: list '{name}'", "landmark file")
    order = _order(content.get("landmarks"), landmarks, path)
    unnamed = [file for file in files if order and is_unnamed(read_landmarks(file).names)]
    if unnamed:
        raise InputError(
            f"{unnamed[0]}: does not name its landmarks, and {path} has them in another order than the one wanted; "
            "name them in the file."
        )
    count = len(content.get("landmarks") or landmarks or ())
    for item in items:
        _check_spacing(item, path)
        for key in keys:
            inline = item.get(key)
            if inline is None or isinstance(inline, str):
                continue
            inline_points(inline, f"{path}: {item['image']}")
            if count and len(inline) != count:
                raise InputError(
                    f"{path}: {item['image']} has {len(inline)} {key} where {count} are expected; give one for each "
                    "name, null where it is not annotated."
                )
            if order:
                item[key] = [inline[place] for place in order]
    return items


def datalist_info(dataset_dir: str | os.PathLike) -> dict[str, Any]:
    """What a data set says of itself: `name`, `phantom` (bool), `landmarks` (names or None), `truth` (whose the
    landmarks are) and `lists` (their sizes).

    Raises:
        InputError: if there is no sound `datalist.json`.
    """
    path, content = _read(dataset_dir)
    return {
        "name": str(content.get("name", path.parent.name)),
        "phantom": content.get("phantom") is True,
        "landmarks": content.get("landmarks"),
        "truth": str(content.get("truth", "landmarks of the datalist")),
        "lists": {name: len(content[name]) for name in _list_names(content)},
    }


def tell_lists(dataset_dir: str | os.PathLike) -> dict[str, int]:
    """Print how many images each list of a `datalist.json` has, and return that."""
    sizes = datalist_info(dataset_dir)["lists"]
    print(f"{Path(dataset_dir) / DATALIST}: " + ", ".join(f"{size} {name}" for name, size in sizes.items()) + ".")
    return sizes


def tell(what: str, entries: Sequence[str], limit: int | None = None) -> None:
    """Print a heading with the number of its entries, and these, the first ones where there is a limit."""
    if entries:
        rest = [f"... and {len(entries) - limit} more"] if limit is not None and len(entries) > limit else []
        print(f"{what} ({len(entries)}):", *entries[:limit], *rest, sep="\n    ")


def write_datalist(dataset_dir: str | os.PathLike, **content: Any) -> Path:
    """Write `datalist.json` atomically: `name`, `phantom`, `landmarks` and the lists, as the module
    describes.

    Returns:
        the path of the file.

    Raises:
        InputError: if a number is not finite or something is no JSON.
    """
    path = Path(dataset_dir) / DATALIST
    try:
        text = json.dumps(content, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: cannot be written ({error}); write null where nothing is annotated.") from error
    write_atomically(path, text + "\n")
    return path


def write_imported_datalist(dataset_dir: str | os.PathLike, **content: Any) -> Path:
    """`write_datalist` of an import, marked as `"imported"`; it may take the place of an earlier import's alone.

    Raises:
        InputError: also if the folder has a `datalist.json` that no import wrote.
    """
    path = Path(dataset_dir) / DATALIST
    if path.exists():
        try:
            imported = json.loads(path.read_text(encoding="utf-8-sig")).get("imported") is True
        except (OSError, ValueError, AttributeError):
            imported = False
        if not imported:
            raise InputError(f"{path}: was not written by an import; give another --target, or move it away.")
    return write_datalist(dataset_dir, imported=True, **content)


def all_items(dataset_dir: str | os.PathLike, lists: Sequence[str] | str | None = None) -> list[dict[str, Any]]:
    """Items of all lists, or of those named, with absolute paths, each image once; no file is looked for.

    Raises:
        InputError: if the file or a list is missing or malformed, or there is no item.
    """
    path, content = _read(dataset_dir)
    names = [lists] if isinstance(lists, str) else list(lists) if lists is not None else _list_names(content)
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        if name not in _list_names(content):
            raise InputError(f"{path}: has no list '{name}'; take one of {', '.join(_list_names(content))}.")
        for number, item in enumerate(content[name]):
            item = _absolute(item, path, f"{path}: item {number} of '{name}'", _observers(content, path))
            _check_spacing(item, path)
            found.setdefault(item["image"], item)
    if not found:
        raise InputError(f"{path}: lists no image; add some or take another list.")
    return list(found.values())


def _read(dataset_dir: str | os.PathLike) -> tuple[Path, dict[str, Any]]:
    path = Path(dataset_dir).expanduser().absolute()
    if not path.exists():
        raise InputError(f"{dataset_dir}: there is no such data set; check the path.")
    path = path / DATALIST if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path.parent}: holds no {DATALIST}; write one, or import the data set.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no well-formed JSON ({str(error).splitlines()[0]}); correct it.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no named lists; write it as an object such as {{'training': [...]}}.")
    names = content.get("landmarks")
    if names is not None:
        if not (isinstance(names, list) and all(isinstance(name, str) and name for name in names)):
            raise InputError(f"{path}: its 'landmarks' are no list of names; correct it.")
        check_unique(names, str(path))
    return path, content


def _list_names(content: dict[str, Any]) -> list[str]:
    return [key for key, value in content.items() if isinstance(value, list) and key != "landmarks"]


def _observers(content: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Keys of items that hold the landmarks of one observer each."""
    observers = content.get("observers", {})
    if not isinstance(observers, dict) or {"image", "landmarks", "label"} & set(observers):
        raise InputError(f"{path}: its 'observers' are no object with a key for each observer; correct it.")
    return tuple(observers)


def _absolute(item: Any, path: Path, place: str, observers: Sequence[str] = ()) -> dict[str, Any]:
    """An item with its paths made absolute and without what is null in it; `place` names it in messages."""
    if not (isinstance(item, dict) and isinstance(item.get("image"), str) and item["image"]):
        raise InputError(f"{place} names no image; give it a path under 'image'.")
    item = {key: value for key, value in item.items() if value is not None}
    for key in ("image", "landmarks", *observers):
        if isinstance(item.get(key), str):
            item[key] = _beside(path, item[key])
    return item


def _beside(path: Path, name: str) -> str:
    """The absolute path of a file that a datalist names, without `..` but where these lead up from a linked folder."""
    joined = path.parent / name
    plain = os.path.normpath(joined)
    if ".." not in joined.parts or not os.path.exists(joined) or os.path.realpath(joined) == os.path.realpath(plain):
        return plain
    return str(joined)


def _check_files(files: Sequence[str], place: str, kind: str) -> None:
    missing = [file for file in files if not os.path.exists(file)]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{place}: the {kind} {missing[0]}{others} cannot be found; put it there or correct the list.")


def _check_spacing(item: dict[str, Any], path: Path) -> None:
    spacing = item.get("spacing")
    if spacing is None:
        return
    if not (
        isinstance(spacing, list)
        and len(spacing) in (2, 3)
        and all(is_finite_number(size) and size > 0 for size in spacing)
    ):
        raise InputError(f"{path}: {item['image']} has the spacing {spacing!r}; give positive mm per pixel and axis.")


def _order(own: Sequence[str] | None, wanted: Sequence[str] | None, path: Path) -> list[int] | None:
    """Where each landmark wanted stands in the data set's own points, which may have more; None for their own order."""
    if own is None or wanted is None or list(own) == list(wanted):
        return None
    if lacking := [name for name in wanted if name not in own]:
        odd = [name for name in own if name not in wanted]
        others = f", has {', '.join(odd[:5])}" if odd else ""
        raise InputError(
            f"{path}: its {len(own)} landmarks do not hold all {len(wanted)} expected (it lacks "
            f"{', '.join(lacking[:5])}{others}); take the data set of this anatomy or rename them."
        )
    return [list(own).index(name) for name in wanted]
