"""A later stage of DeepPose's cascade (Toshev and Szegedy, "DeepPose", CVPR 2014, section 3.2).

A stage takes a sub-image around each joint that the previous stage found, with a side of sigma
torso diameters, and regresses the position of the joint in it. Here all joints of a stage share one
convolutional network (the paper trains one for each joint); its last layer has separate weights for
each joint.
"""

import keras
from keras import layers, ops

from kpose.core.checks import check_numbers
from kpose.core.errors import InputError
from kpose.models.layers import BatchNormalization, Scale

# Smallest side of sub-images, as a fraction of the crop: a person seen from above has a very short
# torso.
SMALLEST_SIDE = 0.05


def cascade(
    base,
    input_size,
    num_joints,
    torso,
    sub_image=32,
    sigma=1.0,
    filters=(32, 64, 96),
    hidden=(128,),
    outputs=(),
    batch_norm_momentum=0.9,
    synchronized=False,
):
    """The `Cascade` of a trained network and a new stage, under the current dtype policy.

    Args:
        base: the network of the previous stages.
        input_size: (height, width) of the images in pixels.
        num_joints: K.
        torso: indices of the two torso joints.
        sub_image: side of the sub-images in pixels, a multiple of 2 ** len(filters).
        sigma: side of the sub-images in torso diameters.
        filters: channels of the 3 x 3 convolutions of the stage, two for each number; the first of
            the two halves the resolution.
        hidden: units of the hidden fully connected layers.
        outputs: further outputs beside the keypoints (`kpose.models.layers`).
        batch_norm_momentum, synchronized: as in `kpose.models.deeppose`.
    """
    images = keras.Input((sub_image, sub_image, 3), name="sub_images")
    x = layers.Rescaling(1 / 127.5, -1.0, name="rescale")(images)
    for index, channels in enumerate(filters):
        for part, strides in (("a", 2), ("b", 1)):
            name = f"conv{index + 1}{part}"
            x = layers.Conv2D(
                channels, 3, strides, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
            )(x)
            x = BatchNormalization(momentum=batch_norm_momentum, synchronized=synchronized, name=f"{name}_norm")(x)
            x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.Flatten(name="flatten")(x)
    for index, units in enumerate(hidden):
        x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"fc{index + 1}")(x)
    stage = Stage(keras.Model(images, x, name="sub_network"), num_joints, torso, sigma, outputs, name="stage")
    return Cascade(base, stage, input_size, name="cascade")


def check_cascade(config):
    """Raises `InputError` unless the recipe's `model` section is that of a stage of a cascade."""
    if not config.base:
        raise InputError(
            "config.model.name is 'cascade', but config.model.base is empty: give the workdir of the previous stage"
        )
    check_numbers(config, "filters")
    check_numbers(config, "hidden")
    if config.sub_image % 2 ** len(config.filters):
        raise InputError(
            f"config.model.sub_image is {config.sub_image}: {len(config.filters)} filters halve it "
            f"{len(config.filters)} times, so it must be a multiple of {2 ** len(config.filters)}"
        )


def build_cascade(config, skeleton, outputs, synchronized, base):
    """The network of a recipe's `model` section; arguments as for `kpose.models.build`."""
    return cascade(
        base,
        input_size=tuple(config.input_size),
        num_joints=skeleton.num_joints,
        torso=skeleton.torso,
        sub_image=config.sub_image,
        sigma=config.sigma,
        filters=tuple(config.filters),
        hidden=tuple(config.hidden),
        outputs=outputs,
        batch_norm_momentum=config.batch_norm_momentum,
        synchronized=synchronized,
    )


