"""Keras callbacks of a training: the profiler."""

import pytest
import tensorflow as tf

from kpose.train import callbacks
from tests.train.test_regressor import make_data, make_regressor, train


@pytest.mark.parametrize("first, last, traced", [(5, 6, (4, 8)), (0, 1, (0, 4)), (4, 9, (4, 10)), (20, 30, None)])
def test_a_profile_takes_the_executions_that_hold_the_steps(first, last, traced, tmp_path, monkeypatch, caplog):
    """Executions of four steps in epochs of ten: the last execution has two steps."""
    seen = []
    regressor = make_regressor(steps_per_execution=4)
    for name in ("start", "stop"):
        monkeypatch.setattr(tf.profiler.experimental, name, lambda *_: seen.append(regressor.steps.done))
    profile = callbacks.Profile(str(tmp_path), first, last)
    with caplog.at_level("INFO", logger="absl"):
        train(regressor, make_data(), steps=12, steps_per_epoch=10, validation=False, callbacks=[profile])
    if traced:
        assert tuple(seen) == traced and f"profile of steps {traced[0]} to {traced[1]}" in caplog.text
    else:
        assert not seen and "--profile=20:30: no such step ran" in caplog.text
