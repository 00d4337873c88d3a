"""Look for what ruins results before training: wrong labels, leaking images, odd shapes."""

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import combinations
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.transforms import Compose, LoadImaged
from tqdm import tqdm

from ..errors import InputError
from ..transforms.coordinates import is_present, world_to_voxel
from ..transforms.landmark_loading import LoadLandmarksd
from .atomic_writing import require_writable
from .contact_sheet import Picture, contact_sheet, flat_picture, volume_picture
from .datalist import datalist_info, load_datalist
from .datasets import input_error_in
from .film_duplicates import film_thumbnail, same_films
from .image_files import LandmarkImageReader
from .shape_fitting import contradicted_sides, exchange_swapped, mean_shape, residuals, reversed_pairs
from .volume_geometry import VolumeGeometry, describe_geometries, geometry_of, odd_geometries

SHEET = "contact_sheet.png"
SIDES_HINT = "exchanged labels, or points in another space, unless the names mean other sides than the patient's"
HARMLESS = (
    *("without coordinate", "same place", "outlying shape", "constant image", "known duplicate"),
    *("unusual spacing", "unusual orientation", "doubtful header", "side against its name"),
)


@dataclass
class Case:
    """One image of a data set, as far as it could be read."""

    list_name: str
    image: str
    group: str | None
    points: np.ndarray | None = None  # voxels (N, D)
    world: np.ndarray | None = None  # (N, D)
    size: tuple[int, ...] = ()
    digest: str = ""
    thumbnail: np.ndarray | None = None  # `film_thumbnail`
    duplicate: bool = False  # the datalist says that another list holds the same film
    picture: Picture | None = None
    geometry: VolumeGeometry | None = None  # of a volume


@dataclass(frozen=True)
class Finding:
    """Something that a person should look at."""

    kind: str
    image: str
    text: str


def read_case(list_name: str, item: Mapping[str, Any], load: Compose, findings: list[Finding]) -> Case:
    """Read an image with its landmarks; what is wrong with them becomes a finding."""
    case = Case(list_name, item["image"], item.get("group"), duplicate=bool(item.get("duplicate", False)))
    try:
        data = load(dict(item))
    except Exception as error:
        findings.append(Finding("unreadable", case.image, str(input_error_in(error) or error)))
        return case
    image, label = data["image"], data["label"]
    case.size = tuple(image.shape[1:])
    world = torch.where(is_present(label[0])[:, None], label[0], torch.nan)  # an absent one has no place either
    case.world = world.numpy()
    case.points = world_to_voxel(world, image.affine).numpy()
    pixels = image.numpy()[0]
    if pixels.ndim == 2:
        case.picture = flat_picture(pixels, case.points)
    else:
        case.geometry = geometry_of(image.meta, case.image)
        case.picture = volume_picture(pixels, case.world, case.geometry.affine)
        pixels = nibabel.apply_orientation(pixels, nibabel.io_orientation(case.geometry.affine))
    # a volume in one orientation, so that it is known again where another file stores it in another
    case.digest = hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()
    case.thumbnail = film_thumbnail(torch.from_numpy(np.ascontiguousarray(pixels))[None])
    if case.thumbnail is None:
        findings.append(Finding("constant image", case.image, "every pixel has the same value"))
    return case


def check_points(case: Case, names: Sequence[str]) -> list[Finding]:
    """Points off the image, landmarks on one place, landmarks without a coordinate."""
    found = []
    finite = np.isfinite(case.points).all(1)
    off = finite & ((case.points < -0.5) | (case.points > np.array(case.size)[: case.points.shape[1]] - 0.5)).any(1)
    if off.any():
        which = ", ".join(names[i] for i in off.nonzero()[0])
        found.append(Finding("off the image", case.image, f"{which}: outside the image of size {case.size}"))
    if not finite.all():
        which = ", ".join(names[i] for i in (~finite).nonzero()[0])
        found.append(Finding("without coordinate", case.image, which))
    for i, j in combinations(finite.nonzero()[0], 2):
        if np.abs(case.points[i] - case.points[j]).max() < 1e-6:
            found.append(Finding("same place", case.image, f"{names[i]} and {names[j]} have the same coordinates"))
    return found


