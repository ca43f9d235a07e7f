"""Knowledge distillation: keypoints of a pose model as additional training targets.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, applied to
coordinates. The teacher gets the augmented crops, in the training step. Its keypoints are a second
target, at joints without a label or at all joints. The teacher is used in training only; the saved
network and the metrics do not depend on it.
"""

import tensorflow as tf

from kpose.core import checks, skeletons
from kpose.core.errors import InputError
from kpose.models import movenet
from kpose.models.weights import movenet_tfjs
from kpose.runs.workdir import build_network, load_trained


def build(config, skeleton):
    """The `Teacher` of a recipe; None if `config.teacher.weights` is empty."""
    return Teacher(config, skeleton) if config.teacher.weights else None


class Teacher:
    """The published MoveNet, or the network of a run, as the teacher of a recipe.

    It computes in the current dtype policy.

    Args:
        config: the recipe.
        skeleton: its `Skeleton`.

    Raises:
        InputError: `config.teacher.weights` cannot be read, is not MoveNet of the width
        `config.teacher.width`, or predicts other joints.
    """

    def __init__(self, config, skeleton):
        self._min_score = config.teacher.min_score
        self._everywhere = config.teacher.everywhere
        if config.teacher.weights.endswith(".json"):
            self._size, self._network = _published(config.teacher, skeleton)
        else:
            self._size, self._network = _of_run(config, skeleton)
        self._network.trainable = False

    def __call__(self, batch):
        """Adds the keypoints of the teacher to a training batch.

        Returns:
            The batch with `taught` [B, K, 3] float32: x and y as in `keypoints`, and a flag. The
            flag is 1 if the joint is a target: its score is at least `config.teacher.min_score`, it
            is inside the crop and, unless `config.teacher.everywhere`, it has no label. Otherwise
            all three numbers are 0.
        """
        images = tf.image.resize(tf.cast(batch["image"], tf.float32), self._size)
        found = self._network(images, training=False)
        used = tf.reduce_all(tf.abs(found["keypoints"]) <= 0.5, -1) & (found["visibility"] >= self._min_score)
        if not self._everywhere:
            used &= batch["keypoints"][..., 2] <= 0
        flags = tf.cast(used & (batch["weight"][:, None] > 0), tf.float32)[..., None]
        return batch | {"taught": tf.concat([found["keypoints"], flags], -1) * flags}


def _published(config, skeleton):
    """(input size, network) of MoveNet; `config` is the recipe's `teacher` section."""
    if skeleton.joints != skeletons.COCO.joints:
        raise InputError(f"the skeleton is {skeleton.name!r}: the teacher, MoveNet, predicts the skeleton 'coco'")
    size = tuple(config.input_size)
    network = movenet.movenet(size, skeleton.num_joints, width=config.width)
    movenet_tfjs.assign(network, config.weights)
    return size, network


def _of_run(config, skeleton):
    """(input size, network) of the run or shipped model `config.teacher.weights`."""
    source = config.teacher.weights
    trained = load_trained(source)
    if trained.skeleton.joints != skeleton.joints:
        raise InputError(
            f"the skeleton is {skeleton.name!r}: the teacher, {source}, predicts {trained.skeleton.name!r}: the joints "
            "must be the same"
        )
    theirs, ours = trained.config.data, config.data
    if (theirs.aspect, theirs.padding) != (ours.aspect, ours.padding):
        raise InputError(
            f"the teacher, {source}, sees crops of data.aspect {theirs.aspect:g} and data.padding {theirs.padding:g}, "
            f"but this recipe has {ours.aspect:g} and {ours.padding:g}: set the same values"
        )
    # That of `trained` is in float32.
    network = build_network(trained.config, trained.skeleton)
    if "visibility" not in network.output:
        raise InputError(
            f"the teacher, {source}, gives its joints no scores: use a run whose network has the output visibility"
        )
    network.set_weights(trained.network.get_weights())
    return tuple(trained.config.model.input_size), network


@checks.register
def check_recipe(config):
    """Raises `InputError` if a recipe cannot be trained with its teacher."""
    if not config.teacher.weights:
        return
    if config.teacher.weights.endswith((".h5", ".keras", ".pth", ".pt", ".npz")):
        raise InputError(
            f"config.teacher.weights is {config.teacher.weights!r}: it must be the .json file of a graph model of "
            "MoveNet, the folder of a run, or the name of a shipped model"
        )
    if config.loss.name == "masked_l2":
        raise InputError(
            "config.loss.name is 'masked_l2', which needs the visibility of each joint: a teacher does not give it"
        )
    movenet.check_movenet_size("teacher.input_size", config.teacher.input_size)
