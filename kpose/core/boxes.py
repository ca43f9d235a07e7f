"""Overlap of boxes, in NumPy."""

import numpy as np


def overlap(first, second):
    """Intersection over union of boxes.

    Args:
        first, second: [N, 4] and [M, 4] xywh.

    Returns:
        [N, M]; 0 where both boxes are empty.
    """
    first, second = first[:, None], second[None]
    start = np.maximum(first[..., :2], second[..., :2])
    end = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    shared = np.maximum(end - start, 0).prod(-1)
    union = first[..., 2:].prod(-1) + second[..., 2:].prod(-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
