"""Synthetic data sets, drawn on first use, so that every bundle runs on a fresh machine.

They show that a pipeline works; what a model scores on them says nothing about patients.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError
from .aortic_root import AORTIC_ROOT_LANDMARKS
from .cephalometric import CEPHALOMETRIC_LANDMARKS
from .hand import HAND_LANDMARKS
from .olfactory_bulbs import OLFACTORY_BULB_LANDMARKS
from .phantom_skull_shapes import FILM_MM
from .phantom_workers import draw_in_processes
from .spine import SPINE_LANDMARKS

logger = logging.getLogger("common.data")

BANNER = """
=====================================================================================================
 SYNTHETIC PHANTOMS, NOT PATIENTS: %s
 Drawn by a program to show that everything runs. Results on them say nothing about patients.
 For real results give the folder of your data set as dataset_dir.
====================================================================================================="""


@dataclass(frozen=True)
class Phantom:
    """How the phantom sets of an anatomy are made.

    Args:
        draw: module of this package and function `draw(rng, size) -> (image, points)` that draws one; for volumes
            `draw(rng, size, spacing)`.
        landmarks: names of the points.
        version: to be raised whenever the drawing changes, so that kept sets are made anew.
        sizes: for each size of set, (width, height) of its pictures and number of pictures in each list; for
            volumes (X, Y, Z), the number in each list, and millimetres per voxel.
        film_mm: width and height in millimetres of what a picture shows, where real films state it too.
        axes: of volumes, what the axes of the array point at, such as "LPS"; of pictures nothing.
        oblique: degrees by which half of the volumes are turned about each axis in the world (a standard deviation).
    """

    draw: tuple[str, str]
    landmarks: tuple[str, ...]
    version: int
    sizes: dict[str, tuple]
    film_mm: tuple[float, ...] | None = None
    axes: str = ""
    oblique: float = 0.0

    def spacing(self, size: str) -> list[float] | None:
        """Millimetres per pixel along each axis, or None where a film tells nothing of its size."""
        if self.film_mm is None:
            return None
        return [round(length / pixels, 9) for length, pixels in zip(self.film_mm, self.sizes[size][0])]

    def folder(self, anatomy: str, size: str) -> str:
        """Name of the set's folder: anatomy, size, and a hash of all that decides on its content."""
        settings = [self.draw, self.landmarks, self.version, self.sizes[size]]
        settings += [self.film_mm] * (self.film_mm is not None) + [self.axes, self.oblique] * bool(self.axes)
        settings = json.dumps(settings, sort_keys=True)
        return f"{anatomy}_{size}_{hashlib.sha256(settings.encode()).hexdigest()[:12]}"


ANATOMIES: dict[str, Phantom] = {
    "hand": Phantom(
        draw=("phantom_hand", "draw_hand"),
        landmarks=HAND_LANDMARKS,
        version=1,
        sizes={
            "default": ((640, 880), {"training": 200, "validation": 40, "test": 60}),
            "quick": ((400, 560), {"training": 80, "validation": 16, "test": 8}),
        },
    ),
    "skull": Phantom(
        draw=("phantom_skull", "draw_skull"),
        landmarks=CEPHALOMETRIC_LANDMARKS,
        version=2,
        sizes={
            "default": ((645, 800), {"training": 150, "validation": 30, "test": 50}),
            "quick": ((387, 480), {"training": 64, "validation": 8, "test": 8}),
        },
        film_mm=FILM_MM,  # 0.3 mm per pixel, quick 0.5
    ),
    "spine": Phantom(
        draw=("phantom_spine", "draw_spine"),
        landmarks=SPINE_LANDMARKS,
        version=1,
        sizes={
            "default": ((384, 1024), {"training": 160, "validation": 30, "test": 50}),
            "quick": ((192, 512), {"training": 64, "validation": 8, "test": 8}),
        },
    ),
    "aortic_root": Phantom(
        draw=("phantom_aortic_root", "draw_aortic_root"),
        landmarks=AORTIC_ROOT_LANDMARKS,
        version=1,
        sizes={
            "default": ((96, 96, 80), {"training": 60, "validation": 10, "test": 20}, (1.5, 1.5, 1.5)),
            "quick": ((64, 64, 56), {"training": 32, "validation": 4, "test": 6}, (2.0, 2.0, 2.0)),
            "clinical": ((512, 512, 250), {"test": 1}, (0.4, 0.4, 0.45)),
        },
        axes="LPS",
    ),
    "olfactory_bulbs": Phantom(
        draw=("phantom_olfactory", "draw_olfactory_bulbs"),
        landmarks=OLFACTORY_BULB_LANDMARKS,
        version=1,
        sizes={
            "default": ((256, 256, 28), {"training": 36, "validation": 6, "test": 20}, (0.46875, 0.46875, 1.0)),
            "quick": ((128, 128, 28), {"training": 16, "validation": 4, "test": 4}, (0.9375, 0.9375, 1.0)),
        },
        axes="LIP",
        oblique=4.0,
    ),
}

# Sets whose digests this process has checked, with the sizes of their files then.
_checked: dict[Path, dict[str, int]] = {}


