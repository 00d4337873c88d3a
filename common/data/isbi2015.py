"""Importer of the cephalograms of the ISBI 2015 challenge (Wang et al. 2015 and 2016)."""

import csv
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..errors import InputError
from .atomic_writing import require_folder_name
from .cephalometric import CEPHALOMETRIC_LANDMARKS
from .datalist import tell_lists, write_imported_datalist
from .film_duplicates import film_thumbnail, pair_groups, same_films
from .image_files import read_image
from .splits import is_validation

# Folder, list and numbers of the published films.
PARTS = {
    "TrainingData": ("training", range(1, 151)),
    "Test1Data": ("test1", range(151, 301)),
    "Test2Data": ("test2", range(301, 401)),
}
OBSERVERS = {"senior": "the senior doctor", "junior": "the junior doctor"}
TRUTHS = ("mean", *OBSERVERS)
IMAGE_SUFFIXES = (".bmp", ".jpg", ".jpeg", ".png")
FILM_SIZE = (1935, 2400)  # pixels in which the annotations are given
PIXEL_MM = 0.1
DUPLICATE_PAIRS = "duplicate_pairs.csv"


def read_annotation(path: Path) -> list[list[float]]:
    """One doctor's landmarks of one film: `x,y` in zero-based pixels on the first 19 lines; further lines are ignored.

    Raises:
        InputError: if there is no such file, or a line is missing or malformed.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")[: len(CEPHALOMETRIC_LANDMARKS)]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); put the annotation there.") from None
    try:
        points = np.array([[float(value) for value in line.split(",")] for line in lines])
    except ValueError:
        points = np.empty(0)
    if points.shape != (len(CEPHALOMETRIC_LANDMARKS), 2) or not np.isfinite(points).all():
        raise InputError(f"{path}: does not begin with 19 lines of x,y; restore the file.")
    return points.tolist()


def read_film(path: Path) -> np.ndarray | None:
    """The thumbnail by which a film is recognised, after a look at the file.

    Raises:
        InputError: if it cannot be read, or its pixels are not those of the annotations.
    """
    array, meta = read_image(path, spatial_dims=2)
    if array.shape != FILM_SIZE:
        size, wanted = (" x ".join(map(str, shape)) for shape in (array.shape, FILM_SIZE))
        raise InputError(f"{path}: has {size} pixels where the annotations count {wanted}; give it in full size.")
    return film_thumbnail(torch.from_numpy(array)[None])


def listed_pairs(root: Path) -> list[tuple[str, str]]:
    """Pairs of numbers in `duplicate_pairs.csv`, none where there is no such file."""
    if not (root / DUPLICATE_PAIRS).is_file():
        return []
    with open(root / DUPLICATE_PAIRS, newline="") as file:
        return [(row[0].strip(), row[1].strip()) for row in list(csv.reader(file))[1:] if len(row) > 1]


def import_isbi2015(
    source: str, target: str, truth: str = "mean", validation: float = 0.1, find_duplicates: bool = True
) -> dict[str, int]:
    """Write `datalist.json` for the ISBI 2015 cephalograms: lists training, validation, test1 and test2.

    Items hold the truth under `landmarks`, the annotations of both doctors under `senior` and `junior`, the spacing of
    0.1 mm, and `duplicate`, true for a test film that also stands in the training set (which one, in `duplicate_of`),
    so that results can be given without these. Films of one pair have one `group`; those of the training set stay in
    the training list, out of validation. Which other films are for validation is a fixed choice by their numbers.

    Args:
        source: folder with `RawImage/TrainingData`, `Test1Data`, `Test2Data` (.bmp, .jpg or .png) and
            `AnnotationsByMD/400_senior`, `400_junior`; pairs of a `duplicate_pairs.csv` are taken where it is there.
        target: folder of the new `datalist.json`; it points to the images where they are.
        truth: "mean" of the two doctors, as the challenge and the papers have it, or "senior" or "junior".
        validation: share of the training films that is held out to choose a checkpoint.
        find_duplicates: whether to look for films that look alike, beside those of `duplicate_pairs.csv`.

    Returns:
        number of films per list.

    Raises:
        InputError: if the layout or a setting is wrong, or there is no training film with annotation.
    """
    require_folder_name(target)
    root, goal = Path(source), Path(target)
    if truth not in TRUTHS:
        raise InputError(f"truth '{truth}': there is no such ground truth; take one of {', '.join(TRUTHS)}.")
    folders = [
        root / "RawImage" / "TrainingData",
        *(root / "AnnotationsByMD" / f"400_{doctor}" for doctor in OBSERVERS),
    ]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: not there; give the folder that holds RawImage/ and AnnotationsByMD/.")

    items: dict[str, dict] = {}
    thumbnails: dict[str, np.ndarray] = {}
    part_of: dict[str, str] = {}
    for folder, (name, numbers) in PARTS.items():
        files = film_files(root / "RawImage" / folder)
        dropped = {}
        for film, path in tqdm(files.items(), desc=f"reading {folder}", disable=not files):
            try:
                items[film] = film_item(path, root, goal, truth)
                if (thumbnail := read_film(path)) is not None:
                    thumbnails[film] = thumbnail
                part_of[film] = name
            except InputError as error:
                items.pop(film, None)
                dropped[film] = str(error)
        tell_part(root / "RawImage" / folder, files, [f"{number:03d}" for number in numbers], dropped)
    if "training" not in part_of.values():
        raise InputError(f"{root}: holds no training film with its annotations; put the files of the challenge there.")

    groups = pair_groups(tell_pairs(root, thumbnails if find_duplicates else {}, part_of))
    lists: dict[str, list[dict]] = {"training": [], "validation": [], "test1": [], "test2": []}
    for film, item in items.items():
        same = sorted(groups.get(film, {film}))
        trained = [other for other in same if part_of[film] != "training" and part_of[other] == "training"]
        item.update(group=same[0], duplicate=bool(trained), duplicate_of=" ".join(trained))
        held_out = part_of[film] == "training" and film not in groups and is_validation(film, validation)
        lists["validation" if held_out else part_of[film]].append(item)
    tell_doctors(items.values())
    goal.mkdir(parents=True, exist_ok=True)
    write_imported_datalist(
        goal,
        name="ISBI 2015 cephalometric, " + ("mean of the two doctors" if truth == "mean" else OBSERVERS[truth]),
        phantom=False,
        landmarks=list(CEPHALOMETRIC_LANDMARKS),
        truth="mean of the two doctors" if truth == "mean" else OBSERVERS[truth],
        observers=OBSERVERS,
        **{name: listed for name, listed in lists.items() if listed},
    )
    return tell_lists(goal)


def film_files(folder: Path) -> dict[str, Path]:
    """Image files of a folder by their number; of one film in several formats the one named first in IMAGE_SUFFIXES."""
    files: dict[str, Path] = {}
    for suffix in IMAGE_SUFFIXES:
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.suffix.lower() == suffix:
                files.setdefault(path.stem, path)
    return dict(sorted(files.items()))


def film_item(path: Path, root: Path, goal: Path, truth: str) -> dict:
    """A film's item of the datalist, as far as it does not depend on other films."""
    doctors = {d: read_annotation(root / "AnnotationsByMD" / f"400_{d}" / f"{path.stem}.txt") for d in OBSERVERS}
    points = np.mean(list(doctors.values()), axis=0).tolist() if truth == "mean" else doctors[truth]
    image = os.path.relpath(path, goal)
    return {"image": image, "landmarks": points, "spacing": [PIXEL_MM, PIXEL_MM], **doctors}


