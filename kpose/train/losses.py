"""Losses: normalised labels and the network's outputs -> one figure a sample.

A loss is a `KeypointLoss`, whose `call(y_true, y_pred)` takes `y_true` [B, K, 3] (normalised x, y and the visibility
flag) and the network's dict of outputs, and returns [B] float32. Joints with flag 0 carry no label and never
count. `outputs` names what the loss needs beside "keypoints": "scale" [B, K, 2] (positive, normalised) or "visibility"
[B, K]. `reduction` says what is minimised: the "sum" over the global batch or its mean ("sum_over_batch_size").

All arithmetic is in float32, and finite for every finite input: errors beyond `FARTHEST` crops count as that far.
"""

import math

import keras
from keras import ops

from kpose.core import checks
from kpose.models.layers import OUTPUTS_OF_LOSS
from kpose.train.flow import RealNVP

# So that neither the square of an error nor a flow of it overflows.
FARTHEST = 1e15


class KeypointLoss(keras.losses.Loss):
    """What all losses share.

    Attributes:
        outputs: names of the network's outputs that it needs beside "keypoints".
    """

    outputs = ()

    @property
    def trainable_variables(self):
        """What is trained together with the network, and needed for nothing else."""
        return []


@keras.saving.register_keras_serializable("kpose")
class L2Loss(KeypointLoss):
    """Squared L2 distance between label and prediction, summed over joints and over the batch.

    Equation 3 of Gupta and Gritton: L = sum_i ||y'_i - y_i||^2 (and equation 2 of DeepPose, Toshev and Szegedy, CVPR
    2014). With unlabelled joints, the sum is over the labelled ones.
    """

    def __init__(self, reduction="sum", name="l2", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        return _masked_sum(y_true, ops.square(_difference(y_true, y_pred)))


@keras.saving.register_keras_serializable("kpose")
class MaskedL2Loss(KeypointLoss):
    """Squared L2 distance of (x, y, v), summed over joints and over the batch; x and y only where there is a label.

    Equations 4 and 5 of Gupta and Gritton: L = sum_i w ||y'_i - y_i||^2 with w = [0, 0, 1] where the true v is 0, else
    [1, 1, 1]. The target of v is 1 for every labelled joint, occluded ones too, and 0 for the others.
    """

    outputs = OUTPUTS_OF_LOSS["masked_l2"]

    def __init__(self, reduction="sum", name="masked_l2", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        target = ops.cast(y_true[..., 2] > 0, "float32")
        visibility = ops.clip(ops.cast(y_pred["visibility"], "float32") - target, -FARTHEST, FARTHEST)
        points = _masked_sum(y_true, ops.square(_difference(y_true, y_pred)))
        return points + ops.sum(ops.square(visibility), axis=-1)


@keras.saving.register_keras_serializable("kpose")
class L1Loss(KeypointLoss):
    """Absolute difference, summed over joints, averaged over the batch: outliers pull less than under L2."""

    def __init__(self, reduction="sum_over_batch_size", name="l1", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        return _masked_sum(y_true, ops.abs(_difference(y_true, y_pred)))


@keras.saving.register_keras_serializable("kpose")
class SmoothL1Loss(KeypointLoss):
    """Squared near zero, absolute beyond `beta` (Girshick, "Fast R-CNN", ICCV 2015), averaged over the batch.

    d^2 / (2 beta) where |d| < beta, else |d| - beta / 2; summed over joints.

    Args:
        beta: where the two meet, as a fraction of the crop.
    """

    def __init__(self, beta=0.02, reduction="sum_over_batch_size", name="smooth_l1", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)
        self.beta = beta

    def call(self, y_true, y_pred):
        distance = ops.abs(_difference(y_true, y_pred))
        near = ops.minimum(distance, self.beta)
        return _masked_sum(y_true, ops.square(near) / (2 * self.beta) + distance - near)

    def get_config(self):
        return super().get_config() | {"beta": self.beta}


@keras.saving.register_keras_serializable("kpose")
class LaplaceLoss(KeypointLoss):
    """Negative log-likelihood of the labels under a Laplace distribution of learned scale, averaged over the batch.

    log(2 s) + |d| / s for each coordinate, summed over joints; s is the output "scale" (Kendall and Gal, "What
    Uncertainties Do We Need in Bayesian Deep Learning for Computer Vision?", NIPS 2017, in its L1 form).
    """

    outputs = OUTPUTS_OF_LOSS["laplace"]

    def __init__(self, reduction="sum_over_batch_size", name="laplace", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        scale = _scale(y_pred)
        return _masked_sum(y_true, _laplace(ops.abs(_difference(y_true, y_pred)) / scale, scale))


@keras.saving.register_keras_serializable("kpose")
class RLELoss(KeypointLoss):
    """Residual log-likelihood (Li et al., "Human Pose Regression with Residual Log-likelihood Estimation", ICCV 2021).

    The density of an error d is a Laplace density times what a normalising flow learns it to lack, both of d / s with
    s the output "scale": -log Laplace(d / s) - log flow(d / s) + 2 log s, summed over the coordinates of the labelled
    joints, averaged over the batch. One flow serves all joints. It is part of the loss, not of the network: nothing of
    it is left at inference, where 1 - s is the joint's confidence.

    Args:
        layers: coupling layers of the flow.
        units: of the two hidden layers of each of its networks.
    """

    outputs = OUTPUTS_OF_LOSS["rle"]

    def __init__(self, layers=6, units=64, reduction="sum_over_batch_size", name="rle", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)
        self.flow = RealNVP(layers, units, name="flow")
        self.flow.build((None, 2))

    @property
    def trainable_variables(self):
        return self.flow.trainable_variables

    def call(self, y_true, y_pred):
        scale = _scale(y_pred)
        # Masked before the flow too: what it makes of an unlabelled joint could be no number.
        labelled = y_true[..., 2:] > 0
        scale = ops.where(labelled, scale, 1.0)
        residual = ops.where(labelled, _difference(y_true, y_pred), 0.0) / scale
        # The flow is a smooth correction near zero; far out the Laplace part alone pulls back.
        log_flow = self.flow.log_density(ops.clip(residual, -100.0, 100.0))
        likelihood = _laplace(ops.abs(residual), scale) + ops.log(scale)
        return _masked_sum(y_true, likelihood) - ops.sum(ops.where(labelled[..., 0], log_flow, 0.0), axis=1)

    def get_config(self):
        return super().get_config() | {"layers": self.flow.layers, "units": self.flow.units}


def _laplace(ratio, scale):
    """-log of the Laplace density with scale s, `ratio` being |d| / s."""
    return ratio + ops.log(scale) + math.log(2.0)


def _scale(y_pred):
    return ops.clip(_in_units(ops.cast(y_pred["scale"], "float32"), y_pred), 1e-4, FARTHEST)


def _in_units(values, y_pred):
    """[B, K, 2] in the unit of length that the network names: the crop unless it gives "unit" [B, K, 2]."""
    return values / ops.cast(y_pred["unit"], "float32") if "unit" in y_pred else values


def _difference(y_true, y_pred):
    """[B, K, 2] float32 prediction minus label."""
    difference = ops.cast(y_pred["keypoints"], "float32") - ops.cast(y_true[..., :2], "float32")
    return ops.clip(_in_units(difference, y_pred), -FARTHEST, FARTHEST)


def _masked_sum(y_true, values):
    """[B, K, 2] -> [B]: the sum over labelled joints; `where`, not a product, so that no NaN passes the mask."""
    labelled = y_true[..., 2:] > 0
    return ops.sum(ops.where(labelled, values, 0.0), axis=(1, 2))


LOSSES = {
    "l2": lambda config: L2Loss(),
    "masked_l2": lambda config: MaskedL2Loss(),
    "l1": lambda config: L1Loss(),
    "smooth_l1": lambda config: SmoothL1Loss(config.beta),
    "laplace": lambda config: LaplaceLoss(),
    "rle": lambda config: RLELoss(config.flow_layers, config.flow_units),
}


@checks.register
def check_recipe(config):
    """Raises `InputError` unless `config.loss.name` names a loss."""
    checks.choice(config.loss.name, "loss.name", LOSSES)


def build(config):
    """The loss of a recipe's `loss` section."""
    checks.choice(config.name, "loss.name", LOSSES)
    return LOSSES[config.name](config)
