"""What a network predicts beside the coordinates, by name, as losses ask for it (`kpose.losses`).

scale        [B, K, 2] float32 in (0, 1): the spread of the error, as a fraction of the crop
visibility   [B, K] float32: 1 for a joint that is labelled in the picture, 0 for one that is not
"""

import keras
from keras import layers

NAMES = ("scale", "visibility")

# No likelihood grows without bound as the scale of a joint that is always right shrinks: a fiftieth of a pixel at 224.
SMALLEST_SCALE = 1e-4


@keras.saving.register_keras_serializable("kpose")
class Scale(layers.Layer):
    """Any number -> (SMALLEST_SCALE, 1), by a sigmoid."""

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


def extra_outputs(features, num_joints, names, initializer=keras.initializers.GlorotUniform):
    """The outputs `names` as fully connected layers on `features` [B, F]: a dict.

    `initializer()` gives the initial weights of each.
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
