import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ResizeWithPadOrCrop

from common.errors import InputError
from common.transforms import ResizeToFitd
from common.transforms.resize_to_fit import averaging_weights, resized


@pytest.mark.parametrize(
    ("shape", "limits", "expected"),
    [
        ((50, 100), [40, 50], (25, 50)),  # the height decides
        ((90, 100), [40, 50], (40, 44)),  # the width decides, where the longest axis would be cut off
        ((200, 20), [40, 50], (40, 4)),
        ((10, 20, 40), 80, (20, 40, 80)),
    ],
)
def test_an_image_just_fits_with_its_aspect_kept(shape, limits, expected):
    image = MetaTensor(torch.rand(1, *shape), affine=torch.eye(4))
    assert ResizeToFitd("image", limits)({"image": image})["image"].shape[1:] == expected


def test_a_margin_is_left_to_the_padding_at_every_side():
    """And what is seen keeps the size and the place in the world that it has without."""
    image = MetaTensor(torch.rand(1, 90, 180), affine=torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0])))
    plain = ResizeToFitd("image", [40, 60])({"image": image})["image"]
    fitted = ResizeToFitd("image", [56, 76], margin=8)({"image": image})["image"]
    assert torch.equal(fitted, plain)
    assert torch.equal(fitted.affine, plain.affine)
    padded = ResizeWithPadOrCrop([56, 76])(fitted)
    assert not padded[0, :, :8].any()
    assert not padded[0, :, -8:].any()
    assert torch.equal(padded[0, 13:43, 8:68], plain[0])
    stretched = ResizeToFitd("image", [56, 76], keep_aspect=False, margin=8)({"image": image})["image"]
    assert stretched.shape[1:] == (40, 60)


@pytest.mark.parametrize("margin", [-1, 20, 40, 2.5])
def test_a_margin_that_does_not_fit_is_refused(margin):
    with pytest.raises(InputError, match=f"margin of {margin} pixels does not go into"):
        ResizeToFitd("image", [40, 60], margin=margin)


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ((0.2, 0.1), (40, 30)),  # of 90 x 135 squares of 0.2
        ((0.1, 0.2), (20, 60)),
        ((0.1, 0.1009), (40, 60)),  # as good as square
    ],
)
def test_pixels_that_are_not_square_become_so(spacing, expected):
    """Of an image of 180 x 270 pixels."""
    affine = torch.diag(torch.tensor([-spacing[0], -spacing[1], 1.0, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.rand(1, 180, 270), affine=affine)
    fitted = ResizeToFitd("image", [40, 60])({"image": image})["image"]
    assert fitted.shape[1:] == expected
    sides = fitted.affine[:2, :2].norm(dim=0)
    assert abs(sides[0] / sides[1] - 1) < 0.02
    extent = torch.tensor([180, 270]) * torch.tensor(spacing)
    assert np.allclose(sides * torch.tensor(expected), extent)


def test_pixels_that_no_detector_has_are_taken_as_square_with_a_warning(caplog):
    image = MetaTensor(torch.rand(1, 180, 270), affine=torch.diag(torch.tensor([-0.1, -2.0, 1.0, 1.0])))
    assert ResizeToFitd("image", [40, 60])({"image": image})["image"].shape[1:] == (40, 60)
    assert "20 times as long as wide" in caplog.text
    thick = MetaTensor(torch.rand(1, 80, 80, 8), affine=torch.diag(torch.tensor([0.5, 0.5, 5.0, 1.0])))
    assert ResizeToFitd("image", 40)({"image": thick})["image"].shape[1:] == (40, 40, 40)


def test_a_point_keeps_its_place_in_the_world_through_fitting_and_padding():
    image = torch.zeros(1, 90, 100)
    image[0, 84:88, 10:14] = 1  # centred on (85.5, 11.5), near the right edge
    fitted = ResizeToFitd("image", [45, 60])({"image": MetaTensor(image, affine=torch.eye(4))})["image"]
    padded = ResizeWithPadOrCrop([45, 60])(fitted)
    weights = padded[0].numpy()
    voxel = [(weights.sum(1 - axis) * np.arange(weights.shape[axis])).sum() / weights.sum() for axis in (0, 1)]
    world = padded.affine.numpy() @ [*voxel, 0, 1]
    assert np.allclose(world[:2], [85.5, 11.5], atol=1e-6)


def test_every_axis_takes_its_size_where_the_aspect_is_not_kept():
    image = MetaTensor(torch.rand(1, 90, 100), affine=torch.diag(torch.tensor([0.5, 0.25, 1.0, 1.0])))
    filled = ResizeToFitd("image", [45, 60], keep_aspect=False)({"image": image})["image"]
    assert filled.shape == (1, 45, 60)
    assert np.allclose(
        filled.affine, [[1, 0, 0, 0.25], [0, 0.25 / 0.6, 0, 0.125 * (1 / 0.6 - 1)], [0, 0, 1, 0], [0, 0, 0, 1]]
    )


@pytest.mark.parametrize("new", [37, 150, 289, 299, 300, 301, 340, 700])
def test_nothing_moves_by_more_than_an_eighth_of_a_pixel(new):
    ramp = (torch.arange(300.0) + 0.5)[None, :, None].expand(1, 300, 4)
    found = resized(ramp, (new, 4))[0, :, 0] * new / 300 - 0.5  # where each new pixel sees itself
    error = (found - torch.arange(new)).abs()
    inner = error[3:-3]  # beyond the outer centres a growing line goes on as it ends
    assert inner.max() < (1e-4 if new > 300 else 0.125 * new / 300)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float64])
def test_numbers_of_any_kind_are_averaged(dtype):
    image = torch.tensor([[[0, 100], [200, 200], [100, 0]]], dtype=dtype)
    torch.testing.assert_close(resized(image, (2, 1)), torch.tensor([[[100.0], [100.0]]]))
    assert resized(image, (3, 2)).dtype == torch.float32


def test_cells_that_cut_pixels_take_their_share():
    weights = averaging_weights(300, 32, torch.zeros(()))
    cell = 300 / 32
    for i, j in ((0, 0), (0, 9), (1, 9), (1, 18), (31, 299), (31, 290), (5, 100)):
        share = max(0.0, min(j + 1, (i + 1) * cell) - max(j, i * cell)) / cell
        assert weights[i, j].item() == pytest.approx(share, abs=1e-6)
    torch.testing.assert_close(weights.sum(1), torch.ones(32))


@pytest.mark.parametrize("size", [(29, 36), (96, 120), (150, 300)])
@pytest.mark.parametrize("value", [0.1, 255.0, 60000.0])
def test_what_is_equal_everywhere_stays_equal(size, value):
    film = torch.full((1, 97, 120), value)
    assert (resized(film, size) == film[0, 0, 0]).all()
    step = film + torch.tensor([0.0, 400.0]).repeat(60)
    error = resized(step, (97, 60)) - (film[0, 0, 0] + 200)
    assert error.abs().max() < 0.01


def test_shares_of_a_cell_make_a_whole():
    for size, reduced in ((2001, 2000), (1935, 640), (9000, 416)):
        weights = averaging_weights(size, reduced, torch.zeros((), dtype=torch.float64))
        torch.testing.assert_close(weights.sum(1), torch.ones(reduced, dtype=torch.float64), rtol=0, atol=1e-12)
