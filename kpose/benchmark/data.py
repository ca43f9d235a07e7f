"""The record writer and the input pipeline, beside what a good engineer does without them."""

import contextlib
import functools
import os
import statistics
import tempfile
import time

import numpy as np
import tensorflow as tf
from absl import logging

from kpose import config as config_lib
from kpose.augment.augmentation import build_augmentation
from kpose.benchmark import data_baselines
from kpose.benchmark.timing import alternate, ratio, skipped
from kpose.core import geometry, skeletons
from kpose.data import pipeline, records
from kpose.data.training_set import find_training_set
from tfrecords_tools.figures.dataset import render_dataset
from tfrecords_tools.write_coco import plan, writer

NUM_IMAGES = 300
BATCH_SIZE = 64
# Batches that are timed, after those that fill a pipeline's buffers.
BATCHES, WARM_UP = 40, 8
INPUT_SIZE, STORED_SIZE, PADDING = (224, 224), (256, 256), 1.25


def write(runs, folder, annotations, images):
    """The record writer, in one process and in two, against the plain way: cv2, person by person."""
    plain = os.path.join(folder, "plain")
    os.makedirs(plain)

    def run(workers):
        # Another seed, because records that are there already are not written again.
        run.seed += 1
        options = write_options(folder, annotations, images, crop_size=INPUT_SIZE, workers=workers, seed=run.seed)
        return writer.write_records(options)

    run.seed = 0
    persons = run(1)["persons"]
    ways = {"one_worker": lambda: run(1), "two_workers": lambda: run(2)}
    if not skipped("the plain way", "cv2"):
        read, selected, *_ = plan.select(annotations, skeletons.COCO, "labelled")
        ways["plain"] = lambda: data_baselines.write_crops(read, selected, images, INPUT_SIZE, plain)
    seconds = alternate(runs, ways)
    rates = {f"{name}_persons_per_second": persons / value for name, value in seconds.items()}
    return rates | {
        "persons": persons,
        "ratio_to_plain": ratio(seconds, "plain", "one_worker"),
        "ratio_of_two_workers_to_one": ratio(seconds, "one_worker", "two_workers"),
    }


def input_batches(runs, folder, annotations, images):
    """Training batches with all six photometric steps and the warp, on the host and for the device, against others'."""
    options = write_options(folder, annotations, images, crop_size=STORED_SIZE, padding=PADDING)
    writer.write_records(options)
    training_set = find_training_set(os.path.join(folder, "records", "train-*"), skeletons.COCO, 1.0)
    recipe = config_lib.load_recipe("deeppose_augmented")
    geometric = config_lib.load_recipe("deeppose_geometric").augment
    for field in ("flip", "rotation", "scale", "shift", "half_body"):
        recipe.augment[field] = geometric[field]
    recipe.model.input_size = INPUT_SIZE
    augmentation = build_augmentation(recipe, training_set)
    paths, batch_size = training_set.files[0].paths, BATCH_SIZE
    stored = pipeline.training_batches(
        training_set, input_size=INPUT_SIZE, batch_size=batch_size, seed=0, stored_crops=True
    )
    bare = data_baselines.decoded_batches(paths, STORED_SIZE, batch_size)
    host = stored.map(augmentation.on_host, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    ways = {"decoding_alone": bare, "for_the_device": stored, "on_the_host": host}
    if not skipped("keras_cv's layers", "keras_cv"):
        ways["keras_cv"] = data_baselines.keras_cv_batches(bare, INPUT_SIZE, recipe.augment)
    ways = {name: functools.partial(iter, dataset) for name, dataset in ways.items()}
    if not skipped("torch's DataLoader", "torch", "albumentations", "cv2"):
        jpegs, keypoints = _crops(training_set)
        ways["torch"] = lambda: data_baselines.torch_batches(
            jpegs, keypoints, INPUT_SIZE, training_set.window, batch_size, recipe.augment, workers=2
        )
    seconds = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            seconds[name].append(_seconds_of_batches(way))
    seconds = {name: statistics.median(times) for name, times in seconds.items()}
    rates = {f"{name}_images_per_second": BATCHES * batch_size / value for name, value in seconds.items()}
    return rates | {
        "device_side_share_of_decoding_alone": ratio(seconds, "decoding_alone", "for_the_device"),
        "ratio_of_host_to_torch": ratio(seconds, "torch", "on_the_host"),
        "ratio_of_host_to_keras_cv": ratio(seconds, "keras_cv", "on_the_host"),
    }


def _crops(training_set):
    """All encoded crops, and [N, K, 2] joints in their pixels."""
    files = training_set.files[0]
    jpegs, keypoints = [], []
    for serialised in tf.data.TFRecordDataset(files.paths):
        person = records.parse(serialised, files.skeleton)
        jpegs.append(person["jpeg"].numpy())
        padded = geometry.pad_box(person["box"].numpy(), files.padding)
        points = geometry.normalise(person["keypoints"].numpy(), padded)
        keypoints.append(geometry.to_crop(points, files.crop_size))
    return jpegs, np.array(keypoints)


def _seconds_of_batches(make):
    """Of a pipeline that is made anew, so that no other one fills its buffers meanwhile."""
    iterator = make()
    for _ in range(WARM_UP):
        next(iterator)
    started = time.perf_counter()
    for _ in range(BATCHES):
        next(iterator)
    return time.perf_counter() - started


@contextlib.contextmanager
def people(annotations, images):
    """(working folder, COCO keypoint file, image folder)."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            if images is None:
                annotations = render_dataset(folder, NUM_IMAGES, workers=1)
                images = os.path.join(folder, "images", "train")
            yield folder, annotations, images
    finally:
        logging.set_verbosity(verbosity)


def write_options(folder, annotations, images, **changes):
    settings = {"padding": 1.0, "shards": 8, "workers": 1, "seed": 0}
    return plan.WriteOptions(
        annotations=annotations,
        images=images,
        output_dir=os.path.join(folder, "records"),
        split="train",
        select="labelled",
        skeleton=skeletons.COCO,
        **settings | changes,
    )
