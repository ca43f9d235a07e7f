"""PCP, PDJ and PCK as pure functions of truth and prediction, in original pixels.

PCP and PDJ use `keras.ops` in float32, because training computes them too. Joint errors and PCK are
computed in NumPy, in float64.
"""

import numpy as np
import tensorflow as tf
from keras import ops

RULES = ("strict", "mean")
# The units of PDJ (`pdj_unit`).
TORSOS, BOX_SIDES = "torso diameters", "longer sides of the box"


def correct_limbs(truth, prediction, skeleton, rule="strict", threshold=0.5):
    """The limbs that are correct in PCP.

    PCP is the percentage of correct parts (Ferrari et al., CVPR 2008).

    Args:
        truth: [..., K, 3]: x, y and the visibility flag.
        prediction: [..., K, 2].
        skeleton: `Skeleton` with L limbs.
        rule: "strict": both endpoint errors are at most `threshold` times the true limb's length.
            "mean": the mean of the two endpoint errors is.
        threshold: fraction of the limb's length.

    Returns:
        (correct, counted), both [..., L] float32 of 0 and 1. A limb counts if both its true joints
        are labelled.
    """
    # int64, because TensorFlow keeps int32 on the host: each step would copy them to the card and wait.
    start, end = (tf.constant([limb[side] for limb in skeleton.limb_list], tf.int64) for side in (0, 1))
    truth, prediction = ops.cast(truth, "float32"), ops.cast(prediction, "float32")
    points, labelled = truth[..., :2], truth[..., 2] > 0
    errors = _distance(points, prediction)
    length = _distance(tf.gather(points, start, axis=-2), tf.gather(points, end, axis=-2))
    first, second = tf.gather(errors, start, axis=-1), tf.gather(errors, end, axis=-1)
    error = ops.maximum(first, second) if rule == "strict" else (first + second) / 2
    counted = ops.logical_and(tf.gather(labelled, start, axis=-1), tf.gather(labelled, end, axis=-1))
    correct = ops.logical_and(error <= threshold * length, counted)
    return ops.cast(correct, "float32"), ops.cast(counted, "float32")


def sum_by_group(limbs, skeleton, xp=ops):
    """Sums of a number for each limb over the limbs of each limb group.

    Args:
        limbs: [..., L], such as how many limbs are correct.
        skeleton: `Skeleton` with L limbs in G groups.
        xp: the array module: `keras.ops` for tensors, `numpy` for arrays.

    Returns:
        [..., G].
    """
    if not skeleton.limbs:
        return limbs[..., :0]
    sums, start = [], 0
    for group in skeleton.limbs.values():
        sums.append(xp.sum(limbs[..., start : start + len(group)], axis=-1))
        start += len(group)
    return xp.stack(sums, axis=-1)


def mean_of_groups(correct, counted, xp=ops):
    """The mean of the fractions `correct / counted`, over the groups that counted anything.

    Args:
        correct, counted: [..., G] sums by group.
        xp: the array module: `keras.ops` for tensors, `numpy` for arrays.

    Returns:
        (mean [...], number of groups that counted [...]). The mean is 0 where no group counted.
    """
    fractions = correct / xp.maximum(counted, 1.0)
    groups = xp.sum(xp.where(counted > 0, 1.0, 0.0), axis=-1)
    return xp.sum(fractions, axis=-1) / xp.maximum(groups, 1.0), groups


def pdj_unit(skeleton):
    """The unit of PDJ's thresholds, in the plural: for a skeleton without a torso sides of the box."""
    return TORSOS if skeleton.torso else BOX_SIDES


def detected_joints(truth, prediction, skeleton, threshold, sides=None):
    """The joints that are correct in PDJ.

    PDJ is the percentage of detected joints (Sapp and Taskar, CVPR 2013). A joint is correct if its
    error is at most `threshold` times the torso diameter. It counts if it and both torso joints are
    labelled. If the skeleton has no torso, the unit is the longer side of the person's box, and all
    labelled joints count. This is PCK.

    Args:
        truth: [..., K, 3]: x, y and the visibility flag.
        prediction: [..., K, 2].
        skeleton: `Skeleton` with K joints.
        threshold: fraction of the torso diameter or of the longer side.
        sides: [...] the longer side of each box, in the same pixels; only a skeleton without a torso
            needs it.

    Returns:
        (correct, counted), both [..., K] float32 of 0 and 1.

    Raises:
        ValueError: the skeleton has no torso, and there are no sides.
    """
    truth, prediction = ops.cast(truth, "float32"), ops.cast(prediction, "float32")
    points, labelled = truth[..., :2], truth[..., 2] > 0
    if skeleton.torso:
        one, other = skeleton.torso
        unit = _distance(points[..., one, :], points[..., other, :])
        has_torso = ops.logical_and(labelled[..., one], labelled[..., other])
        counted = ops.logical_and(labelled, has_torso[..., None])
    elif sides is None:
        raise ValueError(f"skeleton {skeleton.name!r} has no torso: PDJ needs the sides of the boxes")
    else:
        unit, counted = ops.cast(sides, "float32"), labelled
    correct = ops.logical_and(_distance(points, prediction) <= threshold * unit[..., None], counted)
    return ops.cast(correct, "float32"), ops.cast(counted, "float32")


def joint_errors(truth, prediction):
    """Distances between predicted and true joints.

    Args:
        truth: [N, K, 3]: x, y in pixels and the visibility flag.
        prediction: [N, K, 2] in pixels.

    Returns:
        (errors [N, K] float64 in pixels, labelled [N, K] bool). The error of an unlabelled joint
        means nothing.
    """
    errors = np.linalg.norm(np.asarray(prediction, np.float64) - truth[..., :2], axis=-1)
    return errors, truth[..., 2] > 0


def correct_keypoints(truth, prediction, boxes, threshold):
    """The joints that are correct in PCK.

    PCK is the percentage of correct keypoints (Yang and Ramanan, TPAMI 2013). A joint is correct if
    its error is at most `threshold` times the longer side of the person's box.

    Args:
        truth, prediction: as for `joint_errors`.
        boxes: [N, 4] xywh in pixels.
        threshold: fraction of the longer side.

    Returns:
        (correct, labelled), both [N, K] bool.
    """
    errors, labelled = joint_errors(truth, prediction)
    return labelled & (errors <= threshold * longer_sides(boxes)[:, None]), labelled


def longer_sides(boxes):
    """[N]: the longer side of each box [N, 4] xywh."""
    return np.max(boxes[:, 2:], axis=-1)


def _distance(a, b):
    return ops.sqrt(ops.sum(ops.square(a - b), axis=-1))
