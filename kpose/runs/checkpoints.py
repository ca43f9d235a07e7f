"""Checkpoints of a training run: all state that its next step depends on.

checkpoints/step-1000...   the newest checkpoints
checkpoints/checkpoint     their names, in the order of their steps (TensorFlow's state file)
checkpoints/best/step-900  the checkpoint with the best validation score, if there is validation

A checkpoint is valid when it is complete and listed. If the newest one is damaged, it is logged and
renamed, and the one before it is used. The steps decide which checkpoints are kept, never the time.
"""

import glob
import json
import os
import re

import tensorflow as tf
from absl import logging

from kpose.core import files, startup
from kpose.core.errors import InputError, first_line

FOLDER = "checkpoints"
BEST_FOLDER = os.path.join(FOLDER, "best")
BEST_FILE = "best.json"
STATE_FILE = "checkpoint"
EPOCH_METRICS = "epoch_metrics"
_UNREADABLE = (tf.errors.OpError, AssertionError, ValueError, IndexError, KeyError)


class Checkpoints:
    """The checkpoints of a workdir.

    Args:
        workdir: the run's folder.
        regressor: the `regressor.Regressor`. Its weights and their averages, BatchNorm statistics,
            dropout seeds, the variables of the loss, the optimiser, the loss scale and the metrics
            of the epoch so far are saved.
        keep: number of newest checkpoints that are kept.
        written: folder to write to; None: `workdir`. Workers other than the chief must take part in
            writing, but write to another folder.
    """

    def __init__(self, workdir, regressor, keep, written=None):
        self._workdir = workdir
        self._written = written or workdir
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        # Number of the next batch. After a rollback left out batches, it is larger than the step.
        self._position = tf.Variable(0, dtype=tf.int64, trainable=False)
        # JSON of the metrics of the epoch so far.
        with tf.device("CPU:0"):
            self._epoch = tf.Variable("", dtype=tf.string, trainable=False)
        self._epoch_metrics = regressor.epoch_metrics
        parts = {
            "step": self._step,
            "position": self._position,
            "network": regressor.network,
            # Keras' seed generators are not trackable: TensorFlow would not save dropout's state.
            "seeds": [v.value for v in regressor.network.variables if v.name == "seed_generator_state"],
            "averages": list(regressor.averages),
            "loss": [v.value for v in regressor.sample_loss.trainable_variables],
            "optimizer": regressor.optimizer,
            "loss_scale": regressor.loss_scale,
            "finite_steps": regressor.finite_steps,
        }
        self._read = tf.train.Checkpoint(**parts)
        # Checkpoints of older versions lack this part, so that it is read separately.
        self._checkpoint = tf.train.Checkpoint(**parts, **{EPOCH_METRICS: self._epoch})
        self._newest = _Folder(os.path.join(self._written, FOLDER), keep)
        self._best = _Folder(os.path.join(self._written, BEST_FOLDER), 1)

    def restore(self):
        """Restores the newest checkpoint that is complete.

        Returns:
            (step, number of the next batch); (0, 0) if there is no checkpoint.

        Raises:
            InputError: there are checkpoints, but none can be restored.
        """
        chief = self._written == self._workdir
        if chief:
            self._newest.remove_leftovers()
            self._best.remove_leftovers()
        folder = os.path.join(self._workdir, FOLDER)
        paths = _listed(folder)
        damaged = []
        while paths:
            path = paths.pop()
            try:
                # Without `expect_partial` TensorFlow warns that the metrics are not restored here.
                self._read.restore(path).assert_existing_objects_matched().expect_partial()
                self._epoch_metrics.restored = _epoch_metrics(path)
            except _UNREADABLE as error:
                damaged.append((path, first_line(error)))
                continue
            for bad, reason in damaged:
                logging.warning("%s: damaged (%s), renamed to *.damaged: continuing from %s", bad, reason, path)
                if chief:
                    _set_aside(bad)
            if damaged and chief:
                _write_state([*paths, path])
            return int(self._step.numpy()), int(self._position.numpy())
        if damaged:
            raise InputError(
                f"{damaged[0][0]}: the checkpoint cannot be restored ({damaged[0][1]}), and no earlier one can: they "
                "are damaged, or from another version of kpose; use another --workdir"
            )
        return 0, 0

    def save(self, step, position):
        """Writes the checkpoint of a step, unless it exists.

        Args:
            step: number of steps that are done.
            position: number of the next batch.

        Raises:
            InputError: the checkpoint cannot be written, for example because the disk is full.
        """
        self._write(self._newest, step, position)

    def restore_best(self, scores):
        """Writes the score of the best checkpoint again if its file is missing or damaged.

        Args:
            scores: {step: validation score} of the run's history. Without the score of the best
                checkpoint, the next evaluation is the best so far.
        """
        if self._written != self._workdir:
            return
        path, paths = os.path.join(self._best.path, BEST_FILE), list(filter(_is_complete, _listed(self._best.path)))
        if not paths or files.read_json_or_set_aside(path, "score of a checkpoint", _has_score):
            return
        step = _step_of(paths[-1])
        if step in scores:
            files.write_json(path, {"step": step, "score": scores[step]})
            logging.warning("%s: missing or damaged: written again from the history", path)

    def save_if_best(self, step, position, score):
        """Writes the best checkpoint if the score is higher than all earlier scores.

        Args:
            step, position: as for `save`.
            score: the validation score; higher is better.
        """
        path = os.path.join(self._written, BEST_FOLDER, BEST_FILE)
        best = files.read_json_or_set_aside(path, "score of a checkpoint", _has_score)
        if best and best["score"] >= score:
            return
        self._write(self._best, step, position)
        files.write_json(path, {"step": step, "score": score})

    def _write(self, folder, step, position):
        paths = _listed(folder.path)
        path = os.path.join(folder.path, f"step-{step}")
        if path in paths and _is_complete(path):
            return
        self._step.assign(step)
        self._position.assign(position)
        self._epoch.assign(json.dumps(self._epoch_metrics.state()))
        # TensorFlow creates this variable when it restores, and expects it in the checkpoint.
        self._checkpoint.save_counter.assign_add(1)
        try:
            os.makedirs(folder.path, exist_ok=True)
            self._checkpoint.write(path)
            folder.add(path)
        except (tf.errors.OpError, OSError) as error:
            folder.remove_leftovers()
            message = first_line(getattr(error, "message", None) or error)
            kept = f"{paths[-1]} is complete" if paths else "there is no earlier one"
            raise InputError(
                f"{folder.path}: the checkpoint of step {step} cannot be written ({message}): free some space and run "
                f"the same command again; {kept}"
            ) from None


