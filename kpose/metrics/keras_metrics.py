"""Keras metrics: PCP and PDJ in original pixels, and the spread of the predictions.

For PCP and PDJ, truth [B, K, 3] (x, y, visibility flag) and prediction [B, K, 2] are in pixels of
the original image. Lengths in the stretched crop would be wrong.
"""

import keras
from keras import ops

from kpose.core import skeleton_files, skeletons
from kpose.metrics import pose


@keras.saving.register_keras_serializable("kpose")
class PCP(keras.metrics.Metric):
    """Percentage of correct parts at 0.5, as a fraction: the mean over the limb groups.

    `pose.correct_limbs` defines which limbs are correct and which count. The mean leaves out a
    group without a counted limb. The result is exact on any number of replicas, because replicas
    sum counts and do not average fractions.

    Args:
        skeleton: a `Skeleton`, the name of one, or its fields (`skeleton_files.to_fields`).
        rule: "strict" or "mean".

    Example:
        metric = PCP("coco")
        metric.update_state(truth, prediction)  # [B, K, 3] and [B, K, 2], in original pixels
        metric.result()
    """

    takes_sides = False

    def __init__(self, skeleton="coco", rule="strict", name=None, **kwargs):
        super().__init__(name=name or f"pcp_{rule}", **kwargs)
        if rule not in pose.RULES:
            raise ValueError(f"rule must be one of {pose.RULES}. Received: rule={rule!r}")
        self.skeleton = _table(skeleton)
        self.rule = rule
        limbs = (len(self.skeleton.limb_list),)
        self.correct = self.add_variable(limbs, "zeros", name="correct")
        self.counted = self.add_variable(limbs, "zeros", name="counted")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Counts a batch.

        Args:
            y_true: [B, K, 3].
            y_pred: [B, K, 2].
            sample_weight: [B]; 0 leaves a sample out. None: 1 for all samples.
        """
        correct, counted = pose.correct_limbs(y_true, y_pred, self.skeleton, self.rule)
        weight = ops.ones(ops.shape(correct)[:1]) if sample_weight is None else sample_weight
        weight = ops.cast(weight, "float32")[:, None]
        self.correct.assign_add(ops.sum(correct * weight, axis=0))
        self.counted.assign_add(ops.sum(counted * weight, axis=0))

    @property
    def defined(self):
        """Whether a limb counted; otherwise the result, 0, means nothing."""
        return _any_counted(self.counted)

    def by_limb(self):
        """{name from `Skeleton.limb_names`: fraction as a float}, for the limbs that counted."""
        correct, counted = (ops.convert_to_numpy(ops.convert_to_tensor(v)) for v in (self.correct, self.counted))
        names = self.skeleton.limb_names
        return {name: float(c / n) for name, c, n in zip(names, correct, counted, strict=True) if n}

    def result(self):
        correct, counted = (pose.sum_by_group(limbs, self.skeleton) for limbs in (self.correct, self.counted))
        return pose.mean_of_groups(correct, counted)[0]

    def get_config(self):
        return super().get_config() | {"skeleton": _saved(self.skeleton), "rule": self.rule}


@keras.saving.register_keras_serializable("kpose")
class PDJ(keras.metrics.Metric):
    """Percentage of detected joints, as a fraction.

    `pose.detected_joints` defines which joints are correct and which count. The result is exact on
    any number of replicas, because replicas sum counts.

    Args:
        skeleton: a `Skeleton`, the name of one, or its fields (`skeleton_files.to_fields`).
        threshold: the largest error of a correct joint, in torso diameters. If the skeleton has no
            torso, in longer sides of the box.

    Example:
        metric = PDJ("coco", 0.2)
        metric.update_state(truth, prediction)  # [B, K, 3] and [B, K, 2], in original pixels
        metric.result()
    """

    # `Regressor` calls `update_state` with the sides of the boxes.
    takes_sides = True

    def __init__(self, skeleton="coco", threshold=0.2, name=None, **kwargs):
        super().__init__(name=name or f"pdj_{threshold:g}", **kwargs)
        self.skeleton = _table(skeleton)
        self.threshold = threshold
        self.correct = self.add_variable((), "zeros", name="correct")
        self.counted = self.add_variable((), "zeros", name="counted")

    def update_state(self, y_true, y_pred, sample_weight=None, sides=None):
        """Counts a batch.

        Args:
            y_true: [B, K, 3].
            y_pred: [B, K, 2].
            sample_weight: [B]; 0 leaves a sample out. None: 1 for all samples.
            sides: [B] the longer sides of the boxes in original pixels; only a skeleton without a
                torso needs them.
        """
        correct, counted = pose.detected_joints(y_true, y_pred, self.skeleton, self.threshold, sides)
        weight = ops.ones(ops.shape(correct)[:1]) if sample_weight is None else sample_weight
        weight = ops.cast(weight, "float32")[:, None]
        self.correct.assign_add(ops.sum(correct * weight))
        self.counted.assign_add(ops.sum(counted * weight))

    @property
    def defined(self):
        """Whether a joint counted; otherwise the result, 0, means nothing."""
        return _any_counted(self.counted)

    def result(self):
        return self.correct / ops.maximum(self.counted, 1.0)

    def get_config(self):
        return super().get_config() | {"skeleton": _saved(self.skeleton), "threshold": self.threshold}


@keras.saving.register_keras_serializable("kpose")
class SpreadRatio(keras.metrics.Metric):
    """How much predictions vary from person to person, relative to the labels.

    The standard deviation of the predictions around their own mean (of each joint and coordinate),
    divided by that of the labels. Both are over the labelled joints, in normalised coordinates. A
    model that predicts one pose for every person has 0, a perfect model has 1. An uncertain model
    has less than 1, because the best prediction under an L2 loss is a mean. Labels that do not vary
    give 1. The result is exact on any number of replicas, because replicas add their sums.

    Args:
        num_joints: K.

    Example:
        metric = SpreadRatio(17)
        metric.update_state(truth, prediction)  # [B, 17, 3] and [B, 17, 2], normalised
        metric.result()
    """

    def __init__(self, num_joints, name="spread", **kwargs):
        super().__init__(name=name, **kwargs)
        self.num_joints = num_joints
        self.counted = self.add_variable((num_joints, 1), "zeros", name="counted")
        # Index 0: of the labels; index 1: of the predictions.
        self.sums = self.add_variable((2, num_joints, 2), "zeros", name="sums")
        self.squares = self.add_variable((2, num_joints, 2), "zeros", name="squares")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch.

        Args:
            y_true: [B, K, 3].
            y_pred: [B, K, 2].
            sample_weight: [B]; 0 leaves a sample out. None: 1 for all samples.
        """
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        weight = ops.cast(y_true[..., 2:] > 0, "float32")
        if sample_weight is not None:
            weight = weight * ops.cast(sample_weight, "float32")[:, None, None]
        points = ops.stack([y_true[..., :2], y_pred])
        self.counted.assign_add(ops.sum(weight, axis=0))
        self.sums.assign_add(ops.sum(points * weight, axis=1))
        self.squares.assign_add(ops.sum(ops.square(points) * weight, axis=1))

    def result(self):
        # Sum of squared deviations: sum x^2 - (sum x)^2 / n, of each joint and coordinate.
        around_zero = ops.square(self.sums) / ops.maximum(self.counted, 1.0)
        labels, predictions = ops.unstack(ops.sum(ops.maximum(self.squares - around_zero, 0.0), axis=(1, 2)), 2)
        varied = labels > 1e-6 * ops.maximum(ops.sum(self.squares[0]), 1e-6)
        return ops.where(varied, ops.sqrt(predictions / ops.where(varied, labels, 1.0)), 1.0)

    def get_config(self):
        return super().get_config() | {"num_joints": self.num_joints}


def _table(skeleton):
    return skeleton_files.of_saved(skeleton) if isinstance(skeleton, str | dict) else skeleton


def _saved(skeleton):
    """What a configuration holds: the name of a known skeleton, or the fields of another."""
    known = skeletons.SKELETONS.get(skeleton.name) == skeleton
    return skeleton.name if known else skeleton_files.to_fields(skeleton)


def _any_counted(variable):
    # `convert_to_tensor` sums the parts of several replicas.
    return bool(ops.convert_to_numpy(ops.convert_to_tensor(variable)).any())
