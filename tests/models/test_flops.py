"""The number of floating-point operations."""

import keras

from kpose.models import flops


def test_flops_are_those_counted_by_hand():
    images = keras.Input((16, 12, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(images)
    x = keras.layers.Dense(10, use_bias=False)(keras.layers.Flatten()(x))
    network = keras.Model(images, {"keypoints": x})
    convolution = 2 * (3 * 3 * 3) * (8 * 6 * 8)
    assert flops.forward(network, (16, 12)) == convolution + 2 * (8 * 6 * 8) * 10
