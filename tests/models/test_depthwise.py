"""Depthwise convolutions' gradients against plain NumPy sums."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose.core import devices
from kpose.models.depthwise import DepthwiseConv2D


def _reference(inputs, window, upstream, stride, padding):
    """(outputs, gradient by the inputs, by the window) of a convolution, one tap of the window after another."""
    size = window.shape[0]
    shape = inputs.shape[1:3]
    outputs = upstream.shape[1:3]
    same = padding == "same"
    pads = [same * max((o - 1) * stride + size - cells, 0) for o, cells in zip(outputs, shape, strict=True)]
    before = [pad // 2 for pad in pads]
    padded = np.pad(inputs, ((0, 0), *[(b, p - b + stride) for b, p in zip(before, pads, strict=True)], (0, 0)))
    found = np.zeros((len(inputs), *outputs, inputs.shape[3]))
    by_padded, by_window = np.zeros_like(padded), np.zeros_like(window)
    for y in range(size):
        for x in range(size):
            seen = (
                slice(None),
                slice(y, y + outputs[0] * stride, stride),
                slice(x, x + outputs[1] * stride, stride),
            )
            found += padded[seen] * window[y, x, :, 0]
            by_padded[seen] += upstream * window[y, x, :, 0]
            by_window[y, x, :, 0] = np.sum(padded[seen] * upstream, axis=(0, 1, 2))
    inside = [slice(b, b + cells) for b, cells in zip(before, shape, strict=True)]
    return found, by_padded[:, inside[0], inside[1]], by_window


@pytest.mark.parametrize("precision, tolerance", [("float32", 2e-6), ("mixed_bfloat16", 0.03)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(
    "height, width, padding",
    [(8, 6, "same"), (7, 10, "same"), (5, 9, "same"), (1, 2, "same"), (9, 7, "valid"), (8, 12, "valid")],
)
def test_gradients(precision, tolerance, size, stride, height, width, padding):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(3, height, width, 4))
    with devices.dtype_policy(precision):
        layer = DepthwiseConv2D(size, stride, padding=padding)
    layer.build(inputs.shape)
    window, bias = random.normal(size=(size, size, 4, 1)), random.normal(size=4)
    layer.set_weights([window, bias])
    images = tf.constant(inputs, tf.float32)

    @tf.function
    def step(upstream):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = tf.cast(layer(images, training=True), tf.float32)
            loss = tf.reduce_sum(outputs * upstream)
        return outputs, tape.gradient(loss, [images, layer.kernel.value, layer.bias.value])

    upstream = random.normal(size=layer(images).shape)
    outputs, gradients = step(tf.constant(upstream, tf.float32))
    expected, by_inputs, by_window = _reference(inputs, window, upstream, stride, padding)
    found = [outputs, *gradients, layer(images, training=False)]
    for value, reference in zip(
        found, [expected + bias, by_inputs, by_window, upstream.sum((0, 1, 2)), expected + bias], strict=True
    ):
        np.testing.assert_allclose(value, reference, rtol=0, atol=tolerance * np.abs(reference).max())


@pytest.mark.parametrize("options", [{"dilation_rate": 2}, {"depth_multiplier": 2}])
def test_what_it_does_not_cover_is_keras_own(options):
    images = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype(np.float32)
    ours, keras_own = (kind(3, **options) for kind in (DepthwiseConv2D, keras.layers.DepthwiseConv2D))
    for layer in (ours, keras_own):
        layer.build(images.shape)
    ours.set_weights(keras_own.get_weights())
    np.testing.assert_allclose(ours(images, training=True), keras_own(images, training=True), atol=1e-6)


def test_activation_and_file(tmp_path):
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, DepthwiseConv2D(5, 2, padding="same", activation="relu6")(images))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.layers[1]) is DepthwiseConv2D
    batch = 10 * np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    found = np.asarray(again(batch, training=True))
    assert found.min() == 0 and found.max() == 6
    np.testing.assert_allclose(found, model(batch), atol=1e-5)
