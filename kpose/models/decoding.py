"""From crops to keypoints in original pixels, one way for evaluation, export and prediction."""

import tensorflow as tf
from keras import ops

from kpose.core import geometry


def predict(network, images, regions, skeleton, flip_test=False):
    """The network's answer for crops, in original pixels.

    Args:
        network: images [N, H, W, 3] of 0..255 -> dict with "keypoints" [N, K, 2] normalised and perhaps the outputs of
            `kpose.models.layers`.
        images: [N, H, W, 3] uint8 or float32.
        regions: [N, 4] what the crops show, xywh in original pixels.
        skeleton: the `Skeleton` it predicts.
        flip_test: average the answer with the one for the mirror image.

    Returns:
        keypoints [N, K, 3] float32 (x, y in original pixels, the joint's score) and scores [N] float32, in [0, 1].
    """
    images = ops.cast(images, "float32")
    outputs = network(images, training=False)
    if flip_test:
        mirrored = network(ops.flip(images, axis=2), training=False)
        outputs = {name: (value + _mirror_back(name, mirrored[name], skeleton)) / 2 for name, value in outputs.items()}
    points = outputs["keypoints"]
    joint_scores, scores = confidence(outputs, regions, images.shape[1:3])
    return ops.concatenate([geometry.denormalise(points, regions), joint_scores[..., None]], axis=-1), scores


def _mirror_back(name, value, skeleton):
    """An output [N, K, ...] for mirror images, as it is for the images themselves."""
    value = ops.take(value, list(skeleton.flip_order), axis=1)
    return value * ops.cast([-1.0, 1.0], "float32") if name == "keypoints" else value


def confidence(outputs, regions, input_size):
    """How sure the network is: ([N, K] for each joint, [N] for the person), in [0, 1].

    A learned scale s says it best: 1 - s (Li et al., "Human Pose Regression with Residual Log-likelihood Estimation",
    ICCV 2021). A regressed visibility is the joint's score as it is, their mean the person's. A plain regressor does
    not say; see `resolution_score`.
    """
    if "scale" in outputs:
        joints = 1.0 - ops.clip(ops.mean(outputs["scale"], axis=-1), 0.0, 1.0)
        return joints, ops.mean(joints, axis=-1)
    if "visibility" in outputs:
        joints = ops.clip(outputs["visibility"], 0.0, 1.0)
        return joints, ops.mean(joints, axis=-1)
    scores = resolution_score(regions, input_size)
    return ops.broadcast_to(scores[:, None], ops.shape(outputs["keypoints"])[:2]), scores


def resolution_score(regions, input_size):
    """[N] in (0, 1): how much of the detail that the network can see was in the photograph.

    A plain regressor does not say how sure it is. Its errors grow with the blur of a small person, so the person's
    size ranks predictions better than the equal scores that would leave average precision to chance: s / (s + n), with
    s the region's longer side in pixels and n the input's.
    """
    side = ops.max(regions[:, 2:], axis=-1)
    return side / (side + float(max(input_size)))


def place(pose, regions):
    """One normalised pose [K, 2] put into each of the regions [N, 4]: [N, K, 2] in original pixels."""
    return geometry.denormalise(pose[None], regions)


def to_pixels(batch, keypoints):
    """A batch's labels and predictions in original pixels: [B, K, 3] with the visibility flag, and [B, K, 2].

    Args:
        batch: dict with "keypoints" [B, K, 3] normalised and "region" [B, 4].
        keypoints: predictions, [B, K, 2] normalised.
    """
    points, visibility = batch["keypoints"][..., :2], batch["keypoints"][..., 2:]
    truth = tf.concat([geometry.denormalise(points, batch["region"]), visibility], -1)
    return truth, geometry.denormalise(keypoints, batch["region"])
