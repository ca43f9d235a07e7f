"""OKS AP in the evaluations of a training, from the records' own labels."""

import numpy as np
import tensorflow as tf

from kpose.core import geometry
from kpose.data import records
from kpose.metrics.coco import RecordsEvaluation
from kpose.models import decoding

NAME = "oks_ap"


class ValidationAP:
    """COCO's keypoint AP over the persons of the validation records.

    Each batch of an evaluation adds its predictions; `result` then computes the AP on the host.

    Args:
        files: `records.RecordFiles`.
        num_persons: N, the number of first persons of the records that the evaluation uses.
        predictions: variable from `empty_predictions`. Several validation sets share it, because
            the evaluation step is traced once.
    """

    def __init__(self, files, num_persons, predictions):
        persons = _labels(files, num_persons)
        self._evaluation = RecordsEvaluation(
            persons["image_id"], persons["box"], persons["area"], persons["truth"], files.skeleton
        )
        self._num_persons = num_persons
        self._predictions = predictions

    def update(self, predictions):
        """Adds the rows of a global batch (see `rows`), in a `tf.function`."""
        self._predictions.scatter_nd_update(tf.cast(predictions[:, :1], tf.int32), predictions[:, 1:])

    def result(self):
        """{NAME: AP} of the predictions of the last evaluation; {} if no person has labels."""
        values = self._predictions.numpy()[: self._num_persons]
        found = self._evaluation.average_precision(values[:, 1:].reshape(len(values), -1, 2), values[:, 0])
        return {} if found is None else {NAME: found}


def empty_predictions(num_samples, num_joints):
    """A variable for the predictions of an evaluation.

    Args:
        num_samples: the largest number of samples, with those that fill up the last batch.
        num_joints: K.

    Returns:
        [num_samples, 1 + 2 K]: of each sample the score, then x and y of each joint.
    """
    return tf.Variable(tf.zeros([num_samples, 1 + 2 * num_joints]), trainable=False)


def rows(batch, outputs):
    """[B, 2 + 2 K] float32: number of the sample, score, and x, y of each joint in original pixels.

    Numbers are exact in float32 up to 2^24, which is 16 million persons.

    Args:
        batch: dict with "number" [B], "region" [B, 4] and "image" [B, H, W, 3].
        outputs: the network's outputs for it.
    """
    points = geometry.denormalise(outputs["keypoints"], batch["region"])
    scores = decoding.confidence(outputs, batch["region"], batch["image"].shape[1:3])[1]
    flat = tf.reshape(points, [-1, 2 * points.shape[1]])
    return tf.concat([tf.cast(batch["number"], tf.float32)[:, None], scores[:, None], flat], 1)


def numbered(batches):
    """Evaluation batches with "number" [B] int64: the position of each sample in the evaluation."""

    def add(index, batch):
        size = batch["weight"].shape[0]
        return batch | {"number": index * size + tf.range(size, dtype=tf.int64)}

    return batches.enumerate().map(add)


def _labels(files, num_persons):
    """dict of arrays of the first persons: image_id, box, area, and truth [N, K, 3]."""
    parsed = tf.data.TFRecordDataset(files.paths).take(num_persons).batch(256)
    batches = list(parsed.map(lambda r: records.parse(r, files.skeleton, image=False)).as_numpy_iterator())
    persons = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    persons["truth"] = np.concatenate([persons["keypoints"], persons["visibility"][..., None]], -1)
    return persons
