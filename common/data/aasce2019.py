"""Importer of the spine radiographs of the AASCE 2019 challenge (Wu et al. 2017; Wang et al. 2021)."""

import csv
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import loadmat
from tqdm import tqdm

from ..errors import InputError
from .atomic_writing import require_folder_name
from .datalist import tell, tell_lists, write_imported_datalist
from .film_duplicates import film_thumbnail, pair_groups, same_films
from .image_files import read_image
from .spine import CORNERS, SPINE_LANDMARKS, VERTEBRAE
from .splits import grouped_folds, is_validation

MAX_TILT = 60.0  # degrees of a vertebra in a film
# Likeness of two films over which they are taken for films of one patient. By eye all 12 pairs over 0.65 under
# different numbers are, most of them one film cut out in another way; the next ones are not clear.
SAME_PATIENT = 0.65


@dataclass
class SpineFilm:
    """A film with its labels, points in zero-based pixels (68, 2), and what is to be told of it."""

    path: Path
    points: np.ndarray
    angles: list[float] | None
    group: str
    reordered: str = ""
    outside: list[str] = field(default_factory=list)


def patient(name: str) -> str:
    """The patient by the name of a film: one number with letters A, B, ...; films without a number are on their own."""
    number = re.search(r"-(\d+) [A-Z]\b", name)
    return f"patient {number[1]}" if number else Path(name).stem


def join_patients(films: Sequence[SpineFilm]) -> None:
    """Give patients one group where films under different names look alike; prints them."""
    thumbnails, known = [], []
    for film in tqdm(films, desc="looking for films that stand there twice"):
        thumbnail = film_thumbnail(torch.from_numpy(read_image(film.path, spatial_dims=2)[0])[None])
        if thumbnail is not None:
            thumbnails.append(thumbnail)
            known.append(film)
    alike = [(known[i], known[j]) for i, j in same_films(thumbnails, SAME_PATIENT)]
    alike = [(a, b) for a, b in alike if a.group != b.group]
    tell("look alike under other numbers, kept in one fold", [f"{a.path.name}, {b.path.name}" for a, b in alike])
    groups = pair_groups((a.group, b.group) for a, b in alike)
    for film in films:
        film.group = min(groups.get(film.group, {film.group}))


def corner_order(corners: np.ndarray) -> tuple[int, ...]:
    """Which of four points (4, 2) are top left, top right, bottom left and bottom right of a vertebra.

    Of the orders that go around it clockwise, the one in which they stand if its tilt is below `MAX_TILT`, else that
    with the least tilt. Points that are no convex quadrilateral are taken as two end plates, each from left to right.
    """
    tilts = {}
    for order in permutations(range(4)):
        outline = corners[[order[i] for i in (0, 1, 3, 2)]]
        edges = np.roll(outline, -1, axis=0) - outline
        following = np.roll(edges, -1, axis=0)
        if (edges[:, 0] * following[:, 1] > edges[:, 1] * following[:, 0]).all():
            across = edges[0] - edges[2]  # from left to right
            tilts[order] = abs(np.degrees(np.arctan2(across[1], across[0])))
            if order == (0, 1, 2, 3) and tilts[order] < MAX_TILT:
                return order
    if tilts:
        return min(tilts, key=tilts.__getitem__)
    plates = [sorted(plate, key=lambda i: corners[i, 0]) for plate in ((0, 1), (2, 3))]
    return tuple(i for plate in sorted(plates, key=lambda plate: corners[plate, 1].mean()) for i in plate)