def _epoch_metrics(path):
    """The metrics of the epoch that a checkpoint holds; {} for a checkpoint without them."""
    reader, name = tf.train.load_checkpoint(path), f"{EPOCH_METRICS}/.ATTRIBUTES/VARIABLE_VALUE"
    return json.loads(reader.get_tensor(name)) if reader.has_tensor(name) else {}


def _has_score(data):
    """Whether the data of a best.json hold a score."""
    return isinstance(data, dict) and isinstance(data.get("score"), float | int)


class _Folder:
    """A folder of checkpoints that keeps the newest `keep` of them."""

    def __init__(self, path, keep):
        self.path = path
        self._keep = keep
        _restore_state(path)

    def add(self, path):
        """Lists a complete checkpoint; removes the ones with the lowest steps beyond `keep`."""
        # After a rollback to an earlier step, the later checkpoints are written again.
        paths = sorted({*_listed(self.path), path}, key=_step_of)
        _write_state(paths[-self._keep :])
        for old in paths[: -self._keep]:
            _remove(old)

    def remove_leftovers(self):
        """Removes unlisted checkpoints that are incomplete, or older than all listed ones.

        Interrupted writes leave them. Complete newer checkpoints stay, and so do all other files.
        """
        listed = _listed(self.path)
        oldest = min(map(_step_of, listed), default=0)
        for path in {_path_of(name) for name in glob.glob(os.path.join(glob.escape(self.path), "step-*"))} - {None}:
            if path not in listed and (not _is_complete(path) or _step_of(path) < oldest):
                _remove(path)


def _path_of(name):
    """The checkpoint of a file, or of a temporary folder; None if kpose did not write it."""
    match = re.fullmatch(r"(step-\d+)(_temp|\.(index|data-\d{5}-of-\d{5})(\.tempstate\d+)?)", os.path.basename(name))
    return os.path.join(os.path.dirname(name), match[1]) if match else None


def _is_complete(path):
    """Whether a checkpoint has its index and its data."""
    return os.path.exists(f"{path}.index") and bool(glob.glob(f"{glob.escape(path)}.data-*"))


def _step_of(path):
    """The step of a checkpoint, from its name."""
    return int(path.rpartition("-")[2])


