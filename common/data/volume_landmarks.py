"""Where the landmarks of volumes come from: files beside them, one table of all, or label masks."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..transforms.heatmap_decoding import largest_blob
from .dicom_files import is_dicom
from .image_listing import IMAGE_ENDINGS
from .landmark_files import LandmarkFile, inline_points, read_landmarks
from .markups_files import TO_RAS
from .table_import import read_points, stated_spaces
from .volume_geometry import VolumeGeometry, read_geometry

LANDMARK_ENDINGS = (".mrk.json", ".fcsv", ".csv")
SPACES = ("voxel", "RAS", "LPS")
SEPARATORS = "_-. "


@dataclass
class AnnotatedVolume:
    """A volume and what is known of its landmarks.

    Args:
        image: file, or folder of a DICOM series.
        geometry: its grid.
        landmarks: in the world (RAS), as they were found.
        file: landmark file of this volume, None for other sources.
        odd: what is to be told of it.
        points: (N, 3) world RAS in the order of the set's names, once these are known.
    """

    image: Path
    geometry: VolumeGeometry
    landmarks: LandmarkFile
    file: Path | None
    odd: Sequence[str] = ()
    points: np.ndarray | None = None


def stem(name: str, endings: tuple[str, ...]) -> str:
    """A file's name without the longest of the endings that it has."""
    found = [ending for ending in endings if name.lower().endswith(ending)]
    return name[: -max(map(len, found))] if found else name


