"""A network's template is made of its training films, which are read from disk."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from common.errors import InputError
from common.networks import AppearanceContextNet
from common.transforms import fit_template

SIZE = (150, 180)
NAMES = ["ear", "eye", "mouth"]
POINTS = np.array([[55.0, 80], [105, 70], [110, 125]])


def head(shift=(0, 0), noise=0.0, seed=0):
    """A head-like picture, 8 bit, x first."""
    x, y = np.meshgrid(*map(np.arange, SIZE), indexing="ij")
    x, y = x - shift[0], y - shift[1]
    radius = np.hypot((x - 75) / 52, (y - 85) / 62)
    picture = 0.5 * (radius < 1) + 0.4 * (np.abs(radius - 0.95) < 0.06)
    for (a, b), size, value in zip(POINTS, (8, 10, 7), (0.4, -0.3, 0.4)):
        picture += value * (np.hypot(x - a, y - b) < size)
    picture += 0.3 * (np.abs(x - 60 - 0.4 * (y - 115)) < 4) * (np.abs(y - 115) < 25)
    picture = gaussian_filter(picture, 1.0) + np.random.default_rng(seed).normal(0, noise, SIZE)
    return np.clip(40 + 120 * picture, 0, 255).astype(np.uint8)


def save(path, picture, points=POINTS):
    """An item of a datalist."""
    Image.fromarray(picture.T).save(path)
    return {"image": str(path), "landmarks": points.tolist()}


def network(size=(64, 64)):
    return AppearanceContextNet(2, 1, 3, context_size=8, num_filters=2, context_filters=2, template_size=size)


def test_one_film_is_cut_so_that_all_landmarks_show_with_a_margin_in_square_pixels(tmp_path):
    own = network((64, 48))
    data = [save(tmp_path / "a.png", head()), {"image": str(tmp_path / "not read.png"), "landmarks": POINTS.tolist()}]
    assert fit_template(own, data, NAMES, num_films=1, margin=0.2) is own
    low, high = own.template_window.numpy().reshape(2, 2) * SIZE
    margin = 0.2 * (POINTS.max(0) - POINTS.min(0)).max()
    assert np.ptp((high - low) / (64, 48)) < 1e-9
    assert (low <= POINTS.min(0) + 0.5 - margin + 1e-9).all() and (high >= POINTS.max(0) + 0.5 + margin - 1e-9).all()
    assert np.isclose((high - low) / (np.ptp(POINTS, axis=0) + 2 * margin), 1).any()  # and not larger than it must be
    # the template shows that part of the film, its grey values stretched
    places = low[:, None, None] + (np.indices((64, 48)) + 0.5) * ((high - low) / (64, 48))[:, None, None] - 0.5
    shown = map_coordinates(head().astype(float), places, order=1, mode="nearest")
    assert own.template.shape == (1, 64, 48) and 0 <= own.template.min() < own.template.max() <= 1
    assert np.corrcoef(shown.ravel(), own.template.numpy().ravel())[0, 1] > 0.99


def test_the_average_of_films_shows_the_head_clearer_than_the_first_film_alone(tmp_path):
    shifts = [(0, 0), (4, -3), (-3, 2), (2, 4)]
    data = [save(tmp_path / f"{i}.png", head(shift, 0.25, i), POINTS + shift) for i, shift in enumerate(shifts)]
    clear = fit_template(network(), [save(tmp_path / "clear.png", head())], NAMES, num_films=1)
    alone, average = (fit_template(network(), data, NAMES, num_films=n) for n in (1, 4))
    assert torch.equal(alone.template_window, average.template_window)
    assert torch.equal(alone.template_window, clear.template_window)
    agreement = [np.corrcoef(clear.template.ravel(), other.template.ravel())[0, 1] for other in (alone, average)]
    assert agreement[1] > 0.9 and 1 - agreement[1] < 0.6 * (1 - agreement[0])


def test_films_are_taken_evenly_from_the_list_and_no_others_are_read(tmp_path):
    data = [{"image": str(tmp_path / f"{i}.png"), "landmarks": POINTS.tolist()} for i in range(7)]
    for i in (0, 2, 4):
        save(tmp_path / f"{i}.png", head(noise=0.05, seed=i))
    fit_template(network(), data, NAMES, num_films=3)
    with pytest.raises(Exception, match="3.png"):
        fit_template(network(), data, NAMES, num_films=2)


def test_more_films_than_there_are_take_all(tmp_path):
    data = [save(tmp_path / f"{i}.png", head(noise=0.1, seed=i)) for i in range(2)]
    few, many = (fit_template(network(), data, NAMES, num_films=n) for n in (2, 50))
    assert torch.equal(few.template, many.template)


def test_the_landmarks_may_be_a_file_under_label_as_monai_label_sends_it(tmp_path):
    item = save(tmp_path / "a.png", head())
    with open(tmp_path / "points.csv", "w", newline="") as file:
        csv.writer(file).writerows([["name", "x", "y"], *([name, *p] for name, p in zip(NAMES, POINTS.tolist()))])
    inline = fit_template(network(), [item], NAMES, 1)
    from_file = fit_template(network(), [{"image": item["image"], "label": str(tmp_path / "points.csv")}], NAMES, 1)
    assert torch.equal(inline.template_window, from_file.template_window)


def test_the_template_travels_with_the_weights(tmp_path):
    fitted = fit_template(network(), [save(tmp_path / "a.png", head())], NAMES, 1)
    other = network()
    other.load_state_dict(fitted.state_dict())
    assert torch.equal(other.template, fitted.template) and fitted.template.any()
    assert torch.equal(other.template_window, fitted.template_window)
    template = other.template.clone()
    fit_template(other, [save(tmp_path / "b.png", head()[::-1].copy())], NAMES, 1)  # a training that starts from it
    assert torch.equal(other.template, template)


@pytest.mark.parametrize(
    ("landmarks", "films", "message"),
    [
        ([None] * 3, 1, "no two landmarks"),
        (POINTS.tolist(), 0, "template_films to 1 or more"),
        (POINTS[:2].tolist(), 1, "2 landmarks where 3 are expected"),
    ],
)
def test_what_makes_no_template_is_told_in_one_sentence(tmp_path, landmarks, films, message):
    item = save(tmp_path / "a.png", head())
    with pytest.raises(InputError, match=message) as raised:
        fit_template(network(), [{**item, "landmarks": landmarks}], NAMES, films)
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)


def test_a_film_that_cannot_be_read_is_named(tmp_path):
    data = [save(tmp_path / "a.png", head()), save(tmp_path / "b.png", head())]
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:200])
    with pytest.raises(InputError, match="b.png"):
        fit_template(network(), data, NAMES, 2)


def test_films_of_which_none_fits_the_first_are_refused(tmp_path):
    data = [save(tmp_path / "a.png", np.zeros(SIZE, dtype=np.uint8))] * 2
    with pytest.raises(InputError, match="None of the films can be registered"):
        fit_template(network(), data, NAMES, 2)