def _remove(path):
    """Removes the files of a checkpoint."""
    for name in glob.glob(f"{glob.escape(path)}*"):
        if _path_of(name) == path:
            files.remove(name)


def _listed(folder):
    """The checkpoints of a folder by its state file, or by name without one, in order of steps."""
    paths = _in_state(folder)
    if not any(map(_has_files, paths)):
        # The file is missing or damaged, or it was copied from another run.
        paths = _by_name(folder) or paths
    return sorted(set(paths), key=_step_of)


def _in_state(folder):
    """The checkpoints of this folder that its state file lists; [] if it is missing or damaged.

    Only the names count. A copied or changed file may hold paths of another folder, and checkpoints
    there must not be read or removed.
    """
    try:
        state = tf.train.get_checkpoint_state(folder)
    except ValueError:
        # The file is empty or not text.
        state = None
    names = map(os.path.basename, state.all_model_checkpoint_paths if state else ())
    paths = (os.path.join(folder, name) for name in names)
    return [path for path in paths if _path_of(f"{path}.index") == path]


def _has_files(path):
    """Whether any file of a checkpoint exists."""
    return bool(glob.glob(f"{glob.escape(path)}.*"))


def _by_name(folder):
    """The paths of all complete checkpoints in a folder."""
    names = glob.glob(os.path.join(glob.escape(folder), "step-*.index"))
    return [path for path in map(_path_of, names) if path and _is_complete(path)]


def _restore_state(folder):
    """Writes the state file of a folder again if it is missing, damaged or of another folder."""
    path, paths = os.path.join(folder, STATE_FILE), _listed(folder)
    if paths and set(_in_state(folder)) == set(paths):
        return
    if paths:
        _write_state(paths)
        logging.warning("%s: missing or damaged: written again with %s", path, ", ".join(map(os.path.basename, paths)))
    elif os.path.exists(path):
        os.remove(path)


def _write_state(paths):
    """Writes the state file for these checkpoints of one folder, in the order of their steps."""
    names = [os.path.basename(path) for path in paths]
    # Other readers of the file, such as TensorFlow's CheckpointManager, need the times.
    times = [os.path.getmtime(f"{path}.index") if os.path.exists(f"{path}.index") else 0.0 for path in paths]
    # TensorFlow takes the names to be relative to the current folder if this one is.
    folder = os.path.abspath(os.path.dirname(paths[0]))
    with startup.quiet_tensorflow():
        tf.compat.v1.train.update_checkpoint_state(folder, names[-1], names, None, times, last_preserved_timestamp=0.0)


def _set_aside(path):
    """Renames the files of a damaged checkpoint to *.damaged."""
    for name in glob.glob(glob.escape(path) + ".*"):
        os.replace(name, f"{name}.damaged")


def exist(workdir):
    """Whether a workdir holds a checkpoint."""
    return workdir is not None and any(map(_is_complete, _listed(os.path.join(workdir, FOLDER))))


def latest(workdir, best=False):
    """The path of the newest checkpoint of a workdir, or of the best one.

    Args:
        workdir: the run's folder.
        best: return the checkpoint with the best validation score.

    Raises:
        InputError: the checkpoint does not exist.
    """
    paths = [path for path in _listed(os.path.join(workdir, BEST_FOLDER if best else FOLDER)) if _is_complete(path)]
    if not paths:
        what = "no best checkpoint: it needs config.data.val" if best else "no checkpoint"
        raise InputError(f"{workdir}: {what}: train with python -m kpose.train --workdir={workdir} first")
    return paths[-1]


def restore_network(network, checkpoint, averaged=False):
    """Loads the weights of a network from a training checkpoint.

    Args:
        network: the network of the recipe.
        checkpoint: path of the checkpoint.
        averaged: load the moving averages of the weights.

    Raises:
        InputError: the checkpoint is missing, damaged or of another network.
    """
    try:
        tf.train.Checkpoint(network=network).restore(checkpoint).assert_existing_objects_matched().expect_partial()
        if averaged:
            reader = tf.train.load_checkpoint(checkpoint)
            for index, variable in enumerate(network.trainable_variables):
                variable.assign(reader.get_tensor(f"averages/{index}/.ATTRIBUTES/VARIABLE_VALUE"))
    except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
        raise InputError(
            f"{checkpoint}: damaged, or of another network than the recipe's ({first_line(error)})"
        ) from None
