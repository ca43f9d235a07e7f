"""A regressor with the architecture of MoveNet, which can start from the published MoveNet weights.

MoveNet ("Next-Generation Pose Detection with MoveNet and TensorFlow.js", TensorFlow blog, 2021;
weights Apache-2.0) is MobileNetV2 (Sandler et al., CVPR 2018) with a feature pyramid to stride 4
and the heads of CenterNet (Zhou et al., "Objects as Points", 2019): a map of centres, a regression
of each joint from the centre, a map for each joint, and offsets within a cell. MoveNet selects
cells by argmax. Here each argmax is replaced by an expectation, so coordinates are a differentiable
function of the image and can be trained with any coordinate loss.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kpose.core.errors import InputError
from kpose.models.backbones import STRIDE
from kpose.models.layers import (
    BatchNormalization,
    Conv2D,
    Conv2DBeforeNorm,
    DepthwiseConv2D,
    DepthwiseConv2DBeforeNorm,
    doubling,
    extra_outputs,
)

# MobileNetV2: expansion, channels, number of blocks, stride of the first block (table 2 of the
# paper).
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# Blocks with outputs to the pyramid, at strides 4, 8 and 16 -> channels of the pyramid there.
_LATERALS = {2: 24, 5: 32, 9: 64}
_HEAD_FILTERS = 96
# Added to distances, in cells, before a map is divided by them.
_DISTANCE = 1.8
# Weight of the old value in the running statistics of BatchNorm.
_MOMENTUM = 0.97
# Initial exponent of the maps in the expectations; it is trained.
_SHARPNESS = 4.0


def movenet(input_size=(192, 192), num_joints=17, outputs=(), width=1.0, frozen_blocks=0, batch_norm=False):
    """The network as a functional Keras model.

    In the published weights BatchNorm is folded into the convolutions. Without it only low learning
    rates are possible; with `batch_norm` and `measure_batch_norm` they can be ten times as high.

    Args:
        input_size: (height, width) in pixels, multiples of 32. Lightning takes 192 x 192, Thunder
            256 x 256, both a square around the box.
        num_joints: K.
        outputs: further outputs beside the keypoints (`kpose.models.layers`); visibility is always
            one.
        width: factor of the number of channels: 1 for Lightning, 1.75 for Thunder.
        frozen_blocks: number of first blocks of MobileNetV2 that are not trained; the layers before
            them are not trained either.
        batch_norm: BatchNorm after each convolution but the last ones of the heads.

    Returns:
        `keras.Model`: images [B, H, W, 3] of 0..255 -> {"keypoints": [B, K, 2] float32, normalised;
        "visibility": [B, K] float32 in [0, 1], the map of the joint at the place of the joint}.
    """
    images = keras.Input((*input_size, 3), name="images")
    x, top, frozen = _pyramid(images, width, frozen_blocks, norm=batch_norm)
    numbers = {"heatmap": num_joints, "regress": 2 * num_joints, "center": 1, "offset": 2 * num_joints}
    maps = _heads(x, numbers, norm=batch_norm)
    found = GuidedExpectation(name="expectation")([maps[n] for n in ("heatmap", "regress", "center", "offset")])
    answer = {"keypoints": found[..., :2], "visibility": found[..., 2]}
    others = [name for name in outputs if name != "visibility"]
    pooled = layers.GlobalAveragePooling2D(dtype="float32", name="pooled")(top) if others else None
    network = keras.Model(images, answer | extra_outputs(pooled, num_joints, others), name="movenet")
    if frozen is not None:
        frozen.trainable = False
    return network


def multipose(num_joints=17, width=1.5, upsample=None):
    """The network of MoveNet MultiPose, up to the maps of its heads.

    It finds all persons of an image: those at the peaks of the centre map. Each cell has the box
    and the joints of the person whose centre it is. `kpose.predict.multipose` decodes the maps.

    Args:
        num_joints: K.
        width: factor of the number of channels; 1.5 for the published weights.
        upsample: function of a name -> layer that doubles height and width bilinearly; None:
            Keras' layer, which needs a fixed size in a TensorFlow graph.

    Returns:
        `keras.Model`: images [B, H, W, 3] of 0..255, H and W multiples of 32 -> dict of maps [B, H /
        4, W / 4, C] float32: "center" (logits; C is 1), "box_size" and "box_offset" ((y, x) in
        cells; the centre of the box is relative to the cell), "heatmap" (logits; K), "regress" and
        "offset" (2K, (y, x) in cells relative to the cell).
    """
    images = keras.Input((None, None, 3), name="images")
    x, _, _ = _pyramid(images, width, upsample=upsample)
    numbers = {"center": 1, "box_size": 2, "box_offset": 2}
    joints = {"heatmap": num_joints, "regress": 2 * num_joints, "offset": 2 * num_joints}
    return keras.Model(images, _heads(x, numbers | joints), name="multipose")


def _pyramid(images, width, frozen_blocks=0, upsample=None, norm=False):
    """MobileNetV2 with the feature pyramid.

    Args:
        images: [B, H, W, 3] of 0..255, symbolic.
        width, frozen_blocks, upsample, norm: as for `movenet` (`batch_norm`) and `multipose`.

    Returns:
        (features [B, H / 4, W / 4, 24], features at stride 32, the `keras.Model` of the frozen
        blocks or None).
    """
    upsample = upsample or doubling
    x = layers.Rescaling(1 / 127.5, -1.0, name="rescale")(images)
    laterals, frozen = {}, None
    x = _conv(x, _rounded(32 * width), "Conv1", kernel=3, strides=2, activation="relu6", norm=norm)
    index = 0
    for expansion, channels, blocks, strides in _STAGES:
        for position in range(blocks):
            x = _block(x, expansion, _rounded(channels * width), strides if position == 0 else 1, index, norm)
            if index + 1 == frozen_blocks:
                frozen = keras.Model(images, x)
            if index in _LATERALS:
                laterals[index] = _conv(x, _LATERALS[index], f"lateral_{index}", norm=norm)
            index += 1
    top = _conv(x, 1280, "Conv_1", activation="relu6", norm=norm)
    x = _conv(top, _LATERALS[9], "lateral_top", norm=norm)
    for level, block in enumerate(sorted(_LATERALS, reverse=True)):
        x = upsample(f"up_{level}")(x)
        x = layers.Add(name=f"merge_{level}")([x, laterals[block]])
        following = sorted(_LATERALS, reverse=True)[min(level + 1, 2)]
        x = _separable(x, _LATERALS[following], f"pyramid_{level}", norm)
    return x, top, frozen


def _heads(x, numbers, norm=False):
    """dict of maps from features; `numbers` is name -> number of channels."""
    # The last convolution of each head is always in float32.
    return {
        head: _conv(_separable(x, _HEAD_FILTERS, head, norm), number, head, dtype="float32")
        for head, number in numbers.items()
    }


def measure_batch_norm(network, batches):
    """Sets each new BatchNorm so that the network computes what it computes without BatchNorm.

    Mean and variance become those of the layer's inputs; scale and offset take them back. A
    BatchNorm that was trained already is not changed.

    Args:
        network: of `movenet(batch_norm=True)`, with the weights of a network without BatchNorm.
        batches: iterable of images [B, H, W, 3] of 0..255.
    """
    norms = [layer for layer in network.layers if isinstance(layer, BatchNormalization)]
    norms = [norm for norm in norms if not np.any(norm.moving_mean)]
    if not norms:
        return
    for norm in norms:
        size = norm.gamma.shape[0]
        norm.set_weights([np.full(size, (1 + norm.epsilon) ** 0.5), np.zeros(size), np.zeros(size), np.ones(size)])
    inner = keras.Model(network.inputs, [norm.input for norm in norms])

    @tf.function(autograph=False)
    def moments(images):
        found = [ops.cast(x, "float32") for x in inner(tf.cast(images, tf.float32), training=False)]
        return [(tf.reduce_mean(x, (0, 1, 2)), tf.reduce_mean(tf.square(x), (0, 1, 2))) for x in found]

    measured = [[(m.numpy(), s.numpy()) for m, s in moments(images)] for images in batches]
    for norm, *found in zip(norms, *measured, strict=True):
        mean, square = np.mean(found, axis=0, dtype=np.float64)
        variance = np.maximum(square - mean**2, 0.0)
        norm.set_weights([np.sqrt(variance + norm.epsilon), mean, mean, variance])


@keras.saving.register_keras_serializable("kpose")
class GuidedExpectation(layers.Layer):
    """Keypoints from the four maps of MoveNet, with an expectation in place of each argmax.

    The weights of the centre are the centre map divided by the distance from the middle of the map.
    The centre's regression then gives an estimate of each joint. The weights of a joint are its map
    divided by the distance from that estimate; the offsets are averaged with the same weights.
    Distances are in cells, plus `_DISTANCE`.

    Args of the call:
        maps: [heatmap [B, h, w, K], logits; regress [B, h, w, 2K], (y, x) in cells relative to the
            cell; center [B, h, w, 1], logits; offset [B, h, w, 2K], (y, x) in cells].

    Returns:
        [B, K, 3] float32: x and y, normalised, and the expectation of the map of the joint, in [0,
        1].
    """

    def __init__(self, **kwargs):
        kwargs.pop("dtype", None)
        super().__init__(dtype="float32", **kwargs)

    def build(self, shapes):
        joints = shapes[0][-1]
        initial = keras.initializers.Constant(_SHARPNESS)
        self.sharpness = self.add_weight(shape=(joints,), initializer=initial, name="sharpness")
        self.center_sharpness = self.add_weight(shape=(), initializer=initial, name="center_sharpness")
        self.built = True

    def call(self, maps):
        heatmap, regress, center, offset = (ops.cast(m, "float32") for m in maps)
        _, height, width, joints = heatmap.shape
        cells = height * width
        y = ops.reshape(ops.repeat(ops.arange(height, dtype="float32"), width), (1, cells, 1))
        x = ops.reshape(ops.tile(ops.arange(width, dtype="float32"), [height]), (1, cells, 1))

        def flat(m):
            return ops.reshape(m, (-1, cells, m.shape[-1]))

        def split(m):
            m = ops.reshape(m, (-1, cells, joints, 2))
            return m[..., 0], m[..., 1]

        def weights(logits, far, sharpness):
            score = ops.log_sigmoid(flat(logits)) - ops.log(far + _DISTANCE)
            return ops.softmax(sharpness * score, axis=1)

        middle = ops.sqrt(ops.square(y - height // 2) + ops.square(x - width // 2))
        chosen = weights(center, middle, self.center_sharpness)
        down, right = split(regress)
        joint_y = ops.sum(chosen * (y + down), axis=1, keepdims=True)
        joint_x = ops.sum(chosen * (x + right), axis=1, keepdims=True)
        # The constant avoids the infinite gradient of the square root at zero.
        far = ops.sqrt(ops.square(y - joint_y) + ops.square(x - joint_x) + 1e-6)
        chosen = weights(heatmap, far, self.sharpness)
        down, right = split(offset)
        found_y = ops.sum(chosen * (y + down), axis=1) / height - 0.5
        found_x = ops.sum(chosen * (x + right), axis=1) / width - 0.5
        certain = ops.sum(chosen * ops.sigmoid(flat(heatmap)), axis=1)
        return ops.stack([found_x, found_y, certain], axis=-1)

    def compute_output_shape(self, shapes):
        return (shapes[0][0], shapes[0][-1], 3)

    def get_config(self):
        config = super().get_config()
        config.pop("dtype")
        return config


def check_movenet(config):
    """Raises `InputError` unless the recipe's `model` section is that of a MoveNet network."""
    check_movenet_size("model.input_size", config.input_size)


