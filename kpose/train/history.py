"""The metrics of a run: TensorBoard, log lines, history.csv and the learning curve."""

import contextlib
import dataclasses
import math
import os
import resource
import time

import keras
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams_api

from kpose.core.errors import InputError, first_line
from kpose.core.progress import Progress
from kpose.drawing import charts
from kpose.metrics import keras_metrics
from kpose.runs.workdir import read_history, write_history

# Above this loss, the predictions are hundreds of crops away: the training has diverged.
DIVERGED = 1e6
# Predictions with a lower ratio of their spread to that of the labels are nearly the mean pose.
COLLAPSED_SPREAD = 0.2


class History(keras.callbacks.Callback):
    """Writes the metrics of a run: TensorBoard, log lines or a bar, history.csv and its chart.

    The time decides when a log line is written (`kpose.core.progress`). TensorBoard scalars are
    written every `log_every` steps.

    Args:
        workdir: folder to write to. An existing history is continued.
        floor: dict rule -> `keras_metrics.PCP` of the mean pose on the validation records, shown
            beside the PCP of the model; None: no validation.
        total_steps: number of steps of the training.
        batch_size: samples per step, for the rate.
        log_every: number of steps between two sets of TensorBoard scalars.
        shown: whether to log anything; with several workers, only the chief does.
        hparams: dict of the recipe's fields, for TensorBoard's table of runs.
    """

    def __init__(self, workdir, floor, total_steps, batch_size, log_every, shown=True, hparams=None):
        super().__init__()
        self._created = time.monotonic()
        self.workdir = workdir
        self.floor = _pcp_scalars(floor) if floor else {}
        self.hparams = hparams or {}
        self.total_steps = total_steps
        self.batch_size = batch_size
        self.log_every = log_every
        self.shown = shown
        self.rows = read_history(workdir)
        self._open = contextlib.ExitStack()

    def last_logs(self):
        """The last row of the history: dict of numbers."""
        return self.rows[-1] if self.rows else {}

    def on_train_begin(self, logs=None):
        self._begin(self.model.steps.done)
        self._progress.log("preparing the first step, which takes longer than the others")

    def _begin(self, start):
        """Opens the event files and the progress bar, at step `start`."""
        # The steps after the last checkpoint of a killed run are repeated.
        self.rows = [row for row in self.rows if row["step"] <= start]
        folder = os.path.join(self.workdir, "tensorboard")
        # TensorBoard draws the mean pose as a separate run in the same charts.
        names = ("train", "validation", "mean_pose", ".")
        writers = [tf.summary.create_file_writer(os.path.join(folder, name)) for name in names]
        self._train_writer, self._val_writer, self._floor_writer, hparams_writer = writers
        with writing_events(self.workdir), hparams_writer.as_default():
            fields = {name: _plain(value) for name, value in self.hparams.items()}
            hparams_api.hparams(fields, trial_id=os.path.basename(os.path.abspath(self.workdir)))
        self._progress = Progress(self.total_steps, "steps", done=start, shown=self.shown, own_lines=True)
        for opened in (self._progress, *writers):
            self._open.callback(opened.close)
        self._warm, self._rate = False, 0.0
        self._since_line, self._since_scalars = _Mark(start), _Mark(start)

    def on_train_batch_end(self, batch, logs=None):
        step = self.model.steps.done
        if not self._warm:
            # The first execution, mostly tracing, does not count. Reading a value waits for it.
            self._warm = True
            float(logs["loss"])
            self._progress.log(f"first step after {time.monotonic() - self._created:.1f} s")
            self._progress.restart()
            self._since_line, self._since_scalars = self._mark(step), self._mark(step)
        elif step // self.log_every > self._since_scalars.step // self.log_every:
            self._write_train_scalars(step, logs)
        if self._progress.line_is_due() and step > self._since_line.step:
            self._log_line(step, logs)
        if step > self._progress.done:
            self._progress.set(step)

    def _mark(self, step):
        return _Mark(step, time.monotonic(), float(self.model.data_wait))

    def _rates_since(self, mark, step):
        """(images/s, fraction of the time spent waiting for data) since a `_Mark`."""
        seconds = time.monotonic() - mark.time
        return (step - mark.step) * self.batch_size / seconds, (float(self.model.data_wait) - mark.wait) / seconds

    def _write_train_scalars(self, step, logs):
        check_converging(logs, step)
        # Reading the tensors waits for the device, so it is done only here.
        values = {name: float(value) for name, value in logs.items()}
        values["learning_rate"] = _learning_rate(self.model)
        values["images_per_second"], values["data_wait"] = self._rates_since(self._since_scalars, step)
        self._rate = values["images_per_second"]
        self._since_scalars = self._mark(step)
        self._write_scalars(self._train_writer, values, step)
        self._progress.set(step, **{"loss": f"{values['loss']:.4g}", "images/s": f"{self._rate:.0f}"})

    def _log_line(self, step, logs):
        check_converging(logs, step)
        loss, pcp = float(logs["loss"]), 100 * float(logs["pcp_strict"])
        rate, wait = self._rates_since(self._since_line, step)
        self._rate = self._rate or rate
        left = (self.total_steps - step) * self.batch_size / rate
        self._since_line = self._mark(step)
        self._progress.log_line(
            f"step {step} of {self.total_steps}: loss {loss:.4g}, PCP {pcp:.1f}% strict, {rate:.0f} images/s, "
            f"{100 * wait:.1f}% waiting for data, {left:.0f} s left"
        )

    def _write_scalars(self, writer, values, step):
        with writing_events(self.workdir), writer.as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step=step)
            writer.flush()

    def on_test_begin(self, logs=None):
        self._test_started = time.monotonic()

    def on_test_end(self, logs=None):
        # The rate of training excludes the time of evaluation.
        seconds = time.monotonic() - self._test_started
        self._since_line, self._since_scalars = self._since_line.later(seconds), self._since_scalars.later(seconds)

    def on_epoch_end(self, epoch, logs=None):
        step = self.model.steps.done
        check_converging(logs, step)
        rate = self._rate or (self._rates_since(self._since_line, step)[0] if self._warm else 0.0)
        values = {"learning_rate": _learning_rate(self.model), "images_per_second": rate}
        self._add_row(epoch + 1, step, dict(logs) | values)

    def add_evaluation(self, model, epoch, step, logs):
        """Adds the evaluation of a restored checkpoint, outside `fit`.

        Args:
            model: the `Regressor` that was evaluated.
            epoch: number of the epoch that ended, from 1.
            step: step of the checkpoint.
            logs: dict of metrics, with the names of `fit`'s logs ("val_loss" ...).
        """
        self.set_model(model)
        self._begin(step)
        self._add_row(epoch, step, logs)
        self.close()

    def _add_row(self, epoch, step, logs):
        """Adds the row of an epoch, or metrics to the row of its step; writes the evaluation."""
        before = self.rows.pop() if self.rows and self.rows[-1]["step"] == step else {}
        row = before | {"step": step, "epoch": epoch} | {name: float(value) for name, value in logs.items()}
        self.rows.append(row)
        evaluated = {name[4:]: value for name, value in row.items() if name.startswith("val_")}
        if not evaluated:
            return
        # Until the next epoch starts, the metric objects hold the state of the evaluation.
        by_rule = {m.rule: m for m in self.model.pixel_metrics if isinstance(m, keras_metrics.PCP)}
        self._write_scalars(self._val_writer, evaluated | _pcp_scalars(by_rule), step)
        self._write_scalars(self._floor_writer, self.floor, step)
        self._print_evaluation(row)
        write_history(self.workdir, self.rows)

    def _print_evaluation(self, row):
        """Prints the metrics of an evaluation, and a warning if the predictions vary little."""
        floor = f" (mean pose {100 * self.floor['pcp_strict']:.1f}% strict)" if self.floor else ""
        loss = f"loss {row['loss']:.4g}, " if "loss" in row else ""
        self._progress.write(
            f"epoch {row['epoch']}, step {row['step']}: {loss}validation loss {row['val_loss']:.4g}, "
            f"PCP {100 * row['val_pcp_strict']:.1f}% strict, {100 * row['val_pcp_mean']:.1f}% mean rule{floor}"
        )
        spread = row.get("val_spread", 1.0)
        if spread < COLLAPSED_SPREAD:
            self._progress.write(
                "warning: the model predicts nearly the mean pose for every person: the spread of its predictions is "
                f"{100 * spread:.0f}% of the spread of the labels. If this stays so, try another "
                "optimizer.learning_rate, a spatial head (model.name=integral; for a backbone model.head=spatial), "
                "or freeze less of a pretrained backbone"
            )

    def on_train_end(self, logs=None):
        write_history(self.workdir, self.rows)
        path = os.path.join(self.workdir, "learning_curve.png")
        charts.learning_curve(self.rows, path, mean_pose_pcp=self.floor.get("pcp_strict"))
        self._progress.log(f"peak memory {_peak_memory()}")

    def close(self):
        """Closes the progress bar and the event files."""
        with writing_events(self.workdir):
            self._open.close()


