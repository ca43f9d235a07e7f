"""Losses: normalised labels and the network's outputs -> one figure a sample.

A loss is a `keras.losses.Loss` whose `call(y_true, y_pred)` takes `y_true` [B, K, 3] (normalised x, y and the
visibility flag) and the network's dict of outputs, and returns [B] float32. Joints with flag 0 carry no label and
never count. `reduction` says what is minimised: the "sum" over the global batch or its mean
("sum_over_batch_size").
"""

import keras
from keras import ops

from kpose.errors import InputError


@keras.saving.register_keras_serializable("kpose")
class L2Loss(keras.losses.Loss):
    """Squared L2 distance between label and prediction, summed over joints and over the batch.

    Equation 3 of Gupta and Gritton: L = sum_i ||y'_i - y_i||^2 (and equation 2 of DeepPose, Toshev and Szegedy, CVPR
    2014). With unlabelled joints, the sum is over the labelled ones.
    """

    def __init__(self, reduction="sum", name="l2", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        return _masked_sum(y_true, ops.square(_difference(y_true, y_pred)))


@keras.saving.register_keras_serializable("kpose")
class L1Loss(keras.losses.Loss):
    """Absolute difference, summed over joints, averaged over the batch: outliers pull less than under L2."""

    def __init__(self, reduction="sum_over_batch_size", name="l1", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        return _masked_sum(y_true, ops.abs(_difference(y_true, y_pred)))


def _difference(y_true, y_pred):
    """[B, K, 2] float32 prediction minus label."""
    return ops.cast(y_pred["keypoints"], "float32") - ops.cast(y_true[..., :2], "float32")


def _masked_sum(y_true, values):
    """[B, K, 2] -> [B]: the sum over labelled joints; `where`, not a product, so that no NaN passes the mask."""
    labelled = y_true[..., 2:] > 0
    return ops.sum(ops.where(labelled, values, 0.0), axis=(1, 2))


LOSSES = {"l2": L2Loss, "l1": L1Loss}


def build(name):
    """The loss that recipes call `name`."""
    if name not in LOSSES:
        raise InputError(f"loss.name is {name!r}: there are {', '.join(sorted(LOSSES))}")
    return LOSSES[name]()
