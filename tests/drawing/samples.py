"""A person and an image for the tests of `kpose.drawing`."""

import numpy as np

from kpose.core import skeletons

COCO = skeletons.COCO
GREY = np.full((120, 100, 3), 128, np.uint8)
# A person in front view, with joints far from each other, in an image of the size of GREY.
PERSON = np.array(
    [
        *[(50, 14), (56, 8), (44, 8), (62, 12), (38, 12)],
        *[(66, 32), (34, 32), (78, 50), (22, 50), (82, 68), (18, 68)],
        *[(60, 66), (40, 66), (62, 86), (38, 86), (64, 108), (36, 108)],
    ],
    np.float64,
)


def flags(**changes):
    """[17] visibility flags: 2, but for the joints in `changes`."""
    values = np.full(COCO.num_joints, 2)
    for joint, flag in changes.items():
        values[COCO.joints.index(joint)] = flag
    return values
