"""Evaluations from image files to the report's folder, with a network that is replaced by known predictions."""

import csv
import json

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, LoadImaged, Resized
from PIL import Image

from common.clinical import (
    L4_L5_CENTROIDS,
    L4_L5_MM,
    CephalometricMeasure,
    MeanShape,
    SpineMeasure,
    cephalometric_measurements,
    cobb_angles,
    success_classification_rate,
)
from common.clinical.film import evaluated_film
from common.data import CEPHALOMETRIC_LANDMARKS, SPINE_LANDMARKS, LandmarkImageReader, write_datalist
from common.handlers import LandmarkReport
from common.transforms import LoadLandmarksd, MillimetreScaled

SIZE = (120, 160)


class KnownPredictions:
    """Stands for a network's decoding: the predictions that the item of the data loader holds."""

    evaluator = None

    def __call__(self, item):
        (batch,) = self.evaluator.state.batch
        return {**item, "pred": batch["predicted"], "confidence": torch.ones(batch["predicted"].shape[1])}


def evaluate(folder, items, measure, names, **scaling):
    """Run an evaluation of images of half their file's size; metrics.json and the rows of each CSV file."""
    for number, item in enumerate(items):
        item["image"] = str(folder / f"{number}.png")
        Image.fromarray(np.full(SIZE[::-1], 100, dtype=np.uint8)).save(item["image"])
    extra = [key for key in ("predicted", "senior", "junior") if any(key in item for item in items)]
    preprocessing = [
        LoadImaged("image", reader=LandmarkImageReader(spatial_dims=2), ensure_channel_first=True, image_only=True),
        LoadLandmarksd("label", names=names, outside="ignore"),
        LoadLandmarksd(extra, names=names, outside="ignore", allow_missing_keys=True),
        MillimetreScaled(**scaling),
        Resized("image", spatial_size=max(SIZE) // 2, size_mode="longest", mode="area"),
    ]
    decoding = KnownPredictions()
    report = LandmarkReport(folder / "report", names, [2.0], max_overlays=1, measures=[measure])
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items, Compose(preprocessing)), batch_size=1),
        network=torch.nn.Identity(),
        postprocessing=decoding,
        val_handlers=[report],
    )
    decoding.evaluator = evaluator
    evaluator.run()
    tables = {path.name: list(csv.DictReader(path.open())) for path in (folder / "report").glob("*.csv")}
    return json.loads((folder / "report" / "metrics.json").read_text()), tables


def heads(count, spread, seed):
    """Plausible cephalograms (count, 19, 2) in file pixels, each landmark scattered by `spread` pixels."""
    shape = [
        (50, 50), (90, 42), (82, 62), (35, 65), (90, 90), (87, 110), (88, 125), (80, 130), (85, 129), (45, 108),
        (92, 100), (95, 102), (100, 92), (99, 106), (98, 85), (95, 125), (58, 84), (93, 86), (38, 80),
    ]  # fmt: skip
    rng = np.random.default_rng(seed)
    return np.array(shape, dtype=np.float64) + rng.normal(size=(count, 19, 2)) * spread


