"""Importer of a folder of images with one CSV of all their landmarks."""

import csv
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InputError
from .atomic_writing import require_folder_name
from .datalist import tell, tell_lists, write_imported_datalist
from .image_listing import list_folder, list_images
from .landmark_points import ABSENT, coordinates, is_finite_number, names_of_all
from .splits import patients_of, random_lists

# Header names, in lower case, by what they mean, also those of the bundles' predictions. Where a table has both of a
# coordinate, the one that names its space counts.
COLUMNS = {"image": ("image",), "name": ("name", "landmark")}
PIXELS = {"x": ("pixel_x", "x"), "y": ("pixel_y", "y")}
SHOWN = 20  # images of a list that are printed


def read_points(
    path: Path, axes: Mapping[str, Sequence[str]] = PIXELS
) -> dict[str, dict[str, list[float] | str | None]]:
    """Landmarks by image and name from a CSV with the columns image, name, x, y (and z).

    Empty coordinates mean not annotated, `absent` absent. The `landmarks.csv` of a prediction has such columns too
    (`pixel_x`, `pixel_y`), so that corrected predictions can be imported.

    Args:
        axes: names that the column of each coordinate may have, in lower case.

    Raises:
        InputError: if a column is missing, a coordinate is no finite number, a landmark is there twice, or images of
            two folders have one name.
    """
    header, *rows = read_rows(path)
    columns = COLUMNS | dict(axes)
    names = [name.lower() for name in header]
    found = {key: next((names.index(n) for n in known if n in names), None) for key, known in columns.items()}
    if None in found.values() or len(set(names)) < len(names):
        wanted = ",".join(columns)
        raise InputError(f"{path}: its first line is {header}; it must name the columns {wanted}, each once.")
    table: dict[str, dict] = defaultdict(dict)
    folders: dict[str, Path] = {}
    for line, row in enumerate(rows, start=2):
        if any(row):
            if len(row) != len(header):
                raise InputError(
                    f"{path}: line {line} has {len(row)} columns where the header has {len(header)}; write decimals "
                    "with a point, and each row in full."
                )
            image, name, *texts = (row[column] for column in found.values())
            folder = Path(image).parent
            if folder != Path() and folders.setdefault(Path(image).name, folder) != folder:
                raise InputError(
                    f"{path}: line {line} has {image}, whose name another image in {folders[Path(image).name]} has "
                    "too; rename one."
                )
            if name in table[Path(image).name]:
                raise InputError(f"{path}: line {line} gives '{name}' of {image} a second time; remove one of them.")
            table[Path(image).name][name] = point(texts, f"{path}: line {line}")
    return table


def read_rows(path: Path) -> list[list[str]]:
    """Rows of a CSV with commas or semicolons, without spaces around their fields, at least one.

    Raises:
        InputError: if it is missing or no text in UTF-8.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            semicolons = ";" in (first := file.readline()) and "," not in first
            file.seek(0)
            reader = csv.reader(file, delimiter=";" if semicolons else ",", strict=True)
            rows = [[field.strip() for field in row] for row in reader]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({(error.strerror or '').lower()}); check the path.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no CSV in UTF-8 ({error}); save it as that.") from error
    return rows or [[]]


def stated_spaces(path: Path) -> set[str]:
    """What a table's column `space` says, in lower case; nothing where it has none.

    Raises:
        InputError: if there is no such table, or it is no text in UTF-8.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such table; check the path.")
    header, *rows = read_rows(path)
    columns = [column for column, name in enumerate(header) if name.lower() == "space"]
    return {row[column].lower() for row in rows for column in columns if column < len(row) and row[column]}


def point(texts: Sequence[str], place: str) -> list[float] | str | None:
    """An inline landmark of a datalist from the texts of its coordinates."""
    if ABSENT in texts and set(texts) <= {ABSENT, ""}:
        return ABSENT
    if not any(texts):
        return None
    values = coordinates(texts)
    if values is None:
        told = ", ".join(f"'{text}'" for text in texts)
        raise InputError(f"{place} has the coordinates {told}; give finite numbers, nothing, or '{ABSENT}'.")
    return values


