"""BatchNorm with the fused kernel, compared with Keras: outputs, gradients, statistics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose.core import devices
from kpose.models.layers import BatchNormalization

SHAPE = (6, 5, 7, 3)
TOLERANCE = {"float32": 2e-5, "mixed_bfloat16": 0.03, "mixed_float16": 4e-3}


def _images(seed=0):
    return np.random.default_rng(seed).normal([1.0, -30.0, 0.0], [2.0, 0.5, 0.0], SHAPE).astype(np.float32)


def _run(layer, training, xla=False):
    """(outputs; gradients of input, gamma and beta; new moving statistics), for random weights."""
    layer.build(SHAPE)
    values = [[0.5, 2.0, -1.0], [3.0, 0.0, 1.0], [0.9, -29.0, 0.1], [3.0, 0.2, 1.0]]
    layer.set_weights([np.float32(v) for v in values])
    towards = tf.constant(np.random.default_rng(1).normal(size=SHAPE).astype(np.float32))
    weights = [v.value for v in layer.trainable_variables]

    @tf.function(jit_compile=xla, autograph=False)
    def step(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = tf.cast(layer(images, training=training), tf.float32)
            loss = tf.reduce_sum(outputs * towards)
        return outputs, tape.gradient(loss, [images, *weights])

    outputs, gradients = step(tf.constant(_images()))
    return [np.asarray(v) for v in (outputs, *gradients, layer.moving_mean, layer.moving_variance)]


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("training, trainable, xla", [(True, True, False), (True, True, True), (False, True, False)])
def test_it_is_keras_batch_norm(precision, training, trainable, xla):
    results = []
    for kind in (keras.layers.BatchNormalization, BatchNormalization):
        with devices.dtype_policy(precision):
            layer = kind(momentum=0.8)
        results.append(_run(layer, training, xla))
    for expected, found in zip(*results, strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=TOLERANCE[precision] * scale)


def test_frozen_it_normalises_by_its_statistics_and_keeps_them():
    layer = BatchNormalization(trainable=False)
    layer.build(SHAPE)
    layer.set_weights([np.float32(v) for v in ([1, 2, 3], [0, 1, 2], [1, -30, 0], [4, 1, 1])])
    found = layer(_images(), training=True)
    expected = (_images() - [1, -30, 0]) / np.sqrt(np.array([4, 1, 1]) + 1e-3) * [1, 2, 3] + [0, 1, 2]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(layer.moving_mean, [1, -30, 0])


def test_it_takes_vectors_and_comes_back_from_a_file(tmp_path):
    vectors = np.random.default_rng(0).normal(3, 2, (64, 4)).astype(np.float32)
    np.testing.assert_allclose(np.mean(BatchNormalization()(vectors, training=True), 0), 0, atol=1e-5)
    images = keras.Input(SHAPE[1:])
    model = keras.Model(images, BatchNormalization(momentum=0.7)(images))
    model(_images(), training=True)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.layers[1]) is BatchNormalization and again.layers[1].momentum == 0.7
    np.testing.assert_allclose(again(_images()), model(_images()), rtol=1e-5)