@dataclasses.dataclass(frozen=True)
class _Mark:
    """A step, the time of its end in seconds, and the seconds of waiting for data until then."""

    step: int
    time: float = dataclasses.field(default_factory=time.monotonic)
    wait: float = 0.0

    def later(self, seconds):
        """The mark with a later time."""
        return dataclasses.replace(self, time=self.time + seconds)


def without_improvement(rows):
    """The row of a history with the lowest validation loss, and the number of evaluations since.

    Args:
        rows: dicts by column, in order of their steps. Rows without `val_loss` do not count.

    Returns:
        (row, number of later evaluations). Equal and non-finite losses are no improvement. The row
        is None if no loss is finite, and then the number is that of all evaluations.
    """
    evaluated = [row for row in rows if "val_loss" in row]
    finite = [row for row in evaluated if math.isfinite(row["val_loss"])]
    best = min(finite, key=lambda row: row["val_loss"], default=None)
    return best, len(evaluated) - (evaluated.index(best) + 1 if best else 0)


def check_converging(logs, step):
    """Raises `InputError` if a training has diverged; called before its weights are saved."""
    loss = float(logs["loss"])
    if not loss < DIVERGED:
        raise InputError(
            f"the loss is {loss:.4g} at step {step}: lower config.optimizer.learning_rate or set "
            "config.optimizer.clip_norm, in another --workdir; the last checkpoint is from an earlier step"
        )


