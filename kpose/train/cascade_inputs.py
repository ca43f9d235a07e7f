"""What a cascade's stage is trained on: joints displaced as the stage before displaces them.

DeepPose (Toshev and Szegedy, CVPR 2014, section 3.2) draws the displacement of each joint from a normal distribution
with the mean and covariance of the error of the stage before, measured on the training set, in torso diameters.
"""

import dataclasses

import numpy as np
import tensorflow as tf
from keras import ops

from kpose.core import files
from kpose.core.errors import InputError
from kpose.models.cascade import torso_diameter

# Enough for two moments of each joint's error.
MEASURED_PERSONS = 10_000


@dataclasses.dataclass(frozen=True)
class Errors:
    """The error of a network, joint by joint, in torso diameters of the truth.

    Attributes:
        mean: [K, 2].
        covariance: [K, 2, 2].
        pose: [K, 2] mean of the network's answers, normalised.
    """

    mean: np.ndarray
    covariance: np.ndarray
    pose: np.ndarray


def measure(network, batches, torso):
    """The `Errors` of a network over evaluation batches, on persons with both torso joints labelled.

    Raises:
        InputError: no person has them.
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
    """Writes `Errors` as JSON."""
    files.write_json(path, {name: value.tolist() for name, value in dataclasses.asdict(errors).items()})


def load(path):
    """`Errors` that `save` wrote."""
    return Errors(**{name: np.array(value) for name, value in files.read_json(path, "error measurement").items()})


class Displacements:
    """Adds to a training batch `estimate` [B, K, 2]: its joints, displaced as `errors` says.

    A joint without a label stands where the stage before puts it on average. Persons without a labelled torso get the
    diameter of that pose.

    Args:
        errors: `Errors` of the stage before.
        torso: the two joints whose distance is the torso diameter.
        before: what is done to the batch first (an augmentation; None: nothing).
    """

    def __init__(self, errors, torso, before=None):
        self.torso = torso
        self.before = before
        self.mean = errors.mean.astype(np.float32)
        # mean + L n has the covariance L L^T; the small ridge is for joints that never err, or are never labelled.
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