def check_shapes(cases: Sequence[Case], names: Sequence[str], tolerance: float = 6.0) -> list[Finding]:
    """Mirrored, swapped and outlying shapes, against the median shape of the data set after alignment.

    A landmark is odd where its residual exceeds the data set's median for it by `tolerance` robust deviations.
    """
    usable = [c for c in cases if c.world is not None and np.isfinite(c.world).all(1).sum() >= 4]
    if len(usable) < 5 or len(names) < 4:
        return []
    mean = mean_shape([c.world for c in usable])
    table = np.stack([residuals(c.world, mean) for c in usable])
    centre = np.nanmedian(table, axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(table - centre), axis=0)
    limit = centre + tolerance * np.maximum(spread, 0.01)
    found = []
    for case, row in zip(usable, table):
        mirrored = residuals(case.world, mean, mirror=True)
        if np.nanmean(mirrored) < 0.5 * np.nanmean(row):
            found.append(
                Finding(
                    "mirrored",
                    case.image,
                    "fits the other images after a reflection: other side, or x flipped",
                )
            )
            continue
        swaps, row = exchange_swapped(case.world, mean, limit)
        for i, j in swaps:
            found.append(Finding("swapped labels", case.image, f"{names[i]} and {names[j]} fit after an exchange"))
        rest = np.flatnonzero(np.nan_to_num(row) > limit)
        if rest.size:
            text = ", ".join(
                f"{names[i]} ({row[i] / max(centre[i], 1e-9):.0f} times the usual deviation)" for i in rest
            )
            found.append(Finding("outlying shape", case.image, text))
    return found


def check_volumes(cases: Sequence[Case], names: Sequence[str], known: Sequence[Finding]) -> list[Finding]:
    """Spacings and orientations unlike those of the other volumes, and landmarks that lie the other way round than in
    the others, or than their names say in most volumes.

    Args:
        known: findings so far; a volume of which labels are swapped or mirrored is not told again for its directions.
    """
    volumes = [c for c in cases if c.geometry is not None]
    odd = odd_geometries({c.image: c.geometry for c in volumes})
    found = [Finding(kind, image, text) for image, kind, text in odd]
    explained = {f.image for f in known if f.kind in ("swapped labels", "mirrored")}
    for case, pairs in zip(volumes, reversed_pairs([c.world for c in volumes]) if volumes else ()):
        if pairs and case.image not in explained:
            listed = ", ".join(f"{names[i]} and {names[j]}" for i, j in pairs[:3])
            more = f" and {len(pairs) - 3} more pairs" if len(pairs) > 3 else ""
            text = f"{listed}{more} lie the other way round than in the other volumes: exchanged labels, or orientation"
            found.append(Finding("reversed direction", case.image, text))
    sides = contradicted_sides([c.world for c in volumes], names) if volumes else []
    return found + [Finding("side against its name", "all volumes", f"{text}: {SIDES_HINT}") for text in sides]


def check_leaks(cases: Sequence[Case]) -> list[Finding]:
    """The same film twice (equal pixels, or pictures that look alike), and patients in two lists.

    Films that the datalist marks as a "duplicate" of another list are told as known.
    """
    found = []
    readable = [c for c in cases if c.thumbnail is not None]
    flat, volumes = ([c for c in readable if (c.geometry is None) == is_flat] for is_flat in (True, False))
    pairs = [(films[i], films[j]) for films in (flat, volumes) for i, j in same_films([c.thumbnail for c in films])]
    for a, b in pairs:
        if a.image != b.image:
            same = "equal pixels" if a.digest == b.digest else "look alike"
            where = f"{a.list_name} and {b.list_name}"
            kind = "known duplicate" if a.duplicate or b.duplicate else "duplicate film"
            found.append(Finding(kind, a.image, f"and {b.image} ({where}): {same}"))
    lists: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        lists[f"image {case.image}"].add(case.list_name)
        if case.group is not None and not case.duplicate:
            lists[f"group {case.group}"].add(case.list_name)
    for what, where in lists.items():
        if len(where) > 1:
            found.append(Finding("in two lists", what, f"stands in {', '.join(sorted(where))}"))
    return found


