"""Folder, training set, batches and regressor of a recipe."""

import os

import numpy as np
import tensorflow as tf
from absl import logging

from kpose import config as config_lib
from kpose.augment.augmentation import build_augmentation
from kpose.core import files, skeleton_files, validation_sets
from kpose.core.errors import InputError
from kpose.data import bad_records, pipeline
from kpose.data.training_set import find_training_set, summarise_labels
from kpose.metrics import keras_metrics, pose
from kpose.models import cascade, decoding, movenet
from kpose.runs import checkpoints
from kpose.runs.starts import note_start
from kpose.runs.workdir import (
    BASE_FOLDER,
    CONFIG_FILE,
    MEAN_POSE_FILE,
    SKELETON_FILE,
    build_network,
    copy_base,
    load_config,
)
from kpose.train import cascade_inputs, changed_records, losses, optimizers, teacher, validation_ap
from kpose.train.regressor import Regressor

ERRORS_FILE = "errors.json"
# Number of images that measure the statistics of an added BatchNorm.
_MEASURED = 256


def claim_workdir(config, workdir, skeleton):
    """Checks that the workdir is new or holds a run of this recipe; prepares that of a new cascade.

    Args:
        config: the recipe.
        workdir: the folder.
        skeleton: the `Skeleton` that the network learns.

    Raises:
        InputError: the workdir holds a run of another recipe, or checkpoints without a recipe, or
            nothing can be written there; or the recipe is a cascade, and the skeleton has no torso.
    """
    if config.model.name == "cascade":
        cascade.check_torso(skeleton)
    for name in (checkpoints.FOLDER, checkpoints.BEST_FOLDER, "tensorboard"):
        files.check_folder_for_output(os.path.join(workdir, name), "--workdir")
    path = os.path.join(workdir, CONFIG_FILE)
    if os.path.exists(path):
        changed = config_lib.differences(config, load_config(workdir))
        if changed:
            raise InputError(
                f"{workdir} holds a run of another recipe ({'; '.join(changed)}): "
                "use another --workdir, or the same recipe to continue that run"
            )
    elif os.path.isdir(os.path.join(workdir, checkpoints.FOLDER)):
        raise InputError(f"{workdir} holds checkpoints, but not their recipe {CONFIG_FILE}: use another --workdir")
    if config.model.name == "cascade" and not checkpoints.exist(workdir):
        copy_base(config, workdir, skeleton)


def write_start(config, training_set, validation, folder):
    """Writes config.json, records.json and mean_pose.json, and adds this start to starts.json.

    Args:
        config: the recipe.
        training_set: its `training_set.TrainingSet`.
        validation: {name: `records.RecordFiles`} of data.val.
        folder: the run's folder, or that of a worker other than the chief.
    """
    os.makedirs(folder, exist_ok=True)
    config_lib.save(config, os.path.join(folder, CONFIG_FILE))
    changed_records.save(folder, training_set.files, validation)
    labels = training_set.labels
    mean_pose = {
        "skeleton": training_set.skeleton.name,
        "records": config.data.train,
        "num_records": training_set.num_records,
        "spread": labels.spread,
        "mean_pose": labels.mean_pose.tolist(),
    }
    files.write_json(os.path.join(folder, MEAN_POSE_FILE), mean_pose)
    files.write_json(os.path.join(folder, SKELETON_FILE), skeleton_files.to_fields(training_set.skeleton))
    note_start(folder)


def training_set_of(config, skeleton, folder=None):
    """The `training_set.TrainingSet` of a recipe.

    Args:
        config: the recipe.
        skeleton: the `Skeleton` that the network learns.
        folder: folder for copies of shards without their bad records (`bad_records.find`).

    Raises:
        InputError: records are missing, damaged or do not fit the recipe.
    """
    data, find = config.data, bad_records.finder(config, folder)
    weights = tuple(data.weights)
    return find_training_set(data.train, skeleton, data.padding, weights, data.aspect, data.coordinates, find)


