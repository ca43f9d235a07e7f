"""The box of labelled joints, which the converters use."""

import numpy as np

from tfrecords_tools import coco_builder


def test_the_box_has_a_margin_and_is_clipped_to_the_image():
    points = np.array([[50, 20], [60, 70], [5, 5]])
    flags = np.array([2, 1, 0])
    assert coco_builder.box_of_joints(points, flags, (120, 90), 0.1) == [45, 15, 20, 60]
    assert coco_builder.box_of_joints(points, flags, (120, 90), 0) == [50, 20, 10, 50]
    assert coco_builder.box_of_joints(points, flags, (63, 72), 0.5) == [25, 0, 38, 72]
    assert coco_builder.box_of_joints(points, [0, 0, 2], (120, 90), 0.1) is None
    assert coco_builder.box_of_joints(points, [0, 0, 0], (120, 90), 0.1) is None
