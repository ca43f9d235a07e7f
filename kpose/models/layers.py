"""Layers that several networks share: BatchNorm, soft-argmax, and the further outputs.

A network predicts "keypoints" [B, K, 2], and beside them the further outputs that the recipe's loss
needs:

scale       [B, K, 2] in (0, 1): the scale of the error in x and y, as a fraction of the crop; for RLE
            only ratios of scales have a meaning (`kpose.train.losses.RLELoss`)
visibility  [B, K]: an estimate of whether the joint is labelled or visible; the loss or the network defines it
"""

import keras
import tensorflow as tf
from keras import layers, ops

from kpose.models import xla_operations


@keras.saving.register_keras_serializable("kpose")
class BatchNormalization(layers.BatchNormalization):
    """BatchNormalization of Keras (Ioffe and Szegedy, ICML 2015) with TensorFlow's fused kernel.

    In training, Keras 3 uses about a dozen elementwise operations in float32, and each one reads
    and writes the complete tensor. With the fused kernel, six 3 x 3 convolutions of 64 channels with
    BatchNorm train 2.7 times as fast in bfloat16 and 1.4 times as fast in float32 (CPU with
    AVX512_BF16). The results are the same up to rounding. Synchronised over replicas, on other
    backends and for inputs other than [B, H, W, C], the layer uses the operations of Keras.
    Arguments as for the layer of Keras.
    """

    def call(self, inputs, training=None, mask=None):
        learning = bool(training and self.trainable)
        # With fixed statistics in float32, Keras gives a product and a sum, which converters fold
        # into convolutions.
        exact = keras.backend.standardize_dtype(inputs.dtype) == "float32"
        if (exact and not learning) or not self._fits_the_kernel(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        gamma, beta, mean, variance = (
            tf.cast(v, "float32") for v in (self.gamma, self.beta, self.moving_mean, self.moving_variance)
        )
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            gamma,
            beta,
            mean=None if learning else mean,
            variance=None if learning else variance,
            epsilon=self.epsilon,
            is_training=learning,
        )
        if learning:
            # The kernel returns the variance with n - 1, Keras uses that with n.
            count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), "float32")
            variance = variance * (count - 1.0) / count
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        return ops.cast(outputs, self.compute_dtype)

    def _fits_the_kernel(self, inputs, mask):
        plain = (
            self.scale and self.center and not getattr(self, "renorm", False) and not self.synchronized and mask is None
        )
        return (
            plain
            and keras.backend.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "float16", "bfloat16")
        )


@keras.saving.register_keras_serializable("kpose")
class Conv2D(layers.Conv2D):
    """Conv2D of Keras, which XLA compiles in the form of `xla_operations.convolution`."""

    def convolution_op(self, inputs, kernel):
        found = None
        if xla_operations.active() and self.groups == 1 and _plain(self, inputs):
            found = xla_operations.convolution(inputs, tf.convert_to_tensor(kernel), self.strides[0], self.padding)
        return super().convolution_op(inputs, kernel) if found is None else found


@keras.saving.register_keras_serializable("kpose")
class DepthwiseConv2D(layers.DepthwiseConv2D):
    """DepthwiseConv2D of Keras, which XLA compiles in the form of `xla_operations.depthwise`."""

    def call(self, inputs):
        outputs = self.without_bias(inputs)
        if self.use_bias:
            outputs = ops.add(outputs, ops.reshape(self.bias, (1, 1, 1, -1)))
        return self.activation(outputs)

    def without_bias(self, inputs):
        """The convolution alone."""
        if xla_operations.active() and self.depth_multiplier == 1 and _plain(self, inputs):
            return xla_operations.depthwise(inputs, tf.convert_to_tensor(self.kernel), self.strides[0], self.padding)
        return ops.depthwise_conv(inputs, self.kernel, self.strides, self.padding, self.data_format, self.dilation_rate)


@keras.saving.register_keras_serializable("kpose")
class MaxPooling2D(layers.MaxPooling2D):
    """MaxPooling2D of Keras, which XLA compiles in the form of `xla_operations.max_pool`."""

    def call(self, inputs):
        if xla_operations.active() and len(set(self.pool_size)) == 1 and _plain(self, inputs):
            return xla_operations.max_pool(inputs, self.pool_size[0], self.strides[0], self.padding)
        return super().call(inputs)


def _plain(layer, inputs):
    """Whether `xla_operations` has a form for a layer and its inputs."""
    return (
        layer.data_format == "channels_last"
        and len(set(layer.strides)) == 1
        and set(getattr(layer, "dilation_rate", (1,))) == {1}
        and layer.padding in ("same", "valid")
        and None not in inputs.shape[1:]
    )


