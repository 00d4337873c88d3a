"""Memory and time of a prediction of thousands of mixed files.

    python -m benchmarks.batch_prediction [--images 10000] [--bundle scn_hand] [--overlays] [--threads 1] [--keep DIR]

Draws small films in turn as PNG, JPEG, TIFF, BMP, DICOM, NIfTI, NRRD and MHA, and truncates every 47th file. Runs the
bundle's own `inference.json` on the folder in process, with a tiny network of random weights, and prints the memory of
the process (resident set) as it goes, and the milliseconds of an image in the network and outside of it. Then it runs
the same prediction once more, where all but the truncated files are done.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import itk
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from PIL import Image

from common.data import input_error_in

FORMATS = ("png", "jpg", "tif", "bmp", "dcm", "nii.gz", "nrrd", "mha")
TINY = {  # of the bundles with heatmaps whose networks have these settings
    "image_size": [64, 64],
    "num_filters": 2,
    "num_levels": 2,
    "spatial_filters": 2,
    "spatial_kernel_size": 3,
    "spatial_downsampling": 8,
}
BAD = 47  # every so many files one is truncated
SIZE = (96, 72)  # rows, columns


def draw_files(folder: Path, count: int) -> None:
    """Films of noise in all formats."""
    random = np.random.default_rng(0)
    films = [random.integers(0, 255, SIZE, dtype=np.uint8) for _ in FORMATS]
    templates = []
    for ending, film in zip(FORMATS, films):
        path = folder / f"template.{ending}"
        if ending in ("png", "jpg", "tif", "bmp"):
            Image.fromarray(film).save(path)
        else:
            itk.imwrite(itk.image_from_array(film[None] if ending != "dcm" else film), str(path))
        templates.append(path.read_bytes())
        path.unlink()
    for number in range(count):
        which = number % len(FORMATS)
        content = templates[which]
        bad = number % BAD == BAD - 1
        (folder / f"{number:06d}.{FORMATS[which]}").write_bytes(content[: len(content) // 3] if bad else content)


def resident_memory() -> int:
    """Bytes of memory that this process has now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watch:
    """Handler that prints the memory, and divides the time between the network and all else."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.seconds: dict[str, float] = defaultdict(float)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.look)
        engine.add_event_handler(Events.COMPLETED, lambda engine: self.tell("all"))

    def look(self, engine: Engine) -> None:
        done = engine.state.iteration
        if done == self.every // 10 or done % self.every == 0:
            self.tell(str(done))

    def tell(self, images: str) -> None:
        print(f"\n{images:>8} images: {resident_memory() / 2**20:7.1f} MiB", flush=True)

    def follow(self, network: torch.nn.Module) -> None:
        network.register_forward_pre_hook(lambda *_: self.add(-time.perf_counter()))
        network.register_forward_hook(lambda *_: self.add(time.perf_counter()))

    def add(self, seconds: float) -> None:
        self.seconds["network"] += seconds


def predict(options: argparse.Namespace, films: Path, output: Path, weights: Path) -> tuple[Watch, float, int]:
    """One run: what was seen, its seconds, and how many images have no prediction."""
    config_file = Path(__file__).resolve().parents[1] / "bundles" / options.bundle / "configs" / "inference.json"
    settings = {**TINY, "device": "$torch.device('cpu')", "overlays": options.overlays}
    paths = {"dataset_dir": str(films), "output_dir": str(output), "ckpt_path": str(weights)}
    found = ConfigWorkflow(str(config_file), workflow_type="infer", logging_file=False, **settings, **paths)
    watch = Watch(1000)
    found.parser["handlers"] = [*found.parser["handlers"], watch]
    found.initialize()
    if not weights.exists():
        torch.save(found.parser.get_parsed_content("network_def").state_dict(), weights)
    watch.follow(found.parser.get_parsed_content("network"))
    dataset = found.parser.get_parsed_content("dataset")
    start = time.perf_counter()
    try:
        found.run()
    except Exception as error:
        if input_error_in(error) is None:
            raise
    return watch, time.perf_counter() - start, len(dataset.failures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--bundle", default="scn_hand")
    parser.add_argument("--overlays", action="store_true", help="draw a picture of every image, as the bundle does")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable(logging.ERROR)  # a line for every file that cannot be read
    with tempfile.TemporaryDirectory() as folder:
        films, output, weights = (Path(folder) / name for name in ("films", "predictions", "model.pt"))
        films.mkdir()
        draw_files(films, options.images)
        for title in ("first run", "second run, of what is missing"):
            print(f"{title}: {options.images} files")
            watch, seconds, failed = predict(options, films, output, weights)
            done = options.images - failed
            network = watch.seconds["network"]
            print(f"{seconds:.1f} s; {failed} files without a prediction")
            if network:
                print(
                    f"an image: {1000 * network / done:.1f} ms network, {1000 * (seconds - network) / done:.1f} ms else"
                )


if __name__ == "__main__":
    main()
