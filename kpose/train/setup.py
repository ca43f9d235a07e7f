"""From a recipe to what a training needs: regressor, training set and batches."""

import os

import tensorflow as tf
from absl import logging

from kpose.augment.augmentation import build_augmentation
from kpose.core import skeletons
from kpose.data import crop_cache, pipeline, records
from kpose.data import training_set as training_set_lib
from kpose.metrics import keras_metrics, pose
from kpose.models import decoding
from kpose.runs import checkpoints
from kpose.runs.workdir import BASE_FOLDER, build_network
from kpose.train import cascade_inputs, losses, optimizers
from kpose.train.regressor import Regressor
from kpose.train.teacher import build

ERRORS_FILE = "errors.json"


def build_regressor(config, run, total_steps, workdir=None, training_set=None):
    """The compiled `regressor.Regressor` of a recipe, inside the runtime's scope.

    Args:
        config: the recipe.
        run: `devices.Runtime`.
        total_steps: steps of the whole training.
        workdir: the run's folder; only a cascade, whose stages before are described there, needs one.
        training_set: `training_set.TrainingSet`; only an augmentation that warps its crops needs it.
    """
    skeleton = skeletons.get(config.skeleton)
    augmentation = build_augmentation(config, training_set)
    with run.scope():
        regressor = Regressor(
            build_network(
                config, workdir, run.synchronized, begin=workdir is not None and not checkpoints.exist(workdir)
            ),
            losses.build(config.loss),
            pixel_metrics=[
                *(keras_metrics.PCP(skeleton, rule) for rule in pose.RULES),
                keras_metrics.PDJ(skeleton, 0.2),
            ],
            crop_metrics=[keras_metrics.SpreadRatio(skeleton.num_joints)],
            augmentation=augmentation.on_device if augmentation and config.augment.on == "device" else None,
            taught_share=config.teacher.share,
            xla=run.xla,
            clip_norm=config.optimizer.clip_norm,
            ema=config.optimizer.ema,
        )
        regressor.compile(
            optimizers.build(config.optimizer, config.schedule, total_steps),
            steps_per_execution=config.steps_per_execution,
        )
    return regressor


def displacements(config, workdir, regressor, training_set):
    """What the engine does to a cascade's batches: the recipe's augmentation if it is the device's, displacements."""
    skeleton = training_set.skeleton
    path = os.path.join(workdir, BASE_FOLDER, ERRORS_FILE)
    if not os.path.exists(path):
        measured = records.find(config.data.errors, skeleton) if config.data.errors else training_set.files[0]
        logging.info("measuring the errors of the stage before on %s", measured.pattern)
        network = regressor.network
        errors = cascade_inputs.measure(network.before, evaluation_batches(measured, config), skeleton.torso)
        cascade_inputs.save(errors, path)
    return cascade_inputs.Displacements(cascade_inputs.load(path), skeleton.torso, before=regressor.augmentation)


def find_training_set(config):
    """The `training_set.TrainingSet` of a recipe.

    Raises:
        InputError: records are missing, damaged or do not fit the recipe.
    """
    return training_set_lib.find_training_set(
        config.data.train,
        skeletons.get(config.skeleton),
        config.data.padding,
        tuple(config.data.weights),
        config.data.aspect,
    )


def training_batches(training_set, config, start_step, worker=0, workers=1):
    augmentation = build_augmentation(config, training_set)
    dataset = pipeline.training_batches(
        training_set,
        input_size=tuple(config.model.input_size),
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start_step,
        shuffle_buffer=config.data.shuffle_buffer,
        normals=config.model.name == "cascade",
        stored_crops=augmentation.warps,
        cache=crop_cache.CropCache(training_set) if config.data.cache else None,
        worker=worker,
        workers=workers,
    )
    if augmentation and config.augment.on == "host":
        dataset = dataset.map(augmentation.on_host, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    teacher = build(config, training_set.skeleton)
    if teacher:
        dataset = dataset.map(teacher).prefetch(tf.data.AUTOTUNE)
    return dataset


def evaluation_batches(files_val, config):
    training_set_lib.check_shape(files_val, config.data.aspect)
    count = training_set_lib.summarise_labels(files_val, config.data.padding).num_records
    return pipeline.evaluation_batches(
        files_val,
        input_size=tuple(config.model.input_size),
        padding=config.data.padding,
        batch_size=config.batch_size,
        num_records=count,
    )


def part(batches, worker, workers):
    """A worker's part of each batch."""
    if workers == 1:
        return batches
    size = next(iter(batches.element_spec.values())).shape[0] // workers
    return batches.map(lambda batch: {name: v[worker * size : (worker + 1) * size] for name, v in batch.items()})


def mean_pose_pcp(evaluation, training_set):
    """The PCP of the training set's mean pose on the evaluation records: `keras_metrics.PCP` by rule."""
    found = {rule: keras_metrics.PCP(training_set.skeleton, rule) for rule in pose.RULES}
    for batch in evaluation.map(lambda b: {k: b[k] for k in ("keypoints", "region", "weight")}):
        points = decoding.to_pixels(batch, training_set.labels.mean_pose)
        for metric in found.values():
            metric.update_state(*points, batch["weight"])
    return found
