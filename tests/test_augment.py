"""Flips: image and joints move together, left and right swap, with the same result on the host and in the graph."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose import augment, skeletons
from tests import helpers

COCO = skeletons.COCO
LEFT = [COCO.joints.index(name) for name in COCO.joints if name.startswith("left")]
RIGHT = [COCO.joints.index(COCO.joints[joint].replace("left", "right")) for joint in LEFT]
SIZE = (48, 64)


def _batch(count=6, seed=0):
    """Images with the dots of `helpers.PAINTED`; some joints unlabelled."""
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
        "draws": tf.constant(rng.uniform(0, 1, (count, augment.NUM_DRAWS)), tf.float32),
    }


def _numpy(batch):
    return {name: np.asarray(value) for name, value in batch.items()}


def _assert_same(first, second):
    assert set(first) == set(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_a_flip_mirrors_the_image_and_x_and_swaps_the_sides():
    before = _numpy(_batch())
    after = _numpy(augment.flip(_batch(), tf.fill([6], True), COCO))
    np.testing.assert_array_equal(after["image"], before["image"][:, :, ::-1])
    for joint in range(17):
        partner = dict(zip(LEFT + RIGHT, RIGHT + LEFT, strict=True)).get(joint, joint)
        np.testing.assert_array_equal(after["keypoints"][:, joint], before["keypoints"][:, partner] * [-1, 1, 1])
    for name in ("region", "weight", "draws"):
        np.testing.assert_array_equal(after[name], before[name])


def test_painted_dots_follow_their_joints():
    """The left wrist's dot is where the mirrored person's right wrist is labelled."""
    after = _numpy(augment.flip(_batch(), tf.fill([6], True), COCO))
    for person in range(6):
        for channel, joint in enumerate(helpers.PAINTED):
            name = COCO.joints[joint]
            mirrored = name.replace("left", "?").replace("right", "left").replace("?", "right")
            label = after["keypoints"][person, COCO.joints.index(mirrored), :2]
            dot = helpers.find_dot(after["image"][person, ..., channel])
            assert np.abs(dot - (label + 0.5) * SIZE[::-1]).max() < 0.3


def test_unlabelled_joints_stay_zeros_and_their_flags_change_sides():
    after = _numpy(augment.flip(_batch(), tf.fill([6], True), COCO))["keypoints"]
    assert not after[:, RIGHT[0]].any() and (after[:, LEFT[0], 2] == 2).all()
    assert not after[::2, LEFT[3]].any() and (after[::2, RIGHT[3], 2] == 2).all()
    assert (after[1::2, LEFT[3], 2] == 2).all()
    assert (after[:, LEFT[4], 2] == 1).all() and (after[:, RIGHT[4], 2] == 2).all()


def test_two_flips_undo_each_other():
    chosen = tf.constant([True, False, True, True, False, True])
    twice = augment.flip(augment.flip(_batch(), chosen, COCO), chosen, COCO)
    _assert_same(_numpy(twice), _numpy(_batch()))


def test_only_the_chosen_samples_are_flipped():
    chosen = np.array([True, False, True, False, False, True])
    before, after = _numpy(_batch()), _numpy(augment.flip(_batch(), tf.constant(chosen), COCO))
    for person in range(6):
        same = [np.array_equal(before[name][person], after[name][person]) for name in ("image", "keypoints")]
        assert same == [not chosen[person]] * 2


def test_dtypes_are_kept():
    before, after = _batch(), augment.flip(_batch(), tf.fill([6], True), COCO)
    assert {name: value.dtype for name, value in after.items()} == {name: value.dtype for name, value in before.items()}


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_flip_rate_is_the_probability(probability):
    count = 500
    positions = tf.range(count, dtype=tf.int64)
    draws = tf.map_fn(lambda p: augment.draws(4, p), positions, fn_output_signature=tf.float32)
    keypoints = np.zeros((count, 17, 3), np.float32)
    keypoints[:, 0] = (0.25, 0, 2)
    batch = {"image": tf.zeros([count, 1, 1, 3], tf.uint8), "keypoints": tf.constant(keypoints), "draws": draws}
    after = np.asarray(augment.Augmentation(COCO, probability)(batch)["keypoints"])
    flipped = int((after[:, 0, 0] == -0.25).sum())
    assert flipped + int((after[:, 0, 0] == 0.25).sum()) == count
    # Within 3.5 standard deviations of the binomial distribution, which has none at 0 and 1.
    assert abs(flipped - probability * count) <= 3.5 * np.sqrt(count * probability * (1 - probability))


def test_no_flip_is_no_augmentation():
    assert not augment.Augmentation(COCO)
    assert augment.Augmentation(COCO, flip=0.1)


def test_host_and_graph_give_the_same_result():
    augmentation = augment.Augmentation(COCO, flip=0.5)
    batch = _batch(8)
    host = next(iter(tf.data.Dataset.from_tensors(batch).map(augmentation)))
    flipped = np.asarray(batch["draws"])[:, augment.FLIP] < 0.5
    assert 0 < flipped.sum() < 8
    _assert_same(_numpy(host), _numpy(augmentation(batch)))
    _assert_same(_numpy(host), _numpy(tf.function(augmentation)(batch)))
    _assert_same(_numpy(host), _numpy(tf.function(augmentation, jit_compile=True)(batch)))


def test_draws_depend_on_seed_and_position_alone():
    def draw(seed, position):
        return augment.draws(seed, tf.constant(position, tf.int64)).numpy()

    first = draw(3, 1000)
    assert first.shape == (augment.NUM_DRAWS,) and first.dtype == np.float32
    keras.utils.set_random_seed(99)
    np.testing.assert_array_equal(draw(3, 1000), first)
    np.testing.assert_array_equal(tf.function(augment.draws)(3, tf.constant(1000, tf.int64)), first)
    assert len({float(draw(seed, position)[0]) for seed in range(4) for position in (0, 1, 2**40)}) == 12
