"""Draw the pictures of docs/slicer.md: `python -m docs.draw_slicer_pictures`, from the root of the repository.

The points are those of synthetic phantoms, written as a prediction is written, and read back from these files.
"""

import importlib
import tempfile
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import torch
from monai.transforms import LoadImage
from PIL import Image

from common.clinical import CephalometricMarkups, CobbAngleMarkups
from common.data import LandmarkImageReader, PredictionDataset, read_landmarks
from common.data.phantoms import ANATOMIES
from common.handlers import SaveLandmarks
from common.transforms.coordinates import voxel_to_world
from common.visualize import draw_markups, draw_volume_overlay

PICTURES = Path(__file__).parent / "pictures"
TURN = np.array([[0.8, -0.48, 0.36], [0.6, 0.64, -0.48], [0.0, 0.6, 0.8]])


def written(image, points, names, folder, measurements=None):
    """Paths of the points and of the lines and angles, as `SaveLandmarks` writes them for points in file voxels."""
    world = voxel_to_world(torch.tensor(points, dtype=torch.float64), torch.as_tensor(image.meta["original_affine"]))
    data = PredictionDataset([{"image": image.meta["filename_or_obj"]}])
    handler = SaveLandmarks(folder, names, data, overlays=False, measurements=measurements)
    handler.start(None)
    item = {"image": image, "pred": world[None], "confidence": torch.ones(len(names))}
    handler.save(SimpleNamespace(state=SimpleNamespace(output=[item])))
    (points_file,) = Path(folder).glob("*.mrk.json")
    return points_file, Path(folder) / "measurements" / points_file.name


def load(path):
    return LoadImage(reader=LandmarkImageReader(), ensure_channel_first=True)(str(path))


def phantom(anatomy, seed, *size):
    """Grey values, points in voxels, and names of one phantom."""
    module, function = ANATOMIES[anatomy].draw
    draw = getattr(importlib.import_module(f"common.data.{module}"), function)
    grey, points = draw(np.random.default_rng(seed), *size)
    return np.asarray(grey), np.asarray(points), list(ANATOMIES[anatomy].landmarks)


def film(anatomy, measurements, seed, size, name, height):
    """Points on the left, lines and angles on the right."""
    grey, points, names = phantom(anatomy, seed, size)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "film.png"
        Image.fromarray(np.ascontiguousarray(grey.T)).save(path)
        files = written(load(path), points, names, Path(scratch) / "out", measurements)
        pair = [draw_markups(path, [file], height, anatomy != "spine") for file in files]
    both = Image.new("RGB", (sum(p.width for p in pair) + 8, pair[0].height), "white")
    both.paste(pair[0], (0, 0))
    both.paste(pair[1], (pair[0].width + 8, 0))
    both.save(PICTURES / name, quality=80, optimize=True)


def volume(name):
    """An oblique volume: the planes through two of its points, in the patient's directions."""
    spacing = (1.5, 1.5, 1.5)
    grey, points, names = phantom("aortic_root", 0, (96, 96, 80), spacing)
    affine = np.eye(4)
    affine[:3, :3] = TURN @ np.diag([-1.5, -1.5, 1.5])
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "oblique.nii.gz"
        nibabel.save(nibabel.Nifti1Image(grey, affine), path)
        file, _ = written(load(path), points, names, Path(scratch) / "out")
        picture = draw_volume_overlay(load(path), read_landmarks(file).points, None, names, "", landmarks=[3, 6])
    picture.save(PICTURES / name, quality=80, optimize=True)


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    film("skull", CephalometricMarkups(), 0, (645, 800), "slicer_head.jpg", 800)
    film("spine", CobbAngleMarkups(), 3, (384, 1024), "slicer_spine.jpg", 1024)
    volume("slicer_volume.jpg")
