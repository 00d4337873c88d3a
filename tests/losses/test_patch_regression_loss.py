import math

import numpy as np
import pytest
import torch

from common.losses import PatchRegressionLoss

NAN, INF = math.nan, math.inf
POINTS = {
    2: [[[5.3, 9.0], [NAN, NAN], [INF, INF]], [[-7.0, 3.5], [0.0, 11.5], [NAN, 2.0]]],
    3: [[[5.3, 9.0, 1.0], [NAN, NAN, NAN]], [[INF, INF, INF], [3.0, 2.0, 6.5]]],
}
GRID = {2: (3, 2), 3: (2, 3, 2)}


def loss_by_numpy(grid, points, spacing, logarithm, method, positive_weight=1.0, presence_weight=1.0):
    """Patch for patch; `points` without a position count in the cross-entropy alone, NaN ones in nothing."""
    grid, points = grid.detach().numpy().astype(np.float64), np.array(points)
    count, dims = points.shape[1:]
    errors, entropies = [], []
    for b, n in np.ndindex(*points.shape[:2]):
        if np.isnan(points[b, n]).any():
            continue
        for patch in np.ndindex(*grid.shape[2:]):
            distance = points[b, n] - (spacing * np.array(patch) + (spacing - 1) / 2)
            if np.isfinite(distance).all():
                wanted = np.sign(distance) * np.log(1 + np.abs(distance)) if logarithm else distance
                errors += [abs(grid[(b, n * dims + axis, *patch)] - wanted[axis]) for axis in range(dims)]
            probability = 1 / (1 + math.exp(-grid[(b, count * dims + n, *patch)]))
            held = np.isfinite(distance).all() and ((distance >= -spacing / 2) & (distance < spacing / 2)).all()
            entropies.append(-positive_weight * math.log(probability) if held else -math.log(1 - probability))
    regression = np.mean(errors) if method != "classification" else 0
    classification = presence_weight * np.mean(entropies) if method != "regression" else 0
    return regression + classification


def grid_of(dims, scale=1.0):
    torch.manual_seed(0)
    count = len(POINTS[dims][0])
    return (torch.randn(2, count * (dims + 1), *GRID[dims]) * scale).requires_grad_()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("logarithm", [True, False])
@pytest.mark.parametrize("method", ["joint", "regression", "classification"])
def test_the_loss_is_that_of_a_loop_over_patches(method, logarithm, dims):
    grid = grid_of(dims)
    loss = PatchRegressionLoss(8, logarithm, method)(grid, torch.tensor(POINTS[dims]))
    assert loss.dtype == torch.float32 and loss.ndim == 0
    assert loss.item() == pytest.approx(loss_by_numpy(grid, POINTS[dims], 8, logarithm, method), rel=1e-5)


def test_weights_of_positive_patches_and_of_presence():
    grid = grid_of(2)
    loss = PatchRegressionLoss(8, positive_weight=20.0, presence_weight=0.3)(grid, torch.tensor(POINTS[2]))
    expected = loss_by_numpy(grid, POINTS[2], 8, True, "joint", 20.0, 0.3)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(loss_by_numpy(grid, POINTS[2], 8, True, "joint"), rel=0.01)


@pytest.mark.parametrize("dims", [2, 3])
def test_what_is_not_annotated_has_no_gradient_and_what_is_absent_only_that_of_its_presence(dims):
    grid = grid_of(dims, scale=30.0)  # far from 0, where a cross-entropy might overflow
    PatchRegressionLoss(8)(grid, torch.tensor(POINTS[dims])).backward()
    assert grid.grad.isfinite().all()
    count = len(POINTS[dims][0])
    moved = grid.grad.flatten(2).abs().sum(-1)
    for b, n in np.ndindex(2, count):
        point = torch.tensor(POINTS[dims][b][n])
        displacement, presence = moved[b, n * dims : (n + 1) * dims], moved[b, count * dims + n]
        assert bool((displacement > 0).all()) == bool(point.isfinite().all())
        assert bool((displacement == 0).all()) != bool(point.isfinite().all())
        assert bool(presence > 0) != bool(point.isnan().any())


@pytest.mark.parametrize("method", ["joint", "regression", "classification"])
def test_a_batch_without_annotation_has_loss_0_and_a_gradient_of_zeros(method):
    grid = grid_of(2)
    loss = PatchRegressionLoss(8, method=method)(grid, torch.full((2, 3, 2), NAN))
    loss.backward()
    assert loss == 0 and not grid.grad.any()


def test_the_answer_that_is_right_has_no_loss():
    """Patches of 4 in an image of 8: centres at 1.5 and 5.5, the landmark in the second along x, the first along y."""
    grid = torch.zeros(1, 3, 2, 2)
    grid[0, 0] = torch.tensor([[5.0], [1.0]]).log()  # x: 4 and 0 voxels, and one more in the logarithm
    grid[0, 1] = torch.tensor([[math.log(2), -math.log(4)]])  # y: 1 and -3 voxels
    grid[0, 2] = torch.tensor([[-40.0, -40.0], [40.0, -40.0]])
    assert PatchRegressionLoss(4)(grid, torch.tensor([[[5.5, 2.5]]])).item() == pytest.approx(0.0, abs=1e-6)


def test_half_precision_is_summed_in_float32():
    grid = grid_of(2)
    points = torch.tensor(POINTS[2])
    loss = PatchRegressionLoss(8)(grid.bfloat16(), points)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(PatchRegressionLoss(8)(grid.bfloat16().float(), points).item())


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method"):
        PatchRegressionLoss(8, method="voting")


def test_a_landmark_in_the_padding_of_the_image_is_in_no_patch():
    points = torch.tensor([[[11.4, 5.0], [11.6, 5.0], [5.0, 14.0], [NAN, NAN], [INF, INF]]])
    grid = torch.randn(1, 5 * 3, 2, 2, generator=torch.Generator().manual_seed(0))

    def loss(size, points):
        return PatchRegressionLoss(8, method="classification", image_size=size)(grid, points).item()

    unseen = points.clone()
    unseen[0, 1:3] = INF  # as if absent: in no patch, but known to be in none
    assert loss([12, 12], points) == loss(12, points) == pytest.approx(loss(None, unseen), rel=1e-6)
    assert loss([16, 16], points) == pytest.approx(loss(None, points), rel=1e-6) != loss(12, points)
    plain, padded = (PatchRegressionLoss(8, method="regression", image_size=size)(grid, points) for size in (None, 12))
    assert torch.equal(plain, padded)  # displacements reach beyond the image
