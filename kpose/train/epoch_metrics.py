"""The training metrics of an epoch, which checkpoints hold so that a resumed epoch is complete."""

import numpy as np
import tensorflow as tf


class EpochMetrics:
    """The state of a regressor's metrics since the start of an epoch.

    A state is a dict that JSON can hold. Values of float32 are exact in it:

        first_step      number of steps before the epoch
        learning_rate   learning rate of the last step
        metrics         name of the metric -> values of its variables, summed over the replicas

    Args:
        regressor: the `regressor.Regressor`.

    Attributes:
        restored: the state of the checkpoint that was restored; {} without one. The next epoch of
            `fit` starts with it if it is of the same epoch.
    """

    def __init__(self, regressor):
        self._regressor = regressor
        self._kept = None
        self.restored = {}

    def state(self):
        """The state at the last training step; {} before the first epoch.

        With several workers, all of them must call this at the same point.
        """
        return self._read() if self._kept is None else self._kept

    def keep(self):
        """Keeps the state of the training, before an evaluation uses the metric objects."""
        if self._kept is None:
            self._kept = self._read()

    def start_epoch(self):
        """Starts an epoch, with the restored state if it is of this epoch."""
        self._kept = None
        state, self.restored = self.restored, {}
        if state.get("first_step") == self._regressor.steps.epoch_start:
            self._assign(state)

    def results(self, state):
        """The row of a history for a state: dict of floats. Overwrites the metric objects."""
        self._assign(state)
        values = {metric.name: float(metric.result()) for metric in self._regressor.metrics}
        self._regressor.reset_metrics()
        return values | {"learning_rate": state["learning_rate"]}

    def _read(self):
        if getattr(self._regressor, "steps", None) is None:
            return {}
        return {
            "first_step": self._regressor.steps.epoch_start,
            # `numpy` of a variable that is mirrored on the replicas raises.
            "learning_rate": float(tf.convert_to_tensor(self._regressor.step_learning_rate)),
            "metrics": {
                metric.name: [tf.convert_to_tensor(v.value).numpy().tolist() for v in metric.variables]
                for metric in self._regressor.metrics
            },
        }

    def _assign(self, state):
        for metric in self._regressor.metrics:
            # A metric that this version of kpose added covers only the steps since the resume.
            for variable, value in zip(metric.variables, state["metrics"].get(metric.name, ()), strict=False):
                # On several replicas each gets its share, so that the sum is the value.
                variable.assign(np.asarray(value, variable.dtype))
