"""Look for what ruins results before training: wrong labels, leaking images, odd shapes."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Compose, LoadImaged, Resize
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from ..errors import InputError
from ..transforms.coordinates import world_to_voxel
from ..transforms.landmark_loading import LoadLandmarksd
from .datalist import datalist_info, load_datalist
from .datasets import input_error_in
from .image_files import LandmarkImageReader

THUMBNAIL = 32


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
    thumbnail: np.ndarray | None = None
    picture: np.ndarray | None = None


@dataclass(frozen=True)
class Finding:
    """Something that a person should look at."""

    kind: str
    image: str
    text: str


def similarity_fit(shape: np.ndarray, target: np.ndarray, mirror: bool = False) -> np.ndarray:
    """The shape (N, D), mirrored if asked, moved onto the target by the best rotation, scale and translation.

    Rows that are not finite in either are left out of the fit and stay NaN.
    """
    valid = np.isfinite(shape).all(1) & np.isfinite(target).all(1)
    flip = np.ones(shape.shape[1])
    flip[0] = -1 if mirror else 1
    source = shape * flip
    centre, goal = source[valid].mean(0), target[valid].mean(0)
    a, b = source[valid] - centre, target[valid] - goal
    padded = [np.pad(x, ((0, 0), (0, 3 - x.shape[1]))) for x in (b, a)]
    if shape.shape[1] == 2:  # a rotation in the plane
        angle = np.arctan2((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum(), (a * b).sum())
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    else:
        matrix = Rotation.align_vectors(*padded)[0].as_matrix()
    rotated = (source - centre) @ matrix.T
    scale = (rotated[valid] * b).sum() / max((a**2).sum(), 1e-12)
    return scale * rotated + goal


def mean_shape(shapes: Sequence[np.ndarray], rounds: int = 5) -> np.ndarray:
    """The median of shapes (N, D) after alignment to it, scaled to a root mean square radius of 1 (Procrustes)."""
    mean = max(shapes, key=lambda s: np.isfinite(s).all(1).sum())
    for _ in range(rounds):
        mean = mean - np.nanmean(mean, axis=0)
        mean = mean / np.sqrt(np.nanmean((mean**2).sum(1)))
        mean = np.nanmedian([similarity_fit(shape, mean) for shape in shapes], axis=0)
    return mean


def residuals(shape: np.ndarray, mean: np.ndarray, mirror: bool = False) -> np.ndarray:
    """Distance of every landmark of an aligned shape from the mean shape, in units of its radius: (N,)."""
    return np.linalg.norm(similarity_fit(shape, mean, mirror) - mean, axis=1)


def read_case(list_name: str, item: Mapping[str, Any], names: Sequence[str], findings: list[Finding]) -> Case:
    """Read an image with its landmarks; what is wrong with them becomes a finding."""
    case = Case(list_name, item["image"], item.get("group"))
    load = Compose([
        LoadImaged("image", reader=LandmarkImageReader(), ensure_channel_first=True, image_only=True),
        LoadLandmarksd("label", names=names, outside="ignore"),
    ])  # fmt: skip
    try:
        data = load(dict(item))
    except Exception as error:
        findings.append(Finding("unreadable", case.image, str(input_error_in(error) or error)))
        return case
    image, label = data["image"], data["label"]
    case.digest = hashlib.sha256(np.ascontiguousarray(image.numpy())).hexdigest()
    case.size = tuple(image.shape[1:])
    case.world = label[0].numpy()
    case.points = world_to_voxel(label[0], image.affine).numpy()
    plane = image if image.ndim == 3 else image.max(dim=-1).values
    longest = max(plane.shape[1:])
    small = Resize([max(1, round(s * 240 / longest)) for s in plane.shape[1:]], mode="area")(plane)
    case.picture = np.asarray(small[0])
    thumbnail = np.asarray(Resize([THUMBNAIL, THUMBNAIL], mode="area")(plane)[0], dtype=np.float64)
    if thumbnail.std() > 0:
        case.thumbnail = ((thumbnail - thumbnail.mean()) / thumbnail.std()).ravel()
    else:
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
        odd = np.flatnonzero(np.nan_to_num(row) > limit)
        swaps = [pair for pair in combinations(odd, 2) if is_swap(case.world, mean, row, pair)]
        for i, j in swaps:
            found.append(Finding("swapped labels", case.image, f"{names[i]} and {names[j]} fit after an exchange"))
        rest = [i for i in odd if i not in {k for pair in swaps for k in pair}]
        if rest:
            text = ", ".join(
                f"{names[i]} ({row[i] / max(centre[i], 1e-9):.0f} times the usual deviation)" for i in rest
            )
            found.append(Finding("outlying shape", case.image, text))
    return found


def is_swap(shape: np.ndarray, mean: np.ndarray, row: np.ndarray, pair: tuple[int, int]) -> bool:
    """Whether two landmarks lie much closer to the mean shape once their labels are exchanged."""
    exchanged = shape.copy()
    exchanged[list(pair)] = exchanged[list(pair[::-1])]
    return bool((residuals(exchanged, mean)[list(pair)] < 0.5 * row[list(pair)]).all())


def check_leaks(cases: Sequence[Case]) -> list[Finding]:
    """The same film twice (equal pixels, or thumbnails that correlate over 0.9995), and patients in two lists."""
    found = []
    readable = [c for c in cases if c.thumbnail is not None]
    if readable:
        correlation = np.stack([c.thumbnail for c in readable]) @ np.stack([c.thumbnail for c in readable]).T
        correlation /= THUMBNAIL**2
        for i, j in np.argwhere(np.triu(correlation > 0.9995, 1)):
            a, b = readable[i], readable[j]
            if a.image != b.image:
                same = "equal pixels" if a.digest == b.digest else "look alike"
                where = f"{a.list_name} and {b.list_name}"
                found.append(Finding("duplicate film", a.image, f"and {b.image} ({where}): {same}"))
    lists: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        lists[f"image {case.image}"].add(case.list_name)
        if case.group is not None:
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
    figure.savefig(path, dpi=100)


def check(dataset_dir: str, sheet: str = "contact_sheet.png", exempt_lists: Sequence[str] = ("all",)) -> None:
    """Check a data set before training and print what a person should look at.

    Looks at every list of `datalist.json` for unreadable files, points off the image, landmarks on one place, swapped
    and mirrored labels, outlying shapes, duplicate films, and images or patients in two lists. Draws a contact sheet.

    Args:
        dataset_dir: folder with `datalist.json`.
        sheet: picture to write; a relative path lies in the current directory.
        exempt_lists: lists that repeat images of others on purpose.

    Raises:
        InputError: if something was found that must be mended: all but missing coordinates and outlying shapes.
    """
    info = datalist_info(dataset_dir)
    findings: list[Finding] = []
    cases = []
    names = list(info["landmarks"])
    lists = {n: load_datalist(dataset_dir, n, names) for n in info["lists"] if n not in exempt_lists}
    for name, items in lists.items():
        for item in tqdm(items, desc=f"reading {name}"):
            cases.append(read_case(name, item, names, findings))
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
    serious = [f for f in findings if f.kind not in ("without coordinate", "outlying shape", "constant image")]
    if serious:
        raise InputError(f"{dataset_dir}: {len(serious)} findings must be mended before training (listed above).")
    print("nothing that would ruin a training was found." if not findings else "look at the findings above.")
