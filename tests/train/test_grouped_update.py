"""Tests of updates of many variables together, against the optimisers of Keras and NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kpose import config as config_lib
from kpose.train import grouped_update, optimizers

# The first is large enough to be updated alone.
SHAPES = [(300, 300), (3, 3, 4, 5), (5,), (7,), ()]
ARITHMETIC = {"Mul", "AddV2", "Sub", "Sqrt", "Square", "RealDiv", "Neg"}


def _variables(rng):
    # "regressor" is one of the layers whose rate `joints_factor` changes.
    names = ["a", "b", "regressor", "d", "e"]
    found = []
    for name, shape in zip(names, SHAPES, strict=True):
        with keras.name_scope(name):
            found.append(keras.Variable(rng.normal(size=shape).astype("float32"), name="kernel"))
    return found


def _of_keras(name, rate, decay):
    if name == "sgd":
        return keras.optimizers.SGD(rate, momentum=0.9, weight_decay=decay or None)
    return keras.optimizers.AdamW(rate, weight_decay=decay)


def _ours(name, rate, decay, joints_factor=1.0, momentum=0.9):
    config = config_lib.default()
    config.optimizer.name, config.optimizer.learning_rate = name, rate
    config.optimizer.momentum, config.optimizer.weight_decay = momentum, decay
    config.optimizer.joints_factor = joints_factor
    config.schedule.name, config.schedule.warmup_steps = "constant", 0
    return optimizers.build(config.optimizer, config.schedule, 10)


def _trained(optimizer, replicas, frozen=()):
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(replicas)])
    with strategy.scope():
        variables = _variables(np.random.default_rng(0))
        built = optimizer()
        built.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])
        built.build(variables)
    gradients = np.random.default_rng(1)

    @tf.function(autograph=False)
    def step(values):
        used = [(g, v) for i, (g, v) in enumerate(zip(values, variables, strict=True)) if i not in frozen]
        built.apply([g for g, _ in used], [v for _, v in used])

    for _ in range(4):
        step([tf.constant(gradients.normal(size=shape), tf.float32) for shape in SHAPES])
    copies = [strategy.experimental_local_results(v.value) for v in variables]
    return [np.array(copy) for values in copies for copy in values], [np.array(v) for v in built.variables]


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("name, decay", [("sgd", 0.0), ("sgd", 0.1), ("adamw", 0.1)])
def test_the_steps_are_those_of_keras(name, decay, replicas):
    ours, slots = _trained(lambda: _ours(name, 0.01, decay), replicas)
    theirs, their_slots = _trained(lambda: _of_keras(name, 0.01, decay), 1)
    for index, value in enumerate(ours):
        np.testing.assert_allclose(value, theirs[index // replicas], rtol=2e-5, atol=2e-6)
    assert len(slots) == len(their_slots), "checkpoints hold the same variables"
    for value, expected in zip(slots, their_slots, strict=True):
        np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_frozen_variables_stay_and_the_others_move_as_before(name):
    all_of_them, _ = _trained(lambda: _ours(name, 0.01, 0.0), 1)
    some, _ = _trained(lambda: _ours(name, 0.01, 0.0), 1, frozen=(0, 2))
    start = [np.array(v) for v in _variables(np.random.default_rng(0))]
    for index, value in enumerate(some):
        np.testing.assert_array_equal(value, (start if index in (0, 2) else all_of_them)[index])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_rate_of_the_last_layers_has_its_factor(name):
    start = [np.array(v) for v in _variables(np.random.default_rng(0))]
    plain, _ = _trained(lambda: _ours(name, 0.01, 0.0), 1)
    tenfold, _ = _trained(lambda: _ours(name, 0.01, 0.0, joints_factor=10.0), 1)
    for index, (before, once, ten) in enumerate(zip(start, plain, tenfold, strict=True)):
        factor = 10.0 if index == 2 else 1.0
        np.testing.assert_allclose(ten - before, factor * (once - before), rtol=1e-3, atol=1e-6)


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400), st.booleans()), min_size=1, max_size=12))
def test_each_variable_is_in_one_group_of_one_key(drawn):
    shapes, keys = [(a, b) for a, b, _ in drawn], [key for *_, key in drawn]
    groups = grouped_update.groups_of(shapes, keys)
    assert sorted(index for group in groups for index in group) == list(range(len(drawn)))
    for group in groups:
        assert len({keys[index] for index in group}) == 1
        assert len(group) == 1 or max(np.prod(shapes[index]) for index in group) < 2**16


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_many_small_variables_need_few_operations(optimizer):
    """An operation more for each variable is what a GPU waits for."""

    def operations(number):
        variables = [keras.Variable(np.ones(4, "float32")) for _ in range(number)]
        built = _ours(optimizer, 0.01, 0.1)
        built.build(variables)
        step = tf.function(lambda *gradients: built.apply(list(gradients), variables), autograph=False)
        graph = step.get_concrete_function(*[tf.TensorSpec([4]) for _ in range(number)]).graph
        return sum(operation.type in ARITHMETIC for operation in graph.get_operations())

    assert operations(40) == operations(2)


@pytest.mark.parametrize("optimizer, momentum, decay, most", [("sgd", 0.0, 0.0, 1), ("sgd", 0.9, 0.1, 5)])
def test_a_large_variable_is_passed_through_few_times(optimizer, momentum, decay, most):
    """Each operation reads and writes as much memory as the variable has. The last one adds in place."""
    variable = keras.Variable(np.ones((300, 300), "float32"))
    built = _ours(optimizer, 0.01, decay, momentum=momentum)
    built.build([variable])
    step = tf.function(lambda gradient: built.apply([gradient], [variable]), autograph=False)
    graph = step.get_concrete_function(tf.TensorSpec(variable.shape)).graph
    passes = [o for o in graph.get_operations() if o.type in ARITHMETIC and o.outputs[0].shape == variable.shape]
    assert len(passes) <= most