def order_corners(points: np.ndarray) -> tuple[np.ndarray, str]:
    """Bring vertebrae to the order from top to bottom, and their corners to that of `CORNERS`.

    Args:
        points: (68, 2) pixels, four of each vertebra together.

    Returns:
        (68, 2), and in words what was out of order, empty if nothing was.
    """
    vertebrae = points.reshape(len(VERTEBRAE), len(CORNERS), 2)
    order = np.argsort(vertebrae[..., 1].mean(1), kind="stable")
    moved = np.flatnonzero(order != np.arange(len(order)))
    told = [f"vertebrae in the rows of {VERTEBRAE[moved[0]]} to {VERTEBRAE[moved[-1]]}"] if len(moved) else []
    vertebrae = vertebrae[order]
    orders = np.array([corner_order(corners) for corners in vertebrae])
    turned = (orders != np.arange(len(CORNERS))).any(1)
    if turned.any():
        told.append("corners of " + " ".join(np.array(VERTEBRAE)[turned]))
    return np.take_along_axis(vertebrae, orders[..., None], axis=1).reshape(-1, 2), ", ".join(told)


def read_rows(path: Path, columns: int) -> list[list[float]] | None:
    """Numbers of a CSV without header, None where there is no such file.

    Raises:
        InputError: if a row has another number of columns, or something is no finite number.
    """
    if not path.is_file():
        return None
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    for line, row in enumerate(rows, start=1):
        try:
            sound = len(row) == columns and np.isfinite([float(value) for value in row]).all()
        except ValueError:
            sound = False
        if not sound:
            raise InputError(f"{path}: line {line} does not hold {columns} finite numbers; restore the file.")
    return [[float(value) for value in row] for row in rows]


def read_mat(path: Path) -> np.ndarray:
    """The points of a `.mat` file: its `p2`, (68, 2) pixels.

    Raises:
        InputError: if it holds something else.
    """
    try:
        points = np.asarray(loadmat(path)["p2"], dtype=np.float64)
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise InputError(f"{path}: holds no points 'p2' ({type(error).__name__}); restore the file.") from None
    if points.shape != (len(SPINE_LANDMARKS), 2) or not np.isfinite(points).all():
        raise InputError(f"{path}: its 'p2' is not 68 x 2 finite numbers; restore the file.")
    return points


