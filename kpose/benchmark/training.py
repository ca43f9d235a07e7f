"""Benchmark of training steps, beside a bare TensorFlow loop and PyTorch."""

import contextlib
import gc
import os
import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from kpose import config as config_lib
from kpose.benchmark import workers
from kpose.benchmark.timing import alternate_timed, ratio, seconds_of, skipped
from kpose.core import devices, skeletons
from kpose.data.training_set import skeleton_of
from kpose.models import flops
from kpose.runs.workdir import build_network
from kpose.train import setup

NETWORKS = ("deeppose", "resnet18")
# Mode -> `config.xla`.
MODES = {"plain": "off", "xla": "on"}
# Images of a step.
BATCH_SIZE = 64
# Number of training steps in one measurement; the median is used.
STEPS = 3
# Side of the square matrices that are multiplied.
MATRIX = 3072


def train(runs, batch_size=BATCH_SIZE):
    """Images per second of two networks on constant data, in each precision and mode.

    In each precision these are timed in alternation: kpose with and without XLA, a bare TensorFlow
    loop in the faster of these two modes, and PyTorch, eager and compiled. `share_of_matrix_rate`
    compares the floating-point operations per second with those of large matrix multiplications; a
    training step counts as three forward passes.

    Args:
        runs: how often each is timed.
        batch_size: images of a step. At 64, the process and those of PyTorch need 12 GB.
    """
    precisions = ["float32"]
    if devices.choose_precision("auto") == "mixed_bfloat16":
        precisions.append("mixed_bfloat16")
    else:
        logging.warning("mixed_bfloat16: skipped, this machine has no hardware for it")
    measurements = {"batch_size": batch_size}
    with _torch_workers(not skipped("PyTorch", "torch")) as torch_workers:
        for precision in precisions:
            _precision(precision, runs, batch_size, torch_workers, measurements)
    return measurements


def _precision(precision, runs, batch_size, torch_workers, measurements):
    """Adds the measurements of all networks in one precision."""
    rate = matrix_rate(runs, precision)
    measurements[f"matrix_gflops_{_short(precision)}"] = rate / 1e9
    for name in NETWORKS:
        measured = _network(name, precision, runs, batch_size, rate, torch_workers)
        measurements |= {f"{name}_{_short(precision)}_{key}": value for key, value in measured.items()}
        shown = ", ".join(f"{key} {value:.3g}" for key, value in measured.items() if value is not None)
        logging.info("%s in %s: %s", name, _short(precision), shown)
        gc.collect()


def _short(precision):
    return precision.removeprefix("mixed_")


def _network(name, precision, runs, batch_size, matrix_rate, torch_workers):
    config = recipe(name, precision, batch_size=batch_size)
    skeleton = skeleton_of(config, default=skeletons.COCO)
    batch = constant_batch(config, skeleton)
    data = constant_data(batch)
    engines = {mode: Engine(recipe(name, precision, xla, batch_size), skeleton, data) for mode, xla in MODES.items()}
    ways = {mode: lambda engine=engine: engine.seconds(STEPS)[0] for mode, engine in engines.items()}
    seconds = alternate_timed(1, ways)
    best = min(seconds, key=seconds.get)
    ways["bare"] = _bare_loop(config, skeleton, batch, xla=best == "xla")
    for way, worker in torch_workers.items():
        ways[f"torch_{way}"] = _torch(worker, torch_request(config, skeleton, way == "compiled") | {"steps": STEPS})
    ways = {way: run for way, run in ways.items() if run is not None}
    seconds = alternate_timed(runs, ways)
    torch_ways = [way for way in seconds if way.startswith("torch_")]
    return {f"{way}_images_per_second": batch_size / value for way, value in seconds.items()} | {
        "share_of_matrix_rate": batch_size * work_of_training(config, skeleton) / seconds[best] / matrix_rate,
        "ratio_to_torch": ratio(seconds, min(torch_ways, key=seconds.get), best) if torch_ways else None,
        "engine_overhead": seconds[best] / seconds["bare"] - 1,
    }


def work_of_training(config, skeleton):
    """Floating-point operations of a training step for one image."""
    with devices.dtype_policy(config.precision):
        return flops.PASSES_OF_TRAINING * flops.forward(build_network(config, skeleton), config.model.input_size)


def torch_request(config, skeleton, compiled):
    """The request to `torch_worker` for the same training step."""
    return {
        "network": config.name,
        "size": config.model.input_size[0],
        "joints": skeleton.num_joints,
        "batch_size": config.batch_size,
        "precision": config.precision,
        "compiled": compiled,
    }


def recipe(name, precision, xla="off", batch_size=BATCH_SIZE):
    """A recipe with the loss and the optimiser that the bare loop and PyTorch use too."""
    config = config_lib.load_recipe(name)
    config.batch_size, config.precision, config.xla = batch_size, precision, xla
    config.loss.name, config.optimizer.name, config.optimizer.learning_rate = "l2", "sgd", 1e-6
    config.optimizer.momentum = config.optimizer.ema = config.optimizer.clip_norm = 0.0
    config.optimizer.weight_decay = 0.0
    config.schedule.name, config.schedule.warmup_steps = "constant", 0
    return config


