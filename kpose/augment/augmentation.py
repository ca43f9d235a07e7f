"""Augmentation of training batches: images and labels change together.

The random numbers of a sample are drawn on the host and depend on the seed and on the position of
the sample only. The augmentation is then a pure function of the batch. It runs on the host or in
the training step (`config.augment.on`), with the same result for any number of replicas.

The steps are, in this order: one geometric warp from the stored crop to the network's input
(mirror, rotation, scale, shift, half body), colours (grey, jitter, solarise, posterise, sharpness,
equalise), cutout.
"""

import tensorflow as tf

from kpose.augment import geometric, photometric
from kpose.core import checks
from kpose.core.errors import InputError

# The columns of `draws`: one random number for each decision about a sample.
COLUMNS = (
    "flip",
    "angle",
    "scale",
    "shift_x",
    "shift_y",
    "half_body",
    "upper",
    "grey",
    "grey_amount",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "solarise",
    "solarise_threshold",
    "posterise",
    "posterise_bits",
    "sharpness",
    "sharpness_factor",
    "equalise",
    "cutout",
    "cutout_x",
    "cutout_y",
    "cutout_width",
    "cutout_height",
)
NUM_DRAWS = len(COLUMNS)

# (lowest, highest) value of the drawn parameters.
SOLARISE_THRESHOLDS = (64.0, 256.0)
POSTERISE_BITS = (2, 6)
SHARPNESS_FACTORS = (0.0, 2.0)
CUTOUT_SIDES = (0.25, 0.5)
# Parameters of an image that are one number, in the order of `numba_kernels`.
SINGLE = ("pivot", "threshold", "mask", "sharpness", "equalise")
# Largest change of the hue at a jitter of 1, as a fraction of a full turn.
HUE_TURN = 0.1


@checks.register
def check_recipe(config):
    """Raises `InputError` unless the recipe's `augment.scale` is a pair of factors."""
    scale = tuple(config.augment.scale)
    if len(scale) != 2 or not all(isinstance(s, float) and 0.1 <= s <= 10 for s in scale) or scale[0] > scale[1]:
        raise InputError(
            f"config.augment.scale is {scale}: it must be (lowest, highest), two factors between 0.1 and 10"
        )


def build_augmentation(config, skeleton, stored_share=1.0):
    """The `Augmentation` of a recipe; it is false if it changes nothing.

    Args:
        config: the recipe.
        skeleton: the `Skeleton` of the labels.
        stored_share: as for `Augmentation`.
    """
    return Augmentation(skeleton, config.augment, config.model.input_size, stored_share)


