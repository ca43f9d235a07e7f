"""The DeepPose network (Toshev and Szegedy, "DeepPose", CVPR 2014), as Gupta and Gritton trained it on COCO.

conv 96 11x11 stride 4 - pool - conv 256 5x5 - pool - conv 384 3x3 - conv 384 3x3 - conv 256 3x3 - pool - FC 4096 -
FC 4096 - FC 2K. Each conv is conv, ReLU, BatchNorm; each pool is max 3x3 stride 2; dropout of 0.6 after each hidden FC
layer.
"""

import keras
from keras import layers

from kpose.core.checks import check_numbers
from kpose.core.errors import InputError
from kpose.models.layers import BatchNormalization, extra_outputs

# A pool follows the convolutions of these places.
POOLED = (0, 1, 4)

# Of the fully connected layers: a normal distribution. The papers do not say how they began. With initial weights of
# the usual size (He, Glorot) the published loss, a sum over the batch, diverges within steps at the published
# learning rate: its curvature in the last layer is 2 sum |h|^2, h being the activations before it.
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
        outputs: what is predicted beside the keypoints (`kpose.models.layers`). Visibility is regressed as a third
            number of each joint, 3K in all: 51 for COCO (Gupta and Gritton, 4.5.2).
        filters, kernels: of the five convolutions.
        first_stride: of the first convolution; the others have stride 1.
        hidden: units of the hidden fully connected layers.
        dropout: the probability after each of them.
        batch_norm_momentum: weight of the old BatchNorm statistics in the running mean.
        synchronized: BatchNorm over the batches of all replicas together.

    Returns:
        `keras.Model`: images [B, H, W, 3] of 0..255 -> {"keypoints": [B, K, 2] float32, normalised}.
    """

    def small():
        # One for each layer: an initialiser gives all its layers the same numbers.
        return keras.initializers.RandomNormal(stddev=INITIAL_STD)

    images = keras.Input((*input_size, 3), name="images")
    x = layers.Rescaling(1 / 127.5, -1.0, name="rescale")(images)
    for index, (channels, kernel) in enumerate(zip(filters, kernels, strict=True)):
        x = layers.Conv2D(
            channels,
            kernel,
            strides=first_stride if index == 0 else 1,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name=f"conv{index + 1}",
        )(x)
        x = BatchNormalization(momentum=batch_norm_momentum, synchronized=synchronized, name=f"batch_norm{index + 1}")(
            x
        )
        if index in POOLED:
            x = layers.MaxPooling2D(3, 2, name=f"pool{index + 1}")(x)
    x = layers.Flatten(name="flatten")(x)
    for index, units in enumerate(hidden):
        x = layers.Dense(units, activation="relu", kernel_initializer=small(), name=f"fc{index + 1}")(x)
        x = layers.Dropout(dropout, name=f"dropout{index + 1}")(x)
    # In float32 always: a bfloat16 of 0.4 is off by up to a thousandth of the crop.
    numbers = 3 if "visibility" in outputs else 2
    joints = layers.Dense(numbers * num_joints, kernel_initializer=small(), dtype="float32", name="regressor")(x)
    joints = layers.Reshape((num_joints, numbers), dtype="float32", name="joints")(joints)
    answer = {"keypoints": joints[..., :2]}
    if "visibility" in outputs:
        answer["visibility"] = joints[..., 2]
    rest = [name for name in outputs if name != "visibility"]
    return keras.Model(images, answer | extra_outputs(x, num_joints, rest, small), name="deeppose")


def check_deeppose(config):
    check_numbers(config, "filters", 5)
    check_numbers(config, "kernels", 5)
    check_numbers(config, "hidden")
    smallest = 14 * config.first_stride + 1
    if min(config.input_size) < smallest:
        raise InputError(
            f"config.model.input_size is {tuple(config.input_size)}: three pools after stride {config.first_stride} "
            f"leave nothing of less than {smallest} pixels"
        )


def build_deeppose(config, skeleton, outputs, synchronized, base):
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