class _ConstantBias:
    """A convolution before BatchNorm: its bias has no gradient.

    BatchNorm subtracts the bias again, so its gradient is zero up to rounding. Computing it took 22%
    of a step of MoveNet Thunder in bfloat16 on an H200. The bias itself is kept for weights in which
    BatchNorm is folded.
    """

    def call(self, inputs):
        bias = ops.cast(ops.stop_gradient(self.bias), self.compute_dtype)
        return ops.add(self.without_bias(inputs), ops.reshape(bias, (1, 1, 1, -1)))


@keras.saving.register_keras_serializable("kpose")
class Conv2DBeforeNorm(_ConstantBias, Conv2D):
    """Conv2D of Keras [B, H, W, C] without activation, whose bias has no gradient."""

    def without_bias(self, inputs):
        return self.convolution_op(inputs, self.kernel)


@keras.saving.register_keras_serializable("kpose")
class DepthwiseConv2DBeforeNorm(_ConstantBias, DepthwiseConv2D):
    """DepthwiseConv2D of Keras [B, H, W, C] without activation, whose bias has no gradient."""


# Layers of Keras -> the same with a form for XLA.
WITH_XLA_FORM = {
    layers.Conv2D: Conv2D,
    layers.DepthwiseConv2D: DepthwiseConv2D,
    layers.MaxPooling2D: MaxPooling2D,
}


@keras.saving.register_keras_serializable("kpose")
class SoftArgmax(layers.Layer):
    """Maps [B, h, w, K] -> [B, K, 2] float32: expectation of x, y under the softmax of each map."""

    def __init__(self, **kwargs):
        super().__init__(dtype="float32", **kwargs)

    def call(self, maps):
        _, height, width, joints = maps.shape
        weights = ops.softmax(ops.reshape(ops.cast(maps, "float32"), (-1, height * width, joints)), axis=1)
        weights = ops.reshape(weights, (-1, height, width, joints))
        columns = (ops.arange(width, dtype="float32") + 0.5) / width - 0.5
        rows = (ops.arange(height, dtype="float32") + 0.5) / height - 0.5
        # Sums, because TensorFlow Lite does not support einsums.
        x = ops.sum(ops.sum(weights, axis=1) * columns[:, None], axis=1)
        y = ops.sum(ops.sum(weights, axis=2) * rows[:, None], axis=1)
        return ops.stack([x, y], axis=-1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[3], 2)

    def get_config(self):
        config = super().get_config()
        config.pop("dtype")
        return config


# Loss (`config.loss.name`) -> the outputs that it needs beside the keypoints. The other losses need
# none.
OUTPUTS_OF_LOSS = {"laplace": ("scale",), "masked_l2": ("visibility",), "rle": ("scale",)}

# Layers, in all networks, whose arrays have numbers for each joint in their last axis, joint after
# joint: (x1, y1, x2, y2, ...).
JOINT_LAYERS = ("maps", "regressor", "raw_scale", "visibility", "heatmap", "regress", "offset", "expectation")

# A lower limit of scales: without it the likelihood of a joint without errors is unbounded. It is a
# fiftieth of a pixel at 224 pixels.
SMALLEST_SCALE = 1e-4


@keras.saving.register_keras_serializable("kpose")
class Scale(layers.Layer):
    """Real numbers -> (SMALLEST_SCALE, 1), with a sigmoid."""

    def __init__(self, **kwargs):
        super().__init__(dtype="float32", **kwargs)

    def call(self, x):
        return SMALLEST_SCALE + (1.0 - SMALLEST_SCALE) * keras.ops.sigmoid(x)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.pop("dtype")
        return config


def doubling(name):
    """A layer that doubles height and width bilinearly.

    It computes in float32: for XLA the gradient of this operation has no bfloat16.
    """
    return layers.UpSampling2D(interpolation="bilinear", dtype="float32", name=name)


def extra_outputs(features, num_joints, names, initializer=keras.initializers.GlorotUniform):
    """Further outputs of a network, as fully connected layers.

    Args:
        features: [B, F].
        num_joints: K.
        names: of the outputs, of "scale" and "visibility".
        initializer: function that returns a new initializer for the weights of a layer.

    Returns:
        dict name -> output, as described at the top of this module, float32.
    """
    outputs = {}
    if "scale" in names:
        x = layers.Dense(2 * num_joints, kernel_initializer=initializer(), dtype="float32", name="raw_scale")(features)
        x = layers.Reshape((num_joints, 2), dtype="float32", name="scale_joints")(x)
        outputs["scale"] = Scale(name="scale")(x)
    if "visibility" in names:
        outputs["visibility"] = layers.Dense(
            num_joints, kernel_initializer=initializer(), dtype="float32", name="visibility"
        )(features)
    return outputs
