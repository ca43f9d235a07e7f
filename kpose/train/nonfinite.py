"""Training steps whose loss or gradient is not finite: detection and explanation."""

import keras
import numpy as np
import tensorflow as tf
from absl import logging


def explain(regressor, batch):
    """The first value of a step that is not finite, as text. The batch of the step is run again.

    Args:
        regressor: the `regressor.Regressor`, with weights from before the step.
        batch: the batch of the step.

    Returns:
        For example "the output of layer conv3 (Conv2D) for sample 2 of the batch".
    """
    network = regressor.network
    trained = regressor.trained_variables
    trainable, state = (
        [tf.convert_to_tensor(v.value) for v in vs] for vs in (trained, network.non_trainable_variables)
    )
    size = tf.reduce_sum(batch["weight"])
    scale = 1.0 if regressor.sample_loss.reduction == "sum" else 1.0 / size
    gradients, _, batch, _, losses = regressor.gradients(trainable, state, batch, scale)
    for name in ("image", "keypoints", "region", "weight", "taught"):
        samples = _not_finite(batch[name]) if name in batch else ()
        if len(samples):
            return f"{name} of sample {samples[0]} of the batch"
    for variable in [*network.variables, *regressor.sample_loss.trainable_variables]:
        if not _is_finite(variable.value):
            return f"weight {variable.path}"
    layer = _first_layer(network, tf.cast(batch["image"], tf.float32)) if "estimate" not in batch else None
    if layer:
        return layer
    samples = _not_finite(losses)
    if samples.size:
        return f"the loss of sample {samples[0]} of the batch"
    for variable, gradient in zip(trained, gradients, strict=True):
        if not _is_finite(gradient):
            return f"the gradient of {variable.path}"
    return "the cause does not show when the batch is run again: the weights have changed since"


def _is_finite(values):
    """Whether all values of a tensor are finite."""
    return bool(tf.reduce_all(tf.math.is_finite(tf.cast(values, tf.float32))))


def _not_finite(values):
    """Indices of the samples [B, ...] with a value that is not finite."""
    values = np.asarray(tf.cast(values, tf.float32))
    return np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))


def _first_layer(network, inputs):
    """The first layer of a functional network whose output is not finite, as text; or None.

    Nested networks are searched too.
    """
    # `layer.output` of a nested network is its inner tensor; the nodes hold the tensor outside it.
    nodes = [
        node
        for depth in sorted(network._nodes_by_depth, reverse=True)
        for node in network._nodes_by_depth[depth]
        if not node.is_input
    ]
    wanted = {id(t): t for node in nodes for t in (*node.input_tensors, *node.output_tensors)}
    found = keras.Model(network.inputs, list(wanted.values()))(inputs, training=True)
    values = dict(zip(wanted, found, strict=True))
    for node in nodes:
        layer = node.operation
        samples = next((s for s in (_not_finite(values[id(t)]) for t in node.output_tensors) if s.size), None)
        if samples is None:
            continue
        name = f"the output of layer {layer.name} ({type(layer).__name__}) for sample {samples[0]} of the batch"
        if isinstance(layer, keras.Model):
            name = _first_layer(layer, [values[id(t)] for t in node.input_tensors]) or name
        return name
    return None


class NonFinite(Exception):
    """A training step was skipped, because its loss or gradient was not finite.

    Attributes:
        step: number of the step.
    """

    def __init__(self, step):
        super().__init__(f"step {step}")
        self.step = step


class WatchFinite(keras.callbacks.Callback):
    """Checks for steps that were not finite (`config.on_nan`).

    Args:
        policy: "skip": log the number of skipped steps; otherwise: raise `NonFinite`.
        every: number of steps between two checks. A check waits for the device.
    """

    # After this number of consecutive skipped steps, the training has failed.
    LONGEST = 50

    def __init__(self, policy, every):
        super().__init__()
        self.policy = policy
        self.every = every

    def on_train_begin(self, logs=None):
        self._looked, self._skipped, self._in_a_row = self.model.steps.done, _as_int(self.model.skipped_steps), 0

    def on_train_batch_end(self, batch, logs=None):
        if self.model.steps.done - self._looked >= self.every:
            self.look()

    def on_epoch_end(self, epoch, logs=None):
        self.look()

    def look(self):
        """Checks the steps since the last check.

        Raises:
            NonFinite: a step was not finite and the policy is not "skip", or too many consecutive
                steps were skipped.
        """
        done = self.model.steps.done
        if done == self._looked:
            return
        skipped, taken = _as_int(self.model.skipped_steps) - self._skipped, done - self._looked
        self._looked, self._skipped = done, self._skipped + skipped
        if not skipped:
            self._in_a_row = 0
            return
        self._in_a_row = self._in_a_row + skipped if skipped == taken else 0
        step = _as_int(self.model.nonfinite_step)
        if self.policy != "skip" or self._in_a_row >= self.LONGEST:
            raise NonFinite(step)
        logging.warning("step %d was not finite: skipped, %d in all", step, self._skipped)


def _as_int(variable):
    # int() of a variable that is mirrored on the replicas raises.
    return int(tf.convert_to_tensor(variable))
