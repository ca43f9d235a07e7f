"""`inspect --annotations`: what is in an annotation file, before any record is written."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from kpose.core.errors import InputError
from tests import helpers
from tests.core.test_cli import run
from tfrecords_tools.inspect.labels import inspect_labels

JOINTS = ["nose", "fin_l", "fin_r", "tail"]


@pytest.fixture
def fish(tmp_path):
    """(annotation file, image folder): three fish with boxes, of which nobody labels the tail."""
    images, persons = [], []
    for number, height in ((1, 20), (2, 40), (3, 60)):
        Image.new("RGB", (100, 100), (200, 0, 0)).save(tmp_path / f"{number}.png")
        images.append(helpers.image_entry(number, f"{number}.png", (100, 100)))
        points = [15, 15, 2, 20, 20, 1 if number == 1 else 2, 30, 25, 2 if number < 3 else 0, 0, 0, 0]
        person = helpers.annotation(number, number, [10.0, 10.0, 40.0, float(height)], np.zeros((1, 3)))
        persons.append(person | {"keypoints": points, "category_id": 5})
    persons.append(persons[0] | {"id": 4, "iscrowd": 1})
    category = {"id": 5, "name": "fish", "keypoints": JOINTS, "skeleton": [[1, 2], [1, 3]]}
    data = {"images": images, "annotations": persons, "categories": [category]}
    return helpers.write_json(tmp_path / "fish.json", data), str(tmp_path)


def test_the_lines_say_what_is_there_and_what_is_missing(fish, tmp_path):
    lines = inspect_labels(*fish, str(tmp_path / "sheet.png"))
    text = "\n".join(lines)
    assert "3 images, 4 persons, 3 of them with a labelled joint, 1 crowds" in lines[0]
    assert "skeleton 'fish': 4 joints, 2 bones, left / right: fin_l / fin_r" in text
    assert "box height in pixels: 30 / 40 / 50 (quartiles)" in text
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("  ")}
    assert rows == {
        "nose": ["100.0%", "0.0%"],
        "fin_l": ["100.0%", "33.3%"],
        "fin_r": ["66.7%", "0.0%"],
        "tail": ["-", "-"],
    }
    assert "warning: nobody labels 'tail': a network cannot learn it" in lines
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    assert ((pixels[..., 0] > 150) & (pixels[..., 1:].max(-1) < 60)).mean() > 0.1, "the images are red"


def test_without_images_there_is_no_sheet(fish):
    assert "no sheet: give the images with --images" in inspect_labels(fish[0])[-1]


@pytest.mark.parametrize("absolute", [False, True])
def test_names_of_images_do_not_leave_the_folder(absolute, fish, tmp_path):
    path, folder = fish
    with open(path) as file:
        data = json.load(file)
    for image in data["images"]:
        image["file_name"] = os.path.join(folder if absolute else "..", image["file_name"])
    (tmp_path / "inside").mkdir()
    labels = helpers.write_json(tmp_path / "outside.json", data)
    with pytest.raises(InputError, match="the name of this image leaves the folder") as error:
        inspect_labels(labels, str(tmp_path / "inside"), str(tmp_path / "sheet.png"))
    helpers.one_line(error)


def test_missing_images_and_labels_without_persons_are_one_line(fish, tmp_path):
    path, folder = fish
    os.remove(os.path.join(folder, "2.png"))
    with pytest.raises(InputError, match="2.png") as error:
        inspect_labels(path, folder, str(tmp_path / "sheet.png"))
    helpers.one_line(error)
    empty = helpers.write_coco(tmp_path / "x.json", [], [helpers.annotation(1, 1, [0, 0, 1, 1], np.zeros((17, 3)))])
    with pytest.raises(InputError, match="no person with a labelled joint"):
        inspect_labels(empty)


def test_the_command_takes_records_or_annotations(fish, monkeypatch, capfd):
    status, out, _ = run(
        monkeypatch, capfd, "tfrecords_tools.inspect", f"--annotations={fish[0]}", f"--images={fish[1]}"
    )
    assert status == 0 and "skeleton 'fish'" in out and os.path.exists(os.path.join(fish[1], "labels.png"))
    status, _, err = run(monkeypatch, capfd, "tfrecords_tools.inspect")
    assert status == 1 and "one of the two" in err and len(err.strip().splitlines()) == 1
