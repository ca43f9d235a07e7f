"""The exported signature: latency, throughput, and the share of preprocessing."""

import statistics

import numpy as np
import tensorflow as tf

from kpose import config as config_lib
from kpose import models, runtime, serving, skeletons
from kpose.benchmarking.timing import alternate, seconds_of

BATCH_SIZE = 32


def serve(runs):
    """The exported demo network: a JPEG to keypoints at batch 1, and 32 of them against the network alone."""
    config = config_lib.load_recipe("demo")
    skeleton = skeletons.get(config.skeleton)
    with runtime.dtype_policy("float32"):
        network = models.build(config.model, skeleton)
    server = serving.KeypointServer(network, skeleton, config.model.input_size, config.data.padding)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 60, 80, 3), np.uint8).repeat(8, 1).repeat(8, 2)[0]
    jpeg = tf.io.encode_jpeg(pixels)
    box = np.float32([[100, 50, 200, 400]])
    crops = tf.zeros([BATCH_SIZE, *config.model.input_size, 3])
    alone = tf.function(lambda images: network(images, training=False), autograph=False)

    def answer(count):
        server.serve(tf.stack([jpeg] * count), tf.repeat(box, count, 0))

    answer(1)
    latencies = sorted(seconds_of(lambda: answer(1)) for _ in range(10 * runs))
    seconds = alternate(runs, {"whole": lambda: answer(BATCH_SIZE), "bare": lambda: alone(crops)})
    whole, bare = seconds["whole"], seconds["bare"]
    return {
        "network": config.name,
        "latency_p50_ms": 1000 * statistics.median(latencies),
        "latency_p95_ms": 1000 * latencies[int(0.95 * len(latencies))],
        "persons_per_second_at_32": BATCH_SIZE / whole,
        "network_alone_persons_per_second_at_32": BATCH_SIZE / bare,
        "share_of_preprocessing_at_32": 1 - bare / whole,
    }
