"""The DeepPose network (Toshev and Szegedy, "DeepPose", CVPR 2014).

This is the version that Gupta and Gritton trained on COCO:

conv 96 11x11 stride 4 - pool - conv 256 5x5 - pool - conv 384 3x3 - conv 384 3x3 - conv 256 3x3 -
pool - FC 4096 - FC 4096 - FC 2K. Each conv is convolution, ReLU, BatchNorm; each pool is max 3x3
stride 2; each hidden FC layer is followed by dropout with a rate of 0.6.
"""

import keras
from keras import layers

from kpose.core.checks import check_numbers
from kpose.core.errors import InputError
from kpose.models.layers import BatchNormalization, extra_outputs

# Indices of the convolutions that are followed by a pool.
POOLED = (0, 1, 4)

# Standard deviation of the initial weights of the fully connected layers (normal distribution). The
# papers do not give it. With initial weights of the usual size (He, Glorot) the published loss, a
# sum over the batch, diverges within steps at the published learning rate: its curvature in the
# last layer is 2 sum |h|^2, where h are the activations before that layer.
INITIAL_STD = 0.002


def deeppose(
    input_size=(224, 224),
    num_joints=17,
    outputs=(),
    filters=(96, 256, 384, 384, 256),
    kernels=(11, 5, 3, 3, 3),
    first_stride=4,
    hidden=(4096, 4096),
    dropout=0.6,
    batch_norm_momentum=0.9,
    synchronized=False,
):
    """The network as a functional Keras model, under the current dtype policy.

    Args:
        input_size: (height, width) in pixels.
        num_joints: K.
        outputs: further outputs beside the keypoints (`kpose.models.layers`). Visibility is
            regressed as a third number for each joint, 3K numbers in all: 51 for COCO (Gupta and
            Gritton, 4.5.2).
        filters, kernels: of the five convolutions.
        first_stride: of the first convolution; the others have stride 1.
        hidden: units of the hidden fully connected layers.
        dropout: rate after each hidden fully connected layer.
        batch_norm_momentum: weight of the old value in the running statistics of BatchNorm.
        synchronized: BatchNorm over the batches of all replicas together.

    Returns:
        `keras.Model`: images [B, H, W, 3] of 0..255 -> {"keypoints": [B, K, 2] float32,
        normalised}.
    """
    images = keras.Input((*input_size, 3), name="images")
    x = layers.Rescaling(1 / 127.5, -1.0, name="rescale")(images)
    for index, (channels, kernel) in enumerate(zip(filters, kernels, strict=True)):
        x = _convolution(x, index, channels, kernel, first_stride if index == 0 else 1)
        x = BatchNormalization(momentum=batch_norm_momentum, synchronized=synchronized, name=f"batch_norm{index + 1}")(
            x
        )
        if index in POOLED:
            x = layers.MaxPooling2D(3, 2, name=f"pool{index + 1}")(x)
    x = layers.Flatten(name="flatten")(x)
    for index, units in enumerate(hidden):
        x = layers.Dense(units, activation="relu", kernel_initializer=_small(), name=f"fc{index + 1}")(x)
        x = layers.Dropout(dropout, name=f"dropout{index + 1}")(x)
    # Always in float32: a bfloat16 near 0.4 has an error of up to a thousandth of the crop.
    numbers = 3 if "visibility" in outputs else 2
    joints = layers.Dense(numbers * num_joints, kernel_initializer=_small(), dtype="float32", name="regressor")(x)
    joints = layers.Reshape((num_joints, numbers), dtype="float32", name="joints")(joints)
    answer = {"keypoints": joints[..., :2]}
    if "visibility" in outputs:
        answer["visibility"] = joints[..., 2]
    others = [name for name in outputs if name != "visibility"]
    return keras.Model(images, answer | extra_outputs(x, num_joints, others, _small), name="deeppose")


def check_deeppose(config):
    """Raises `InputError` unless the recipe's `model` section is that of a DeepPose network."""
    check_numbers(config, "filters", 5)
    check_numbers(config, "kernels", 5)
    check_numbers(config, "hidden")
    smallest = 14 * config.first_stride + 1
    if min(config.input_size) < smallest:
        raise InputError(
            f"config.model.input_size is {tuple(config.input_size)}: with a first stride of {config.first_stride} and "
            f"three pools, both sides must be at least {smallest} pixels"
        )


def build_deeppose(config, skeleton, outputs, synchronized, base):
    """The network of a recipe; arguments as for `kpose.models.build`, without use of `base`."""
    return deeppose(
        input_size=tuple(config.input_size),
        num_joints=skeleton.num_joints,
        outputs=outputs,
        filters=tuple(config.filters),
        kernels=tuple(config.kernels),
        first_stride=config.first_stride,
        hidden=tuple(config.hidden),
        dropout=config.dropout,
        batch_norm_momentum=config.batch_norm_momentum,
        synchronized=synchronized,
    )


def _convolution(x, index, channels, kernel, strides):
    return layers.Conv2D(
        channels,
        kernel,
        strides=strides,
        padding="same",
        activation="relu",
        kernel_initializer="he_normal",
        name=f"conv{index + 1}",
    )(x)


def _small():
    # A new initializer for each layer: one that is used twice gives the same numbers.
    return keras.initializers.RandomNormal(stddev=INITIAL_STD)
