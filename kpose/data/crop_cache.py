"""The decoded crops of a training set, in memory."""

import numpy as np
import tensorflow as tf
from absl import logging

from kpose.core.errors import InputError
from kpose.data import records
from kpose.data.samples import decode_records


class CropCache:
    """The decoded crops and labels of a training set, in memory.

    Args:
        training_set: `training_set.TrainingSet`.

    Raises:
        InputError: the crops do not fit into memory, or a record is damaged.
    """

    def __init__(self, training_set):
        self._set = training_set
        height, width = training_set.crop_size
        needed, free = training_set.num_records * height * width * 3, _available_memory()
        logging.info(
            "cache of decoded crops: %d crops of %d x %d pixels need %.0f MB%s",
            training_set.num_records,
            height,
            width,
            needed / 1e6,
            "" if free is None else f"; {free / 1e6:.0f} MB are free",
        )
        if free is not None and needed > free:
            raise InputError(
                f"config.data.cache: {needed / 1e9:.1f} GB of decoded crops do not fit into the free memory of "
                f"{free / 1e9:.1f} GB: set --config.data.cache=False"
            )
        self._starts = np.cumsum([0, *training_set.counts[:-1]])
        self._values = {
            "image": np.empty((training_set.num_records, height, width, 3), np.uint8),
            "keypoints": np.empty((training_set.num_records, training_set.skeleton.num_joints, 3), np.float32),
            "region": np.empty((training_set.num_records, 4), np.float32),
        }
        for source, files in enumerate(training_set.files):
            self._fill(source, files)

    def _fill(self, source, files):
        """Decodes the records of one data set into the cache."""
        dataset = (
            tf.data.TFRecordDataset(files.paths)
            .batch(64)
            .map(lambda some: decode_records(self._set, tf.fill(tf.shape(some), source), some), num_parallel_calls=2)
        )
        place = self._starts[source]
        with records.reading(files):
            for batch in dataset.prefetch(2).as_numpy_iterator():
                for name, values in batch.items():
                    self._values[name][place : place + len(values)] = values
                place += len(values)

    def gather(self, sources, indices):
        """A batch of samples; for use in a tf.data function.

        Args:
            sources: [B] int64 indices of the data sets.
            indices: [B] int64 indices of the records in their data sets.

        Returns:
            dict of `image` [B, H, W, 3] uint8, `keypoints` [B, K, 3] and `region` [B, 4] float32.
        """

        def take(places):
            return [np.take(values, places, axis=0) for values in self._values.values()]

        places = indices + tf.gather(tf.constant(self._starts, tf.int64), sources)
        taken = tf.numpy_function(take, [places], [value.dtype for value in self._values.values()], stateful=False)
        shapes = [value.shape[1:] for value in self._values.values()]
        return {
            name: tf.ensure_shape(value, [indices.shape[0], *shape])
            for name, value, shape in zip(self._values, taken, shapes, strict=True)
        }


def _available_memory():
    """Available memory in bytes, without swapping; None if the system does not report it."""
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
