"""JSON that would exhaust the memory or the stack, and numbers that no label has: one line each."""

import gzip
import json

import pytest
from PIL import Image

from kpose.core import devices, files
from kpose.core.errors import InputError
from kpose.data import coco_files
from kpose.export import description
from tests import helpers
from tfrecords_tools.write_coco import writer

DEEP = "[" * 1_000_000


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 1_000_000, DEEP + "]" * 1_000_000], ids=["lists", "objects", "whole"])
def test_a_million_levels(text, tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(InputError, match="too many levels") as error:
        coco_files.load(str(path), "annotation file")
    assert helpers.one_line(error).startswith(str(path))


def test_a_million_levels_in_other_places(monkeypatch):
    with pytest.raises(InputError, match=r"model\.onnx: damaged"):
        description.of_onnx({description.ENTRY: DEEP}, "model.onnx")
    monkeypatch.setenv("TF_CONFIG", DEEP)
    with pytest.raises(InputError, match="TF_CONFIG: give a cluster"):
        devices.cluster()


def test_a_gzip_file_that_grows_a_thousand_times_is_not_read(tmp_path):
    path = tmp_path / "labels.json.gz"
    path.write_bytes(gzip.compress(b" " * 90_000_000))
    with pytest.raises(InputError, match="more than 100 times as large") as error:
        coco_files.load(str(path), "annotation file")
    assert helpers.one_line(error).startswith(str(path))


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "labels.json"
    with open(path, "wb") as file:
        file.truncate(files.MAX_JSON_BYTES + 1)  # no blocks are written
    with pytest.raises(InputError, match="2,147,483,649 bytes: at most 2,147,483,648"):
        coco_files.load(str(path), "annotation file")


@pytest.mark.parametrize(
    ("image", "fields", "complaint"),
    [
        ({}, {"area": 1e300}, None),
        ({}, {"area": 10**400}, None),
        ({}, {"bbox": [0, 0, 1e300, 1e300]}, "no person"),
        ({}, {"bbox": [0, 0, 1e9, 1e9]}, "no person"),
        ({}, {"bbox": [0, 0, 1e6, 1e6]}, "its crop would have 1250000 x 1250000 pixels of image 1.png"),
        ({}, {"bbox": [10, 10, 1e-300, 1e-300]}, "no person"),
        ({"width": 1e300}, {}, "its labels are for"),
        ({"width": None, "height": None}, {"keypoints": [1e300, 1e300, 2] + [10, 10, 2] * 16}, "a million pixels"),
        ({"width": None, "height": None}, {"keypoints": [-1e38, 0, 2] + [10, 10, 2] * 16}, "a million pixels"),
        ({"width": None, "height": None}, {"bbox": [-1e300, 0, 1e300, 1e300]}, "no person"),
    ],
)
def test_numbers_out_of_range(image, fields, complaint, tmp_path):
    """A wrong area is replaced by that of the box; a wrong box leaves the person out."""
    Image.new("RGB", (120, 90)).save(tmp_path / "1.png")
    box = (10, 10, 30, 40)
    entry = helpers.image_entry(1, "1.png", (90, 120)) | image
    person = helpers.annotation(5, 1, box, helpers.keypoints_in(box)) | fields
    labels = helpers.write_coco(tmp_path / "labels.json", [entry], [person])
    options = helpers.options(labels, tmp_path, tmp_path / "records", padding=1.25, crop_size=(40, 32))
    if complaint is None:
        writer.write_records(options)
        manifest = json.loads((tmp_path / "records" / "train.manifest.json").read_text())
        assert manifest["persons"] == 1
        return
    with pytest.raises(InputError, match=complaint) as error:
        writer.write_records(options)
    helpers.one_line(error)


def test_a_detection_a_million_pixels_wide(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps([{"image_id": 1, "bbox": [0, 0, 1e300, 5], "score": 1}]))
    with pytest.raises(InputError, match="result 0: 'bbox' has a number of more than a million pixels"):
        coco_files.read_results(str(path))