def read_part(images: Path, labels: Path) -> list[SpineFilm]:
    """Films of a folder with their labels, from `.mat` files where they are there, else from `landmarks.csv`.

    Prints what is missing, was dropped, is out of order, or disagrees.

    Raises:
        InputError: if tables are missing, malformed or of different length.
    """
    names_path, table_path, angles_path = (labels / f"{name}.csv" for name in ("filenames", "landmarks", "angles"))
    table, angles = read_rows(table_path, 2 * len(SPINE_LANDMARKS)), read_rows(angles_path, 3)
    if names_path.is_file():
        names = [line.strip() for line in names_path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    elif table is None and angles is None:
        names = sorted(path.name[: -len(".mat")] for path in labels.glob("*.mat"))
    else:
        raise InputError(f"{names_path}: not there; the rows of the other tables have no names without it.")
    for path, rows in ((table_path, table), (angles_path, angles)):
        if rows is not None and len(rows) != len(names):
            raise InputError(f"{path}: has {len(rows)} rows, {names_path.name} {len(names)}; restore the files.")
    films, dropped, differing = [], {}, []
    for row, name in enumerate(names):
        path, mat = images / name, labels / f"{name}.mat"
        if not path.is_file():
            dropped[name] = "its image is not there"
            continue
        try:
            with Image.open(path) as picture:
                size = np.array(picture.size, dtype=np.float64)
            scaled = None if table is None else np.reshape(table[row], (2, -1)).T * size
            points = read_mat(mat) if mat.is_file() else scaled
        except (InputError, OSError) as error:
            dropped[name] = str(error)
            continue
        if points is None:
            dropped[name] = "it has neither a .mat file nor a row in landmarks.csv"
            continue
        if scaled is not None and np.abs(points - scaled).max() > 1:
            differing.append(f"{name} ({np.abs(points - scaled).max():.0f} pixels)")
        film = SpineFilm(path, points, None if angles is None else angles[row], patient(name))
        film.points, film.reordered = order_corners(points)
        off = ((film.points < -0.5) | (film.points > size - 0.5)).any(1)
        film.outside = [SPINE_LANDMARKS[i] for i in off.nonzero()[0]]
        films.append(film)
    print(f"{labels}: {len(names)} films listed, {len(films)} taken.")
    unlisted = sorted({path.name for path in images.glob("*.jpg")} - set(names))
    tell("images without labels", unlisted)
    tell("dropped", [f"{name}: {reason}" for name, reason in dropped.items()])
    tell(".mat file and landmarks.csv differ, the .mat file is taken", differing)
    tell("put in order", [f"{film.path.name}: {film.reordered}" for film in films if film.reordered])
    tell("points outside the image", [f"{film.path.name}: {', '.join(film.outside)}" for film in films if film.outside])
    return films


def import_aasce2019(
    source: str, target: str, folds: int = 5, fold: int = 1, validation: float = 0.1, find_duplicates: bool = True
) -> dict[str, int]:
    """Write `datalist.json` for the AASCE 2019 spine radiographs, with folds that keep patients together.

    Lists: `fold1`, `fold2`, ... divide the training films; `test` is the fold chosen, `training` and `validation` the
    others, and `all` all of them, for weights that are shipped; `published_test` are the films of `data/test`, where
    they and their labels are there. Items hold the three published angles in degrees under `cobb_angles`. No spacing is
    known: millimetres come from L4 to L5.

    Args:
        source: folder with `data/training/*.jpg` and `labels/training` (`filenames.csv`, `landmarks.csv`,
            `angles.csv`, one `.mat` per image; one of the last two kinds of points is enough).
        target: folder of the new `datalist.json`; it points to the images where they are.
        folds: number of folds.
        fold: the fold of `test`, from 1.
        validation: share of the other patients that is held out to choose a checkpoint.
        find_duplicates: whether to look for films that stand there under two numbers, and keep these in one fold.

    Returns:
        number of films per list.

    Raises:
        InputError: if the layout, a table or a setting is wrong, or there are fewer patients than folds.
    """
    require_folder_name(target)
    root, goal = Path(source), Path(target)
    if not 1 <= fold <= folds or folds < 2:
        raise InputError(f"fold {fold} of {folds}: give at least two folds and one of these, counted from 1.")
    for folder in (root / "data" / "training", root / "labels" / "training"):
        if not folder.is_dir():
            raise InputError(f"{folder}: not there; give the folder that holds data/training and labels/training.")
    films = read_part(root / "data" / "training", root / "labels" / "training")
    if find_duplicates:
        join_patients(films)
    groups = Counter(film.group for film in films)
    print(f"{len(groups)} patients, {sum(n > 1 for n in groups.values())} with several films.")
    if len(groups) < folds:
        raise InputError(f"{root}: holds films of {len(groups)} patients, too few for {folds} folds; add films.")

    def item(film: SpineFilm) -> dict:
        known = {} if film.angles is None else {"cobb_angles": film.angles}
        image = os.path.relpath(film.path, goal)
        return {"image": image, "landmarks": film.points.tolist(), "group": film.group, **known}

    parts = grouped_folds([film.group for film in films], folds)
    rest = [film for film, part in zip(films, parts) if part != fold - 1]
    content = {
        "training": [item(film) for film in rest if not is_validation(film.group, validation)],
        "validation": [item(film) for film in rest if is_validation(film.group, validation)],
        "test": [item(film) for film, part in zip(films, parts) if part == fold - 1],
        "all": [item(film) for film in films],
        **{f"fold{k + 1}": [item(f) for f, part in zip(films, parts) if part == k] for k in range(folds)},
    }
    if (root / "data" / "test").is_dir() and (root / "labels" / "test").is_dir():
        published = read_part(root / "data" / "test", root / "labels" / "test")
        known = sorted({film.group for film in published} & set(groups))
        tell("patients of published_test by numbers of the training films", known)
        content["published_test"] = [item(film) for film in published]
    goal.mkdir(parents=True, exist_ok=True)
    write_imported_datalist(
        goal,
        name=f"AASCE 2019 spine, fold {fold} of {folds}",
        phantom=False,
        landmarks=list(SPINE_LANDMARKS),
        **content,
    )
    return tell_lists(goal)
