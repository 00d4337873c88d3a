"""What a data set's files hold, read without the package under test."""

import csv
import json
import math

import nibabel
import numpy as np
from PIL import Image


class Film:
    """Films as PNG."""

    ending = ".png"
    dims = 2

    @staticmethod
    def size(path):
        """Pixels along each axis, x first."""
        with Image.open(path) as film:
            return np.array(film.size)

    @staticmethod
    def affine(path):
        """From the file's pixels to world RAS, (4, 4): as 3D Slicer shows PNG, one world unit a pixel."""
        return np.diag([-1.0, -1, 1, 1])

    @staticmethod
    def grey(path):
        """Grey values, x first, float32."""
        with Image.open(path) as film:
            return np.asarray(film).T.astype(np.float32)


class Volume:
    """Volumes as NIfTI."""

    ending = ".nii.gz"
    dims = 3

    @staticmethod
    def size(path):
        return np.array(nibabel.load(path).shape)

    @staticmethod
    def affine(path):
        return nibabel.load(path).affine

    @staticmethod
    def grey(path):
        return nibabel.load(path).get_fdata(dtype=np.float32)


FILM, VOLUME = Film(), Volume()


def content(folder):
    return json.loads((folder / "datalist.json").read_text())


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def columns(rows, prefix, dims):
    """Numbers (rows, D) of the columns prefix_x, prefix_y ..."""
    return np.array([[float(row[f"{prefix}_{axis}"]) for axis in "xyz"[:dims]] for row in rows])


def points_of(item, dims):
    """Landmarks of an item in file voxels, (N, D), NaN where they have no position."""
    return np.array([x if isinstance(x, list) else [math.nan] * dims for x in item["landmarks"]])


def moved(affine, points):
    """Points (N, D) through an affine (4, 4) or (D + 1, D + 1)."""
    dims = points.shape[1]
    return points @ affine[:dims, :dims].T + affine[:dims, -1]
