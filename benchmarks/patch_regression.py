"""Speed of patch regression: local networks in one grouped pass against one by one, and whole scans.

    python -m benchmarks.patch_regression [--threads 2] [--repeats 5] [--device cpu] [--scan 140 140 76]

The grouped pass and the separate networks have the same weights and give the same output; "separate" runs one network
per landmark, one after the other. Whole scans are timed by stage (global grid and vote, local refinement) on an image
of the paper's size after resampling, beside a SpatialConfigurationNet in 3D of 64 filters on the same volume.
"""

from __future__ import annotations

import argparse

import torch

from common.networks import LocalPatchNets, PatchRegressionNet, SpatialConfigurationNet
from common.transforms import sub_images

from .heatmaps import median_times

LANDMARKS = {3: (2, 8), 2: (19,)}
FILM = (1935, 2400)


def separate_networks(grouped: LocalPatchNets, dims: int, count: int) -> list[LocalPatchNets]:
    """One network per landmark, with the weights of its group."""
    networks = []
    for i in range(count):
        network = LocalPatchNets(dims, 1, 1).eval()
        own = network.state_dict()
        for key, value in grouped.state_dict().items():
            own[key] = value.chunk(count)[i] if value.ndim else value
        network.load_state_dict(own)
        networks.append(network)
    return networks


def compare_local(dims: int, count: int, size: int, repeats: int, device: str) -> None:
    """Print the time of both ways for `count` sub-images."""
    torch.manual_seed(0)
    grouped = LocalPatchNets(dims, 1, count).eval().to(device)
    separate = [network.to(device) for network in separate_networks(grouped, dims, count)]
    image = torch.rand(1, count, *[size] * dims, device=device)

    def one_by_one() -> torch.Tensor:
        outputs = [network(part) for network, part in zip(separate, image.chunk(count, dim=1))]
        return torch.cat([output[:, :dims] for output in outputs] + [output[:, dims:] for output in outputs], 1)

    with torch.no_grad():
        difference = float((grouped(image) - one_by_one()).abs().max())
        times = median_times({"grouped": lambda: grouped(image), "separate": one_by_one}, repeats, device)
    ratio = times["separate"] / times["grouped"]
    print(
        f"{count:3} landmarks, {size}^{dims}: grouped {1e3 * times['grouped']:.1f} ms, separate "
        f"{1e3 * times['separate']:.1f} ms, {ratio:.2f} times as long (largest difference {difference:.1e})"
    )


def whole_image(
    dims: int, count: int, shape: tuple[int, ...], pooled: tuple[int, ...], repeats: int, device: str
) -> None:
    """Print the time of each stage on one image."""
    network = PatchRegressionNet(dims, 1, count, pooled_blocks=pooled).eval().to(device)
    network.local_size.fill_(16)
    image = torch.rand(1, 1, *shape, device=device)
    with torch.no_grad():
        grid = network(image)
        points, _, _ = network.vote(grid, network.grid_spacing)
        starts = network.centred(points, image.shape[2:], 16)
        steps = {
            "global": lambda: network.vote(network(image), network.grid_spacing),
            "local": lambda: network.local_nets(sub_images(image, starts, 16)),
        }
        if dims == 3:
            multiple = [-(-n // 16) * 16 for n in shape]
            padded = torch.rand(1, 1, *multiple, device=device)
            heatmaps = SpatialConfigurationNet(3, 1, count, num_filters=64, spatial_kernel_size=5, downsampling=8)
            heatmaps = heatmaps.eval().to(device)
            steps["SpatialConfigurationNet"] = lambda: heatmaps(padded)
        times = median_times(steps, repeats, device)
    whole = times["global"] + times["local"]
    size = " x ".join(map(str, shape))
    print(
        f"{count:3} landmarks, {size}: global {times['global']:.2f} s, local {times['local']:.3f} s, both {whole:.2f} s"
    )
    if dims == 3:
        other = times["SpatialConfigurationNet"]
        print(
            f"    SpatialConfigurationNet, 64 filters, padded to {multiple}: {other:.2f} s, {other / whole:.1f} times"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--repeats", type=int, default=5, help="rounds after the first, which warms up")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scan", type=int, nargs=3, default=(140, 140, 76), help="voxels of the resampled scan")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads, one image")
    for dims, counts in LANDMARKS.items():
        for count in counts:
            compare_local(dims, count, 16, options.repeats, options.device)
    whole_image(3, 8, tuple(options.scan), (0, 1), options.repeats, options.device)
    whole_image(2, 19, FILM, (0, 1, 2, 3), options.repeats, options.device)


if __name__ == "__main__":
    main()
