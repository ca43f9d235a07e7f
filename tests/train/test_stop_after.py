"""Early stopping: the step at which a training ends, with and without interruptions."""

import os
import shutil

import numpy as np
import pytest

from kpose.core.errors import InputError
from kpose.runs import checkpoints
from kpose.runs.workdir import read_history
from kpose.train import history, trainer
from tests import tiny
from tests.train.conftest import Killed
from tests.train.test_trainer import assert_same_weights
from tests.train.test_workers import _finish, _start

# Epochs of 5 steps. With this learning rate the validation loss falls and rises.
FIELDS = {"steps": 36, "optimizer__learning_rate": 0.015, "checkpoint_every": 4}


def _recipe(data, **fields):
    return tiny.make_recipe(data["train"], data["val"], **FIELDS | fields)


@pytest.fixture(scope="module")
def stopped(tiny_data, tmp_path_factory):
    """Workdir of a training that early stopping has ended."""
    workdir = str(tmp_path_factory.mktemp("stopped"))
    trainer.train(_recipe(tiny_data, stop_after=2), workdir)
    return workdir


def _losses(workdir):
    return [(row["step"], row["val_loss"]) for row in read_history(workdir)]


def _expected_stop(losses, stop_after):
    """The step at which early stopping must end the training, by the definition."""
    for number in range(len(losses)):
        until = [loss for _, loss in losses[: number + 1]]
        if number - int(np.argmin(until)) >= stop_after:
            return losses[number][0]
    return losses[-1][0]


def test_a_training_stops_when_the_validation_loss_does_not_get_lower(stopped, tiny_data, tmp_path, caplog):
    workdir = str(tmp_path / "run")
    shutil.copytree(stopped, workdir)
    before, rows = _losses(workdir), read_history(workdir)
    stop = before[-1][0]
    assert checkpoints.latest(workdir).endswith(f"step-{stop}")

    # The same command changes nothing, and says why.
    with caplog.at_level("INFO", logger="absl"):
        assert trainer.train(_recipe(tiny_data, stop_after=2), workdir)["step"] == stop
    (line,) = (r.getMessage() for r in caplog.records if "stopped at step" in r.getMessage())
    best = min(rows, key=lambda row: row["val_loss"])
    assert f"stopped at step {stop} of 36: no lower validation loss in 2 evaluations" in line
    assert f"the lowest is {best['val_loss']:.4g} at step {best['step']} (epoch {best['epoch']})" in line
    assert _losses(workdir) == before

    # Without the field the training continues. All its losses say where it had to stop.
    assert trainer.train(_recipe(tiny_data, stop_after=0), workdir)["step"] == 36
    losses = _losses(workdir)
    assert losses[: len(before)] == before
    assert losses[2][0] < stop < losses[-1][0], "the losses do not test anything"
    assert stop == _expected_stop(losses, 2)


@pytest.mark.parametrize(
    "back, event",
    [
        (0, "on_test_batch_end"),
        pytest.param(1, "on_train_batch_end", marks=pytest.mark.slow),
        pytest.param(5, "on_train_batch_end", marks=pytest.mark.slow),
    ],
)
def test_a_killed_training_stops_where_an_uninterrupted_one_does(back, event, stopped, kill_at, tiny_data, tmp_path):
    """Killed some steps before the end, or in the evaluation that ends the training."""
    stop, killed = _losses(stopped)[-1][0], str(tmp_path)
    kill_at(stop - back, event)
    with pytest.raises(Killed):
        trainer.train(_recipe(tiny_data, stop_after=2), killed)
    trainer.train(_recipe(tiny_data, stop_after=2), killed)
    assert _losses(killed) == _losses(stopped)
    assert_same_weights(stopped, killed)


def test_without_validation_records_the_field_has_no_effect_and_is_reported(tiny_data, tmp_path, caplog):
    with caplog.at_level("WARNING"):
        logs = trainer.train(tiny.make_recipe(tiny_data["train"], steps=4, stop_after=1), str(tmp_path))
    assert logs["step"] == 4
    assert "config.stop_after has no effect without config.data.val" in caplog.text
    with pytest.raises(InputError, match="config.stop_after is -1: it must be at least 0"):
        trainer.train(tiny.make_recipe(tiny_data["train"], stop_after=-1), str(tmp_path / "other"))


def test_equal_and_non_finite_losses_are_no_improvement():
    losses = [2.0, None, 1.0, 1.0, float("nan"), 1.5]
    rows = [{"step": n} if loss is None else {"step": n, "val_loss": loss} for n, loss in enumerate(losses)]
    assert history.without_improvement(rows) == (rows[2], 3)
    assert history.without_improvement(rows[4:5]) == (None, 1)
    assert history.without_improvement([]) == (None, 0)


@pytest.mark.slow
def test_all_workers_stop_at_the_same_step(tiny_data, tmp_path):
    """With a learning rate of 0 the loss stays the same. The second start changes nothing."""
    workdir = str(tmp_path / "run")
    config = _recipe(tiny_data, stop_after=2, optimizer__learning_rate=0.0)
    for _ in range(2):
        codes, said = _finish(_start(config, workdir, str(tmp_path)))
        assert codes == [0, 0], said
        assert "stopped at step 15 of 36" in said[0][1] and not said[1][1]
        assert [row["step"] for row in read_history(workdir)] == [5, 10, 15]
        assert os.path.basename(checkpoints.latest(workdir)) == "step-15"
