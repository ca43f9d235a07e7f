"""Knowledge distillation: keypoints of a pose model as additional training targets.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, applied to
coordinates. The teacher gets the augmented crops. Its keypoints are a second target, at joints
without a label or at all joints. The teacher is used in training only; the saved network and the
metrics do not depend on it.
"""

import tensorflow as tf

from kpose.core import checks, devices, skeletons
from kpose.core.errors import InputError
from kpose.models import movenet
from kpose.models.weights import movenet_tfjs


def build(config, skeleton):
    """The `Teacher` of a recipe; None if `config.teacher.weights` is empty."""
    return Teacher(config, skeleton) if config.teacher.weights else None


class Teacher:
    """The published MoveNet as the teacher of a recipe.

    Args:
        config: the recipe.
        skeleton: its `Skeleton`.

    Raises:
        InputError: `config.teacher.weights` cannot be read, or is not MoveNet of the width
        `config.teacher.width`.
    """

    def __init__(self, config, skeleton):
        if skeleton.joints != skeletons.COCO.joints:
            raise InputError(f"the skeleton is {skeleton.name!r}: the teacher, MoveNet, predicts the skeleton 'coco'")
        self._min_score = config.teacher.min_score
        self._everywhere = config.teacher.everywhere
        with devices.dtype_policy("float32"):
            self._size = tuple(config.teacher.input_size)
            self._network = movenet.movenet(self._size, skeleton.num_joints, width=config.teacher.width)
        movenet_tfjs.assign(self._network, config.teacher.weights)
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


@checks.register
def check_recipe(config):
    """Raises `InputError` if a recipe cannot be trained with its teacher."""
    if not config.teacher.weights:
        return
    if not config.teacher.weights.endswith(".json"):
        raise InputError(
            f"config.teacher.weights is {config.teacher.weights!r}: it must be the .json file of a graph model of "
            "MoveNet"
        )
    if config.loss.name == "masked_l2":
        raise InputError(
            "config.loss.name is 'masked_l2', which needs the visibility of each joint: a teacher does not give it"
        )
    if config.augment.on != "host":
        raise InputError("config.augment.on is 'device': a teacher needs images that are augmented on the host")
    movenet.check_movenet_size("teacher.input_size", config.teacher.input_size)
