"""Every bundle evaluates, at small size and by MONAI's command line in this process."""

import numpy as np
import pytest
from PIL import Image

from .files import FILM, columns, content, moved, points_of, table
from .tiny import gaps


def by_wrist(item):
    points = points_of(item, 2)
    return 50 / np.linalg.norm(points[1] - points[5])


def by_vertebrae(item):
    points = points_of(item, 2)
    return 35 / np.linalg.norm(points[60:64].mean(0) - points[64:68].mean(0))


def by_spacing(item):
    assert item["spacing"][0] == item["spacing"][1]
    return item["spacing"][0]


def by_header(item):
    return 1


# By anatomy: what the protocol says, and millimetres per world unit of an item.
MILLIMETRES = {
    "hand": ("wrist of 50", by_wrist),
    "spine": ("L4 to L5 as 35", by_vertebrae),
    "skull": ("pixel spacing", by_spacing),
    "aortic_root": ("voxel spacing", by_header),
    "olfactory_bulbs": ("voxel spacing", by_header),
}


def millimetres(bundle, item):
    return MILLIMETRES[bundle.tiny.anatomy][1](item)


def test_an_evaluation_counts_every_landmark_once(bundle):
    names, images = content(bundle.dataset)["landmarks"], content(bundle.dataset)["test"]
    counts = bundle.metrics["counts"]
    measured = len(names) * len(images) - 2
    assert counts == {
        **{"images": len(images), "measured": measured, "not_annotated": 1},
        **{"false_detection": 1, "missed": 0, "absent": 0},
    }
    rows = table(bundle.report / "errors.csv")
    assert [row["landmark"] for row in rows] == len(images) * names
    odd = [(row["status"], row["landmark"], row["error"]) for row in rows if row["status"] != "measured"]
    lacking, absent = gaps(names)
    assert odd == [("not annotated", names[lacking], ""), ("false detection", names[absent], "")]


def test_the_summary_is_that_of_the_table(bundle):
    errors = np.array([float(row["error"]) for row in table(bundle.report / "errors.csv") if row["error"]])
    overall = bundle.metrics["overall"]
    assert overall["count"] == len(errors) == bundle.metrics["counts"]["measured"]
    assert overall["mean"] == pytest.approx(errors.mean(), abs=1e-5)
    assert overall["median"] == pytest.approx(np.median(errors), abs=1e-5)
    assert list(overall["sdr"]) == [f"{distance:g}" for distance in bundle.read("evaluate")["sdr_thresholds_mm"]]
    for distance, rate in overall["sdr"].items():
        assert rate == pytest.approx(100 * (errors <= float(distance)).mean())
        assert overall["edr"][distance] == pytest.approx(100 - rate)
    low, high = overall["ci95"]["mean"]
    assert low <= overall["mean"] <= high
    data = content(bundle.dataset)
    assert len(bundle.metrics["per_image"]) == len(data["test"])
    assert list(bundle.metrics["per_landmark"]) == data["landmarks"]


def test_the_protocol_says_what_the_numbers_rest_on(bundle):
    protocol, data = bundle.metrics["protocol"], content(bundle.dataset)
    assert protocol["bundle"] == bundle.name and protocol["phantom"] is True and protocol["unit"] == "mm"
    assert protocol["dataset"] == data["name"] and protocol["list"] == "test" and protocol["weights"] == "model.pt"
    assert protocol["ground_truth"] == data.get("truth", "landmarks of the datalist") + ", not rounded"
    assert {key: protocol.get(key) for key in bundle.tiny.size} == bundle.tiny.size
    assert MILLIMETRES[bundle.tiny.anatomy][0] in protocol["millimetres"]


def test_errors_are_distances_in_millimetres(bundle):
    data, rows, images = content(bundle.dataset), table(bundle.report / "errors.csv"), bundle.tiny.images
    count = len(data["landmarks"])
    for number, item in enumerate(data["test"]):
        path, of_image = bundle.dataset / item["image"], rows[count * number : count * (number + 1)]
        assert {(row["image"], row["unit"]) for row in of_image} == {(str(path), "mm")}
        places = [(row, point) for row, point in zip(of_image, item["landmarks"]) if row["status"] == "measured"]
        if not places:
            continue
        true, predicted = (columns([row for row, _ in places], kind, images.dims) for kind in ("true", "predicted"))
        points = np.array([point for _, point in places])
        assert np.allclose(true, moved(images.affine(path), points), atol=1e-5)
        errors = [float(row["error"]) for row, _ in places]
        assert errors == pytest.approx(millimetres(bundle, item) * np.linalg.norm(predicted - true, axis=1), abs=1e-4)


