"""Speed of drawing and decoding heatmaps, side by side with the alternatives, in one process.

    python -m benchmarks.heatmaps [--threads 1] [--repeats 9] [--device cpu]

Prints the median time of each and its ratio to ours, beside the ratio that is wanted. Rounds alternate
between the candidates, so that a busy machine slows all of them alike.

The comparison with the PyPI package `landmarker` runs where that can be imported. It asks for other versions
of shared packages, so give it a virtual environment of its own:

    pip install torch==2.13.0
    pip install -r requirements.txt
    pip install --no-deps landmarker

Only its submodule `landmarker.heatmap.generator` is used, which needs neither torchvision nor the rest.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from monai.transforms import GenerateHeatmap

from common.transforms.heatmap_decoding import decode_heatmaps
from common.transforms.heatmaps import draw_heatmaps

try:
    from landmarker.heatmap.generator import GaussianHeatmapGenerator, LaplacianHeatmapGenerator
except ImportError:
    GaussianHeatmapGenerator = LaplacianHeatmapGenerator = None

SIGMA = 3.0
Table = tuple[dict[str, Callable], dict[str, str]]  # candidates, and the ratios that are wanted of them


def median_times(candidates: dict[str, Callable], repeats: int, device: str) -> dict[str, float]:
    """Median seconds of each candidate, called in turns after one call to warm up."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(repeats + 1):
        for name, candidate in candidates.items():
            start = time.perf_counter()
            candidate()
            if device != "cpu":
                torch.cuda.synchronize()
            if round_number > 0:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def outer_product(points: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """The least work that can give these heatmaps: one profile per axis and their products."""
    profiles = []
    for axis, length in enumerate(size):
        offset = torch.arange(length, device=points.device) - points[0, :, axis : axis + 1]
        profiles.append(torch.exp(offset**2 / (-2 * SIGMA**2)).float())
    if len(size) == 2:
        return profiles[0][:, :, None] * profiles[1][:, None, :]
    return (profiles[0][:, :, None] * profiles[1][:, None, :])[..., None] * profiles[2][:, None, None, :]


def drawing(landmarks: int, size: tuple[int, ...], device: str) -> Table:
    points = (torch.rand(1, landmarks, len(size), dtype=torch.float64) * torch.tensor(size)).to(device)
    monai = GenerateHeatmap(sigma=SIGMA)
    candidates = {
        "ours": lambda: draw_heatmaps(points, size, SIGMA),
        "outer product": lambda: outer_product(points, size),
        "monai GenerateHeatmap": lambda: monai(points[0], spatial_shape=size),
    }
    wanted = {"outer product": ">= 0.67", "monai GenerateHeatmap": ">= 25" if len(size) == 2 else ""}
    if GaussianHeatmapGenerator is not None:
        landmarker = GaussianHeatmapGenerator(landmarks, SIGMA, heatmap_size=size).to(device)
        candidates["landmarker"] = lambda: landmarker(points.float())
        wanted["landmarker"] = ">= 10"
    return candidates, wanted


def drawing_laplace(landmarks: int, size: tuple[int, ...], device: str) -> Table:
    points = (torch.rand(1, landmarks, len(size), dtype=torch.float64) * torch.tensor(size)).to(device)
    candidates = {
        "ours": lambda: draw_heatmaps(points, size, SIGMA, "laplace"),
        "ours, Gaussian": lambda: draw_heatmaps(points, size, SIGMA),
    }
    if LaplacianHeatmapGenerator is not None:
        landmarker = LaplacianHeatmapGenerator(landmarks, SIGMA, heatmap_size=size).to(device)
        candidates["landmarker"] = lambda: landmarker(points.float())
    return candidates, {}


def drawing_with_gradient(landmarks: int, size: tuple[int, ...], device: str) -> Table:
    points = (torch.rand(1, landmarks, len(size), dtype=torch.float64) * torch.tensor(size)).to(device)
    sigma = torch.full((landmarks,), SIGMA, device=device, requires_grad=True)
    candidates = {"ours": lambda: draw_heatmaps(points, size, sigma).sum().backward()}
    if GaussianHeatmapGenerator is not None:
        landmarker = GaussianHeatmapGenerator(landmarks, SIGMA, heatmap_size=size, learnable=True).to(device)
        candidates["landmarker"] = lambda: landmarker(points.float()).sum().backward()
    return candidates, {"landmarker": ">= 10"}


def decoding(landmarks: int, size: tuple[int, ...], device: str) -> Table:
    points = (torch.rand(1, landmarks, len(size), dtype=torch.float64) * torch.tensor(size)).to(device)
    heatmaps = draw_heatmaps(points, size, SIGMA)
    heatmaps += 0.02 * torch.randn_like(heatmaps)
    candidates = {
        "ours": lambda: decode_heatmaps(heatmaps, "parabola"),
        "bare argmax": lambda: heatmaps.flatten(2).argmax(-1),
        "ours, maximum": lambda: decode_heatmaps(heatmaps, "maximum"),
        "ours, centroid": lambda: decode_heatmaps(heatmaps, "centroid"),
        "ours, soft-argmax": lambda: decode_heatmaps(heatmaps, "soft_argmax"),
    }
    return candidates, {"bare argmax": ">= 0.33"}


TABLES = [
    ("Gaussian heatmaps, 37 of 640 x 800", drawing, 37, (640, 800)),
    ("Gaussian heatmaps, 8 of 128 x 128 x 128", drawing, 8, (128, 128, 128)),
    (
        "Gaussian heatmaps, learnable sigma, with backward pass, 37 of 512 x 512",
        drawing_with_gradient,
        37,
        (512, 512),
    ),
    ("Laplace heatmaps, 37 of 640 x 800", drawing_laplace, 37, (640, 800)),
    ("Decoding by parabola, 37 of 512 x 512", decoding, 37, (512, 512)),
    ("Decoding by parabola, 8 of 128 x 128 x 128", decoding, 8, (128, 128, 128)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads")
    for title, prepare, landmarks, size in TABLES:
        candidates, wanted = prepare(landmarks, size, options.device)
        times = median_times(candidates, options.repeats, options.device)
        print(f"\n{title}\n  {'':24}{'ms':>10}{'times ours':>12}  wanted")
        for name, seconds in times.items():
            print(f"  {name:24}{seconds * 1e3:10.2f}{seconds / times['ours']:12.2f}  {wanted.get(name, '')}")
    if GaussianHeatmapGenerator is None:
        print("\nlandmarker cannot be imported here and is left out.")


if __name__ == "__main__":
    main()
