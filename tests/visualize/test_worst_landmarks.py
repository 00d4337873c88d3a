"""The page of the largest errors."""

import csv

import nibabel
import numpy as np
import pytest
from PIL import Image

from common.errors import InputError
from common.visualize import worst_landmarks
from common.visualize.overlay import PREDICTION, TRUTH
from common.visualize.worst_landmarks import SIZE, draw_worst


def table(path, image, rows, axes="xy"):
    header = ["image", "landmark", "error", "unit", "status", "confidence"]
    header += [f"{kind}_{axis}" for kind in ("predicted", "true") for axis in axes]
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *([str(image), *row] for row in rows)])
    return str(path)


@pytest.fixture
def film(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(60, 90, (900, 600), dtype=np.uint8)).save(tmp_path / "film.png")
    return tmp_path / "film.png"


def has(picture, colour):
    return (np.abs(np.asarray(picture, dtype=int) - colour).max(-1) < 40).any()


def test_the_largest_errors_come_first_with_both_points_on_the_film(film, tmp_path, capsys):
    rows = [
        ["pixels", 900.0, "pixel", "measured", 0.9, -100, -200, -102, -200],  # not comparable with millimetres
        # world is RAS: pixels with both signs turned
        ["near", 2.0, "mm", "measured", 0.9, -100, -200, -102, -200],
        ["far", 500.0, "mm", "measured", 0.3, -50, -100, -350, -500],
        ["corner", 7.5, "mm", "measured", 0.5, -1, -1, -5, -7],
        ["missing", "nan", "mm", "not annotated", 0.5, -1, -1, "nan", "nan"],
    ]
    lines = draw_worst(table(tmp_path / "errors.csv", film, rows), str(tmp_path / "pictures" / "worst.png"), count=2)
    assert lines == [
        "500.00 mm far, film.png, confidence 0.30",
        "7.50 mm corner, film.png, confidence 0.50",
    ]
    assert capsys.readouterr().out.splitlines() == lines
    page = Image.open(tmp_path / "pictures" / "worst.png").convert("RGB")
    width = round(SIZE * 600 / 900)  # of the whole film, on which the first lies far from the truth
    assert width + SIZE < page.width < width + SIZE + 20 and SIZE <= page.height < SIZE * 1.3
    for left, right in ((0, width), (width, page.width)):
        part = page.crop((left, 0, right, page.height))
        assert has(part, PREDICTION) and has(part, TRUTH)


def test_of_each_image_as_many_as_wanted(film, tmp_path):
    Image.open(film).save(tmp_path / "other.png")
    found = [["a", 9.0, "mm"], ["b", 8.0, "mm"], ["c", 7.0, "mm"]]
    points = ["measured", 0.5, -100, -200, -105, -200]
    path = table(tmp_path / "errors.csv", film, [[*row, *points] for row in found])
    with open(path, "a", newline="") as file:
        csv.writer(file).writerow([tmp_path / "other.png", "d", 1.0, "mm", *points])
    lines = [draw_worst(path, str(tmp_path / "worst.png"), 3, number) for number in (None, 1, 2)]
    assert ["".join(line.split()[2] for line in each) for each in lines] == ["a,b,c,", "a,d,", "a,b,d,"]
    with pytest.raises(InputError, match="cannot show 0 landmarks"):
        draw_worst(path, str(tmp_path / "worst.png"), of_each_image=0)


def test_a_volume_is_shown_in_three_planes(tmp_path):
    voxels = np.random.default_rng(0).normal(100, 5, (30, 24, 20)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "scan.nii.gz")
    rows = [["tip", 3.0, "mm", "measured", 0.9, 10, 12, 8, 13, 12, 8]]
    errors = table(tmp_path / "errors.csv", tmp_path / "scan.nii.gz", rows, "xyz")
    draw_worst(errors, str(tmp_path / "worst.jpg"))
    page = Image.open(tmp_path / "worst.jpg")
    assert page.format == "JPEG" and 2.5 * SIZE < page.width <= 3 * SIZE


def test_a_volume_in_millimetres_of_the_datalist_is_measured_in_them(tmp_path, monkeypatch):
    nibabel.save(nibabel.Nifti1Image(np.zeros((30, 24, 20), dtype=np.float32), np.eye(4)), tmp_path / "scan.nii.gz")
    rows = [
        ["tip", 1.5, "mm", "measured", 0.9, 10, 12, 8, 13, 12, 8],  # 3 of the file's units are 1.5 mm
        ["hit", 0.0, "mm", "measured", 0.9, 10, 12, 8, 10, 12, 8],  # no distance tells the scale
    ]
    scales = []
    draw = worst_landmarks.overlay_picture
    monkeypatch.setattr(
        worst_landmarks, "overlay_picture", lambda *args, **kw: scales.append(kw["mm_per_world"]) or draw(*args, **kw)
    )
    draw_worst(table(tmp_path / "errors.csv", tmp_path / "scan.nii.gz", rows, "xyz"), str(tmp_path / "worst.png"))
    assert scales == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize("count", ["all", 2.5, 0])
def test_a_count_that_is_none_is_refused(tmp_path, count):
    with pytest.raises(InputError, match="give a whole number from 1 on"):
        draw_worst("errors.csv", str(tmp_path / "worst.png"), count)


@pytest.mark.parametrize("name", ["folder.png", "worst.tif", "worst"])
def test_a_picture_that_cannot_be_written_is_refused(tmp_path, name):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=f"{name}: is no file to write a picture to"):
        draw_worst("errors.csv", str(tmp_path / name))


HEADER = "image,landmark,error,unit,status,confidence,predicted_x,predicted_y,true_x,true_y\n"


SHORT_ROW = "a.png,tip,1.0,mm,measured,0.5,1,2\n"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "image,landmark\na,b\n",
        "status,error\nmeasured,many\n",
        HEADER,
        HEADER + "a.png,tip,1.0,mm,measured,0.5,1,2\n",
    ],
)
def test_other_tables_are_refused(tmp_path, content):
    (tmp_path / "errors.csv").write_text(content)
    with pytest.raises(InputError, match="errors.csv"):
        draw_worst(str(tmp_path / "errors.csv"), str(tmp_path / "worst.png"))
    assert not (tmp_path / "worst.png").exists()
