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

from kpose.core import validation_sets
from kpose.core.errors import InputError, first_line
from kpose.core.progress import Progress
from kpose.drawing import charts
from kpose.metrics import coco, keras_metrics
from kpose.runs.workdir import read_history, write_history

# Above this loss, the predictions are hundreds of crops away: the training has diverged.
DIVERGED = 1e6
# Predictions with a lower ratio of their spread to that of the labels are nearly the mean pose.
COLLAPSED_SPREAD = 0.2
# What decides the best checkpoint: the first that an evaluation has.
SCORES = ("val_pcp_strict", "val_oks_ap", "val_pdj_0.2")


class History(keras.callbacks.Callback):
    """Writes the metrics of a run: TensorBoard, log lines or a bar, history.csv and its chart.

    The time decides when a log line is written (`kpose.core.progress`). TensorBoard scalars are
    written every `log_every` steps.

    Args:
        workdir: folder to write to. An existing history is continued.
        floors: for each validation set, the `keras_metrics.PCP` and `PDJ` of the mean pose, shown
            beside those of the model: {name: list}; the first name is "". {}: no validation.
        total_steps: number of steps of the training.
        batch_size: samples per step, for the rate.
        log_every: number of steps between two sets of TensorBoard scalars.
        shown: whether to log anything; with several workers, only the chief does.
        hparams: dict of the recipe's fields, for TensorBoard's table of runs.
        skipped: number of bad training records that are left out of each epoch.
    """

    def __init__(self, workdir, floors, total_steps, batch_size, log_every, shown=True, hparams=None, skipped=0):
        super().__init__()
        self._created = time.monotonic()
        self.workdir = workdir
        self.floors = {name: _scalars(metrics) for name, metrics in floors.items()}
        self.further = [name for name in floors if name]
        skeletons = [metric.skeleton for metrics in floors.values() for metric in metrics]
        self.note = coco.note_on_sigmas(coco.sigmas_of(skeletons[0])) if skeletons else ""
        self.hparams = hparams or {}
        self.total_steps = total_steps
        self.batch_size = batch_size
        self.log_every = log_every
        self.shown = shown
        self.skipped = skipped
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
        sets = [("validation", "mean_pose"), *((f"validation_{n}", f"mean_pose_{n}") for n in self.further)]
        names = ("train", ".", *(name for pair in sets for name in pair))
        writers = [tf.summary.create_file_writer(os.path.join(folder, name)) for name in names]
        self._train_writer, hparams_writer, *of_sets = writers
        # The validation sets and their mean poses.
        self._val_writers = dict(zip(("", *self.further), zip(of_sets[::2], of_sets[1::2], strict=True), strict=True))
        with writing_events(self.workdir), hparams_writer.as_default():
            fields = {name: _plain(value) for name, value in self.hparams.items()}
            hparams_api.hparams(fields, trial_id=os.path.basename(os.path.abspath(self.workdir)))
        self._progress = Progress(self.total_steps, "steps", done=start, shown=self.shown, own_lines=True)
        for opened in (self._progress, *writers):
            self._open.callback(opened.close)
        self._warm, self._epoch_rate = False, None
        self._since_line = self._since_scalars = self._since_epoch = _Mark(start)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_rate = None
        if self._warm:
            self._since_epoch = self._mark(self.model.steps.done)

    def on_train_batch_end(self, batch, logs=None):
        step = self.model.steps.done
        if not self._warm:
            # The first execution, mostly tracing, does not count. Reading a value waits for it.
            self._warm = True
            float(logs["loss"])
            self._progress.log(f"first step after {time.monotonic() - self._created:.1f} s")
            self._progress.restart()
            self._since_line = self._since_scalars = self._since_epoch = self._mark(step)
        elif step // self.log_every > self._since_scalars.step // self.log_every:
            self._write_train_scalars(step, logs)
        if self._progress.line_is_due() and step > self._since_line.step:
            self._log_line(step, logs)
        if step > self._progress.done:
            self._progress.set(step)
        if not self.model.steps.coming and self._epoch_rate is None and step > self._since_epoch.step:
            # Reading a value waits for the last step of the epoch.
            float(logs["loss"])
            self._epoch_rate = self._rates_since(self._since_epoch, step)[0]

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
        self._since_scalars = self._mark(step)
        self._write_scalars(self._train_writer, values, step)
        self._progress.set(step, **{"loss": f"{values['loss']:.4g}", "images/s": f"{values['images_per_second']:.0f}"})

    def _log_line(self, step, logs):
        check_converging(logs, step)
        with_pcp = "pcp_strict" in logs
        loss, score = float(logs["loss"]), 100 * float(logs["pcp_strict" if with_pcp else "pdj_0.2"])
        score = f"PCP {score:.1f}% strict" if with_pcp else f"PDJ@0.2 {score:.1f}%"
        rate, wait = self._rates_since(self._since_line, step)
        left = (self.total_steps - step) * self.batch_size / rate
        self._since_line = self._mark(step)
        self._progress.log_line(
            f"step {step} of {self.total_steps}: loss {loss:.4g}, {score}, {rate:.0f} images/s, "
            f"{100 * wait:.1f}% waiting for data, {left:.0f} s left"
        )

    def _write_scalars(self, writer, values, step):
        with writing_events(self.workdir), writer.as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step=step, description=self.note if name == "oks_ap" else None)
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
        values = {"learning_rate": _learning_rate(self.model)}
        # A single execution, which is mostly tracing, leaves nothing to measure.
        if self._epoch_rate is not None:
            values["images_per_second"] = self._epoch_rate
        self._add_row(epoch + 1, step, dict(logs) | values)
        if self.skipped:
            self._progress.log(f"epoch {epoch + 1}: {self.skipped} bad training records were left out")

    def add_row(self, model, epoch, step, logs):
        """Adds the metrics of a restored checkpoint, outside `fit`.

        Args:
            model: the `Regressor`. If `logs` hold an evaluation, its metric objects hold it too.
            epoch: number of the epoch that ended, from 1.
            step: step of the checkpoint.
            logs: dict of metrics, with the names of `fit`'s logs ("loss", "val_loss" ...).
        """
        self.set_model(model)
        self._begin(step)
        self._add_row(epoch, step, logs)
        self.close()

    def _add_row(self, epoch, step, logs):
        """Adds the row of an epoch, or metrics to the row of its step; writes them."""
        before = self.rows.pop() if self.rows and self.rows[-1]["step"] == step else {}
        row = before | {"step": step, "epoch": epoch} | {name: float(value) for name, value in logs.items()}
        self.rows.append(row)
        write_history(self.workdir, self.rows)
        evaluated = validation_sets.split(row, self.further)
        if not evaluated[""]:
            return
        # Until the next epoch starts, the metric objects hold the state of the evaluation.
        limbs = {name: value for name, value in _scalars(self.model.pixel_metrics).items() if "/" in name}
        for name, (writer, floor_writer) in self._val_writers.items():
            self._write_scalars(writer, evaluated[name] | ({} if name else limbs), step)
            self._write_scalars(floor_writer, self.floors.get(name, {}), step)
        self._print_evaluation(row, evaluated)

    def _print_evaluation(self, row, evaluated):
        """Prints the metrics of an evaluation, and a warning if the predictions vary little."""
        loss = f"loss {row['loss']:.4g}, " if "loss" in row else ""
        for name, found in evaluated.items():
            before = f"  {name}: " if name else f"epoch {row['epoch']}, step {row['step']}: {loss}"
            ap = f", OKS AP {100 * found['oks_ap']:.1f}{self.note}" if "oks_ap" in found else ""
            if "loss" in found:
                scores = _scores(found, self.floors.get(name, {}))
                self._progress.write(f"{before}validation loss {found['loss']:.4g}, {scores}{ap}")
        spread = row.get("val_spread", 1.0)
        if spread < COLLAPSED_SPREAD:
            self._progress.write(
                "warning: the model predicts nearly the mean pose for every person: the spread of its predictions is "
                f"{100 * spread:.0f}% of the spread of the labels. If this stays so, try another "
                "optimizer.learning_rate, a spatial head (model.name=integral; for a backbone model.head=spatial), "
                "or freeze less of a pretrained backbone"
            )

    def on_train_end(self, logs=None):
        path = os.path.join(self.workdir, "learning_curve.png")
        floor = self.floors.get("", {}).get("pcp_strict")
        charts.learning_curve(self.rows, path, floor, self.note, self.further)
        if self.skipped:
            self._progress.log(f"{self.skipped} bad training records were left out of each epoch")
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


