"""The metrics of a run over time: TensorBoard, log lines, history.csv and the learning curve."""

import contextlib
import os
import resource
import sys
import time

import keras
import tensorflow as tf
from absl import logging
from tensorboard.plugins.hparams import api as hparams_api
from tqdm import tqdm

import kpose
from kpose.core.errors import InputError, first_line
from kpose.drawing import charts
from kpose.metrics import keras_metrics
from kpose.runs.workdir import HISTORY_FILE, read_history, write_rows

# No person's loss is that large unless the predictions are hundreds of crops away.
DIVERGED = 1e6


# Predictions that vary less than this, relative to the labels, are the mean pose for everyone.
COLLAPSED_SPREAD = 0.2


class History(keras.callbacks.Callback):
    """The run's figures: TensorBoard scalars, log lines or a progress bar, and history.csv with its picture.

    Args:
        workdir: where they go. A history that is already there is continued.
        floor: the mean pose's `keras_metrics.PCP` on the validation records by rule, shown beside the model's (None: no
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
        with writing_events(self.workdir), whole.as_default():
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
        check_converging(logs, step)
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
        with writing_events(self.workdir), writer.as_default():
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
        check_converging(logs, step)
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
            by_rule = {m.rule: m for m in self.model.pixel_metrics if isinstance(m, keras_metrics.PCP)}
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
            write_rows(self.path, self.rows)

    def on_train_end(self, logs=None):
        write_rows(self.path, self.rows)
        path = os.path.join(self.workdir, "learning_curve.png")
        charts.learning_curve(self.rows, path, mean_pose_pcp=self.floor.get("pcp_strict"))
        self._info("peak memory %s", _peak_memory())

    def close(self):
        """Ends the bar and the event files, also of a training that was cut short."""
        with writing_events(self.workdir):
            self._open.close()


def check_converging(logs, step):
    """Ends a training that has diverged, before its weights become a checkpoint."""
    loss = float(logs["loss"])
    if not loss < DIVERGED:
        raise InputError(
            f"the loss is {loss:.4g} at step {step}: lower config.optimizer.learning_rate or set "
            "config.optimizer.clip_norm, in another --workdir; the last checkpoint is from before"
        )


@contextlib.contextmanager
def writing_events(workdir):
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
    """TensorBoard's names and figures of `keras_metrics.PCP` by rule: the average of each, every limb of the strict one."""
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


def _learning_rate(model):
    # A tensor from a schedule, or a variable that is mirrored on the replicas.
    return float(tf.convert_to_tensor(model.optimizer.learning_rate))
