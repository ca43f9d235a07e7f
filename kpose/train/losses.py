"""Losses: one value per sample, from normalised labels and the outputs of a network.

A loss is a `KeypointLoss`. Its `call(y_true, y_pred)` returns [B] float32. `y_true` is [B, K, 3]:
normalised x, y and the visibility flag. `y_pred` is the dict of the network's outputs. Joints with
flag 0 are unlabelled and do not count; so are those with flag -1, which the data set of the sample
never labels. `outputs` names the outputs that the loss needs in addition to "keypoints" [B, K, 2]:
"scale" [B, K, 2] (positive, normalised) or "visibility" [B, K]. `reduction` is "sum" or
"sum_over_batch_size": the sum or mean over the global batch is minimised.

Losses compute in float32. They are finite for every finite input: errors are clipped at `FARTHEST`.
"""

import math
import typing

import keras
from keras import ops

from kpose.core import checks
from kpose.models.layers import OUTPUTS_OF_LOSS
from kpose.train.flow import RealNVP

# Largest error, in crops: the square of an error and the flow's input must not overflow.
FARTHEST = 1e15


class RLEWeights(typing.NamedTuple):
    """Factors of the terms of RLE (`RLELoss`).

    Attributes:
        log_scale: of log s, for each coordinate.
        laplace_scale: scale of the Laplace density, in units of s.
        constant: added for each coordinate.
        flow: of the flow's log density, for each joint.
    """

    log_scale: float
    laplace_scale: float
    constant: float
    flow: float


RLE_WEIGHTS = {
    "authors": RLEWeights(2.0, math.sqrt(2.0), math.log(2 * math.pi) / 2, 2.0),
    "paper": RLEWeights(1.0, 1.0, math.log(2.0), 1.0),
    "kpose_0.1": RLEWeights(2.0, 1.0, math.log(2.0), 1.0),
}


class KeypointLoss(keras.losses.Loss):
    """Base class of the losses.

    Attributes:
        outputs: names of the network outputs that the loss needs in addition to "keypoints".
    """

    outputs = ()

    @property
    def trainable_variables(self):
        """Variables of the loss that are trained together with the network."""
        return []