class Augmentation:
    """Augments batches, in the training step (`on_device`) or in tf.data (`on_host`).

    `on_device` is one XLA program, `on_host` uses `kpose.augment.numba_kernels`. Both give the same
    result, up to one grey level where the rounding differs.

    Args:
        skeleton: the `Skeleton` of the labels.
        config: the recipe's `augment` section.
        input_size: (height, width) of the network's input in pixels.
        stored_share: side of the region of the network's input without augmentation, as a
            fraction of the side of the stored crop.
    """

    def __init__(self, skeleton, config, input_size, stored_share=1.0):
        self.skeleton = skeleton
        self.config = config
        self.input_size = tuple(input_size)
        self.stored_share = stored_share
        # Compiled even if the training step is not: XLA runs its gather operations ten times as
        # fast.
        self._compiled = tf.function(self._on_device, jit_compile=True, autograph=False)

    @property
    def warps(self):
        """Whether `image` must be the stored crop, which is then warped."""
        c = self.config
        return c.rotation > 0 or tuple(c.scale) != (1.0, 1.0) or c.shift > 0 or self.half_body > 0

    @property
    def half_body(self):
        """Probability of a half body; 0 for a skeleton without an upper body."""
        return self.config.half_body if self.skeleton.upper else 0.0

    @property
    def recolours(self):
        """Whether colours are changed by a colour matrix."""
        return self.config.grey > 0 or self.config.jitter > 0

    @property
    def changes_images(self):
        """Whether anything but a mirroring is done to images."""
        c = self.config
        steps = (c.solarise, c.posterise, c.sharpness, c.equalise, c.cutout)
        return self.warps or self.recolours or any(probability > 0 for probability in steps)

    def __bool__(self):
        return self.changes_images or self.config.flip > 0

    def on_device(self, batch):
        """The augmented batch, computed by an XLA program."""
        # XLA does not support strings, so only these entries are passed.
        part = {name: batch[name] for name in ("image", "keypoints", "region", "draws")}
        return batch | self._compiled(part)

    def _on_device(self, batch):
        changes = self._changes(batch)
        images, mirrored = batch["image"], changes["mirrored"]
        if self.warps:
            images = photometric.to_uint8(geometric.sample(images, *changes["maps"], self.input_size))
        elif self.config.flip > 0:
            images = tf.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        if self.recolours:
            images = photometric.recolour(images, changes["colours"], changes["pivot"])
        if self.config.solarise > 0:
            images = photometric.solarise(images, changes["threshold"])
        if self.config.posterise > 0:
            images = photometric.posterise(images, changes["mask"])
        if self.config.sharpness > 0:
            images = photometric.sharpness(images, changes["sharpness"])
        if self.config.equalise > 0:
            chosen = changes["equalise"][:, None, None, None]
            images = tf.where(chosen, photometric.equalise(images), images)
        if self.config.cutout > 0:
            images = photometric.cut_out(images, changes["rectangle"])
        return {"image": images, "keypoints": changes["keypoints"], "region": changes["region"]}

    def on_host(self, batch):
        """The augmented batch, computed on the CPU, for `tf.data.Dataset.map`."""
        changes = self._changes(batch)
        labels = {name: changes[name] for name in ("keypoints", "region")}
        if not self.changes_images:
            # Mirroring is a copy, for which TensorFlow is as fast as Numba.
            mirrored = changes["mirrored"][:, None, None, None]
            return batch | labels | {"image": tf.where(mirrored, batch["image"][:, :, ::-1], batch["image"])}
        from kpose.augment import numba_kernels

        maps = tf.concat(changes["maps"], 1) if self.warps else tf.where(changes["mirrored"], -1.0, 1.0)[:, None]
        columns = [
            tf.pad(maps, [[0, 0], [0, 6 - maps.shape[1]]]),
            tf.reshape(changes["colours"], [-1, 9]),
            *(tf.cast(changes[name], tf.float32)[:, None] for name in SINGLE),
            tf.cast(changes["rectangle"], tf.float32),
        ]

        def augment(images, parameters):
            return numba_kernels.augment(images, parameters, self.input_size, self.warps, self.recolours)

        images = tf.numpy_function(augment, [batch["image"], tf.concat(columns, 1)], tf.uint8, stateful=False)
        images.set_shape([batch["image"].shape[0], *self.input_size, 3])
        return batch | labels | {"image": images}

    def _changes(self, batch):
        """The augmented labels and the parameters of the steps: dict of tensors [B, ...].

        If a step is not applied to a sample, its parameters are those that do not change the image.
        """
        c = self.config
        drawn = {name: batch["draws"][:, index] for index, name in enumerate(COLUMNS)}
        region, keypoints = batch["region"], batch["keypoints"]
        mirrored = drawn["flip"] < c.flip
        changes = {"mirrored": mirrored}
        if self.warps:
            angle = geometric.radians(c.rotation) * (2 * drawn["angle"] - 1)
            scale = c.scale[0] + (c.scale[1] - c.scale[0]) * drawn["scale"]
            shift = c.shift * (2 * tf.stack([drawn["shift_x"], drawn["shift_y"]], -1) - 1)
            upper = tf.constant([joint in self.skeleton.upper for joint in range(self.skeleton.num_joints)])
            seen = geometric.half_bodies(
                keypoints, region, self.stored_share, upper, drawn["half_body"] < self.half_body, drawn["upper"] < 0.5
            )
            centre, size = geometric.windows(seen, angle, scale, shift)
            matrix, offset = geometric.crop_transform(region, self.stored_share, centre, size, angle, mirrored)
            changes["maps"] = geometric.pixel_maps(matrix, offset, batch["image"].shape[1:3], self.input_size)
            keypoints = geometric.move_keypoints(keypoints, region, self.stored_share, centre, size, angle, mirrored)
            region = tf.concat([centre - size / 2, size], -1)
        elif c.flip > 0:
            keypoints = tf.where(mirrored[:, None, None], keypoints * tf.constant([-1.0, 1.0, 1.0]), keypoints)
        if c.flip > 0:
            swapped = tf.gather(keypoints, list(self.skeleton.flip_order), axis=1)
            keypoints = tf.where(mirrored[:, None, None], swapped, keypoints)
        jitter = [1 + c.jitter * (2 * drawn[name] - 1) for name in ("brightness", "contrast", "saturation")]
        hue = c.jitter * HUE_TURN * (2 * drawn["hue"] - 1)
        grey = tf.where(drawn["grey"] < c.grey, drawn["grey_amount"], 0.0)
        changes["colours"], changes["pivot"] = photometric.colour_matrix(grey, *jitter, hue)
        threshold = _between(SOLARISE_THRESHOLDS, drawn["solarise_threshold"])
        changes["threshold"] = tf.where(drawn["solarise"] < c.solarise, threshold, photometric.NO_THRESHOLD)
        fewest, most = POSTERISE_BITS
        bits = tf.floor(_between((fewest, most + 1), drawn["posterise_bits"]))
        changes["mask"] = photometric.bit_mask(tf.where(drawn["posterise"] < c.posterise, bits, 8.0))
        factor = _between(SHARPNESS_FACTORS, drawn["sharpness_factor"])
        changes["sharpness"] = tf.where(drawn["sharpness"] < c.sharpness, factor, 1.0)
        changes["equalise"] = drawn["equalise"] < c.equalise
        changes["rectangle"], keypoints = self._hole(drawn, keypoints)
        return changes | {"keypoints": keypoints, "region": region}

    def _hole(self, drawn, keypoints):
        """The rectangle to cut out, [B, 4] int32 as for `photometric.cut_out`, and the labels."""
        side = _between(CUTOUT_SIDES, tf.stack([drawn["cutout_width"], drawn["cutout_height"]], -1))
        centre = tf.stack([drawn["cutout_x"], drawn["cutout_y"]], -1) - 0.5
        chosen = (drawn["cutout"] < self.config.cutout)[:, None]
        extent = tf.constant(self.input_size[::-1], tf.float32)
        # A pixel belongs to the rectangle if its centre does.
        first = tf.math.ceil((centre - side / 2 + 0.5) * extent - 0.5)
        last = tf.math.floor((centre + side / 2 + 0.5) * extent - 0.5) + 1.0
        corners = tf.concat([tf.maximum(first, 0.0), tf.where(chosen, tf.minimum(last, extent), 0.0)], -1)
        inside = tf.reduce_all(tf.abs(keypoints[..., :2] - centre[:, None]) <= side[:, None] / 2, axis=-1)
        flags = tf.where(tf.logical_and(inside, chosen), tf.minimum(keypoints[..., 2], 1.0), keypoints[..., 2])
        return tf.cast(corners, tf.int32), tf.concat([keypoints[..., :2], flags[..., None]], -1)


