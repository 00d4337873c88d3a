"""Importer of volumes with landmark files, one table of all landmarks, or label masks."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..errors import InputError
from .atomic_writing import require_folder_name
from .datalist import tell, tell_lists, write_imported_datalist
from .image_listing import IMAGE_ENDINGS
from .landmark_files import LandmarkFile, match_landmarks
from .landmark_points import ABSENT, is_unnamed, names_of_all
from .shape_fitting import contradicted_sides
from .splits import patients_of, random_lists
from .volume_geometry import describe_geometries, read_geometry, spacing_doubt
from .volume_landmarks import (
    LANDMARK_ENDINGS,
    AnnotatedVolume,
    files_by_name,
    pair_by_name,
    read_labels,
    read_table,
    read_volume,
)

MISSING = {"null": np.nan, "absent": np.inf}
SHOWN = 20  # entries of a list that are printed


def import_volumes(
    source: str,
    target: str,
    landmarks: str | None = None,
    points: str | None = None,
    space: str | None = None,
    masks: str | None = None,
    labels: Mapping[str, int] | str | None = None,
    names: Sequence[str] | str | None = None,
    missing: str = "null",
    validation: float = 0.15,
    test: float = 0.15,
    groups: str | None = None,
    name: str = "",
    seed: int = 0,
) -> dict[str, int]:
    """Write `datalist.json` for a folder of volumes with their landmarks.

    Landmarks are in files of the volume's name beside it (`a.nii.gz` and `a.mrk.json`, `a.fcsv` or `a.csv`), or in the
    folder `landmarks`, or all in the CSV `points`, or the centroids of the labels in `masks`. Names may also differ by
    one ending that all have, such as `a_seg.nii.gz`. What is left out, and why, is printed, as are spacings,
    orientations and points outside their volume.

    Where every volume has a landmark file with all the landmarks, the datalist names these files, which stay the truth:
    a point that is corrected in 3D Slicer counts at once, and is matched by its name. Otherwise the points are copied
    into the datalist as zero-based file voxels.

    Args:
        source: folder of volumes (NIfTI, NRRD, MHA, ..., or a folder for each DICOM series).
        target: folder of the new `datalist.json`; it points to the files where they are.
        landmarks: folder of the landmark files, where it is another one.
        points: CSV with the columns image, name, x, y, z.
        space: of the coordinates in `points`: voxel (zero-based file voxels), RAS or LPS (mm).
        masks: folder of label masks of the volumes' names, in the same world; another grid is allowed.
        labels: the label of each landmark, "{'anterior': 1, 'posterior': 2}", or a JSON file with that.
        names: the landmarks to take, in this order; by default all, in the order of their appearance.
        missing: what a landmark is that a volume's file, table or mask does not hold: null (nobody annotated it) or
            absent (it is not in the volume).
        validation: share of the volumes in the validation list, or their number.
        test: the same for the test list.
        groups: regular expression that finds the patient in a volume's name (its first group, else all of it); the
            volumes of a patient stay in one list.
        name: name of the data set; by default that of the target folder.
        seed: of the division.

    Returns:
        number of volumes per list.

    Raises:
        InputError: if a setting, table or layout is wrong, names of landmarks differ in their spelling alone, or no
            volume with landmarks is left.
    """
    require_folder_name(target)
    if sum(setting is not None for setting in (landmarks, points, masks)) > 1:
        raise InputError("--landmarks, --points and --masks are three sources of landmarks; give one of them.")
    if str(missing or "null") not in MISSING:
        raise InputError(f"--missing {missing}: give null (not annotated) or absent.")
    if (space is not None and points is None) or (labels is not None and masks is None):
        raise InputError("--space belongs to --points, and --labels to --masks; landmark files state both themselves.")
    wanted = [names] if isinstance(names, str) else None if names is None else [str(n) for n in names]
    files = volume_files(Path(source))
    if masks is not None:
        if Path(masks).resolve() == Path(source).resolve():
            raise InputError(f"{masks}: holds the volumes themselves; put the label masks into a folder of their own.")
        others = files_by_name(Path(masks), IMAGE_ENDINGS)
        labels = read_labels(labels) if labels is not None else labels_are_missing(others)
        wanted = wanted or list(labels)
    elif points is not None:
        others = read_table(Path(points), space)
    else:
        others = files_by_name(Path(landmarks or source), LANDMARK_ENDINGS)
    annotation = str(points or masks or landmarks or source)

    pairs = paired(files, others, source, annotation)
    volumes = read_volumes({key: files[key] for key in pairs}, {key: others[pairs[key]] for key in pairs}, labels)
    order = wanted or names_there(volumes, source)
    volumes = in_order(volumes, order, MISSING[str(missing or "null")])
    if not volumes:
        raise InputError(f"{source}: no volume with landmarks is left; mend what is listed above.")
    tell_volumes(volumes, order)
    as_files = all(volume.file and holds_all(volume.landmarks, order) for volume in volumes.values())
    if not as_files and points is None and masks is None:
        print("points are copied into the datalist; import again after correcting a file.")

    keys = sorted(volumes)
    patients = patients_of(keys, groups)
    chosen = random_lists(patients, validation, test, seed)
    content = {
        key: [datalist_item(volumes[keys[i]], target, as_files, patients[i] if groups else None) for i in indices]
        for key, indices in chosen.items()
    }
    if masks is not None:
        content = {"truth": "centroids of label masks", **content}
    title = name or Path(target).resolve().name
    write_imported_datalist(target, name=title, phantom=False, landmarks=order, **content)
    return tell_lists(target)


def volume_files(source: Path) -> dict[str, Path]:
    """Volumes of a folder by their names without ending."""
    found = files_by_name(source, IMAGE_ENDINGS)
    if not found:
        raise InputError(f"{source}: holds no volume; give a folder of image files, or with a folder per DICOM series.")
    for paths in found.values():
        if len(paths) > 1:
            raise InputError(
                f"{source}: {' and '.join(path.name for path in paths)} have the same name, so that their landmarks "
                "cannot be told apart; rename one."
            )
    return {name: paths[0] for name, paths in found.items()}


def labels_are_missing(masks: Mapping[str, Sequence[Path]]) -> dict[str, int]:
    """Raise InputError that tells which labels the first mask holds."""
    if not masks:
        raise InputError("--masks: the folder holds no masks; give the folder of the label masks.")
    first = next(iter(masks.values()))[0]
    values = [f"{value:g}" for value in np.unique(read_geometry(first)[0]) if value != 0][:20]
    raise InputError(f"{first}: holds the labels {', '.join(values)}; name them with --labels \"{{'name': 1, ...}}\".")


def paired(files: Mapping[str, Path], others: Mapping[str, object], source: str, annotation: str) -> dict[str, str]:
    """The name of the landmarks of each volume that has some; tells what stays alone."""
    pairs, part = pair_by_name(files, others)
    if not pairs:
        told = f"such as '{next(iter(others))}'" if others else "none"
        raise InputError(
            f"{annotation}: no landmarks have the name of a volume in {source} (landmarks: {told}, volumes: such as "
            f"'{next(iter(files))}'); name both alike."
        )
    if part:
        print(f"volumes and landmarks are matched up to the ending '{part}' of their names.")
    tell("left out: volumes without landmarks", [files[key].name for key in files if key not in pairs], SHOWN)
    tell("left out: landmarks without a volume", sorted(set(others) - set(pairs.values())), SHOWN)
    return pairs


def read_volumes(
    files: Mapping[str, Path], others: Mapping[str, Sequence[Path] | LandmarkFile], labels: Mapping[str, int] | None
) -> dict[str, AnnotatedVolume]:
    """Read volumes with their landmarks; tells those that cannot be used."""
    found, dropped = {}, []
    for key, path in tqdm(files.items(), desc="reading volumes"):
        try:
            found[key] = read_volume(path, others[key], labels)
        except InputError as error:
            dropped.append(str(error))
    tell("left out: unusable", dropped, SHOWN)
    return found


def names_there(volumes: Mapping[str, AnnotatedVolume], source: str) -> list[str]:
    """Names of the landmarks in the order of their appearance; those that 3D Slicer counts through in files are none.

    Raises:
        InputError: if there is no name, or one is spelled in two ways.
    """
    named = [v for v in volumes.values() if v.file is None or not is_unnamed(v.landmarks.names)]
    if volumes and not named:
        raise InputError(f"{source}: no landmark has a name of its own; give --names in the order of the points.")
    sources = ((str(volume.file or volume.image), volume.landmarks.names) for volume in named)
    return names_of_all(sources, ", or give --names for all")


def in_order(
    volumes: Mapping[str, AnnotatedVolume], names: Sequence[str], missing: float
) -> dict[str, AnnotatedVolume]:
    """Volumes with their points in the order of the names; tells landmarks that lack or are not wanted."""
    found, empty, lacking, other, dropped = {}, [], [], Counter(), []
    for key, volume in volumes.items():
        try:
            volume.points = points_in_order(volume, names, missing)
        except InputError as error:
            dropped.append(str(error))
            continue
        if np.isnan(volume.points).all():
            empty.append(volume.image.name)
            continue
        found[key] = volume
        if set(volume.landmarks.names) & set(names) or not volume.landmarks.names:
            other.update(set(volume.landmarks.names) - set(names))
            if lacks := [name for name in names if name not in volume.landmarks.names]:
                lacking.append(f"{volume.image.name}: {', '.join(lacks)}")
    tell("left out: landmarks that do not fit the names", dropped, SHOWN)
    tell("left out: volumes of which no landmark has a position", empty, SHOWN)
    told = [f"{name}: in {count} volumes" for name, count in sorted(other.items())]
    tell("left out: landmarks of other names", told, SHOWN)
    word = "absent" if np.isinf(missing) else "not annotated"
    tell(f"volumes that lack landmarks, which are taken as {word}", lacking, SHOWN)
    return found


def points_in_order(volume: AnnotatedVolume, names: Sequence[str], missing: float) -> np.ndarray:
    """World coordinates (N, 3) of the landmarks of these names, `missing` where the volume has none of a name.

    Raises:
        InputError: if landmarks have none of these names, and cannot be taken in their order either.
    """
    landmarks = volume.landmarks
    if landmarks.names and not set(landmarks.names) & set(names):
        return match_landmarks(landmarks, names, str(volume.file or volume.image)).points
    rows = dict(zip(landmarks.names, landmarks.points))
    return np.array([rows.get(name, np.full(3, missing)) for name in names])


def holds_all(landmarks: LandmarkFile, names: Sequence[str]) -> bool:
    """Whether a landmark file names exactly these landmarks, so that it can be read again in any order."""
    return set(landmarks.names) == set(names)


def tell_volumes(volumes: Mapping[str, AnnotatedVolume], names: Sequence[str]) -> None:
    """Print what the set holds, and what is odd about its geometry and its points.

    Raises:
        InputError: if no landmark at all lies inside its volume.
    """
    geometries = {volume.image.name: volume.geometry for volume in volumes.values()}
    print(f"landmarks: {', '.join(names)}.", *describe_geometries(geometries), sep="\n")
    doubts = [f"{name}: {doubt}" for name, geometry in geometries.items() if (doubt := spacing_doubt(geometry))]
    tell("warning: headers in doubt", doubts, SHOWN)
    tell("warning: odd masks", [text for volume in volumes.values() for text in volume.odd], SHOWN)
    outside, inside, turned, placed = [], 0, 0, 0
    for volume in volumes.values():
        off = volume.geometry.distance_outside(volume.points)
        listed = [f"{names[i]} by {off[i]:.1f} voxels" for i in np.flatnonzero(off > 1e-6)]
        if listed:
            outside.append(f"{volume.image.name}: {', '.join(listed)}")
        placed += int(np.isfinite(off).sum())
        inside += int((off <= 1e-6).sum())
        turned += int((volume.geometry.distance_outside(volume.points * [-1, -1, 1]) == 0).sum())
    tell("warning: points outside their volume", outside, SHOWN)
    sides = contradicted_sides([volume.points for volume in volumes.values()], names)
    tell("warning: sides against their names (labels exchanged, or another space than that stated?)", sides, SHOWN)
    ordered = [
        f"{volume.image.name}: {taken_in_order(volume.landmarks, names)}"
        for volume in volumes.values()
        if volume.landmarks.names and not set(volume.landmarks.names) & set(names)
    ]
    tell("warning: points without names, taken in their order", ordered, SHOWN)
    if placed and not inside:
        hint = f"with LPS and RAS exchanged {turned} of them would" if turned else "see that both are of one patient"
        raise InputError(f"none of the {placed} points lies inside its volume; {hint}, check the space of the points.")


def taken_in_order(landmarks: LandmarkFile, names: Sequence[str]) -> str:
    """Which name was given to which of landmarks without names, the first few."""
    pairs = [f"{label or f'point {i}'} is {name}" for i, (label, name) in enumerate(zip(landmarks.names, names), 1)]
    return ", ".join(pairs[:3]) + (" ..." if len(pairs) > 3 else "")


def datalist_item(volume: AnnotatedVolume, target: str, as_file: bool, group: str | None) -> dict:
    """A volume's item of the datalist."""
    item = {"image": os.path.relpath(volume.image, target)}
    if as_file:
        item["landmarks"] = os.path.relpath(volume.file, target)
    else:
        item["landmarks"] = [
            [round(x, 6) for x in voxel.tolist()] if np.isfinite(voxel).all() else None
            for voxel in volume.geometry.to_voxel(volume.points)
        ]
        for row in np.flatnonzero(np.isposinf(volume.points).all(1)):
            item["landmarks"][row] = ABSENT
    return item | ({} if group is None else {"group": group})