def sheet_path(dataset_dir: str, sheet: str | None) -> Path:
    """Where the contact sheet goes, seen to be writable before all images are read.

    Raises:
        InputError: if a path was given that cannot be written.
    """
    if sheet is not None:
        require_writable(Path(sheet).parent, "sheet")
        return Path(sheet)
    folder = Path(dataset_dir).expanduser()
    try:
        require_writable(folder if folder.is_dir() else folder.parent, "sheet")
    except InputError:  # data are often mounted read-only
        return Path(tempfile.mkdtemp(prefix="check_")) / SHEET
    return (folder if folder.is_dir() else folder.parent) / SHEET


def check(dataset_dir: str, sheet: str | None = None, exempt_lists: Sequence[str] = ("all", "fold*")) -> None:
    """Check a data set before training and print what a person should look at.

    Looks at every list of `datalist.json` for unreadable files, points off the image, landmarks on one place, swapped
    and mirrored labels, outlying shapes, duplicate films, and images or patients in two lists; in volumes also for
    landmarks the other way round than in others or than their names say, and for spacings and orientations unlike those
    of the others. Draws a contact sheet.

    Args:
        dataset_dir: folder with `datalist.json`.
        sheet: picture to write; by default `contact_sheet.png` in the data folder, or in a new temporary folder where
            the data folder cannot be written.
        exempt_lists: lists that repeat images of others on purpose; `*` stands for any ending.

    Raises:
        InputError: if something was found that must be mended: all but missing and equal coordinates, outlying shapes,
            constant images, duplicates that the datalist marks, and unusual but possible geometry of volumes.
    """
    info = datalist_info(dataset_dir)
    findings: list[Finding] = []
    cases = []
    if not info["landmarks"]:
        raise InputError(f"{dataset_dir}: its datalist.json names no landmarks; list their names under 'landmarks'.")
    names = list(info["landmarks"])
    exempt = (exempt_lists,) if isinstance(exempt_lists, str) else exempt_lists
    wanted = [n for n, size in info["lists"].items() if size and not any(fnmatch(n, pattern) for pattern in exempt)]
    lists = {n: load_datalist(dataset_dir, n, names) for n in wanted}
    if not lists:
        raise InputError(f"{dataset_dir}: lists no image to check; add images to its datalist.json.")
    path = sheet_path(dataset_dir, sheet)
    load = Compose([
        LoadImaged("image", reader=LandmarkImageReader(), ensure_channel_first=True, image_only=True),
        LoadLandmarksd("label", names=names, outside="ignore"),
    ])  # fmt: skip
    for name, items in lists.items():
        for item in tqdm(items, desc=f"reading {name}"):
            cases.append(read_case(name, item, load, findings))
    readable = [c for c in cases if c.points is not None]
    for case in readable:
        findings += check_points(case, names)
    findings += check_shapes(readable, names)
    findings += check_volumes(readable, names, findings) + check_leaks(cases)
    reasons: dict[str, list[str]] = defaultdict(list)
    for finding in findings:
        reasons[finding.image].append(finding.kind)
    contact_sheet({c.image: c.picture for c in readable}, reasons, path)

    print(f"{info['name']}: " + ", ".join(f"{len(items)} images in {name}" for name, items in lists.items()))
    if geometries := {Path(c.image).name: c.geometry for c in readable if c.geometry is not None}:
        print(*describe_geometries(geometries), sep="\n")
    kinds = sorted({f.kind for f in findings})
    for kind in kinds:
        print(f"{kind}:")
        for finding in (f for f in findings if f.kind == kind):
            print(f"    {finding.image}: {finding.text}")
    if path.exists():
        print(f"contact sheet: {path.resolve()}")
    serious = [f for f in findings if f.kind not in HARMLESS]
    if serious:
        raise InputError(f"{dataset_dir}: {len(serious)} findings must be mended before training (listed above).")
    print("nothing that would ruin a training was found." if not findings else "look at the findings above.")