def score_of(logs):
    """The score of an evaluation that decides the best checkpoint: the higher, the better.

    Strict PCP; OKS AP if there is none, as for a skeleton without limbs; PDJ if no person has labels
    for either. The labels alone decide which, so all evaluations of a run have the same.

    Args:
        logs: dict of metrics, with the names of `fit`'s logs.
    """
    return next((float(logs[name]) for name in SCORES if name in logs), -float(logs["val_loss"]))


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


def _scores(found, floor):
    """PCP of an evaluation as text, with that of the mean pose; PDJ if there is no PCP.

    Args:
        found, floor: dicts by metric of the model and of the mean pose.
    """
    if "pcp_strict" in found:
        of_pose = f" (mean pose {100 * floor['pcp_strict']:.1f}% strict)" if "pcp_strict" in floor else ""
        return f"PCP {100 * found['pcp_strict']:.1f}% strict, {100 * found['pcp_mean']:.1f}% mean rule{of_pose}"
    if "pdj_0.2" not in found:
        return "PCP and PDJ - (nothing is labelled for them)"
    of_pose = f" (mean pose {100 * floor['pdj_0.2']:.1f}%)" if "pdj_0.2" in floor else ""
    return f"PDJ@0.2 {100 * found['pdj_0.2']:.1f}%{of_pose}"


def _scalars(metrics):
    """dict of floats: the results of `PCP` and `PDJ` metrics that counted, and strict PCP by limb."""
    metrics = [metric for metric in metrics if isinstance(metric, keras_metrics.PCP | keras_metrics.PDJ)]
    strict = [metric for metric in metrics if getattr(metric, "rule", "") == "strict"]
    found = {metric.name: float(metric.result()) for metric in metrics if metric.defined}
    return found | {f"pcp_strict_by_limb/{limb}": value for m in strict for limb, value in m.by_limb().items()}


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
    """The learning rate of the last step."""
    # float() of a variable that is mirrored on the replicas raises.
    return float(tf.convert_to_tensor(model.step_learning_rate))
