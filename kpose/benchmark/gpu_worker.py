"""Worker that measures kpose with TensorFlow, on a GPU or a CPU (`workers.serve`).

Request: {"task": name of a function of `TASKS`, ...}; answer: see the function.
"""

import csv
import dataclasses
import functools
import gc
import os
import subprocess
import tempfile
import time

from kpose.benchmark import workers
from kpose.core import startup


def card(request):
    """The device, its versions, and its rate of matrix products.

    Args:
        request: dict of "matrix", the side of the matrices.

    Returns:
        dict of "device", "compute_capability", "tensorflow", "cuda", "cudnn", "memory",
        "tflops_float32", "tflops_bfloat16", "tflops_float16".
    """
    import tensorflow as tf

    from kpose.benchmark import training

    gpus = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    build = tf.sysconfig.get_build_info()
    rates = {}
    for precision in ("bfloat16", "float16", "float32"):
        rate = training.matrix_rate(5, precision, request["matrix"], products=20 if gpus else 1)
        rates[f"tflops_{precision}"] = rate / 1e12
    return rates | {
        "device": details.get("device_name", "CPU"),
        "gpus": len(gpus),
        "compute_capability": str(details.get("compute_capability", "")),
        "tensorflow": tf.__version__,
        "cuda": build.get("cuda_version"),
        "cudnn": build.get("cudnn_version"),
        "memory": _nvidia_smi(),
        "cores": len(os.sched_getaffinity(0)),
    }


