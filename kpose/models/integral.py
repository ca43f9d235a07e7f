"""A small regressor with a spatial head: each joint is the expectation over a map.

Integral pose regression (Sun et al., "Integral Human Pose Regression", ECCV 2018) on a feature
pyramid (Lin et al., "Feature Pyramid Networks", CVPR 2017) of plain 3x3 convolutions. It is trained
with coordinate losses, like any regressor. It learns many times faster than a fully connected head,
which must learn each position separately.
"""

import keras
from keras import layers

from kpose.core.checks import check_numbers
from kpose.core.errors import InputError
from kpose.models.layers import BatchNormalization, Conv2D, SoftArgmax, doubling, extra_outputs


def integral(
    input_size=(96, 96),
    num_joints=17,
    outputs=(),
    filters=(32, 64, 96, 128),
    head_filters=64,
    head_level=1,
    batch_norm_momentum=0.9,
    synchronized=False,
):
    """The network as a functional Keras model, under the current dtype policy.

    Args:
        input_size: (height, width) in pixels, multiples of 2 ** len(filters).
        num_joints: K.
        outputs: further outputs beside the keypoints (`kpose.models.layers`), from the mean of the
            coarsest features.
        filters: channels of the bottom-up levels; each level halves the resolution.
        head_filters: channels of the top-down path.
        head_level: level that gives the resolution of the maps, counted from 0; 1: a quarter of the
            input's.
        batch_norm_momentum: weight of the old value in the running statistics of BatchNorm.
        synchronized: BatchNorm over the batches of all replicas together.

    Returns:
        `keras.Model`: images [B, H, W, 3] of 0..255 -> {"keypoints": [B, K, 2] float32,
        normalised}.
    """
    images = keras.Input((*input_size, 3), name="images")
    x = layers.Rescaling(1 / 127.5, -1.0, name="rescale")(images)
    levels = []
    for index, channels in enumerate(filters):
        x = _conv(x, channels, f"down{index + 1}", batch_norm_momentum, synchronized, strides=2)
        if index:
            x = _conv(x, channels, f"level{index + 1}", batch_norm_momentum, synchronized)
        levels.append(x)
    x, top = top_down(levels, head_filters, head_level, batch_norm_momentum, synchronized)
    # The head is always in float32: a softmax of bfloat16 maps has errors of several percent.
    maps = Conv2D(num_joints, 1, dtype="float32", name="maps")(x)
    answer = {"keypoints": SoftArgmax(name="keypoints")(maps)}
    pooled = layers.GlobalAveragePooling2D(name="pooled")(top) if outputs else None
    return keras.Model(images, answer | extra_outputs(pooled, num_joints, outputs), name="integral")


def top_down(levels, filters, head_level, batch_norm_momentum, synchronized):
    """The top-down path of a feature pyramid, from the smallest level to level `head_level`.

    Args:
        levels: feature maps, each half the resolution of the one before it. Those below
            `head_level` are not used.
        filters: channels of the path.
        head_level: index of the level at whose resolution the path ends.
        batch_norm_momentum, synchronized: as for `integral`.

    Returns:
        Two feature maps [B, h, w, filters]: at the end of the path, and at its start.
    """

    def conv(x, name, kernel=3):
        return _conv(x, filters, name, batch_norm_momentum, synchronized, kernel)

    x = top = conv(levels[-1], "top", kernel=1)
    for index in reversed(range(head_level, len(levels) - 1)):
        x = doubling(f"up{index + 1}")(x)
        x = layers.Add(name=f"merge{index + 1}")([x, conv(levels[index], f"lateral{index + 1}", 1)])
        x = conv(x, f"out{index + 1}")
    return x, top


def check_integral(config):
    """Raises `InputError` unless the recipe's `model` section is that of an integral network."""
    check_numbers(config, "filters")
    levels = len(config.filters)
    if any(side % 2**levels for side in config.input_size):
        raise InputError(
            f"config.model.input_size is {tuple(config.input_size)}: {levels} levels halve it {levels} times, so both "
            f"sides must be multiples of {2**levels}"
        )
    if config.head_level >= levels:
        raise InputError(
            f"config.model.head_level is {config.head_level}: config.model.filters gives the levels 0 to {levels - 1}"
        )


def build_integral(config, skeleton, outputs, synchronized, base):
    """The network of a recipe; arguments as for `kpose.models.build`, without use of `base`."""
    return integral(
        input_size=tuple(config.input_size),
        num_joints=skeleton.num_joints,
        outputs=outputs,
        filters=tuple(config.filters),
        head_filters=config.head_filters,
        head_level=config.head_level,
        batch_norm_momentum=config.batch_norm_momentum,
        synchronized=synchronized,
    )


def _conv(x, channels, name, batch_norm_momentum, synchronized, kernel=3, strides=1):
    x = Conv2D(channels, kernel, strides, padding="same", use_bias=False, kernel_initializer="he_normal", name=name)(x)
    x = BatchNormalization(momentum=batch_norm_momentum, synchronized=synchronized, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
