"""Folding of BatchNorm does not change outputs."""

import keras
import numpy as np
import pytest

from kpose import config as config_lib
from kpose import models
from kpose.core import skeletons
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
