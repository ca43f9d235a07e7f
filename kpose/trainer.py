"""One training run, from a recipe to its last checkpoint."""

import os

import keras
import tensorflow as tf
from absl import logging

import kpose
from kpose import (
    augment,
    callbacks,
    checkpoints,
    displacements,
    engine,
    files,
    input_pipeline,
    losses,
    metrics,
    optimizers,
    records,
    runs,
    runtime,
    skeletons,
)
from kpose import (
    config as config_lib,
)
from kpose.errors import InputError

ERRORS_FILE = "errors.json"


def train(config, workdir):
    """Trains a recipe; run again with the same workdir, it goes on where it was.

    Writes into `workdir`: config.json, mean_pose.json (the training set's mean pose), checkpoints/, history.csv (a
    line an evaluation), learning_curve.png and TensorBoard's event files.

    Args:
        config: a recipe (see `kpose.config`).
        workdir: folder of the run, made if need be.

    Returns:
        The logs of the last evaluation: dict of floats.

    Raises:
        InputError: a bad recipe, missing records, or a workdir that holds another recipe's run.
    """
    config_lib.check(config)
    skeleton = skeletons.get(config.skeleton)
    files_train, files_val = _find_records(config, skeleton)
    _claim_workdir(config, workdir)
    run = runtime.start(config)
    keras.utils.set_random_seed(config.seed)

    labels = summarise(files_train, config)
    steps_per_epoch = max(1, labels.num_records // config.batch_size)
    total_steps = config.steps or config.epochs * steps_per_epoch
    regressor = build_regressor(config, run, total_steps, workdir, files_train)
    saver = checkpoints.Checkpoints(workdir, regressor, config.keep_checkpoints)
    start_step = saver.restore()
    _write_start(config, workdir, skeleton, labels)
    if config.model.name == "cascade":
        regressor.augmentation = _displacements(config, workdir, regressor, files_train, skeleton)
    _log_summary(config, run, regressor, labels, steps_per_epoch, total_steps, start_step)

    evaluation = _evaluation_batches(files_val, config) if files_val else None
    history = callbacks.History(
        workdir,
        mean_pose_pcp=_mean_pose_pcp(evaluation, labels, skeleton),
        total_steps=total_steps,
        batch_size=config.batch_size,
        log_every=config.log_every,
    )
    if start_step >= total_steps:
        logging.info("%s: all %d steps are done: give more epochs or steps to go on", workdir, total_steps)
        return history.last_logs()
    chores = [callbacks.FreezeBackbone(config.model.freeze_epochs)] if config.model.freeze_epochs else []
    chores += [history, callbacks.SaveCheckpoints(saver, config.checkpoint_every, total_steps)]
    if evaluation is not None:
        chores.append(callbacks.PredictionGrid(workdir, evaluation, skeleton))
    epochs = -(-total_steps // steps_per_epoch)
    regressor.fit(
        _training_batches(files_train, config, labels, start_step),
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        start_step=start_step,
        validation_data=evaluation,
        validation_freq=sorted({*range(config.evaluate_every, epochs, config.evaluate_every), epochs}),
        callbacks=chores,
        verbose=0,
    )
    return history.last_logs()


def build_regressor(config, run, total_steps, workdir=None, files_train=None):
    """The compiled `engine.Regressor` of a recipe, inside the runtime's scope.

    Args:
        config: the recipe.
        run: `runtime.Runtime`.
        total_steps: steps of the whole training.
        workdir: the run's folder; only a cascade, whose stages before are described there, needs one.
        files_train: the training records; only an augmentation that warps them needs them.
    """
    skeleton = skeletons.get(config.skeleton)
    augmentation = _augmentation(config, files_train)
    augmentation.compiled = run.xla
    with run.scope():
        regressor = engine.Regressor(
            runs.build_network(
                config, workdir, run.synchronized, begin=workdir is not None and not checkpoints.exist(workdir)
            ),
            losses.build(config.loss),
            pixel_metrics=[metrics.PCP(skeleton, rule) for rule in metrics.RULES],
            crop_metrics=[metrics.SpreadRatio(skeleton.num_joints)],
            augmentation=augmentation if config.augment.on == "device" else None,
            xla=run.xla,
            clip_norm=config.optimizer.clip_norm,
            ema=config.optimizer.ema,
        )
        regressor.compile(
            optimizers.build(config.optimizer, config.schedule, total_steps),
            steps_per_execution=config.steps_per_execution,
        )
    return regressor


def _augmentation(config, files_train):
    share = input_pipeline.stored_share(files_train, config.data.padding) if files_train else 1.0
    return augment.Augmentation(skeletons.get(config.skeleton), config.augment, config.model.input_size, share)


def _displacements(config, workdir, regressor, files_train, skeleton):
    """What the engine does to a cascade's batches: the recipe's augmentation if it is the device's, displacements."""
    path = os.path.join(workdir, runs.BASE_FOLDER, ERRORS_FILE)
    if not os.path.exists(path):
        measured = records.find(config.data.errors, skeleton) if config.data.errors else files_train
        logging.info("measuring the errors of the stage before on %s", measured.pattern)
        network = regressor.network
        errors = displacements.measure(network.before, _evaluation_batches(measured, config), skeleton.torso)
        displacements.save(errors, path)
    return displacements.Displacements(displacements.load(path), skeleton.torso, before=regressor.augmentation)


def summarise(files_train, config):
    """`input_pipeline.LabelSummary` of the training records, as the recipe's network sees them."""
    labels = input_pipeline.summarise_labels(files_train, config.data.padding)
    logging.info("%s: %d records", files_train.pattern, labels.num_records)
    return labels


def _find_records(config, skeleton):
    if not config.data.train:
        raise InputError("config.data.train is empty: name the records: --config.data.train='records/train-*'")
    patterns = (config.data.train, config.data.val)
    return [records.find(pattern, skeleton) if pattern else None for pattern in patterns]


def _claim_workdir(config, workdir):
    """Refuses a workdir that holds the run of another recipe."""
    path = os.path.join(workdir, runs.CONFIG_FILE)
    if os.path.exists(path):
        changed = config_lib.differences(config, config_lib.load(path))
        if changed:
            raise InputError(
                f"{workdir} holds a run of another recipe ({'; '.join(changed)}): "
                "take another --workdir, or the same recipe to go on"
            )
    elif os.path.isdir(os.path.join(workdir, checkpoints.FOLDER)):
        raise InputError(
            f"{workdir} holds checkpoints, but no {runs.CONFIG_FILE} to tell whose: take another --workdir"
        )
    if config.model.name == "cascade" and not checkpoints.exist(workdir):
        runs.copy_base(config, workdir)


def _write_start(config, workdir, skeleton, labels):
    os.makedirs(workdir, exist_ok=True)
    config_lib.save(config, os.path.join(workdir, runs.CONFIG_FILE))
    mean_pose = {
        "skeleton": skeleton.name,
        "records": config.data.train,
        "num_records": labels.num_records,
        "spread": labels.spread,
        "mean_pose": labels.mean_pose.tolist(),
    }
    files.write_json(os.path.join(workdir, runs.MEAN_POSE_FILE), mean_pose)


def _log_summary(config, run, regressor, labels, steps_per_epoch, total_steps, start_step):
    network = regressor.network
    logging.info("kpose %s, recipe %s", kpose.__version__, config.name)
    logging.info("%s", run.describe())
    logging.info(
        "network %s: input %d x %d, %.1f million parameters",
        network.name,
        *config.model.input_size,
        network.count_params() / 1e6,
    )
    logging.info(
        "%d training records, batch %d (%d a replica), %d steps an epoch, %d steps in all",
        labels.num_records,
        config.batch_size,
        config.batch_size // run.strategy.num_replicas_in_sync,
        steps_per_epoch,
        total_steps,
    )
    if start_step:
        logging.info("going on at step %d of %d", start_step, total_steps)


def _training_batches(files_train, config, labels, start_step):
    augmentation = _augmentation(config, files_train)
    dataset = input_pipeline.training_batches(
        files_train,
        input_size=tuple(config.model.input_size),
        padding=config.data.padding,
        batch_size=config.batch_size,
        seed=config.seed,
        num_records=labels.num_records,
        start_step=start_step,
        shuffle_buffer=config.data.shuffle_buffer,
        normals=config.model.name == "cascade",
        stored_crops=augmentation.warps,
    )
    if augmentation and config.augment.on == "host":
        dataset = dataset.map(augmentation, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    return dataset


def _evaluation_batches(files_val, config):
    count = input_pipeline.summarise_labels(files_val, config.data.padding).num_records
    return input_pipeline.evaluation_batches(
        files_val,
        input_size=tuple(config.model.input_size),
        padding=config.data.padding,
        batch_size=config.batch_size,
        num_records=count,
    )


def _mean_pose_pcp(evaluation, labels, skeleton):
    """Strict PCP of the training set's mean pose on the evaluation records; None without any."""
    if evaluation is None:
        return None
    metric = metrics.PCP(skeleton, "strict")
    for batch in evaluation.map(lambda b: {k: b[k] for k in ("keypoints", "region", "weight")}):
        metric.update_state(*engine.to_pixels(batch, labels.mean_pose), batch["weight"])
    return float(metric.result())