def constant_batch(config, skeleton):
    """A training batch of random pixels and keypoints, as `Regressor.fit` takes it."""
    rng, size, number = np.random.default_rng(0), config.model.input_size, config.batch_size
    batch = {
        "image": rng.integers(0, 256, (number, *size, 3), np.uint8),
        "keypoints": rng.uniform(-0.5, 0.5, (number, skeleton.num_joints, 3)).astype(np.float32),
        "region": np.tile(np.float32([0, 0, 100, 200]), (number, 1)),
        "weight": np.ones(number, np.float32),
    }
    batch["keypoints"][..., 2] = 2
    return batch


def constant_data(batch):
    """The endless `tf.data.Dataset` of one batch."""
    data = tf.data.Dataset.from_tensors(batch).repeat()
    # Without operations to tune, the autotuner delays the end of the pipeline until its next cycle.
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.with_options(options)


class Engine:
    """Training steps of kpose, to be timed: `Regressor.fit`, under a strategy, with metrics.

    Args:
        config: the recipe.
        skeleton: the `Skeleton` of the keypoints.
        data: endless `tf.data.Dataset` of training batches.
        stored_share: as for `setup.build_regressor`.
    """

    def __init__(self, config, skeleton, data, stored_share=1.0):
        self.config = config
        run = devices.start(config)
        self.data = run.distribute(lambda worker, workers: data)
        self.regressor = setup.build_regressor(config, skeleton, run, total_steps=1, stored_share=stored_share)

    def set_steps_per_execution(self, steps):
        """Sets the number of steps in a call from Python; the compiled step stays."""
        self.regressor.steps_per_execution = steps

    def first_call(self):
        """Seconds of the first step, with tracing and compilation."""
        return seconds_of(lambda: self.regressor.fit(self.data, steps_per_epoch=1, total_steps=1, verbose=0))

    def seconds(self, steps, warm_up=1):
        """Seconds of a step, in the mean over `steps` steps after the first ones.

        Args:
            steps: number of steps.
            warm_up: number of executions before them, at least 1: the first one includes the
                creation of the iterator.

        Returns:
            (seconds of a step, share of this time in which the step waited for data).
        """
        count = warm_up * self.regressor.steps_per_execution
        ends = _Marks(count)
        total = count + steps
        self.regressor.fit(self.data, steps_per_epoch=total, total_steps=total, verbose=0, callbacks=[ends])
        elapsed = ends.last[0] - ends.first[0]
        return elapsed / steps, (ends.last[1] - ends.first[1]) / elapsed


class _Marks(keras.callbacks.Callback):
    """The time and the total waiting for data after `count` steps and after the last step."""

    def __init__(self, count):
        super().__init__()
        self.count = count
        self.first = self.last = None

    def on_train_batch_end(self, batch, logs=None):
        # Reading a value waits for the end of the step, so it is done twice only.
        if self.model.steps.done == self.count or not self.model.steps.coming:
            float(logs["loss"])
            self.last = time.perf_counter(), float(self.model.data_wait)
            self.first = self.first or self.last


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


@contextlib.contextmanager
def _torch_workers(present):
    """dict way -> `workers.Worker` with PyTorch; without PyTorch it is empty."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        ways = ("eager", "compiled") if present else ()
        yield {
            way: stack.enter_context(workers.Worker("kpose.benchmark.torch_worker", os.path.join(folder, way)))
            for way in ways
        }


def _torch(worker, request):
    """Function -> seconds of a step in PyTorch; None if it fails (torch.compile needs a C++ compiler)."""
    try:
        worker.ask(request)
    except workers.WorkerError as error:
        # Any error of the compiler: eager PyTorch is still a baseline.
        logging.warning("PyTorch%s: skipped, it failed: %s", " compiled" * request["compiled"], error)
        return None
    return lambda: worker.ask(request)["seconds"]


def matrix_rate(runs, precision, side=MATRIX, products=1):
    """Floating-point operations per second of products of two matrices of `side` x `side`.

    Args:
        runs: how often it is timed; the median counts.
        precision: a dtype policy of Keras.
        side: side of the matrices.
        products: number of products in one call, one after the other.
    """
    dtype = tf.as_dtype(_short(precision))
    # The elements of the products stay near 1, because no kernel may get infinities.
    factor = tf.cast(tf.random.stateless_uniform((side, side), (0, 0)) * (2 / side), dtype)
    one = tf.cast(tf.random.stateless_uniform((side, side), (0, 1)), dtype)

    @tf.function(autograph=False)
    def multiply(a, b):
        for _ in range(products):
            a = tf.matmul(a, b)
        # One number: a copy of the matrix to the host takes longer than the product.
        return tf.reduce_sum(tf.cast(a[0], tf.float32))

    float(multiply(one, factor))
    times = [seconds_of(lambda: float(multiply(one, factor))) for _ in range(max(3, runs))]
    return 2 * products * side**3 / statistics.median(times)
