"""Keypoint metrics: PCP and PDJ, in original pixels.

Truth is [..., K, 3] (x, y, visibility flag) and prediction [..., K, 2], both in the original image's pixels:
lengths in the stretched crop would be wrong.
"""

import keras
from keras import ops

from kpose import skeletons

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


@keras.saving.register_keras_serializable("kpose")
class PCP(keras.metrics.Metric):
    """Percentage of correct parts at 0.5, as a fraction: the mean over the limb groups.

    Limbs are counted as in `correct_limbs`; groups without any counted limb are left out of the mean. The figure
    is exact on any number of replicas, because counts are summed, not fractions averaged.

    Args:
        skeleton: a `Skeleton`, or the name of one.
        rule: "strict" or "mean".

    Example:
        metric = PCP("coco")
        metric.update_state(truth, prediction)  # [B, K, 3] and [B, K, 2], in original pixels
        metric.result()
    """

    def __init__(self, skeleton="coco", rule="strict", name=None, **kwargs):
        super().__init__(name=name or f"pcp_{rule}", **kwargs)
        if rule not in RULES:
            raise ValueError(f"rule must be one of {RULES}. Received: rule={rule!r}")
        self.skeleton = skeletons.get(skeleton) if isinstance(skeleton, str) else skeleton
        self.rule = rule
        limbs = (len(self.skeleton.limb_list),)
        self.correct = self.add_variable(limbs, "zeros", name="correct")
        self.counted = self.add_variable(limbs, "zeros", name="counted")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Counts a batch: `y_true` [B, K, 3], `y_pred` [B, K, 2], `sample_weight` [B] (0 leaves a sample out)."""
        correct, counted = correct_limbs(y_true, y_pred, self.skeleton, self.rule)
        weight = ops.ones(ops.shape(correct)[:1]) if sample_weight is None else sample_weight
        weight = ops.cast(weight, "float32")[:, None]
        self.correct.assign_add(ops.sum(correct * weight, axis=0))
        self.counted.assign_add(ops.sum(counted * weight, axis=0))

    def group_results(self):
        """[G] the fraction of each limb group, 0 where none counted, and [G] how many limbs counted."""
        correct, counted, start = [], [], 0
        for limbs in self.skeleton.limbs.values():
            correct.append(ops.sum(self.correct[start : start + len(limbs)]))
            counted.append(ops.sum(self.counted[start : start + len(limbs)]))
            start += len(limbs)
        counted = ops.stack(counted)
        return ops.stack(correct) / ops.maximum(counted, 1.0), counted

    def result(self):
        fractions, counted = self.group_results()
        present = ops.sum(ops.cast(counted > 0, "float32"))
        return ops.sum(fractions) / ops.maximum(present, 1.0)

    def get_config(self):
        return super().get_config() | {"skeleton": self.skeleton.name, "rule": self.rule}
