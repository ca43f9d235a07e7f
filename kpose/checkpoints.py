"""Checkpoints of a training run: everything that its next step depends on."""

import os

import tensorflow as tf

from kpose.errors import InputError

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of a workdir.

    Args:
        workdir: the run's folder.
        regressor: the `engine.Regressor` whose weights, their averages, BatchNorm statistics, dropout seeds, the
            loss' own variables, optimiser and loss scale are saved.
        keep: how many of the newest are kept.
    """

    def __init__(self, workdir, regressor, keep):
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._checkpoint = tf.train.Checkpoint(
            step=self._step,
            network=regressor.network,
            # Keras' seed generators are no trackable objects: TensorFlow would leave dropout's state out.
            seeds=[v.value for v in regressor.network.variables if v.name == "seed_generator_state"],
            averages=list(regressor.averages),
            loss=[v.value for v in regressor.sample_loss.trainable_variables],
            optimizer=regressor.optimizer,
            loss_scale=regressor.loss_scale,
            finite_steps=regressor.finite_steps,
        )
        folder = os.path.join(workdir, FOLDER)
        self._manager = tf.train.CheckpointManager(self._checkpoint, folder, keep, checkpoint_name="step")

    def restore(self):
        """Restores the newest checkpoint; returns its step, 0 where there is none."""
        if self._manager.latest_checkpoint is None:
            return 0
        try:
            self._checkpoint.restore(self._manager.latest_checkpoint).assert_existing_objects_matched()
        except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
            raise InputError(
                f"{self._manager.latest_checkpoint}: the checkpoint cannot be restored ({str(error).splitlines()[0]})"
            ) from None
        return int(self._step.numpy())

    def save(self, step):
        """Writes the checkpoint of `step`; a no-op if it is already there."""
        if self._manager.latest_checkpoint and self._manager.latest_checkpoint.endswith(f"step-{step}"):
            return
        self._step.assign(step)
        self._manager.save(checkpoint_number=step)


def exist(workdir):
    """Whether a workdir holds a checkpoint."""
    return workdir is not None and tf.train.latest_checkpoint(os.path.join(workdir, FOLDER)) is not None


def latest(workdir):
    """The newest checkpoint of a workdir.

    Raises:
        InputError: there is none.
    """
    path = tf.train.latest_checkpoint(os.path.join(workdir, FOLDER))
    if path is None:
        raise InputError(f"{workdir}: no checkpoint: train with python -m kpose.train --workdir={workdir} first")
    return path


def restore_network(network, checkpoint, averaged=False):
    """Loads the network's weights from a checkpoint that training wrote.

    Args:
        network: the recipe's network.
        checkpoint: the checkpoint's path.
        averaged: take the moving averages of the weights.

    Raises:
        InputError: it is missing, damaged, or of another network.
    """
    try:
        tf.train.Checkpoint(network=network).restore(checkpoint).assert_existing_objects_matched().expect_partial()
        if averaged:
            reader = tf.train.load_checkpoint(checkpoint)
            for index, variable in enumerate(network.trainable_variables):
                variable.assign(reader.get_tensor(f"averages/{index}/.ATTRIBUTES/VARIABLE_VALUE"))
    except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
        raise InputError(f"{checkpoint}: does not fit the recipe's network ({str(error).splitlines()[0]})") from None
