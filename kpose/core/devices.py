"""Where and how the arithmetic runs: devices, replicas, precision, compilation.

Each choice that a recipe leaves to "auto" is decided by one small function here, from what the machine has.
"""

import contextlib
import dataclasses
import functools
import json
import os

import keras
import tensorflow as tf
from absl import logging

from kpose.core import startup
from kpose.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class Runtime:
    """What really runs.

    Attributes:
        strategy: the `tf.distribute.Strategy`.
        precision: the Keras dtype policy: "float32", "mixed_bfloat16" or "mixed_float16".
        xla: whether the replicas' steps are compiled.
        synchronized: whether BatchNorm sees the batches of all replicas together.
        worker, workers: this process among those that train together; worker 0 is the chief, who alone writes.
    """

    strategy: tf.distribute.Strategy
    precision: str
    xla: bool
    synchronized: bool
    worker: int = 0
    workers: int = 1

    def batch_size(self, config):
        """The global batch size of a recipe; of a quick one rounded up to a multiple of the replicas.

        Raises:
            InputError: a batch that the replicas cannot share.
        """
        replicas = self.strategy.num_replicas_in_sync
        if config.quick:
            return -(-config.batch_size // replicas) * replicas
        if config.batch_size % replicas:
            raise InputError(f"config.batch_size {config.batch_size} cannot be shared out among {replicas} replicas")
        return config.batch_size

    @property
    def on_cpu(self):
        return all("CPU" in device for device in self.strategy.extended.worker_devices)

    def distribute(self, make_batches):
        """Batches as `fit` and `evaluate` take them.

        Args:
            make_batches: (worker, workers) -> `tf.data.Dataset` of this worker's part of each global batch.
        """
        if self.workers == 1:
            return make_batches(0, 1)
        mine = self.strategy.num_replicas_in_sync // self.workers

        def for_this_worker(context):
            batches = make_batches(self.worker, self.workers)
            size = next(iter(batches.element_spec.values())).shape[0]
            return batches if mine == 1 else batches.rebatch(size // mine)

        return self.strategy.distribute_datasets_from_function(for_this_worker)

    def gather(self, number):
        """Every worker's whole number, by worker; all of them ask at the same point, and wait for each other."""
        if self.workers == 1:
            return [number]
        mine = tf.one_hot(self.worker, self.workers, tf.constant(number, tf.int64), tf.constant(0, tf.int64))
        # Each of a worker's replicas adds its worker's number.
        replicas = self.strategy.num_replicas_in_sync // self.workers
        return [int(total) // replicas for total in _summing(self.strategy)(mine)]

    @contextlib.contextmanager
    def scope(self):
        """Where models are built: the strategy's scope, under the dtype policy."""
        with self.strategy.scope(), dtype_policy(self.precision):
            yield

    def describe(self):
        """One line for the start-up summary."""
        replicas = self.strategy.num_replicas_in_sync
        devices = ", ".join(d.split("/device:")[-1] for d in self.strategy.extended.worker_devices)
        batch_norm = ""
        if replicas > 1:
            batch_norm = f", BatchNorm {'synchronised' if self.synchronized else 'on each replica alone'}"
        compiled = "compiled with XLA" if self.xla else "not compiled"
        among = f", worker {self.worker} of {self.workers}" if self.workers > 1 else ""
        return f"{replicas} replica{'s' * (replicas > 1)} on {devices}{among}, {self.precision}, {compiled}{batch_norm}"


@functools.cache
def _summing(strategy):
    return tf.function(
        lambda values: strategy.reduce("SUM", strategy.run(tf.identity, args=(values,)), axis=None), autograph=False
    )


def start(config):
    """The `Runtime` of a recipe.

    Raises:
        InputError: replicas that the machine does not have.
    """
    startup.keep_freed_memory()
    worker, workers = cluster()
    strategy = make_strategy(config.replicas)
    replicas = strategy.num_replicas_in_sync
    on_cpu = not tf.config.list_logical_devices("GPU")
    xla = config.xla == "on" or (config.xla == "auto" and not on_cpu)
    # A compiled program holds one replica's step and cannot wait for another's in its midst.
    synchronized = replicas > 1 and not xla
    return Runtime(strategy, choose_precision(config.precision), xla, synchronized, worker, workers)


def cluster():
    """(this worker's number, how many there are) by TF_CONFIG, which launchers set; (0, 1) without it.

    Raises:
        InputError: a TF_CONFIG that is none.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return 0, 1
    try:
        setting = json.loads(text)
        # Some launchers call the first worker the chief.
        counts = {kind: len(setting["cluster"].get(kind, ())) for kind in ("chief", "worker")}
        kind, index = setting["task"]["type"], int(setting["task"]["index"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"TF_CONFIG: not a cluster and a task in JSON ({error!r}): {text[:200]}") from None
    if not 0 <= index < counts.get(kind, 0):
        raise InputError(f"TF_CONFIG: task {kind} {index} among {counts}: all tasks are workers, or the chief")
    return index + (counts["chief"] if kind == "worker" else 0), sum(counts.values())


def make_strategy(replicas=0):
    """The strategy over all replicas.

    Several workers, by TF_CONFIG: MultiWorkerMirroredStrategy over all their accelerators. Otherwise MirroredStrategy
    over `replicas` accelerators (0: all of them), or logical CPU devices where there is none.
    """
    if cluster()[1] > 1:
        if replicas:
            raise InputError(f"config.replicas is {replicas}, but several workers use all that they have: leave it 0")
        return _multi_worker()
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if replicas > len(gpus):
            raise InputError(f"config.replicas is {replicas}, but there are {len(gpus)} GPUs")
        return _mirrored("GPU", replicas or len(gpus))
    wanted = max(replicas, 1)
    try:
        if wanted > 1:
            cpu = tf.config.list_physical_devices("CPU")[0]
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * wanted)
    except RuntimeError:
        # TensorFlow is already running; that is fine where it runs with enough devices.
        pass
    there = len(tf.config.list_logical_devices("CPU"))
    if there < wanted:
        raise InputError(f"config.replicas is {wanted}, but TensorFlow already runs here with {there} CPU device(s)")
    return _mirrored("CPU", wanted)


@functools.cache
def _multi_worker():
    # Before anything runs: it opens this worker's server, and waits for the others.
    return tf.distribute.MultiWorkerMirroredStrategy()


@functools.cache
def _mirrored(kind, replicas):
    # One strategy for the life of the process: each numbers its all-reduces from the same start, and TensorFlow
    # refuses a number that it saw before with another shape, as a second network's would be.
    return tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(replicas)])


def choose_precision(requested):
    """The dtype policy for `config.precision`; "auto" is bfloat16 only where the hardware computes in it.

    Elsewhere TensorFlow falls back to reference kernels: on a 2-core AVX2 CPU the DeepPose network trained 11 times
    more slowly in bfloat16 than in float32 (1.1 against 12.1 images/s at batch 64).
    """
    if requested == "auto":
        return "mixed_bfloat16" if _has_bfloat16() else "float32"
    if requested == "mixed_bfloat16" and not _has_bfloat16():
        logging.warning(
            "mixed_bfloat16 on hardware that does not compute in it is slow: 1.1 instead of 12.1 images/s of the "
            "DeepPose network on a 2-core AVX2 CPU; precision=auto avoids it here"
        )
    return requested


def _has_bfloat16():
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return capability >= (8, 0)
    if tf.config.list_physical_devices("TPU"):
        return True
    return bool({"avx512_bf16", "amx_bf16"} & _cpu_flags())


def _cpu_flags():
    try:
        with open("/proc/cpuinfo") as file:
            return next((set(line.split(":")[1].split()) for line in file if line.startswith("flags")), set())
    except OSError:
        # Not Linux: nothing says that the CPU computes in bfloat16.
        return set()


@contextlib.contextmanager
def dtype_policy(precision):
    """Keras layers built inside get the dtype policy `precision`."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