def files_by_name(folder: Path, endings: tuple[str, ...]) -> dict[str, list[Path]]:
    """Files of a folder with one of the endings, hidden ones not, by their names without it.

    Images (where `endings` are those of images) may be folders of one DICOM series each.

    Raises:
        InputError: if there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; check the path.")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_file() and path.name.lower().endswith(endings):
            found.setdefault(stem(path.name, endings), []).append(path)
        elif endings is IMAGE_ENDINGS and path.is_dir() and any(is_dicom(file) for file in path.iterdir()):
            found.setdefault(path.name, []).append(path)
    return found


def pair_by_name(volumes: Iterable[str], others: Iterable[str]) -> tuple[dict[str, str], str]:
    """Which landmarks belong to which volume, by their names without endings.

    Names are equal; or, where none is, one side has the same part more after "_", "-", "." or a space, such as
    `case_7` and `case_7_seg`. Then the part that makes most pairs counts.

    Returns:
        the landmarks' name for each volume that has one, and the part, empty where names are equal.
    """
    volumes, others = list(volumes), set(others)
    best: dict[str, str] = {name: name for name in volumes if name in others}
    if best:
        return best, ""
    found: dict[tuple[str, bool], dict[str, str]] = {}
    for name in volumes:
        for other in others:
            longer, shorter = (other, name) if len(other) > len(name) else (name, other)
            part = longer.removeprefix(shorter)
            if longer.startswith(shorter) and part[:1] and part[0] in SEPARATORS:
                found.setdefault((part, longer is other), {})[name] = other
    part = max(sorted(found), key=lambda key: len(found[key]), default=("", False))
    return found.get(part, {}), part[0]


def read_table(path: Path, space: str | None) -> dict[str, LandmarkFile]:
    """Landmarks by the volume's name (without ending) from one CSV of all volumes, with image, name, x, y, z.

    Args:
        space: of the coordinates: "voxel" (zero-based file voxels), "RAS" or "LPS" (mm); None where a column `space`
            says it. The `landmarks.csv` of a prediction, which has columns for voxels and LPS, can be taken in either.

    Raises:
        InputError: if the space is none of these or another than in the column, or the table malformed, or an image is
            there under two endings.
    """
    known = {name.lower(): name for name in SPACES}
    stated = stated_spaces(path)
    if space is None and len(stated) == 1:
        (space,) = stated
    if others := stated - {str(space).lower()}:
        raise InputError(
            f"{path}: its column space says {', '.join(sorted(others))}, --space {space}; correct one of them, or "
            "divide the table by space."
        )
    if str(space).lower() not in known:
        stated = "is not stated" if space is None else f"'{space}' is none"
        raise InputError(f"{path}: the space of its coordinates {stated}; give --space voxel, RAS or LPS.")
    space = known[str(space).lower()]
    prefix = "pixel" if space == "voxel" else space.lower()
    axes = {axis: (f"{prefix}_{axis}", axis) for axis in "xyz"}  # the one that names its space first
    table: dict[str, LandmarkFile] = {}
    for image, points in read_points(path, axes).items():
        name = stem(image, IMAGE_ENDINGS)
        if name in table:
            raise InputError(f"{path}: holds {name} under two endings; write the image's name in one way.")
        signs = (1.0,) * 3 if space == "voxel" else TO_RAS[space]
        rows = inline_points(list(points.values()), f"{path}: {image}", 3)
        rows[np.isfinite(rows).all(1)] *= signs
        table[name] = LandmarkFile(tuple(points), rows, "voxel" if space == "voxel" else "RAS")
    return table


def read_labels(labels: Mapping[str, Any] | str | None) -> dict[str, int]:
    """The label of each landmark in masks.

    Args:
        labels: {"anterior": 1, ...}; or the path of a JSON file with that, also under a key "labels" and turned
            round ({"1": "anterior"}), as the Medical Segmentation Decathlon and nnU-Net write it. Background is 0.

    Raises:
        InputError: if they are something else, or two landmarks have one label.
    """
    place = "labels"
    if isinstance(labels, str):
        place = labels
        try:
            labels = json.loads(Path(labels).read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{place}: is no JSON file that can be read; give names and labels.") from error
        labels = labels.get("labels", labels) if isinstance(labels, dict) else labels
    wanted = "give them as \"{'anterior': 1, 'posterior': 2}\""
    if not isinstance(labels, Mapping) or not labels:
        raise InputError(f"{place}: there are no names of labels; {wanted}.")
    if all(isinstance(name, str) and not isinstance(value, str) for name, value in labels.items()):
        pairs = [(name, value) for name, value in labels.items() if value != 0]
    else:
        pairs = [(name, number) for number, name in labels.items() if str(number) != "0"]
    try:
        found = {str(name): int(str(number)) for name, number in pairs}
    except ValueError:
        raise InputError(f"{place}: a label of {dict(pairs)} is no whole number; {wanted}.") from None
    if not found or min(found.values()) < 1 or len(set(found.values())) < len(pairs):
        raise InputError(f"{place}: {dict(pairs)} are not one label over 0 for each name; {wanted}.")
    return found


def read_mask(path: Path, labels: Mapping[str, int], volume: VolumeGeometry) -> tuple[LandmarkFile, list[str]]:
    """Centroids of a mask's labels in the world, of those that it holds.

    A centroid is the mean of the centres of a label's voxels, mapped by the mask's own affine, so that the mask may
    have another grid than its volume.

    Args:
        volume: of the image to which the mask belongs.

    Returns:
        the landmarks, and what is odd about the mask, in words.

    Raises:
        InputError: if the mask cannot be read, holds values between whole numbers, or lies nowhere on the volume.
    """
    array, mask = read_geometry(path)
    values = np.rint(array)
    if np.abs(array - values).max() > 1e-3:
        raise InputError(f"{path}: holds values between whole numbers; give label masks, not smoothed ones.")
    box = volume.to_voxel(mask.corners())
    if (box.max(0) < -0.5).any() or (box.min(0) > np.array(volume.shape) - 0.5).any():
        raise InputError(f"{path}: lies nowhere on its volume; give the mask the position of the volume in its header.")
    names, points, odd = [], [], []
    for name, label in labels.items():
        voxels = np.argwhere(values == label)
        if len(voxels):
            names.append(name)
            points.append(mask.to_world(voxels.mean(0)[None])[0])
            largest = voxels[largest_blob(voxels, np.ones(len(voxels)))]
            moved = np.abs(voxels.mean(0) - largest.mean(0)).max()
            if moved > 0.5:
                odd.append(
                    f"has label {label} ({name}) in pieces, of which all but the largest move its centroid by "
                    f"{moved:.1f} voxels"
                )
    apart = np.abs([box.min(0) + 0.5, box.max(0) + 0.5 - volume.shape]).max()  # of the two boxes, in voxels
    if mask.shape == volume.shape and apart > 1:
        odd.append(f"has the size of its volume but lies up to {apart:.0f} voxels off it by its header")
    if unnamed := sorted(set(np.unique(values).astype(int).tolist()) - {0, *labels.values()}):
        odd.append(f"holds labels without a name: {', '.join(map(str, unnamed[:10]))}")
    return LandmarkFile(tuple(names), np.reshape(points, (-1, 3)).astype(np.float64), "RAS"), odd


def read_volume(path: Path, other: Sequence[Path] | LandmarkFile, labels: Mapping[str, int] | None) -> AnnotatedVolume:
    """A volume with its landmarks from a table, one file or one mask.

    Raises:
        InputError: if one of the two cannot be read, there are several files, or the spacing is impossible.
    """
    if not isinstance(other, LandmarkFile) and len(other) > 1:
        listed = ", ".join(file.name for file in other)
        raise InputError(f"{path}: has {len(other)} files of landmarks, {listed}; keep one.")
    _, geometry = read_geometry(path)
    if isinstance(other, LandmarkFile):
        return AnnotatedVolume(path, geometry, in_world(other, geometry, path), None)
    if labels is not None:
        landmarks, odd = read_mask(other[0], labels, geometry)
        return AnnotatedVolume(path, geometry, landmarks, None, [f"{other[0].name}: {text}" for text in odd])
    return AnnotatedVolume(path, geometry, in_world(read_landmarks(other[0]), geometry, other[0]), other[0])


def in_world(landmarks: LandmarkFile, geometry: VolumeGeometry, source: Path) -> LandmarkFile:
    """Landmarks of a volume in RAS."""
    if landmarks.points.shape[1] != 3:
        raise InputError(f"{source}: its landmarks have two coordinates where those of a volume have three; add z.")
    if landmarks.space == "RAS":
        return landmarks
    finite = np.isfinite(landmarks.points).all(1)
    points = landmarks.points.copy()
    points[finite] = geometry.to_world(points[finite])
    return LandmarkFile(landmarks.names, points, "RAS")
