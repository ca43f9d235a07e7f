"""Knowledge distillation: a pose model's answers for the training batches, beside the labels.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, for coordinates: the teacher sees each
crop as augmentation left it, and what it finds is a second target, where there is no label or everywhere. It is a tool
of the training alone: neither the network nor any figure knows of it.
"""

import tensorflow as tf

from kpose.core import checks, devices
from kpose.core.errors import InputError
from kpose.models import movenet
from kpose.models.weights import movenet_tfjs


class Teacher:
    """MoveNet, as published, as the teacher of a recipe.

    Args:
        config: the recipe.
        skeleton: its `Skeleton`.

    Raises:
        InputError: `config.teacher.weights` are not MoveNet's in the width of `config.teacher.width`.
    """

    def __init__(self, config, skeleton):
        self._least = config.teacher.min_score
        self._everywhere = config.teacher.everywhere
        with devices.dtype_policy("float32"):
            self._size = tuple(config.teacher.input_size)
            self._network = movenet.movenet(self._size, skeleton.num_joints, width=config.teacher.width)
        movenet_tfjs.assign(self._network, config.teacher.weights)
        self._network.trainable = False

    def __call__(self, batch):
        """A training batch with what the teacher finds in its images.

        Returns:
            The batch with `taught` [B, K, 3]: x and y as in `keypoints`; 1 where the teacher is sure enough (and,
            unless it teaches everywhere, there is no label), else 0.
        """
        images = tf.image.resize(tf.cast(batch["image"], tf.float32), self._size)
        found = self._network(images, training=False)
        sure = tf.reduce_all(tf.abs(found["keypoints"]) <= 0.5, -1) & (found["visibility"] >= self._least)
        if not self._everywhere:
            sure &= tf.equal(batch["keypoints"][..., 2], 0.0)
        flags = tf.cast(sure & (batch["weight"][:, None] > 0), tf.float32)[..., None]
        return batch | {"taught": tf.concat([found["keypoints"], flags], -1) * flags}


@checks.register
def check_recipe(config):
    """Raises `InputError` where a recipe's teacher cannot teach it."""
    if not config.teacher.weights:
        return
    if not config.teacher.weights.endswith(".json"):
        raise InputError(
            f"config.teacher.weights is {config.teacher.weights!r}: a teacher is the .json file of MoveNet's graph "
            "model"
        )
    if config.skeleton != "coco":
        raise InputError(f"config.skeleton is {config.skeleton!r}: MoveNet, the teacher, finds the joints of 'coco'")
    if config.loss.name == "masked_l2":
        raise InputError("config.loss.name is 'masked_l2': a teacher does not tell which joints are labelled")
    if config.augment.on != "host":
        raise InputError("config.augment.on is 'device': a teacher sees what is augmented on the host")
    movenet.check_movenet_size("teacher.input_size", config.teacher.input_size)


def build(config, skeleton):
    """The `Teacher` of a recipe; None where it names none."""
    return Teacher(config, skeleton) if config.teacher.weights else None
