"""Draws pictures in parallel processes that never import the caller's main module.

`multiprocessing` would: its "spawn" runs the main module again, which an unguarded script does not survive,
and its "fork" copies the locks of torch's threads. So each worker is a plain Python process that reads its
share from standard input and prints a line of JSON for each picture.
"""

import importlib
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .phantom_volume import volume_affine, write_volume

# The package may have any name: a packaged bundle carries it as `scripts`.
_PACKAGE = __package__
_ROOT = str(Path(__file__).resolve().parents[len(_PACKAGE.split("."))])
# An empty package stands in for this one, whose own __init__ imports torch: drawing needs numpy only.
_WORKER = f"""
import sys, types
sys.path.insert(0, {_ROOT!r})
sys.modules[{_PACKAGE!r}] = types.ModuleType({_PACKAGE!r})
sys.modules[{_PACKAGE!r}].__path__ = [{str(Path(__file__).resolve().parent)!r}]
from {_PACKAGE}.phantom_workers import work
work()
"""


def draw_in_processes(settings: dict, jobs: list[dict], title: str) -> dict[str, list]:
    """Draw all jobs, and return the points of each file in the order of the jobs.

    What the processes did not do, because none could be started or one was killed, is drawn in this one.

    Args:
        settings: arguments of `draw_one` that all jobs share.
        jobs: each job's own arguments: `file` and `seed`.
        title: words before the progress bar.
    """
    count = worker_count(len(jobs))
    points: dict[str, list] = {}
    processes: list[subprocess.Popen] = []
    with tqdm(total=len(jobs), desc=title, unit="image") as bar:
        lock = threading.Lock()

        def done(file: str, its_points: list) -> None:
            with lock:
                points[file] = its_points
                bar.update()

        try:
            if count > 1 and sys.executable:
                with ThreadPoolExecutor(count) as pool:
                    try:
                        shares = [jobs[first::count] for first in range(count)]
                        list(pool.map(lambda share: _attend(settings, share, done, processes), shares))
                    except BaseException:
                        _stop(processes)
                        raise
            for job in jobs:
                if job["file"] not in points:
                    done(job["file"], draw_one(**settings, **job))
        finally:
            _stop(processes)
    return {job["file"]: points[job["file"]] for job in jobs}


def _attend(settings: dict, share: list[dict], done, processes: list) -> None:
    """Run one worker and report its pictures; whatever stops it is left to the caller."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        processes.append(process)
        with process:
            process.stdin.write(json.dumps([settings, share]))
            process.stdin.close()
            for line in process.stdout:
                done(*json.loads(line))
    except (OSError, ValueError):
        return


def _stop(processes: list) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()


def worker_count(pictures: int) -> int:
    """One worker for each core that this process may use; few pictures are not worth their start."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, pictures // 8))


def draw_one(
    folder: str, draw: tuple[str, str], size: list[int], file: str, seed: list[int], volume: dict | None = None
) -> list[list[float]]:
    """Draw the picture or volume `file`, save it, and return its points (N, D), rounded to 3 decimals.

    Pictures become 8 bit PNG, volumes 16 bit NIfTI.

    Args:
        folder: of the data set.
        draw: a module of this package and its function `draw(rng, size)`, which gives image (W, H) and points; for
            volumes `draw(rng, size, spacing)`, which gives (X, Y, Z) and points.
        size: of the image in pixels or voxels.
        file: path in the folder.
        seed: of all that is random.
        volume: for volumes, `spacing`, `axes` and `oblique` as `phantom_volume.volume_affine` takes them.
    """
    function = getattr(importlib.import_module(f".{draw[0]}", __package__), draw[1])
    rng = np.random.default_rng(seed)
    if volume is None:
        image, points = function(rng, tuple(size))
        Image.fromarray(np.ascontiguousarray(image.T)).save(Path(folder) / file, compress_level=4)
    else:
        image, points = function(rng, tuple(size), tuple(volume["spacing"]))
        write_volume(Path(folder) / file, image, volume_affine(rng, size, **volume))
    return np.round(points, 3).tolist()


def work() -> None:
    """A worker's life: read its share, draw, print."""
    settings, share = json.loads(sys.stdin.read())
    for job in share:
        print(json.dumps([job["file"], draw_one(**settings, **job)]), flush=True)
