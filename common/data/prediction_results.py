"""The output folder of a prediction: what of it is done, and the tables at the end."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .atomic_writing import replaced_atomically, require_writable, write_atomically
from .image_soundness import printable
from .landmark_tables import write_landmark_table

LONGEST_STEM = 220  # bytes; a file system takes names of 255, with all endings
DETACHED_PIXELS = {".mhd": (".raw", ".zraw"), ".nhdr": (".raw", ".raw.gz")}


def unique_stem(filename: str, taken: dict[str, int]) -> str:
    """A name for the results of a file that no other file of a run has; a very long one is cut.

    Args:
        filename: path of the file.
        taken: names that others have, each with the number by which a search for another goes on; the new one is added.
    """
    name = Path(filename).name
    short = name[: -len(".nii.gz")] if name.endswith(".nii.gz") else Path(name).stem
    short, name = (os.fsdecode(os.fsencode(text)[:LONGEST_STEM]) for text in (short, name))
    short, name = (text.encode(errors="ignore").decode() or "image" for text in (short, name))  # no part of a letter
    stem = short if short not in taken else name
    while stem in taken:
        stem = f"{name}_{taken[name]}"
        taken[name] += 1
    taken[stem] = 2
    return stem


def image_path(item: Mapping[str, Any]) -> str:
    """The image of a data dictionary, as MONAI's `LoadImage` writes it into the meta."""
    return str(Path(item["image"]).expanduser())


def image_source(item: Mapping[str, Any]) -> dict[str, Any]:
    """What tells whether an image is still the one that was predicted.

    The item of the list, the bytes of its file, and when that was changed last (ns); of a folder with the slices of a
    volume all its files count, of a header with its pixels in another file both.
    """
    path = Path(image_path(item))
    files = path.iterdir() if os.path.isdir(path) and os.access(path, os.R_OK) else [path]
    files = [*files, *map(path.with_suffix, DETACHED_PIXELS.get(path.suffix.lower(), ()))]
    found = [file.stat() for file in files if os.path.isfile(file)]
    told = {key: value if isinstance(value, (str, int, float, list)) else str(value) for key, value in item.items()}
    size, changed = sum(each.st_size for each in found), max((each.st_mtime_ns for each in found), default=0)
    return {**told, "image": str(path), "bytes": size, "changed": changed}


@dataclass(frozen=True)
class PlannedImage:
    """An image of a run.

    Args:
        item: data dictionary.
        stem: what the names of its results begin with.
        source: `image_source` of the image before it is read.
        done: whether its results are there from an earlier run.
    """

    item: dict[str, Any]
    stem: str
    source: dict[str, Any]
    done: bool

    @property
    def path(self) -> str:
        return self.source["image"]


