"""Augmentation: changes to a training batch that keep the labels true.

The random numbers of a sample are drawn on the host from the seed and the sample's position; what is done with
them is a pure function of the batch, so it gives the same result in tf.data and inside the compiled step
(`augment.on`), on any number of replicas.

In this order: one geometric warp from the stored crop to the network's input (mirror, turn, scale, shift, half
body), colours (grey, jitter, solarise, posterise, sharpness, equalise), cutout.
"""

import tensorflow as tf
from keras import ops

from kpose import photometric, warp
from kpose.errors import InputError

# One column of `draws` for each decision a sample needs.
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

# What the drawn numbers become, (lowest, highest).
SOLARISE_THRESHOLDS = (64.0, 256.0)
POSTERISE_BITS = (2, 6)
SHARPNESS_FACTORS = (0.0, 2.0)
CUTOUT_SIDES = (0.25, 0.5)
# A jitter of 1 turns the hue by up to this, as a fraction of a full turn.
HUE_TURN = 0.1


def check(config):
    """Raises `InputError` unless the recipe's `augment` section (its numbers being in range) is possible."""
    scale = tuple(config.scale)
    if len(scale) != 2 or not all(isinstance(s, float) and 0.1 <= s <= 10 for s in scale) or scale[0] > scale[1]:
        raise InputError(f"config.augment.scale is {scale}: (lowest, highest) factor, between 0.1 and 10")


def draws(seed, position, count):
    """[count, NUM_DRAWS] uniform numbers in [0, 1), a row for each sample of the training stream from `position` on."""
    return numbered(tf.raw_ops.StatelessRandomUniformV2, seed, position, count, NUM_DRAWS)


def numbered(operation, seed, position, count, width):
    """Random rows that depend on the seed and on their own position alone.

    A counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) makes four numbers of
    each value of its counter, so a row begins at a counter of its own, and one operation makes any run of rows.

    Args:
        operation: one of TensorFlow's StatelessRandom...V2.
        seed: int.
        position: int64 [] of the first row.
        count: rows.
        width: numbers in a row.

    Returns:
        [count, width] float32.
    """
    blocks = -(-width // 4)
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=tf.constant([seed, 0], tf.int64))
    counter += tf.stack([tf.cast(position * blocks, tf.uint64), tf.zeros([], tf.uint64)])
    # 1 is Philox: another algorithm would count otherwise.
    return operation(shape=[count, 4 * blocks], key=key, counter=counter, alg=1)[:, :width]


