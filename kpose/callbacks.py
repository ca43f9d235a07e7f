"""What happens beside training: log lines, TensorBoard, history, checkpoints, pictures."""

import contextlib
import csv
import os
import resource
import signal
import sys
import threading
import time

import keras
import tensorflow as tf
from absl import logging
from tensorboard.plugins.hparams import api as hparams_api
from tqdm import tqdm

import kpose
from kpose import drawing, files, metrics, plots
from kpose.errors import InputError, first_line

# No person's loss is that large unless the predictions are hundreds of crops away.
DIVERGED = 1e6
HISTORY_FILE = "history.csv"
# Predictions that vary less than this, relative to the labels, are the mean pose for everyone.
COLLAPSED_SPREAD = 0.2


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves a checkpoint every so many steps and at the end, and keeps the one of the best validation.

    Args:
        saver: `checkpoints.Checkpoints`.
        every: steps between two checkpoints.
        total_steps: of the training.
        watch: the `WatchFinite` of the training: no step is saved that it has not looked at.
        ahead: by how many batches the data are ahead of the steps, because that many were left out.
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
            _check_converging(logs, step)
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        if "val_pcp_strict" in logs:
            step = self.model.steps.done
            self.saver.save_if_best(step, step + self.ahead, float(logs["val_pcp_strict"]))

    def save(self):
        """Saves the step that is done."""
        step = self.model.steps.done
        if step > self._saved:
            # After a rollback the training goes on from the last step that was saved: none may be beyond a bad one.
            self.watch.look()
            self.saver.save(step, step + self.ahead)
            self._saved = step


class Preempted(Exception):
    """The training was told to end (SIGTERM), and is saved."""


class Termination:
    """SIGTERM, which clusters send before they take a machine away: a context in which it ends the process well.

    Raises `Preempted` where it comes before the training (nothing is to be saved yet); later `asked` is set.
    """

    def __init__(self):
        self.asked = self.training = False
        self._before = None

    def __enter__(self):
        # Only the main thread may; elsewhere whoever started the thread looks after signals.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_):
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _handle(self, *_):
        self.asked = True
        if not self.training:
            raise Preempted


class SaveOnTermination(keras.callbacks.Callback):
    """Ends a training that was asked to: saves and raises `Preempted`.

    Args:
        termination: the `Termination`.
        saving: the `SaveCheckpoints` of the training.
        gather: a number -> every worker's. A checkpoint takes all workers, so what one is asked all do, at one step.
    """

    def __init__(self, termination, saving, gather):
        super().__init__()
        self.termination = termination
        self.saving = saving
        self.gather = gather

    def _end_if_asked(self):
        if any(self.gather(int(self.termination.asked))):
            self.saving.save()
            raise Preempted

    def on_train_begin(self, logs=None):
        self.termination.training = True
        self._end_if_asked()

    def on_train_batch_end(self, batch, logs=None):
        self._end_if_asked()

    def on_test_batch_end(self, batch, logs=None):
        self._end_if_asked()


class NonFinite(Exception):
    """A training step gave a gradient that is not finite, and was skipped.

    Attributes:
        step: its number.
    """

    def __init__(self, step):
        super().__init__(f"step {step}")
        self.step = step


class WatchFinite(keras.callbacks.Callback):
    """Looks after steps that were not finite (`config.on_nan`).

    Args:
        policy: "skip" tells how many were skipped; otherwise `NonFinite` is raised.
        every: steps between two looks; each makes Python wait for the device.
    """

    # Skipping so many in a row is no training any more.
    LONGEST = 50

    def __init__(self, policy, every):
        super().__init__()
        self.policy = policy
        self.every = every

    def on_train_begin(self, logs=None):
        self._looked, self._skipped, self._in_a_row = self.model.steps.done, _whole(self.model.skipped_steps), 0

    def on_train_batch_end(self, batch, logs=None):
        if self.model.steps.done - self._looked >= self.every:
            self.look()

    def on_epoch_end(self, epoch, logs=None):
        self.look()

    def look(self):
        """Looks at the steps since the last look.

        Raises:
            NonFinite: one was not finite, and that is not to be skipped.
        """
        done = self.model.steps.done
        if done == self._looked:
            return
        skipped, taken = _whole(self.model.skipped_steps) - self._skipped, done - self._looked
        self._looked, self._skipped = done, self._skipped + skipped
        if not skipped:
            self._in_a_row = 0
            return
        self._in_a_row = self._in_a_row + skipped if skipped == taken else 0
        step = _whole(self.model.nonfinite_step)
        if self.policy != "skip" or self._in_a_row >= self.LONGEST:
            raise NonFinite(step)
        logging.warning("step %d was not finite: skipped, %d in all", step, self._skipped)


