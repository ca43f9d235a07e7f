"""Learning-rate schedules: comparison with closed forms, bad values."""

import keras
import numpy as np
import pytest

from kpose import config as config_lib
from kpose.core.errors import InputError
from kpose.train import optimizers

STEPS = 200


def rates(**fields):
    schedule = config_lib.default().schedule
    schedule.update(fields)
    rate = optimizers.build_schedule(schedule, 0.4, STEPS)
    if isinstance(rate, float):
        return np.full(STEPS, rate)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(rate))
    values = np.array([float(rate(step)) for step in range(STEPS)])
    np.testing.assert_array_equal([float(again(step)) for step in range(0, STEPS, 50)], values[::50])
    return values


def test_constant_is_constant():
    assert (rates(name="constant") == 0.4).all()


@pytest.mark.parametrize("name", optimizers.SCHEDULES)
def test_warm_up_is_linear_and_ends_at_the_peak(name):
    values = rates(name=name, warmup_steps=20)
    np.testing.assert_allclose(values[:20], 0.4 * np.arange(1, 21) / 20, rtol=0.02)
    assert values.max() == pytest.approx(0.4, rel=1e-6)


def test_step_falls_at_its_milestones():
    values = rates(name="step", milestones=(0.5, 0.75), factor=0.1)
    np.testing.assert_allclose(values[[0, 99, 100, 149, 150, 199]], [0.4, 0.4, 0.04, 0.04, 0.004, 0.004], rtol=1e-5)


def test_cosine_is_half_a_cosine():
    np.testing.assert_allclose(
        rates(name="cosine"), 0.2 * (1 + np.cos(np.pi * np.arange(STEPS) / STEPS)), rtol=1e-4, atol=1e-6
    )


def test_flat_cosine_is_flat_and_then_a_cosine():
    values = rates(name="flat_cosine", flat=0.5)
    np.testing.assert_allclose(values[:101], 0.4, rtol=1e-6)
    np.testing.assert_allclose(values[150], 0.2, rtol=1e-5)
    assert values[-1] < 0.001


@pytest.mark.parametrize("milestones", [(), (0.9, 0.5), (0.5, 0.5), (1.5,), (30, 60)])
def test_bad_milestones_are_refused(milestones):
    config = config_lib.default()
    config.schedule.name, config.schedule.milestones = "step", milestones
    with pytest.raises(InputError, match="milestones"):
        config_lib.check(config)


def test_the_optimisers_are_those_named():
    config = config_lib.default()
    config.optimizer.momentum, config.optimizer.weight_decay = 0.9, 0.01
    sgd = optimizers.build(config.optimizer, config.schedule, STEPS)
    assert isinstance(sgd, keras.optimizers.SGD) and (sgd.momentum, sgd.weight_decay) == (0.9, 0.01)
    config.optimizer.name = "adamw"
    adamw = optimizers.build(config.optimizer, config.schedule, STEPS)
    assert isinstance(adamw, keras.optimizers.AdamW) and adamw.weight_decay == 0.01


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_factor_multiplies_the_rate_of_the_layers_of_joints_only(name):
    """AdamW's first step is the rate in size, whatever the gradient; SGD's is the rate times the gradient."""
    config = config_lib.default()
    config.optimizer.name, config.optimizer.learning_rate, config.optimizer.joints_factor = name, 0.01, 7.0
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(3, name="fc1")(inputs)
    network = keras.Model(inputs, keras.layers.Dense(2, name="regressor")(hidden))
    optimizer = optimizers.build(config.optimizer, config.schedule, STEPS)
    optimizer.build(network.trainable_variables)
    before = network.get_weights()
    optimizer.apply([np.full(v.shape, 0.5, np.float32) for v in network.trainable_variables])
    steps = [np.abs(new - old) for new, old in zip(network.get_weights(), before, strict=True)]
    one = 0.01 * (0.5 if name == "sgd" else 1.0)
    for step, factor in zip(steps, (1, 1, 7, 7), strict=True):
        np.testing.assert_allclose(step, factor * one, rtol=1e-3)
