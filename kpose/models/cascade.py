"""A later stage of DeepPose's cascade (Toshev and Szegedy, "DeepPose", CVPR 2014, section 3.2).

A stage takes a sub-image around each joint that the previous stage found, with a side of sigma
torso diameters, and regresses the position of the joint in it. Here all joints of a stage share one
convolutional network (the paper trains one for each joint); its last layer has separate weights for
each joint.

The images of a cascade are larger than the input of its first stage, so that a later stage sees
more detail. The network reduces them for the previous stages. They can also show more than the
previous stages see (`share`), so that sub-images of joints near the edge are not cut off.

Lengths are measured in pixels of the original image, as in the paper. The crop can be stretched, so
the network also needs the aspect of the region that each crop shows: its width / height in original
pixels. A length is then a fraction of the region's height.
"""

import keras
from keras import layers, ops

from kpose.core.checks import check_numbers, choice
from kpose.core.errors import InputError
from kpose.models.layers import BatchNormalization, Conv2D, Scale

# Smallest side of sub-images, as a fraction of the longer side of the region: a person seen from
# above has a very short torso.
SMALLEST_SIDE = 0.05
# Shapes of sub-images (`config.model.sub_image_shape`). "square": square in original pixels, with
# normalised weights. "stretched": square in the crop, as in release 0.1; its sums of pixels are not
# normalised either, because its trained networks expect them.
SHAPES = ("square", "stretched")


def cascade(
    base,
    input_size,
    num_joints,
    torso,
    share=1.0,
    shape="square",
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
        share: side of the part of the images that the base sees, as a fraction of the images'.
        shape: shape of the sub-images, of `SHAPES`.
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
            x = Conv2D(channels, 3, strides, padding="same", use_bias=False, kernel_initializer="he_normal", name=name)(
                x
            )
            x = BatchNormalization(momentum=batch_norm_momentum, synchronized=synchronized, name=f"{name}_norm")(x)
            x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.Flatten(name="flatten")(x)
    for index, units in enumerate(hidden):
        x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"fc{index + 1}")(x)
    stage = Stage(keras.Model(images, x, name="sub_network"), num_joints, torso, sigma, outputs, shape, name="stage")
    return Cascade(base, stage, input_size, share, name="cascade")


def check_cascade(config):
    """Raises `InputError` unless the recipe's `model` section is that of a stage of a cascade."""
    if not config.base:
        raise InputError(
            "config.model.name is 'cascade', but config.model.base is empty: give the workdir of the previous stage"
        )
    check_numbers(config, "filters")
    check_numbers(config, "hidden")
    choice(config.sub_image_shape, "model.sub_image_shape", SHAPES)
    if config.sub_image % 2 ** len(config.filters):
        raise InputError(
            f"config.model.sub_image is {config.sub_image}: {len(config.filters)} filters halve it "
            f"{len(config.filters)} times, so it must be a multiple of {2 ** len(config.filters)}"
        )


def check_torso(skeleton):
    """Raises `InputError` if a skeleton has no torso: the size of the sub-images depends on it."""
    if not skeleton.torso:
        raise InputError(
            f"config.model.name is 'cascade', whose sub-images have a side in torso diameters, but the skeleton "
            f"{skeleton.name!r} has no torso: add 'torso': [joint, joint] to its file, or use another model"
        )


