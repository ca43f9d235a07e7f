"""From crops to keypoints in original pixels, for evaluation, export and prediction."""

import collections

import numpy as np
import tensorflow as tf
from keras import ops

from kpose.core import geometry
from kpose.core.progress import Progress


def label_offset(config):
    """(dx, dy): from what a network predicts to the original frame, in original pixels.

    (0, 0), except if the network learnt pixel indices (`config.data.coordinates`): half a pixel.
    Mirroring an index about the middle of the crop gives one pixel more than the mirrored joint's
    index. With flips of half of the samples, the network has therefore learnt the mean in x, which
    is the joint's place in the original frame.

    Args:
        config: the network's recipe.
    """
    if config.data.coordinates != geometry.INDICES:
        return 0.0, 0.0
    return geometry.HALF_PIXEL - config.augment.flip, geometry.HALF_PIXEL


def predict(network, images, regions, skeleton, flip_test=False, offset=(0.0, 0.0), aspects=None, calibration=None):
    """Keypoints and scores for crops, in original pixels.

    Args:
        network: images [N, H, W, 3] of 0..255 -> dict with "keypoints" [N, K, 2] normalised, and
            possibly further outputs (`kpose.models.layers`).
        images: [N, H, W, 3] uint8 or float32.
        regions: [N, 4] xywh in original pixels: the part of the image that each crop shows.
        skeleton: the `Skeleton` that the network predicts.
        flip_test: average the outputs with those for the mirrored crops.
        offset: `label_offset` of the network's recipe.
        aspects: [N], width / height in original pixels of what the crops show, for a network that
            needs it; None: those of `regions`.
        calibration: `kpose.models.calibration.Calibration` of the network; None: the scores are
            those of `confidence`.

    Returns:
        keypoints [N, K, 3] float32 (x, y in the original frame, score of the joint) and scores [N]
        float32 of the persons; all scores are in [0, 1].
    """
    images = ops.cast(images, "float32")
    options = region_inputs(network, regions) if aspects is None else {"aspects": aspects}
    outputs = network(images, training=False, **options)
    if flip_test:
        # The mean with the mirrored crops is in the original frame already, in x.
        offset = (0.0, offset[1])
        mirrored = network(ops.flip(images, axis=2), training=False, **options)
        outputs = {name: (value + _mirror_back(name, mirrored[name], skeleton)) / 2 for name, value in outputs.items()}
    points = outputs["keypoints"]
    joint_scores, scores = confidence(outputs, regions, images.shape[1:3])
    if calibration is not None:
        joint_scores, scores = calibration.of_joints(joint_scores), calibration.of_persons(scores)
    points = geometry.denormalise(points, regions) + ops.convert_to_tensor(offset, "float32")
    return ops.concatenate([points, joint_scores[..., None]], axis=-1), scores


def predict_batches(network, config, skeleton, batches, flip_test=False):
    """Predictions for all persons of an evaluation, in order, with scores without calibration.

    Args:
        network: as for `predict`.
        config: its recipe.
        skeleton: the `Skeleton` that it predicts.
        batches: those of `kpose.data.pipeline.evaluation_batches`; it has a length.
        flip_test: as for `predict`.

    Returns:
        dict of arrays: those of the batches without the images (the normalised labels are called
        `labels`), and the prediction: `keypoints` [N, K, 3] (x, y in original pixels and the
        joint's score) and `score` [N]. Samples of weight 0 are left out.
    """
    offset = label_offset(config)

    @tf.function(autograph=False)
    def step(images, regions):
        return predict(network, images, regions, skeleton, flip_test, offset)

    columns = collections.defaultdict(list)
    with Progress(len(batches), "batches", name="predictions") as progress:
        for batch in batches:
            keypoints, scores = step(batch["image"], batch["region"])
            rows = {name: value for name, value in batch.items() if name not in ("image", "keypoints")}
            rows |= {"labels": batch["keypoints"], "keypoints": keypoints, "score": scores}
            for name, value in rows.items():
                columns[name].append(np.asarray(value))
            progress.add(1)
    arrays = {name: np.concatenate(values) for name, values in columns.items()}
    # The last batch is padded with samples of weight 0.
    real = arrays.pop("weight") > 0
    return {name: values[real] for name, values in arrays.items()}


