"""Geometry: conversions between the frames, with hypothesis, in NumPy and in TensorFlow."""

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.core import geometry

quick = settings(max_examples=40, deadline=None)
side = st.floats(0.5, 3000)
place = st.floats(-2000, 5000)
boxes = st.tuples(place, place, side, side).map(np.array)
points = st.lists(st.tuples(place, place), min_size=1, max_size=6).map(np.array)
paddings = st.floats(1, 10)


@quick
@given(boxes)
def test_padding_by_one_gives_the_box_itself(box):
    np.testing.assert_array_equal(geometry.pad_box(box, 1.0), box)


@quick
@given(boxes, paddings)
def test_padding_keeps_the_centre_and_multiplies_the_sides(box, padding):
    region = geometry.pad_box(box, padding)
    left, top, right, bottom = region[0], region[1], region[0] + region[2], region[1] + region[3]
    np.testing.assert_allclose((left + right) / 2, box[0] + box[2] / 2, atol=1e-7)
    np.testing.assert_allclose((top + bottom) / 2, box[1] + box[3] / 2, atol=1e-7)
    np.testing.assert_allclose([right - left, bottom - top], [box[2] * padding, box[3] * padding], rtol=1e-9)


def test_padding_many_boxes_pads_each():
    box = np.random.default_rng(0).uniform(1, 90, [3, 5, 4])
    together = geometry.pad_box(box, 1.3)
    assert together.shape == (3, 5, 4)
    for index in np.ndindex(3, 5):
        np.testing.assert_allclose(together[index], geometry.pad_box(box[index], 1.3))


@quick
@given(boxes)
def test_the_corners_of_a_region_are_half_a_unit_from_its_centre(region):
    x, y, w, h = region
    corners = np.array([[x, y], [x + w, y], [x, y + h], [x + w, y + h], [x + w / 2, y + h / 2]])
    expected = [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0, 0]]
    # x + w loses digits of w if x is thousands of times larger.
    np.testing.assert_allclose(geometry.normalise(corners, region), expected, atol=1e-9)


@quick
@given(points, boxes)
def test_denormalise_undoes_normalise(xy, region):
    there = geometry.normalise(xy, region)
    for point, normalised in zip(xy, there, strict=True):
        for axis in (0, 1):
            centre = region[axis] + region[axis + 2] / 2
            np.testing.assert_allclose(normalised[axis], (point[axis] - centre) / region[axis + 2], atol=1e-8)
    np.testing.assert_allclose(geometry.denormalise(there, region), xy, atol=1e-7)


def test_crop_pixels_are_x_by_width_and_y_by_height():
    corners = np.array([[-0.5, -0.5], [0.5, 0.5], [0.0, 0.25]])
    expected = [[0, 0], [200, 100], [100, 75]]
    np.testing.assert_allclose(geometry.to_crop(corners, (100, 200)), expected)


def test_batches_take_each_persons_own_region():
    rng = np.random.default_rng(1)
    xy, region = rng.uniform(0, 50, [4, 17, 2]), rng.uniform(5, 60, [4, 4])
    together = geometry.normalise(xy, region)
    for person in range(4):
        np.testing.assert_allclose(together[person], geometry.normalise(xy[person], region[person]))
    np.testing.assert_allclose(geometry.denormalise(together, region), xy)


def test_numpy_and_tensorflow_agree():
    rng = np.random.default_rng(2)
    xy = rng.uniform(0, 300, [5, 17, 2]).astype(np.float32)
    box = rng.uniform(20, 200, [5, 4]).astype(np.float32)
    calls = {
        "pad_box": lambda b, p: geometry.pad_box(b, 1.25),
        "normalise": lambda b, p: geometry.normalise(p, b),
        "denormalise": lambda b, p: geometry.denormalise(p, b),
        "to_crop": lambda b, p: geometry.to_crop(p, (96, 64)),
    }
    for name, call in calls.items():
        expected = call(box, xy)
        eager = call(tf.constant(box), tf.constant(xy))
        assert eager.dtype == tf.float32, name
        np.testing.assert_allclose(eager, expected, rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(tf.function(call)(tf.constant(box), tf.constant(xy)), expected, rtol=1e-4, atol=1e-5)


@given(
    box=st.tuples(*[st.floats(-500, 500)] * 2, *[st.floats(0.5, 800)] * 2),
    padding=st.floats(1, 3),
    aspect=st.floats(0.25, 4),
)
def test_the_rectangle_round_a_box_has_its_shape_and_centre_and_is_the_smallest(box, padding, aspect):
    x, y, w, h = geometry.region_of(np.array(box), padding, aspect)
    np.testing.assert_allclose(w, aspect * h, rtol=1e-9)
    # It contains the box and touches it on two sides.
    np.testing.assert_allclose(max(box[2] / w, box[3] / h), 1 / padding, rtol=1e-9)
    np.testing.assert_allclose([x + w / 2, y + h / 2], [box[0] + box[2] / 2, box[1] + box[3] / 2], atol=1e-9)
    many = tf.constant([box, box[:2] + box[:1:-1]], tf.float32)
    expected = geometry.with_aspect(np.array(box), aspect)
    np.testing.assert_allclose(geometry.with_aspect(many, aspect)[0], expected, rtol=1e-4, atol=1e-3)
