"""Speed, measured as ratios: each figure beside a baseline, in turn, in one run on one machine.

The people are drawn (`tfrecords_tools.figures`), so that anyone can repeat a measurement.
"""

import contextlib
import os
import platform
import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image

from kpose import config as config_lib
from kpose import datasets, exporter, input_pipeline, models, records, runtime, skeletons, trainer
from tfrecords_tools import coco, figures, writer

NUM_IMAGES = 300
BATCH_SIZE = 32


def measure(name, runs):
    """Runs one benchmark.

    Args:
        name: input, train, serve or write.
        runs: how often each of the compared things is timed; medians are reported.

    Returns:
        dict of figures, with the machine they were measured on.
    """
    machine = {"benchmark": name, "cpu": _cpu_name(), "cores": os.cpu_count(), "tensorflow": tf.__version__}
    return machine | BENCHMARKS[name](runs)


def _write(runs):
    """The record writer in one process, against the plain way: open the image, crop, resize and save, per person."""
    with _drawn_people() as folder:
        options = _write_options(folder)
        annotations = coco.read_annotations(options.annotations, options.skeleton)
        persons = coco.select_persons(annotations, options.select)[0]
        plain = os.path.join(folder, "plain")
        os.makedirs(plain)

        def plain_way():
            for person in persons:
                path = os.path.join(options.images, annotations.images[person["image_id"]]["file_name"])
                with Image.open(path) as image:
                    x, y, w, h = person["bbox"]
                    crop = image.convert("RGB").crop((x, y, x + w, y + h)).resize(options.crop_size[::-1])
                    crop.save(os.path.join(plain, f"{person['id']}.jpg"), quality=95)

        ours, theirs = _alternate(runs, lambda: writer.write_records(options), plain_way)
    return {
        "persons_per_second": len(persons) / ours,
        "plain_persons_per_second": len(persons) / theirs,
        "ratio_to_plain": theirs / ours,
    }


def _input(runs):
    """The training pipeline from records, against decoding and cropping the photograph anew for each person."""
    with _drawn_people() as folder:
        options = _write_options(folder)
        writer.write_records(options)
        files = records.find(os.path.join(folder, "records", "train-*"))
        training_set = datasets.find_training_set(files.pattern, options.skeleton, 1.0)
        count = training_set.num_records
        batches = count // BATCH_SIZE
        annotations = coco.read_annotations(options.annotations, options.skeleton)
        persons = coco.select_persons(annotations, options.select)[0][: batches * BATCH_SIZE]

        def ours():
            dataset = input_pipeline.training_batches(
                training_set, input_size=options.crop_size, batch_size=BATCH_SIZE, seed=0
            )
            for _ in dataset.take(batches):
                pass

        def anew():
            for start in range(0, len(persons), BATCH_SIZE):
                crops = []
                for person in persons[start : start + BATCH_SIZE]:
                    path = os.path.join(options.images, annotations.images[person["image_id"]]["file_name"])
                    with Image.open(path) as image:
                        x, y, w, h = person["bbox"]
                        crop = image.convert("RGB").crop((x, y, x + w, y + h)).resize(options.crop_size[::-1])
                        crops.append(np.asarray(crop))
                np.stack(crops)

        seconds, baseline = _alternate(runs, ours, anew)
    images = batches * BATCH_SIZE
    return {
        "images_per_second": images / seconds,
        "decode_anew_images_per_second": images / baseline,
        "ratio_to_decode_anew": baseline / seconds,
    }


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

    ours, theirs = _alternate(
        runs,
        lambda: regressor.fit(data, steps_per_epoch=steps, total_steps=steps, verbose=0),
        lambda: stock.fit(stock_data, steps_per_epoch=steps, shuffle=False, verbose=0),
    )
    images = steps * BATCH_SIZE
    return {
        "runtime": run.describe(),
        "network": "deeppose 224 x 224",
        "batch_size": BATCH_SIZE,
        "images_per_second": images / ours,
        "stock_keras_images_per_second": images / theirs,
        "ratio_to_stock_keras": theirs / ours,
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
    whole, bare = _alternate(runs, lambda: serve(BATCH_SIZE), lambda: alone(crops))
    return {
        "network": config.name,
        "latency_p50_ms": 1000 * statistics.median(latencies),
        "latency_p95_ms": 1000 * latencies[int(0.95 * len(latencies))],
        "persons_per_second_at_32": BATCH_SIZE / whole,
        "network_alone_persons_per_second_at_32": BATCH_SIZE / bare,
        "share_of_preprocessing_at_32": 1 - bare / whole,
    }


BENCHMARKS = {"input": _input, "train": _train, "serve": _serve, "write": _write}


def _alternate(runs, first, second):
    """Median seconds of two functions, timed in turn after one run of each that does not count."""
    first()
    second()
    pairs = [(_seconds(first), _seconds(second)) for _ in range(runs)]
    return tuple(statistics.median(column) for column in zip(*pairs, strict=True))


def _seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


@contextlib.contextmanager
def _drawn_people():
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            figures.render_dataset(folder, NUM_IMAGES, workers=1)
            yield folder
    finally:
        logging.set_verbosity(verbosity)


def _write_options(folder):
    return writer.WriteOptions(
        annotations=os.path.join(folder, "annotations", "person_keypoints_train.json"),
        images=os.path.join(folder, "images", "train"),
        output_dir=os.path.join(folder, "records"),
        split="train",
        select="labelled",
        padding=1.0,
        crop_size=(224, 224),
        shards=4,
        workers=1,
        seed=0,
        skeleton=skeletons.COCO,
    )


def _cpu_name():
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        info = dict(line.split(":", 1) for line in file if ":" in line)
        names = {key.strip(): value.strip() for key, value in info.items()}
        flags = {"avx512_bf16", "avx512f", "avx2"} & set(names.get("flags", "").split())
        return f"{names.get('model name', platform.machine())} ({', '.join(sorted(flags))})"
    return platform.processor() or platform.machine()