class FreezeBackbone(keras.callbacks.Callback):
    """Leaves the backbone as it is for the first epochs, then trains it (`config.model.freeze_epochs`).

    The epoch alone decides, so a resumed training does as an uninterrupted one.

    Args:
        epochs: how many.
    """

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        self.model.freeze(self.model.network.get_layer("backbone"), epoch < self.epochs)


class History(keras.callbacks.Callback):
    """The run's figures: TensorBoard scalars, log lines or a progress bar, and history.csv with its picture.

    Args:
        workdir: where they go. A history that is already there is continued.
        floor: the mean pose's `metrics.PCP` on the validation records by rule, shown beside the model's (None: no
            validation).
        total_steps: of the training.
        batch_size: samples a step, for the rate.
        log_every: steps between two log lines.
        tell: whether to say anything; of several workers one does.
        hparams: the recipe's fields, for TensorBoard's table of runs.
    """

    def __init__(self, workdir, floor, total_steps, batch_size, log_every, tell=True, hparams=None):
        super().__init__()
        self.workdir = workdir
        self.floor = _pcp_scalars(floor) if floor else {}
        self.hparams = hparams or {}
        self.total_steps = total_steps
        self.batch_size = batch_size
        self.log_every = log_every
        self.tell = tell
        self.path = os.path.join(workdir, HISTORY_FILE)
        self.rows = read_history(workdir)
        self._open = contextlib.ExitStack()

    def last_logs(self):
        """The figures of the last evaluated epoch."""
        return self.rows[-1] if self.rows else {}

    def on_train_begin(self, logs=None):
        self.begin(self.model.steps.done)

    def begin(self, start):
        """Opens the event files and the bar, at step `start`."""
        # What a killed run did after its last checkpoint is done again.
        self.rows = [row for row in self.rows if row["step"] <= start]
        folder = os.path.join(self.workdir, "tensorboard")
        # The floor is a run of its own: TensorBoard draws it into the model's charts.
        names = ("train", "validation", "mean_pose", ".")
        writers = [tf.summary.create_file_writer(os.path.join(folder, name)) for name in names]
        self._train_writer, self._val_writer, self._floor_writer, whole = writers
        with _writing_events(self.workdir), whole.as_default():
            fields = {name: _plain(value) for name, value in self.hparams.items()}
            hparams_api.hparams(fields, trial_id=os.path.basename(os.path.abspath(self.workdir)))
        bar = sys.stderr.isatty() and self.tell
        self._bar = tqdm(total=self.total_steps, initial=start, unit="step", disable=not bar, dynamic_ncols=True)
        for opened in (self._bar, *writers):
            self._open.callback(opened.close)
        self._warm, self._rate = False, None
        self._mark(start)

    def _mark(self, step):
        self._marked_step, self._marked_time, self._marked_wait = step, time.monotonic(), float(self.model.data_wait)

    def on_train_batch_end(self, batch, logs=None):
        step = self.model.steps.done
        self._bar.update(step - self._bar.n)
        if not self._warm:
            # The first execution was mostly tracing.
            self._warm = True
            # Reading a figure waits for the device.
            float(logs["loss"])
            self._info("first step after %.1f s", time.monotonic() - kpose.STARTED)
            self._mark(step)
        if step // self.log_every > self._marked_step // self.log_every or self._marked_step == step:
            self._log(step, logs)

    def _log(self, step, logs):
        if step == self._marked_step:
            return
        _check_converging(logs, step)
        # The figures are tensors until here: reading them waits for the device.
        figures = {name: float(value) for name, value in logs.items()}
        figures["learning_rate"] = _learning_rate(self.model)
        seconds = time.monotonic() - self._marked_time
        self._rate = figures["images_per_second"] = (step - self._marked_step) * self.batch_size / seconds
        figures["data_wait"] = (float(self.model.data_wait) - self._marked_wait) / seconds
        self._mark(step)
        self._write_scalars(self._train_writer, figures, step)
        self._bar.set_postfix({"loss": f"{figures['loss']:.4g}", "images/s": f"{figures['images_per_second']:.0f}"})
        if self._bar.disable:
            left = (self.total_steps - step) * self.batch_size / figures["images_per_second"]
            self._info(
                "step %d of %d: loss %.4g, PCP %.1f%% strict, %.0f images/s, %.1f%% waiting for data, %.0f s left",
                step,
                self.total_steps,
                figures["loss"],
                100 * figures["pcp_strict"],
                figures["images_per_second"],
                100 * figures["data_wait"],
                left,
            )

    def _write_scalars(self, writer, figures, step):
        with _writing_events(self.workdir), writer.as_default():
            for name, value in figures.items():
                tf.summary.scalar(name, value, step=step)
            writer.flush()

    def _info(self, text, *values):
        if self._bar.disable:
            logging.info(text, *values)
        else:
            # A log line would tear the bar.
            self._say(text % values)

    def _say(self, text):
        if self.tell:
            self._bar.write(text, file=sys.stderr)

    def on_test_begin(self, logs=None):
        self._test_started = time.monotonic()

    def on_test_end(self, logs=None):
        # Evaluation is not part of the training rate.
        self._marked_time += time.monotonic() - self._test_started

    def on_epoch_end(self, epoch, logs=None):
        step = self.model.steps.done
        _check_converging(logs, step)
        rates = {"learning_rate": _learning_rate(self.model), "images_per_second": self._rate or 0.0}
        self.note(epoch, step, dict(logs) | rates)

    def note(self, epoch, step, logs):
        """Takes down the figures of an epoch's end; of one that is there already, the further ones."""
        before = self.rows.pop() if self.rows and self.rows[-1]["step"] == step else {}
        row = before | {"step": step, "epoch": epoch + 1} | {name: float(value) for name, value in logs.items()}
        self.rows.append(row)
        evaluated = {name[4:]: value for name, value in row.items() if name.startswith("val_")}
        if evaluated:
            # The metrics hold the evaluation's counts until the next epoch begins.
            by_rule = {m.rule: m for m in self.model.pixel_metrics if isinstance(m, metrics.PCP)}
            self._write_scalars(self._val_writer, evaluated | _pcp_scalars(by_rule), step)
            self._write_scalars(self._floor_writer, self.floor, step)
            floor = f" (mean pose {100 * self.floor['pcp_strict']:.1f}% strict)" if self.floor else ""
            loss = f"loss {row['loss']:.4g}, " if "loss" in row else ""
            self._say(
                f"epoch {epoch + 1}, step {step}: {loss}validation loss {row['val_loss']:.4g}, "
                f"PCP {100 * row['val_pcp_strict']:.1f}% strict, {100 * row['val_pcp_mean']:.1f}% mean rule{floor}"
            )
            if evaluated.get("spread", 1.0) < COLLAPSED_SPREAD:
                self._say(
                    f"warning: the model predicts (nearly) the mean pose for everyone: its predictions vary "
                    f"{100 * evaluated['spread']:.0f}% as much as the labels. If that stays so, try another "
                    "optimizer.learning_rate, a spatial head (model.name=integral, or model.head=spatial of a "
                    "backbone), or freeze less of a pretrained backbone"
                )
            _write_rows(self.path, self.rows)

    def on_train_end(self, logs=None):
        _write_rows(self.path, self.rows)
        path = os.path.join(self.workdir, "learning_curve.png")
        plots.learning_curve(self.rows, path, mean_pose_pcp=self.floor.get("pcp_strict"))
        self._info("peak memory %s", _peak_memory())

    def close(self):
        """Ends the bar and the event files, also of a training that was cut short."""
        with _writing_events(self.workdir):
            self._open.close()


