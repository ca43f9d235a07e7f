"""Inputs of a cascade's stage in training: labels with random displacements.

The displacements are like the errors of the previous stage. DeepPose (Toshev and Szegedy, CVPR
2014, section 3.2) draws the displacement of each joint from a normal distribution. Its mean and
covariance are those of the errors of the previous stage, measured on the training set in torso
diameters. All lengths are lengths in original pixels (`kpose.models.cascade`).
"""

import dataclasses

import numpy as np
import tensorflow as tf
from keras import ops

from kpose.core import files
from kpose.core.errors import InputError
from kpose.models.cascade import in_heights, torso_diameter
from kpose.models.decoding import aspects_of

# Persons that are measured, of all data sets: enough for the mean and covariance of each joint.
MEASURED_PERSONS = 10_000


@dataclasses.dataclass(frozen=True)
class Errors:
    """The errors of a network for each joint, in torso diameters of the labels.

    x and y of an error are lengths in original pixels, divided by the diameter in original pixels.

    Attributes:
        mean: [K, 2] float64.
        covariance: [K, 2, 2] float64.
        pose: [K, 2] float64, mean of the predictions, normalised.
    """

    mean: np.ndarray
    covariance: np.ndarray
    pose: np.ndarray


def measure(network, data_sets, torso, stretched=False):
    """The `Errors` of the previous stages of a cascade, on persons with both torso joints labelled.

    Args:
        network: the `kpose.models.cascade.Cascade`.
        data_sets: list of (share, batches): evaluation batches (`kpose.data.pipeline`) of each data
            set, and its share of the training samples. Of each data set, at most this share of
            `MEASURED_PERSONS` is measured.
        torso: indices of the two torso joints.
        stretched: measure lengths in the crop, as release 0.1 did.

    Raises:
        InputError: no person has both torso joints labelled.
    """

    @tf.function(autograph=False)
    def step(images, regions, truth):
        aspects = aspects_of(regions)
        predicted = network.before(tf.cast(images, tf.float32), aspects)["keypoints"]
        aspects = ops.ones_like(aspects) if stretched else aspects
        diameter = ops.maximum(torso_diameter(truth, torso, aspects), 1e-3)
        return predicted, in_heights(predicted - truth, aspects) / diameter[:, None, None]

    errors, labelled, answers, weights = [], [], [], []
    one, other = torso
    for share, batches in data_sets:
        first, seen, wanted = len(weights), 0, share * MEASURED_PERSONS
        for batch in batches:
            truth, real = batch["keypoints"].numpy(), batch["weight"].numpy() > 0
            usable = real & (truth[:, one, 2] > 0) & (truth[:, other, 2] > 0)
            predicted, error = step(batch["image"], batch["region"], truth[..., :2])
            errors.append(error.numpy()[usable])
            labelled.append(truth[usable, :, 2] > 0)
            answers.append(predicted.numpy()[usable])
            weights.append(np.ones(usable.sum()))
            seen += real.sum()
            if seen >= wanted:
                break
        # Each person of a data set stands for the same part of the share of the data set.
        weights[first:] = [share / seen * part for part in weights[first:]]
    errors, labelled, answers, weights = (
        np.concatenate(parts).astype(np.float64) for parts in (errors, labelled, answers, weights)
    )
    if not len(errors):
        raise InputError("no person of the records has both torso joints labelled: the errors cannot be measured")
    return _statistics(errors, labelled * weights[:, None], np.average(answers, axis=0, weights=weights))


def _statistics(errors, weights, pose):
    """The `Errors` for errors [N, K, 2] with weights [N, K]."""
    total = weights.sum(0)
    weights = weights / np.where(total > 0, total, 1)
    mean = np.einsum("nk,nki->ki", weights, errors)
    centred = errors - mean
    return Errors(mean, np.einsum("nk,nki,nkj->kij", weights, centred, centred), pose)


def save(errors, path):
    """Writes `Errors` to a JSON file."""
    files.write_json(path, {name: value.tolist() for name, value in dataclasses.asdict(errors).items()})


def load(path):
    """Reads `Errors` from a file that `save` wrote."""
    return Errors(**{name: np.array(value) for name, value in files.read_json(path, "error measurement").items()})


class Displacements:
    """Adds `estimate` [B, K, 2] to a training batch: its labels, displaced at random, normalised.

    For a joint without a label, the estimate is the mean prediction of the previous stage,
    displaced. For a person without a labelled torso, the torso diameter is that of the mean
    prediction.

    Args:
        errors: `Errors` of the previous stage.
        torso: indices of the two joints whose distance is the torso diameter.
        before: function that changes the batch first, for example an augmentation; None: no such
            function.
        stretched: `errors` are lengths in the crop, as in release 0.1.
    """

    def __init__(self, errors, torso, before=None, stretched=False):
        self.torso = torso
        self.before = before
        self.stretched = stretched
        self.mean = errors.mean.astype(np.float32)
        # mean + L n has the covariance L L^T. The ridge is for joints without errors or without
        # labels.
        self.factor = np.linalg.cholesky(errors.covariance + 1e-8 * np.eye(2)).astype(np.float32)
        self.pose = errors.pose.astype(np.float32)

    def __call__(self, batch):
        if self.before:
            batch = self.before(batch)
        aspects = aspects_of(batch["region"])
        aspects = ops.ones_like(aspects) if self.stretched else aspects
        points, labelled = batch["keypoints"][..., :2], batch["keypoints"][..., 2:] > 0
        one, other = self.torso
        known = ops.logical_and(labelled[:, one], labelled[:, other])[:, 0]
        pose = ops.broadcast_to(ops.convert_to_tensor(self.pose), ops.shape(points))
        diameter = ops.where(
            known, torso_diameter(points, self.torso, aspects), torso_diameter(pose, self.torso, aspects)
        )
        moved = (self.mean + ops.einsum("kij,bkj->bki", self.factor, batch["normals"])) * diameter[:, None, None]
        return batch | {"estimate": ops.where(labelled, points, pose) + in_heights(moved, 1.0 / aspects)}