def validation_files(config, skeleton, folder=None):
    """The `records.RecordFiles` of each validation set of `config.data.val`.

    Arguments as for `training_set_of`.

    Returns:
        {name of the set: `records.RecordFiles`}, in order; the first name is "". {}: no validation.

    Raises:
        InputError: records are missing, damaged or of other joints, or names are wrong.
    """
    find = bad_records.finder(config, folder)
    sets = enumerate(validation_sets.parse(config.data.val))
    return {name if index else "": find(pattern, skeleton) for index, (name, pattern) in sets}


def validation_batches(config, sets):
    """The batches of each validation set, at most `config.evaluate_batches`.

    Args:
        config: the recipe.
        sets: the result of `validation_files`.

    Returns:
        {name of the set: `tf.data.Dataset`}.

    Raises:
        InputError: a record is damaged or does not fit the recipe.
    """
    found = {}
    for name, files_of_set in sets.items():
        batches = pipeline.evaluation_batches(config, files_of_set)
        batches = batches.take(config.evaluate_batches) if config.evaluate_batches else batches
        found[name] = validation_ap.numbered(batches)
    return found


def build_validation_aps(config, skeleton, sets, batches):
    """{name: `validation_ap.ValidationAP`} for the results of `validation_files` and `validation_batches`."""
    samples = {name: int(some.cardinality()) * config.batch_size for name, some in batches.items()}
    predictions = validation_ap.empty_predictions(max(samples.values()), skeleton.num_joints)
    aps = {}
    for name, found in sets.items():
        total = summarise_labels(found, config.data.padding).num_records
        if samples[name] < total:
            logging.info(
                "evaluations use the first %d of the %d persons of data.val%s (config.evaluate_batches); their OKS AP "
                "is that of these persons",
                samples[name],
                total,
                f" {name!r}" if name else "",
            )
        aps[name] = validation_ap.ValidationAP(found, min(samples[name], total), predictions)
    return aps


