"""Benchmark of training steps, beside a bare TensorFlow loop and PyTorch."""

import gc
import itertools
import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from kpose import config as config_lib
from kpose.benchmark.timing import alternate_timed, ratio, seconds_of, skipped
from kpose.core import devices, skeletons
from kpose.core.errors import first_line
from kpose.data.training_set import skeleton_of
from kpose.models import flops
from kpose.runs.workdir import build_network
from kpose.train import setup

NETWORKS = ("deeppose", "resnet18")
# Mode -> `config.xla`.
MODES = {"plain": "off", "xla": "on"}
BATCH_SIZE = 64
# Number of training steps in one measurement; the median is used.
STEPS = 3
# Side of the square matrices that are multiplied.
MATRIX = 3072


def train(runs):
    """Images per second of two networks on constant data, in each precision and mode.

    In each precision these are timed in alternation: kpose with and without XLA, a bare TensorFlow
    loop in the faster of these two modes, and PyTorch, eager and compiled. `share_of_matrix_rate`
    compares the floating-point operations per second with those of large matrix multiplications; a
    training step counts as three forward passes.

    Args:
        runs: how often each is timed.
    """
    precisions = ["float32"]
    if devices.choose_precision("auto") == "mixed_bfloat16":
        precisions.append("mixed_bfloat16")
    else:
        logging.warning("mixed_bfloat16: skipped, this machine has no hardware for it")
    with_torch = not skipped("PyTorch", "torch")
    measurements = {"batch_size": BATCH_SIZE}
    for precision in precisions:
        rate = _matrix_rate(runs, precision)
        measurements[f"matrix_gflops_{_short(precision)}"] = rate / 1e9
        for name in NETWORKS:
            measured = _network(name, precision, runs, rate, with_torch)
            measurements |= {f"{name}_{_short(precision)}_{key}": value for key, value in measured.items()}
            shown = ", ".join(f"{key} {value:.3g}" for key, value in measured.items() if value is not None)
            logging.info("%s in %s: %s", name, _short(precision), shown)
            gc.collect()
    return measurements


def _short(precision):
    return precision.removeprefix("mixed_")


def _network(name, precision, runs, matrix_rate, with_torch):
    config = _recipe(name, precision)
    skeleton = skeleton_of(config, default=skeletons.COCO)
    batch = _batch(config, skeleton)
    ways = {mode: _engine(_recipe(name, precision, xla), skeleton, batch) for mode, xla in MODES.items()}
    seconds = alternate_timed(1, ways)
    best = min(seconds, key=seconds.get)
    ways["bare"] = _bare_loop(config, skeleton, batch, xla=best == "xla")
    if with_torch:
        from kpose.benchmark import torch_networks

        for way in ("eager", "compiled"):
            ways[f"torch_{way}"] = _torch(getattr(torch_networks, name), batch, precision, way == "compiled")
    ways = {way: run for way, run in ways.items() if run is not None}
    seconds = alternate_timed(runs, ways)
    torch_ways = [way for way in seconds if way.startswith("torch_")]
    with devices.dtype_policy(precision):
        work = flops.PASSES_OF_TRAINING * flops.forward(build_network(config, skeleton), config.model.input_size)
    return {f"{way}_images_per_second": BATCH_SIZE / value for way, value in seconds.items()} | {
        "share_of_matrix_rate": BATCH_SIZE * work / seconds[best] / matrix_rate,
        "ratio_to_torch": ratio(seconds, min(torch_ways, key=seconds.get), best) if torch_ways else None,
        "engine_overhead": seconds[best] / seconds["bare"] - 1,
    }


def _recipe(name, precision, xla="off"):
    """A recipe with the loss and the optimiser that the bare loop and PyTorch use too."""
    config = config_lib.load_recipe(name)
    config.batch_size, config.precision, config.xla = BATCH_SIZE, precision, xla
    config.loss.name, config.optimizer.name, config.optimizer.learning_rate = "l2", "sgd", 1e-6
    config.optimizer.momentum = config.optimizer.ema = config.optimizer.clip_norm = 0.0
    config.optimizer.weight_decay = 0.0
    config.schedule.name, config.schedule.warmup_steps = "constant", 0
    return config


