"""Keras callbacks: checkpoints, Ctrl-C and SIGTERM, early stopping, freezing, profiler, predictions."""

import os
import signal
import threading

import keras
import tensorflow as tf
from absl import logging

from kpose.drawing import sheets
from kpose.train.history import check_converging, score_of, without_improvement, writing_events


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves checkpoints every `every` steps and at the end, and one with the best validation score.

    Args:
        saver: `checkpoints.Checkpoints`.
        every: number of steps between two checkpoints.
        total_steps: number of steps of the training.
        watch: the `WatchFinite` of the training, which checks every step before it is saved.
        ahead: number of batches that rollbacks left out.
    """

    def __init__(self, saver, every, total_steps, watch, ahead=0):
        super().__init__()
        self.saver = saver
        self.watch = watch
        self.every = every
        self.total_steps = total_steps
        self.ahead = ahead
        self._saved = None

    def on_train_begin(self, logs=None):
        self._saved = self.model.steps.done

    def on_train_batch_end(self, batch, logs=None):
        step = self.model.steps.done
        if step // self.every > self._saved // self.every or (step >= self.total_steps and step > self._saved):
            check_converging(logs, step)
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        if "val_loss" in logs:
            step = self.model.steps.done
            self.saver.save_if_best(step, step + self.ahead, score_of(logs))

    def save(self):
        """Saves a checkpoint of the last step, unless it exists."""
        step = self.model.steps.done
        if step > self._saved:
            # A rollback returns to the last checkpoint, so it must not contain a bad step.
            self.watch.look()
            self.saver.save(step, step + self.ahead)
            self._saved = step


class Preempted(Exception):
    """A signal stopped the training; all steps that are done are saved.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number):
        super().__init__(number)
        self.number = number

    @property
    def cause(self):
        """What the user calls the signal: "Ctrl-C", or its name."""
        return "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name


class Termination:
    """A context that handles Ctrl-C, and SIGTERM, which clusters send before they stop a machine.

    The handler only sets `requested`: an exception in the middle of TensorFlow's tracing would come
    out as another error. `check` and `SaveOnTermination` end the training. After the first signal,
    Ctrl-C ends the process at once. Another SIGTERM changes nothing: some launchers send two.

    Attributes:
        requested: number of the signal that came; 0 before.
    """

    def __init__(self):
        self.requested = 0
        self._before = {}

    def __enter__(self):
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self):
        """Raises `Preempted` if a signal came; for the time before the first step."""
        if self.requested:
            raise Preempted(self.requested)

    def _handle(self, number, _):
        if self.requested:
            return
        self.requested = number
        # Python's own handler would have to wait until TensorFlow returns.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        # The log may be in use by the code that was interrupted.
        os.write(2, b"\nstopping after the current step; another Ctrl-C ends at once, and saves nothing\n")


class SaveOnTermination(keras.callbacks.Callback):
    """Saves a checkpoint and raises `Preempted` after Ctrl-C or SIGTERM.

    Args:
        termination: the `Termination`.
        gather: function (integer of this worker) -> integers of all workers. All workers take part
            in writing a checkpoint, so a signal to one worker stops all after the same step.
        saving: the `SaveCheckpoints` of the training; None: there is nothing to save.
    """

    def __init__(self, termination, gather, saving=None):
        super().__init__()
        self.termination = termination
        self.gather = gather
        self.saving = saving

    def _end_if_requested(self):
        number = max(self.gather(self.termination.requested))
        if number:
            if self.saving:
                self.saving.save()
            raise Preempted(number)

    def on_train_begin(self, logs=None):
        self._end_if_requested()

    def on_train_batch_end(self, batch, logs=None):
        self._end_if_requested()

    def on_test_batch_end(self, batch, logs=None):
        self._end_if_requested()