class Augmentation:
    """What is done to each training batch.

    Args:
        skeleton: the `Skeleton` of the labels.
        config: the recipe's `augment` section.
        input_size: (height, width) of the network's input.
        stored_share: the side of what the network would see, as a fraction of the stored crop's.
    """

    def __init__(self, skeleton, config, input_size, stored_share=1.0):
        self.skeleton = skeleton
        self.config = config
        self.input_size = tuple(input_size)
        self.stored_share = stored_share
        # Inside XLA shapes are fixed, and TensorFlow's own warp is missing: the same is done in another way.
        self.compiled = False

    @property
    def warps(self):
        """Whether images come as stored crops, to be warped, rather than as the network's input."""
        c = self.config
        return c.rotation > 0 or tuple(c.scale) != (1.0, 1.0) or c.shift > 0 or c.half_body > 0

    @property
    def recolours(self):
        c = self.config
        return any(p > 0 for p in (c.grey, c.jitter, c.solarise, c.posterise, c.sharpness, c.equalise))

    def __bool__(self):
        return self.warps or self.recolours or self.config.flip > 0 or self.config.cutout > 0

    def __call__(self, batch):
        drawn = {name: batch["draws"][:, index] for index, name in enumerate(COLUMNS)}
        if self.warps:
            batch = self._warp(batch, drawn)
        elif self.config.flip > 0:
            batch = flip(batch, drawn["flip"] < self.config.flip, self.skeleton)
        if self.recolours:
            batch = batch | {"image": self._recolour(batch["image"], drawn)}
        if self.config.cutout > 0:
            batch = self._cut_out(batch, drawn)
        return batch

    def _warp(self, batch, drawn):
        c = self.config
        region, keypoints = batch["region"], batch["keypoints"]
        mirrored = drawn["flip"] < c.flip
        angle = warp.degrees(c.rotation) * (2 * drawn["angle"] - 1)
        scale = c.scale[0] + (c.scale[1] - c.scale[0]) * drawn["scale"]
        shift = c.shift * (2 * tf.stack([drawn["shift_x"], drawn["shift_y"]], -1) - 1)
        upper = tf.constant([joint in self.skeleton.upper for joint in range(self.skeleton.num_joints)])
        seen = warp.half_bodies(keypoints, region, upper, drawn["half_body"] < c.half_body, drawn["upper"] < 0.5)
        centre, size = warp.windows(seen, angle, scale, shift)
        matrix, offset = warp.crop_transform(region, self.stored_share, centre, size, angle, mirrored)
        image = warp.sample(batch["image"], matrix, offset, self.input_size, self.compiled)
        keypoints = warp.move_keypoints(keypoints, region, centre, size, angle, mirrored)
        swapped = tf.gather(keypoints, list(self.skeleton.flip_order), axis=1)
        return batch | {
            "image": photometric.to_uint8(image),
            "keypoints": tf.where(mirrored[:, None, None], swapped, keypoints),
            "region": tf.concat([centre - size / 2, size], -1),
        }

    def _recolour(self, images, drawn):
        c = self.config
        if c.grey > 0 or c.jitter > 0:
            greyed = drawn["grey"] < c.grey
            images = self._where(
                tf.logical_or(c.jitter > 0, greyed),
                photometric.colour_jitter,
                images,
                tf.where(greyed, drawn["grey_amount"], 0.0),
                *(1 + c.jitter * (2 * drawn[name] - 1) for name in ("brightness", "contrast", "saturation")),
                c.jitter * HUE_TURN * (2 * drawn["hue"] - 1),
            )
        fewest, most = POSTERISE_BITS
        steps = {
            "solarise": (photometric.solarise, _between(SOLARISE_THRESHOLDS, drawn["solarise_threshold"])),
            "posterise": (photometric.posterise, tf.floor(_between((fewest, most + 1), drawn["posterise_bits"]))),
            "sharpness": (photometric.sharpness, _between(SHARPNESS_FACTORS, drawn["sharpness_factor"])),
            "equalise": (photometric.equalise,),
        }
        for name, (step, *parameters) in steps.items():
            if c[name] > 0:
                images = self._where(drawn[name] < c[name], step, images, *parameters)
        return images

    def _where(self, chosen, step, images, *parameters):
        """`step(images, *parameters)` where `chosen` [B] bool, else the images as they are."""
        if self.compiled:
            return tf.where(chosen[:, None, None, None], step(images, *parameters), images)
        # Most samples are not chosen: only those that are cost anything.
        indices = tf.where(chosen)
        changed = step(*(tf.gather(values, indices[:, 0]) for values in (images, *parameters)))
        return tf.tensor_scatter_nd_update(images, indices, changed)

    def _cut_out(self, batch, drawn):
        """A rectangle of the image's mean colour; a visible joint in it becomes an occluded one."""
        images, keypoints = batch["image"], batch["keypoints"]
        side = _between(CUTOUT_SIDES, tf.stack([drawn["cutout_width"], drawn["cutout_height"]], -1))
        centre = tf.stack([drawn["cutout_x"], drawn["cutout_y"]], -1) - 0.5
        chosen = drawn["cutout"] < self.config.cutout
        height, width = images.shape[1:3]
        columns = (tf.range(width, dtype=tf.float32) + 0.5) / width - 0.5
        rows = (tf.range(height, dtype=tf.float32) + 0.5) / height - 0.5
        in_columns = tf.abs(columns - centre[:, :1]) <= side[:, :1] / 2
        in_rows = tf.abs(rows - centre[:, 1:]) <= side[:, 1:] / 2
        cut = tf.logical_and(in_rows[:, :, None], in_columns[:, None, :])
        cut = tf.logical_and(cut, chosen[:, None, None])[..., None]
        mean = photometric.to_uint8(tf.reduce_mean(tf.cast(images, tf.float32), [1, 2], keepdims=True))
        hidden = tf.reduce_all(tf.abs(keypoints[..., :2] - centre[:, None]) <= side[:, None] / 2, axis=-1)
        hidden = tf.logical_and(hidden, chosen[:, None])
        flags = tf.where(hidden, tf.minimum(keypoints[..., 2], 1.0), keypoints[..., 2])
        return batch | {
            "image": tf.where(cut, mean, images),
            "keypoints": tf.concat([keypoints[..., :2], flags[..., None]], -1),
        }


def _between(limits, share):
    return limits[0] + (limits[1] - limits[0]) * share


def flip(batch, chosen, skeleton):
    """Mirrors the samples where `chosen` ([B] bool): the image, x, and left with right joints."""
    keypoints = ops.take(batch["keypoints"], list(skeleton.flip_order), axis=1)
    keypoints = keypoints * ops.cast([-1.0, 1.0, 1.0], keypoints.dtype)
    return batch | {
        "image": ops.where(chosen[:, None, None, None], ops.flip(batch["image"], axis=2), batch["image"]),
        "keypoints": ops.where(chosen[:, None, None], keypoints, batch["keypoints"]),
    }