def check_movenet_size(field, size):
    """Raises `InputError` unless `size`, of `config.<field>`, is a possible input size."""
    if len(size) != 2 or any(side < STRIDE or side % STRIDE for side in size):
        raise InputError(
            f"config.{field} is {tuple(size)}: movenet halves it five times, so both sides must be multiples of "
            f"{STRIDE}"
        )


def build_movenet(config, skeleton, outputs, synchronized, base):
    """The network of a recipe's `model` section; arguments as for `kpose.models.build`.

    `synchronized` and `base` are not used.
    """
    return movenet(
        input_size=tuple(config.input_size),
        num_joints=skeleton.num_joints,
        outputs=outputs,
        width=config.width,
        frozen_blocks=config.frozen_blocks,
        batch_norm=config.batch_norm,
    )


def _rounded(channels):
    """The nearest multiple of 8, but not more than 10% below `channels`, as in MobileNetV2."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _block(x, expansion, channels, strides, index, norm):
    name = f"block_{index}" if index else "expanded_conv"
    y = x
    if expansion > 1:
        y = _conv(y, expansion * x.shape[-1], f"{name}_expand", activation="relu6", norm=norm)
    if norm:
        y = DepthwiseConv2DBeforeNorm(3, strides, padding="same", name=f"{name}_depthwise")(y)
    else:
        y = DepthwiseConv2D(3, strides, padding="same", activation="relu6", name=f"{name}_depthwise")(y)
    y = _normalised(y, f"{name}_depthwise", "relu6", norm)
    y = _conv(y, channels, f"{name}_project", norm=norm)
    return layers.Add(name=f"{name}_add")([x, y]) if strides == 1 and x.shape[-1] == channels else y


def _separable(x, channels, name, norm):
    x = DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    return _conv(x, channels, f"{name}_pointwise", activation="relu", norm=norm)


def _conv(x, channels, name, kernel=1, strides=1, activation=None, dtype=None, norm=False):
    if norm:
        x = Conv2DBeforeNorm(channels, kernel, strides, "same", name=name, dtype=dtype)(x)
    else:
        x = Conv2D(channels, kernel, strides, "same", activation=activation, name=name, dtype=dtype)(x)
    return _normalised(x, name, activation, norm)


def _normalised(x, name, activation, norm):
    """`x` after BatchNorm and activation; `x` itself without `norm`."""
    if not norm:
        return x
    x = BatchNormalization(momentum=_MOMENTUM, name=f"{name}_norm")(x)
    return layers.Activation(activation, name=f"{name}_activation")(x) if activation else x