def measure_batch_norm(config, regressor, training_set):
    """`movenet.measure_batch_norm` with the first training images of a new run."""
    images, part = [], 32
    for batch in pipeline.training_batches(config, training_set).take(-(-_MEASURED // config.batch_size)):
        if regressor.augmentation:
            batch = regressor.augmentation(batch)
        images.append(batch["image"].numpy())
    images = np.concatenate(images)[:_MEASURED]
    movenet.measure_batch_norm(regressor.network, [images[i : i + part] for i in range(0, len(images), part)])
    for average, variable in zip(regressor.averages, regressor.averaged, strict=True):
        average.assign(variable.value)


def part_of(batches, worker, workers):
    """A dataset with one worker's part of each batch.

    Args:
        batches: `tf.data.Dataset` of dicts of tensors [B, ...].
        worker: number of the worker, from 0.
        workers: number of workers.
    """
    if workers == 1:
        return batches
    size = next(iter(batches.element_spec.values())).shape[0] // workers
    return batches.map(lambda batch: {name: v[worker * size : (worker + 1) * size] for name, v in batch.items()})


def build_regressor(config, skeleton, run, total_steps, workdir=None, stored_share=1.0):
    """The compiled `regressor.Regressor` of a recipe, in the scope of the strategy.

    Args:
        config: the recipe.
        skeleton: the `Skeleton` that the network learns.
        run: `devices.Runtime`.
        total_steps: number of steps of the training.
        workdir: the run's folder. Initial weights are loaded if it is given and holds no
            checkpoint. A cascade needs it.
        stored_share: `TrainingSet.window`; used by an augmentation that warps stored crops.
    """
    new = workdir is not None and not checkpoints.exist(workdir)
    augmentation = build_augmentation(config, skeleton, stored_share)
    with run.scope():
        # A loss with weights draws them from the same random numbers as the network. This one is
        # not used. It is built so that a seed gives the initial weights of release 0.1.
        losses.build(config.loss)
        regressor = Regressor(
            build_network(config, skeleton, workdir, run.synchronized, initial_weights=new),
            losses.build(config.loss),
            pixel_metrics=pixel_metrics_of(skeleton),
            crop_metrics=[keras_metrics.SpreadRatio(skeleton.num_joints)],
            augmentation=augmentation.on_device if augmentation and config.augment.on == "device" else None,
            teacher=teacher.build(config, skeleton),
            taught_share=config.teacher.share,
            padding=config.data.padding,
            xla=run.xla,
            clip_norm=config.optimizer.clip_norm,
            ema=config.optimizer.ema,
        )
        regressor.compile(
            optimizers.build(config.optimizer, config.schedule, total_steps),
            steps_per_execution=run.steps_per_execution(config),
        )
    return regressor


def displace_cascade_inputs(config, regressor, training_set, workdir):
    """Adds random displacements to the estimates that a cascade refines in training.

    Their mean and covariance are those of the errors of the previous stage. These errors are
    measured once, on all data sets, and saved in the run's folder.

    Args:
        config: the recipe of the cascade.
        regressor: its `regressor.Regressor`; its augmentation is changed.
        training_set: its `training_set.TrainingSet`.
        workdir: the run's folder.
    """
    skeleton, stretched = training_set.skeleton, config.model.sub_image_shape == "stretched"
    path = os.path.join(workdir, BASE_FOLDER, ERRORS_FILE)
    if not os.path.exists(path):
        data_sets = []
        for share, files in _measured_sets(config, training_set):
            logging.info("measuring the errors of the previous stage on %s (share %.3g)", files.pattern, share)
            data_sets.append((share, pipeline.evaluation_batches(config, files, skeleton=skeleton)))
        errors = cascade_inputs.measure(regressor.network, data_sets, skeleton.torso, stretched)
        cascade_inputs.save(errors, path)
    regressor.augmentation = cascade_inputs.Displacements(
        cascade_inputs.load(path), skeleton.torso, before=regressor.augmentation, stretched=stretched
    )


def _measured_sets(config, training_set):
    """List of (share, `records.RecordFiles`): the data sets on which a cascade measures errors.

    They are those of the training set, with their shares, or those of `config.data.errors`. These
    have the shares of the training set if there are as many, otherwise shares by number of records.
    """
    if not config.data.errors:
        return list(zip(training_set.weights, training_set.files, strict=True))
    data = config.data
    given = find_training_set(data.errors, training_set.skeleton, data.padding, aspect=data.aspect)
    same = len(given.files) == len(training_set.files)
    return list(zip(training_set.weights if same else given.weights, given.files, strict=True))


def pixel_metrics_of(skeleton):
    """List of the metrics in original pixels: PCP of each rule if the skeleton has limbs, and PDJ."""
    rules = pose.RULES if skeleton.limbs else ()
    return [*(keras_metrics.PCP(skeleton, rule) for rule in rules), keras_metrics.PDJ(skeleton, 0.2)]


def mean_pose_metrics(batches, training_set):
    """The metrics of the training set's mean pose on evaluation batches.

    Args:
        batches: `tf.data.Dataset` of `pipeline.evaluation_batches`.
        training_set: `training_set.TrainingSet`.

    Returns:
        list of the metrics of `pixel_metrics_of`.
    """
    found = pixel_metrics_of(training_set.skeleton)
    for batch in batches.map(lambda b: {name: b[name] for name in ("keypoints", "region", "weight")}):
        points = decoding.to_pixels(batch, training_set.labels.mean_pose)
        sides = tf.reduce_max(batch["region"][:, 2:], axis=-1) / training_set.padding
        for metric in found:
            options = {"sides": sides} if metric.takes_sides else {}
            metric.update_state(*points, batch["weight"], **options)
    return found