@contextlib.contextmanager
def writing_events(workdir):
    """A context that raises `InputError` if TensorFlow cannot write TensorBoard's files."""
    try:
        yield
    except tf.errors.OpError as error:
        reason = first_line(error.message)
        raise InputError(no_room(os.path.join(workdir, "tensorboard"), reason)) from None


def no_room(path, reason):
    """The error message if a file cannot be written; `checkpoints` has its own."""
    return (
        f"{path}: cannot be written ({reason}): free some space and run the same command again; it continues from the "
        "last checkpoint, which is complete"
    )


def _pcp_scalars(by_rule):
    """dict of floats: the result of the `PCP` metric of each rule, and strict PCP by limb."""
    averages = {f"pcp_{rule}": float(metric.result()) for rule, metric in by_rule.items()}
    strict = by_rule["strict"].by_limb() if "strict" in by_rule else {}
    return averages | {f"pcp_strict_by_limb/{limb}": value for limb, value in strict.items()}


def _peak_memory():
    """One line: the peak memory of the process and of each GPU."""
    parts = [f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB of the process"]
    for gpu in tf.config.list_logical_devices("GPU"):
        peak = tf.config.experimental.get_memory_info(gpu.name.split("device:")[-1])["peak"]
        parts.append(f"{peak / 2**30:.1f} GB of {gpu.name.split('device:')[-1]}")
    return ", ".join(parts)


def _plain(value):
    """A value that TensorBoard's table can hold."""
    return value if isinstance(value, bool | int | float | str) else str(value)


def _learning_rate(model):
    # It is a tensor of a schedule, or a variable that is mirrored on the replicas.
    return float(tf.convert_to_tensor(model.optimizer.learning_rate))
