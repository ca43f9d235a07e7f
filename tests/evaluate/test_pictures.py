"""Pictures of the first, the best, the median and the worst persons."""

import functools

import numpy as np
import tensorflow as tf

from kpose.core import geometry
from kpose.core.skeletons import COCO
from kpose.drawing import sheets
from kpose.evaluate import pictures
from kpose.evaluate.crops import find_crops


def make_persons(count):
    """Persons in boxes of 100 x 100 pixels: person i has errors of i pixels, the last no labels."""
    truth = np.random.default_rng(0).uniform(20, 80, (count, 17, 3))
    truth[..., 2] = 2
    truth[-1, :, 2] = 0
    regions = np.tile([0.0, 0.0, 100.0, 100.0], (count, 1))
    labels = np.concatenate([geometry.normalise(truth[..., :2], regions), truth[..., 2:]], -1)
    prediction = truth + np.arange(count)[:, None, None] * [1.0, 0.0, 0.0]
    return {"truth": truth, "keypoints": prediction, "labels": labels, "box": regions, "region": regions}


def test_persons_are_drawn_on_their_own_crops():
    count, size = 43, 10
    persons = make_persons(count)
    # The grey level of a crop is the person's number. The last batch is padded, as in an
    # evaluation.
    crops = np.zeros((50, 32, 32, 3), np.uint8) + np.arange(50, dtype=np.uint8)[:, None, None, None]
    batches = [{"image": tf.constant(crops[start : start + size])} for start in range(0, 50, size)]
    first, extremes = pictures.draw(persons, functools.partial(find_crops, batches), COCO)

    def expected(numbers, columns):
        arrays = (persons[name][numbers] for name in ("labels", "keypoints", "region"))
        labels, points, regions = arrays
        points = geometry.normalise(points[..., :2], regions)
        return sheets.prediction_grid(crops[numbers], labels, points, COCO, regions, columns)

    np.testing.assert_array_equal(first, expected(np.arange(24), 6))
    best, median, worst = extremes.values()
    np.testing.assert_array_equal(best, expected(np.arange(8), 4))
    np.testing.assert_array_equal(median, expected(np.arange(17, 25), 4))
    np.testing.assert_array_equal(worst, expected(np.arange(41, 33, -1), 4))
    assert [title.split()[1] for title in extremes] == ["best", "median", "worst"]


def test_without_labelled_joints_only_the_first_persons_are_drawn():
    persons = make_persons(1)
    first, extremes = pictures.draw(persons, lambda numbers: {0: np.zeros((32, 32, 3), np.uint8)}, COCO)
    assert first.ndim == 3 and extremes == {}
