"""Benchmarks of the record writer and of the input pipeline."""

import contextlib
import dataclasses
import functools
import itertools
import os
import statistics
import tempfile
import time

import numpy as np
import tensorflow as tf
from absl import logging

from kpose import config as config_lib
from kpose.benchmark import data_baselines
from kpose.benchmark.timing import alternate, ratio, skipped
from kpose.core import geometry, skeletons
from kpose.data import pipeline, records
from kpose.train import setup
from tfrecords_tools.figures.dataset import render_dataset
from tfrecords_tools.write_coco import plan, writer
from tfrecords_tools.write_coco.options import WriteOptions

NUM_IMAGES = 300
BATCH_SIZE = 64
# Number of timed batches, and of batches before them, which fill the buffers of a pipeline.
BATCHES, WARM_UP = 40, 8
INPUT_SIZE, STORED_SIZE, PADDING = (224, 224), (256, 256), 1.25


def write(runs, folder, annotations, images):
    """The record writer in one and in two processes, beside a simple writer with cv2.

    Args:
        runs: how often each is timed.
        folder, annotations, images: from `people`.
    """
    plain = os.path.join(folder, "plain")
    os.makedirs(plain)

    def run(workers):
        # A new seed each time, because existing records are not written again.
        return writer.write_records(dataclasses.replace(options, workers=workers, seed=next(seeds)))

    options, seeds = write_options(folder, annotations, images, crop_size=INPUT_SIZE), itertools.count(1)
    persons = run(1)["persons"]
    ways = {"one_worker": lambda: run(1), "two_workers": lambda: run(2)}
    if not skipped("the simple writer", "cv2"):
        read, selected, *_ = plan.select(options)
        ways["plain"] = lambda: data_baselines.write_crops(read, selected, images, INPUT_SIZE, plain)
    seconds = alternate(runs, ways)
    rates = {f"{name}_persons_per_second": persons / value for name, value in seconds.items()}
    return rates | {
        "persons": persons,
        "ratio_to_plain": ratio(seconds, "plain", "one_worker"),
        "ratio_of_two_workers_to_one": ratio(seconds, "one_worker", "two_workers"),
    }


def input_batches(runs, folder, annotations, images):
    """Training batches with all augmentation, on the host and for the device, beside baselines.

    Args:
        runs: how often each is timed.
        folder, annotations, images: from `people`.
    """
    options = write_options(folder, annotations, images, crop_size=STORED_SIZE, padding=PADDING)
    writer.write_records(options)
    on_host, on_device = (recipe(folder, place) for place in ("host", "device"))
    training_set = setup.training_set_of(on_host, skeletons.COCO)
    augment, batch_size = on_host.augment, BATCH_SIZE
    bare = data_baselines.decoded_batches(training_set.files[0].paths, STORED_SIZE, batch_size)
    ways = {
        "decoding_alone": bare,
        "for_the_device": pipeline.training_batches(on_device, training_set),
        "on_the_host": pipeline.training_batches(on_host, training_set),
    }
    if not skipped("keras_cv's layers", "keras_cv"):
        ways["keras_cv"] = data_baselines.keras_cv_batches(bare, INPUT_SIZE, augment)
    ways = {name: functools.partial(iter, dataset) for name, dataset in ways.items()}
    if not skipped("torch's DataLoader", "torch", "albumentations", "cv2"):
        jpegs, keypoints = _crops(training_set)
        ways["torch"] = lambda: data_baselines.torch_batches(
            jpegs, keypoints, INPUT_SIZE, training_set.window, batch_size, augment, workers=2
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


@contextlib.contextmanager
def people(annotations, images):
    """A temporary folder, a COCO keypoint file and its image folder; logs are off inside.

    Args:
        annotations, images: COCO keypoint file and image folder; None: synthetic images are
            rendered.
    """
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
    """The `WriteOptions` of a benchmark's records, which are written to `folder`/records.

    Args:
        folder, annotations, images: from `people`.
        **changes: options that differ from those of the benchmarks.
    """
    settings = {"padding": 1.0, "shards": 8, "workers": 1, "seed": 0}
    return WriteOptions(
        annotations=annotations,
        images=images,
        output_dir=os.path.join(folder, "records"),
        split="train",
        select="labelled",
        skeleton=skeletons.COCO,
        **settings | changes,
    )


def recipe(folder, place):
    """The recipe of the batches: full augmentation on `place`, "host" or "device"."""
    recipe = config_lib.load_recipe("deeppose_augmented")
    geometric = config_lib.load_recipe("deeppose_geometric").augment
    for field in ("flip", "rotation", "scale", "shift", "half_body"):
        recipe.augment[field] = geometric[field]
    recipe.augment.on = place
    recipe.batch_size = BATCH_SIZE
    recipe.data.train = os.path.join(folder, "records", "train-*")
    recipe.data.padding = 1.0
    recipe.model.input_size = INPUT_SIZE
    return recipe


def _crops(training_set):
    """All encoded crops, and the joints [N, K, 2] in pixels of the crops."""
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
    """Seconds of `BATCHES` batches.

    The iterator is new, so that no other pipeline runs in the background.
    """
    iterator = make()
    for _ in range(WARM_UP):
        next(iterator)
    started = time.perf_counter()
    for _ in range(BATCHES):
        next(iterator)
    return time.perf_counter() - started
