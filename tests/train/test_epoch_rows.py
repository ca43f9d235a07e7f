"""The rows of history.csv: complete epochs after interruptions, learning rate, images/s."""

import glob
import math
import os

import numpy as np
import pytest
import tensorflow as tf

from kpose.runs import checkpoints
from kpose.runs.workdir import read_history
from kpose.train import callbacks, trainer
from tests import tiny
from tests.train.conftest import Killed
from tests.train.test_never_lose_a_run import poisoned  # noqa: F401  (a fixture)
from tests.train.test_regressor import make_data, make_regressor, train
from tests.train.test_trainer import assert_same_weights


def _recipe(data, **fields):
    """10 steps in epochs of 5, so that the checkpoints of steps 4 and 8 are inside an epoch."""
    return tiny.make_recipe(data["train"], data["val"], **{"steps": 10, "checkpoint_every": 4} | fields)


def _rows(workdir):
    rows = read_history(workdir)
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in rows]


def _assert_same_rows(found, expected, rel=1e-6):
    assert [row.keys() for row in found] == [row.keys() for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        for name, value in wanted.items():
            assert row[name] == pytest.approx(value, rel=rel, abs=1e-9), (name, wanted["step"])


@pytest.fixture(scope="module")
def whole(tiny_data, tmp_path_factory):
    workdir = str(tmp_path_factory.mktemp("whole"))
    trainer.train(_recipe(tiny_data), workdir)
    assert [row["step"] for row in _rows(workdir)] == [5, 10]
    assert all({"loss", "pcp_strict", "val_loss", "val_oks_ap"} <= row.keys() for row in _rows(workdir))
    return workdir


@pytest.mark.slow
def test_a_run_killed_again_and_again_has_the_rows_of_an_uninterrupted_one(whole, kill_at, tiny_data, tmp_path):
    """Killed in an evaluation, between checkpoints, and before the row of a complete epoch.

    Each start has another number of steps in an execution.
    """
    killed = str(tmp_path)
    starts = [
        (5, "on_test_batch_end", {}),
        (7, "on_train_batch_end", {"checkpoint_every": 3, "steps_per_execution": 2}),
        (10, "on_train_batch_end", {"checkpoint_every": 10, "steps_per_execution": 3}),
    ]
    for step, event, fields in starts:
        kill_at(step, event)
        with pytest.raises(Killed):
            trainer.train(_recipe(tiny_data, **fields), killed)
    trainer.train(_recipe(tiny_data), killed)
    _assert_same_rows(_rows(killed), _rows(whole))
    assert_same_weights(whole, killed)


@pytest.mark.slow
def test_sigterm_in_an_evaluation_keeps_the_metrics_of_training(whole, tiny_data, tmp_path, monkeypatch):
    original = callbacks.SaveOnTermination.on_test_batch_end

    def terminate(self, batch, logs=None):
        self.termination.requested = True
        original(self, batch, logs)

    monkeypatch.setattr(callbacks.SaveOnTermination, "on_test_batch_end", terminate)
    trainer.train(_recipe(tiny_data), str(tmp_path))
    assert checkpoints.latest(str(tmp_path)).endswith("step-5") and not read_history(str(tmp_path))
    monkeypatch.undo()
    trainer.train(_recipe(tiny_data), str(tmp_path))
    _assert_same_rows(_rows(str(tmp_path)), _rows(whole))


@pytest.mark.slow
@pytest.mark.parametrize("kill", [7, 9])
def test_after_a_rollback_the_row_has_the_steps_that_count(kill, poisoned, kill_at, tiny_data, tmp_path):  # noqa: F811
    """Batch 3 is bad: the training returns to step 2, which is inside the first epoch."""
    fields = {"on_nan": "rollback", "checkpoint_every": 2}
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    trainer.train(_recipe(tiny_data, **fields), one)
    kill_at(kill)
    with pytest.raises(Killed):
        trainer.train(_recipe(tiny_data, **fields), other)
    trainer.train(_recipe(tiny_data, **fields), other)
    assert all(math.isfinite(value) for row in _rows(one) for value in row.values())
    _assert_same_rows(_rows(other), _rows(one))


@pytest.fixture(scope="module")
def of_one_epoch():
    """Metrics of an epoch of three steps, and the losses and gradient norms of its steps."""
    data = make_data()
    steps = train(make_regressor(1), data, steps=3, steps_per_epoch=1, validation=False)
    return train(make_regressor(1), data, steps=3, steps_per_epoch=3, validation=False), steps


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_sums_of_an_epoch_survive_a_checkpoint_on_any_number_of_replicas(replicas, of_one_epoch, tmp_path):
    """The loss is the mean of the batch losses, which an epoch of one step each measures."""
    data, workdir = make_data(), str(tmp_path)
    regressor = make_regressor(replicas)
    train(regressor, data, steps=2, steps_per_epoch=3, validation=False)
    checkpoints.Checkpoints(workdir, regressor, keep=1).save(2, 2)
    resumed = make_regressor(3 - replicas)
    assert checkpoints.Checkpoints(workdir, resumed, keep=1).restore() == (2, 2)
    found = train(resumed, data, steps=3, steps_per_epoch=3, start_step=2, validation=False)
    uninterrupted, single = of_one_epoch
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(found[name], [np.mean(single[name])], rtol=1e-4, err_msg=name)
    for name, value in uninterrupted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)