def in_their_frame(bundle, item):
    """Landmarks of an item in pixels of films, which have all one size, or in the world from a volume's middle."""
    images, path = bundle.tiny.images, bundle.dataset / item["image"]
    points = points_of(item, images.dims)
    if images is FILM:
        return points
    middle = (images.size(path) - 1)[None] / 2
    return moved(images.affine(path), points) - moved(images.affine(path), middle)


def test_the_baseline_is_the_mean_shape_of_the_training_images(bundle):
    data = content(bundle.dataset)
    mean = np.nanmean([in_their_frame(bundle, item) for item in data["training"]], 0)
    distances = [np.linalg.norm(mean - in_their_frame(bundle, item), axis=1) for item in data["test"]]
    errors = np.stack([d * millimetres(bundle, item) for d, item in zip(distances, data["test"])])
    found = bundle.metrics["mean_shape"]
    assert found["training_images"] == len(data["training"]) and found["unit"] == "mm"
    assert found["radial_error"]["mean"] == pytest.approx(np.nanmean(errors), rel=1e-6)
    assert found["radial_error"]["count"] == np.isfinite(errors).sum()
    if bundle.tiny.images is not FILM:
        assert "percent_of_image_height" not in found
        return
    height = FILM.size(bundle.dataset / data["test"][0]["image"])[1]
    assert found["percent_of_image_height"] == pytest.approx(100 * np.nanmean(distances) / height, rel=1e-6)


def test_heads_are_measured_and_compared_with_two_doctors(bundle):
    if bundle.tiny.anatomy != "skull":
        assert "cephalometric" not in bundle.metrics
        return
    everything, once = (bundle.metrics["cephalometric"][key] for key in ("all", "without_duplicates"))
    assert (everything["films"], once["films"]) == (2, 1)
    assert everything["radial_error"]["mean"] == pytest.approx(bundle.metrics["overall"]["mean"])
    assert everything["doctors"]["films"] == 2
    spacing = content(bundle.dataset)["test"][0]["spacing"][0]
    assert everything["doctors"]["to_mean"]["senior"]["mean"] == pytest.approx(spacing)  # a pixel below the truth
    assert everything["doctors"]["difference"]["mean"] == pytest.approx(2 * spacing)
    assert set(everything["success_classification_rate"]) > {"ANB", "SNA", "MW", "mean"}
    assert len(table(bundle.report / "measurements.csv")) == 2 * 8


def test_spines_have_cobb_angles_and_errors_of_the_image(bundle):
    if bundle.tiny.anatomy != "spine":
        assert "spine" not in bundle.metrics
        return
    spine, data = bundle.metrics["spine"], content(bundle.dataset)
    rows = [row for row in table(bundle.report / "errors.csv") if row["status"] == "measured"]
    size = FILM.size(bundle.dataset / data["test"][0]["image"])
    offset = columns(rows, "predicted", 2) - columns(rows, "true", 2)
    assert spine["mean_squared_error"] == pytest.approx(((offset / size) ** 2).mean(), rel=1e-4)
    assert spine["percent_of_image_height"] == pytest.approx(
        100 * np.linalg.norm(offset, axis=1).mean() / size[1], rel=1e-4
    )
    assert (spine["cobb"]["films"], spine["cobb_published"]["films"]) == (1, 2)  # the first truth lacks corners
    assert len(table(bundle.report / "cobb_angles.csv")) == 2


def test_an_evaluation_draws_its_curve_and_an_overlay(bundle):
    with Image.open(bundle.report / "error_curve.png") as curve:
        assert curve.size == (720, 480)
    (overlay,) = (bundle.report / "overlays").iterdir()
    assert overlay.name == "test_000.png"
    with Image.open(overlay) as picture:
        assert picture.mode == "RGB" and max(picture.size) >= 1000


def test_networks_of_votes_show_the_vectors_of_their_patches(bundle):
    names = [path.name for path in (bundle.report / "vector_fields").glob("*")]
    drawn = content(bundle.dataset)["landmarks"] * bundle.tiny.output.report.get("max_vector_fields", 0)
    assert sorted(names) == sorted(f"test_000_{name}.png" for name in drawn)
