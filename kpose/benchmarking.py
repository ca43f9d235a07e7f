"""Speed, measured as ratios: each figure beside a baseline, in turn, in one run on one machine.

Without photographs of the caller's, people are drawn (`tfrecords_tools.figures`), so that anyone can repeat it.
"""

import contextlib
import functools
import os
import platform
import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from kpose import baselines, datasets, exporter, geometry, input_pipeline, models, records, runtime, skeletons, trainer
from kpose import config as config_lib
from tfrecords_tools import figures, writer

NUM_IMAGES = 300
BATCH_SIZE = 32
INPUT_BATCH_SIZE = 64
# Batches that are timed, after those that fill a pipeline's buffers.
INPUT_BATCHES, INPUT_WARM_UP = 40, 8
INPUT_SIZE, STORED_SIZE, PADDING = (224, 224), (256, 256), 1.25


def measure(name, runs, annotations=None, images=None):
    """Runs one benchmark.

    Args:
        name: input, train, serve or write.
        runs: how often each of the compared things is timed; medians are reported.
        annotations, images: of input and write: COCO keypoint file and image folder (None: drawn people).

    Returns:
        dict of figures, with the machine they were measured on; null where a baseline's package is not installed.
    """
    machine = {"benchmark": name, "cpu": _cpu_name(), "cores": os.cpu_count(), "tensorflow": tf.__version__}
    if name in ("input", "write"):
        with _people(annotations, images) as people:
            return machine | {"people": "the caller's" if images else "drawn"} | BENCHMARKS[name](runs, *people)
    return machine | BENCHMARKS[name](runs)


def _write(runs, folder, annotations, images):
    """The record writer, in one process and in two, against the plain way: cv2, person by person."""
    plain = os.path.join(folder, "plain")
    os.makedirs(plain)

    def write(workers):
        # Another seed, because records that are there already are not written again.
        write.seed += 1
        options = _write_options(folder, annotations, images, crop_size=INPUT_SIZE, workers=workers, seed=write.seed)
        return writer.write_records(options)

    write.seed = 0
    persons = write(1)["persons"]
    ways = {"one_worker": lambda: write(1), "two_workers": lambda: write(2)}
    if not _skipped("the plain way", "cv2"):
        read, selected, *_ = writer.select(annotations, skeletons.COCO, "labelled")
        ways["plain"] = lambda: baselines.write_crops(read, selected, images, INPUT_SIZE, plain)
    seconds = _alternate(runs, ways)
    rates = {f"{name}_persons_per_second": persons / value for name, value in seconds.items()}
    return rates | {
        "persons": persons,
        "ratio_to_plain": _ratio(seconds, "plain", "one_worker"),
        "ratio_of_two_workers_to_one": _ratio(seconds, "one_worker", "two_workers"),
    }


def _input(runs, folder, annotations, images):
    """Training batches with all six photometric steps and the warp, on the host and for the device, against others'."""
    options = _write_options(folder, annotations, images, crop_size=STORED_SIZE, padding=PADDING)
    writer.write_records(options)
    training_set = datasets.find_training_set(os.path.join(folder, "records", "train-*"), skeletons.COCO, 1.0)
    recipe = config_lib.load_recipe("deeppose_augmented")
    geometric = config_lib.load_recipe("deeppose_geometric").augment
    for field in ("flip", "rotation", "scale", "shift", "half_body"):
        recipe.augment[field] = geometric[field]
    recipe.model.input_size = INPUT_SIZE
    augmentation = trainer.build_augmentation(recipe, training_set)
    paths, batch_size = training_set.files[0].paths, INPUT_BATCH_SIZE
    stored = input_pipeline.training_batches(
        training_set, input_size=INPUT_SIZE, batch_size=batch_size, seed=0, stored_crops=True
    )
    bare = baselines.decoded_batches(paths, STORED_SIZE, batch_size)
    host = stored.map(augmentation.on_host, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    ways = {"decoding_alone": bare, "for_the_device": stored, "on_the_host": host}
    if not _skipped("keras_cv's layers", "keras_cv"):
        ways["keras_cv"] = baselines.keras_cv_batches(bare, INPUT_SIZE, recipe.augment)
    ways = {name: functools.partial(iter, dataset) for name, dataset in ways.items()}
    if not _skipped("torch's DataLoader", "torch", "albumentations", "cv2"):
        jpegs, keypoints = _crops(training_set)
        ways["torch"] = lambda: baselines.torch_batches(
            jpegs, keypoints, INPUT_SIZE, training_set.window, batch_size, recipe.augment, workers=2
        )
    seconds = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            seconds[name].append(_seconds_of_batches(way))
    seconds = {name: statistics.median(times) for name, times in seconds.items()}
    rates = {f"{name}_images_per_second": INPUT_BATCHES * batch_size / value for name, value in seconds.items()}
    return rates | {
        "device_side_share_of_decoding_alone": _ratio(seconds, "decoding_alone", "for_the_device"),
        "ratio_of_host_to_torch": _ratio(seconds, "torch", "on_the_host"),
        "ratio_of_host_to_keras_cv": _ratio(seconds, "keras_cv", "on_the_host"),
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
    for _ in range(INPUT_WARM_UP):
        next(iterator)
    started = time.perf_counter()
    for _ in range(INPUT_BATCHES):
        next(iterator)
    return time.perf_counter() - started


def _skipped(what, *modules):
    """Whether a baseline cannot be measured; says so."""
    absent = baselines.missing(*modules)
    if absent:
        logging.warning("%s: skipped, %s not installed: pip install 'kpose[benchmark]'", what, " and ".join(absent))
    return bool(absent)


def _ratio(seconds, slow, fast):
    """How many times as fast the second is; None where one of them was not measured."""
    return seconds[slow] / seconds[fast] if slow in seconds and fast in seconds else None


def _train(runs):
    """The engine under MirroredStrategy, against stock `keras.Model.fit` without any strategy, on constant data."""
    config = config_lib.load_recipe("deeppose")
    config.batch_size = BATCH_SIZE
    skeleton = skeletons.get(config.skeleton)
    run = runtime.start(config)
    steps = 4
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (BATCH_SIZE, *config.model.input_size, 3), np.uint8),
        "keypoints": rng.uniform(-0.5, 0.5, (BATCH_SIZE, skeleton.num_joints, 3)).astype(np.float32),
        "region": np.tile(np.float32([0, 0, 100, 200]), (BATCH_SIZE, 1)),
        "weight": np.ones(BATCH_SIZE, np.float32),
    }
    batch["keypoints"][..., 2] = 2
    data = tf.data.Dataset.from_tensors(batch).repeat()
    regressor = trainer.build_regressor(config, run, total_steps=1)
    with runtime.dtype_policy(run.precision):
        stock = models.build(config.model, skeleton)
    stock.compile(keras.optimizers.SGD(0.001), loss=_stock_loss, jit_compile=False)
    stock_data = data.map(lambda b: (tf.cast(b["image"], tf.float32), {"keypoints": b["keypoints"][..., :2]}))

    seconds = _alternate(
        runs,
        {
            "ours": lambda: regressor.fit(data, steps_per_epoch=steps, total_steps=steps, verbose=0),
            "stock": lambda: stock.fit(stock_data, steps_per_epoch=steps, shuffle=False, verbose=0),
        },
    )
    images = steps * BATCH_SIZE
    return {
        "runtime": run.describe(),
        "network": "deeppose 224 x 224",
        "batch_size": BATCH_SIZE,
        "images_per_second": images / seconds["ours"],
        "stock_keras_images_per_second": images / seconds["stock"],
        "ratio_to_stock_keras": _ratio(seconds, "stock", "ours"),
    }


