"""Losses against NumPy, finite differences, and what must not count."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose import losses
from kpose.errors import InputError


def sample(seed=0, batch=5, joints=17):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-0.5, 0.5, (batch, joints, 3)).astype(np.float32)
    truth[..., 2] = rng.integers(0, 3, (batch, joints))
    return truth, rng.uniform(-0.5, 0.5, (batch, joints, 2)).astype(np.float32)


def reference(name, truth, prediction):
    """Person by person and joint by joint."""
    totals = []
    for person, predicted in zip(truth.astype(np.float64), prediction.astype(np.float64), strict=True):
        total = 0.0
        for (x, y, flag), (px, py) in zip(person, predicted, strict=True):
            if flag > 0:
                dx, dy = px - x, py - y
                total += dx * dx + dy * dy if name == "l2" else abs(dx) + abs(dy)
        totals.append(total)
    return np.array(totals)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_losses_agree_with_a_plain_loop(name):
    truth, prediction = sample()
    value = losses.build(name).call(truth, {"keypoints": prediction})
    np.testing.assert_allclose(keras.ops.convert_to_numpy(value), reference(name, truth, prediction), rtol=1e-5)


def test_the_published_loss_is_the_sum_over_the_batch():
    truth, prediction = sample()
    truth[..., 2] = 2
    # Equation 3: the squared L2 distance of the 34-vectors, summed over the batch.
    vectors = truth[..., :2].reshape(5, 34), prediction.reshape(5, 34)
    expected = np.square(np.linalg.norm(vectors[1] - vectors[0], axis=1)).sum()
    np.testing.assert_allclose(float(losses.L2Loss()(truth, {"keypoints": prediction})), expected, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_gradients_agree_with_finite_differences_and_vanish_for_unlabelled_joints(name):
    truth, prediction = sample(1, batch=2, joints=4)
    points = tf.Variable(prediction)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(losses.build(name).call(truth, {"keypoints": points}))
    gradient = tape.gradient(total, points).numpy()
    step = 1e-4
    for index in np.ndindex(prediction.shape):
        above, below = prediction.astype(np.float64), prediction.astype(np.float64)
        above[index] += step
        below[index] -= step
        slope = (reference(name, truth, above).sum() - reference(name, truth, below).sum()) / (2 * step)
        np.testing.assert_allclose(gradient[index], slope, rtol=1e-3, atol=1e-3)
    assert (gradient[truth[..., 2] == 0] == 0).all()


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_what_is_predicted_for_an_unlabelled_joint_never_counts(name):
    truth, prediction = sample()
    wild = prediction.copy()
    wild[truth[..., 2] == 0] = np.nan
    loss = losses.build(name)
    same = [keras.ops.convert_to_numpy(loss.call(truth, {"keypoints": p})) for p in (prediction, wild)]
    np.testing.assert_array_equal(*same)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_losses_survive_serialisation_without_custom_objects(name):
    loss = losses.build(name)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    truth, prediction = sample()
    assert float(again(truth, {"keypoints": prediction})) == float(loss(truth, {"keypoints": prediction}))


def test_an_unknown_loss_is_named():
    with pytest.raises(InputError, match="l17"):
        losses.build("l17")
