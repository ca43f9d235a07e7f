"""Executions of several steps: their lengths, and the time of waiting for data."""

import time

import keras
import pytest
import tensorflow as tf

from tests.train.test_regressor import JOINTS, SIDE, batches, make_data, make_regressor, train


@pytest.mark.parametrize(
    "replicas, steps_per_execution", [(1, 1), *(pytest.param(n, 4, marks=pytest.mark.slow) for n in (1, 2))]
)
def test_time_spent_waiting_for_data_is_measured(replicas, steps_per_execution):
    """It is the time of slow batches without the time of a slow step, also with a single thread."""

    def slowly(batch):
        with tf.control_dependencies([tf.py_function(lambda: time.sleep(0.2), [], [])]):
            return {name: tf.identity(value) for name, value in batch.items()}

    def waited(data, **options):
        regressor = make_regressor(replicas, steps_per_execution=steps_per_execution, **options)
        regressor.fit(data, steps_per_epoch=8, total_steps=8, verbose=0)
        return float(regressor.data_wait)

    def wide():
        images = keras.Input((SIDE, SIDE, 3))
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255.0)(images))
        for _ in range(3):
            x = keras.layers.Dense(1500)(x)
        return keras.Model(images, {"keypoints": keras.layers.Reshape((JOINTS, 2))(keras.layers.Dense(2 * JOINTS)(x))})

    data = batches(make_data()).repeat()
    assert 3 * waited(data.prefetch(16), network=wide) < waited(data.map(slowly))


def test_executions_never_overrun_an_epoch_or_the_training():
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((epoch, self.model.steps.done))

    regressor = make_regressor(steps_per_execution=4)
    train(regressor, make_data(), steps=13, steps_per_epoch=5, callbacks=[Watch()])
    assert seen == [(0, 5), (1, 10), (2, 13)]
    assert int(regressor.optimizer.iterations.numpy()) == 13


def test_a_training_resumed_in_mid_epoch_ends_its_epochs_where_an_uninterrupted_one_does():
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((epoch, self.model.steps.done))

    regressor = make_regressor(steps_per_execution=2)
    train(regressor, make_data(), steps=12, steps_per_epoch=5, start_step=7, callbacks=[Watch()])
    assert seen == [(1, 10), (2, 12)]
    assert int(regressor.optimizer.iterations.numpy()) == 5