def build_cascade(config, skeleton, outputs, synchronized, base, share=1.0):
    """The network of a recipe's `model` section; arguments as for `kpose.models.build`."""
    check_torso(skeleton)
    return cascade(
        base,
        input_size=tuple(config.input_size),
        num_joints=skeleton.num_joints,
        torso=skeleton.torso,
        share=share,
        shape=config.sub_image_shape,
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

    `call(images, estimate=None, aspects=None)`: if an estimate [B, K, 2] is given, the stage refines
    it instead of the keypoints of the base; training uses this. `aspects` [B] is the width / height
    of the region of each image in original pixels; without it the images are not stretched. Outputs
    of the base that the stage does not predict are kept.

    Args:
        base: the network of the previous stages; it is not trained further.
        stage: the `Stage`.
        input_size: (height, width) of the images in pixels.
        share: side of the middle part of the images that the base sees, as a fraction of the side
            of the images. This part is resized to the input size of the base.
    """

    def __init__(self, base, stage, input_size, share=1.0, **kwargs):
        super().__init__(autocast=False, **kwargs)
        base.trainable = False
        self.base = base
        self.stage = stage
        self.input_size = tuple(input_size)
        self.share = share
        self.base_size = tuple(base.input_size if isinstance(base, Cascade) else base.input.shape[1:3])
        self(ops.zeros((1, *self.input_size, 3)))

    @property
    def needs_aspects(self):
        """Whether the result depends on the aspects (`kpose.models.decoding.region_inputs`)."""
        return self.stage.shape == "square" or getattr(self.base, "needs_aspects", False)

    def call(self, images, estimate=None, aspects=None, training=False):
        images = ops.cast(images, "float32")
        if aspects is None:
            aspects = ops.full_like(images[:, 0, 0, 0], self.input_size[1] / self.input_size[0])
        answer = self.before(images, aspects)
        estimate = answer["keypoints"] if estimate is None else estimate
        return answer | self.stage(images, estimate, aspects, training=training)

    def before(self, images, aspects, training=False):
        """The outputs of the previous stages, normalised in the region of the images."""
        options = {"aspects": aspects} if isinstance(self.base, Cascade) else {}
        answer = self.base(resized(images, self.base_size, self.share), training=training, **options)
        lengths = ("keypoints", "scale", "unit")
        return {name: value * self.share if name in lengths else value for name, value in answer.items()}

    def get_config(self):
        return {
            "base": keras.saving.serialize_keras_object(self.base),
            "stage": keras.saving.serialize_keras_object(self.stage),
            "input_size": self.input_size,
            "share": self.share,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        for part in ("base", "stage"):
            config[part] = keras.saving.deserialize_keras_object(config[part])
        return cls(**config)


@keras.saving.register_keras_serializable("kpose")
class Stage(layers.Layer):
    """One stage: images, estimate, aspects -> dict with refined keypoints.

    images [B, H, W, 3] of 0..255, estimate [B, K, 2] normalised, aspects [B] width / height of the
    region of each image in original pixels.

    Args:
        network: sub-images [N, n, n, 3] of 0..255 -> features [N, F].
        num_joints: K.
        torso: indices of the two joints whose distance is the torso diameter.
        sigma: side of a sub-image in torso diameters.
        outputs: further outputs beside the keypoints (`kpose.models.layers`).
        shape: shape of the sub-images, of `SHAPES`.
    """

    def __init__(self, network, num_joints, torso, sigma, outputs=(), shape="square", **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.network = network
        self.num_joints = num_joints
        self.torso = tuple(torso)
        self.sigma = sigma
        self.outputs = tuple(outputs)
        self.shape = shape
        self.sub_images = SubImages(network.input.shape[1], shape == "square", dtype=self.dtype_policy)
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

    def build(self, images_shape, estimate_shape=None, aspects_shape=None):
        features = (None, self.num_joints, self.network.output.shape[-1])
        for layer in (self.offset, self.raw_scale, self.visibility):
            if layer is not None:
                layer.build(features)
        self.built = True

    def call(self, images, estimate, aspects, training=False):
        estimate = ops.stop_gradient(ops.cast(estimate, "float32"))
        aspects = ops.cast(aspects, "float32")
        if self.shape == "stretched":
            aspects = ops.ones_like(aspects)
        side = ops.maximum(
            self.sigma * torso_diameter(estimate, self.torso, aspects), SMALLEST_SIDE * ops.maximum(aspects, 1.0)
        )
        sides = ops.broadcast_to(ops.stack([side / aspects, side], -1)[:, None], ops.shape(estimate))
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
            "shape": self.shape,
        }

    @classmethod
    def from_config(cls, config):
        config["network"] = keras.saving.deserialize_keras_object(config["network"])
        # Networks that release 0.1 saved do not say their shape.
        return cls(**{"shape": "stretched"} | config)


@keras.saving.register_keras_serializable("kpose")
class SubImages(layers.Layer):
    """Crops a rectangle around each joint.

    images [B, H, W, 3], centres [B, K, 2], sides [B, K, 2] -> sub-images [B, K, n, n, 3].
    Centres and sides are normalised; samples outside the image are black. It is computed as two
    matrix products, one for the rows and one for the columns: XLA can compile them, and on a CPU
    they are faster than gathering pixels.

    Args:
        size: n, in pixels.
        normalised: the weights of each sample have the sum 1; False: as in release 0.1
            (`sampling_weights`).
    """

    def __init__(self, size, normalised=True, **kwargs):
        # Inputs are not cast: a coordinate in bfloat16 has errors of half a pixel.
        super().__init__(autocast=False, **kwargs)
        self.size = size
        self.normalised = normalised

    def call(self, images, centres, sides):
        _, height, width, _ = images.shape
        images = ops.cast(images, self.compute_dtype)
        rows = sampling_weights(centres[..., 1], sides[..., 1], self.size, height, self.normalised)
        columns = sampling_weights(centres[..., 0], sides[..., 0], self.size, width, self.normalised)
        strips = ops.einsum("bkyh,bhwc->bkywc", ops.cast(rows, images.dtype), images)
        return ops.einsum("bkywc,bkxw->bkyxc", strips, ops.cast(columns, images.dtype))

    def compute_output_shape(self, images, centres, sides):
        return (*centres[:2], self.size, self.size, images[-1])

    def get_config(self):
        return super().get_config() | {"size": self.size, "normalised": self.normalised}


def in_heights(vectors, aspects):
    """Normalised vectors [B, K, 2] in heights of their regions, where x and y have one scale.

    Args:
        vectors: [B, K, 2], normalised.
        aspects: [B], width / height of the regions in original pixels.
    """
    return vectors * ops.stack([aspects, ops.ones_like(aspects)], -1)[:, None]


def torso_diameter(keypoints, torso, aspects):
    """Distance [B] in original pixels between the torso joints, as a fraction of the region's height.

    Args:
        keypoints: [B, K, 2], normalised.
        torso: indices of the two joints.
        aspects: [B], width / height of the regions in original pixels.
    """
    points = in_heights(keypoints, aspects)
    one, other = torso
    return ops.sqrt(ops.sum(ops.square(points[:, one] - points[:, other]), axis=-1) + 1e-12)


def sampling_weights(centre, side, size, length, normalised=True):
    """Weights [..., size, length] of resampling along one axis.

    They are the share of each source pixel in each sample: bilinear, with a wider kernel when the
    image is reduced. The rules are those of `kpose.data.crops`: the kernel is
    renormalised at the edge of the source, and a sample whose centre is outside is zero.

    Args:
        centre, side: [...] of the sampled interval, normalised.
        size: number of samples.
        length: number of source pixels.
        normalised: False: as in release 0.1: the kernel is divided by its area and not by the sum
            of its samples, and not renormalised at the edge.
    """
    places = (ops.arange(size, dtype="float32") + 0.5) / size - 0.5
    # Position in the source; pixel i covers [i, i + 1).
    where = (centre[..., None] + side[..., None] * places + 0.5) * length
    reach = ops.maximum(side * length / size, 1.0)[..., None, None]
    distance = ops.abs(where[..., None] - 0.5 - ops.arange(length, dtype="float32"))
    weights = ops.maximum(1.0 - distance / reach, 0.0)
    if not normalised:
        return weights / reach
    inside = ops.logical_and(where >= 0.0, where <= length)[..., None]
    # A sample inside the source is at most half a pixel from the centre of a pixel.
    return ops.where(inside, weights, 0.0) / ops.maximum(ops.sum(weights, axis=-1, keepdims=True), 0.5)


def resized(images, size, share=1.0):
    """The middle part of images [B, h, w, C], resized to `size`, (height, width), with antialiasing.

    It is the resampling of `kpose.data.resampling.resample` without its rounding.

    Args:
        images: [B, h, w, C].
        size: (height, width) of the result in pixels.
        share: side of the part, as a fraction of the side of the images.
    """
    if share == 1.0 and tuple(images.shape[1:3]) == tuple(size):
        return images
    # Matrix products, as in `SubImages`: XLA cannot compile the antialiased resize of TensorFlow.
    side = share * ops.ones(())
    rows, columns = (sampling_weights(0 * side, side, size[i], images.shape[i + 1]) for i in (0, 1))
    return ops.einsum("yh,bhwc,xw->byxc", rows, images, columns)
