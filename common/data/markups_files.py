"""3D Slicer's landmark files: `.mrk.json`, read and written, and the older `.fcsv`, read."""

import csv
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .atomic_writing import write_atomically
from .landmark_points import LandmarkFile, check_unique, coordinates, is_finite_number

SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
# Signs that turn a file's coordinates to RAS. The numbers are 3D Slicer's codes.
TO_RAS = {"RAS": (1.0, 1.0, 1.0), "0": (1.0, 1.0, 1.0), "LPS": (-1.0, -1.0, 1.0), "1": (-1.0, -1.0, 1.0)}
CONTROL_POINTS = {"Line": 2, "Angle": 3}  # of types with a fixed number
NOT_PLACED = (None, "", [])  # what different versions write where a position is not defined
FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
FCSV_WITHOUT_POSITION = {"0": np.full(3, np.nan), "1": np.full(3, np.nan), "3": np.full(3, np.inf)}
SLICER3_COLUMNS = "label,x,y,z,sel,vis"


def read_markups(path: str | os.PathLike) -> LandmarkFile:
    """Control points of all lists of points in a `.mrk.json`, or, where it has none, of all markups, in world RAS.

    Lines and angles beside lists of points are measurements, whose points are no landmarks of their own.
    `positionStatus` undefined or preview, or no position, is a row of NaN; missing is a row of +inf.

    Raises:
        InputError: if the file is not such JSON, holds no point, names one twice, has several lists of points without
            names, or a position is not finite.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        markups = content["markups"]
        lists = [markup for markup in markups if markup.get("type") == "Fiducial" and markup.get("controlPoints")]
        markups = lists or markups
        groups = [(markup, markup.get("controlPoints") or []) for markup in markups]
        rows = [(str(point.get("label") or ""), _position(point, m, path)) for m, points in groups for point in points]
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(f"{path}: is no readable 3D Slicer markups file; save it from 3D Slicer again.") from e
    if not rows:
        raise InputError(f"{path}: holds no control points; place the landmarks and save it again.")
    names = tuple(name for name, _ in rows)
    check_unique(names, str(path))
    if "" in names and sum(bool(points) for _, points in groups) > 1:
        raise InputError(
            f"{path}: has points without names in several lists, of which the order is in doubt; name them."
        )
    return LandmarkFile(names, np.array([point for _, point in rows], dtype=np.float64), "RAS")


def _position(point: dict[str, Any], markup: dict[str, Any], path: str | os.PathLike) -> np.ndarray:
    """World RAS (3,) of a control point."""
    signs = TO_RAS.get(str(markup.get("coordinateSystem", "LPS")))  # the schema's default
    units = markup.get("coordinateUnits", "mm")
    if signs is None or (units[0] if isinstance(units, list) else units) != "mm":
        raise InputError(
            f"{path}: is in {markup.get('coordinateSystem', 'LPS')} and {units}; save it as LPS or RAS in mm."
        )
    status, position = point.get("positionStatus", "defined"), point.get("position")
    if status not in ("undefined", "preview", "defined", "missing"):
        raise InputError(f"{path}: '{point.get('label')}' has the positionStatus {status!r}; correct it.")
    if status == "missing":
        return np.full(3, np.inf)
    if status != "defined" or position in NOT_PLACED:
        return np.full(3, np.nan)
    if not (isinstance(position, list) and len(position) == 3 and all(map(is_finite_number, position))):
        raise InputError(f"{path}: '{point.get('label')}' has the position {position}; give three finite numbers.")
    return np.array(signs) * position


def write_markups(
    path: str | os.PathLike,
    points: np.ndarray,
    names: Sequence[str],
    confidence: Sequence[float] | None = None,
    display: dict[str, Any] | None = None,
    name: str = "",
) -> None:
    """Write landmarks as one list of points to a `.mrk.json` of 3D Slicer (markups schema 1.0.3), atomically.

    Args:
        points: (N, 3) world RAS in mm; a row of NaN is written as undefined, of +inf as missing, both without
            a position.
        names: label of each of the N points.
        confidence: N numbers, written into the descriptions.
        display: 3D Slicer's display properties, such as `{"textScale": 2.0}`.
        name: what 3D Slicer calls the list; empty for the name of the file.

    Raises:
        InputError: if a name is there twice or the numbers of points, names and confidences differ.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.shape != (len(names), 3) or (confidence is not None and len(confidence) != len(names)):
        raise InputError(f"{path}: {len(names)} names do not fit points of shape {points.shape} and their confidences.")
    check_unique(names, str(path))
    told = None
    if confidence is not None:
        told = [f"confidence {float(value):.3f}" if np.isfinite(value) else "" for value in confidence]
    write_markup_nodes(path, [markup_node("Fiducial", points, names, told, name=name, display=display)])


