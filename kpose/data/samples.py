"""The samples of a batch of records: decoded crops and normalised labels."""

import functools
import os

import tensorflow as tf

from kpose.data import records
from kpose.data.resampling import resample
from kpose.data.training_set import add_labels


def decode_records(training_set, sources, serialised):
    """The samples of a batch of records, with the crops resampled to the size of the training set.

    The labels of the batch are parsed together: for single records this takes four times as long.

    Args:
        training_set: `TrainingSet`.
        sources: [B] int64 indices of the data sets.
        serialised: [B] strings, the serialised records.

    Returns:
        dict of `image` [B, H, W, 3] uint8, `keypoints` [B, K, 3] and `region` [B, 4] float32.
    """
    files, sources = training_set.files, tf.cast(sources, tf.int32)
    places = tf.dynamic_partition(tf.range(tf.shape(sources)[0]), sources, len(files))
    parts = []
    for of_set, labelled, mine in zip(files, training_set.labelled, places, strict=True):
        found = records.parse(tf.gather(serialised, mine), of_set.skeleton)
        parts.append(add_labels(found, of_set, training_set.skeleton, training_set.padding, labelled))

    def together(name, *shape):
        return tf.ensure_shape(tf.dynamic_stitch(places, [part[name] for part in parts]), [sources.shape[0], *shape])

    def decode(of_set, jpeg):
        image = tf.ensure_shape(records.decode_jpeg(jpeg), [*of_set.crop_size, 3])
        return resample(image[None], training_set.crop_size, training_set.crop_padding / of_set.padding)[0]

    def decode_one(source, jpeg):
        ways = [functools.partial(decode, of_set, jpeg) for of_set in files]
        return ways[0]() if len(ways) == 1 else tf.switch_case(source, ways)

    images = tf.map_fn(
        lambda pair: decode_one(*pair),
        (sources, together("jpeg")),
        fn_output_signature=tf.TensorSpec([*training_set.crop_size, 3], tf.uint8),
        parallel_iterations=os.cpu_count(),
    )
    return {
        "image": images,
        "keypoints": together("keypoints", training_set.skeleton.num_joints, 3),
        "region": together("region", 4),
    }
