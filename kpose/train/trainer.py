"""The training run of a recipe: prepare, resume, fit, recover."""

import contextlib
import dataclasses
import functools
import signal
import tempfile

import keras
import tensorflow as tf
from absl import logging
from ml_collections import ConfigDict

from kpose import config as config_lib
from kpose.core import devices, files, locks, rendezvous, skeletons
from kpose.core.errors import InputError, first_line
from kpose.data import bad_records, pipeline, records
from kpose.data.training_set import TrainingSet, skeleton_of, with_aspect
from kpose.runs import checkpoints
from kpose.runs.workdir import check_skeleton, read_history, resolve_recipe
from kpose.train import callbacks, changed_records, nonfinite, run_summary
from kpose.train.history import History, no_room, score_of, without_improvement
from kpose.train.regressor import Regressor
from kpose.train.setup import (
    build_regressor,
    build_validation_aps,
    claim_workdir,
    displace_cascade_inputs,
    mean_pose_metrics,
    measure_batch_norm,
    part_of,
    training_set_of,
    validation_batches,
    validation_files,
    write_start,
)

# After this number of rollbacks the training has diverged, and further rollbacks are useless.
MOST_ROLLBACKS = 10
# Errors that TensorFlow raises if another worker does not respond; they depend on the operation.
_WORKER_GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)


def train(config, workdir, profile=None, worker_timeout=rendezvous.TIMEOUT):
    """Trains a recipe. If the workdir holds checkpoints, continues from the last one.

    Writes into `workdir`: config.json, starts.json, mean_pose.json (the training set's mean pose),
    checkpoints/, history.csv (one row per epoch), learning_curve.png and TensorBoard files.

    Args:
        config: a recipe (see `kpose.config`); it is not changed.
        workdir: folder of the run; it is made if it does not exist.
        profile: (first, last) step to trace for TensorBoard's profiler; None: no trace.
        worker_timeout: seconds to wait for the other workers of TF_CONFIG at the start.

    Returns:
        The metrics of the last evaluation: dict of floats.

    Raises:
        InputError: the recipe is bad, records are missing, the workdir holds a run of another
            recipe, or the training failed (a full disk, a lost worker, a loss that is not finite).
        KeyboardInterrupt: after Ctrl-C, when all steps that are done are saved.
    """
    if profile and not 0 <= profile[0] < profile[1]:
        raise InputError(f"--profile={profile[0]}:{profile[1]}: give a first step and a later last step")
    with contextlib.ExitStack() as stack, _clear_errors(workdir):
        try:
            run = _prepare(config, workdir, stack, worker_timeout)
            place = _resume(run)
            return _fit(run, place, profile)
        except callbacks.Preempted as stopped:
            logging.info("stopped by %s before the first step: run the same command again to start", stopped.cause)
            _pass_on(stopped)
            return {}


def _pass_on(stopped):
    """Raises `KeyboardInterrupt` after Ctrl-C, so that a caller with further work ends too."""
    if stopped.number == signal.SIGINT:
        raise KeyboardInterrupt from None