def draws(seed, position, count):
    """Random numbers for the samples that start at `position`.

    Args:
        seed: int.
        position: int64 [], number of the first sample.
        count: number of samples.

    Returns:
        [count, NUM_DRAWS] float32, uniform in [0, 1).
    """
    return numbered(tf.raw_ops.StatelessRandomUniformV2, seed, position, count, NUM_DRAWS)


def numbered(operation, seed, position, count, width):
    """Random rows that depend on the seed and on the position of the row only.

    A counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011)
    gives four numbers for each value of its counter. Each row starts at its own value of the
    counter, so one operation can generate any range of rows.

    Args:
        operation: one of the StatelessRandom...V2 operations of TensorFlow.
        seed: int.
        position: int64 [], number of the first row.
        count: number of rows.
        width: numbers in a row.

    Returns:
        [count, width] float32.
    """
    blocks = -(-width // 4)
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=tf.constant([seed, 0], tf.int64))
    counter += tf.stack([tf.cast(position * blocks, tf.uint64), tf.zeros([], tf.uint64)])
    # alg=1 is Philox; the counter of other algorithms advances differently.
    return operation(shape=[count, 4 * blocks], key=key, counter=counter, alg=1)[:, :width]


def _between(limits, share):
    return limits[0] + (limits[1] - limits[0]) * share