@keras.saving.register_keras_serializable("kpose")
class L2Loss(KeypointLoss):
    """Squared L2 distance between label and prediction, summed over joints and over the batch.

    Equation 3 of Gupta and Gritton: L = sum_i ||y'_i - y_i||^2 (and equation 2 of DeepPose, Toshev
    and Szegedy, CVPR 2014). The sum is over labelled joints.
    """

    def __init__(self, reduction="sum", name="l2", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        return _masked_sum(y_true, ops.square(_difference(y_true, y_pred)))


@keras.saving.register_keras_serializable("kpose")
class MaskedL2Loss(KeypointLoss):
    """Squared L2 distance of (x, y, v), summed over joints and over the batch.

    Equations 4 and 5 of Gupta and Gritton: L = sum_i w ||y'_i - y_i||^2, with w = [0, 0, 1] if the
    true v is 0, else [1, 1, 1]. The target of v is 1 for labelled joints, visible or occluded, and
    0 for others. Where the flag is -1, v is unknown, and w = [0, 0, 0].
    """

    outputs = OUTPUTS_OF_LOSS["masked_l2"]

    def __init__(self, reduction="sum", name="masked_l2", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        target = ops.cast(y_true[..., 2] > 0, "float32")
        difference = ops.where(y_true[..., 2] >= 0, ops.cast(y_pred["visibility"], "float32") - target, 0.0)
        visibility = ops.clip(difference, -FARTHEST, FARTHEST)
        points = _masked_sum(y_true, ops.square(_difference(y_true, y_pred)))
        return points + ops.sum(ops.square(visibility), axis=-1)


@keras.saving.register_keras_serializable("kpose")
class L1Loss(KeypointLoss):
    """Absolute difference, summed over joints, averaged over the batch."""

    def __init__(self, reduction="sum_over_batch_size", name="l1", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        return _masked_sum(y_true, ops.abs(_difference(y_true, y_pred)))


@keras.saving.register_keras_serializable("kpose")
class SmoothL1Loss(KeypointLoss):
    """Smooth L1 loss, summed over joints, averaged over the batch.

    Girshick, "Fast R-CNN", ICCV 2015: d^2 / (2 beta) if |d| < beta, else |d| - beta / 2.

    Args:
        beta: error at which the square ends, as a fraction of the crop.
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
    """Negative log-likelihood under a Laplace distribution of learned scale.

    It is averaged over the batch: log(2 s) + |d| / s per coordinate, summed over joints. s is the
    output "scale" (Kendall and Gal, "What Uncertainties Do We Need in Bayesian Deep Learning for
    Computer Vision?", NIPS 2017, L1 form).
    """

    outputs = OUTPUTS_OF_LOSS["laplace"]

    def __init__(self, reduction="sum_over_batch_size", name="laplace", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        scale = _scale(y_pred)
        return _masked_sum(y_true, _laplace(ops.abs(_difference(y_true, y_pred)) / scale, scale))


@keras.saving.register_keras_serializable("kpose")
class RLELoss(KeypointLoss):
    """Residual log-likelihood estimation (RLE), averaged over the batch.

    Li et al., "Human Pose Regression with Residual Log-likelihood Estimation", ICCV 2021. d is the
    error of a coordinate (prediction minus label, in crops), s its output "scale", and f the log
    density of a learned normalising flow at (d_x / s_x, d_y / s_y). The loss is the sum over the
    labelled joints and their two coordinates of one of these (`weighting`):

        authors    2 log s + |d| / (sqrt(2) s) + log(2 pi) / 2 - f
        paper        log s + |d| / s           + log 2         - f / 2
        kpose_0.1  2 log s + |d| / s           + log 2         - f / 2

    "paper" is the paper's loss, L_rle = -log Q - log G + log s: the density of d / s is the product
    of a Laplace density Q and the flow's density G, and log s changes it to a density of d. (The
    paper's constant that normalises the product is left out, as in the code.) Each term counts
    once, so f counts once for each joint.

    "authors" is the authors' code (rlepose/models/criterion.py and regression_nf.py in
    github.com/Jeff-sjtu/res-loglikelihood-regression). Its Laplace term is a likelihood of d, not of
    d / s, so log s counts twice. f is added in x and in y, so it counts twice for each joint. The
    Laplace density has the scale sqrt(2) s.

    "kpose_0.1" is the loss of release 0.1: the product of a Laplace density and the flow's density,
    both of d. It counts log s twice and f once.

    In "authors" and "paper" log s and f balance: if s grows by a factor and the flow narrows by
    it, they cancel, and the Laplace term gets smaller. So s grows towards the limit of the network's
    output, and only ratios of scales have a meaning. In "kpose_0.1" they do not cancel, and s is
    about the mean absolute error.

    All joints share one flow. It belongs to the loss, not to the network, so inference does not
    need it. At inference the confidence of a joint is 1 - s.

    Args:
        layers: number of coupling layers of the flow.
        units: units of the two hidden layers of each network of the flow.
        weighting: a key of `RLE_WEIGHTS`.
    """

    outputs = OUTPUTS_OF_LOSS["rle"]

    def __init__(self, layers=6, units=64, weighting="authors", reduction="sum_over_batch_size", name="rle", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)
        self.weighting = weighting
        self.flow = RealNVP(layers, units, name="flow")
        self.flow.build((None, 2))

    @property
    def trainable_variables(self):
        return self.flow.trainable_variables

    def call(self, y_true, y_pred):
        weights = RLE_WEIGHTS[self.weighting]
        scale = _scale(y_pred)
        # Masked before the flow too, which could return NaN for an unlabelled joint.
        labelled = y_true[..., 2:] > 0
        scale = ops.where(labelled, scale, 1.0)
        residual = ops.where(labelled, _difference(y_true, y_pred), 0.0) / scale
        # The flow is a smooth correction near zero; large errors use the Laplace gradient only.
        log_flow = self.flow.log_density(ops.clip(residual, -100.0, 100.0))
        laplace = ops.abs(residual) / weights.laplace_scale + weights.constant
        values = _masked_sum(y_true, weights.log_scale * ops.log(scale) + laplace)
        return values - weights.flow * ops.sum(ops.where(labelled[..., 0], log_flow, 0.0), axis=1)

    def get_config(self):
        ours = {"layers": self.flow.layers, "units": self.flow.units, "weighting": self.weighting}
        return super().get_config() | ours


def _laplace(ratio, scale):
    """-log of the Laplace density, from `ratio` = |d| / scale."""
    return ratio + ops.log(scale) + math.log(2.0)


def _scale(y_pred):
    """[B, K, 2] float32 output "scale", clipped to a positive range."""
    return ops.clip(_in_units(ops.cast(y_pred["scale"], "float32"), y_pred), 1e-4, FARTHEST)


def _in_units(values, y_pred):
    """[B, K, 2] in the network's unit of length: its output "unit" [B, K, 2], or else the crop."""
    return values / ops.cast(y_pred["unit"], "float32") if "unit" in y_pred else values


def _difference(y_true, y_pred):
    """[B, K, 2] float32, prediction minus label, clipped."""
    difference = ops.cast(y_pred["keypoints"], "float32") - ops.cast(y_true[..., :2], "float32")
    return ops.clip(_in_units(difference, y_pred), -FARTHEST, FARTHEST)


def _masked_sum(y_true, values):
    """[B], sum of [B, K, 2] over labelled joints. `where`, because 0 times NaN would be NaN."""
    labelled = y_true[..., 2:] > 0
    return ops.sum(ops.where(labelled, values, 0.0), axis=(1, 2))


LOSSES = {
    "l2": lambda config: L2Loss(),
    "masked_l2": lambda config: MaskedL2Loss(),
    "l1": lambda config: L1Loss(),
    "smooth_l1": lambda config: SmoothL1Loss(config.beta),
    "laplace": lambda config: LaplaceLoss(),
    "rle": lambda config: RLELoss(config.flow_layers, config.flow_units, rle_weighting(config)),
}


def rle_weighting(config):
    """The key of `RLE_WEIGHTS` of a recipe's `loss` section: "auto" is that of the authors."""
    return "authors" if config.weighting == "auto" else config.weighting


@checks.register
def check_recipe(config):
    """Raises `InputError` unless `config.loss.name` names a loss."""
    checks.choice(config.loss.name, "loss.name", LOSSES)


def build(config):
    """The `KeypointLoss` of a recipe's `loss` section."""
    checks.choice(config.name, "loss.name", LOSSES)
    return LOSSES[config.name](config)
