"""A later stage of DeepPose's cascade (Toshev and Szegedy, "DeepPose", CVPR 2014, section 3.2).

Each stage looks at a sub-image round each joint that the stage before found, its side sigma torso diameters, and
regresses where in it the joint really is. Here one convolutional network serves all joints of a stage (the paper trains
one for each); its last layer has weights of its own for each joint.
"""

import keras
from keras import layers, ops

from kpose.core.checks import check_numbers
from kpose.core.errors import InputError
from kpose.models.layers import BatchNormalization, Scale

# Of sub-images, as fractions of the crop: a person seen end on has hardly any torso.
SMALLEST_SIDE = 0.05


def sampling_weights(centre, side, size, length):
    """What each of `length` source pixels gives to each of `size` sampled ones: [..., size, length].

    Bilinear, the kernel widened where the picture shrinks; nothing beyond the source.

    Args:
        centre, side: [...] of the interval that is sampled, normalised.
        size: samples of the interval.
        length: pixels of the source.
    """
    places = (ops.arange(size, dtype="float32") + 0.5) / size - 0.5
    where = (centre[..., None] + side[..., None] * places + 0.5) * length - 0.5
    reach = ops.maximum(side * length / size, 1.0)[..., None, None]
    distance = ops.abs(where[..., None] - ops.arange(length, dtype="float32"))
    return ops.maximum(1.0 - distance / reach, 0.0) / reach


@keras.saving.register_keras_serializable("kpose")
class SubImages(layers.Layer):
    """(images [B, H, W, 3], centres [B, K, 2], sides [B, K, 2]) -> [B, K, n, n, 3]: what lies in each rectangle.

    Centres and sides are normalised; black beyond the image. Written as two products with sparse matrices, one for the
    rows and one for the columns: it compiles, and on a CPU it is faster than gathering pixels.

    Args:
        size: n.
    """

    def __init__(self, size, **kwargs):
        # Not cast to the layer's precision: a bfloat16 of a coordinate would be off by half a pixel.
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
    """[B] distance between the two torso joints of [B, K, 2], in its units."""
    one, other = torso
    return ops.sqrt(ops.sum(ops.square(keypoints[:, one] - keypoints[:, other]), axis=-1) + 1e-12)


@keras.saving.register_keras_serializable("kpose")
class Stage(layers.Layer):
    """One stage: (images [B, H, W, 3] of 0..255, estimate [B, K, 2]) -> the outputs for the refined joints.

    Args:
        network: sub-images [N, n, n, 3] of 0..255 -> features [N, F].
        num_joints: K.
        torso: the two joints whose distance is the torso diameter, here measured in the crop.
        sigma: a sub-image's side in torso diameters.
        outputs: what is predicted beside the keypoints (`kpose.models.layers`).
    """

    def __init__(self, network, num_joints, torso, sigma, outputs=(), **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.network = network
        self.num_joints = num_joints
        self.torso = tuple(torso)
        self.sigma = sigma
        self.outputs = tuple(outputs)
        self.sub_images = SubImages(network.input.shape[1], dtype=self.dtype_policy)
        # From zero: before it has learnt anything, a stage leaves the estimate as it is.
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
        # "unit" lets losses count errors in sides of the sub-image, as equation 7 of the paper does.
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
class Cascade(keras.Model):
    """A trained network and the stage that refines it, as one network.

    `call(images, estimate=None)`: with an estimate [B, K, 2], the stage starts from it instead of from the network's
    answer; that is how it is trained. What the stage does not predict is passed on.

    Args:
        base: the network of the stages before; it is not trained further.
        stage: the `Stage`.
        input_size: (height, width) of the images; the base gets them at its own size.
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
        """The answer of the stages before."""
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


def resized(images, size):
    if tuple(images.shape[1:3]) == tuple(size):
        return images
    # Written as products, as in `SubImages`: the antialiased resize of TensorFlow does not compile.
    whole = ops.ones(())
    rows, columns = (sampling_weights(0 * whole, whole, size[i], images.shape[i + 1]) for i in (0, 1))
    # At the edges part of the kernel lies outside.
    rows, columns = (weights / ops.sum(weights, axis=-1, keepdims=True) for weights in (rows, columns))
    return ops.einsum("yh,bhwc,xw->byxc", rows, images, columns)


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
        base: the network of the stages before.
        input_size: (height, width) of the images in pixels.
        num_joints: K.
        torso: the two torso joints.
        sub_image: side of the sub-images in pixels, a multiple of 2 ** len(filters).
        sigma: their side in torso diameters.
        filters: of the stage's convolutions, 3 x 3, two of each; the first of each two halves the resolution.
        hidden: units of its fully connected layers.
        outputs: what is predicted beside the keypoints.
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
    if not config.base:
        raise InputError(
            "config.model.name is 'cascade', but config.model.base names no run: give the workdir of the stage before"
        )
    check_numbers(config, "filters")
    check_numbers(config, "hidden")
    if config.sub_image % 2 ** len(config.filters):
        raise InputError(
            f"config.model.sub_image is {config.sub_image}: {len(config.filters)} filters halve it as many times: it "
            f"must be a multiple of {2 ** len(config.filters)}"
        )


def build_cascade(config, skeleton, outputs, synchronized, base):
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