class StopWithoutImprovement(keras.callbacks.Callback):
    """Ends the training when the validation loss does not get lower (`config.stop_after`).

    The history decides. A resumed training therefore ends at the step of an uninterrupted one.

    Args:
        stop_after: number of evaluations without a lower validation loss.
        history: the `History` of the training, which runs before this callback.
        saving: the `SaveCheckpoints` of the training.
        gather: as for `SaveOnTermination`. The history of the chief decides for all workers.
    """

    def __init__(self, stop_after, history, saving, gather):
        super().__init__()
        self.stop_after = stop_after
        self.history = history
        self.saving = saving
        self.gather = gather

    def on_epoch_end(self, epoch, logs=None):
        if "val_loss" not in logs:
            return
        waited = without_improvement(self.history.rows)[1]
        if self.gather(int(waited >= self.stop_after))[0]:
            self.saving.save()
            self.model.stop_training = True


class FreezeBackbone(keras.callbacks.Callback):
    """Freezes the backbone for the first epochs (`config.model.freeze_epochs`).

    Only the epoch decides, so a resumed training gives the same result as an uninterrupted one.

    Args:
        epochs: number of epochs without training of the backbone.
    """

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        self.model.freeze(self.model.network.get_layer("backbone"), epoch < self.epochs)


class Profile(keras.callbacks.Callback):
    """Writes a trace of some steps for TensorBoard's profiler.

    Args:
        workdir: the run's folder.
        first, last: numbers of the first and last step, as in the log. An execution of several
            steps is traced completely.
    """

    def __init__(self, workdir, first, last):
        super().__init__()
        self.folder = os.path.join(workdir, "tensorboard", "train")
        self.first, self.last = first, last
        self._running = self._done = False

    def on_train_batch_begin(self, batch, logs=None):
        step, coming = self.model.steps.done, self.model.steps.coming
        if not self._running and not self._done and step < self.last and step + coming > self.first:
            tf.profiler.experimental.start(self.folder)
            self._running, self._began = True, step

    def on_train_batch_end(self, batch, logs=None):
        if self._running and self.model.steps.done >= self.last:
            # Reading a value waits for the device, so that the trace holds all operations.
            float(logs["loss"])
            self._stop()

    def on_train_end(self, logs=None):
        if self._running:
            self._stop()
        if not self._done:
            logging.warning(
                "--profile=%d:%d: no such step ran, so there is no trace: the training ended at step %d",
                self.first,
                self.last,
                self.model.steps.done,
            )

    def _stop(self):
        tf.profiler.experimental.stop()
        self._running, self._done = False, True
        logging.info("profile of steps %d to %d: see TensorBoard's Profile tab", self._began, self.model.steps.done)


class PredictionGrid(keras.callbacks.Callback):
    """Writes a TensorBoard image after each evaluation: labels and predictions of some persons.

    Args:
        workdir: the run's folder.
        evaluation: the validation batches; their first persons are drawn.
        skeleton: the `Skeleton` to draw.
        persons: number of persons.
    """

    def __init__(self, workdir, evaluation, skeleton, persons=12):
        super().__init__()
        self.workdir = workdir
        self.skeleton = skeleton
        batch = next(evaluation.unbatch().batch(persons).as_numpy_iterator())
        real = batch["weight"] > 0
        self.batch = {key: value[real] for key, value in batch.items()}
        self._writer = tf.summary.create_file_writer(os.path.join(workdir, "tensorboard", "validation"))

    def on_epoch_end(self, epoch, logs=None):
        if "val_loss" not in logs:
            return
        prediction = self.model.predict_crops(self.batch["image"], self.batch["region"])["keypoints"]
        picture = sheets.prediction_grid(
            self.batch["image"],
            self.batch["keypoints"],
            keras.ops.convert_to_numpy(prediction),
            self.skeleton,
            self.batch["region"],
        )
        with writing_events(self.workdir), self._writer.as_default():
            tf.summary.image("truth and prediction", picture[None], step=self.model.steps.done)
            self._writer.flush()