def phantom_dataset(anatomy: str = "hand", size: str = "default") -> str:
    """Folder of a phantom data set with its `datalist.json`, which is made on first use and kept.

    It lies under `$MONAI_DATA_DIRECTORY/landmark_phantoms`, or `~/.cache/landmark_phantoms` where that
    variable is not set. Points are zero-based pixels (x, y) or voxels of the file.

    Args:
        anatomy: one of `ANATOMIES`.
        size: "default", or "quick" for few small pictures; "clinical" for one volume of full size.

    Raises:
        InputError: when anatomy or size is unknown, or the folder cannot be written.
    """
    if anatomy not in ANATOMIES:
        raise InputError(f"There is no phantom of {anatomy!r}: choose one of {', '.join(sorted(ANATOMIES))}.")
    phantom = ANATOMIES[anatomy]
    if size not in phantom.sizes:
        raise InputError(f"There is no {anatomy} phantom of size {size!r}: choose one of {', '.join(phantom.sizes)}.")
    root = Path(os.environ.get("MONAI_DATA_DIRECTORY") or "~/.cache").expanduser().absolute() / "landmark_phantoms"
    folder = root / phantom.folder(anatomy, size)
    try:
        if _damage(folder, phantom, size) is not None:
            root.mkdir(parents=True, exist_ok=True)
            with _alone(root / f".{folder.name}.lock") as alone:
                if alone:
                    for leftover in root.glob(f"{folder.name}.*.tmp"):  # of a process that was killed
                        shutil.rmtree(leftover, ignore_errors=True)
                _make(folder, phantom, anatomy, size)
    except OSError as error:
        raise InputError(
            f"The phantom data set cannot be kept in {root} ({error.strerror or error}): set the environment "
            "variable MONAI_DATA_DIRECTORY to a folder that is writable and has 300 MB of space."
        ) from error
    logger.warning(BANNER, folder)
    return str(folder)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Wait until no other process makes this set, and say whether that is certain."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=900)
    except (NotImplementedError, Timeout):
        # Harmless: each process writes to a folder of its own, and the first to finish gives it the name.
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _make(folder: Path, phantom: Phantom, anatomy: str, size: str) -> None:
    """Draw the set into a temporary sibling folder, and give that the name at the end."""
    damage = _damage(folder, phantom, size)
    if damage is None:  # another process was faster
        return
    temporary = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        _draw_all(temporary, phantom, anatomy, size)
        if folder.exists():
            logger.warning("The phantom data set %s is damaged (%s) and is made anew.", folder, damage)
            broken = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.broken.tmp")
            folder.rename(broken)
            shutil.rmtree(broken, ignore_errors=True)
        try:
            temporary.rename(folder)
        except OSError:
            if _damage(folder, phantom, size) is not None:
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _draw_all(folder: Path, phantom: Phantom, anatomy: str, size: str) -> None:
    image_size, counts, *spacing = phantom.sizes[size]
    (folder / "images").mkdir(parents=True)
    ending = ".nii.gz" if phantom.axes else ".png"
    # The seed of a picture depends on its list and number alone, not on how the work is shared.
    jobs = [
        {"file": f"images/{section}_{number:03d}{ending}", "seed": [phantom.version, stream, number]}
        for stream, (section, count) in enumerate(counts.items())
        for number in range(count)
    ]
    settings = {"folder": str(folder), "draw": phantom.draw, "size": image_size}
    if phantom.axes:
        settings["volume"] = {"spacing": spacing[0], "axes": phantom.axes, "oblique": phantom.oblique}
    points = draw_in_processes(settings, jobs, f"Drawing {len(jobs)} synthetic {anatomy} phantoms")
    datalist = {
        "name": f"synthetic {anatomy} phantoms ({size}, version {phantom.version})",
        "phantom": True,
        "landmarks": list(phantom.landmarks),
    }
    for section in counts:
        files = [job["file"] for job in jobs if job["file"].startswith(f"images/{section}_")]
        datalist[section] = [{"image": file, "landmarks": points[file]} for file in files]
        if (spacing := phantom.spacing(size)) is not None:
            for item in datalist[section]:
                item["spacing"] = spacing
    text = json.dumps(datalist).replace('{"image"', '\n  {"image"')  # a line for each picture
    (folder / "datalist.json").write_text(text, encoding="utf-8")
    listing = [f"{_digest(folder / file)}  {file}\n" for file in ["datalist.json", *points]]
    (folder / "sha256").write_text("".join(listing), encoding="utf-8")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _damage(folder: Path, phantom: Phantom, size: str) -> str | None:
    """What is wrong with a stored set, or None; digests are compared once in a process, sizes always."""
    try:
        known = _checked.get(folder)
        if known is not None:
            changed = [file for file, length in known.items() if (folder / file).stat().st_size != length]
            if not changed:
                return None
            del _checked[folder]
            return f"{changed[0]} has changed"
        listing = dict(
            reversed(line.split("  ", 1)) for line in (folder / "sha256").read_text(encoding="utf-8").splitlines()
        )
        if "datalist.json" not in listing or len(listing) != 1 + sum(phantom.sizes[size][1].values()):
            return "its sha256 listing is incomplete"
        for file, digest in listing.items():
            if _digest(folder / file) != digest:
                return f"{file} has changed"
        _checked[folder] = {file: (folder / file).stat().st_size for file in [*listing, "sha256"]}
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except ValueError:
        return "its sha256 listing is unreadable"
    return None
