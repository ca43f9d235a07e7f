"""One training run, from a recipe to its last checkpoint."""

import contextlib
import functools
import os
import tempfile

import keras
import tensorflow as tf
from absl import logging

import kpose
from kpose import config as config_lib
from kpose.core import devices, files, skeletons
from kpose.core.errors import InputError, first_line
from kpose.data import pipeline, records
from kpose.models import flops
from kpose.runs import checkpoints
from kpose.runs.workdir import CONFIG_FILE, MEAN_POSE_FILE, copy_base, note_start, read_history
from kpose.train import callbacks, cascade_inputs, nonfinite
from kpose.train.history import History, no_room
from kpose.train.setup import (
    build_regressor,
    evaluation_batches,
    find_training_set,
    mean_pose_pcp,
    part,
    training_batches,
)


def train(config, workdir, profile=None):
    """Trains a recipe; run again with the same workdir, it goes on where it was.

    Writes into `workdir`: config.json, mean_pose.json (the training set's mean pose), checkpoints/, history.csv (a
    line an evaluation), learning_curve.png and TensorBoard's event files.

    Args:
        config: a recipe (see `kpose.config`).
        workdir: folder of the run, made if need be.
        profile: (first, last) step of which TensorFlow's profiler shall keep a trace for TensorBoard.

    Returns:
        The logs of the last evaluation: dict of floats.

    Raises:
        InputError: a bad recipe, missing records, or a workdir that holds another recipe's run.
    """
    config_lib.check(config)
    if profile and not 0 <= profile[0] < profile[1]:
        raise InputError(f"--profile={profile[0]}:{profile[1]}: give the first step and, after it, the last")
    several = devices.cluster()[1] > 1
    try:
        # First of all: several workers meet before anything else runs.
        run = devices.start(config)
        with contextlib.ExitStack() as stack:
            written = workdir
            if run.worker:
                # Checkpoints take all workers, and one to write them.
                written = stack.enter_context(tempfile.TemporaryDirectory())
                logging.set_verbosity(logging.WARNING)
            termination = stack.enter_context(callbacks.Termination())
            return _train(config, workdir, written, run, profile, termination)
    except callbacks.Preempted:
        logging.info("stopped by SIGTERM before the first step: the same command goes on")
        return {}
    except OSError as error:
        if error.errno not in files.FULL:
            raise
        raise InputError(no_room(error.filename or workdir, error.strerror)) from None
    except _WORKER_GONE as error:
        if not several:
            raise
        raise InputError(
            f"another worker is gone ({first_line(error.message)}): start all workers again with the same "
            "command to go on from the last checkpoint"
        ) from None


# What TensorFlow raises, depending on what it was at, where a worker does not answer any more.
_WORKER_GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)


