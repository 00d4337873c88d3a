"""The order and direction in which a file keeps its voxels changes no point in the world."""

from itertools import permutations, product

import numpy as np
import pytest

from .corpus import OBLIQUE, OFFSET, RAS, ROWS, SHEAR, SPACING, TO_RAS, VOLUME, lps
from .writers import mha, nifti, nrrd

VARIANTS_3D = list(product(permutations(range(3)), product((1, -1), repeat=3)))
VARIANTS_2D = list(product(permutations(range(2)), product((1, -1), repeat=2)))


def stored(values, affine, order, signs):
    """The same image with its axes in another order and direction, and the affine that says so."""
    dims = values.ndim
    there = np.ascontiguousarray(np.transpose(values, order)[tuple(slice(None, None, sign) for sign in signs)])
    index = np.zeros((affine.shape[0],) * 2)  # from the stored index to that of `values`
    index[-1, -1] = 1
    if affine.shape[0] == 4 and dims == 2:
        index[2, 2] = 1
    for axis, (source, sign) in enumerate(zip(order, signs)):
        index[source, axis] = sign
        index[source, -1] = 0 if sign > 0 else there.shape[axis] - 1
    return there, affine @ index


def test_the_variants_are_the_same_image_elsewhere_in_memory():
    for order, signs in VARIANTS_3D:
        there, affine = stored(VOLUME, RAS, order, signs)
        place = np.array([3, 2, 5])
        source = np.linalg.solve(RAS, affine @ [*place, 1])[:3]
        assert there[tuple(place)] == VOLUME[tuple(np.rint(source).astype(int))]


@pytest.mark.parametrize("name", ["patch_regression_ccta", "patch_regression_olfactory_mr"])
@pytest.mark.parametrize("place", [RAS, TO_RAS @ lps(SPACING, OFFSET, OBLIQUE)], ids=["straight", "oblique"])
def test_flips_turns_and_permutations_of_a_volume_give_the_same_world_points(name, place, predictor, tmp_path):
    predict = predictor(name)
    variants = VARIANTS_3D if place is RAS else VARIANTS_3D[::7]
    for number, (order, signs) in enumerate(variants):
        nifti(tmp_path / f"{number:02}.nii", *stored(VOLUME, place, order, signs))
    told = predict(tmp_path)
    assert not told.failures and len(told.rows) == len(variants)
    worlds = [told.rows[path].world for path in sorted(told.rows)]
    assert np.ptp(worlds, axis=0).max() < 0.01
    # what would be found without the matching affine
    nifti(tmp_path / "00.nii", VOLUME[::-1, ::-1].copy(), place)
    other = predict(tmp_path / "00.nii").rows[str(tmp_path / "00.nii")].world
    assert np.abs(other - worlds[0]).max() > 0.5


@pytest.mark.parametrize("name", ["scn_hand", "patch_regression_cephalometric"])
@pytest.mark.parametrize("ending", ["mha", "nii", "nrrd"])
def test_flips_turns_and_permutations_of_a_film_give_the_same_world_points(name, ending, predictor, tmp_path):
    """Of the formats that say how a film lies."""
    predict, place = predictor(name), lps((0.5, 0.7, 1), (3, 4, 0))
    for number, (order, signs) in enumerate(VARIANTS_2D):
        write_flat(tmp_path / f"{number}.{ending}", *stored(ROWS.T, place, order, signs))
    told = predict(tmp_path)
    assert not told.failures and len(told.rows) == 8
    worlds = [told.rows[path].world for path in sorted(told.rows)]
    assert np.ptp(worlds, axis=0).max() < 0.01
    first = told.rows[str(tmp_path / f"0.{ending}")]  # as a PNG is: not turned
    assert np.allclose(
        first.world, np.c_[first.pixels, first.pixels[:, 0] * 0] * [-0.5, -0.7, 0] + [-3, -4, 0], atol=1e-3
    )
    write_flat(tmp_path / f"0.{ending}", ROWS.T[::-1, ::-1].copy(), place)
    other = predict(tmp_path / f"0.{ending}").rows[str(tmp_path / f"0.{ending}")].world
    assert np.abs(other - worlds[0]).max() > 0.05


def write_flat(path, values, affine):
    if path.suffix == ".nii":
        nifti(path, values[..., None], affine)
        return
    matrix = np.diag([-1, -1, 1]) @ affine[:3, :3]  # LPS
    origin = affine[:3, 3] * [-1, -1, 1]
    if path.suffix == ".nrrd":
        vectors = " ".join(f"({','.join(map(str, column))})" for column in matrix.T)
        header = f"space: LPS\nspace directions: {vectors}\nspace origin: ({','.join(map(str, origin))})\n"
        nrrd(path, values[..., None], header)
        return
    spacing = np.linalg.norm(matrix[:2, :2], axis=0)
    turn = " ".join(map(str, (matrix[:2, :2] / spacing).T.ravel()))
    mha(path, values, f"TransformMatrix = {turn}\nOffset = {origin[0]} {origin[1]}\n"
                      f"ElementSpacing = {spacing[0]} {spacing[1]}\n")  # fmt: skip


@pytest.mark.parametrize("matrix", [np.eye(3), np.diag([-1, 1, -1]), OBLIQUE, SHEAR, OBLIQUE @ SHEAR],
                         ids=["straight", "flipped", "oblique", "sheared", "both"])  # fmt: skip
def test_what_the_network_sees_lies_in_the_world_where_the_file_has_it(matrix, predictor, tmp_path):
    """A volume whose grey value is a linear function of the place, whatever its axes, keeps to it when resampled."""
    predict, affine = predictor("patch_regression_ccta"), lps(SPACING, OFFSET, matrix)
    places = np.moveaxis(np.indices(VOLUME.shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    values = (places @ [1.5, -2, 2.5]).astype("<f4")
    turn = " ".join(map(str, matrix.T.ravel()))
    spacing, offset = (" ".join(map(str, numbers)) for numbers in (SPACING, OFFSET))
    mha(tmp_path / "a.mha", values, f"TransformMatrix = {turn}\nOffset = {offset}\nElementSpacing = {spacing}\n")
    image = predict.dataset.transform({"image": str(tmp_path / "a.mha")})["image"]
    seen = image[0].numpy() * 2000 - 1000  # the intensity window
    grid = image.affine.numpy()
    found = np.moveaxis(np.indices(seen.shape), 0, -1) @ grid[:3, :3].T + grid[:3, 3]
    inverse = np.linalg.inv(affine)
    voxels = found @ inverse[:3, :3].T + inverse[:3, 3]
    inside = ((voxels > 0.01) & (voxels < np.array(VOLUME.shape) - 1.01)).all(-1)
    assert inside.mean() > 0.4
    assert np.abs(seen - found @ [1.5, -2, 2.5])[inside].max() < 0.05
