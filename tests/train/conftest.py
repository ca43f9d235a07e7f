"""Fixtures of the tests of training."""

import types

import pytest

from kpose.train import callbacks, history


class Killed(BaseException):
    """The end of the process, for the code of the training."""


@pytest.fixture(scope="module", autouse=True)
def no_pictures(tiny_run):
    """No learning curve and no prediction grid, a sixth of a tiny training; `tiny_run` has both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "charts", types.SimpleNamespace(learning_curve=lambda *_: None))
        patch.setattr(callbacks.PredictionGrid, "on_epoch_end", lambda *_, **__: None)
        yield


@pytest.fixture
def kill_at(monkeypatch):
    """Function (step, event) that makes trainings end at once, after `step`, in that event."""

    def kill(step, event="on_train_batch_end"):
        original = getattr(callbacks.SaveOnTermination, event)

        def run(self, batch, logs=None):
            if self.model.steps.done >= step:
                monkeypatch.setattr(callbacks.SaveOnTermination, event, original)
                raise Killed
            original(self, batch, logs)

        monkeypatch.setattr(callbacks.SaveOnTermination, event, run)

    return kill
