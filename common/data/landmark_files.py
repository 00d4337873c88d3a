"""Landmark files: 3D Slicer markups (`.mrk.json`, `.fcsv`) and CSV, told apart by their ending."""

import os
from pathlib import Path

from ..errors import InputError
from .landmark_points import LandmarkFile, inline_points, match_landmarks
from .landmark_tables import landmark_table, read_landmark_csv, write_landmark_table
from .markups_files import read_fcsv, read_markups, write_markups

__all__ = [
    "LANDMARK_READERS",
    "LandmarkFile",
    "inline_points",
    "landmark_table",
    "match_landmarks",
    "read_landmarks",
    "write_landmark_table",
    "write_markups",
]

LANDMARK_READERS = {".json": read_markups, ".fcsv": read_fcsv, ".csv": read_landmark_csv}


def read_landmarks(path: str | os.PathLike) -> LandmarkFile:
    """Read the landmarks of one image; 3D Slicer's LPS is turned to RAS.

    Raises:
        InputError: if the file is missing, of another kind, or what it holds is not sound.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise InputError(f"{path}: there is no such landmark file; check the path.")
    reader = LANDMARK_READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: is no landmark file; give a .mrk.json, .fcsv or .csv.")
    return reader(path)