def test_a_checkpoint_without_these_sums_can_still_be_resumed(tiny_run, tmp_path):
    """As written by version 0.1: its row has the steps since the resume."""
    reader = tf.train.load_checkpoint(checkpoints.latest(tiny_run))
    assert reader.has_tensor("epoch_metrics/.ATTRIBUTES/VARIABLE_VALUE")
    saver = checkpoints.Checkpoints(str(tmp_path), make_regressor(), keep=1)
    saver._checkpoint = saver._read
    saver.save(4, 4)
    assert not tf.train.load_checkpoint(checkpoints.latest(str(tmp_path))).has_tensor(
        "epoch_metrics/.ATTRIBUTES/VARIABLE_VALUE"
    )
    restored = make_regressor()
    assert checkpoints.Checkpoints(str(tmp_path), restored, keep=1).restore() == (4, 4)
    assert restored.epoch_metrics.restored == {}
    history = train(restored, make_data(), steps=6, steps_per_epoch=6, start_step=4, validation=False)
    assert np.isfinite(history["loss"]).all()


def _scalars(workdir, run, tag):
    """{step: value} of a TensorBoard scalar."""
    found = {}
    for path in sorted(glob.glob(os.path.join(workdir, "tensorboard", run, "events*"))):
        for event in tf.compat.v1.train.summary_iterator(path):
            found |= {(event.step, value.tag): value.tensor for value in event.summary.value}
    return {step: float(tf.make_ndarray(value)) for (step, name), value in found.items() if name == tag}


def test_the_learning_rate_is_that_of_the_step_at_which_it_is_logged(tiny_data, tmp_path):
    """A warm-up of 3 steps to 0.01, then half a cosine to zero at step 8."""
    fields = {
        "steps": 8,
        "log_every": 1,
        "schedule__name": "cosine",
        "schedule__warmup_steps": 3,
        "optimizer__learning_rate": 0.01,
    }
    trainer.train(_recipe(tiny_data | {"val": ""}, **fields), str(tmp_path))

    def of_step(number):
        done = number - 1
        return 0.01 * min((done + 1) / 3, 1) * 0.5 * (1 + math.cos(math.pi * max(done - 3, 0) / 5))

    logged = _scalars(str(tmp_path), "train", "learning_rate")
    # The first step, which is mostly tracing, is not logged.
    assert logged == pytest.approx({step: of_step(step) for step in range(2, 9)}, rel=1e-5)
    rows = {row["step"]: row["learning_rate"] for row in read_history(str(tmp_path))}
    assert rows == pytest.approx({step: of_step(step) for step in (5, 8)}, rel=1e-5)


def test_evaluations_are_logged_at_the_steps_of_their_rows(tiny_run):
    assert (
        _scalars(tiny_run, "validation", "oks_ap").keys() == {row["step"] for row in read_history(tiny_run)} == {5, 6}
    )


@pytest.mark.parametrize(
    "steps, measured",
    [
        (1, [False]),
        pytest.param(2, [True], marks=pytest.mark.slow),
        pytest.param(7, [True, True], marks=pytest.mark.slow),
    ],
)
def test_images_per_second_of_a_short_run_are_measured_or_empty(steps, measured, tiny_run, tiny_data, tmp_path):
    """The first execution is mostly tracing, and is not measured."""
    trainer.train(tiny.make_recipe(tiny_data["train"], steps=steps, log_every=100), str(tmp_path))
    rates, of_six_steps = (
        [row.get("images_per_second") for row in read_history(workdir)] for workdir in (str(tmp_path), tiny_run)
    )
    assert [rate is not None for rate in rates] == measured and None not in of_six_steps
    assert all(rate > 1 for rate in (*rates, *of_six_steps) if rate is not None)