class PredictionResults:
    """Results of a prediction in a folder, written image by image, so that a stopped run goes on.

    `records/<stem>.json` is there, and says nothing yet, before anything else of an image is written, so that no file
    without one is ever replaced or removed. `<stem>.mrk.json`, `overlays/<stem>.png` and, where there are lines and
    angles, `measurements/<stem>.mrk.json` follow, and last the record again, which says that the image is done: its
    path, bytes and time of change, the digest of weights and settings, and its rows of the table. Each file is there
    wholly or not at all, and an image that lacks one is predicted again. `landmarks.csv` and `failures.csv` come at the
    end of a run and speak of its images alone.

    Args:
        folder: output folder.
        digest: of weights and settings.
        overlays: whether an image has a picture among its results.
    """

    def __init__(self, folder: str | os.PathLike, digest: str, overlays: bool = True) -> None:
        self.folder = Path(folder)
        self.digest = digest
        self.overlays = overlays
        self.records = self.folder / "records"
        self.table = self.folder / "landmarks.csv"
        self.failures = self.folder / "failures.csv"
        self.unlikely = self.folder / "unlikely.csv"

    def markups(self, stem: str) -> Path:
        return self.folder / f"{stem}.mrk.json"

    def overlay(self, stem: str) -> Path:
        return self.folder / "overlays" / f"{stem}.png"

    def measurements(self, stem: str) -> Path:
        return self.folder / "measurements" / f"{stem}.mrk.json"

    def record(self, stem: str) -> Path:
        return self.records / f"{stem}.json"

    def plan(self, data: Iterable[Mapping[str, Any]], resume: bool = True) -> list[PlannedImage]:
        """Prepare the folder for a run, and say which of its images are done already.

        Tables of an earlier run go, and what is there of images that are not done.

        Args:
            data: data dictionaries with an "image" path.
            resume: whether images with finished results are done.

        Raises:
            InputError: if the folder cannot be written, or holds results of these images by other weights or settings,
                results of other images of the same names, or files of the names of results that no prediction wrote,
                such as annotations.
        """
        require_writable(self.folder)
        stems: dict[str, int] = {}
        plan, foreign, others = [], 0, {}
        for item in data:
            source, stem = image_source(item), unique_stem(item["image"], stems)
            record = self.read(stem) if resume else {}
            done = record.get("source") == source and self.is_complete(stem, record)
            foreign += done and record["digest"] != self.digest
            if (owner := record.get("source", source)["image"]) != source["image"]:
                others[owner] = self.markups(stem)
            plan.append(PlannedImage(dict(item), stem, source, done))
        for image in plan:  # what other images of one name leave to each other in a folder is done again
            others.pop(image.source["image"], None)
        if others:
            owner, file = next(iter(others.items()))
            raise InputError(
                f"{file}: is the result of {printable(owner)}, another image of this name; give another --output_dir, "
                "or predict in its place with --resume False."
            )
        if foreign:
            raise InputError(
                f"{self.folder}: holds results of {foreign} of these {len(plan)} images by other weights, landmarks or "
                "settings; give another --output_dir, or predict all images anew with --resume False."
            )
        tables = (self.table, self.failures, self.unlikely)
        unknown = [] if self.records.is_dir() else [path for path in tables if path.exists()]
        recorded = {image.stem for image in plan if self.record(image.stem).exists()}
        unknown += [path for image in plan if image.stem not in recorded for path in self.files(image.stem)]
        if unknown:
            others = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise InputError(
                f"{self.folder}: holds {unknown[0].relative_to(self.folder)}{others} that no prediction wrote and this "
                "one would replace; give another --output_dir."
            )
        if plan:
            self.records.mkdir(exist_ok=True)
        for path in tables:
            path.unlink(missing_ok=True)
        for image in plan:
            if not image.done and image.stem in recorded:
                self.discard(image.stem)
        return plan

    def files(self, stem: str) -> list[Path]:
        """What is there of an image beside its record."""
        paths = (self.markups(stem), self.overlay(stem), self.measurements(stem))
        return [path for path in paths if os.path.lexists(path)]

    def begin(self, stem: str) -> None:
        """Write down that files of an image are this tool's, before the first of them is written."""
        write_atomically(self.record(stem), "{}")

    def discard(self, stem: str) -> None:
        """Remove what is there of an image, its record last."""
        for path in (*self.files(stem), self.record(stem)):
            path.unlink(missing_ok=True)

    def is_complete(self, stem: str, record: Mapping[str, Any]) -> bool:
        wanted = [self.markups(stem)]
        wanted += [self.overlay(stem)] if self.overlays else []
        wanted += [self.measurements(stem)] if record.get("measured") else []
        return all(path.is_file() for path in wanted)

    def read(self, stem: str) -> dict[str, Any]:
        """The record of an image, empty where there is none."""
        try:
            return json.loads(self.record(stem).read_bytes())
        except (OSError, ValueError):
            return {}

    def finish(
        self, image: PlannedImage, columns: Sequence[str], rows: Sequence[Sequence[str]], unlikely: str = ""
    ) -> None:
        """Write down that an image is done, after its other results, and why its landmarks are unlikely if they are."""
        record = {"source": image.source, "digest": self.digest, "columns": list(columns), "rows": list(rows)}
        record |= {"unlikely": unlikely, "measured": self.measurements(image.stem).is_file()}
        write_atomically(self.record(image.stem), json.dumps(record))

    def write_tables(self, plan: Sequence[PlannedImage], failures: Mapping[str, str]) -> tuple[int, int]:
        """Write `landmarks.csv` of the images that are done, in their order.

        Beside it come, where there are any, `failures.csv` with images that have no prediction and `unlikely.csv` with
        those whose landmarks are unlikely to be of this anatomy, both with the reasons.

        Args:
            plan: all images of the run.
            failures: reasons by path.

        Returns:
            number of images in the table, and of the unlikely among them.
        """
        unlikely: dict[str, str] = {}
        count = write_landmark_table(self.table, self._tables(plan, unlikely))
        for file, reasons in ((self.failures, failures), (self.unlikely, unlikely)):
            if reasons:
                _write_reasons(file, plan, reasons)
        return count, len(unlikely)

    def _tables(
        self, plan: Iterable[PlannedImage], unlikely: dict[str, str]
    ) -> Iterator[tuple[list[str], list[list[str]]]]:
        """Rows of the images that are done; reasons why their landmarks are unlikely are noted on the way."""
        for image in plan:
            record = self.read(image.stem)
            if record.get("digest") == self.digest and record["source"] == image.source:
                if record.get("unlikely"):
                    unlikely[image.path] = record["unlikely"]
                yield record["columns"], record["rows"]


def _write_reasons(path: Path, plan: Iterable[PlannedImage], reasons: Mapping[str, str]) -> None:
    with replaced_atomically(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", "reason"])
        table.writerows((printable(image.path), reasons[image.path]) for image in plan if image.path in reasons)
