"""Record files -> batches of images and labels (tf.data).

Every batch is a dict:

    image        [B, H, W, 3] uint8, the region stretched to the network's input size
    keypoints    [B, K, 3] float32: normalised x, y and the visibility flag; an unlabelled joint is (0, 0, 0)
    region       [B, 4] float32: what the image shows, xywh in original pixels
    weight       [B] float32: 1, or 0 for the padding that fills the last batch of an evaluation
    draws        [B, D] float32 in [0, 1): the random numbers of this sample's augmentation (training only)
    normals      [B, K, 2] float32, standard normal: for the displacements that train a cascade (on request)

The order of training samples is a function of the seed and the position alone, so a resumed run sees the batches
that an uninterrupted one would have seen, whatever the number of replicas.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from kpose import augment, geometry, records
from kpose.errors import InputError


@dataclasses.dataclass(frozen=True)
class LabelSummary:
    """What one pass over the labels of a training set tells.

    Attributes:
        num_records: N.
        mean_pose: [K, 2] mean of the normalised labels of each joint, (0, 0) for a joint never labelled. Predicting
            it for everyone is the floor any model has to beat.
        spread: standard deviation of the labels around the mean pose, over all labelled joints.
    """

    num_records: int
    mean_pose: np.ndarray
    spread: float


def summarise_labels(files, padding):
    """One pass over the labels of `files` (`records.RecordFiles`), without decoding images.

    Raises:
        InputError: a file is damaged.
    """
    count, total, squares, labelled = 0, 0.0, 0.0, 0.0
    dataset = tf.data.TFRecordDataset(files.paths, num_parallel_reads=4).batch(512)
    dataset = dataset.map(lambda s: _label(records.parse(s, files.skeleton, image=False), padding)["keypoints"])
    with records.reading(files.pattern):
        for keypoints in dataset.prefetch(2).as_numpy_iterator():
            keypoints = keypoints.astype(np.float64)
            mask = (keypoints[..., 2:] > 0).astype(np.float64)
            count += len(keypoints)
            labelled = labelled + mask.sum(0)
            total = total + (keypoints[..., :2] * mask).sum(0)
            squares = squares + (keypoints[..., :2] ** 2 * mask).sum(0)
    seen = np.maximum(labelled, 1)
    mean = total / seen
    variance = (squares - seen * mean**2).clip(0) * (labelled > 0)
    spread = float(np.sqrt(variance.sum() / max(2 * labelled.sum(), 1)))
    return LabelSummary(count, mean.astype(np.float32), spread)


def training_batches(
    files,
    *,
    input_size,
    padding,
    batch_size,
    seed,
    num_records,
    start_step=0,
    shuffle_buffer=10_000,
    normals=False,
    stored_crops=False,
):
    """An endless stream of shuffled training batches.

    Args:
        files: `records.RecordFiles`.
        input_size: (height, width) of the network's input in pixels.
        padding: what the network sees: the box enlarged by this factor.
        batch_size: samples in a global batch.
        seed: of the order and of the augmentation.
        num_records: records in `files`.
        start_step: batches already consumed: the stream begins with batch `start_step`.
        shuffle_buffer: records in memory (encoded) from which the next one is drawn.
        normals: add `normals`.
        stored_crops: leave the image as it was stored, for an augmentation that warps it to the input size; only
            shrunk first where it has many more pixels than the input needs.

    Returns:
        `tf.data.Dataset` of batches; a batch may hold the end of one epoch and the start of the next.
    """
    window = stored_share(files, padding)
    first = start_step * batch_size
    paths = tf.constant(files.paths)

    def epoch_records(epoch):
        # Shuffles mix in the seed of the graph they are in: not that of the process, which callers may set.
        tf.random.set_seed(seed + 1)
        order = tf.random.experimental.stateless_shuffle(paths, seed=tf.stack([seed, epoch]))
        # Deterministic: a fixed number of files read in turn, in the order drawn for this epoch.
        serialised = tf.data.Dataset.from_tensor_slices(order).interleave(
            tf.data.TFRecordDataset, cycle_length=4, block_length=16, num_parallel_calls=4, deterministic=True
        )
        return serialised.shuffle(min(shuffle_buffer, num_records), seed=epoch)

    dataset = tf.data.Dataset.range(first // num_records, np.iinfo(np.int64).max).flat_map(epoch_records)
    dataset = dataset.skip(first % num_records)
    positions = tf.data.Dataset.range(first, np.iinfo(np.int64).max)

    def sample(position, serialised):
        features = _sample(serialised, files.skeleton, padding)
        if normals:
            shape = (files.skeleton.num_joints, 2)
            features["normals"] = tf.random.stateless_normal(shape, seed=tf.stack([tf.cast(~seed, tf.int64), position]))
        return features | {"draws": augment.draws(seed, position)}

    dataset = tf.data.Dataset.zip(positions, dataset).map(sample, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    if stored_crops:
        return _batched(dataset, files, 1.0, _enough_pixels(files.crop_size, input_size, window))
    return _batched(dataset, files, window, input_size)


def _enough_pixels(stored, input_size, window):
    """The size of the crops that a warp samples: a bilinear sample of a picture that is much larger would alias."""
    return tuple(
        round(side / window) if there * window > 1.5 * side else there
        for there, side in zip(stored, input_size, strict=True)
    )


def evaluation_batches(files, *, input_size, padding, batch_size, num_records, identity=False):
    """All records once, in order; the last batch is filled up with samples of weight 0.

    Args:
        files, input_size, padding, batch_size, num_records: as for `training_batches`.
        identity: adds what tells the persons apart: `image_id`, `annotation_id` int64 [B], `box` [B, 4] xywh and
            `truth` [B, K, 3], both in original pixels, `area` [B].

    Returns:
        `tf.data.Dataset` of known cardinality.
    """
    window = stored_share(files, padding)
    dataset = tf.data.TFRecordDataset(files.paths)
    dataset = dataset.map(lambda s: _sample(s, files.skeleton, padding, identity), num_parallel_calls=tf.data.AUTOTUNE)
    batches = -(-num_records // batch_size)
    dataset = dataset.batch(batch_size).map(lambda batch: _fill(batch, batch_size))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches))
    return _batched(dataset, files, window, input_size)


def _label(features, padding):
    """Adds to parsed features the region that the network sees and the labels normalised in it."""
    box = features["box"]
    region = tf.reshape(geometry.pad_box(tf.reshape(box, [-1, 4]), padding), tf.shape(box))
    visibility = features["visibility"][..., None]
    keypoints = geometry.normalise(features["keypoints"], region) * tf.cast(visibility > 0, tf.float32)
    return features | {"region": region, "keypoints": tf.concat([keypoints, visibility], -1)}


def _sample(serialised, skeleton, padding, identity=False):
    features = records.parse(serialised, skeleton)
    labelled = _label(features, padding)
    sample = {
        "image": records.decode_jpeg(features["jpeg"]),
        "keypoints": labelled["keypoints"],
        "region": labelled["region"],
        "weight": tf.constant(1.0),
    }
    if identity:
        sample |= {key: features[key] for key in ("image_id", "annotation_id", "box", "area")}
        sample["truth"] = tf.concat([features["keypoints"], features["visibility"][..., None]], -1)
    return sample


def stored_share(files, padding):
    """The side of what the network sees with this padding, as a fraction of the stored crop's.

    Raises:
        InputError: the stored crop shows less than that.
    """
    if padding > files.padding * (1 + 1e-6):
        raise InputError(
            f"{files.pattern!r}: the crops show the box times {files.padding:g}, but the recipe's data.padding is "
            f"{padding:g}: write the records with --padding={padding:g}, or set --config.data.padding={files.padding:g}"
        )
    return padding / files.padding


def _batched(dataset, files, window, input_size):
    """Resizes whole batches (one op for all samples) and runs ahead of the consumer."""

    def resize(batch):
        image = tf.ensure_shape(batch["image"], [None, *files.crop_size, 3])
        if window < 1 - 1e-6 or tuple(files.crop_size) != tuple(input_size):
            image = resample(image, input_size, window)
        return batch | {"image": image}

    return dataset.map(resize, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def resample(image, size, window=1.0):
    """The central `window` (a fraction of each side) of images [B, h, w, 3], stretched to `size`, as uint8."""
    stored = np.array(image.shape[1:3], np.float32)
    scale = np.array(size, np.float32) / (stored * window)
    return _sample_pixels(image, size, scale, -scale * stored * (1 - window) / 2)


def crop_photograph(image_bytes, region, size):
    """The crop of a region, cut from an encoded photograph inside a graph: what `tfrecords_tools.crops` cuts.

    Args:
        image_bytes: scalar string, a JPEG or PNG file.
        region: [4] float32 xywh in the photograph's pixels; black where it reaches beyond.
        size: (height, width) of the crop.

    Returns:
        uint8 [height, width, 3].
    """
    image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    scale = tf.cast(size, tf.float32) / tf.reverse(region[2:], [0])
    return _sample_pixels(image[None], size, scale, -scale * tf.reverse(region[:2], [0]))[0]


def _sample_pixels(image, size, scale, translation):
    """Bilinear, with the kernel widened when the picture shrinks: no aliasing; as the stored crops were made."""
    image = tf.raw_ops.ScaleAndTranslate(
        images=image, size=size, scale=scale, translation=translation, kernel_type="triangle", antialias=True
    )
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def _fill(batch, batch_size):
    def fill(value):
        missing = batch_size - tf.shape(value)[0]
        filled = tf.pad(value, tf.concat([[[0, missing]], tf.zeros([tf.rank(value) - 1, 2], tf.int32)], 0))
        return tf.ensure_shape(filled, [batch_size, *value.shape[1:]])

    return {key: fill(value) for key, value in batch.items()}
