"""Batches and augmentations for the tests of `kpose.augment`."""

import numpy as np
import pytest
import tensorflow as tf

from kpose import config as config_lib
from kpose.augment import augmentation as augmentation_lib
from kpose.core import skeletons
from tests import helpers

COCO = skeletons.COCO
LEFT = [COCO.joints.index(name) for name in COCO.joints if name.startswith("left")]
RIGHT = [COCO.joints.index(COCO.joints[joint].replace("left", "right")) for joint in LEFT]
SIZE = (48, 64)


def augmentation(size=SIZE, stored_share=1.0, **fields):
    config = config_lib.default()
    config.augment.update(fields)
    config.model.input_size = size
    augmentation_lib.check_recipe(config)
    return augmentation_lib.build_augmentation(config, COCO, stored_share)


def batch_of_dots(count=6, seed=0):
    """Images with the dots of `helpers.PAINTED`; some joints are unlabelled."""
    rng = np.random.default_rng(seed)
    keypoints = np.concatenate([rng.uniform(-0.35, 0.35, (count, 17, 2)), np.full((count, 17, 1), 2.0)], -1)
    keypoints[:, LEFT[0]] = 0
    keypoints[::2, RIGHT[3]] = 0
    keypoints[:, RIGHT[4], 2] = 1
    dots = (keypoints[:, list(helpers.PAINTED), :2] + 0.5) * SIZE[::-1]
    return {
        "image": tf.constant(np.stack([helpers.paint_dots(SIZE, person) for person in dots])),
        "keypoints": tf.constant(keypoints, tf.float32),
        "region": tf.constant(rng.uniform(1, 50, (count, 4)), tf.float32),
        "weight": tf.ones([count]),
        "draws": tf.constant(rng.uniform(0, 1, (count, augmentation_lib.NUM_DRAWS)), tf.float32),
    }


WAYS = pytest.mark.parametrize("way", ["on_host", "on_device"])


GEOMETRIC = {
    "turned": {"rotation": 60.0},
    "scaled": {"scale": (0.7, 1.4)},
    "shifted": {"shift": 0.3},
    "mirrored": {"flip": 0.5, "rotation": 1.0},
    "half": {"half_body": 1.0},
    "all": {"flip": 0.5, "rotation": 45.0, "scale": (0.7, 1.3), "shift": 0.1, "half_body": 0.3},
}
PHOTOMETRIC = dict.fromkeys(("grey", "jitter", "solarise", "posterise", "sharpness", "equalise"), 0.5)
# (height, width) of the stored crops in pixels; they show twice the region.
STORED = (160, 160)


def stored_batch(count=12, seed=0):
    """Crops of 160 x 160 that show twice the region, with regions of different sizes."""
    rng = np.random.default_rng(seed)
    keypoints = np.concatenate([rng.uniform(-0.45, 0.45, (count, 17, 2)), np.full((count, 17, 1), 2.0)], -1)
    keypoints[:, 3] = 0
    dots = (keypoints[:, list(helpers.PAINTED), :2] / 2 + 0.5) * STORED[0]
    return {
        "image": tf.constant(np.stack([helpers.paint_dots(STORED, person, sigma=2.5) for person in dots])),
        "keypoints": tf.constant(keypoints, tf.float32),
        "region": tf.constant(
            np.concatenate([rng.uniform(0, 99, (count, 2)), rng.uniform(40, 160, (count, 2))], 1), tf.float32
        ),
        "weight": tf.ones([count]),
        "draws": tf.constant(rng.uniform(0, 1, (count, augmentation_lib.NUM_DRAWS)), tf.float32),
    }


def as_arrays(batch):
    return {name: np.asarray(value) for name, value in batch.items()}
