"""Benchmark of exported models: latency and throughput, beside ONNX Runtime."""

import contextlib
import os
import statistics
import tempfile

import numpy as np
import tensorflow as tf

from kpose import config as config_lib
from kpose.benchmark import saved_model_worker, workers
from kpose.benchmark.timing import alternate_timed, ratio, seconds_of, skipped
from kpose.core import devices, skeletons
from kpose.data.training_set import skeleton_of
from kpose.export import converted, graph, tflite
from kpose.models import folding
from kpose.runs.workdir import build_network

NETWORKS = ("deeppose", "resnet18")
BATCH_SIZE = 32
# Requests with one box, for each run.
REQUESTS = 10
IMAGE_SIZE = (480, 640)
# Requests that do not count: the first ones compile and allocate.
WARM_UP = 3
# What each worker times.
FILES = {"frozen": "model", "lite": "model.tflite", "onnx": "model.onnx"}


def serve(runs):
    """Two networks at 224 x 224: keypoints from an image of 480 x 640 with boxes, and from crops.

    `throughput_ratio_to_onnx` is above 1, and `latency_ratio_to_onnx` below 1, where the SavedModel
    is faster. `frozen` is the SavedModel with `saved_model_worker.FROZEN`, and `lite` the .tflite
    file as `kpose.load` runs it. Each has a process of its own, and so has ONNX Runtime. They are
    stopped while something else is timed: after a run of ONNX Runtime, its threads wait busily for
    the next one.

    Args:
        runs: how often each is timed.
    """
    measurements = {}
    with_onnx = not skipped("ONNX Runtime", "onnxruntime", "tf2onnx")
    for name in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            measured = _network(name, runs, with_onnx, folder)
        measurements |= {f"{name}_{key}": value for key, value in measured.items()}
    return measurements


def _network(name, runs, with_onnx, folder):
    config = config_lib.load_recipe(name)
    skeleton = skeleton_of(config, default=skeletons.COCO)
    with devices.dtype_policy("float32"):
        network = folding.fold_batch_norm(build_network(config, skeleton))
    server = graph.KeypointServer.from_config(network, config, skeleton)
    size = tuple(config.model.input_size)
    converters = {"lite": tflite.convert} | ({"onnx": lambda server: converted.to_onnx(server)[0]} if with_onnx else {})
    for way, convert in converters.items():
        with open(os.path.join(folder, FILES[way]), "wb") as file:
            file.write(convert(server))
    with contextlib.ExitStack() as stack:
        others = {"frozen": _worker(stack, folder, "saved_model_worker", "frozen", saved_model_worker.FROZEN)}
        others |= {way: _worker(stack, folder, "converted_worker", way) for way in converters}
        return _measurements(runs, _ways(server, size, others, folder))


def _worker(stack, folder, module, name, environment=None):
    """A paused `workers.Worker` that ends with a stack of contexts; its log is in a folder."""
    log = os.path.join(folder, f"{name}.log")
    return stack.enter_context(workers.Worker(f"kpose.benchmark.{module}", log, environment=environment, paused=True))


def _ways(server, size, others, folder):
    """Function of a number of persons -> dict name -> function that returns the seconds of a request.

    Args:
        server: the `KeypointServer`.
        size: (height, width) of its crops.
        others: dict of a `workers.Worker` for each further way.
        folder: that of `FILES`.
    """
    path = os.path.join(folder, FILES["frozen"])
    tf.saved_model.save(server, path, signatures=server.signatures)
    # The model, not its signatures: they do not keep the variables.
    model = tf.saved_model.load(path)
    small = np.random.default_rng(0).integers(0, 256, (IMAGE_SIZE[0] // 8, IMAGE_SIZE[1] // 8, 3), np.uint8)
    jpeg = tf.io.encode_jpeg(small.repeat(8, 0).repeat(8, 1))
    box = np.float32([[100, 50, 200, 400]])
    crops = np.random.default_rng(0).uniform(0, 255, (BATCH_SIZE, *size, 3)).astype(np.float32)

    def ways(count):
        files, boxes = tf.stack([jpeg] * count), tf.constant(box.repeat(count, 0))
        some = tf.constant(crops[:count])

        def whole():
            return model.signatures["serving_default"](image_bytes=files, boxes=boxes)["scores"].numpy()

        def alone():
            return model.signatures["serving_images"](images=some)["scores"].numpy()

        def asked(way):
            request = {"path": os.path.join(folder, FILES[way]), "batch_size": count, "size": size}
            return lambda: others[way].ask(request)["seconds"]

        found = {"whole": lambda: seconds_of(whole), "alone": lambda: seconds_of(alone)}
        return found | {way: asked(way) for way in others}

    return ways


def _measurements(runs, ways):
    """The measurements of one network.

    Args:
        runs: how often each is timed.
        ways: from `_ways`.
    """
    single = ways(1)
    for way in single.values():
        for _ in range(WARM_UP):
            way()
    rounds = [{name: way() for name, way in single.items()} for _ in range(REQUESTS * runs)]
    latencies = {name: [seconds[name] for seconds in rounds] for name in single}
    middle = {way: statistics.median(times) for way, times in latencies.items()}
    seconds = alternate_timed(runs, ways(BATCH_SIZE))
    measurements = {}
    for way, times in latencies.items():
        measurements[f"{way}_p50_ms"] = 1000 * middle[way]
        measurements[f"{way}_p95_ms"] = 1000 * float(np.quantile(times, 0.95))
        measurements[f"{way}_persons_per_second_at_{BATCH_SIZE}"] = BATCH_SIZE / seconds[way]
    return measurements | {
        "throughput_ratio_to_onnx": ratio(seconds, "onnx", "alone"),
        "latency_ratio_to_onnx": ratio(middle, "alone", "onnx"),
        "frozen_throughput_ratio_to_onnx": ratio(seconds, "onnx", "frozen"),
        "frozen_latency_ratio_to_onnx": ratio(middle, "frozen", "onnx"),
        "lite_throughput_ratio_to_onnx": ratio(seconds, "onnx", "lite"),
        "lite_latency_ratio_to_onnx": ratio(middle, "lite", "onnx"),
        "preprocessing_ms": 1000 * (middle["whole"] - middle["alone"]),
        "share_of_preprocessing": 1 - seconds["alone"] / seconds["whole"],
    }