@pytest.fixture(scope="module")
def cephalometric(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cephalometric")
    senior = heads(4, 2.0, 0)
    junior = senior + np.random.default_rng(1).normal(size=senior.shape)
    truth = (senior + junior) / 2
    pred = truth + np.random.default_rng(2).normal(size=senior.shape) * 2
    items = [
        {key: table[i].tolist() for key, table in
         {"landmarks": truth, "senior": senior, "junior": junior, "predicted": pred}.items()}
        | {"spacing": [0.5, 0.5]} | ({"duplicate": True} if i == 2 else {})
        for i in range(4)
    ]  # fmt: skip
    return *evaluate(folder, items, CephalometricMeasure(), CEPHALOMETRIC_LANDMARKS), senior, junior, truth, pred


def test_the_report_rates_types_in_file_pixels_and_millimetres(cephalometric):
    metrics, _, _, _, truth, pred = cephalometric
    expected = success_classification_rate(torch.tensor(pred), torch.tensor(truth), 0.5)
    assert metrics["cephalometric"]["all"]["success_classification_rate"] == pytest.approx(expected)
    assert 20 < expected["mean"] < 100


def test_without_duplicates_the_flagged_film_is_left_out_of_errors_and_rates(cephalometric):
    metrics, _, _, _, truth, pred = cephalometric
    once = metrics["cephalometric"]["without_duplicates"]
    keep = [0, 1, 3]
    assert once["films"] == 3
    expected = 0.5 * np.linalg.norm(pred - truth, axis=-1)[keep].mean()
    assert once["radial_error"]["mean"] == pytest.approx(expected)
    rates = success_classification_rate(torch.tensor(pred[keep]), torch.tensor(truth[keep]), 0.5)
    assert once["success_classification_rate"] == pytest.approx(rates)


def test_the_doctors_are_compared_with_their_mean_and_each_other(cephalometric):
    metrics, _, senior, junior, truth, _ = cephalometric
    doctors = metrics["cephalometric"]["all"]["doctors"]
    to_mean = 0.5 * np.linalg.norm(senior - truth, axis=-1).mean()
    assert doctors["to_mean"]["senior"]["mean"] == pytest.approx(to_mean)
    assert doctors["to_mean"]["junior"]["mean"] == pytest.approx(to_mean)
    assert doctors["difference"]["mean"] == pytest.approx(2 * to_mean)
    rates = success_classification_rate(torch.tensor(senior), torch.tensor(junior), 0.5)
    assert doctors["type_agreement"] == pytest.approx(rates)


def test_the_printed_lines_tell_the_films_seen_once_the_types_and_the_human_line(tmp_path, capsys):
    senior = heads(3, 2.0, 0)
    junior, pred = (senior + np.random.default_rng(seed).normal(size=senior.shape) for seed in (1, 2))
    truth = (senior + junior) / 2
    tables = {"landmarks": truth, "senior": senior, "junior": junior, "predicted": pred}
    items = [{key: table[i].tolist() for key, table in tables.items()} | {"spacing": [0.5, 0.5]} for i in range(3)]
    items[1]["duplicate"] = True
    evaluate(tmp_path, items, CephalometricMeasure(thresholds=[1.0, 2.5]), CEPHALOMETRIC_LANDMARKS)
    once, types, human = capsys.readouterr().out.splitlines()[-3:]
    errors = 0.5 * np.linalg.norm(pred - truth, axis=-1)[[0, 2]]
    rates = [100 * (errors <= t).mean() for t in (1.0, 2.5)]
    assert once == (
        "without films that also stand in the training set: 2 of 3 films, "
        f"mean {errors.mean():.3f}, median {np.median(errors):.3f}; "
        f"{rates[0]:.1f} % within 1, {rates[1]:.1f} % within 2.5"
    )
    rates = success_classification_rate(torch.tensor(pred), torch.tensor(truth), 0.5)
    assert types.startswith(f"success classification rate {rates['mean']:.2f} % (ANB {rates['ANB']:.1f}, ")
    to_mean = 0.5 * np.linalg.norm(senior - truth, axis=-1).mean()  # as far as the junior is on the other side
    rates = success_classification_rate(torch.tensor(senior), torch.tensor(junior), 0.5)
    assert human.startswith(
        f"human line: each doctor to the mean of both senior {to_mean:.2f}, junior {to_mean:.2f}; "
        f"they agree on the type in {rates['mean']:.2f} % (ANB {rates['ANB']:.1f}, "
    )
    assert human.endswith(f"MW {rates['MW']:.1f})")


def test_films_without_duplicates_and_doctors_have_the_line_of_their_types_alone(tmp_path, capsys):
    points = heads(1, 0.0, 0)[0].tolist()
    items = [{"landmarks": points, "predicted": points, "spacing": [0.5, 0.5]}]
    evaluate(tmp_path, items, CephalometricMeasure(), CEPHALOMETRIC_LANDMARKS)
    before, types = capsys.readouterr().out.splitlines()[-2:]
    assert before.startswith("report: ") and types.startswith("success classification rate 100.00 % (ANB 100.0, ")


def test_a_doctor_without_points_has_no_human_line(tmp_path, capsys):
    senior = heads(2, 2.0, 0)
    items = [
        {"landmarks": film.tolist(), "predicted": film.tolist(), "senior": film.tolist(), "junior": [None] * 19}
        | {"spacing": [0.5, 0.5]}
        for film in senior
    ]
    metrics, _ = evaluate(tmp_path, items, CephalometricMeasure(), CEPHALOMETRIC_LANDMARKS)
    doctors = metrics["cephalometric"]["all"]["doctors"]
    assert doctors["films"] == 2 and doctors["difference"]["count"] == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("success classification rate 100.00 % (ANB 100.0, ")
    assert not any("human line" in line for line in lines)


def test_measurements_csv_has_every_film_and_measurement(cephalometric):
    _, tables, senior, _, truth, pred = cephalometric
    rows = tables["measurements.csv"]
    assert len(rows) == 4 * 8
    assert [row["duplicate"] for row in rows[::8]] == ["0", "0", "1", "0"]
    for key, points in {"predicted": pred, "true": truth, "senior": senior}.items():
        expected = cephalometric_measurements(torch.tensor(points), 0.5).flatten().tolist()
        assert [float(row[key]) for row in rows] == pytest.approx(expected, abs=1e-5)
    normal_sna = 79.4 <= float(rows[2]["true"]) <= 83.2
    assert rows[2]["measurement"] == "SNA" and (rows[2]["true_type"] == "normal maxilla") == normal_sna


def test_observers_that_are_no_loaded_landmarks_are_told():
    points = heads(1, 0.0, 0)[0].tolist()
    with pytest.raises(ValueError, match="'senior' is no landmarks in world coordinates"):
        evaluated_film({"senior": points}, {}, observers=("senior",))


def test_without_pixel_spacing_and_observers_the_overjet_alone_is_unknown(tmp_path):
    points = heads(1, 0.0, 0)[0].tolist()
    items = [{"landmarks": points, "predicted": [None, *points[1:]]}]
    metrics, tables = evaluate(tmp_path, items, CephalometricMeasure(), CEPHALOMETRIC_LANDMARKS)
    block = metrics["cephalometric"]["all"]
    assert "doctors" not in block and "without_duplicates" not in metrics["cephalometric"]
    assert block["success_classification_rate"]["MW"] is None
    assert block["without_value"] == {"predicted": 8, "true": 1}
    assert block["success_classification_rate"]["SNA"] == 0  # sella was not found
    assert block["success_classification_rate"]["ODI"] is not None
    rows = tables["measurements.csv"]
    assert (rows[7]["true"], rows[7]["true_type"]) == ("", "")
    assert [row["measurement"] for row in rows if row["predicted"] == ""] == [
        "ANB",
        "SNB",
        "SNA",
        "ODI",
        "APDI",
        "FHI",
        "FMA",
        "MW",
    ]


def test_films_in_pixels_enter_no_mean_of_millimetres(tmp_path):
    points = heads(2, 0.0, 0)
    items = [{"landmarks": p.tolist(), "predicted": (p + [3, 4]).tolist()} for p in points]
    items[0]["spacing"] = [0.5, 0.5]
    metrics, _ = evaluate(tmp_path, items, CephalometricMeasure(), CEPHALOMETRIC_LANDMARKS)
    block = metrics["cephalometric"]["all"]
    assert block["films"] == 2
    assert block["radial_error"]["count"] == 19 and block["radial_error"]["mean"] == pytest.approx(2.5)


def columns(count, seed):
    """Spines (count, 68, 2) in file pixels of the small image, with random tilts."""
    rng = np.random.default_rng(seed)
    corners = np.array([[-10, -3], [10, -3], [-10, 3], [10, 3]])
    middles = np.stack([np.full(17, 60), 8 + 9 * np.arange(17)], 1)
    tilts = rng.normal(size=(count, 17)) * 0.2
    turn = np.stack([np.stack([np.cos(tilts), np.sin(tilts)], -1), np.stack([-np.sin(tilts), np.cos(tilts)], -1)], -2)
    return middles[None, :, None] + corners @ turn


def test_the_spine_report_has_cobb_angles_and_errors_of_the_image(tmp_path, capsys):
    truth = columns(3, 0).reshape(3, 68, 2)
    pred = truth + np.random.default_rng(5).normal(size=truth.shape)
    pred[1, 16:64] = pred[1, 20:68]  # the fifth vertebra is skipped, the last one counted twice
    published = cobb_angles(torch.tensor(truth), SIZE[1]) + torch.tensor([1.0, 2.0, 3.0])
    items = [
        {"landmarks": truth[i].tolist(), "predicted": pred[i].tolist(), "cobb_angles": published[i].tolist()}
        for i in range(3)
    ]
    scaling = {"reference_points": L4_L5_CENTROIDS, "reference_length": L4_L5_MM}
    metrics, tables = evaluate(tmp_path, items, SpineMeasure(), SPINE_LANDMARKS, **scaling)
    spine = metrics["spine"]

    fraction = (pred - truth) / SIZE
    assert spine["mean_squared_error"] == pytest.approx((fraction**2).mean())
    assert spine["percent_of_image_height"] == pytest.approx(100 * np.linalg.norm(pred - truth, axis=-1).mean() / 160)
    rho = np.corrcoef((pred / SIZE).ravel(), (truth / SIZE).ravel())[0, 1]
    assert spine["correlation"] == pytest.approx(rho)

    angles, true_angles = (cobb_angles(torch.tensor(p), SIZE[1]).numpy() for p in (pred, truth))
    difference = np.abs(angles - true_angles)
    assert spine["cobb"]["films"] == 3
    assert list(spine["cobb"]["mean_absolute_difference"].values()) == pytest.approx(difference.mean(0))
    assert spine["cobb"]["smape"] == pytest.approx(100 * (difference.sum(1) / (angles + true_angles).sum(1)).mean())
    floor = 100 * (6 / (2 * true_angles.sum(1) + 6)).mean()
    assert spine["cobb_published"]["smape_floor"] == pytest.approx(floor)

    counting = {"films": 3, "films_with_errors": 1, "films_shifted": 0}
    counting |= {"skipped": 1, "counted_twice": 1, "misnumbered": 12}
    assert spine["counting"] == counting
    right = np.linalg.norm(pred - truth, axis=-1)[[0, 2]].mean() / 1.6
    smape = [100 * difference[i].sum() / (angles + true_angles)[i].sum() for i in (0, 2)]
    assert spine["counted_right"]["films"] == 2
    assert spine["counted_right"]["percent_of_image_height"] == pytest.approx(right)
    assert spine["counted_right"]["smape"] == pytest.approx(np.mean(smape))
    each_film = [np.linalg.norm(pred - truth, axis=-1)[i].mean() / 1.6 for i in range(3)]
    low, high = spine["ci95"]["percent_of_image_height"]
    assert min(each_film) <= low < spine["percent_of_image_height"] < high <= max(each_film) + 1e-9
    low, high = spine["ci95"]["correlation"]
    assert low <= spine["correlation"] <= high <= 1
    low, high = spine["cobb"]["ci95"]["smape"]
    assert 0 < low < spine["cobb"]["smape"] < high
    low, high = spine["cobb"]["ci95"]["mean_absolute_difference"]["second"]
    least, most = difference[:, 1].min() - 1e-9, difference[:, 1].max() + 1e-9
    assert least <= low < difference[:, 1].mean() < high <= most

    low, high = spine["ci95"]["mean_squared_error"]
    squares = (((pred - truth) / SIZE) ** 2).mean((1, 2))
    assert squares.min() <= low * 1.000001 and high <= squares.max() * 1.000001
    assert low < spine["mean_squared_error"] < high
    assert 0 < spine["cobb_published"]["ci95"]["smape"][0] < spine["cobb_published"]["smape"]

    percent, line = spine["percent_of_image_height"], capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"mean error {percent:.2f} % of the image height; Cobb angles of 3 films: SMAPE ")
    assert line.endswith("; vertebrae miscounted in 1 of 3 films, all by one number in 0 of them")

    row = tables["cobb_angles.csv"][1]
    assert float(row["predicted_first"]) == pytest.approx(angles[1, 0], abs=1e-5)
    assert float(row["published_third"]) == pytest.approx(true_angles[1, 2] + 3, abs=1e-5)
    assert metrics["protocol"]["unit"] == "mm"
    scale = 35 / np.linalg.norm(truth[:, 60:64].mean(1) - truth[:, 64:].mean(1), axis=-1)
    errors = np.linalg.norm(pred - truth, axis=-1) * scale[:, None]
    assert metrics["overall"]["mean"] == pytest.approx(errors.mean())