@keras.saving.register_keras_serializable("kpose")
class Cascade(keras.Model):
    """A trained network and the stage that refines its keypoints, as one network.

    `call(images, estimate=None)`: if an estimate [B, K, 2] is given, the stage refines it instead
    of the keypoints of the base; training uses this. Outputs of the base that the stage does not
    predict are kept.

    Args:
        base: the network of the previous stages; it is not trained further.
        stage: the `Stage`.
        input_size: (height, width) of the images in pixels; they are resized to the input size of
            the base.
    """

    def __init__(self, base, stage, input_size, **kwargs):
        super().__init__(autocast=False, **kwargs)
        base.trainable = False
        self.base = base
        self.stage = stage
        self.input_size = tuple(input_size)
        self.base_size = tuple(base.input_size if isinstance(base, Cascade) else base.input.shape[1:3])
        self(ops.zeros((1, *self.input_size, 3)))

    def call(self, images, estimate=None, training=False):
        images = ops.cast(images, "float32")
        answer = self.before(images)
        refined = self.stage(images, answer["keypoints"] if estimate is None else estimate, training=training)
        return answer | refined

    def before(self, images, training=False):
        """The outputs of the previous stages."""
        return self.base(resized(images, self.base_size), training=training)

    def get_config(self):
        return {
            "base": keras.saving.serialize_keras_object(self.base),
            "stage": keras.saving.serialize_keras_object(self.stage),
            "input_size": self.input_size,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        for part in ("base", "stage"):
            config[part] = keras.saving.deserialize_keras_object(config[part])
        return cls(**config)


@keras.saving.register_keras_serializable("kpose")
class Stage(layers.Layer):
    """One stage: images [B, H, W, 3] of 0..255, estimate [B, K, 2] -> dict with refined keypoints.

    Args:
        network: sub-images [N, n, n, 3] of 0..255 -> features [N, F].
        num_joints: K.
        torso: indices of the two joints whose distance is the torso diameter; here it is measured
            in the crop.
        sigma: side of a sub-image in torso diameters.
        outputs: further outputs beside the keypoints (`kpose.models.layers`).
    """

    def __init__(self, network, num_joints, torso, sigma, outputs=(), **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.network = network
        self.num_joints = num_joints
        self.torso = tuple(torso)
        self.sigma = sigma
        self.outputs = tuple(outputs)
        self.sub_images = SubImages(network.input.shape[1], dtype=self.dtype_policy)
        # Initial offsets of zero: an untrained stage does not change the estimate.
        self.offset = self._by_joint(2, "zeros", "offset")
        self.scale = Scale() if "scale" in outputs else None
        self.raw_scale = self._by_joint(2, "glorot_uniform", "raw_scale") if "scale" in outputs else None
        self.visibility = self._by_joint(1, "glorot_uniform", "visibility") if "visibility" in outputs else None

    def _by_joint(self, numbers, initializer, name):
        return layers.EinsumDense(
            "bkf,kfo->bko",
            (self.num_joints, numbers),
            bias_axes="ko",
            kernel_initializer=initializer,
            dtype="float32",
            name=name,
        )

    def build(self, images_shape, estimate_shape=None):
        features = (None, self.num_joints, self.network.output.shape[-1])
        for layer in (self.offset, self.raw_scale, self.visibility):
            if layer is not None:
                layer.build(features)
        self.built = True

    def call(self, images, estimate, training=False):
        estimate = ops.stop_gradient(ops.cast(estimate, "float32"))
        side = ops.maximum(self.sigma * torso_diameter(estimate, self.torso), SMALLEST_SIDE)
        sides = ops.broadcast_to(side[:, None, None], ops.shape(estimate))
        pictures = self.sub_images(images, estimate, sides)
        size = self.sub_images.size
        features = self.network(ops.reshape(pictures, (-1, size, size, 3)), training=training)
        features = ops.reshape(ops.cast(features, "float32"), (-1, self.num_joints, features.shape[-1]))
        # Losses divide errors by "unit", so they are fractions of the sub-image's side, as in
        # equation 7 of the paper.
        answer = {"keypoints": estimate + self.offset(features) * sides, "unit": sides}
        if self.scale:
            answer["scale"] = self.scale(self.raw_scale(features)) * sides
        if self.visibility:
            answer["visibility"] = self.visibility(features)[..., 0]
        return answer

    def get_config(self):
        return super().get_config() | {
            "network": keras.saving.serialize_keras_object(self.network),
            "num_joints": self.num_joints,
            "torso": self.torso,
            "sigma": self.sigma,
            "outputs": self.outputs,
        }

    @classmethod
    def from_config(cls, config):
        config["network"] = keras.saving.deserialize_keras_object(config["network"])
        return cls(**config)


@keras.saving.register_keras_serializable("kpose")
class SubImages(layers.Layer):
    """Crops a rectangle around each joint.

    images [B, H, W, 3], centres [B, K, 2], sides [B, K, 2] -> sub-images [B, K, n, n, 3].
    Centres and sides are normalised; pixels outside the image are black. It is computed as two
    matrix products, one for the rows and one for the columns: XLA can compile them, and on a CPU
    they are faster than gathering pixels.

    Args:
        size: n, in pixels.
    """

    def __init__(self, size, **kwargs):
        # Inputs are not cast: a coordinate in bfloat16 has errors of half a pixel.
        super().__init__(autocast=False, **kwargs)
        self.size = size

    def call(self, images, centres, sides):
        _, height, width, _ = images.shape
        images = ops.cast(images, self.compute_dtype)
        rows = sampling_weights(centres[..., 1], sides[..., 1], self.size, height)
        columns = sampling_weights(centres[..., 0], sides[..., 0], self.size, width)
        strips = ops.einsum("bkyh,bhwc->bkywc", ops.cast(rows, images.dtype), images)
        return ops.einsum("bkywc,bkxw->bkyxc", strips, ops.cast(columns, images.dtype))

    def compute_output_shape(self, images, centres, sides):
        return (*centres[:2], self.size, self.size, images[-1])

    def get_config(self):
        return super().get_config() | {"size": self.size}


def torso_diameter(keypoints, torso):
    """Distance [B] between the torso joints of keypoints [B, K, 2], in their units."""
    one, other = torso
    return ops.sqrt(ops.sum(ops.square(keypoints[:, one] - keypoints[:, other]), axis=-1) + 1e-12)


def sampling_weights(centre, side, size, length):
    """Weights [..., size, length] of resampling along one axis.

    They are the share of each source pixel in each sample: bilinear, with a wider kernel when the
    image is reduced; zero outside the source.

    Args:
        centre, side: [...] of the sampled interval, normalised.
        size: number of samples.
        length: number of source pixels.
    """
    places = (ops.arange(size, dtype="float32") + 0.5) / size - 0.5
    where = (centre[..., None] + side[..., None] * places + 0.5) * length - 0.5
    reach = ops.maximum(side * length / size, 1.0)[..., None, None]
    distance = ops.abs(where[..., None] - ops.arange(length, dtype="float32"))
    return ops.maximum(1.0 - distance / reach, 0.0) / reach


def resized(images, size):
    """Images [B, h, w, C] resized to `size`, (height, width), with antialiasing."""
    if tuple(images.shape[1:3]) == tuple(size):
        return images
    # Matrix products, as in `SubImages`: XLA cannot compile the antialiased resize of TensorFlow.
    one = ops.ones(())
    rows, columns = (sampling_weights(0 * one, one, size[i], images.shape[i + 1]) for i in (0, 1))
    # At the edges, part of the kernel is outside the image.
    rows, columns = (weights / ops.sum(weights, axis=-1, keepdims=True) for weights in (rows, columns))
    return ops.einsum("yh,bhwc,xw->byxc", rows, images, columns)