def _train(config, workdir, written, run, profile, termination):
    skeleton = skeletons.get(config.skeleton)
    training_set = find_training_set(config)
    files_val = records.find(config.data.val, skeleton) if config.data.val else None
    _claim_workdir(config, workdir)
    keras.utils.set_random_seed(config.seed)

    steps_per_epoch = max(1, training_set.num_records // config.batch_size)
    total_steps = config.steps or config.epochs * steps_per_epoch
    regressor = build_regressor(config, run, total_steps, workdir, training_set)
    saver = checkpoints.Checkpoints(workdir, regressor, config.keep_checkpoints, written)
    start_step, position = saver.restore()
    steps = run.gather(start_step)
    if len(set(steps)) > 1:
        raise InputError(
            f"{workdir}: the workers found the checkpoints of different steps ({', '.join(map(str, steps))}): all need "
            "the same folder, on storage that they share"
        )
    _write_start(config, written, training_set)
    if config.model.name == "cascade":
        regressor.augmentation = cascade_inputs(config, workdir, regressor, training_set)
    _log_summary(config, run, regressor, training_set, steps_per_epoch, total_steps, start_step)

    evaluation = evaluation_batches(files_val, config) if files_val else None
    if evaluation and config.evaluate_batches:
        evaluation = evaluation.take(config.evaluate_batches)
    history = History(
        written,
        floor=mean_pose_pcp(evaluation, training_set) if evaluation else None,
        total_steps=total_steps,
        batch_size=config.batch_size,
        log_every=config.log_every,
        tell=run.worker == 0,
        hparams=config_lib.flatten(config),
    )
    epochs = -(-total_steps // steps_per_epoch)
    evaluated = sorted({*range(config.evaluate_every, epochs, config.evaluate_every), epochs})
    whole = not start_step % steps_per_epoch or start_step >= total_steps
    epoch = -(-start_step // steps_per_epoch)
    if evaluation and whole and epoch in evaluated and not _is_evaluated(workdir, start_step):
        # A checkpoint is written before its evaluation: the run was killed between the two.
        history.set_model(regressor)
        logs = regressor.evaluate(run.distribute(functools.partial(part, evaluation)), return_dict=True, verbose=0)
        logs = {f"val_{name}": value for name, value in logs.items()}
        history.begin(start_step)
        history.note(epoch - 1, start_step, logs)
        history.close()
        saver.save_if_best(start_step, position, float(logs["val_pcp_strict"]))
    if start_step >= total_steps:
        logging.info("%s: all %d steps are done: give more epochs or steps to go on", workdir, total_steps)
        return history.last_logs()
    if config.on_nan == "rollback" and not start_step:
        saver.save(0, 0)
    grid = callbacks.PredictionGrid(written, evaluation, skeleton) if evaluation is not None else None
    profiling = callbacks.Profile(written, *profile) if profile else None
    rollbacks = 0
    while True:
        watch = nonfinite.WatchFinite(config.on_nan, 1 if run.on_cpu else config.log_every)
        ahead = position - start_step
        saving = callbacks.SaveCheckpoints(saver, config.checkpoint_every, total_steps, watch, ahead)
        chores = [callbacks.FreezeBackbone(config.model.freeze_epochs)] if config.model.freeze_epochs else []
        chores += [watch, history, saving, *([grid] if grid else [])]
        if profiling:
            chores.append(profiling)
        chores.append(callbacks.SaveOnTermination(termination, saving, run.gather))
        try:
            regressor.fit(
                run.distribute(functools.partial(training_batches, training_set, config, position)),
                steps_per_epoch=steps_per_epoch,
                total_steps=total_steps,
                start_step=start_step,
                validation_data=run.distribute(functools.partial(part, evaluation)) if evaluation else None,
                validation_freq=evaluated,
                callbacks=chores,
                verbose=0,
            )
            return history.last_logs()
        except callbacks.Preempted:
            step = regressor.steps.done
            logging.info("stopped by SIGTERM at step %d of %d, saved: the same command goes on", step, total_steps)
            return history.last_logs()
        except nonfinite.NonFinite as error:
            bad = error.step + position - start_step
            story = _what_was_not_finite(regressor, training_set, config, error.step, bad)
            if config.on_nan != "rollback" or rollbacks == MOST_ROLLBACKS:
                raise InputError(
                    f"{story}; lower config.optimizer.learning_rate, mend the record, or set --config.on_nan=skip (or "
                    "rollback); the weights are from before it, and so is the last checkpoint"
                ) from None
            rollbacks += 1
            start_step, position = saver.restore()
            position = max(position, bad + 1)
            logging.warning("%s: back to step %d, on from the batch after it", story, start_step)
        finally:
            history.close()


# One after another without an end is divergence, which no rollback mends.
MOST_ROLLBACKS = 10


def _what_was_not_finite(regressor, training_set, config, step, position):
    """A sentence that names the step, what in it was not finite, and the records of its batch."""
    batch = next(iter(training_batches(training_set, config, position)))
    where = nonfinite.explain(regressor, batch)
    members = pipeline.batch_members(
        training_set,
        batch_size=config.batch_size,
        seed=config.seed,
        step=position,
        shuffle_buffer=config.data.shuffle_buffer,
    )
    names = ", ".join(f"{annotation} ({name})" for name, annotation in members)
    return f"step {step} was not finite: {where}; annotations in its batch: {names}"


def _is_evaluated(workdir, step):
    return any(row["step"] == step and "val_loss" in row for row in read_history(workdir))


def _claim_workdir(config, workdir):
    """Refuses a workdir that holds the run of another recipe."""
    path = os.path.join(workdir, CONFIG_FILE)
    if os.path.exists(path):
        changed = config_lib.differences(config, config_lib.load(path))
        if changed:
            raise InputError(
                f"{workdir} holds a run of another recipe ({'; '.join(changed)}): "
                "take another --workdir, or the same recipe to go on"
            )
    elif os.path.isdir(os.path.join(workdir, checkpoints.FOLDER)):
        raise InputError(f"{workdir} holds checkpoints, but no {CONFIG_FILE} to tell whose: take another --workdir")
    if config.model.name == "cascade" and not checkpoints.exist(workdir):
        copy_base(config, workdir)


def _write_start(config, workdir, training_set):
    os.makedirs(workdir, exist_ok=True)
    config_lib.save(config, os.path.join(workdir, CONFIG_FILE))
    mean_pose = {
        "skeleton": training_set.skeleton.name,
        "records": config.data.train,
        "num_records": training_set.num_records,
        "spread": training_set.labels.spread,
        "mean_pose": training_set.labels.mean_pose.tolist(),
    }
    files.write_json(os.path.join(workdir, MEAN_POSE_FILE), mean_pose)
    note_start(workdir)


def _log_summary(config, run, regressor, training_set, steps_per_epoch, total_steps, start_step):
    network = regressor.network
    work = flops.forward(network, config.model.input_size)
    logging.info("kpose %s, recipe %s", kpose.__version__, config.name)
    logging.info("%s", run.describe())
    logging.info(
        "network %s: input %d x %d, %.1f million parameters, %.3g GFLOP an image, about %.3g a training step",
        network.name,
        *config.model.input_size,
        network.count_params() / 1e6,
        work / 1e9,
        flops.PASSES_OF_TRAINING * work * config.batch_size / 1e9,
    )
    logging.info(
        "%d training records, batch %d (%d a replica), %d steps an epoch, %d steps in all",
        training_set.num_records,
        config.batch_size,
        config.batch_size // run.strategy.num_replicas_in_sync,
        steps_per_epoch,
        total_steps,
    )
    if len(training_set.files) > 1:
        parts = zip(training_set.files, training_set.counts, training_set.weights, strict=True)
        for part, count, weight in parts:
            logging.info("  %s: %d records, %.1f%% of the samples", part.pattern, count, 100 * weight)
    if start_step:
        logging.info("going on at step %d of %d", start_step, total_steps)
