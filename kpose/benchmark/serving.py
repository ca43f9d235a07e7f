"""Benchmark of exported models: latency and throughput, beside ONNX Runtime."""

import os
import statistics
import tempfile

import numpy as np
import tensorflow as tf

from kpose import config as config_lib
from kpose.benchmark.timing import alternate, ratio, seconds_of, skipped
from kpose.core import devices, skeletons
from kpose.data.training_set import skeleton_of
from kpose.export import converted, graph
from kpose.models import folding
from kpose.runs.workdir import build_network

NETWORKS = ("deeppose", "resnet18")
BATCH_SIZE = 32
# Requests with one box, for each run.
REQUESTS = 10
IMAGE_SIZE = (480, 640)


def serve(runs):
    """Two networks at 224 x 224: keypoints from an image of 480 x 640 with boxes, and from crops.

    `throughput_ratio_to_onnx` is above 1, and `latency_ratio_to_onnx` below 1, where kpose is
    faster.

    Args:
        runs: how often each is timed.
    """
    measurements = {}
    with_onnx = not skipped("ONNX Runtime", "onnxruntime", "tf2onnx")
    for name in NETWORKS:
        measurements |= {f"{name}_{key}": value for key, value in _network(name, runs, with_onnx).items()}
    return measurements


def _network(name, runs, with_onnx):
    config = config_lib.load_recipe(name)
    skeleton = skeleton_of(config, default=skeletons.COCO)
    with devices.dtype_policy("float32"):
        network = folding.fold_batch_norm(build_network(config, skeleton))
    size = tuple(config.model.input_size)
    server = graph.KeypointServer.from_config(network, config, skeleton)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model")
        tf.saved_model.save(server, path, signatures=server.signatures)
        # A reference to the model: the signatures alone do not keep the variables.
        loaded = tf.saved_model.load(path)
    whole, alone = (loaded.signatures[key] for key in ("serving_default", "serving_images"))
    small = np.random.default_rng(0).integers(0, 256, (IMAGE_SIZE[0] // 8, IMAGE_SIZE[1] // 8, 3), np.uint8)
    jpeg = tf.io.encode_jpeg(small.repeat(8, 0).repeat(8, 1))
    box = np.float32([[100, 50, 200, 400]])
    crops = np.random.default_rng(0).uniform(0, 255, (BATCH_SIZE, *size, 3)).astype(np.float32)

    def ways(count):
        found = {
            "whole": lambda: whole(image_bytes=tf.stack([jpeg] * count), boxes=tf.repeat(box, count, 0))[
                "scores"
            ].numpy(),
            "alone": lambda: alone(images=tf.constant(crops[:count]))["scores"].numpy(),
        }
        if onnx:
            found["onnx"] = lambda: onnx(crops[:count])
        return found

    onnx = converted.to_onnx(server)[1] if with_onnx else None
    single = ways(1)
    for way in single.values():
        way()
    latencies = {name: [] for name in single}
    for _ in range(REQUESTS * runs):
        for way, run in single.items():
            latencies[way].append(seconds_of(run))
    middle = {way: statistics.median(times) for way, times in latencies.items()}
    seconds = alternate(runs, ways(BATCH_SIZE))
    measurements = {}
    for way, times in latencies.items():
        measurements[f"{way}_p50_ms"] = 1000 * middle[way]
        measurements[f"{way}_p95_ms"] = 1000 * float(np.quantile(times, 0.95))
        measurements[f"{way}_persons_per_second_at_{BATCH_SIZE}"] = BATCH_SIZE / seconds[way]
    return measurements | {
        "throughput_ratio_to_onnx": ratio(seconds, "onnx", "alone"),
        "latency_ratio_to_onnx": middle["alone"] / middle["onnx"] if onnx else None,
        "share_of_preprocessing": 1 - seconds["alone"] / seconds["whole"],
    }
