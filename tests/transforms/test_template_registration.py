import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import Compose, LoadImaged, ScaleIntensityd
from scipy.ndimage import gaussian_filter, map_coordinates

import common
from common.data import LandmarkDataset, LandmarkImageReader
from common.data.isbi2015 import read_annotation
from common.errors import InputError
from common.transforms import LoadLandmarksd, RegisterToTemplate, RegisterToTemplated
from common.transforms.coordinates import voxel_to_world, world_to_voxel
from common.transforms.template_registration import average_template, make_template, resample

REAL = Path(common.__file__).resolve().parents[2] / "shared" / "data" / "isbi2015_cephalometric"
FILM = (240, 300)
POINTS = np.array([[90.0, 120], [170, 110], [185, 200], [120, 230], [100, 180]])  # pixels of the film that is not moved
AFFINE = np.diag([-0.5, -0.5, 1.0, 1.0])


def head(matrix=None, seed=0, size=FILM):
    """A head-like picture in which pixel x shows what the unmoved one shows at matrix @ x."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    if matrix is not None:
        x, y = (matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] for i in (0, 1))
    picture = 0.6 * np.exp(-((np.hypot((x - 120) / 85, (y - 130) / 100) / 0.95) ** 8))  # skull
    picture += 0.5 * (np.abs(np.hypot((x - 120) / 85, (y - 130) / 100) - 0.93) < 0.04)
    for a, b, r, value in ((90, 120, 12, 0.4), (170, 110, 16, -0.4), (185, 200, 10, 0.5), (120, 230, 20, 0.3)):
        picture += value * (np.hypot(x - a, y - b) < r)
    picture += 0.4 * (np.abs(x - 100 - 0.4 * (y - 180)) < 5) * (np.abs(y - 180) < 40)
    picture = gaussian_filter(picture, 1.5) + np.random.default_rng(seed).normal(0, 0.02, size)
    return MetaTensor(torch.as_tensor(picture[None], dtype=torch.float32), affine=torch.as_tensor(AFFINE))


def moved(scale=1.1, degrees=8.0, shift=(-14, 9), shear=0.05):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    linear = scale * np.array([[c, -s], [s, c]]) @ np.array([[1, shear], [0, 1]])
    centre = np.array(FILM) / 2
    return np.block([[linear, (centre - linear @ centre + shift)[:, None]], [np.zeros((1, 2)), np.ones((1, 1))]])


def places(matrix):
    """Where POINTS are in head(matrix)."""
    return np.linalg.solve(matrix, np.c_[POINTS, np.ones(5)].T)[:2].T


def world(pixels):
    return voxel_to_world(torch.as_tensor(pixels)[None], torch.as_tensor(AFFINE))


@pytest.fixture(scope="module")
def template():
    return make_template(head(), world(POINTS), size=(128, 128), margin=0.3)


def test_a_template_shows_all_landmarks_with_a_margin_in_square_pixels():
    film = head()
    for size, margin in (((128, 128), 0.3), ((96, 160), 0.1)):
        image, window = make_template(film, world(POINTS), size, margin)
        assert image.shape == (1, *size) and type(image) is torch.Tensor and 0 <= image.min() < image.max() <= 1
        low, high = window.numpy().reshape(2, 2) * FILM
        assert np.ptp((high - low) / size) < 1e-9
        space = margin * np.ptp(POINTS, axis=0).max()
        assert (low <= POINTS.min(0) + 0.5 - space + 1e-9).all() and (high >= POINTS.max(0) + 0.5 + space - 1e-9).all()
        # Pixel 40, 50 of the template shows the film there.
        x, y = low + (np.array([40, 50]) + 0.5) * (high - low) / size - 0.5
        raw = film[0].numpy()
        bounds = np.percentile(raw, [1, 99])
        expected = (map_coordinates(gaussian_filter(raw, 0.5), [[x], [y]], order=1)[0] - bounds[0]) / np.ptp(bounds)
        assert abs(image[0, 40, 50] - expected) < 0.15


@pytest.mark.parametrize("motion", [{}, {"scale": 0.88, "degrees": -12, "shift": (10, 5)}, {"shift": (0, -25)}])
def test_landmarks_of_a_moved_film_come_to_lie_where_the_template_has_them(template, motion):
    matrix = moved(**motion)
    label = world(places(matrix))
    before = label.clone()
    item = RegisterToTemplated("image", template=template.image, window=template.window)(
        {"image": head(matrix, seed=1), "label": label}
    )
    assert item["image"].shape == (1, 128, 128) and item["image"].meta["registered"]
    low, high = template.window.numpy().reshape(2, 2) * FILM
    expected = (POINTS + 0.5 - low) / (high - low) * 128 - 0.5
    found = world_to_voxel(item["label"][0], item["image"].affine).numpy()
    assert np.abs(found - expected).max() < 1.0
    assert item["label"] is label and torch.equal(label, before)
    # A prediction in the template goes back to the film through the affine.
    assert (voxel_to_world(torch.as_tensor(found)[None], item["image"].affine) - before).abs().max() < 1e-6


@pytest.mark.parametrize("least", [0.3, 1.4])
def test_a_mirrored_film_is_found_in_its_mirror_where_that_is_wanted(template, tmp_path, caplog, least):
    settings = {"min_information": least, "cache_dir": tmp_path}
    matrix = moved()
    flipped = MetaTensor(head(matrix).flip(1), affine=torch.as_tensor(AFFINE), meta={"filename_or_obj": "left.png"})
    label = world(places(matrix) * [-1, 1] + [FILM[0] - 1, 0])
    # Mutual information is 1.1 as it lies, 1.7 in its mirror.
    assert not RegisterToTemplate(*template, min_information=1.4)(flipped).meta["registered"]
    for _ in range(2):  # the second time from the cache
        caplog.clear()
        out = RegisterToTemplate(*template, sure_information=1.4, **settings)(flipped)
        assert out.meta["registered"] and "left.png: fits the template in its mirror" in caplog.text
        expected = RegisterToTemplate(*template)(head(matrix))
        assert (out - expected).abs().mean() < 0.01
        found = world_to_voxel(label, out.affine)
        assert (found - world_to_voxel(world(places(matrix)), expected.affine)).abs().max() < 0.5
    caplog.clear()
    assert (
        RegisterToTemplate(*template, sure_information=1.4, **settings)(head(matrix)).meta["registered"]
        and not caplog.text
    )


@pytest.mark.parametrize("motion", [{"degrees": -28}, {"scale": 1.9, "degrees": -20, "shift": (30, 30)}])
def test_a_film_on_which_the_search_loses_its_way_is_found_from_another_start(template, caplog, motion):
    matrix = moved(shear=0, **motion)
    label = world(places(matrix))
    wanted = world_to_voxel(world(POINTS), RegisterToTemplate(*template)(head()).affine)
    offs = []
    for sure in (0.0, 1.5):
        out = RegisterToTemplate(*template, scale_range=(0.5, 2.0), sure_information=sure)(head(matrix))
        offs.append(float((world_to_voxel(label, out.affine) - wanted).norm(dim=-1).max()))
    assert offs[0] > 10 and offs[1] < 2 and "mirror" not in caplog.text


def test_the_registered_image_shows_the_film_where_its_affine_says(template):
    film = head(moved())
    image = RegisterToTemplate(*template)(film)
    pixels = torch.tensor([[30.0, 40], [64, 64], [90, 100]], dtype=torch.float64)
    at = world_to_voxel(voxel_to_world(pixels, image.affine), film.affine).numpy()
    expected = map_coordinates(gaussian_filter(film[0].numpy(), 0.4), at.T, order=1)
    shown = image[0].numpy()[tuple(pixels.long().numpy().T)]
    assert np.abs(shown - expected).max() < 0.05


def test_a_film_of_another_resolution_gives_the_same_place(template):
    film = head(moved())
    large = resample(film, np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]]), (480, 600))
    found = [
        world_to_voxel(world(places(moved()))[0], RegisterToTemplate(*template)(image).affine)
        for image in (film, large)
    ]
    assert (found[0] - found[1]).abs().max() < 0.5


def test_registration_gives_exactly_the_same_on_every_run(template):
    film = head(moved())
    first, second = (RegisterToTemplate(*template)(film) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(first.affine, second.affine)


@pytest.mark.parametrize("kind", ["noise", "constant", "too far turned"])
def test_what_is_no_such_film_is_taken_as_it_lies_with_a_warning_that_names_it(template, caplog, kind):
    film = {
        "noise": lambda: torch.rand(1, *FILM, generator=torch.Generator().manual_seed(0)),
        "constant": lambda: torch.zeros(1, *FILM),
        "too far turned": lambda: head(moved()).as_tensor(),
    }[kind]()
    film = MetaTensor(film, affine=torch.as_tensor(AFFINE), meta={"filename_or_obj": "odd.png"})
    with caplog.at_level(logging.WARNING):
        out = RegisterToTemplate(*template, max_rotation=4)(film)
    assert not out.meta["registered"] and "odd.png: could not be registered" in caplog.text
    # It lies as the template does on its film.
    low, high = template.window.numpy().reshape(2, 2) * FILM
    corner = world_to_voxel(voxel_to_world(torch.zeros(1, 2), out.affine), film.affine)[0].numpy()
    assert np.allclose(corner, low + (high - low) / 256 - 0.5, atol=1e-6) and out.shape == (1, 128, 128)


@pytest.mark.parametrize(
    ("linear", "reason"),
    [
        ([[1.05, 0.1], [-0.1, 0.9]], ""),
        ([[1.5, 0], [0, 1]], "scales 1.50 and 1.00"),
        ([[0.9, 0], [0, 0.6]], "scales 0.90 and 0.60"),
        ([[0.8, -0.6], [0.6, 0.8]], "rotation by 37 degrees"),
        ([[-1, 0], [0, 1]], "singular, or mirrored"),
        ([[1, 1], [1, 1]], "singular, or mirrored"),
        ([[np.nan, 0], [0, 1]], "singular, or mirrored"),
    ],
)
def test_implausible_maps_are_told(template, linear, reason):
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    assert RegisterToTemplate(*template).implausible(matrix) == reason


def test_the_film_of_the_template_itself_is_registered(template):
    out = RegisterToTemplate(*template)(head())
    low, high = template.window.numpy().reshape(2, 2) * FILM
    found = world_to_voxel(world(POINTS)[0], out.affine).numpy()
    assert out.meta["registered"]
    assert np.abs(found - ((POINTS + 0.5 - low) / (high - low) * 128 - 0.5)).max() < 0.2


def test_a_result_is_kept_by_content(template, tmp_path, monkeypatch):
    register = RegisterToTemplate(*template, cache_dir=tmp_path)
    first = register(head(moved()))
    monkeypatch.setattr(RegisterToTemplate, "register", lambda *args: pytest.fail("registered anew"))
    assert torch.equal(register(head(moved())).affine, first.affine)
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["failure"] == ""
    with pytest.raises(pytest.fail.Exception):
        register(head(moved(), seed=5))


def test_a_buffer_that_is_replaced_is_seen_through_a_function(template):
    model = torch.nn.Module()
    model.register_buffer("template", torch.zeros_like(template.image))
    model.register_buffer("window", template.window)
    register = RegisterToTemplate(lambda: model.template, lambda: model.window)
    assert not register(head()).meta["registered"]
    model.template = template.image
    assert register(head()).meta["registered"]


def test_the_average_of_films_is_sharper_registered_than_not(template):
    films = [head(moved(shift=shift, degrees=degrees), seed=3) for shift, degrees in (((9, 3), 5), ((-9, 4), -6))]
    averaged = average_template(films, template)
    assert averaged.image.shape == template.image.shape and torch.equal(averaged.window, template.window)
    still = torch.stack([make_template(film, world(POINTS), (128, 128), 0.3).image for film in films]).mean(0)
    correlation = [np.corrcoef(image.ravel(), template.image.ravel())[0, 1] for image in (averaged.image, still)]
    assert correlation[0] > 0.97 > correlation[1]


def test_registered_items_are_cached_and_collated(template):
    items = [{"image": head(moved(), seed=i), "label": world(places(moved()))} for i in range(2)]
    register = RegisterToTemplated("image", template=template.image, window=template.window)
    data = LandmarkDataset(items, [register, ScaleIntensityd("image")], progress=False)
    batch = next(iter(DataLoader(data, batch_size=2)))
    assert batch["image"].shape == (2, 1, 128, 128) and batch["image"].affine.shape == (2, 4, 4)


def test_volumes_and_malformed_templates_are_refused(template):
    with pytest.raises(InputError, match="only flat images"):
        RegisterToTemplate(*template)(MetaTensor(torch.zeros(1, 4, 4, 4)))
    with pytest.raises(ValueError, match="four edges"):
        RegisterToTemplate(template.image[0], template.window)(head())
    with pytest.raises(InputError, match="no two landmarks"):
        make_template(head(), torch.full((1, 5, 2), torch.nan))


def test_landmarks_of_real_films_lie_closer_together_after_registration():
    folder = REAL / "RawImage" / "TrainingData"
    if not folder.is_dir():
        pytest.skip(f"the ISBI 2015 films are not in {REAL}")
    load = Compose([
        LoadImaged("image", reader=LandmarkImageReader(), ensure_channel_first=True, image_only=True),
        LoadLandmarksd("label"),
    ])  # fmt: skip
    senior = REAL / "AnnotationsByMD" / "400_senior"
    films = [
        load({"image": str(folder / f"{n:03d}.jpg"), "landmarks": read_annotation(senior / f"{n:03d}.txt")})
        for n in (9, 1, 8, 36, 57, 85)
    ]
    template = make_template(films[0]["image"], films[0]["label"])
    register = RegisterToTemplate(*template)
    registered = [register(film["image"]) for film in films[1:]]
    assert all(image.meta["registered"] for image in registered)
    before = np.stack([world_to_voxel(film["label"][0], film["image"].affine).numpy() for film in films[1:]])
    pixel = (template.window[2] - template.window[0]).item() * films[0]["image"].shape[1] / 512
    after = np.stack(
        [world_to_voxel(film["label"][0], image.affine).numpy() for film, image in zip(films[1:], registered)]
    )
    assert (after > -0.5).all() and (after < 511.5).all()
    spread = [np.linalg.norm(p - p.mean(0), axis=-1).mean() for p in (before, after * pixel)]
    assert spread[1] < 0.6 * spread[0]