def _nvidia_smi():
    command = ["nvidia-smi", "--query-gpu=memory.total,memory.used,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None


def train(request):
    """Training steps on constant data.

    Args:
        request: dict of "network", "precision", "xla", "steps_per_execution", "batch_size", and
            those of `_timed`.

    Returns:
        dict of `_timed`, and "gflop", the floating-point operations of a training step for one
        image.
    """
    mode = _mode(request)
    if mode in _FAILED:
        raise RuntimeError(f"as before: {_FAILED[mode]}")
    try:
        engine, first, work = _engine(*mode)
    except Exception as error:
        # A second compilation would fail too, after the same time.
        _FAILED[mode] = type(error).__name__
        raise
    engine.set_steps_per_execution(request["steps_per_execution"])
    return {"first_call_seconds": first, "gflop": work / 1e9} | _timed(engine, request)


def _mode(request):
    """The arguments of `_engine`."""
    return tuple(request[name] for name in ("network", "precision", "xla", "batch_size"))


def _timed(engine, request):
    """Measures an engine.

    Args:
        engine: `training.Engine`.
        request: dict of "time", the wanted seconds, and "steps", the largest number of steps; None:
            no limit.

    Returns:
        dict of "images_per_second", "seconds" of a step, "steps", "data_wait", the share of the time
        in which steps waited for data, "peak_memory_gib" (None on a CPU), "skipped_steps".
    """
    import tensorflow as tf

    together = engine.regressor.steps_per_execution
    estimate = engine.seconds(together)[0]
    executions = max(1, int(request["time"] / estimate / together))
    steps = max(1, min(executions, (request["steps"] or 10**9) // together)) * together
    seconds, waiting = engine.seconds(steps)
    return {
        "images_per_second": engine.config.batch_size / seconds,
        "seconds": seconds,
        "steps_timed": steps,
        "data_wait": waiting,
        "peak_memory_gib": tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30 if _on_gpu() else None,
        "skipped_steps": int(engine.regressor.skipped_steps.numpy()),
    }


def _on_gpu():
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


# Network, precision, XLA and batch size -> the error of building it.
_FAILED = {}


# One at a time: the number of steps in an execution needs no new compilation.
@functools.lru_cache(maxsize=1)
def _engine(network, precision, xla, batch_size):
    """(`training.Engine`, seconds of its first step, operations for one image)."""
    from kpose.benchmark import training
    from kpose.core import skeletons
    from kpose.data.training_set import skeleton_of

    _forget()
    config = training.recipe(network, precision, xla, batch_size)
    skeleton = skeleton_of(config, default=skeletons.COCO)
    batches = training.constant_data(training.constant_batch(config, skeleton))
    if _on_gpu():
        # A copy in each step, because the memory of a constant is not page-locked, as batches of records are.
        batches = batches.map(_copied, num_parallel_calls=4).prefetch(2)
    engine = training.Engine(config, skeleton, batches)
    return engine, engine.first_call(), training.work_of_training(config, skeleton)


def _copied(batch):
    import tensorflow as tf

    images = batch["image"]
    return batch | {"image": tf.concat([images[:1], images[1:]], 0)}


def _forget():
    """Frees the last network and resets the peak of the memory."""
    import keras
    import tensorflow as tf

    _engine.cache_clear()
    keras.backend.clear_session()
    gc.collect()
    if _on_gpu():
        tf.config.experimental.reset_memory_stats("GPU:0")


def data(request):
    """Draws images and writes records of their persons.

    Args:
        request: dict of "folder" and "images", the number of images.

    Returns:
        dict of "persons".
    """
    from kpose.benchmark import data as data_lib
    from tfrecords_tools.figures.dataset import render_dataset
    from tfrecords_tools.write_coco import writer

    folder = request["folder"]
    annotations = render_dataset(folder, request["images"])
    images = os.path.join(folder, "images", "train")
    options = data_lib.write_options(
        folder, annotations, images, crop_size=data_lib.STORED_SIZE, padding=data_lib.PADDING
    )
    # 0: a process a core.
    counts = writer.write_records(dataclasses.replace(options, workers=0))
    return {"persons": counts["persons"]}


def recipe(request):
    """Trains the demo's recipe.

    Args:
        request: dict of "folder", that of `data`; "precision", "xla", "replicas", "steps",
            "batch_size".

    Returns:
        dict of "first_loss" and "last_loss", the means over the first and the last epoch, "fell",
        "epochs", "whole_seconds".
    """
    import tensorflow as tf

    from kpose import config as config_lib
    from kpose.train import trainer

    kind = "GPU" if _on_gpu() else "CPU"
    if len(tf.config.get_logical_device_configuration(tf.config.list_physical_devices(kind)[0]) or ()) != 2:
        # Two devices of one card, for all requests, because a process can divide a card only once.
        limit = 16 * 1024 if kind == "GPU" else None
        half = tf.config.LogicalDeviceConfiguration(memory_limit=limit)
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices(kind)[0], [half] * 2)
    config = config_lib.load_recipe("demo")
    config.precision, config.xla, config.replicas = request["precision"], request["xla"], request["replicas"]
    config.steps = request["steps"]
    config.schedule.warmup_steps = config.steps // 5
    config.batch_size = request["batch_size"]
    config.data.train = os.path.join(request["folder"], "records", "train-*")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer.train(config, folder)
        with open(os.path.join(folder, "history.csv"), newline="") as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
    return {
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "fell": losses[-1] < losses[0],
        "epochs": len(losses),
        "whole_seconds": time.perf_counter() - started,
    }


def fed(request):
    """Training steps of ResNet-18 fed from records, with all augmentation.

    Args:
        request: dict of "folder", that of `data`; "augment", "host" or "device"; "precision",
            "batch_size", and those of `_timed`.

    Returns:
        dict of `_timed`.
    """
    from kpose.benchmark import data as data_lib
    from kpose.benchmark import training
    from kpose.core import skeletons
    from kpose.data import pipeline
    from kpose.train import setup

    _forget()
    config = training.recipe("resnet18", request["precision"], request["xla"], request["batch_size"])
    fields = data_lib.recipe(request["folder"], request["augment"])
    config.data, config.augment = fields.data, fields.augment
    training_set = setup.training_set_of(config, skeletons.COCO)
    batches = pipeline.training_batches(config, training_set)
    engine = training.Engine(config, skeletons.COCO, batches, training_set.window)
    engine.set_steps_per_execution(request["steps_per_execution"])
    return {"first_call_seconds": engine.first_call()} | _timed(engine, request)


def decoding(request):
    """Rate of decoding alone on all cores, without a network.

    Args:
        request: dict of "folder", that of `data`; "batch_size"; "time", the wanted seconds.

    Returns:
        dict of "images_per_second".
    """
    import glob

    from kpose.benchmark import data as data_lib
    from kpose.benchmark import data_baselines

    paths = sorted(glob.glob(os.path.join(request["folder"], "records", "train-*")))
    batches = iter(data_baselines.decoded_batches(paths, data_lib.STORED_SIZE, request["batch_size"]))
    for _ in range(5):
        next(batches)
    started, number = time.perf_counter(), 0
    while time.perf_counter() - started < request["time"]:
        next(batches)
        number += 1
    return {"images_per_second": number * request["batch_size"] / (time.perf_counter() - started)}


def profile(request):
    """Where the time of training steps on constant data goes.

    Args:
        request: dict of "network", "precision", "xla" and "batch_size", as for `train`; "steps", the
            number of steps; "rows", the number of operations to name.

    Returns:
        dict of "seconds" of a step, "busy", the share of the time in which the card computes (None
        on a CPU, and if the profiler recorded no kernels), and "operations": list of (name of a kernel of the
        card, otherwise of an operation; milliseconds in a step; number in a step), the longest first.
    """
    from kpose.benchmark import profiling

    engine = _engine(*_mode(request))[0]
    engine.set_steps_per_execution(1)
    return profiling.profile(engine, request["steps"], request.get("rows", 40))


TASKS = {task.__name__: task for task in (card, train, data, recipe, fed, decoding, profile)}


def handle(request):
    """The answer of a task, with the seconds of importing TensorFlow in the first one."""
    started = time.perf_counter()
    startup.import_tensorflow()
    imported = time.perf_counter() - started
    answer = TASKS[request["task"]](request)
    return answer | ({"import_seconds": imported} if imported > 0.1 else {})


if __name__ == "__main__":
    startup.keep_freed_memory()
    workers.serve(handle)