def test_an_evaluation_that_runs_again_forgets_the_first(tmp_path):
    measure = SpineMeasure()
    truth = columns(1, 0).reshape(68, 2).tolist()
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        items = [{"landmarks": truth, "predicted": truth}]
        metrics, _ = evaluate(tmp_path / run, items, measure, SPINE_LANDMARKS)
    cobb = metrics["spine"]["cobb"]
    assert (cobb["films"], cobb["smape"]) == (1, 0.0)
    assert cobb["mean_absolute_difference"] == {"first": 0.0, "second": 0.0, "third": 0.0}
    assert metrics["spine"]["counting"]["films"] == 1


# One film in files whose axes lie otherwise: affine of the file, and its array from the upright one.
STORED = {
    "as a PNG": ([[-1.0, 0], [0, -1.0]], lambda film: film),
    "turned by 180 degrees": ([[1.0, 0], [0, 1.0]], lambda film: film[::-1, ::-1]),
    "y up": ([[-1.0, 0], [0, 1.0]], lambda film: film[:, ::-1]),
    "transposed": ([[0, -1.0], [-1.0, 0]], lambda film: film.T),
}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("pixel", [(1.0, 1.0), (1.0, 0.5)])
def test_a_film_is_measured_as_it_is_seen_however_its_file_lies(tmp_path, stored, pixel):
    """Width and height of a pixel of the upright film; the other storages have the same places in the world."""
    turn, array = STORED[stored]
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:2, :2] = turn
    axes = np.diag([*(pixel[::-1] if stored == "transposed" else pixel), 1.0, 1.0])
    film = array(np.random.default_rng(0).random(SIZE).astype(np.float32))
    origin = -np.array(pixel) * [n - 1 if np.any(affine[a, :2] > 0) else 0 for a, n in enumerate(SIZE)]
    affine = affine @ axes
    affine[:2, 3] = origin
    nibabel.save(nibabel.Nifti1Image(film[..., None], affine), tmp_path / "film.nii")
    image = LoadImaged("image", reader=LandmarkImageReader(spatial_dims=2), ensure_channel_first=True)(
        {"image": str(tmp_path / "film.nii")}
    )["image"]
    truth = torch.tensor(columns(1, 0).reshape(68, 2))
    pred = truth + torch.tensor(np.random.default_rng(5).normal(size=truth.shape))
    mm = torch.tensor(pixel, dtype=torch.float64)
    measure, shape = SpineMeasure(), MeanShape(tmp_path, "training", SPINE_LANDMARKS)
    batch = {"mm_per_world": 1.0, "unit": "mm"}
    for each in (measure, shape):
        each.collect(batch, {"image": image, "pred": -(pred * mm)[None], "label": -(truth * mm)[None]})
    expected = cobb_angles((pred * mm)[None], SIZE[1] * pixel[1])
    torch.testing.assert_close(measure.angles()["predicted"], expected, atol=1e-6, rtol=0)
    percent = 100 * float(((pred - truth) * mm).norm(dim=-1).mean()) / (SIZE[1] * pixel[1])
    assert measure.summary()["percent_of_image_height"] == pytest.approx(percent)
    inline = nibabel.affines.apply_affine(np.linalg.inv(affine), np.c_[-(truth * mm).numpy(), np.zeros(68)])[:, :2]
    item = {"image": "film.nii", "landmarks": inline.tolist()}
    write_datalist(tmp_path, name="spine", phantom=True, landmarks=SPINE_LANDMARKS, training=[item])
    assert shape.summary()["radial_error"]["mean"] == pytest.approx(0, abs=1e-4)
    assert shape.summary()["percent_of_image_height"] == pytest.approx(0, abs=1e-4)


