"""Object keypoint similarity (https://cocodataset.org/#keypoints-eval), in NumPy."""

import numpy as np


def joint_similarity(first, second, areas, sigmas):
    """The similarity of each joint of two poses: exp(-d^2 / (2 a (2 s)^2)).

    d is the distance of the two positions, a the area and s the joint's sigma. OKS is the mean over
    the joints.

    Args:
        first, second: [..., K, 2 or more] x, y in pixels.
        areas: [...] areas of the persons in square pixels, more than 0.
        sigmas: K sigmas of the joints.

    Returns:
        [..., K] in 0..1.
    """
    squared = np.square(first[..., :2] - second[..., :2]).sum(-1)
    return np.exp(-squared / (2 * np.square(2 * np.asarray(sigmas)) * np.asarray(areas)[..., None]))
