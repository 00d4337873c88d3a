"""Sub-images around landmarks, as the local networks see them."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor

from common.engines import PrepareBatchLandmarks
from common.transforms import RandLandmarkSubImagesd, sub_images

NAN, INF = math.nan, math.inf
OBLIQUE = [[0.9, -0.5, 0.1, 30], [0.4, 1.1, -0.3, -12], [0.2, 0.3, 2.0, 5], [0, 0, 0, 1]]


def net(size):
    return SimpleNamespace(local_size=torch.tensor(size))


def item(points, size, dims=3):
    """An image without two equal voxels, none 0, and landmarks in the world by the matrix itself."""
    matrix = np.array(OBLIQUE)
    if dims == 2:
        matrix[:2, 2] = matrix[2, :2] = 0
    points = np.array(points, dtype=np.float64)
    present = np.isfinite(points).all(1)
    world = points.copy()
    world[present] = points[present] @ matrix[:dims, :dims].T + matrix[:dims, 3]
    image = torch.arange(1, 1 + math.prod(size), dtype=torch.float32).reshape(1, *size)
    return {"image": MetaTensor(image, affine=torch.tensor(matrix)), "label": torch.tensor(world)[None]}


def cut(data, size, seed=0, **options):
    transform = RandLandmarkSubImagesd("image", net(size), **options)
    transform.set_random_state(seed)
    return transform(data)


@pytest.mark.parametrize("shape", [(2, 2, 9, 7), (1, 1, 6, 5, 7)])
def test_sub_images_are_windows_of_the_image_with_zeros_around_it(shape):
    rng = np.random.default_rng(0)
    image = rng.normal(size=shape)
    size, border = 4, 20
    starts = rng.integers(-6, 10, size=(shape[0], 5, len(shape) - 2))
    starts[0, 0] = [-15] * (len(shape) - 2)  # wholly off the image
    padded = np.pad(image, [(0, 0), (0, 0)] + [(border, border)] * (len(shape) - 2))
    expected = [
        [padded[b, :, *(slice(s + border, s + border + size) for s in place)] for place in starts[b]]
        for b in range(shape[0])
    ]
    expected = np.array(expected).reshape(shape[0], -1, *[size] * (len(shape) - 2))
    found = sub_images(torch.tensor(image), torch.tensor(starts), size)
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("size", [2, 16])
def test_a_sub_image_always_contains_its_landmark(size):
    """Half voxels, of which 0.5 rounds to 0 and 1.5 to 2, belong to the patch that they open."""
    axis = [-0.5, -0.2, 0.0, 0.5, 1.5, 2.5, 3.0, 8.49, 9.5, 10.5, 19.49]
    data = item([[x, y] for x in axis for y in axis], (20, 20), dims=2)
    first, last = math.inf, -math.inf
    for seed in range(40):
        (sample,) = cut(data, size, seed)
        points = sample["label"][0].float()  # as they come to the loss
        assert (points >= -0.5).all() and (points < size - 0.5).all()
        first, last = min(first, points.min().item()), max(last, points.max().item())
    assert first < 0 and last > size - 1  # everywhere in it, up to its borders


@pytest.mark.parametrize("dims", [2, 3])
def test_points_are_exact_voxels_of_their_sub_images_under_oblique_affines(dims):
    size = (12, 9, 10)[:dims]
    voxels = np.array([[0, 8, 9], [11, 0, 0], [5, 5, 5], [7, 2, 3]])[:, :dims]
    data = item(voxels, size, dims)
    for seed in range(5):
        (sample,) = cut(data, 6, seed)
        image, points = sample["image"], sample["label"]
        assert image.shape == (4, *[6] * dims) and points.shape == (1, 4, dims) and points.dtype == torch.float64
        assert torch.equal(image.affine, torch.eye(4, dtype=torch.float64))
        for n, voxel in enumerate(voxels):
            place = points[0, n].round().long()
            torch.testing.assert_close(points[0, n], place.double(), atol=1e-9, rtol=0)
            assert image[n, *place] == data["image"][0, *voxel]


def test_fractions_of_a_voxel_are_kept_and_borders_are_zeros():
    data = item([[0.3, 9.8]], (10, 10), dims=2)
    for seed in range(10):
        (sample,) = cut(data, 8, seed)
        start = np.array([0.3, 9.8]) - sample["label"][0, 0].numpy()
        assert start == pytest.approx(np.rint(start), abs=1e-9)
        padded = np.pad(data["image"][0].numpy(), 20)
        x, y = np.rint(start).astype(int) + 20
        np.testing.assert_array_equal(sample["image"][0].numpy(), padded[x : x + 8, y : y + 8])


def test_landmarks_without_a_position_stay_so_and_have_a_sub_image_from_anywhere():
    data = item([[NAN, NAN], [INF, INF], [4.0, 4.0]], (30, 30), dims=2)
    seen = set()
    for seed in range(60):
        (sample,) = cut(data, 4, seed)
        assert sample["label"][0, 0].isnan().all() and (sample["label"][0, 1] == INF).all()
        assert sample["label"][0, 2].isfinite().all()
        for n in (0, 1):
            values = sample["image"][n]
            assert (values > 0).any()  # it touches the image
            seen |= {(int(v) - 1) // 30 for v in values[values > 0]}
    assert len(seen) > 25  # of 30 columns


def test_samples_and_seeds_differ_and_one_seed_gives_the_same():
    data = item([[5.0, 5.0, 5.0], [2.0, 8.0, 1.0]], (11, 12, 13))
    samples = cut(data, 8, num_samples=3)
    places = [tuple(sample["label"].flatten().tolist()) for sample in samples]
    assert len(set(places)) == 3
    assert [tuple(sample["label"].flatten().tolist()) for sample in cut(data, 8, num_samples=3)] == places
    assert tuple(cut(data, 8, seed=1)[0]["label"].flatten().tolist()) != places[0]
    assert data["image"].shape == (1, 11, 12, 13) and data["label"][0, 0, 0] != 5.0  # the item is as it was


def test_the_size_is_the_networks_when_an_image_is_cut():
    network = net(0)
    transform = RandLandmarkSubImagesd("image", SimpleNamespace(module=network))  # as inside DistributedDataParallel
    network.local_size.fill_(6)
    assert transform(item([[3.0, 3.0]], (10, 10), dims=2))[0]["image"].shape == (1, 6, 6)


def test_batches_bring_voxels_of_sub_images_to_the_loss():
    items = [item([[3.0, 4.0], [NAN, NAN]], (10, 10), dims=2), item([[9.0, 0.0], [5.0, 5.0]], (8, 12), dims=2)]
    samples = [cut(data, 6, seed)[0] for seed, data in enumerate(items)]
    image, points = PrepareBatchLandmarks()(next(iter(DataLoader(samples, batch_size=2))), "cpu")
    assert image.shape == (2, 2, 6, 6) and points.shape == (2, 2, 2)
    x, y = points[0, 0].round().long()
    assert image[0, 0, x, y] == items[0]["image"][0, 3, 4] and points[0, 1].isnan().all()