def found_points(points: np.ndarray) -> np.ndarray:
    """Predicted points (N, 3) as they are written for people: a landmark that was not found (+inf) is undefined (NaN).

    3D Slicer's "missing" would be read back as "absent from the image", which only a person can say.
    """
    points = np.asarray(points, dtype=np.float64)
    return np.where(np.isfinite(points), points, np.nan)


def markup_node(
    kind: str,
    points: np.ndarray,
    labels: Sequence[str],
    descriptions: Sequence[str] | None = None,
    name: str = "",
    measurements: Sequence[Mapping[str, Any]] = (),
    display: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One node of a `.mrk.json`.

    Args:
        kind: "Fiducial" of any number of points, "Line" of two, "Angle" of three, its vertex the second.
        points: (N, 3) world RAS in mm; a row of NaN is undefined, of +inf missing, both without a position.
        labels: of the points.
        descriptions: of the points.
        name: what 3D Slicer calls the node; empty for the name of the file.
        measurements: values that the file tells beside those that 3D Slicer measures itself, as
            `{"name": "ANB", "value": -1.2, "units": "deg", "description": "class 3"}`.
        display: 3D Slicer's display properties.

    Raises:
        InputError: if the points are not (N, 3) with a label each, or too many or too few for the kind.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.shape != (len(labels), 3) or len(labels) != CONTROL_POINTS.get(kind, len(labels)):
        raise InputError(f"'{name}': points of shape {points.shape} with {len(labels)} labels make no markup '{kind}'.")
    controls = []
    for number, (label, point) in enumerate(zip(labels, points)):
        finite = bool(np.isfinite(point).all())
        control = {
            "id": str(number + 1),
            "label": label,
            "description": descriptions[number] if descriptions is not None else "",
            "associatedNodeID": "",
            # RAS to LPS; adding 0 makes no "-0.0"
            "position": (point * (-1.0, -1.0, 1.0) + 0.0).tolist() if finite else None,
            "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined" if finite else "missing" if np.isposinf(point).all() else "undefined",
        }
        if not finite:
            del control["position"]
        controls.append(control)
    node = {
        "type": kind,
        "name": name,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(labels),
        "controlPoints": controls,
    }
    if not name:
        del node["name"]
    if measurements:
        node["measurements"] = [{"enabled": True, **measurement} for measurement in measurements]
    if display:
        node["display"] = dict(display)
    return node


def write_markup_nodes(path: str | os.PathLike, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Write nodes of `markup_node` to one `.mrk.json` of 3D Slicer (markups schema 1.0.3), atomically."""
    write_atomically(path, json.dumps({"@schema": SCHEMA, "markups": list(nodes)}, indent=2, allow_nan=False) + "\n")


def read_fcsv(path: str | os.PathLike) -> LandmarkFile:
    """Points of an `.fcsv` of 3D Slicer 3, 4 or 5, in world RAS.

    Raises:
        InputError: if there is no coordinate system or no point, or a line is not a name and three finite
            numbers.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text; save it from 3D Slicer again.") from error
    header = "\n".join(line for line in lines if line.startswith("#"))
    systems = re.findall(r"^#\s*CoordinateSystem\s*=\s*(\w+)\s*$", header, re.MULTILINE)
    signs = {TO_RAS.get(system.upper()) for system in systems}
    if len(signs) > 1:
        raise InputError(f"{path}: states the CoordinateSystems {' and '.join(systems)}; keep the right one.")
    if signs in (set(), {None}):
        raise InputError(
            f"{path}: states no CoordinateSystem of LPS or RAS; add '# CoordinateSystem = LPS' or RAS as first line."
        )
    version = re.search(r"^#\s*Markups fiducial file version", header, re.MULTILINE)
    columns = re.search(r"^#\s*columns\s*=\s*(.+)$", header, re.MULTILINE)
    keys = [key.strip() for key in (columns[1] if columns else FCSV_COLUMNS if version else SLICER3_COLUMNS).split(",")]
    try:
        rows = list(csv.reader((line for line in lines if line.strip() and not line.startswith("#")), strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: is no table of points ({error}); save it from 3D Slicer again.") from error
    signs = np.array(signs.pop())
    names, points = [], []
    for fields in rows:
        row = dict(zip(keys, fields))
        point = coordinates([row.get(axis, "") for axis in "xyz"])
        if point is None:
            raise InputError(f"{path}: the line '{','.join(fields)}' gives no three finite coordinates; correct it.")
        names.append(row.get("label") or "")
        # 3D Slicer 5 adds the position status as a 15th column that its header does not name.
        status = fields[len(keys)] if ",".join(keys) == FCSV_COLUMNS and len(fields) > len(keys) else ""
        points.append(FCSV_WITHOUT_POSITION.get(status, signs * point))
    if not points:
        raise InputError(f"{path}: holds no points; place the landmarks and save it again.")
    check_unique(names, str(path))
    return LandmarkFile(tuple(names), np.array(points), "RAS")