def image_files(folder: str) -> dict[str, str]:
    """Paths of a folder's 2D images by their names, also where an import before wrote a `datalist.json` beside them.

    Raises:
        InputError: if there is no such folder, it holds no image, or the images of a datalist in other folders share
            a name, by which the table could not tell them apart.
    """
    own = list_folder(Path(folder).expanduser().absolute()) if os.path.isdir(folder) else []
    files: dict[str, str] = {}
    for item in own or list_images(folder):
        path = Path(item["image"])
        if path.name in files:
            raise InputError(
                f"{folder}: lists {files[path.name]} and {path}, which a table cannot tell apart; rename one."
            )
        files[path.name] = str(path)
    return files


def import_table(
    images: str,
    points: str,
    target: str,
    validation: float = 0.15,
    test: float = 0.15,
    spacing: float | None = None,
    name: str = "",
    groups: str | None = None,
    seed: int = 0,
) -> dict[str, int]:
    """Write `datalist.json` for a folder of 2D images and one CSV of all their landmarks.

    Images are divided at random into the lists training, validation and test; images without a row in the CSV are left
    out and named. The landmarks' order is that of their first appearance in the CSV.

    Args:
        images: folder of image files.
        points: CSV with the columns image, name, x, y (zero-based file pixels).
        target: folder of the new `datalist.json`; it points to the images where they are.
        validation: share of the images in the validation list if under 1, else their number.
        test: the same for the test list.
        spacing: size of a pixel in mm, where the files do not say it and it is the same for all.
        name: name of the data set.
        groups: regular expression that finds the patient in the name of a file, such as `"^(sub-\\d+)"`; the images of
            one patient go to one list.
        seed: of the division.

    Returns:
        number of images per list.

    Raises:
        InputError: if the table is malformed or states another space than that of file pixels, names no image of the
            folder or a landmark in two ways, a size of a list or of a pixel is none, or the target holds a datalist
            that no import wrote.
    """
    require_folder_name(target)
    if spacing is not None and not (is_finite_number(spacing) and spacing > 0):
        raise InputError(f"--spacing {spacing}: is no size of a pixel; give one positive number, the mm per pixel.")
    if others := stated_spaces(Path(points)) - {"voxel"}:
        raise InputError(
            f"{points}: its column space says {', '.join(sorted(others))}, where the coordinates of an image are its "
            "zero-based file pixels; give these, with voxel or nothing in that column."
        )
    table = read_points(Path(points))
    files = image_files(images)
    annotated = [file for file in files if file in table]
    if not annotated:
        raise InputError(
            f"{points}: names no image of {images}; the column image must hold file names such as {next(iter(files))}."
        )
    for what, missing in (
        ("are not in the CSV", set(files) - set(table)),
        ("are not in the folder", set(table) - set(files)),
    ):
        if missing:
            print(
                f"left out, since they {what}: {', '.join(sorted(missing)[:10])}{' ...' if len(missing) > 10 else ''}"
            )
    landmarks = names_of_all((f"{points}, {file}", list(table[file])) for file in annotated)
    lacking = {file: [name for name in landmarks if name not in table[file]] for file in annotated}
    told = [f"{file}: {', '.join(names)}" for file, names in lacking.items() if names]
    tell("images that lack landmarks, which are taken as not annotated", told, SHOWN)
    patients = patients_of(annotated, groups)
    chosen = random_lists(patients, validation, test, seed)
    patient_of = dict(zip(annotated, patients))

    def item(file: str) -> dict:
        entry = {
            "image": os.path.relpath(files[file], target),
            "landmarks": [table[file].get(landmark) for landmark in landmarks],
        }
        entry |= {} if groups is None else {"group": patient_of[file]}
        return entry | ({} if spacing is None else {"spacing": [spacing, spacing]})

    lists = {key: [item(annotated[i]) for i in indices] for key, indices in chosen.items()}
    title = name or Path(images).resolve().name
    write_imported_datalist(target, name=title, phantom=False, landmarks=landmarks, **lists)
    return tell_lists(target)
