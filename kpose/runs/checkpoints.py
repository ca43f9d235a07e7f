"""Checkpoints of a training run: everything that its next step depends on.

checkpoints/step-1000...   the newest ones
checkpoints/best/step-900  the one with the best validation score, where there is validation

A checkpoint is written aside and gets its name when it is whole. One that is damaged later is told, set aside, and the
one before it is used.
"""

import glob
import os

import tensorflow as tf
from absl import logging

from kpose.core import files, startup
from kpose.core.errors import InputError, first_line

FOLDER = "checkpoints"
BEST_FOLDER = os.path.join(FOLDER, "best")
BEST_FILE = "best.json"
_UNREADABLE = (tf.errors.OpError, AssertionError, ValueError, IndexError, KeyError)


class Checkpoints:
    """The checkpoints of a workdir.

    Args:
        workdir: the run's folder.
        regressor: the `regressor.Regressor` whose weights, their averages, BatchNorm statistics, dropout seeds, the
            loss' own variables, optimiser and loss scale are saved.
        keep: how many of the newest are kept.
        written: where they are written; workers other than the chief, who must take part, write elsewhere.
    """

    def __init__(self, workdir, regressor, keep, written=None):
        self._keep = keep
        self._workdir = workdir
        self._written = written or workdir
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        # The batch that comes next: another number than the step once a rollback has left a batch out.
        self._position = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._checkpoint = tf.train.Checkpoint(
            step=self._step,
            position=self._position,
            network=regressor.network,
            # Keras' seed generators are no trackable objects: TensorFlow would leave dropout's state out.
            seeds=[v.value for v in regressor.network.variables if v.name == "seed_generator_state"],
            averages=list(regressor.averages),
            loss=[v.value for v in regressor.sample_loss.trainable_variables],
            optimizer=regressor.optimizer,
            loss_scale=regressor.loss_scale,
            finite_steps=regressor.finite_steps,
        )
        if self._written == workdir:
            for folder in (FOLDER, BEST_FOLDER):
                _mend_state(os.path.join(workdir, folder))
        self._manager = self._make_manager(FOLDER, keep)
        self._best = self._make_manager(BEST_FOLDER, 1)

    def _make_manager(self, folder, keep):
        return tf.train.CheckpointManager(
            self._checkpoint, os.path.join(self._written, folder), keep, checkpoint_name="step"
        )

    def restore(self):
        """Restores the newest checkpoint that is whole.

        Returns:
            (its step, the number of the batch that comes next); (0, 0) where there is none.

        Raises:
            InputError: there are some, but none is whole.
        """
        chief = self._written == self._workdir
        if chief:
            self._remove_leftovers()
        folder = os.path.join(self._workdir, FOLDER)
        state = _state(folder)
        # Workers that look before the chief has mended the state file see what it will say.
        paths = list(state.all_model_checkpoint_paths) if state else _by_name(folder)
        damaged = []
        while paths:
            path = paths.pop()
            try:
                self._checkpoint.restore(path).assert_existing_objects_matched()
            except _UNREADABLE as error:
                damaged.append((path, first_line(error)))
                continue
            for bad, reason in damaged:
                logging.warning("%s: damaged (%s), set aside: going on from %s", bad, reason, path)
                if chief:
                    _set_aside(bad)
            if damaged and chief:
                _write_state([*paths, path])
                self._manager = self._make_manager(FOLDER, self._keep)
            return int(self._step.numpy()), int(self._position.numpy())
        if damaged:
            raise InputError(
                f"{damaged[0][0]}: the checkpoint cannot be restored ({damaged[0][1]}), nor is one before it: it is "
                "damaged, or of another version of kpose; take another --workdir"
            )
        return 0, 0

    def save(self, step, position):
        """Writes the checkpoint of `step`, the batch that comes next being `position`; a no-op if it is already there.

        Raises:
            InputError: the disk is full.
        """
        latest = self._manager.latest_checkpoint
        if latest and latest.endswith(f"step-{step}"):
            return
        self._write(self._manager, step, position)

    def save_if_best(self, step, position, score):
        """Keeps a copy of `step` if no validation before had so high a score."""
        path = os.path.join(self._written, BEST_FOLDER, BEST_FILE)
        if os.path.exists(path) and files.read_json(path, "score of a checkpoint")["score"] >= score:
            return
        if not (self._best.latest_checkpoint or "").endswith(f"step-{step}"):
            self._write(self._best, step, position)
        files.write_json(path, {"step": step, "score": score})

    def _write(self, manager, step, position):
        self._step.assign(step)
        self._position.assign(position)
        try:
            manager.save(checkpoint_number=step)
        except (tf.errors.OpError, OSError) as error:
            self._remove_leftovers()
            kept = manager.latest_checkpoint
            message = first_line(getattr(error, "message", None) or error)
            raise InputError(
                f"{manager.directory}: the checkpoint of step {step} cannot be written ({message}): make room, and "
                f"give the same command again; {f'{kept} is whole' if kept else 'there is none before it'}"
            ) from None

    def _remove_leftovers(self):
        """Removes what a write that was cut short left behind."""
        for manager in (self._manager, self._best):
            known = {os.path.basename(path) for path in manager.checkpoints}
            for path in glob.glob(os.path.join(glob.escape(manager.directory), "step-*")):
                stem = os.path.basename(path).split(".")[0]
                if stem not in known and ".damaged" not in path:
                    files.remove(path)


