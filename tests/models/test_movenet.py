"""MoveNet: weights from a graph model, selection of joints, gradients."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose import config as config_lib
from kpose import models
from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.models import layers
from kpose.models.folding import fold_batch_norm
from kpose.models.movenet import GuidedExpectation, measure_batch_norm, movenet
from kpose.models.weights import movenet_tfjs

# Names of the layers in the published graph.
NODES = {"Conv_1": "model_1/model/out_relu/Relu6", "lateral_top": "model_1/conv2d/BiasAdd"}
NODES |= {f"lateral_{b}": f"model_1/conv2d_{i}/BiasAdd" for i, b in ((1, 9), (2, 5), (3, 2))}


def _node(layer):
    name = layer.name
    head, _, part = name.rpartition("_")
    if name in NODES:
        return NODES[name]
    if name.startswith("pyramid_"):
        level = f"_{name[8]}" if name[8] != "0" else ""
        return f"model_1/separable_conv2d{level}/depthwise" if part == "depthwise" else f"model_1/re_lu{level}/Relu"
    kinds = {kind: f"kpt_{kind}" for kind in ("heatmap", "regress", "center", "offset")}
    for kind, published in (kinds | {"box_size": "box_scale", "box_offset": "box_offset"}).items():
        if name == kind:
            return f"{published}_0/conv2d_5/BiasAdd"
        if head == kind:
            return f"{published}_0/{'separable_conv2d_4/depthwise' if part == 'depthwise' else 're_lu_4/Relu'}"
    end = {"depthwise": "/depthwise", "project": "_BN/FusedBatchNormV3"}.get(part, "_relu/Relu6")
    return f"model_1/model/{name}{end}"


def graph_model(network, folder, cut=0):
    """A graph model with the network's convolutions in float16; path of its JSON file."""
    nodes, weights, content = [], [], b""
    for layer in network.layers:
        if "Conv2D" in type(layer).__name__:
            names = [f"{layer.name}/{i}" for i in range(len(layer.weights))]
            nodes.append({"name": f"Call/{_node(layer)}", "op": "_FusedConv2D", "input": ["x", *names]})
            if type(layer).__name__ == "DepthwiseConv2D":
                nodes[-1]["op"] = "FusedDepthwiseConv2dNative"
            for name, value in zip(names, layer.get_weights(), strict=True):
                stored = {"dtype": "float16", "original_dtype": "float32"}
                weights.append({"name": name, "shape": value.shape, "dtype": "float32", "quantization": stored})
                content += value.astype(np.float16).tobytes()
    (folder / "model.bin").write_bytes(content[: len(content) - cut])
    manifest = [{"paths": ["model.bin"], "weights": weights}]
    path = folder / "model.json"
    path.write_text(json.dumps({"modelTopology": {"node": nodes}, "weightsManifest": manifest}))
    return str(path)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(1)
    return movenet((64, 64), width=0.25)


def test_weights_come_from_agraph_model(network, tmp_path):
    path = graph_model(network, tmp_path)
    config = config_lib.load_recipe("movenet").model
    config.input_size, config.width, config.weights = (64, 64), 0.25, path
    other = models.build(config, skeletons.COCO)
    models.load_weights(other, config)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    expected, found = network(images), other(images)
    np.testing.assert_allclose(found["keypoints"], expected["keypoints"], atol=2e-3)
    assert found["keypoints"].shape == (2, 17, 2) and found["visibility"].shape == (2, 17)
    assert 0 <= np.min(found["visibility"]) and np.max(found["visibility"]) <= 1


def test_other_or_damaged_weights_are_refused(network, tmp_path):
    path = graph_model(network, tmp_path, cut=100)
    with pytest.raises(InputError, match="are incomplete"):
        movenet_tfjs.assign(network, path)
    path = graph_model(movenet((64, 64), width=0.5), tmp_path)
    with pytest.raises(InputError, match="the weights do not fit the network: .* has shapes"):
        movenet_tfjs.assign(network, path)
    with pytest.raises(InputError, match="none.json: No such file"):
        movenet_tfjs.assign(network, str(tmp_path / "none.json"))
    (tmp_path / "text.json").write_text("{}")
    with pytest.raises(InputError, match="not a TensorFlow.js graph model"):
        movenet_tfjs.assign(network, str(tmp_path / "text.json"))


