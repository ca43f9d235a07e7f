"""Forms of convolutions and pools for XLA: the results and gradients of TensorFlow's own operations."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.models import deeppose, layers, movenet, xla_operations

WINDOWS = st.fixed_dictionaries(
    {
        "height": st.integers(5, 20),
        "width": st.integers(5, 20),
        "size": st.integers(1, 5),
        "stride": st.integers(1, 4),
        "padding": st.sampled_from(["same", "valid"]),
    }
)


def _with_gradients(operation, inputs):
    """Outputs, and gradients of their sum with fixed weights."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = operation(*inputs)
        weights = tf.cos(tf.reshape(tf.range(tf.size(outputs), dtype=tf.float32), tf.shape(outputs)))
        total = tf.reduce_sum(outputs * weights)
    return [outputs, *tape.gradient(total, inputs)]


def _compare(form, own, *inputs):
    inputs = [tf.constant(values, tf.float32) for values in inputs]
    for found, wanted in zip(_with_gradients(form, inputs), _with_gradients(own, inputs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@settings(max_examples=40, deadline=None)
@given(WINDOWS, st.booleans())
def test_depthwise_convolutions(case, for_cpu):
    rng, size, stride = np.random.default_rng(0), case["size"], case["stride"]

    def form(inputs, kernel):
        with xla_operations.tracing(for_cpu):
            return xla_operations.depthwise(inputs, kernel, stride, case["padding"])

    _compare(
        form,
        lambda x, k: tf.nn.depthwise_conv2d(x, k, [1, stride, stride, 1], case["padding"].upper()),
        rng.normal(size=(2, case["height"], case["width"], 3)),
        rng.normal(size=(size, size, 3, 1)),
    )


@settings(max_examples=40, deadline=None)
@given(WINDOWS, st.integers(1, 5))
def test_convolutions_of_images(case, width_of_kernel):
    rng, stride = np.random.default_rng(0), case["stride"]
    images = rng.normal(size=(2, case["height"], case["width"], 3))
    kernel = rng.normal(size=(case["size"], width_of_kernel, 3, 4))
    if xla_operations.convolution(tf.constant(images), tf.constant(kernel), stride, case["padding"]) is None:
        one = case["size"] == width_of_kernel == 1
        assert (stride == 1 and not one) or min(case["size"], width_of_kernel) < stride
        return
    _compare(
        lambda x, k: xla_operations.convolution(x, k, stride, case["padding"]),
        lambda x, k: tf.nn.conv2d(x, k, stride, case["padding"].upper()),
        images,
        kernel,
    )


@settings(max_examples=40, deadline=None)
@given(WINDOWS, st.booleans())
def test_pools_with_equal_maxima(case, rectified):
    """Of equal values the first gets the gradient, as in TensorFlow. After a ReLU many are equal."""
    values = np.random.default_rng(0).normal(size=(2, case["height"], case["width"], 3))
    _compare(
        lambda x: xla_operations.max_pool(x, case["size"], case["stride"], case["padding"]),
        lambda x: tf.nn.max_pool2d(x, case["size"], case["stride"], case["padding"].upper()),
        np.maximum(values, 0) if rectified else values,
    )


def test_a_pool_keeps_values_that_are_not_numbers():
    """Otherwise a step with such a value would not be noticed."""
    values = np.zeros((1, 4, 4, 1), np.float32)
    values[0, 1, 1] = np.nan
    pooled = xla_operations.max_pool(tf.constant(values), 2, 2, "valid")
    np.testing.assert_array_equal(np.isnan(pooled)[0, ..., 0], [[True, False], [False, False]])


def _program(function, shape, for_cpu=False):
    """The program that XLA gets for a function of images."""

    @tf.function(jit_compile=True, autograph=False)
    def traced(images):
        with xla_operations.tracing(for_cpu):
            return function(images)

    return traced.experimental_get_compiler_ir(tf.zeros(shape))(stage="hlo")


@pytest.mark.parametrize(
    "ours, plain, word",
    [
        (layers.DepthwiseConv2D(3), keras.layers.DepthwiseConv2D(3), "convolution("),
        (layers.Conv2D(4, 1), keras.layers.Conv2D(4, 1), "convolution("),
        (layers.MaxPooling2D(3, 2), keras.layers.MaxPooling2D(3, 2), "reduce-window("),
    ],
)
def test_xla_gets_the_form_of_the_layer(ours, plain, word):
    shape = (2, 9, 9, 8)
    assert word in _program(plain, shape)
    assert word not in _program(ours, shape)


@pytest.mark.parametrize("for_cpu, sums", [(True, 9), (False, 1)])
def test_the_kernel_of_a_depthwise_convolution_has_sums_for_the_device(for_cpu, sums):
    kernel = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 8, 1)), tf.float32)

    def gradient(images):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            outputs = xla_operations.depthwise(images, kernel, 1, "same")
        return tape.gradient(outputs, kernel)

    program = _program(gradient, (2, 9, 9, 8), for_cpu)
    assert program.count(" reduce(") == sums


@pytest.mark.parametrize("for_cpu", [True, False])
@pytest.mark.parametrize(
    "make, limit",
    [
        (lambda: deeppose.deeppose((64, 64), filters=(8, 8, 8, 8, 8), hidden=(16,), dropout=0.0), 1e-4),
        (lambda: movenet.movenet((64, 64)), 1e-4),
        # At stride 32, BatchNorm has the statistics of eight cells, which enlarges differences in rounding.
        (lambda: movenet.movenet((64, 64), batch_norm=True), 0.02),
    ],
    ids=["deeppose", "movenet", "movenet_batch_norm"],
)
def test_a_network_computes_the_same_in_these_forms(make, limit, for_cpu):
    """Without compilation, which only orders the additions in another way."""
    keras.utils.set_random_seed(0)
    network = make()
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)), tf.float32)
    variables = [v.value for v in network.trainable_variables]
    state = [tf.convert_to_tensor(v.value) for v in network.non_trainable_variables]

    def run():
        trainable = [tf.convert_to_tensor(v) for v in variables]
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            outputs, _ = network.stateless_call(trainable, state, images, training=True)
            loss = tf.reduce_sum(tf.square(outputs["keypoints"] - 0.1))
        gradients = tape.gradient(loss, trainable, unconnected_gradients="zero")
        return outputs["keypoints"], tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)

    own = run()
    with xla_operations.tracing(for_cpu):
        forms = run()
    for found, wanted in zip(forms, own, strict=True):
        assert np.linalg.norm(found - wanted) < limit * np.linalg.norm(wanted)
