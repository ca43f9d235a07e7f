"""Folding of BatchNorm does not change outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose import config as config_lib
from kpose import models
from kpose.core import devices, skeletons
from kpose.models import folding


@pytest.mark.parametrize(
    "name, stays",
    [("coco_integral", 0), ("resnet18", 1), ("efficientnet_lite0", 0), ("deeppose", 5)],
)
def test_a_folded_network_answers_alike(name, stays):
    config = config_lib.load_recipe(name).model
    config.weights, config.input_size, config.hidden = "", (96, 96), (16,)
    network = models.build(config, skeletons.COCO, ("scale",))
    rng = np.random.default_rng(0)
    norms = [layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in norm.get_weights()])
    images = rng.uniform(0, 255, (2, 96, 96, 3)).astype(np.float32)
    folded = folding.fold_batch_norm(network)
    left = [layer for layer in folded._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms and len(left) <= stays
    before, after = network(images, training=False), folded(images, training=False)
    assert before.keys() == after.keys()
    for key, expected in before.items():
        np.testing.assert_allclose(after[key], expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_graph_holds_the_kernels_of_the_moment_when_it_was_made(policy):
    with devices.dtype_policy(policy):
        images = keras.Input((9, 8, 4), name="images")
        x = keras.layers.Conv2D(6, (3, 2), strides=2, padding="same", activation="relu", name="first")(images)
        x = keras.layers.Conv2D(3, 2, dilation_rate=2, groups=3, use_bias=False, name="second")(x)
        network = keras.Model(images, x)
    folded = folding.fold_batch_norm(network)
    # Twice in one graph, as with flip_test.
    function = tf.function(lambda x: (folded(x), folded(x[:, :, ::-1])))
    batch = np.random.default_rng(0).normal(size=(2, 9, 8, 4)).astype(np.float32)
    expected = network(batch).numpy(), network(batch[:, :, ::-1]).numpy()
    for found, wanted in zip(function(batch), expected, strict=True):
        np.testing.assert_allclose(found.numpy().astype(float), wanted.astype(float), atol=1e-5)
    graph = function.get_concrete_function(tf.TensorSpec(batch.shape)).graph
    assert len(graph.captures) == 1, "only the bias is read"
    folded.get_layer("first").set_weights([np.zeros((3, 2, 4, 6)), np.zeros(6)])
    assert np.allclose(folded(batch), 0.0)
    assert np.abs(function(batch)[0].numpy().astype(float)).max() > 0.01
