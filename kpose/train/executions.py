"""Executions: several training steps in one call of a `tf.function`."""

import keras
import tensorflow as tf


class TrainingSteps(keras.callbacks.Callback):
    """Counts the steps of a training and gives the number of steps of the next execution.

    An execution does not continue beyond its epoch or the training. The number of steps between two
    evaluations, and of the training, therefore does not depend on `steps_per_execution`.

    Args:
        start_step: number of steps that are done.
        steps_per_epoch: number of steps of an epoch.
        total_steps: number of steps of the training.
        steps_per_execution: largest number of steps of an execution.

    Attributes:
        done: number of steps that are done, with those of the current execution.
        epoch_start: number of steps before the current epoch.
    """

    def __init__(self, start_step, steps_per_epoch, total_steps, steps_per_execution):
        super().__init__()
        self.done = start_step
        self.per_epoch = steps_per_epoch
        self.total = total_steps
        self.per_execution = steps_per_execution
        self.epoch_start = start_step // steps_per_epoch * steps_per_epoch
        self._epoch_end = start_step

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch_start = epoch * self.per_epoch
        self.model.epoch_metrics.start_epoch()
        self._epoch_end = min((epoch + 1) * self.per_epoch, self.total)

    @property
    def coming(self):
        """The number of steps of the next execution."""
        return min(self.per_execution, self._epoch_end - self.done)

    def next_execution(self):
        """The number of steps of the execution that starts now; adds them to `done`."""
        steps = self.coming
        self.done += steps
        return steps


def looped(step):
    """A `tf.function` that runs a step on several batches.

    The waiting for the first batch is measured, and taken for that of each batch. The time is known on the
    host only, and on a card each operation of the host waits for all kernels before. Inside the loop
    the card would therefore have nothing to do between two steps.

    Args:
        step: function (batch, number of the step, int64).

    Returns:
        Function (iterator, number of steps, first step) -> seconds of waiting for batches, float64.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def execute(iterator, steps, number):
        with on_host():
            requested = tf.timestamp()
        with tf.control_dependencies([requested]):
            first = next(iterator)
        with tf.control_dependencies(tf.nest.flatten(first, expand_composites=True)), on_host():
            got = tf.timestamp()
            waited = (got - requested) * tf.cast(steps, tf.float64)
        # Without this, a single thread could run the step before it reads the time.
        first = _after(got, first)

        def body(i, number):
            batch = tf.cond(i > 0, lambda: next(iterator), lambda: first)
            step(batch, number)
            return i + 1, number + 1

        # `i` is int32, which stays on the host, and the number of the step int64, which stays on the card.
        tf.while_loop(lambda i, _: i < steps, body, [tf.constant(0), number])
        return waited

    def run(iterator, steps, first):
        with on_host():
            numbers = tf.constant(steps, tf.int32), tf.constant(first, tf.int64)
        # Not in that context, or the step itself would run on the host.
        return execute(iterator, *numbers)

    return run


def on_host():
    """A context for scalars that stay in the memory of the host.

    A copy to a card would wait until the card has finished all steps before.
    """
    return tf.device("/CPU:0")


def _after(event, values):
    """The same values, which are available only after the tensor `event` is computed."""

    def wait(value):
        with tf.control_dependencies([event]), value.graph.colocate_with(value.op):
            return tf.identity(value)

    return tf.nest.map_structure(wait, values, expand_composites=True)
