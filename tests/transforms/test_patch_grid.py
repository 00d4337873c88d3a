"""Patch grids against a loop over all patches and their voxels."""

import itertools
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.transforms import (
    LandmarksToPatchGrid,
    LandmarksToPatchGridd,
    PatchGridToLandmarks,
    PatchGridToLandmarksd,
    encode_patch_grid,
    linear_displacement,
    log_displacement,
    patch_centres,
    patch_grid_size,
    vote_landmarks,
)

NAN, INF = math.nan, math.inf
OBLIQUE = [[0.9, -0.5, 0.1, 30], [0.4, 1.1, -0.3, -12], [0.2, 0.3, 2.0, 5], [0, 0, 0, 1]]

# image size, spacing, landmarks: inside, on borders of patches and of the image, missing, absent, off the grid
CASES = [
    ((20, 13), 4, [[6.3, 2.2], [3.5, 7.5], [-0.5, 12.4], [NAN, NAN], [INF, INF], [4.5, 30.0]]),
    ((70, 96), 32, [[0.0, 95.0], [31.49, 63.5], [31.5, 64.0], [69.2, -0.4], [INF, INF], [NAN, 4.0]]),
    ((9, 8, 5), 2, [[8.0, 7.49, 4.0], [1.5, 3.5, 0.5], [INF, INF, INF], [NAN, NAN, NAN], [2.2, -0.6, 1.0]]),
    ((24, 17, 9), 8, [[23.3, 16.0, 8.0], [7.5, 7.499, 0.0], [12.0, 3.0, 6.5]]),
    ((5, 4), 1, [[4.2, 2.7], [0.5, 1.5]]),
]


def brute_force(size, spacing, points, logarithm):
    """Displacements (N, D, *grid) and presence (N, *grid), patch for patch."""
    grid = [math.ceil(extent / spacing) for extent in size]
    displacement = np.zeros((len(points), len(size), *grid))
    presence = np.zeros((len(points), *grid))
    for patch in itertools.product(*map(range, grid)):
        voxels = [list(range(spacing * p, spacing * p + spacing)) for p in patch]
        for n, point in enumerate(points):
            for axis, along in enumerate(voxels):
                d = point[axis] - sum(along) / spacing if np.isfinite(point).all() else NAN
                displacement[n, axis, *patch] = math.copysign(math.log(1 + abs(d)), d) if logarithm else d
            holds = np.isfinite(point).all() and all(
                math.floor(point[axis] + 0.5) in along for axis, along in enumerate(voxels)
            )
            presence[n, *patch] = NAN if np.isnan(point).any() else float(holds)
    return displacement, presence


@pytest.mark.parametrize("logarithm", [True, False])
@pytest.mark.parametrize(("size", "spacing", "points"), CASES)
def test_every_patch_says_what_a_loop_over_its_voxels_says(size, spacing, points, logarithm):
    displacement, presence = brute_force(size, spacing, points, logarithm)
    encoded = LandmarksToPatchGrid(spacing, logarithm)(torch.tensor(points, dtype=torch.float64), size)
    n, d = len(points), len(size)
    assert encoded.shape == (n * (d + 1), *presence.shape[1:])
    np.testing.assert_allclose(encoded[: n * d].numpy().reshape(displacement.shape), displacement, atol=1e-5)
    np.testing.assert_array_equal(encoded[n * d :].numpy(), presence)


def test_images_of_a_batch_have_their_own_landmarks():
    points = torch.tensor([[[3.0, 4.0], [NAN, NAN]], [[7.5, 1.0], [INF, INF]]])
    displacement, presence = encode_patch_grid(points, [2, 2], 4)
    assert displacement.shape == (2, 2, 2, 2, 2) and presence.shape == (2, 2, 2, 2)
    for i in range(2):
        expected = brute_force((8, 8), 4, points[i].tolist(), True)
        np.testing.assert_allclose(displacement[i].numpy(), expected[0], atol=1e-6)
        np.testing.assert_array_equal(presence[i].numpy(), expected[1])


def test_a_landmark_on_the_image_lies_in_exactly_one_patch_wherever_it_is():
    """Also on the border between two, in float64 a hair before it and after rounding to float32 upon it."""
    edges = np.array([7.5, 15.5, 23.5])
    axis = np.concatenate([np.linspace(-0.5, 31.4, 50), edges, edges - 1e-9, edges + 1e-9, edges - 1e-6])
    points = torch.tensor(np.stack(np.meshgrid(axis, axis), -1).reshape(1, -1, 2))
    presence = encode_patch_grid(points, [4, 4], 8)[1]
    assert (presence.flatten(2).sum(-1) == 1).all()


def test_centres_of_patches_are_those_of_their_voxels():
    centres = patch_centres([2, 3], 8, torch.device("cpu"))
    assert centres[:, 1, 2].tolist() == [11.5, 19.5] and centres[:, 0, 0].tolist() == [3.5, 3.5]
    assert patch_grid_size((16, 17, 1), 8) == [2, 3, 1]


