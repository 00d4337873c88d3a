import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from scipy.special import softmax

from common.errors import InputError
from common.transforms.heatmap_decoding import (
    HeatmapsToLandmarksd,
    decode_heatmaps,
    heatmap_blob_centroid,
    heatmap_maximum,
    heatmap_parabola,
    heatmap_soft_argmax,
    smooth_heatmaps,
)
from common.transforms.heatmaps import draw_heatmaps

NAN, INF = float("nan"), float("inf")
METHODS = ["maximum", "parabola", "centroid", "soft_argmax"]
SIZES = [(41, 23), (19, 26, 22)]


def random_points(batch, landmarks, size, margin, seed=0):
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(batch, landmarks, len(size), generator=generator, dtype=torch.float64)
    return margin + unit * (torch.tensor(size) - 1 - 2 * margin)


def random_heatmaps(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
def test_the_maximum_is_numpys(size):
    heatmaps = random_heatmaps(2, 3, *size)
    points, confidence = heatmap_maximum(heatmaps)
    for b, n in np.ndindex(2, 3):
        heatmap = heatmaps[b, n].numpy()
        assert points[b, n].tolist() == list(np.unravel_index(heatmap.argmax(), size))
        assert confidence[b, n].item() == min(heatmap.max(), 1.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sigma", [1.0, 1.5, 3.0])
def test_a_parabola_through_logarithms_gives_gaussian_landmarks_back(size, sigma):
    points = random_points(3, 5, size, margin=1.0)
    decoded, confidence = decode_heatmaps(draw_heatmaps(points, size, sigma), "parabola")
    assert decoded.dtype == torch.float32 and confidence.shape == (3, 5)
    assert (decoded - points).abs().max() < 0.01


@pytest.mark.parametrize("size", SIZES)
def test_a_parabola_through_values_gives_wide_gaussian_landmarks_back(size):
    points = random_points(3, 5, size, margin=1.0)
    decoded, _ = heatmap_parabola(draw_heatmaps(points, size, 3.0), log=False)
    assert (decoded - points).abs().max() < 0.01


@pytest.mark.parametrize("log", [True, False])
def test_the_parabola_is_numpys_fit_through_three_values(log):
    heatmap = random_heatmaps(9, 8) * 0.1
    heatmap[4, 5], heatmap[3, 5], heatmap[5, 5], heatmap[4, 4], heatmap[4, 6] = 2.0, 1.0, 1.5, 0.3, 0.2
    points, confidence = heatmap_parabola(heatmap[None, None], log=log)
    change = np.log if log else np.asarray
    for axis, values in enumerate([[1.0, 2.0, 1.5], [0.3, 2.0, 0.2]]):
        a, b, _ = np.polyfit([-1, 0, 1], change(values), 2)
        assert points[0, 0, axis].item() == pytest.approx((4, 5)[axis] - b / (2 * a))
    assert confidence.item() == 1.0


def test_a_parabola_with_negative_neighbours_uses_the_values():
    heatmap = torch.full((1, 1, 7, 5), -1.0)
    heatmap[0, 0, 2:5, 2] = torch.tensor([-0.2, 0.6, 0.2])
    points, confidence = heatmap_parabola(heatmap)
    assert points[0, 0].tolist() == pytest.approx([3 + 0.5 * (0.2 + 0.2) / (1.2 + 0.2 - 0.2), 2.0])
    assert confidence.item() == pytest.approx(0.6)


@pytest.mark.parametrize("size", SIZES)
def test_a_maximum_on_the_border_is_refined_inwards_and_stays_within_half_a_voxel(size):
    last = torch.tensor(size, dtype=torch.float64) - 1
    corners = torch.stack([0 * last + 0.3, last - 0.2, last + 0.4, last + 3])[None]
    decoded, _ = heatmap_parabola(draw_heatmaps(corners, size, 2.0))
    torch.testing.assert_close(decoded[0, :3].double(), corners[0, :3], atol=0.01, rtol=0)
    torch.testing.assert_close(decoded[0, 3].double(), last + 0.5)


def test_axes_of_one_or_two_voxels_are_not_refined():
    heatmaps = draw_heatmaps(torch.tensor([[[4.3, 0.4, 0.0]]]), (9, 2, 1), 1.5)
    points, _ = heatmap_parabola(heatmaps)
    assert points[0, 0].tolist() == pytest.approx([4.3, 0.0, 0.0], abs=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_the_blob_centroid_is_scipys_over_the_whole_image(size, weighted, scale):
    heatmaps = ndimage.gaussian_filter(random_heatmaps(2, 3, *size).numpy(), [0, 0] + [2] * len(size))
    heatmaps *= scale / heatmaps.max((2, 3) if len(size) == 2 else (2, 3, 4), keepdims=True)
    points, confidence = heatmap_blob_centroid(torch.from_numpy(heatmaps), threshold=0.6, weighted=weighted)
    level = 0.6 if scale > 0.6 else 0.6 * scale
    for b, n in np.ndindex(2, 3):
        labels, count = ndimage.label(heatmaps[b, n] > level, np.ones([3] * len(size)))
        sizes = ndimage.sum_labels(labels > 0, labels, range(1, count + 1))
        heat = ndimage.sum_labels(heatmaps[b, n], labels, range(1, count + 1))
        largest = 1 + max(range(count), key=lambda i: (sizes[i], heat[i]))
        weight = heatmaps[b, n] if weighted else np.ones(size)
        assert points[b, n].tolist() == pytest.approx(ndimage.center_of_mass(weight, labels, largest))
    torch.testing.assert_close(confidence, torch.full((2, 3), scale, dtype=torch.float64))


def test_the_largest_blob_wins_over_the_highest():
    heatmap = torch.zeros(1, 1, 30, 20)
    heatmap[0, 0, 2, 3] = 1.0
    heatmap[0, 0, 20:23, 10:15] = 0.97
    assert heatmap_blob_centroid(heatmap)[0][0, 0].tolist() == [21.0, 12.0]


def test_a_laplace_heatmap_is_decoded_to_half_a_voxel_by_its_centroid():
    size = (60, 50)
    points = random_points(2, 6, size, margin=6.0)
    decoded, confidence = heatmap_blob_centroid(draw_heatmaps(points, size, 40.0, "laplace"))
    assert (decoded - points).norm(dim=-1).max() < 0.71 and confidence.min() > 0.95


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("beta", [1.0, 10.0])
def test_the_soft_argmax_is_the_expectation_under_scipys_softmax(size, beta):
    heatmaps = draw_heatmaps(random_points(2, 3, size, 2.0), size, 3.0)
    points, _ = heatmap_soft_argmax(heatmaps, beta)
    probability = softmax(beta * heatmaps.double().numpy().reshape(2, 3, -1), axis=-1)
    voxels = np.stack(np.unravel_index(np.arange(probability.shape[-1]), size), -1)
    # The error of float32's exponential differs between CPUs; over a wide background it adds up.
    torch.testing.assert_close(points.double(), torch.from_numpy(probability @ voxels), atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_a_sharp_soft_argmax_gives_landmarks_back(size):
    # exp(beta * Gaussian) with beta well above log(voxels) is a narrow Gaussian of its own.
    points = random_points(2, 4, size, margin=5.0)
    decoded, _ = decode_heatmaps(draw_heatmaps(points, size, 5.0), "soft_argmax", beta=40.0)
    assert (decoded - points).abs().max() < 0.01


def test_the_soft_argmax_is_differentiable_beside_a_heatmap_of_nan():
    heatmaps = random_heatmaps(1, 2, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: heatmap_soft_argmax(h, beta=3.0)[0], (heatmaps,))
    broken = torch.cat([heatmaps, torch.full((1, 1, 5, 4), NAN)], 1)
    points, _ = heatmap_soft_argmax(broken)
    (gradient,) = torch.autograd.grad(points[:, :2].square().sum(), (heatmaps,))
    assert gradient.isfinite().all() and gradient.abs().max() > 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_a_heatmap_that_says_nothing_gives_nan_and_no_confidence(method, size):
    point = random_points(1, 1, size, margin=4.0)
    good = draw_heatmaps(point, size, 2.0)[0, 0]
    stain = good.clone()
    stain.view(-1)[7] = NAN
    heatmaps = torch.stack(
        [good, stain, *(torch.full(size, value) for value in (NAN, 0.0, 0.7, -0.3, INF, -INF)), good - INF]
    )
    points, confidence = decode_heatmaps(heatmaps[None], method)
    assert points[0, 0].isfinite().all() and confidence[0, 0] > 0.8
    assert points[0, 1:].isnan().all() and (confidence[0, 1:] == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_heatmap_below_zero_has_a_point_without_confidence(method):
    heatmaps = draw_heatmaps(torch.tensor([[[6.0, 7.0]]]), (15, 15), 2.0) - 1.5
    points, confidence = decode_heatmaps(heatmaps, method)
    assert confidence.item() == 0
    assert points[0, 0].isfinite().all()
    if method != "soft_argmax":
        assert points[0, 0].tolist() == pytest.approx([6.0, 7.0], abs=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_smoothing_leaves_gaussian_landmarks_and_confidences(size):
    points = random_points(2, 3, size, margin=1.0)
    heatmaps = draw_heatmaps(points, size, 1.5, scale=0.7)
    decoded, confidence = decode_heatmaps(heatmaps, "parabola", smoothing=1.0)
    inside = ((points > 5) & (points < torch.tensor(size) - 6)).all(-1)
    assert (decoded - points)[inside].abs().max() < 0.02 and (decoded - points).abs().max() < 1
    assert torch.equal(confidence, decode_heatmaps(heatmaps, "parabola")[1])


def test_smoothing_takes_the_middle_of_a_ridge_and_not_its_highest_noise():
    ridge = torch.zeros(1, 1, 60, 40)
    ridge[0, 0, 20:41, 17] = 0.5
    ridge[0, 0, 22, 17], ridge[0, 0, 45, 25] = 0.6, 0.7  # noise on the ridge, and a lonely voxel
    assert decode_heatmaps(ridge, "maximum")[0].tolist() == [[[45, 25]]]
    points, confidence = decode_heatmaps(ridge, "parabola", smoothing=6.0)
    assert (points - torch.tensor([30.0, 17.0])).abs().max() < 1 and confidence.item() == pytest.approx(0.7)


@pytest.mark.parametrize("method", ["maximum", "parabola"])
def test_smoothing_moves_no_peak_near_the_border(method):
    x = torch.arange(0, 40, 0.5)
    points = torch.stack([x, torch.full_like(x, 20.0)], -1)[None]
    heatmaps = draw_heatmaps(points, (80, 60), 3.0)
    decoded, _ = decode_heatmaps(heatmaps, method, smoothing=4.0)
    assert (decoded - points).abs().max() <= (0.5 if method == "maximum" else 0.1)
    mirrored, _ = decode_heatmaps(heatmaps.flip(2), method, smoothing=4.0)
    assert (79 - mirrored[..., 0] - points[..., 0]).abs().max() <= (0.5 if method == "maximum" else 0.1)


def test_smoothing_says_nothing_of_what_may_lie_beyond_the_border():
    one = smooth_heatmaps(torch.ones(1, 1, 30, 30), 2.0)
    assert one[0, 0, 15, 15].item() == pytest.approx(1, abs=1e-3) and one[0, 0, 0, 15].item() == pytest.approx(
        0.6, abs=0.05
    )


@pytest.mark.parametrize("method", METHODS)
def test_smoothing_keeps_what_says_nothing_apart(method):
    heatmaps = draw_heatmaps(torch.tensor([[[0.0, 9.0], [8.0, 9.0], [8.0, 9.0]]]), (17, 30), 2.0)
    heatmaps[0, 1], heatmaps[0, 2, 3, 4] = 0.25, torch.nan
    points, confidence = decode_heatmaps(heatmaps, method, smoothing=2.0)
    assert points[0, 1:].isnan().all() and confidence.tolist() == [[1, 0, 0]]
    if method in ("maximum", "parabola"):  # a peak on the border stays there
        assert (points[0, 0] - torch.tensor([0.0, 9.0])).abs().max() <= 0.5


@pytest.mark.parametrize("method", ["maximum", "parabola", "centroid"])
def test_a_heatmap_below_zero_is_decoded_without_smoothing(method):
    below = draw_heatmaps(torch.tensor([[[30.0, 40.0]]]), (80, 80), 5.0) * 0.2 - 0.25
    points, confidence = decode_heatmaps(below, method, smoothing=4.0)
    assert points.tolist() == [[[30.0, 40.0]]] and confidence.tolist() == [[0.0]]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_heatmaps_are_decoded_as_what_they_hold(method, dtype):
    size = (64, 48)
    points = random_points(2, 3, size, margin=6.0)
    scale = 6e4 if dtype == torch.float16 else 3e38  # just below the largest number
    heatmaps = draw_heatmaps(points, size, 3.0, scale=scale, dtype=dtype)
    decoding = {"threshold": 0.5 * scale} if method == "centroid" else {}
    decoded, confidence = decode_heatmaps(heatmaps, method, **decoding)
    expected, _ = decode_heatmaps(heatmaps.double(), method, **decoding)
    assert decoded.dtype == torch.float32 and (confidence == 1).all()
    torch.testing.assert_close(decoded.double(), expected, atol=1e-4, rtol=0)
    assert (decoded - points).abs().max() < (1.0 if dtype == torch.bfloat16 else 0.75)


@pytest.mark.parametrize("method", METHODS)
def test_each_heatmap_of_a_batch_is_decoded_as_if_it_were_alone(method):
    size = (17, 30)
    heatmaps = draw_heatmaps(random_points(2, 3, size, 2.0), size, 2.0) + 0.05 * random_heatmaps(2, 3, *size)
    points, confidence = decode_heatmaps(heatmaps, method)
    for b, n in np.ndindex(2, 3):
        alone = decode_heatmaps(heatmaps[b : b + 1, n : n + 1], method)
        torch.testing.assert_close(points[b, n], alone[0][0, 0])
        torch.testing.assert_close(confidence[b, n], alone[1][0, 0])


def test_an_unknown_method_and_a_missing_dimension_are_told():
    with pytest.raises(InputError, match="parabola"):
        decode_heatmaps(torch.zeros(1, 1, 4, 4), "argmax")
    with pytest.raises(InputError, match="cannot be decoded"):
        decode_heatmaps(torch.zeros(1, 4, 4))


def image_of(size):
    affine = torch.diag(torch.tensor([-0.5, -2.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([4.0, -7.0, 9.0])
    return MetaTensor(torch.zeros(1, *size), affine=affine, meta={"filename_or_obj": "hand.png"})


@pytest.mark.parametrize("size", SIZES)
def test_postprocessing_turns_heatmaps_into_world_landmarks(size):
    image = image_of(size)
    points = random_points(1, 3, size, margin=2.0)
    pred = MetaTensor(draw_heatmaps(points, size, 2.0)[0])
    pred[1] *= 0.2
    pred[2] = 0.0
    found = HeatmapsToLandmarksd()({"pred": pred, "image": image})
    assert found["pred"].shape == (1, 3, len(size)) and found["pred"].dtype == torch.float64
    assert found["confidence"].shape == (3,) and found["confidence"].dtype == torch.float32
    expected = points * image.affine.diagonal()[: len(size)] + image.affine[: len(size), 3]
    torch.testing.assert_close(found["pred"][0, :2], expected[0, :2], atol=0.01, rtol=0)
    assert found["pred"][0, 2].isnan().all() and found["confidence"][2] == 0

    sure = HeatmapsToLandmarksd(min_confidence=0.5, confidence_key="sure", method="centroid", threshold=0.8)
    sure = sure({"pred": pred, "image": image})
    assert sure["pred"][0].isposinf().all(-1).tolist() == [False, True, True]  # absent
    assert "confidence" not in sure and sure["sure"][1] > 0.15


def test_postprocessing_refuses_heatmaps_of_another_size_than_the_image():
    data = {"pred": torch.zeros(3, 10, 9), "image": image_of((20, 18))}
    with pytest.raises(InputError, match=r"hand\.png.*\(10, 9\).*\(20, 18\)"):
        HeatmapsToLandmarksd()(data)
    with pytest.raises(InputError, match="affine"):
        HeatmapsToLandmarksd()({**data, "image": torch.zeros(1, 10, 9)})
    with pytest.raises(InputError, match="parabola"):
        HeatmapsToLandmarksd(method="argmax")