def test_films_on_which_nothing_was_found_have_no_errors_and_no_intervals(tmp_path):
    truth = columns(2, 0).reshape(2, 68, 2).tolist()
    items = [{"landmarks": points, "predicted": [None] * 68} for points in truth]
    metrics, _ = evaluate(tmp_path, items, SpineMeasure(), SPINE_LANDMARKS)
    spine = metrics["spine"]
    assert spine["percent_of_image_height"] is None
    assert set(map(tuple, spine["ci95"].values())) == {(None, None)}
    assert spine["counting"]["films"] == spine["cobb"]["films"] == 0
    assert spine["counted_right"] == {"films": 0, "percent_of_image_height": None, "smape": None}
    assert spine["cobb"]["ci95"]["smape"] == [None, None]


def test_an_evaluation_of_other_landmarks_goes_without_the_measure(tmp_path, caplog):
    points = [[50.0, 50.0], [90.0, 42.0]]
    items = [{"label": points, "predicted": torch.tensor(points)[None].double()}]
    metrics, tables = evaluate(tmp_path, items, CephalometricMeasure(), ["sella", "nasion"])
    assert "cephalometric" not in metrics and list(tables) == ["errors.csv"] and metrics["overall"]["count"] == 2
    assert "cephalometric: is not measured, since it needs the landmarks ('sella', 'nasion'" in caplog.text