@dataclasses.dataclass
class _Run:
    """The objects of a training run.

    Attributes:
        config: the recipe, with the actual batch size.
        skeleton: its `Skeleton`.
        workdir: folder of the run.
        written: folder that this process writes to: the workdir, or for workers other than the
            chief a temporary folder.
        runtime: `devices.Runtime`.
        training_set: `TrainingSet`.
        validation: batches of each set of `config.data.val` by name; the first name is "". {} without
            validation.
        validation_files: their `records.RecordFiles`.
        regressor: the compiled `Regressor`.
        saver: its `checkpoints.Checkpoints`.
        history: `History`.
        termination: `callbacks.Termination`.
        steps_per_epoch: number of steps of one pass over the training set.
        total_steps: number of steps of the training.
    """

    config: ConfigDict
    skeleton: skeletons.Skeleton
    workdir: str
    written: str
    runtime: devices.Runtime
    training_set: TrainingSet
    validation: dict
    validation_files: dict
    regressor: Regressor
    saver: checkpoints.Checkpoints
    history: History
    termination: callbacks.Termination
    steps_per_epoch: int
    total_steps: int

    @property
    def evaluated_epochs(self):
        """Epochs (from 1) with an evaluation: every `config.evaluate_every`-th and the last."""
        epochs, every = -(-self.total_steps // self.steps_per_epoch), self.config.evaluate_every
        return sorted({*range(every, epochs, every), epochs})

    def distributed_validation(self):
        """The batches of the first validation set for `evaluate`; None without validation."""
        return _distributed(self.runtime, self.validation[""]) if self.validation else None

    def distributed_batches(self, position):
        """The training batches for `fit`, from batch number `position` on."""
        return self.runtime.distribute(
            functools.partial(pipeline.training_batches, self.config, self.training_set, position)
        )


def _distributed(runtime, batches):
    return runtime.distribute(functools.partial(part_of, batches))


@dataclasses.dataclass(frozen=True)
class _Place:
    """A point in a training.

    Attributes:
        step: number of steps that are done.
        position: number of the next batch; larger than `step` if rollbacks left out batches.
    """

    step: int
    position: int


def _prepare(config, workdir, stack, worker_timeout):
    """The `_Run` of a recipe, with initial weights.

    Args:
        config, workdir, worker_timeout: as for `train`.
        stack: `contextlib.ExitStack` of the contexts that end with the training.
    """
    config_lib.check(config)
    config = with_aspect(resolve_recipe(config, workdir))
    # Workers must connect before TensorFlow runs anything else.
    runtime = devices.start(config, worker_timeout)
    written = workdir
    if runtime.worker:
        # All workers must take part in writing a checkpoint; only the chief's files are kept.
        written = stack.enter_context(tempfile.TemporaryDirectory())
        logging.set_verbosity(logging.WARNING)
    else:
        stack.enter_context(locks.locked(workdir, "training in this folder", "use another --workdir"))
    termination = stack.enter_context(callbacks.Termination())
    config.batch_size = runtime.batch_size(config)
    skeleton = check_skeleton(skeleton_of(config), workdir)
    copies = stack.enter_context(bad_records.copies_in(written))
    training_set = training_set_of(config, skeleton, copies)
    termination.check()
    of_validation = validation_files(config, skeleton, copies)
    validation = validation_batches(config, of_validation)
    termination.check()
    claim_workdir(config, workdir, skeleton)
    changed_records.check(config, workdir, training_set.files, of_validation)
    keras.utils.set_random_seed(config.seed)
    steps_per_epoch = max(1, training_set.num_records // config.batch_size)
    total_steps = config.steps or config.epochs * steps_per_epoch
    regressor = build_regressor(config, skeleton, runtime, total_steps, workdir, training_set.window)
    termination.check()
    if validation:
        aps = build_validation_aps(config, skeleton, of_validation, validation)
        further = {name: (_distributed(runtime, some), aps[name]) for name, some in validation.items() if name}
        regressor.validation_ap, regressor.further_validation = aps[""], further
    return _Run(
        config=config,
        skeleton=skeleton,
        workdir=workdir,
        written=written,
        runtime=runtime,
        training_set=training_set,
        validation=validation,
        validation_files=of_validation,
        regressor=regressor,
        saver=checkpoints.Checkpoints(workdir, regressor, config.keep_checkpoints, written),
        history=History(
            written,
            floors={name: mean_pose_metrics(batches, training_set) for name, batches in validation.items()},
            total_steps=total_steps,
            batch_size=config.batch_size,
            log_every=config.log_every,
            shown=runtime.worker == 0,
            hparams=config_lib.flatten(config),
            skipped=sum(found.skipped for found in training_set.files),
        ),
        termination=termination,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
    )


def _resume(run):
    """Restores the newest checkpoint, if there is one; returns its `_Place`."""
    place = _Place(*run.saver.restore())
    run.saver.restore_best({row["step"]: score_of(row) for row in read_history(run.workdir) if "val_loss" in row})
    steps = run.runtime.gather(place.step)
    if len(set(steps)) > 1:
        raise InputError(
            f"{run.workdir}: the workers found the checkpoints of different steps ({', '.join(map(str, steps))}): "
            "give all workers the same folder on shared storage"
        )
    write_start(run.config, run.training_set, run.validation_files, run.written)
    if not place.step and run.config.model.name == "movenet" and run.config.model.batch_norm:
        measure_batch_norm(run.config, run.regressor, run.training_set)
    if run.config.model.name == "cascade":
        displace_cascade_inputs(run.config, run.regressor, run.training_set, run.workdir)
    run_summary.log(run, place.step)
    _add_lost_row(run, place)
    return place


def _add_lost_row(run, place):
    """Adds the row of the epoch that ended at a restored checkpoint, if a kill prevented it.

    The checkpoint holds the metrics of training. The evaluation is repeated.
    """
    if not place.step or (place.step % run.steps_per_epoch and place.step < run.total_steps):
        return
    epoch = -(-place.step // run.steps_per_epoch)
    row = next((row for row in read_history(run.workdir) if row["step"] == place.step), {})
    state = run.regressor.epoch_metrics.restored
    trained = "loss" not in row and state.get("first_step") == (epoch - 1) * run.steps_per_epoch
    evaluated = "val_loss" not in row and bool(run.validation) and epoch in run.evaluated_epochs
    # The chief may write the row before the other workers read it: it decides.
    trained, evaluated = (run.runtime.gather(int(needed))[0] for needed in (trained, evaluated))
    logs = run.regressor.epoch_metrics.results(state) if trained else {}
    if evaluated:
        stopping = [callbacks.SaveOnTermination(run.termination, run.runtime.gather)]
        found = run.regressor.evaluate(run.distributed_validation(), return_dict=True, verbose=0, callbacks=stopping)
        logs |= {f"val_{name}": value for name, value in found.items()}
    if logs:
        run.history.add_row(run.regressor, epoch, place.step, logs)
    if evaluated:
        run.saver.save_if_best(place.step, place.position, score_of(logs))


def _fit(run, place, profile):
    """Trains from a `_Place` to the end; returns the metrics of the last evaluation."""
    if place.step >= run.total_steps:
        logging.info("%s: all %d steps are done: to continue, set more epochs or steps", run.workdir, run.total_steps)
        return run.history.last_logs()
    if _has_stopped(run, place.step):
        return run.history.last_logs()
    if run.config.on_nan == "rollback" and not place.step:
        run.saver.save(place.step, place.position)
    observers = []
    if run.validation:
        observers.append(callbacks.PredictionGrid(run.written, run.validation[""], run.skeleton))
    if profile:
        observers.append(callbacks.Profile(run.written, *profile))
    rollbacks = 0
    while True:
        try:
            with records.reading(*run.training_set.files, *run.validation_files.values()):
                run.regressor.fit(
                    run.distributed_batches(place.position),
                    steps_per_epoch=run.steps_per_epoch,
                    total_steps=run.total_steps,
                    start_step=place.step,
                    validation_data=run.distributed_validation(),
                    validation_freq=run.evaluated_epochs,
                    callbacks=_callbacks(run, place, observers),
                    verbose=0,
                )
            _has_stopped(run, run.regressor.steps.done)
            return run.history.last_logs()
        except callbacks.Preempted as stopped:
            done = run.regressor.steps.done
            if not done:
                raise
            logging.info(
                "stopped by %s at step %d of %d, checkpoint saved: run the same command again to continue",
                stopped.cause,
                done,
                run.total_steps,
            )
            _pass_on(stopped)
            return run.history.last_logs()
        except nonfinite.NonFinite as error:
            rollbacks += 1
            place = _recover(run, place, error.step, rollbacks)
        finally:
            run.history.close()


def _has_stopped(run, step):
    """Whether `config.stop_after` ended the training at `step`; logs why."""
    wanted = run.config.stop_after
    if not wanted or not run.validation or step >= run.total_steps:
        return False
    best, waited = without_improvement([row for row in read_history(run.workdir) if row["step"] <= step])
    # The workers read one file, but not at the same time: the chief decides.
    if not run.runtime.gather(int(waited >= wanted))[0]:
        return False
    lowest = f"the lowest is {best['val_loss']:.4g} at step {best['step']} (epoch {best['epoch']})" if best else "NaN"
    logging.info(
        "stopped at step %d of %d: no lower validation loss in %d evaluations (config.stop_after); %s; to continue, "
        "set config.stop_after to 0 or to a larger number",
        step,
        run.total_steps,
        waited,
        lowest,
    )
    return True


def _callbacks(run, place, observers):
    """The callbacks of one call of `fit`, in the order in which they must run."""
    config = run.config
    watch = nonfinite.WatchFinite(config.on_nan, every=1 if run.runtime.on_cpu else config.log_every)
    saving = callbacks.SaveCheckpoints(
        run.saver, config.checkpoint_every, run.total_steps, watch, ahead=place.position - place.step
    )
    freezing = [callbacks.FreezeBackbone(config.model.freeze_epochs)] if config.model.freeze_epochs else []
    stopping = [callbacks.SaveOnTermination(run.termination, run.runtime.gather, saving)]
    if config.stop_after:
        stopping.append(callbacks.StopWithoutImprovement(config.stop_after, run.history, saving, run.runtime.gather))
    return [*freezing, watch, run.history, saving, *observers, *stopping]


def _recover(run, place, step, rollbacks):
    """Restores the last checkpoint after step `step` was not finite; returns its `_Place`.

    The position is after the bad batch. `place` is where `fit` started.

    Raises:
        InputError: `config.on_nan` is not "rollback", or there were too many rollbacks.
    """
    bad = step + place.position - place.step
    reason = _describe_nonfinite(run, step, bad)
    if run.config.on_nan != "rollback" or rollbacks > MOST_ROLLBACKS:
        raise InputError(
            f"{reason}; lower config.optimizer.learning_rate, fix the record, or set --config.on_nan=skip (or "
            "rollback); the last checkpoint is from before this step"
        ) from None
    restored, position = run.saver.restore()
    place = _Place(restored, max(position, bad + 1))
    logging.warning("%s: back to step %d, continuing from the batch after it", reason, place.step)
    return place


def _describe_nonfinite(run, step, position):
    """One line: the step, its first value that was not finite, and the annotations of its batch."""
    batch = next(iter(pipeline.training_batches(run.config, run.training_set, position)))
    where = nonfinite.explain(run.regressor, batch)
    members = pipeline.batch_members(run.config, run.training_set, position)
    names = ", ".join(f"{annotation} ({name})" for name, annotation in members)
    return f"step {step} was not finite: {where}; annotations in its batch: {names}"


@contextlib.contextmanager
def _clear_errors(workdir):
    """A context that raises `InputError` if the disk is full or another worker is lost."""
    try:
        yield
    except OSError as error:
        if error.errno not in files.FULL:
            raise
        raise InputError(no_room(error.filename or workdir, error.strerror)) from None
    except _WORKER_GONE as error:
        if devices.cluster()[1] == 1:
            raise
        raise InputError(
            f"another worker does not respond ({first_line(error.message)}): start all workers again with the "
            "same command to continue from the last checkpoint"
        ) from None
