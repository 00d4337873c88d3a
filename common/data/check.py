"""Look for what ruins results before training: wrong labels, leaking images, odd shapes."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, LoadImaged, Resize
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from ..errors import InputError
from ..transforms.coordinates import is_present, world_to_voxel
from ..transforms.landmark_loading import LoadLandmarksd
from .datalist import datalist_info, load_datalist
from .datasets import input_error_in
from .film_duplicates import film_thumbnail, same_films
from .image_files import LandmarkImageReader


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
    picture: np.ndarray | None = None


@dataclass(frozen=True)
class Finding:
    """Something that a person should look at."""

    kind: str
    image: str
    text: str


def similarity_fit(
    shape: np.ndarray, target: np.ndarray, mirror: bool = False, weights: np.ndarray | None = None
) -> np.ndarray:
    """The shape (N, D), mirrored if asked, moved onto the target by the best rotation, scale and translation.

    The best by the sum of squared distances, each times its weight (N,). Rows that are not finite in either are left
    out of the fit and stay NaN.
    """
    valid = np.isfinite(shape).all(1) & np.isfinite(target).all(1)
    weight = np.ones(valid.sum()) if weights is None else weights[valid]
    flip = np.ones(shape.shape[1])
    flip[0] = -1 if mirror else 1
    source = shape * flip
    centre, goal = (np.average(points[valid], axis=0, weights=weight) for points in (source, target))
    a, b = source[valid] - centre, target[valid] - goal
    if shape.shape[1] == 2:  # a rotation in the plane
        angle = np.arctan2(weight @ (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]), weight @ (a * b).sum(1))
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    else:
        matrix = Rotation.align_vectors(b, a, weight)[0].as_matrix()
    rotated = (source - centre) @ matrix.T
    scale = weight @ (rotated[valid] * b).sum(1) / max(weight @ (a**2).sum(1), 1e-12)
    return scale * rotated + goal


def mean_shape(shapes: Sequence[np.ndarray], rounds: int = 5) -> np.ndarray:
    """The median of shapes (N, D) after alignment to it, scaled to a root mean square radius of 1 (Procrustes)."""
    mean = max(shapes, key=lambda s: np.isfinite(s).all(1).sum())
    for _ in range(rounds):
        mean = mean - np.nanmean(mean, axis=0)
        mean = mean / np.sqrt(np.nanmean((mean**2).sum(1)))
        mean = np.nanmedian([similarity_fit(shape, mean) for shape in shapes], axis=0)
    return mean


def residuals(shape: np.ndarray, mean: np.ndarray, mirror: bool = False, rounds: int = 10) -> np.ndarray:
    """Distance of every landmark of an aligned shape from the mean shape, in units of its radius: (N,).

    Distances over a tenth of the radius enter the alignment by themselves, not by their squares (Huber's loss,
    iteratively reweighted), so that a few wrong landmarks do not pull the others off their places.
    """
    distance = np.zeros(len(shape))
    for _ in range(rounds):
        distance = np.linalg.norm(similarity_fit(shape, mean, mirror, 1 / np.maximum(distance, 0.1)) - mean, axis=1)
    return distance


def read_case(list_name: str, item: Mapping[str, Any], load: Compose, findings: list[Finding]) -> Case:
    """Read an image with its landmarks; what is wrong with them becomes a finding."""
    case = Case(list_name, item["image"], item.get("group"), duplicate=bool(item.get("duplicate", False)))
    try:
        data = load(dict(item))
    except Exception as error:
        findings.append(Finding("unreadable", case.image, str(input_error_in(error) or error)))
        return case
    image, label = data["image"], data["label"]
    case.digest = hashlib.sha256(np.ascontiguousarray(image.numpy())).hexdigest()
    case.size = tuple(image.shape[1:])
    world = torch.where(is_present(label[0])[:, None], label[0], torch.nan)  # an absent one has no place either
    case.world = world.numpy()
    case.points = world_to_voxel(world, image.affine).numpy()
    plane = image if image.ndim == 3 else image.max(dim=-1).values
    longest = max(plane.shape[1:])
    small = Resize([max(1, round(s * 240 / longest)) for s in plane.shape[1:]], mode="area")(plane)
    case.picture = np.asarray(small[0])
    case.thumbnail = film_thumbnail(plane)
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


def exchange_swapped(
    shape: np.ndarray, mean: np.ndarray, limit: np.ndarray
) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Pairs of odd landmarks that lie much closer to the mean shape once their labels are exchanged, the best first.

    Returns:
        the pairs, and the residuals (N,) after all exchanges.
    """
    shape, swaps = shape.copy(), []
    row = residuals(shape, mean)
    while True:
        after = {}
        for pair in combinations(np.flatnonzero(np.nan_to_num(row) > limit), 2):
            exchanged = shape.copy()
            exchanged[list(pair)] = exchanged[list(pair[::-1])]
            new = residuals(exchanged, mean)
            if (new[list(pair)] < 0.5 * row[list(pair)]).all() and np.nansum(new) < np.nansum(row):
                after[pair] = exchanged, new
        if not after:
            return swaps, row
        best = min(after, key=lambda pair: np.nansum(after[pair][1]))
        shape, row = after[best]
        swaps.append(best)


