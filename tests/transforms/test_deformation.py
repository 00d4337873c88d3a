import itk
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandAffined, RandFlipd, Spacingd
from scipy.interpolate import BSpline
from scipy.ndimage import map_coordinates

from common.errors import InputError
from common.transforms import RandAffineElastic, RandAffineElasticd

NAN, ABSENT = float("nan"), float("inf")
SIZES = [(96, 140), (150, 101), (64, 56, 72)]
STRONG = {
    "rotate_range": 0.3,
    "scale_range": 0.2,
    "axis_scale_range": 0.1,
    "translate_range": 4,
    "magnitude": 5,
}


def make_affine(dims, seed=0):
    """An oblique, anisotropic and sheared affine in three dimensions, an in-plane one of that kind in two."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    turn = np.linalg.qr(rng.normal(size=(dims, dims)))[0]
    shear = np.eye(dims) + 0.2 * np.triu(rng.uniform(-1, 1, (dims, dims)), 1)
    affine[:dims, :dims] = turn @ shear @ np.diag(rng.uniform(0.5, 1.5, dims))
    affine[:dims, 3] = rng.uniform(-50, 50, dims)
    return torch.tensor(affine)


def to_world(voxel, affine):
    dims = len(voxel)
    affine = np.asarray(affine)
    return affine[:dims, :dims] @ voxel + affine[:dims, -1]


def to_voxel(world, affine):
    dims = len(world)
    affine = np.asarray(affine)
    return np.linalg.solve(affine[:dims, :dims], np.asarray(world) - affine[:dims, -1])


def as_label(*worlds):
    return torch.tensor(np.array(worlds), dtype=torch.float64)[None]


def draw_blob(size, centre, sigma=1.5):
    axes = np.meshgrid(*[np.arange(n) for n in size], indexing="ij")
    squared = sum((x - c) ** 2 for x, c in zip(axes, centre))
    return torch.tensor(np.exp(-squared / (2 * sigma**2)), dtype=torch.float32)[None]


def find_blob(img, radius=6):
    """The intensity centroid around the brightest voxel."""
    values = np.asarray(img)[0].astype(float)
    top = np.unravel_index(values.argmax(), values.shape)
    window = tuple(slice(max(0, t - radius), t + radius + 1) for t in top)
    values = values[window]
    axes = np.meshgrid(*[s.start + np.arange(n) for s, n in zip(window, values.shape)], indexing="ij")
    return np.array([(x * values).sum() / values.sum() for x in axes])


def coordinate_images(size):
    """One channel for each axis that holds the voxel coordinate: interpolation keeps it exactly."""
    axes = np.meshgrid(*[np.arange(n) for n in size], indexing="ij")
    return torch.tensor(np.stack(axes), dtype=torch.float32)


def elastic(size, seed=0, **kwargs):
    """The deformation of an image of unit affine, and the field of displacements in it."""
    transform = RandAffineElastic(**{"magnitude": 5, **kwargs}).set_random_state(seed)
    transform.randomize(len(size))
    return transform.deformation(torch.zeros(1, *size)).field


@pytest.mark.parametrize("size", SIZES)
def test_a_landmark_stays_on_its_blob(size):
    affine, dims, errors = make_affine(len(size)), len(size), []
    rng = np.random.default_rng(1)
    for seed in range(20 if dims == 2 else 8):
        centre = np.array(size) / 2 + rng.uniform(-0.15, 0.15, dims) * size
        data = {"image": MetaTensor(draw_blob(size, centre), affine=affine)}
        data["label"] = as_label(to_world(centre, affine))
        out = RandAffineElasticd(**STRONG).set_random_state(seed)(data)
        assert np.abs(np.asarray(out["image"].affine - affine)).max() > 1e-3
        errors.append(find_blob(out["image"]) - to_voxel(out["label"][0, 0], out["image"].affine))
    assert np.abs(errors).max() < 0.1


@pytest.mark.parametrize("size", [(2000, 1700), (96, 140), (64, 56, 72)])
def test_the_output_at_a_landmark_shows_the_input_at_the_landmark(size):
    affine, dims = make_affine(len(size)), len(size)
    points = np.random.default_rng(0).uniform(0.3, 0.7, (30, dims)) * size
    settings = {"rotate_range": 0.2, "scale_range": 0.1, "magnitude": 0.03 * min(size)}
    data = {
        "image": MetaTensor(coordinate_images(size), affine=affine),
        "label": as_label(*[to_world(p, affine) for p in points]),
    }
    out = RandAffineElasticd(**settings).set_random_state(0)(data)
    moved = np.array([to_voxel(w, out["image"].affine) for w in out["label"][0]])
    shown = np.array([map_coordinates(np.asarray(c), moved.T, order=1) for c in out["image"]]).T
    assert np.abs(shown - points).max() < 0.002


def test_without_elastic_part_world_points_are_unchanged_bit_for_bit():
    affine = make_affine(2)
    points = as_label([3.3, -7.7], [1 / 3, NAN], [ABSENT, ABSENT])
    data = {"image": MetaTensor(draw_blob((40, 50), (20, 20)), affine=affine), "label": points.clone()}
    out = RandAffineElasticd(**{**STRONG, "magnitude": 0}).set_random_state(0)(data)
    assert torch.equal(out["label"].nan_to_num(9), points.nan_to_num(9))
    assert not torch.equal(out["image"].affine, affine)


@pytest.mark.parametrize("size", SIZES)
def test_parameters_of_zero_leave_the_image_identical(size):
    image = MetaTensor(torch.rand(2, *size), affine=make_affine(len(size)))
    out = RandAffineElastic()(image)
    assert torch.equal(out.as_tensor(), image.as_tensor()) and torch.equal(out.affine, image.affine)


@pytest.mark.parametrize("size", SIZES)
def test_the_field_is_that_of_a_direct_sum_of_scipy_splines(size):
    field = elastic(size, control_points=[5, 7, 6][: len(size)])
    u = field.dense().numpy()
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = [int(rng.integers(n)) for n in size]
        expected = field.coefficients.numpy()
        for axis, n in enumerate(size):
            count = field.control_points[axis]
            cell = n / (count - 3)
            knots = (np.arange(count + 4) - 3) * cell - 0.5
            basis = [BSpline.basis_element(knots[i : i + 5], extrapolate=False)(x[axis]) for i in range(count)]
            expected = np.tensordot(expected, np.nan_to_num(basis), axes=([1], [0]))
        assert u[(slice(None), *x)] == pytest.approx(expected, abs=1e-5)


def test_the_field_is_that_of_itk():
    size, count = (60, 84), 5
    field = elastic(size)
    spline = itk.BSplineTransform[itk.D, 2, 3].New()
    spline.SetTransformDomainOrigin([-0.5, -0.5])
    spline.SetTransformDomainPhysicalDimensions(size)
    spline.SetTransformDomainMeshSize([count - 3] * 2)
    parameters = itk.OptimizerParameters[itk.D](field.coefficients.numel())
    for i, value in enumerate(field.coefficients.numpy().transpose(0, 2, 1).ravel()):  # ITK: x runs fastest
        parameters.SetElement(i, value)
    spline.SetParameters(parameters)
    for x in ([0, 0], [3.25, 70.5], [59, 83], [30, 41.9]):
        displacement = field.at(torch.tensor([x], dtype=torch.float64))[0][0].numpy()
        assert np.array(spline.TransformPoint(x)) - x == pytest.approx(displacement, abs=1e-9)


@pytest.mark.parametrize("size", [(80, 60), (48, 40, 44)])
@pytest.mark.parametrize("magnitude", [5, 200])
def test_the_jacobian_is_positive_everywhere(size, magnitude):
    for seed in range(4):
        field = elastic(size, seed, magnitude=magnitude, control_points=6)
        assert field.coefficients.abs().max() > 1
        axes = [torch.linspace(-0.6 * n, 1.6 * n, 200 if len(size) == 2 else 27).double() for n in size]
        x = torch.cartesian_prod(*axes)
        h = 1e-4
        steps = h * torch.eye(len(size), dtype=torch.float64)
        derivative = torch.stack([(field.at(x + s)[0] - field.at(x - s)[0]) / (2 * h) for s in steps], -1)
        jacobian = torch.linalg.det(torch.eye(len(size)) + derivative)
        assert jacobian.min() > 0.08  # sampled at 0.1


@pytest.mark.parametrize("size", [(80, 60), (48, 40, 44)])
@pytest.mark.parametrize("magnitude", [5, 200])
def test_the_inverse_of_the_field_is_exact_on_and_off_the_image(size, magnitude):
    # a damped field comes close to folding, which is where a fixed-point iteration fails
    for seed in range(4):
        field = elastic(size, seed, magnitude=magnitude)
        q = torch.rand(200, len(size), dtype=torch.float64) * 2 * torch.tensor(size) - torch.tensor(size) / 2
        assert (field.invert(q + field.at(q)[0]) - q).abs().max() < 1e-6


def test_the_papers_setting_is_not_damped():
    # payer2019: 5 x 5 control points, 10 mm of 240 mm on 512 pixels
    for seed in range(20):
        transform = RandAffineElastic(magnitude=512 * 10 / 240).set_random_state(seed)
        transform.randomize(2)
        field = transform.deformation(torch.zeros(1, 512, 512)).field
        assert field.coefficients.numpy() == pytest.approx(transform._displacements)


@pytest.mark.parametrize("dims", [2, 3])
def test_rows_of_nan_and_of_infinity_stay(dims):
    rows = [[5.0] * dims, [NAN] * dims, [ABSENT] * dims, [8.0] * dims]
    data = {"image": MetaTensor(torch.rand(1, *[20] * dims), affine=torch.eye(4)), "label": as_label(*rows)}
    out = RandAffineElasticd(**STRONG).set_random_state(0)(data)["label"]
    assert out.shape == (1, 4, dims) and out.dtype == torch.float64
    assert out[0, 1].isnan().all() and (out[0, 2] == ABSENT).all()
    assert out[0, [0, 3]].isfinite().all() and (out[0, 0] != 5).all()
    nobody = RandAffineElasticd(**STRONG)({**data, "label": as_label([NAN] * dims)})["label"]
    assert nobody.isnan().all()


def test_a_seed_repeats_the_deformation():
    data = {"image": MetaTensor(torch.rand(1, 30, 40)), "label": as_label([10.0, 12.0])}
    transform = RandAffineElasticd(**STRONG)
    first, other = transform.set_random_state(3)(data), transform(data)
    again = transform.set_random_state(3)(data)
    assert torch.equal(first["image"], again["image"]) and torch.equal(first["label"], again["label"])
    assert not torch.equal(first["image"], other["image"])
    assert torch.equal(data["label"], as_label([10.0, 12.0]))


def test_the_rotation_keeps_physical_shapes_where_voxels_are_anisotropic():
    affine = torch.diag(torch.tensor([-0.5, -0.5, 3.0, 1.0], dtype=torch.float64))
    transform = RandAffineElastic(rotate_range=0.4, translate_range=2).set_random_state(0)
    out = transform(MetaTensor(torch.rand(1, 30, 32, 12), affine=affine)).affine[:3, :3]
    assert np.asarray(out.T @ out) == pytest.approx(np.diag([0.25, 0.25, 9.0]), abs=1e-9)


def test_the_image_turns_about_its_centre_by_the_backward_map():
    affine, size = make_affine(2), (41, 61)
    transform = RandAffineElastic(scale_range=0.2, translate_range=(3, 0)).set_random_state(1)
    out = transform(MetaTensor(torch.rand(1, *size), affine=affine))
    scale, shift = transform._scale[0], transform._translation
    # the centre of the output shows the centre of the input, shifted; one voxel further, one scale further
    centre = np.array([20.0, 30.0])
    assert to_voxel(to_world(centre, out.affine), affine) == pytest.approx(centre + shift)
    assert to_voxel(to_world(centre + 1, out.affine), affine) == pytest.approx(centre + shift + scale)
    assert shift[1] == 0 and shift[0] != 0 and scale != 1


def test_what_lies_outside_has_the_padding_value_or_the_border():
    image = MetaTensor(torch.full((1, 30, 30), 5.0))
    for seed in range(5):
        constant = RandAffineElastic(translate_range=20, padding_value=-1.0).set_random_state(seed)(image)
        border = RandAffineElastic(translate_range=20, padding_mode="border").set_random_state(seed)(image)
        assert [constant.min(), constant.max()] == pytest.approx([-1, 5], abs=1e-5)
        assert border.numpy() == pytest.approx(5, abs=1e-5)


def test_several_images_get_the_same_deformation_in_their_own_mode():
    image = torch.rand(1, 30, 40)
    data = {"image": MetaTensor(image), "mask": MetaTensor((image > 0.5).float())}
    out = RandAffineElasticd(
        ["image", "mask"], None, mode=["bilinear", "nearest"], padding_value=[0.5, 0], **STRONG
    ).set_random_state(0)(data)
    assert set(out["mask"].unique().tolist()) == {0, 1}
    alone = RandAffineElasticd("mask", None, mode="nearest", **STRONG).set_random_state(0)(data)
    assert torch.equal(alone["mask"], out["mask"])
    assert torch.equal(out["image"].affine, out["mask"].affine)


def test_it_follows_lazy_transforms_and_affines_of_two_dimensions():
    affine, size, centre = make_affine(2), (96, 140), (45.3, 72.8)
    data = {"image": MetaTensor(draw_blob(size, centre), affine=affine)}
    data["label"] = as_label(to_world(np.array(centre), affine))
    chain = Compose(
        [
            Spacingd("image", (0.8, 0.9)),
            RandAffined("image", prob=1, rotate_range=0.2),
            RandFlipd("image", prob=1, spatial_axis=0),
            RandAffineElasticd(**STRONG),
        ],
        lazy=True,
    ).set_random_state(0)
    out = chain(data)
    assert not out["image"].pending_operations
    error = find_blob(out["image"]) - to_voxel(out["label"][0, 0], out["image"].affine)
    assert np.abs(error).max() < 0.1
    # called by itself on an image whose operations are pending
    pending = RandFlipd("image", prob=1, spatial_axis=0)(data, lazy=True)
    out = RandAffineElasticd(**STRONG).set_random_state(0)(pending)
    error = find_blob(out["image"]) - to_voxel(out["label"][0, 0], out["image"].affine)
    assert np.abs(error).max() < 0.1


def test_meta_is_kept_and_the_input_left_alone():
    meta = {"mm_per_world": 0.7, "filename_or_obj": "a.png", "pixdim": np.ones(8)}
    image = MetaTensor(torch.rand(1, 30, 40), affine=torch.eye(4), meta=meta)
    before = image.clone()
    out = RandAffineElastic(**STRONG).set_random_state(0)(image)
    assert out.meta["mm_per_world"] == 0.7 and out.meta["filename_or_obj"] == "a.png"
    assert torch.equal(image, before) and torch.equal(image.affine, torch.eye(4).double())


def test_a_probability_of_zero_changes_nothing():
    data = {"image": MetaTensor(torch.rand(1, 30, 40)), "label": as_label([3.0, 4.0])}
    out = RandAffineElasticd(prob=0, **STRONG)(data)
    assert torch.equal(out["image"], data["image"]) and torch.equal(out["label"], data["label"])
    assert torch.equal(RandAffineElastic(prob=0, **STRONG)(data["image"]), data["image"])


def test_a_plain_tensor_is_deformed_with_its_points_in_voxels():
    blob = draw_blob((60, 70), (31.3, 33.6))
    data = {"image": blob, "label": as_label([31.3, 33.6])}
    out = RandAffineElasticd(magnitude=6).set_random_state(0)(data)
    assert find_blob(out["image"]) == pytest.approx(out["label"][0, 0].numpy(), abs=0.1)


@pytest.mark.parametrize(
    "settings",
    [
        {"control_points": 3},
        {"scale_range": 1.0},
        {"magnitude": -1},
        {"padding_mode": "zeros"},
        {"min_jacobian": 1.0},
        {"magnitude": (1, 2, 3)},
    ],
)
def test_a_senseless_setting_is_refused(settings):
    with pytest.raises(InputError):
        RandAffineElastic(**settings)(torch.rand(1, 20, 20))


def test_landmarks_of_another_dimension_and_images_of_another_size_are_refused():
    data = {"image": MetaTensor(torch.rand(1, 20, 20)), "label": as_label([1.0, 2.0, 3.0])}
    with pytest.raises(InputError, match="3 coordinates"):
        RandAffineElasticd(**STRONG)(data)
    data = {"image": MetaTensor(torch.rand(1, 20, 20)), "other": MetaTensor(torch.rand(1, 20, 22))}
    with pytest.raises(InputError, match="image, other"):
        RandAffineElasticd(["image", "other"], None, **STRONG)(data)
