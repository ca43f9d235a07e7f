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
from kpose.models.layers import BatchNormalization, Conv2D, MaxPooling2D, extra_outputs

# Indices of the convolutions that are followed by a pool.
POOLED = (0, 1, 4)

# Initial weights of the fully connected layers (`fc_init`). The papers do not give them. The
# published loss is a sum over the batch of B = 64 persons, so its curvature is large: gradient
# descent at the rate r is stable while the largest eigenvalue of the Hessian is below 2 / r, 2,000
# at the published rate. With x -> W1 -> h1 -> W2 -> h2 -> W3, the layers contribute at most
#
#     last 2 B |h2|^2, second 2 B |W3|^2 |h1|^2, first 2 B |W3 W2|^2 |x|^2
#
# where |x|^2 and |h|^2 are the squared norms of a layer's inputs and |W| are spectral norms. The
# inputs are nearly the same for all persons, since BatchNorm follows ReLU and the pools take
# maxima. The last bias alone has 2 B = 128.
#
# "small": normal with the deviation 0.002, as in kpose 0.1, for AdamW and for clipped gradients.
# x has 9,216 numbers of about 1.5 to 2: |x|^2 is 34,000 and |h1|^2 is 670, so only small W keep the
# terms below 2,000. The first published step changes W3 by several times its initial norm
# (learning_rate x 2 B x error x |h2|), the second term exceeds 2,000, and the training diverges.
# "lecun": normal with the deviation 1 / sqrt(inputs) (LeCun et al., "Efficient BackProp", 1998),
# and the last BatchNorm begins with the scale 0.01. |x|^2, |h1|^2 and |h2|^2 are 3.4, 1.8 and 2.3,
# the spectral norms about 1 to 2, the terms a few hundred, and a step changes W by a fraction.
FC_INITS = ("small", "lecun")
INITIAL_STD = 0.002
INITIAL_SCALE = 0.01


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
    fc_init="small",
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
        fc_init: initial weights of the fully connected layers: a name in `FC_INITS`.

    Returns:
        `keras.Model`: images [B, H, W, 3] of 0..255 -> {"keypoints": [B, K, 2] float32,
        normalised}.
    """
    initial = _small if fc_init == "small" else keras.initializers.LecunNormal
    images = keras.Input((*input_size, 3), name="images")
    x = layers.Rescaling(1 / 127.5, -1.0, name="rescale")(images)
    for index, (channels, kernel) in enumerate(zip(filters, kernels, strict=True)):
        x = _convolution(x, index, channels, kernel, first_stride if index == 0 else 1)
        scaled = fc_init == "lecun" and index == len(filters) - 1
        x = BatchNormalization(
            momentum=batch_norm_momentum,
            synchronized=synchronized,
            gamma_initializer=keras.initializers.Constant(INITIAL_SCALE) if scaled else "ones",
            name=f"batch_norm{index + 1}",
        )(x)
        if index in POOLED:
            x = MaxPooling2D(3, 2, name=f"pool{index + 1}")(x)
    x = layers.Flatten(name="flatten")(x)
    for index, units in enumerate(hidden):
        x = layers.Dense(units, activation="relu", kernel_initializer=initial(), name=f"fc{index + 1}")(x)
        x = layers.Dropout(dropout, name=f"dropout{index + 1}")(x)
    # Always in float32: a bfloat16 near 0.4 has an error of up to a thousandth of the crop.
    numbers = 3 if "visibility" in outputs else 2
    joints = layers.Dense(numbers * num_joints, kernel_initializer=initial(), dtype="float32", name="regressor")(x)
    joints = layers.Reshape((num_joints, numbers), dtype="float32", name="joints")(joints)
    answer = {"keypoints": joints[..., :2]}
    if "visibility" in outputs:
        answer["visibility"] = joints[..., 2]
    others = [name for name in outputs if name != "visibility"]
    return keras.Model(images, answer | extra_outputs(x, num_joints, others, initial), name="deeppose")


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
        fc_init=config.fc_init,
    )


def _convolution(x, index, channels, kernel, strides):
    return Conv2D(
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
