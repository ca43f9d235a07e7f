"""Augmentation: changes to a training batch that keep the labels true.

The random numbers of a sample are drawn on the host from the seed and the sample's position; what is done with
them is a pure function of the batch, so it gives the same result in tf.data and inside the compiled step
(`augment.on`), on any number of replicas.
"""

import tensorflow as tf
from keras import ops

# One column of `draws` for each decision a sample needs.
FLIP = 0
NUM_DRAWS = 1


def draws(seed, position):
    """[NUM_DRAWS] uniform numbers in [0, 1) for the sample at `position` (int64) of the training stream."""
    return tf.random.stateless_uniform([NUM_DRAWS], seed=tf.stack([tf.cast(seed, tf.int64), position]))


class Augmentation:
    """What is done to each training batch.

    Args:
        skeleton: whose left and right joints a flip swaps.
        flip: the probability of a mirror image.
    """

    def __init__(self, skeleton, flip=0.0):
        self.skeleton = skeleton
        self.flip = flip

    def __bool__(self):
        return self.flip > 0

    def __call__(self, batch):
        return flip(batch, batch["draws"][:, FLIP] < self.flip, self.skeleton)


def flip(batch, chosen, skeleton):
    """Mirrors the samples where `chosen` ([B] bool): the image, x, and left with right joints."""
    keypoints = ops.take(batch["keypoints"], list(skeleton.flip_order), axis=1)
    keypoints = keypoints * ops.cast([-1.0, 1.0, 1.0], keypoints.dtype)
    return batch | {
        "image": ops.where(chosen[:, None, None, None], ops.flip(batch["image"], axis=2), batch["image"]),
        "keypoints": ops.where(chosen[:, None, None], keypoints, batch["keypoints"]),
    }