def _batch(config, skeleton):
    rng, size = np.random.default_rng(0), config.model.input_size
    batch = {
        "image": rng.integers(0, 256, (BATCH_SIZE, *size, 3), np.uint8),
        "keypoints": rng.uniform(-0.5, 0.5, (BATCH_SIZE, skeleton.num_joints, 3)).astype(np.float32),
        "region": np.tile(np.float32([0, 0, 100, 200]), (BATCH_SIZE, 1)),
        "weight": np.ones(BATCH_SIZE, np.float32),
    }
    batch["keypoints"][..., 2] = 2
    return batch


def _engine(config, skeleton, batch):
    """Seconds of a training step of kpose: `Regressor.fit`, under a strategy, with metrics."""
    run = devices.start(config)
    regressor = setup.build_regressor(config, skeleton, run, total_steps=1)
    data = tf.data.Dataset.from_tensors(batch).repeat()
    # Without operations to tune, the autotuner delays the end of the pipeline until its next cycle.
    options = tf.data.Options()
    options.autotune.enabled = False
    data = data.with_options(options)

    def seconds():
        ends = _StepEnds()
        # One more step, because the first one includes the creation of the iterator.
        regressor.fit(data, steps_per_epoch=STEPS + 1, total_steps=STEPS + 1, verbose=0, callbacks=[ends])
        return statistics.median(end - start for start, end in itertools.pairwise(ends.times))

    return seconds


class _StepEnds(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.times = []

    def on_train_batch_end(self, batch, logs=None):
        # Reading a value waits for the end of the step.
        float(logs["loss"])
        self.times.append(time.perf_counter())


def _of_single_steps(step):
    return lambda: statistics.median(seconds_of(step) for _ in range(STEPS))


def _bare_loop(config, skeleton, batch, xla):
    """Seconds of a training step without strategy, metrics, data pipeline and callbacks."""
    with devices.dtype_policy(config.precision):
        network = build_network(config, skeleton)
    images = tf.cast(batch["image"], tf.float32)
    truth = tf.constant(batch["keypoints"][..., :2])
    optimizer = keras.optimizers.SGD(config.optimizer.learning_rate)
    optimizer.build(network.trainable_variables)

    @tf.function(jit_compile=xla, autograph=False)
    def gradients(trainable, state):
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            outputs, state = network.stateless_call(trainable, state, images, training=True)
            loss = tf.reduce_sum(tf.square(outputs["keypoints"] - truth))
        return tape.gradient(loss, trainable), state

    @tf.function(autograph=False)
    def step():
        trainable = [tf.convert_to_tensor(v.value) for v in network.trainable_variables]
        state = [tf.convert_to_tensor(v.value) for v in network.non_trainable_variables]
        found, state = gradients(trainable, state)
        optimizer.apply(found, network.trainable_variables)
        for variable, value in zip(network.non_trainable_variables, state, strict=True):
            variable.value.assign(value)

    def one():
        step()
        float(tf.reduce_sum(network.trainable_variables[-1].value))

    return _of_single_steps(one)


def _torch(make_network, batch, precision, compiled):
    """Seconds of a step in PyTorch; None if it fails (torch.compile needs a C++ compiler)."""
    from kpose.benchmark import torch_networks

    step = torch_networks.make_step(make_network, batch, precision == "mixed_bfloat16", compiled)
    try:
        step()
    except Exception as error:
        # Any error of the compiler: eager PyTorch is still a baseline.
        logging.warning("torch.compile: skipped, it failed: %s", first_line(error))
        return None
    return _of_single_steps(step)


def _matrix_rate(runs, precision):
    """Floating-point operations per second of large matrix multiplications."""
    dtype = tf.as_dtype(_short(precision))
    one = tf.cast(tf.random.stateless_uniform((MATRIX, MATRIX), (0, 0)), dtype)
    multiply = tf.function(lambda a: tf.reduce_sum(tf.matmul(a, a)[0]), autograph=False)
    float(multiply(one))
    times = []
    for _ in range(max(3, runs)):
        started = time.perf_counter()
        float(multiply(one))
        times.append(time.perf_counter() - started)
    return 2 * MATRIX**3 / sorted(times)[len(times) // 2]