def tell_part(folder: Path, files: dict[str, Path], published: list[str], dropped: dict[str, str]) -> None:
    """Print what a folder of films holds and lacks, and what was dropped."""
    missing = [film for film in published if film not in files]
    lacks = f", {len(missing)} missing ({ranges(missing)})" if missing and files else ""
    print(f"{folder}: {len(files)} of {len(published)} published films{lacks}.")
    for film, reason in dropped.items():
        print(f"    {film} dropped: {reason}")


def tell_pairs(root: Path, thumbnails: dict[str, np.ndarray], part_of: dict[str, str]) -> list[tuple[str, str]]:
    """Pairs of films that are the same, from the list of the owner and by their pictures; prints them."""
    listed = [(a, b) for a, b in listed_pairs(root) if a in part_of and b in part_of]
    films = sorted(thumbnails)
    alike = [(films[i], films[j]) for i, j in same_films([thumbnails[film] for film in films])]
    pairs = sorted({tuple(sorted(pair)) for pair in (*listed, *alike)})
    if thumbnails and listed:
        known = {tuple(sorted(pair)) for pair in listed}
        new = " ".join(f"{a}/{b}" for a, b in alike if (a, b) not in known)
        lost = " ".join(f"{a}/{b}" for a, b in sorted(known - set(alike)))
        print(f"{root / DUPLICATE_PAIRS}: {len(known)} pairs; by their pictures also: {new or 'none'}.")
        if lost:
            print(f"pairs of that list whose pictures do not look alike: {lost}; they are kept as pairs.")
    told = ", ".join(f"{a} ({part_of[a]}) {b} ({part_of[b]})" for a, b in pairs)
    print(f"{len(pairs)} pairs of films are the same{': ' if pairs else ''}{told}.")
    return pairs


def tell_doctors(items: Iterable[dict]) -> None:
    """Print how far the two doctors are apart."""
    apart = np.array([np.subtract(item["senior"], item["junior"]) for item in items])
    distance = np.linalg.norm(apart, axis=-1).mean() * PIXEL_MM
    print(f"The two doctors differ by {distance:.2f} mm on average, over {len(apart)} films.")


def ranges(films: list[str]) -> str:
    """Numbers as text, those in sequence as a range: 001-003 007."""
    runs: list[list[str]] = []
    for film in films:
        if runs and int(film) == int(runs[-1][-1]) + 1:
            runs[-1].append(film)
        else:
            runs.append([film])
    return " ".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
