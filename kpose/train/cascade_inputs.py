"""Inputs of a cascade's stage in training: labels with random displacements.

The displacements are like the errors of the previous stage. DeepPose (Toshev and Szegedy, CVPR
2014, section 3.2) draws the displacement of each joint from a normal distribution. Its mean and
covariance are those of the errors of the previous stage, measured on the training set in torso
diameters.
"""

import dataclasses

import numpy as np
import tensorflow as tf
from keras import ops

from kpose.core import files
from kpose.core.errors import InputError
from kpose.models.cascade import torso_diameter

# Persons that are measured: enough for the mean and covariance of each joint.
MEASURED_PERSONS = 10_000


@dataclasses.dataclass(frozen=True)
class Errors:
    """The errors of a network for each joint, in torso diameters of the labels.

    Attributes:
        mean: [K, 2] float64.
        covariance: [K, 2, 2] float64.
        pose: [K, 2] float64, mean of the predictions, normalised.
    """

    mean: np.ndarray
    covariance: np.ndarray
    pose: np.ndarray


def measure(network, batches, torso):
    """The `Errors` of a network on persons with both torso joints labelled.

    Args:
        network: images [B, H, W, 3] of 0..255 -> dict with "keypoints" [B, K, 2], normalised.
        batches: evaluation batches (`kpose.data.pipeline`); they end after `MEASURED_PERSONS`
            persons.
        torso: indices of the two torso joints.

    Raises:
        InputError: no person has both torso joints labelled.
    """

    @tf.function(autograph=False)
    def answer(images):
        return network(tf.cast(images, tf.float32), training=False)["keypoints"]

    errors, labelled, answers, seen = [], [], [], 0
    for batch in batches:
        truth = batch["keypoints"].numpy()
        one, other = torso
        usable = (batch["weight"].numpy() > 0) & (truth[:, one, 2] > 0) & (truth[:, other, 2] > 0)
        predicted = answer(batch["image"]).numpy()[usable]
        truth = truth[usable]
        diameter = np.asarray(torso_diameter(truth[..., :2], torso))
        errors.append((predicted - truth[..., :2]) / np.maximum(diameter, 1e-3)[:, None, None])
        labelled.append(truth[..., 2] > 0)
        answers.append(predicted)
        seen += len(batch["weight"])
        if seen >= MEASURED_PERSONS:
            break
    errors, labelled, answers = (np.concatenate(parts).astype(np.float64) for parts in (errors, labelled, answers))
    if not len(errors):
        raise InputError("no person of the records has both torso joints labelled: the errors cannot be measured")
    weight = (labelled / np.maximum(labelled.sum(0), 1))[..., None]
    mean = (errors * weight).sum(0)
    centred = errors - mean
    covariance = np.einsum("nk,nki,nkj->kij", weight[..., 0], centred, centred)
    return Errors(mean, covariance, answers.mean(0))


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
    """

    def __init__(self, errors, torso, before=None):
        self.torso = torso
        self.before = before
        self.mean = errors.mean.astype(np.float32)
        # mean + L n has the covariance L L^T. The ridge is for joints without errors or without
        # labels.
        self.factor = np.linalg.cholesky(errors.covariance + 1e-8 * np.eye(2)).astype(np.float32)
        self.pose = errors.pose.astype(np.float32)

    def __call__(self, batch):
        if self.before:
            batch = self.before(batch)
        points, labelled = batch["keypoints"][..., :2], batch["keypoints"][..., 2:] > 0
        one, other = self.torso
        known = ops.logical_and(labelled[:, one], labelled[:, other])[:, 0]
        usual = torso_diameter(ops.convert_to_tensor(self.pose[None]), self.torso)
        diameter = ops.where(known, torso_diameter(points, self.torso), usual)
        moved = self.mean + ops.einsum("kij,bkj->bki", self.factor, batch["normals"])
        estimate = ops.where(labelled, points, self.pose) + moved * diameter[:, None, None]
        return batch | {"estimate": estimate}