def _state(folder):
    """What a folder's state file says of its checkpoints; None where it is missing or garbled."""
    try:
        return tf.train.get_checkpoint_state(folder)
    except ValueError:
        # Empty, or not text.
        return None


def _by_name(folder):
    """The paths of all checkpoints that lie in a folder, in the order of their steps."""
    paths = [path.removesuffix(".index") for path in glob.glob(os.path.join(glob.escape(folder), "step-*.index"))]
    return sorted((path for path in paths if path.rsplit("-", 1)[1].isdigit()), key=lambda p: int(p.rsplit("-", 1)[1]))


def _mend_state(folder):
    """Writes a folder's state file anew where it is lost: without it all checkpoints would be leftovers."""
    path = os.path.join(folder, "checkpoint")
    if _state(folder):
        return
    paths = _by_name(folder)
    if paths:
        _write_state(paths)
        logging.warning("%s: missing or damaged: made anew, of %s", path, ", ".join(map(os.path.basename, paths)))
    elif os.path.exists(path):
        os.remove(path)


def _write_state(paths):
    """Writes the state file of the folder of these checkpoints, the newest last."""
    names = [os.path.basename(path) for path in paths]
    # Without times a CheckpointManager would take none of them for its own.
    times = [os.path.getmtime(f"{path}.index") for path in paths]
    with startup.warnings():
        tf.compat.v1.train.update_checkpoint_state(
            os.path.dirname(paths[0]), names[-1], names, None, times, last_preserved_timestamp=0.0
        )


def _newest(folder):
    if _state(folder):
        return tf.train.latest_checkpoint(folder)
    return next(reversed(_by_name(folder)), None)


def _set_aside(path):
    for name in glob.glob(glob.escape(path) + ".*"):
        os.replace(name, f"{name}.damaged")


def exist(workdir):
    """Whether a workdir holds a checkpoint."""
    return workdir is not None and _newest(os.path.join(workdir, FOLDER)) is not None


def latest(workdir, best=False):
    """The newest checkpoint of a workdir, or the one with the best validation score.

    Raises:
        InputError: there is none.
    """
    path = _newest(os.path.join(workdir, BEST_FOLDER if best else FOLDER))
    if path is None:
        what = "no best checkpoint: it comes with config.data.val" if best else "no checkpoint"
        raise InputError(f"{workdir}: {what}: train with python -m kpose.train --workdir={workdir} first")
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
        raise InputError(f"{checkpoint}: does not fit the recipe's network ({first_line(error)})") from None
