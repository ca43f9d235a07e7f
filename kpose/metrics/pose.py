"""PCP and PDJ as pure functions of truth and prediction, in original pixels."""

from keras import ops

RULES = ("strict", "mean")


def correct_limbs(truth, prediction, skeleton, rule="strict", threshold=0.5):
    """Which limbs are right, by the percentage of correct parts (Ferrari et al., CVPR 2008).

    Args:
        truth: [..., K, 3].
        prediction: [..., K, 2].
        skeleton: `Skeleton` with L limbs.
        rule: "strict": both endpoints within `threshold` times the true limb's length; "mean": the mean of the two
            endpoint errors within it.
        threshold: the fraction of the limb's length.

    Returns:
        (correct, counted), both [..., L] float32 of 0 and 1. A limb counts where both its true joints are labelled.
    """
    start, end = ([limb[side] for limb in skeleton.limb_list] for side in (0, 1))
    truth, prediction = ops.cast(truth, "float32"), ops.cast(prediction, "float32")
    points, labelled = truth[..., :2], truth[..., 2] > 0
    errors = _distance(points, prediction)
    length = _distance(ops.take(points, start, axis=-2), ops.take(points, end, axis=-2))
    first, second = ops.take(errors, start, axis=-1), ops.take(errors, end, axis=-1)
    error = ops.maximum(first, second) if rule == "strict" else (first + second) / 2
    counted = ops.logical_and(ops.take(labelled, start, axis=-1), ops.take(labelled, end, axis=-1))
    correct = ops.logical_and(error <= threshold * length, counted)
    return ops.cast(correct, "float32"), ops.cast(counted, "float32")


def detected_joints(truth, prediction, skeleton, threshold):
    """Which joints are right, by the percentage of detected joints (Sapp and Taskar, CVPR 2013).

    A joint is right when its error is at most `threshold` times the torso diameter; it counts where it and both
    torso joints are labelled.

    Returns:
        (correct, counted), both [..., K] float32 of 0 and 1.
    """
    truth, prediction = ops.cast(truth, "float32"), ops.cast(prediction, "float32")
    points, labelled = truth[..., :2], truth[..., 2] > 0
    one, other = skeleton.torso
    torso = _distance(points[..., one, :], points[..., other, :])
    has_torso = ops.logical_and(labelled[..., one], labelled[..., other])
    counted = ops.logical_and(labelled, has_torso[..., None])
    correct = ops.logical_and(_distance(points, prediction) <= threshold * torso[..., None], counted)
    return ops.cast(correct, "float32"), ops.cast(counted, "float32")


def _distance(a, b):
    return ops.sqrt(ops.sum(ops.square(a - b), axis=-1))