def region_inputs(network, regions):
    """The keyword arguments of a network that depend on the regions of its images.

    A cascade needs the aspects (width / height) [N], because crops can be stretched. Other networks
    need nothing.

    Args:
        network: the network.
        regions: [N, 4] xywh in original pixels.
    """
    return {"aspects": aspects_of(regions)} if getattr(network, "needs_aspects", False) else {}


def aspects_of(regions):
    """Width / height [N] of regions [N, 4] xywh, in [0.01, 100]."""
    # Limited, because the samples of weight 0 at the end of an evaluation have no region.
    return ops.clip(regions[:, 2] / ops.maximum(regions[:, 3], 1e-6), 0.01, 100.0)


def _mirror_back(name, value, skeleton):
    """Converts an output [N, K, ...] for mirrored crops to one for the crops themselves."""
    value = ops.take(value, list(skeleton.flip_order), axis=1)
    return value * ops.cast([-1.0, 1.0], "float32") if name == "keypoints" else value


def confidence(outputs, regions, input_size):
    """Scores in [0, 1] from the outputs of a network: [N, K] of the joints and [N] of the persons.

    With a learned scale s, the score of a joint is 1 - s (Li et al., "Human Pose Regression with
    Residual Log-likelihood Estimation", ICCV 2021). With a regressed visibility, it is the
    visibility. The score of a person is the mean over the joints. For a plain regressor, all scores
    are the `resolution_score`.

    Args:
        outputs: dict of the network's outputs.
        regions: [N, 4] xywh in original pixels.
        input_size: (height, width) of the network's input in pixels.
    """
    if "scale" in outputs:
        joints = 1.0 - ops.clip(ops.mean(outputs["scale"], axis=-1), 0.0, 1.0)
        return joints, ops.mean(joints, axis=-1)
    if "visibility" in outputs:
        joints = ops.clip(outputs["visibility"], 0.0, 1.0)
        return joints, ops.mean(joints, axis=-1)
    scores = resolution_score(regions, input_size)
    return ops.broadcast_to(scores[:, None], ops.shape(outputs["keypoints"])[:2]), scores


def has_confidence(outputs):
    """Whether the outputs of a network give scores; else they are the `resolution_score`.

    Args:
        outputs: the names of the outputs.
    """
    return "scale" in outputs or "visibility" in outputs


def gives_scores(network, input_size):
    """`has_confidence` of a network.

    Args:
        network: the network.
        input_size: (height, width) of its input in pixels.
    """
    return has_confidence(network(np.zeros((1, *input_size, 3), np.float32), training=False))


def resolution_score(regions, input_size):
    """Scores [N] in (0, 1) from the resolution of each person in the image.

    s / (s + n), where s is the longer side of the region and n that of the network's input, in
    pixels. A plain regressor gives no confidence. Its errors are larger for small, blurred persons,
    so the size ranks the predictions better than equal scores, with which average precision would
    depend on chance.
    """
    side = ops.max(regions[:, 2:], axis=-1)
    return side / (side + float(max(input_size)))


def place(pose, regions, offset=0.0):
    """The normalised pose [K, 2] in each of the regions [N, 4]: [N, K, 2] in original pixels.

    `offset` pixels are added.
    """
    return geometry.denormalise(pose[None], regions) + offset


def to_pixels(batch, keypoints):
    """The labels and the predictions of a batch, in original pixels.

    Args:
        batch: dict with "keypoints" [B, K, 3] normalised and "region" [B, 4].
        keypoints: predictions, [B, K, 2] normalised.

    Returns:
        Labels [B, K, 3] with the visibility flag, and predictions [B, K, 2].
    """
    points, visibility = batch["keypoints"][..., :2], batch["keypoints"][..., 2:]
    truth = tf.concat([geometry.denormalise(points, batch["region"]), visibility], -1)
    return truth, geometry.denormalise(keypoints, batch["region"])