class Profile(keras.callbacks.Callback):
    """Keeps a trace of some steps for TensorBoard's profiler.

    Args:
        workdir: the run's folder.
        first, last: the steps, counted as in the log; executions of several steps are traced whole.
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
            # Reading a figure waits for the device: of steps under way the trace would lack the end.
            float(logs["loss"])
            self._stop()

    def on_train_end(self, logs=None):
        if self._running:
            self._stop()
        if not self._done:
            logging.warning(
                "--profile=%d:%d: no such step ran, nothing was traced: the training ended at step %d",
                self.first,
                self.last,
                self.model.steps.done,
            )

    def _stop(self):
        tf.profiler.experimental.stop()
        self._running, self._done = False, True
        logging.info("profile of steps %d to %d: see TensorBoard's Profile tab", self._began, self.model.steps.done)


class PredictionGrid(keras.callbacks.Callback):
    """After each evaluation, validation persons with truth beside prediction, as a TensorBoard image.

    Args:
        workdir: the run's folder.
        evaluation: the validation batches; the persons are the first of them.
        skeleton: the `Skeleton` to draw.
        persons: how many.
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
        prediction = self.model.predict_crops(self.batch["image"])["keypoints"]
        picture = drawing.prediction_grid(
            self.batch["image"],
            self.batch["keypoints"],
            keras.ops.convert_to_numpy(prediction),
            self.skeleton,
            self.batch["region"],
        )
        with _writing_events(self.workdir), self._writer.as_default():
            tf.summary.image("truth and prediction", picture[None], step=self.model.steps.done)
            self._writer.flush()


