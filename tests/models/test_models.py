"""The networks: published shapes, and shapes and ranges of their outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose import config as config_lib
from kpose import models
from kpose.core import devices
from kpose.core.errors import InputError
from kpose.models.deeppose import deeppose
from kpose.models.integral import integral
from kpose.models.layers import SoftArgmax


def test_deeppose_is_the_published_network():
    network = deeppose()
    shapes = {layer.name: tuple(layer.output.shape[1:]) for layer in network.layers}
    assert shapes["conv1"] == (56, 56, 96)
    assert [shapes[f"conv{i}"][-1] for i in range(1, 6)] == [96, 256, 384, 384, 256]
    assert [network.get_layer(f"conv{i}").kernel_size[0] for i in range(1, 6)] == [11, 5, 3, 3, 3]
    assert [network.get_layer(f"conv{i}").strides[0] for i in range(1, 6)] == [4, 1, 1, 1, 1]
    # Stride-1 convolutions keep the size; pools of 3 with stride 2 halve it.
    assert [shapes[f"pool{i}"][:2] for i in (1, 2, 5)] == [(27, 27), (13, 13), (6, 6)]
    assert (shapes["fc1"], shapes["fc2"], shapes["regressor"]) == ((4096,), (4096,), (34,))
    assert [network.get_layer(f"dropout{i}").rate for i in (1, 2)] == [0.6, 0.6]
    # Counted by hand: convolutions, BatchNorms (4 each), fully connected layers.
    filters, kernels, inputs = [96, 256, 384, 384, 256], [11, 5, 3, 3, 3], [3, 96, 256, 384, 384]
    convolutions = sum(k * k * i * f + f + 4 * f for f, k, i in zip(filters, kernels, inputs, strict=True))
    connected = (9216 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 34
    assert network.count_params() == convolutions + connected
    order = [layer.name for layer in network.layers]
    assert order.index("conv2") < order.index("batch_norm2") < order.index("pool2")


def test_the_published_loss_at_the_published_rate_runs_unclipped():
    """Eight persons, each counted eight times, are a batch of 64. "small" diverges in these steps."""
    config = config_lib.load_recipe("deeppose")
    assert (config.optimizer.clip_norm, config.schedule.warmup_steps) == (0.0, 0)
    norms, values = _published_steps(config.model.fc_init, config)
    assert max(norms) < 2 * norms[0]
    # The loss of the mean pose is 0.34.
    assert values[0] > 2 and max(values[-3:]) < values[0] / 2


def _published_steps(fc_init, config, persons=8, steps=6):
    """Gradient norms and losses of a person in the first training steps."""
    keras.utils.set_random_seed(0)
    network = deeppose(fc_init=fc_init)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (persons, 7, 7, 3)).repeat(32, 1).repeat(32, 2).astype(np.float32)
    points = rng.uniform(-0.45, 0.45, (17, 2)) + rng.normal(0, 0.1, (persons, 17, 2))
    variables = [v.value for v in network.trainable_variables]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            keypoints = network(images, training=True)["keypoints"]
            loss = tf.reduce_sum(tf.square(keypoints - points.astype(np.float32))) * config.batch_size / persons
        gradients = tape.gradient(loss, variables)
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(config.optimizer.learning_rate * gradient)
        return tf.linalg.global_norm(gradients), loss / config.batch_size

    return zip(*([float(value) for value in step()] for _ in range(steps)), strict=True)


def test_initial_weights_of_the_fully_connected_layers():
    for name in ("small", "lecun"):
        keras.utils.set_random_seed(0)
        network = deeppose((64, 64), filters=(4, 4, 4, 4, 16), first_stride=1, hidden=(300, 200), fc_init=name)
        for layer in ("fc1", "fc2", "regressor"):
            kernel, bias = network.get_layer(layer).get_weights()
            expected = 0.002 if name == "small" else len(kernel) ** -0.5
            assert kernel.std() == pytest.approx(expected, rel=0.05) and not bias.any()
        scales = [network.get_layer(f"batch_norm{i}").gamma.numpy() for i in range(1, 6)]
        assert all((scale == 1).all() for scale in scales[:4])
        np.testing.assert_allclose(scales[4], 1.0 if name == "small" else 0.01)


SMALL = {
    "deeppose": lambda **more: deeppose((64, 48), filters=(4, 4, 4, 4, 4), first_stride=2, hidden=(8,), **more),
    "integral": lambda **more: integral((64, 48), filters=(4, 6, 8), head_filters=4, **more),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_outputs_are_normalised_float32_keypoints_in_any_precision(name, precision):
    with devices.dtype_policy(precision):
        network = SMALL[name](outputs=("scale", "visibility"))
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 48, 3)).astype(np.float32)
    answer = network(images)
    assert {name: tuple(value.shape) for name, value in answer.items()} == {
        "keypoints": (3, 17, 2),
        "scale": (3, 17, 2),
        "visibility": (3, 17),
    }
    assert all(value.dtype == "float32" and np.isfinite(value).all() for value in answer.values())
    assert (np.asarray(answer["scale"]) > 0).all() and (np.asarray(answer["scale"]) < 1).all()


def test_the_published_visibility_network_has_51_outputs():
    assert deeppose(outputs=("visibility",)).get_layer("regressor").units == 51


@pytest.mark.parametrize("name", SMALL)
def test_networks_save_and_load_without_custom_objects(name, tmp_path):
    network = SMALL[name](outputs=("scale", "visibility"))
    path = str(tmp_path / "network.keras")
    network.save(path)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3)).astype(np.float32)
    again = keras.models.load_model(path)
    for output, value in network(images).items():
        np.testing.assert_array_equal(again(images)[output], value, err_msg=output)


def test_soft_argmax_finds_a_sharp_peak_and_the_centre_of_a_flat_map():
    maps = np.zeros((1, 4, 8, 2), np.float32)
    maps[0, 3, 1, 0] = 50
    points = np.asarray(SoftArgmax()(maps))[0]
    # Centres of the cells: column 1 of 8, row 3 of 4.
    np.testing.assert_allclose(points[0], [1.5 / 8 - 0.5, 3.5 / 4 - 0.5], atol=1e-5)
    np.testing.assert_allclose(points[1], [0, 0], atol=1e-6)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": "resnet99"}, "resnet99.*deeppose, integral"),
        ({"input_size": (40, 40)}, "57 pixels"),
        ({"filters": (96, 256)}, "5 positive integers"),
        ({"name": "integral", "filters": (8, 8), "input_size": (66, 64)}, "multiples of 4"),
        ({"name": "integral", "filters": (8, 8), "head_level": 2}, "levels 0 to 1"),
    ],
)
def test_impossible_networks_are_refused_before_anything_is_built(changes, message):
    config = config_lib.default().model
    config.update(changes)
    with pytest.raises(InputError, match=message):
        models.check(config)
