"""From outputs to keypoints, scores and flip test."""

import keras
import numpy as np
import pytest

from kpose.core import skeletons
from kpose.models import decoding

COCO = skeletons.COCO
REGIONS = np.float32([[10, 20, 100, 200], [0, 0, 30, 30]])


def network(**outputs):
    """A network that reads only the left half of an image: its mean red level shifts all joints."""

    class Fixed(keras.Model):
        def call(self, images, training=False):
            left = keras.ops.mean(images[:, :, : images.shape[2] // 2, 0], axis=(1, 2)) / 1000
            answer = {name: keras.ops.convert_to_tensor(value) for name, value in outputs.items()}
            return answer | {"keypoints": answer["keypoints"] + left[:, None, None]}

    return Fixed()


def made_outputs(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "keypoints": rng.uniform(-0.4, 0.4, (2, 17, 2)).astype(np.float32),
        "scale": rng.uniform(0.01, 0.3, (2, 17, 2)).astype(np.float32),
        "visibility": rng.uniform(-0.2, 1.2, (2, 17)).astype(np.float32),
    }


def images():
    picture = np.zeros((2, 16, 16, 3), np.uint8)
    picture[:, :, :8] = 100
    return picture


def test_a_learned_scale_is_the_joints_confidence():
    made = made_outputs()
    keypoints, scores = decoding.predict(
        network(keypoints=made["keypoints"], scale=made["scale"]), images(), REGIONS, COCO
    )
    expected = 1 - made["scale"].mean(-1)
    np.testing.assert_allclose(keypoints[..., 2], expected, rtol=1e-5)
    np.testing.assert_allclose(scores, expected.mean(1), rtol=1e-5)


def test_a_regressed_visibility_is_the_joints_score_within_0_and_1():
    made = made_outputs()
    keypoints, scores = decoding.predict(
        network(keypoints=made["keypoints"], visibility=made["visibility"]), images(), REGIONS, COCO
    )
    np.testing.assert_allclose(keypoints[..., 2], made["visibility"].clip(0, 1), rtol=1e-5)
    np.testing.assert_allclose(scores, made["visibility"].clip(0, 1).mean(1), rtol=1e-5)


def test_a_plain_regressor_is_scored_by_resolution_with_no_two_persons_equal():
    keypoints, scores = decoding.predict(network(keypoints=made_outputs()["keypoints"]), images(), REGIONS, COCO)
    np.testing.assert_allclose(scores, [200 / 216, 30 / 46], rtol=1e-5)
    np.testing.assert_allclose(keypoints[..., 2], np.repeat(np.asarray(scores)[:, None], 17, 1), rtol=1e-6)


@pytest.mark.parametrize("names", [("keypoints",), ("keypoints", "scale"), ("keypoints", "visibility")])
def test_the_flip_test_averages_with_the_mirror_image_joint_by_joint(names):
    made = {name: made_outputs()[name] for name in names}
    keypoints, _ = decoding.predict(network(**made), images(), REGIONS, COCO, flip_test=True)
    joints = [COCO.joints.index(name) for name in COCO.joints]
    partners = [
        COCO.joints.index(name.replace("left", "?").replace("right", "left").replace("?", "right"))
        for name in COCO.joints
    ]
    straight, mirrored = made["keypoints"] + 0.1, made["keypoints"]
    for person in range(2):
        for joint, partner in zip(joints, partners, strict=True):
            x = (straight[person, joint, 0] - mirrored[person, partner, 0]) / 2
            y = (straight[person, joint, 1] + mirrored[person, partner, 1]) / 2
            left, top, width, height = REGIONS[person]
            expected = left + (x + 0.5) * width, top + (y + 0.5) * height
            np.testing.assert_allclose(keypoints[person, joint, :2], expected, rtol=1e-4)
            if "scale" in made:
                score = 1 - (made["scale"][person, joint] + made["scale"][person, partner]).mean() / 2
                np.testing.assert_allclose(keypoints[person, joint, 2], score, rtol=1e-5)