def _stock_loss(y_true, y_pred):
    return keras.ops.sum(keras.ops.square(y_true - y_pred), axis=(1, 2))


def _serve(runs):
    """The exported demo network: a JPEG to keypoints at batch 1, and 32 of them against the network alone."""
    config = config_lib.load_recipe("demo")
    skeleton = skeletons.get(config.skeleton)
    with runtime.dtype_policy("float32"):
        network = models.build(config.model, skeleton)
    server = exporter.KeypointServer(network, skeleton, config.model.input_size, config.data.padding)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 60, 80, 3), np.uint8).repeat(8, 1).repeat(8, 2)[0]
    jpeg = tf.io.encode_jpeg(pixels)
    box = np.float32([[100, 50, 200, 400]])
    crops = tf.zeros([BATCH_SIZE, *config.model.input_size, 3])
    alone = tf.function(lambda images: network(images, training=False), autograph=False)

    def serve(count):
        server.serve(tf.stack([jpeg] * count), tf.repeat(box, count, 0))

    serve(1)
    latencies = sorted(_seconds(lambda: serve(1)) for _ in range(10 * runs))
    seconds = _alternate(runs, {"whole": lambda: serve(BATCH_SIZE), "bare": lambda: alone(crops)})
    whole, bare = seconds["whole"], seconds["bare"]
    return {
        "network": config.name,
        "latency_p50_ms": 1000 * statistics.median(latencies),
        "latency_p95_ms": 1000 * latencies[int(0.95 * len(latencies))],
        "persons_per_second_at_32": BATCH_SIZE / whole,
        "network_alone_persons_per_second_at_32": BATCH_SIZE / bare,
        "share_of_preprocessing_at_32": 1 - bare / whole,
    }


BENCHMARKS = {"input": _input, "train": _train, "serve": _serve, "write": _write}


def _alternate(runs, ways):
    """Median seconds of functions by name, timed in turn after one run of each that does not count."""
    for way in ways.values():
        way()
    rounds = [{name: _seconds(way) for name, way in ways.items()} for _ in range(runs)]
    return {name: statistics.median(seconds[name] for seconds in rounds) for name in ways}


def _seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


@contextlib.contextmanager
def _people(annotations, images):
    """(working folder, COCO keypoint file, image folder)."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            if images is None:
                annotations = figures.render_dataset(folder, NUM_IMAGES, workers=1)
                images = os.path.join(folder, "images", "train")
            yield folder, annotations, images
    finally:
        logging.set_verbosity(verbosity)


def _write_options(folder, annotations, images, **changes):
    settings = {"padding": 1.0, "shards": 8, "workers": 1, "seed": 0}
    return writer.WriteOptions(
        annotations=annotations,
        images=images,
        output_dir=os.path.join(folder, "records"),
        split="train",
        select="labelled",
        skeleton=skeletons.COCO,
        **settings | changes,
    )


def _cpu_name():
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        info = dict(line.split(":", 1) for line in file if ":" in line)
        names = {key.strip(): value.strip() for key, value in info.items()}
        flags = {"avx512_bf16", "avx512f", "avx2"} & set(names.get("flags", "").split())
        return f"{names.get('model name', platform.machine())} ({', '.join(sorted(flags))})"
    return platform.processor() or platform.machine()
