"""The training engine: equal results for any number of replicas, compilation and execution length."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose import config as config_lib
from kpose.core import devices, skeletons
from kpose.metrics import keras_metrics, tables
from kpose.models import decoding, layers, xla_operations
from kpose.models.layers import BatchNormalization
from kpose.train import losses, optimizers, setup
from kpose.train.regressor import Regressor

JOINTS = skeletons.COCO.num_joints
SIDE = 12
SAMPLES = 48
BATCH = 16


def make_data(seed=0):
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(-0.5, 0.5, (SAMPLES, JOINTS, 3)).astype(np.float32)
    keypoints[..., 2] = rng.integers(0, 3, (SAMPLES, JOINTS))
    keypoints[..., :2] *= keypoints[..., 2:] > 0
    return {
        "image": rng.integers(0, 256, (SAMPLES, SIDE, SIDE, 3), np.uint8),
        "keypoints": keypoints,
        "region": rng.uniform(20, 200, (SAMPLES, 4)).astype(np.float32),
        "weight": np.ones(SAMPLES, np.float32),
    }


def batches(data, batch=BATCH):
    return tf.data.Dataset.from_tensor_slices(data).batch(batch, drop_remainder=True)


def make_network(batch_norm=True, dropout=0.0, filters=6, names=(), synchronized=True):
    images = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(images)
    x = keras.layers.Conv2D(filters, 3, strides=2, activation="relu")(x)
    if batch_norm:
        x = BatchNormalization(momentum=0.9, synchronized=synchronized)(x)
    x = keras.layers.Flatten()(x)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    points = keras.layers.Dense(2 * JOINTS, dtype="float32")(x)
    points = keras.layers.Reshape((JOINTS, 2), dtype="float32")(points)
    return keras.Model(images, {"keypoints": points} | layers.extra_outputs(x, JOINTS, names))


def make_regressor(
    replicas=1,
    xla=False,
    steps_per_execution=1,
    precision="float32",
    network=None,
    loss=None,
    optimizer=None,
    **options,
):
    keras.utils.set_random_seed(1)
    with devices.make_strategy(replicas).scope(), devices.dtype_policy(precision):
        regressor = Regressor(
            network() if network else make_network(batch_norm=not xla),
            loss or losses.L2Loss(),
            pixel_metrics=[
                keras_metrics.PCP("coco", "strict"),
                keras_metrics.PCP("coco", "mean"),
                keras_metrics.PDJ("coco", 0.2),
            ],
            crop_metrics=[keras_metrics.SpreadRatio(JOINTS)],
            xla=xla,
            **options,
        )
        regressor.compile(optimizer() if optimizer else keras.optimizers.SGD(1e-3, momentum=0.9), steps_per_execution)
    return regressor


def train(regressor, data, steps=6, steps_per_epoch=3, start_step=0, validation=True, **options):
    dataset = batches(data).repeat().skip(start_step)
    history = regressor.fit(
        dataset,
        steps_per_epoch=steps_per_epoch,
        total_steps=steps,
        start_step=start_step,
        validation_data=batches(data) if validation else None,
        verbose=0,
        **options,
    )
    return history.history


def weights(regressor):
    """One vector of all weights and BatchNorm statistics."""
    variables = regressor.network.variables
    return np.concatenate([np.ravel(v.numpy()) for v in variables if "float" in str(v.dtype)])


@pytest.mark.parametrize("replicas, xla, steps_per_execution", [(2, False, 4), (2, True, 1)])
@pytest.mark.slow
def test_replicas_xla_and_executions_do_not_change_adamw(replicas, xla, steps_per_execution):
    """test_matrix.py has the same test with SGD, and all combinations."""

    def run(*cell):
        # A compiled replica cannot synchronise BatchNorm with the others.
        regressor = make_regressor(
            *cell,
            optimizer=lambda: keras.optimizers.AdamW(1e-3),
            network=lambda: make_network(batch_norm=not xla),
        )
        return regressor, train(regressor, make_data())

    reference, reference_history = run(1, False, 1)
    regressor, history = run(replicas, xla, steps_per_execution)
    # Six digits, because the order of additions differs.
    np.testing.assert_allclose(weights(regressor), weights(reference), rtol=2e-4, atol=2e-6)
    for name, values in history.items():
        np.testing.assert_allclose(values, reference_history[name], rtol=1e-3, err_msg=name)


@pytest.mark.slow
def test_networks_of_other_shapes_train_one_after_the_other():
    for filters in (6, 5):
        regressor = make_regressor(2, network=lambda filters=filters: make_network(filters=filters))
        history = train(regressor, make_data(), steps=2, steps_per_epoch=1)
        assert history["loss"][1] < history["loss"][0]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_every_loss_trains_alike_compiled_and_on_two_replicas(name):
    def run(replicas, xla, precision="float32"):
        config = config_lib.default().loss
        config.name, config.flow_units = name, 8
        keras.utils.set_random_seed(2)
        with devices.make_strategy(replicas).scope():
            loss = losses.build(config)
        regressor = make_regressor(
            replicas,
            xla,
            precision=precision,
            loss=loss,
            network=lambda: make_network(batch_norm=False, names=loss.outputs),
            optimizer=lambda: keras.optimizers.SGD(1e-4 if loss.reduction == "sum" else 1e-3),
        )
        before = [v.numpy() for v in loss.trainable_variables]
        history = train(regressor, make_data(), steps=4, steps_per_epoch=2)
        moved = [not np.array_equal(a, v) for a, v in zip(before, loss.trainable_variables, strict=True)]
        assert all(moved), "the flow is trained too"
        assert history["loss"][1] < history["loss"][0]
        return weights(regressor), history["val_loss"]

    expected, expected_loss = run(1, False)
    for cell in ((1, True), (2, False)):
        found, found_loss = run(*cell)
        np.testing.assert_allclose(found, expected, rtol=5e-4, atol=5e-6)
        np.testing.assert_allclose(found_loss, expected_loss, rtol=1e-3)
    _, found_loss = run(2, True, precision="mixed_bfloat16")
    np.testing.assert_allclose(found_loss, expected_loss, rtol=0.05)


@pytest.mark.parametrize("replicas", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_evaluation_uses_the_moving_average_of_the_weights(replicas):
    data = make_data()
    regressor = make_regressor(replicas, ema=0.5, network=lambda: make_network(batch_norm=False))
    expected = [v.numpy() for v in regressor.network.trainable_variables]
    for step in range(1, 4):
        train(regressor, data, steps=step, steps_per_epoch=1, start_step=step - 1, validation=False)
        decay = min(0.5, (1 + step) / (10 + step))
        now = [v.numpy() for v in regressor.network.trainable_variables]
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, now, strict=True)]
    for average, value in zip(regressor.averages, expected, strict=True):
        np.testing.assert_allclose(average.numpy(), value, rtol=1e-5, atol=1e-7)
    averaged = make_network(batch_norm=False)
    averaged.set_weights(expected)
    images = data["image"].astype(np.float32)
    np.testing.assert_allclose(
        regressor.predict_crops(data["image"])["keypoints"], averaged(images)["keypoints"], rtol=1e-4, atol=1e-5
    )
    error = np.square(averaged(images)["keypoints"] - data["keypoints"][..., :2]).sum(-1)
    loss = (error * (data["keypoints"][..., 2] > 0)).sum(-1).mean()
    logs = regressor.evaluate(batches(data), return_dict=True, verbose=0)
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-4)


@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, keras.optimizers.AdamW])
def test_weight_decay_is_not_of_norms_and_biases(optimizer):
    data = make_data()
    data["weight"][:] = 0
    regressor = make_regressor(optimizer=lambda: optimizer(0.1, weight_decay=0.5))
    before = [v.numpy() for v in regressor.network.trainable_variables]
    train(regressor, data, steps=1, steps_per_epoch=1, validation=False)
    for old, variable in zip(before, regressor.network.trainable_variables, strict=True):
        expected = old * (1 - 0.1 * 0.5) if len(old.shape) > 1 else old
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5, err_msg=variable.path)


def test_mixed_precision_keeps_its_weights_in_float32():
    for precision in ("mixed_bfloat16", "mixed_float16"):
        assert all(v.dtype == "float32" for v in make_regressor(precision=precision).network.trainable_variables)


def test_one_step_is_the_closed_form_of_gradient_descent():
    def linear():
        images = keras.Input((SIDE, SIDE, 3))
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255.0)(images))
        x = keras.layers.Dense(2 * JOINTS, name="dense")(x)
        return keras.Model(images, {"keypoints": keras.layers.Reshape((JOINTS, 2))(x)})

    data = make_data()
    regressor = make_regressor(network=linear, optimizer=lambda: keras.optimizers.SGD(1e-3), replicas=2)
    kernel, bias = (v.numpy().astype(np.float64) for v in regressor.network.trainable_variables)
    train(regressor, data, steps=1, steps_per_epoch=1, validation=False)

    x = data["image"][:BATCH].reshape(BATCH, -1) / 255.0
    mask = np.repeat(data["keypoints"][:BATCH, :, 2] > 0, 2, axis=1)
    error = (x @ kernel + bias - data["keypoints"][:BATCH, :, :2].reshape(BATCH, -1)) * mask
    # L = sum of squares over the batch, so dL/dW = 2 x^T e.
    expected = kernel - 1e-3 * 2 * x.T @ error, bias - 1e-3 * 2 * error.sum(0)
    for variable, value in zip(regressor.network.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-4, atol=1e-5)


def test_sum_and_mean_losses_differ_by_the_global_batch_on_any_number_of_replicas():
    data = make_data()

    def moved(reduction, learning_rate, replicas):
        regressor = make_regressor(
            replicas,
            loss=losses.L2Loss(reduction=reduction),
            optimizer=lambda: keras.optimizers.SGD(learning_rate),
            network=lambda: make_network(batch_norm=False),
        )
        train(regressor, data, steps=2, steps_per_epoch=2, validation=False)
        return weights(regressor)

    by_sum = moved("sum", 1e-4, replicas=1)
    for replicas in (1, 2):
        by_mean = moved("sum_over_batch_size", 1e-4 * BATCH, replicas)
        np.testing.assert_allclose(by_mean, by_sum, rtol=1e-4, atol=1e-6)


def test_xla_really_compiles():
    # XLA cannot compile a Python function, so only a compiled step fails.
    class Uncompilable(losses.L2Loss):
        def call(self, y_true, y_pred):
            value = super().call(y_true, y_pred)
            return tf.ensure_shape(tf.numpy_function(lambda v: v, [value], tf.float32), value.shape) + 0 * value

    data = make_data()
    plain = make_regressor(loss=Uncompilable(), network=lambda: make_network(batch_norm=False))
    assert np.isfinite(train(plain, data, steps=1, steps_per_epoch=1, validation=False)["loss"]).all()
    compiled = make_regressor(xla=True, loss=Uncompilable(), network=lambda: make_network(batch_norm=False))
    with pytest.raises(tf.errors.InvalidArgumentError, match="(?i)compil|XLA|unsupported"):
        train(compiled, data, steps=1, steps_per_epoch=1, validation=False)


def test_one_replica_is_one_program_except_on_a_divided_card(monkeypatch):
    class Uncompilable(keras_metrics.PDJ):
        def update_state(self, y_true, y_pred, *args, **kwargs):
            value = tf.ensure_shape(tf.numpy_function(lambda v: v, [y_pred], tf.float32), y_pred.shape)
            super().update_state(y_true, value, *args, **kwargs)

    def trained():
        regressor = make_regressor(xla=True)
        regressor.pixel_metrics.append(Uncompilable("coco", 0.1))
        return train(regressor, make_data(), steps=1, steps_per_epoch=1, validation=False)

    with pytest.raises(tf.errors.InvalidArgumentError, match="(?i)compil|XLA|unsupported"):
        trained()
    logical = tf.config.list_logical_devices
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: "ab" if kind == "GPU" else logical(kind))
    assert np.isfinite(trained()["loss"]).all()


@pytest.mark.parametrize("on_cpu", [True, False])
def test_xla_gets_the_forms_for_the_device(monkeypatch, on_cpu):
    tracing, found = xla_operations.tracing, set()

    def recorded(for_cpu):
        found.add(for_cpu)
        return tracing(for_cpu)

    monkeypatch.setattr(xla_operations, "tracing", recorded)
    monkeypatch.setattr(devices, "on_cpu", lambda strategy: on_cpu)
    network = functools.partial(make_network, batch_norm=False)
    train(make_regressor(xla=True, network=network), make_data(), steps=1, steps_per_epoch=1, validation=False)
    assert found == {on_cpu}


@pytest.mark.parametrize("replicas", [1, 2])
def test_metrics_count_each_sample_once_and_padding_never(replicas):
    data = make_data()
    data["weight"][-5:] = 0.0
    regressor = make_regressor(replicas)
    logs = regressor.evaluate(batches(data), return_dict=True, verbose=0)
    real = {name: value[:-5] for name, value in data.items()}
    prediction = regressor.network(real["image"].astype(np.float32))["keypoints"].numpy()

    labelled = real["keypoints"][..., 2] > 0
    errors = np.square(prediction - real["keypoints"][..., :2]).sum(-1) * labelled
    np.testing.assert_allclose(logs["loss"], errors.sum(-1).mean(), rtol=1e-4)
    truth, points = decoding.to_pixels(real, prediction)
    metric = keras_metrics.PCP("coco", "strict")
    metric.update_state(truth, points)
    np.testing.assert_allclose(logs["pcp_strict"], float(metric.result()), rtol=1e-5)
    offline = tables.pdj_table(np.asarray(truth), np.asarray(points), skeletons.COCO)["0.2"]
    np.testing.assert_allclose(logs["pdj_0.2"], offline, rtol=1e-5)
    assert "gradient_norm" not in logs


def test_float16_overflow_on_one_replica_skips_the_step_on_all():
    data = make_data()
    regressor = make_regressor(2, precision="mixed_float16", network=lambda: make_network(batch_norm=False))
    before = weights(regressor)
    overflowing = {name: value.copy() for name, value in data.items()}
    # Only in the second half of the first batch, which is on the second replica.
    overflowing["keypoints"][BATCH - 1, 0] = [1e6, 1e6, 2]
    scale = float(regressor.loss_scale.numpy())
    train(regressor, overflowing, steps=1, steps_per_epoch=1, validation=False)
    np.testing.assert_array_equal(weights(regressor), before)
    assert float(regressor.loss_scale.numpy()) == scale / 2
    assert int(regressor.optimizer.iterations.numpy()) == 0
    regressor.loss_scale.assign(8.0)
    train(regressor, data, steps=1, steps_per_epoch=1, validation=False)
    after = weights(regressor)
    assert np.isfinite(after).all() and not np.array_equal(after, before)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_loss_that_is_no_number_is_an_accident_and_no_overflow(precision):
    """In float16 a NaN label is not treated as gradient overflow, which would halve the scale."""
    data = make_data()
    data["keypoints"][BATCH, 0] = [np.nan, 0, 2]
    regressor = make_regressor(precision=precision, network=lambda: make_network(batch_norm=False))
    if precision == "mixed_float16":
        regressor.loss_scale.assign(64.0)
    scale = float(regressor.loss_scale.numpy())
    train(regressor, data, steps=3, steps_per_epoch=3, validation=False)
    assert (int(regressor.nonfinite_step.numpy()), int(regressor.skipped_steps.numpy())) == (1, 1)
    assert float(regressor.loss_scale.numpy()) == scale
    assert int(regressor.optimizer.iterations.numpy()) == 2 and np.isfinite(weights(regressor)).all()


@pytest.mark.parametrize("replicas, xla", [(1, False), (1, True), (2, False)])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_card_that_does_not_wait_for_the_gradients_trains_the_same(monkeypatch, optimizer, replicas, xla):
    """On a card the update masks a step that is not finite; on a CPU a condition skips it."""
    data = make_data()
    data["keypoints"][BATCH, 0] = [np.nan, 0, 2]
    make = {
        "sgd": lambda: optimizers.SGD(1e-3, momentum=0.9, weight_decay=0.1),
        "adamw": lambda: optimizers.AdamW(1e-3, weight_decay=0.1),
    }[optimizer]
    found = {}
    for waits in (True, False):
        monkeypatch.setattr(Regressor, "_waits", lambda self, waits=waits: waits)
        regressor = make_regressor(replicas, xla, optimizer=make, ema=0.9)
        history = train(regressor, data, steps=6, steps_per_epoch=3, validation=False)
        averages = np.concatenate([np.ravel(v.numpy()) for v in regressor.averages])
        slots = np.concatenate([np.ravel(v.numpy()) for v in regressor.optimizer.variables])
        found[waits] = weights(regressor), averages, slots, *history.values()
        assert int(regressor.skipped_steps.numpy()) == 2 and int(regressor.optimizer.iterations.numpy()) == 4
    for masked, skipped in zip(found[False], found[True], strict=True):
        assert np.isfinite(masked).all()
        np.testing.assert_allclose(masked, skipped, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("replicas", [1, 2])
def test_gradients_are_clipped_by_the_norm_of_the_reduced_gradient(replicas):
    data = make_data()
    regressor = make_regressor(
        replicas,
        optimizer=lambda: keras.optimizers.SGD(1.0),
        clip_norm=0.01,
        network=lambda: make_network(batch_norm=False),
    )
    before = weights(regressor)
    history = train(regressor, data, steps=1, steps_per_epoch=1, validation=False)
    assert history["gradient_norm"][0] > 1
    np.testing.assert_allclose(np.linalg.norm(weights(regressor) - before), 0.01, rtol=1e-3)


def test_dropout_masks_differ_between_replicas_and_steps():
    masks = []

    class Spy(losses.L2Loss):
        def call(self, y_true, y_pred):
            tf.py_function(lambda v: masks.append(v.numpy()), [y_pred["keypoints"]], [])
            return super().call(y_true, y_pred)

    def network():
        images = keras.Input((SIDE, SIDE, 3))
        x = keras.layers.Flatten()(images)
        x = keras.layers.Dense(2 * JOINTS, kernel_initializer="zeros", bias_initializer="ones")(x)
        x = keras.layers.Dropout(0.5)(x)
        return keras.Model(images, {"keypoints": keras.layers.Reshape((JOINTS, 2))(x)})

    regressor = make_regressor(2, network=network, loss=Spy(), optimizer=lambda: keras.optimizers.SGD(0.0))
    train(regressor, make_data(), steps=2, steps_per_epoch=2, validation=False)
    assert len(masks) == 4
    for i in range(4):
        for j in range(i):
            assert not np.array_equal(masks[i], masks[j])


@pytest.mark.parametrize("name", ["coco_integral", pytest.param("movenet", marks=pytest.mark.slow)])
def test_networks_with_an_upsampling_train_compiled_in_bfloat16(name):
    """XLA refuses a bfloat16 upsampling, because its gradient is in float32."""
    config = config_lib.load_recipe(name)
    config.model.input_size, config.model.width, config.model.filters = (32, 32), 0.25, (4, 4, 4)
    config.precision, config.xla = "mixed_bfloat16", "on"
    regressor = setup.build_regressor(config, skeletons.COCO, devices.start(config), total_steps=1)
    data = make_data() | {"image": np.random.default_rng(0).integers(0, 256, (SAMPLES, 32, 32, 3), np.uint8)}
    before = [v.numpy() for v in regressor.network.trainable_variables]
    regressor.fit(batches(data), steps_per_epoch=1, total_steps=1, verbose=0)
    after = [v.numpy() for v in regressor.network.trainable_variables]
    assert all(np.isfinite(a).all() for a in after)
    assert any((a != b).any() for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_metrics_of_each_execution_are_those_of_the_metric_objects(replicas):
    """They are read by one compiled function. It must see each change, and not run Python again."""
    regressor, read, calls = make_regressor(replicas), [], []

    class Read(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            read.append({name: float(value) for name, value in logs.items()})
            calls.append(len(results))
            assert read[-1] == pytest.approx({m.name: float(original(m)) for m in self.model.metrics}, abs=1e-6)

    def original(metric):
        return type(metric).result(metric)

    results, loss = [], regressor.loss_tracker
    loss.result = lambda: results.append(1) or original(loss)
    train(regressor, make_data(), steps=4, validation=False, callbacks=[Read()])
    assert len({values["loss"] for values in read}) == 4
    assert len(set(calls)) == 1