def _check_converging(logs, step):
    """Ends a training that has diverged, before its weights become a checkpoint."""
    loss = float(logs["loss"])
    if not loss < DIVERGED:
        raise InputError(
            f"the loss is {loss:.4g} at step {step}: lower config.optimizer.learning_rate or set "
            "config.optimizer.clip_norm, in another --workdir; the last checkpoint is from before"
        )


@contextlib.contextmanager
def _writing_events(workdir):
    """Makes one line of what TensorFlow says where it cannot write TensorBoard's files."""
    try:
        yield
    except tf.errors.OpError as error:
        reason = first_line(error.message)
        raise InputError(no_room(os.path.join(workdir, "tensorboard"), reason)) from None


def no_room(path, reason):
    """The message for a disk that is full (checkpoints have their own)."""
    return (
        f"{path}: cannot be written ({reason}): make room, and give the same command again; it goes on from the last "
        "checkpoint, which is whole"
    )


def _pcp_scalars(by_rule):
    """TensorBoard's names and figures of `metrics.PCP` by rule: the average of each, every limb of the strict one."""
    figures = {f"pcp_{rule}": float(metric.result()) for rule, metric in by_rule.items()}
    strict = by_rule["strict"].by_limb() if "strict" in by_rule else {}
    return figures | {f"pcp_strict_by_limb/{limb}": value for limb, value in strict.items()}


def _peak_memory():
    parts = [f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB of the process"]
    for gpu in tf.config.list_logical_devices("GPU"):
        peak = tf.config.experimental.get_memory_info(gpu.name.split("device:")[-1])["peak"]
        parts.append(f"{peak / 2**30:.1f} GB of {gpu.name.split('device:')[-1]}")
    return ", ".join(parts)


def _plain(value):
    return value if isinstance(value, bool | int | float | str) else str(value)


def _whole(variable):
    # Of a variable that is mirrored on the replicas, int() would make nothing.
    return int(tf.convert_to_tensor(variable))


def _learning_rate(model):
    # A tensor from a schedule, or a variable that is mirrored on the replicas.
    return float(tf.convert_to_tensor(model.optimizer.learning_rate))


def read_history(workdir):
    """The rows of a run's history.csv, as dicts of numbers; [] where there is none."""
    path = os.path.join(workdir, HISTORY_FILE)
    if not os.path.exists(path):
        return []
    with open(path, newline="") as file:
        return [
            {name: int(value) if name in ("step", "epoch") else float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def _write_rows(path, rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with files.replacing(path) as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
