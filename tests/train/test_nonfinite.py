"""The cause of a step that was not finite: a layer, also in a backbone, the loss, the teacher."""

import keras
import numpy as np
import pytest

from kpose.core import devices
from kpose.models import layers
from kpose.train import losses, nonfinite
from tests.train.test_regressor import BATCH, JOINTS, SIDE, make_data, make_regressor


def _network(names=()):
    """A network with a layer, a nested backbone as in the `backbone` recipes, and another layer."""
    features = keras.Input((SIDE, SIDE, 3))
    first = keras.layers.Conv2D(4, 3, strides=2, name="first")(features)
    second = keras.layers.Conv2D(4, 3, name="second")(first)
    backbone = keras.Model(features, [first, second], name="backbone")
    images = keras.Input((SIDE, SIDE, 3))
    maps = backbone(keras.layers.Rescaling(1 / 255, name="rescale")(images))
    x = keras.layers.Flatten()(maps[-1])
    points = keras.layers.Dense(2 * JOINTS, name="regressor")(x)
    points = keras.layers.Reshape((JOINTS, 2))(points)
    return keras.Model(images, {"keypoints": points} | layers.extra_outputs(x, JOINTS, names))


def _batch():
    return {name: value[:BATCH] for name, value in make_data().items()}


@pytest.mark.parametrize("path", ["backbone/second", "regressor"])
def test_a_layer_is_named_inside_a_backbone_and_after_it(path):
    regressor = make_regressor(network=_network)
    layer = regressor.network
    for name in path.split("/"):
        layer = layer.get_layer(name)
    layer.kernel.assign(np.full(layer.kernel.shape, 3e38, np.float32))
    name = path.split("/")[-1]
    assert nonfinite.explain(regressor, _batch()).startswith(f"the output of layer {name} (")


def test_what_a_teacher_found_and_the_loss_own_weights_count_too():
    with devices.make_strategy().scope():
        loss = losses.RLELoss(layers=2, units=4)
    regressor = make_regressor(network=lambda: _network(loss.outputs), loss=loss)
    batch = _batch()
    batch["taught"] = batch["keypoints"].copy()
    batch["taught"][3, 0] = [np.nan, 0, 1]
    assert nonfinite.explain(regressor, batch) == "taught of sample 3 of the batch"
    batch["taught"][3, 0] = [1e30, 0, 1]
    flow = loss.trainable_variables[0]
    value = flow.numpy()
    flow.assign(np.full_like(value, np.nan))
    assert nonfinite.explain(regressor, _batch()) == f"weight {flow.path}"
    flow.assign(value)
    assert "the cause does not show when the batch is run again" in nonfinite.explain(regressor, _batch())