def check_leaks(cases: Sequence[Case]) -> list[Finding]:
    """The same film twice (equal pixels, or pictures that look alike), and patients in two lists.

    Films that the datalist marks as a "duplicate" of another list are told as known.
    """
    found = []
    readable = [c for c in cases if c.thumbnail is not None]
    for i, j in same_films([c.thumbnail for c in readable]):
        a, b = readable[i], readable[j]
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


def contact_sheet(cases: Sequence[Case], findings: Sequence[Finding], path: Path, limit: int = 48) -> None:
    """A page of small pictures with their landmarks, those with findings first and marked."""
    from matplotlib.figure import Figure

    reasons: dict[str, list[str]] = defaultdict(list)
    for finding in findings:
        reasons[finding.image].append(finding.kind)
    shown = sorted((c for c in cases if c.picture is not None), key=lambda c: c.image not in reasons)[:limit]
    if not shown:
        return
    columns = 8
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2 * columns, 2.6 * rows), layout="constrained")
    for case, axes in zip(shown, np.ravel(figure.subplots(rows, columns, squeeze=False))):
        axes.imshow(case.picture.T, cmap="gray")
        factor = np.array(case.picture.shape) / np.array(case.size[:2])
        points = (case.points[:, :2] + 0.5) * factor - 0.5
        axes.scatter(*points.T, s=4, c=np.arange(len(points)), cmap="hsv")
        kinds = ", ".join(sorted(set(reasons[case.image])))
        axes.set_title(f"{Path(case.image).name}\n{kinds}", fontsize=6, color="red" if kinds else "black")
    for axes in figure.axes:
        axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def check(dataset_dir: str, sheet: str = "contact_sheet.png", exempt_lists: Sequence[str] = ("all", "fold*")) -> None:
    """Check a data set before training and print what a person should look at.

    Looks at every list of `datalist.json` for unreadable files, points off the image, landmarks on one place, swapped
    and mirrored labels, outlying shapes, duplicate films, and images or patients in two lists. Draws a contact sheet.

    Args:
        dataset_dir: folder with `datalist.json`.
        sheet: picture to write; a relative path lies in the current directory.
        exempt_lists: lists that repeat images of others on purpose; `*` stands for any ending.

    Raises:
        InputError: if something was found that must be mended: all but missing and equal coordinates, outlying shapes,
            constant images and duplicates that the datalist marks.
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
    findings += check_shapes(readable, names) + check_leaks(cases)
    contact_sheet(cases, findings, Path(sheet))

    print(f"{info['name']}: " + ", ".join(f"{len(items)} images in {name}" for name, items in lists.items()))
    kinds = sorted({f.kind for f in findings})
    for kind in kinds:
        print(f"{kind}:")
        for finding in (f for f in findings if f.kind == kind):
            print(f"    {finding.image}: {finding.text}")
    print(f"contact sheet: {Path(sheet).resolve()}")
    harmless = ("without coordinate", "same place", "outlying shape", "constant image", "known duplicate")
    serious = [f for f in findings if f.kind not in harmless]
    if serious:
        raise InputError(f"{dataset_dir}: {len(serious)} findings must be mended before training (listed above).")
    print("nothing that would ruin a training was found." if not findings else "look at the findings above.")
