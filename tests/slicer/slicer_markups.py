"""What 3D Slicer makes of a `.mrk.json`: its schema and the steps of its loader, without the package under test.

`python -m tests.slicer.slicer_markups FILE ...` tells the nodes of each file, or why Slicer would refuse it.

The steps are those of Slicer 5 (vtkMRMLMarkupsJsonStorageNode): the `@schema` must be of version 1, every entry of
`markups` becomes a node of the class of its type, a `name` is the node's name, coordinates in LPS become RAS, a point
whose status says `defined` needs a position, and the axes of points turn with the coordinates. Lines and angles have a
number of points without which they draw and measure nothing.
"""

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import jsonschema
import numpy as np

SCHEMA = json.loads(Path(__file__).with_name("markups_schema.json").read_text())
ACCEPTED = re.compile(r".*markups-schema-v1\.[0-9]+\.[0-9]+\.json#*$")
POINTS = {"Line": 2, "Angle": 3}
TO_RAS = {"LPS": np.array([-1.0, -1.0, 1.0]), "RAS": np.ones(3)}


class Refused(ValueError):
    """A file that Slicer would not load, or not as it was meant."""


@dataclass
class Node:
    """A markups node in Slicer's scene: points (N, 3) in RAS, NaN where there is none, and their axes (N, 3, 3)."""

    kind: str
    name: str
    labels: list
    points: np.ndarray
    axes: np.ndarray
    statuses: list
    values: dict = field(default_factory=dict)

    def measured(self):
        """What Slicer itself measures: the length of a line in mm, an angle in degrees."""
        if self.kind == "Line":
            return float(np.linalg.norm(self.points[1] - self.points[0]))
        first, second = self.points[0] - self.points[1], self.points[2] - self.points[1]
        return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(first, second)), first @ second)))


def load_markups(path):
    """Nodes of a file, in order.

    Raises:
        Refused: if Slicer would not load it.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        jsonschema.validate(content, SCHEMA)
    except (ValueError, jsonschema.ValidationError) as error:
        raise Refused(f"{path}: {getattr(error, 'message', error)}") from error
    if not ACCEPTED.match(content["@schema"].lower()):
        raise Refused(f"{path}: its @schema is {content['@schema']}")
    if not content["markups"]:
        raise Refused(f"{path}: holds no markups")
    return [_node(markup, path) for markup in content["markups"]]


def _node(markup, path):
    signs = TO_RAS[markup.get("coordinateSystem", "LPS")]
    units = markup.get("coordinateUnits", "mm")
    if isinstance(units, list) and units[1] != "UCUM":
        raise Refused(f"{path}: its units are not of UCUM")
    points, axes, statuses = [], [], []
    for control in markup.get("controlPoints", []):
        status = control.get("positionStatus", "defined")
        if status == "defined" and "position" not in control:
            raise Refused(f"{path}: '{control.get('label')}' is defined, but has no position")
        points.append(np.array(control["position"]) * signs if "position" in control else np.full(3, np.nan))
        axes.append(np.array(control.get("orientation", np.eye(3).ravel() * signs.repeat(3))).reshape(3, 3))
        axes[-1] = signs[:, None] * axes[-1]
        statuses.append(status)
    kind, name = markup["type"], markup.get("name", Path(path).name.split(".")[0])
    if len(points) != POINTS.get(kind, len(points)):
        raise Refused(f"{path}: '{name}', a {kind}, has {len(points)} points")
    values = {value["name"]: value.get("value") for value in markup.get("measurements", [])}
    labels = [control.get("label", "") for control in markup.get("controlPoints", [])]
    return Node(kind, name, labels, np.array(points).reshape(-1, 3), np.array(axes), statuses, values)


def main(paths):
    refused = 0
    if not paths:
        print("usage: python -m tests.slicer.slicer_markups FILE.mrk.json ...")
    for path in paths:
        try:
            nodes = load_markups(path)
        except (OSError, Refused) as error:
            refused += 1
            print(f"refused: {error}")
            continue
        for node in nodes:
            shown = f"{node.measured():.2f}" if node.kind in POINTS else f"{len(node.labels)} points"
            print(f"{path}: {node.kind} '{node.name}', {shown}")
    return 1 if refused or not paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