def test_joints_are_where_movenet_s_rule_finds_them():
    """With sharp maps the expectation is the argmax of MoveNet, for the person in the middle."""
    height, width, joints = 16, 12, 2
    rng = np.random.default_rng(3)
    heatmap, center = (rng.normal(-6, 0.5, (1, height, width, n)) for n in (joints, 1))
    regress, offset = (rng.normal(0, 0.3, (1, height, width, 2 * joints)) for _ in range(2))
    center[0, 8, 6], center[0, 1, 1] = 1.0, 1.5
    for joint, (row, column) in enumerate([(3, 4), (12, 9)]):
        regress[0, 8, 6, 2 * joint : 2 * joint + 2] = row - 8, column - 6
        heatmap[0, row, column, joint] = 1.0
        heatmap[0, 15 - row, 11 - column, joint] = 1.3
    layer = GuidedExpectation()
    maps = [tf.constant(m, tf.float32) for m in (heatmap, regress, center, offset)]
    layer.build([m.shape for m in maps])
    layer.set_weights([np.full(joints, 40.0), np.float32(40.0)])
    found = layer(maps).numpy()[0]
    for joint, (row, column) in enumerate([(3, 4), (12, 9)]):
        down, right = offset[0, row, column, 2 * joint : 2 * joint + 2]
        expected = [(column + right) / width - 0.5, (row + down) / height - 0.5, 1 / (1 + np.exp(-1))]
        np.testing.assert_allclose(found[joint], expected, atol=2e-3)


def test_every_map_is_trained(network):
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(network(images, training=True)["keypoints"] - 0.2))
    for variable, gradient in zip(
        network.trainable_variables, tape.gradient(loss, network.trainable_variables), strict=True
    ):
        assert gradient is not None and np.isfinite(gradient).all(), variable.path


def test_an_added_batch_norm_leaves_the_network_as_it_is_until_it_is_trained(network):
    """In inference and, on the images that it measured, in training; folded, it is the network again."""
    images = np.random.default_rng(0).uniform(0, 255, (8, 64, 64, 3)).astype(np.float32)
    normalised = movenet((64, 64), width=0.25, batch_norm=True)
    for layer in network.layers:
        if layer.weights:
            normalised.get_layer(layer.name).set_weights(layer.get_weights())
    measure_batch_norm(normalised, [images[:4], images[4:]])
    expected = network(images)["keypoints"]
    np.testing.assert_allclose(normalised(images)["keypoints"], expected, atol=2e-5)
    np.testing.assert_allclose(normalised(images, training=True)["keypoints"], expected, atol=2e-3)
    folded = fold_batch_norm(normalised)
    np.testing.assert_allclose(folded(images)["keypoints"], expected, atol=2e-5)
    assert [w.shape for w in folded.weights] == [w.shape for w in network.weights]
    # What was trained since is not measured again.
    norm = normalised.get_layer("Conv_1_norm")
    norm.set_weights([w + 1 for w in norm.get_weights()])
    before = norm.get_weights()
    measure_batch_norm(normalised, [images])
    np.testing.assert_array_equal(np.concatenate(norm.get_weights()), np.concatenate(before))


def test_a_bias_before_batch_norm_changes_nothing_in_training_and_has_no_gradient(monkeypatch):
    """The other gradients are those of the layers of Keras."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (4, 64, 64, 3)).astype(np.float32)
    network = movenet((64, 64), width=0.25, batch_norm=True)
    names = {layer.name for layer in network.layers}
    before_norm = [v for v in network.trainable_variables if f"{v.path.split('/')[0]}_norm" in names]
    biases = [v for v in before_norm if v.path.endswith("bias")]
    others = [v for v in network.trainable_variables if not any(v is bias for bias in biases)]
    assert len(before_norm) == 2 * len(biases) > 100

    def found():
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_sum(tf.square(network(images, training=True)["keypoints"] - 0.2))
        return loss, tape.gradient(loss, others), tape.gradient(loss, biases)

    with monkeypatch.context() as patch:
        patch.setattr(layers.Conv2DBeforeNorm, "call", keras.layers.Conv2D.call)
        patch.setattr(layers.DepthwiseConv2DBeforeNorm, "call", keras.layers.DepthwiseConv2D.call)
        expected_loss, expected, of_biases = found()
    largest = max(float(tf.reduce_max(tf.abs(g))) for g in expected)
    assert all(float(tf.reduce_max(tf.abs(g))) < 1e-4 * largest for g in of_biases)
    loss, gradients, nothing = found()
    assert nothing == [None] * len(biases)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    for gradient, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-4, atol=1e-6 * largest)
    for bias in biases:
        bias.assign(bias + rng.normal(0, 0.5, bias.shape))
    np.testing.assert_allclose(found()[0], loss, rtol=1e-3)