def test_the_logarithm_keeps_the_sign_and_has_an_inverse():
    far = torch.tensor([-2400.0, -3.0, -1e-3, 0.0, 0.5, math.e - 1, 5000.0])
    logarithm = log_displacement(far)
    assert logarithm[5].item() == pytest.approx(1.0) and logarithm[1].item() == pytest.approx(-math.log(4))
    torch.testing.assert_close(linear_displacement(logarithm), far, rtol=1e-5, atol=1e-6)
    assert linear_displacement(torch.tensor([1e4, -1e4])).isfinite().all()  # an untrained network may say so


@pytest.mark.parametrize("logarithm", [True, False])
@pytest.mark.parametrize(("size", "spacing", "points"), CASES)
def test_landmarks_come_back_from_their_grid(size, spacing, points, logarithm):
    grid = LandmarksToPatchGrid(spacing, logarithm)(torch.tensor(points, dtype=torch.float64), size)
    decoded = PatchGridToLandmarks(spacing, logarithm)(grid)
    extent = spacing * np.ceil(np.array(size) / spacing) - 0.5
    held = [bool(np.isfinite(p).all() and (np.array(p) >= -0.5).all() and (np.array(p) < extent).all()) for p in points]
    assert decoded.isfinite().all(-1).tolist() == held and any(held)
    np.testing.assert_allclose(decoded.numpy()[held], np.array(points)[held], atol=2e-5)
    assert decoded[~torch.tensor(held)].isnan().all()


@pytest.mark.parametrize("logarithm", [True, False])
def test_landmarks_come_back_when_all_patches_vote(logarithm):
    points = torch.tensor([[[700.3, 1200.8], [-20.0, 2500.0]]])
    displacement, presence = encode_patch_grid(points, [61, 75], 32, logarithm)
    found, spread = vote_landmarks(displacement, torch.rand_like(presence), 32, logarithm)
    torch.testing.assert_close(found, points, atol=0.01, rtol=0)
    assert (spread < 0.01).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_dictionary_form_and_its_inverse_go_by_the_affine(dims):
    matrix = np.array(OBLIQUE)
    if dims == 2:
        matrix[:2, 2] = matrix[2, :2] = 0
    voxels = np.array([[20.25, 3.5, 9.0], [0.0, 12.0, 17.9], [NAN, NAN, NAN]])[:, :dims]
    world = voxels @ matrix[:dims, :dims].T + matrix[:dims, 3]
    image = MetaTensor(torch.zeros(1, *(22, 14, 19)[:dims]), affine=torch.tensor(matrix))
    item = {"image": image, "label": torch.tensor(world)[None]}
    encoded = LandmarksToPatchGridd("label", spacing=8)(item)
    assert encoded["label"].shape == (3 * (dims + 1), *(3, 2, 3)[:dims])
    displacement, presence = brute_force((22, 14, 19)[:dims], 8, voxels, True)
    expected = np.concatenate([displacement.reshape(-1, *presence.shape[1:]), presence])
    np.testing.assert_allclose(encoded["label"].numpy(), expected, atol=1e-5)
    decoded = PatchGridToLandmarksd("label", spacing=8)(encoded)["label"]
    assert decoded.shape == (1, 3, dims) and decoded.dtype == torch.float64
    np.testing.assert_allclose(decoded[0].numpy(), world, atol=1e-4)
    assert item["label"].shape == (1, 3, dims)  # the caller's dictionary is as it was


def test_the_vote_is_the_weighted_mean_and_the_spread_its_root_mean_square():
    rng = np.random.default_rng(0)
    displacement, weights = rng.normal(size=(2, 3, 2, 3, 4)) * 2, rng.uniform(size=(2, 3, 3, 4)) ** 4
    found, spread = vote_landmarks(torch.tensor(displacement), torch.tensor(weights), 4)
    for b, n in itertools.product(range(2), range(3)):
        votes, shares = [], []
        for i, j in itertools.product(range(3), range(4)):
            d = displacement[b, n, :, i, j]
            votes.append(np.array([4 * i + 1.5, 4 * j + 1.5]) + np.sign(d) * (np.exp(np.abs(d)) - 1))
            shares.append(weights[b, n, i, j])
        mean = np.average(votes, axis=0, weights=shares)
        square = np.average(((votes - mean) ** 2).sum(1), weights=shares)
        assert found[b, n].numpy() == pytest.approx(mean, rel=1e-5)
        assert spread[b, n].item() == pytest.approx(math.sqrt(square), rel=1e-5)


def test_patches_without_weight_have_no_vote_and_no_vote_gives_no_landmark():
    displacement = torch.zeros(1, 2, 2, 2, 2)
    displacement[0, 0, :, 0, 0] = NAN
    weights = torch.zeros(1, 2, 2, 2)
    weights[0, 0, 1, 1] = 0.01
    points, spread = vote_landmarks(displacement, weights, 4)
    assert points[0, 0].tolist() == [5.5, 5.5] and spread[0, 0] == 0
    assert points[0, 1].isnan().all() and spread[0, 1].isnan()


@pytest.mark.parametrize("spacing", [0, 3, 24])
def test_a_spacing_that_no_halving_gives_is_refused(spacing):
    with pytest.raises(ValueError, match="power of 2"):
        LandmarksToPatchGrid(spacing)
