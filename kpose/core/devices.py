"""Devices, replicas, precision and compilation of a training or evaluation.

If a recipe leaves a choice at "auto", one function of this module makes it from the hardware.
"""

import contextlib
import dataclasses
import functools

import keras
import tensorflow as tf
from absl import logging

from kpose.core import cluster as cluster_lib
from kpose.core import rendezvous, startup
from kpose.core.errors import InputError

# On accelerators.
STEPS_PER_EXECUTION = 16


@dataclasses.dataclass(frozen=True)
class Runtime:
    """The devices, precision and compilation that are in use.

    Attributes:
        strategy: the `tf.distribute.Strategy`.
        precision: the Keras dtype policy: "float32", "mixed_bfloat16" or "mixed_float16".
        xla: whether XLA compiles the step of each replica.
        synchronized: whether BatchNorm uses the statistics of all replicas together.
        worker: number of this process, from 0. Worker 0 is the chief: only the chief writes files.
        workers: number of processes that train together.
    """

    strategy: tf.distribute.Strategy
    precision: str
    xla: bool
    synchronized: bool
    worker: int = 0
    workers: int = 1

    def batch_size(self, config):
        """The global batch size of a recipe.

        The batch size of a quick recipe is rounded up to a multiple of the number of replicas.

        Raises:
            InputError: the batch size is not a multiple of the number of replicas.
        """
        replicas = self.strategy.num_replicas_in_sync
        if config.quick:
            return -(-config.batch_size // replicas) * replicas
        if config.batch_size % replicas:
            raise InputError(
                f"config.batch_size {config.batch_size} cannot be divided among {replicas} replicas: "
                f"give a multiple of {replicas}"
            )
        return config.batch_size

    def steps_per_execution(self, config):
        """The number of training steps in one call from Python, for a recipe.

        On an H200, ResNet-18 at batch size 512 trained 13,900 images/s with one step in a call and
        15,100 to 15,900 with 16: between two calls the card waits for Python.
        """
        return config.steps_per_execution or (1 if self.on_cpu else STEPS_PER_EXECUTION)

    @property
    def on_cpu(self):
        """Whether all replicas are on CPU devices."""
        return on_cpu(self.strategy)

    def distribute(self, make_batches):
        """A dataset for `Regressor.fit` or `evaluate`.

        Args:
            make_batches: function (worker, workers) -> `tf.data.Dataset` of the worker's part of
                each global batch.
        """
        # With one batch ahead, the copy of each batch would begin when the card waits for it already.
        ahead = tf.distribute.InputOptions(experimental_per_replica_buffer_size=2)
        if self.workers == 1:
            return self.strategy.experimental_distribute_dataset(make_batches(0, 1), ahead)
        mine = self.strategy.num_replicas_in_sync // self.workers

        def for_this_worker(context):
            batches = make_batches(self.worker, self.workers)
            size = next(iter(batches.element_spec.values())).shape[0]
            return batches if mine == 1 else batches.rebatch(size // mine)

        return self.strategy.distribute_datasets_from_function(for_this_worker, ahead)

    def gather(self, number):
        """The integers of all workers, in the order of the workers.

        All workers must call this at the same point. Each call waits for all of them.

        Args:
            number: the integer of this worker.
        """
        if self.workers == 1:
            return [number]
        mine = tf.one_hot(self.worker, self.workers, tf.constant(number, tf.int64), tf.constant(0, tf.int64))
        # Every replica of a worker adds the worker's number.
        replicas = self.strategy.num_replicas_in_sync // self.workers
        return [int(total) // replicas for total in _summing(self.strategy)(mine)]

    @contextlib.contextmanager
    def scope(self):
        """A context to build models in: the strategy's scope and the dtype policy."""
        with self.strategy.scope(), dtype_policy(self.precision):
            yield

    def describe(self):
        """One line for the log: replicas, devices, precision, compilation."""
        replicas = self.strategy.num_replicas_in_sync
        devices = ", ".join(d.split("/device:")[-1] for d in self.strategy.extended.worker_devices)
        batch_norm = ""
        if replicas > 1:
            batch_norm = f", BatchNorm {'synchronised' if self.synchronized else 'on each replica alone'}"
        compiled = "compiled with XLA" if self.xla else "not compiled"
        among = f", worker {self.worker} of {self.workers}" if self.workers > 1 else ""
        return f"{replicas} replica{'s' * (replicas > 1)} on {devices}{among}, {self.precision}, {compiled}{batch_norm}"


def on_cpu(strategy):
    """Whether all replicas of a `tf.distribute.Strategy` are on CPU devices."""
    return all("CPU" in device for device in strategy.extended.worker_devices)


def gpu_is_divided():
    """Whether the caller has divided a GPU into logical devices."""
    return len(tf.config.list_logical_devices("GPU")) > len(tf.config.list_physical_devices("GPU"))


# Cached, because each `tf.function` is traced again.
@functools.cache
def _summing(strategy):
    """A function that returns the sum of a tensor over all replicas."""
    return tf.function(
        lambda values: strategy.reduce("SUM", strategy.run(tf.identity, args=(values,)), axis=None), autograph=False
    )


def start(config, worker_timeout=rendezvous.TIMEOUT):
    """The `Runtime` of a recipe.

    Args:
        config: the recipe.
        worker_timeout: seconds to wait for the other workers of TF_CONFIG.

    Raises:
        InputError: the machine has fewer devices than `config.replicas`, TF_CONFIG is wrong, or a
            worker did not come in time.
    """
    startup.keep_freed_memory()
    worker, workers = cluster()
    strategy = make_strategy(config.replicas, worker_timeout)
    replicas = strategy.num_replicas_in_sync
    on_cpu = not tf.config.list_logical_devices("GPU")
    xla = config.xla == "on" or (config.xla == "auto" and not on_cpu)
    # A compiled step cannot exchange statistics with other replicas.
    synchronized = replicas > 1 and not xla
    return Runtime(strategy, choose_precision(config.precision), xla, synchronized, worker, workers)


def cluster():
    """(number of this worker, number of workers) from TF_CONFIG; (0, 1) if it is not set.

    Raises:
        InputError: TF_CONFIG is not valid.
    """
    found = cluster_lib.from_environment()
    return (found.index, len(found.addresses)) if found else (0, 1)


def make_strategy(replicas=0, worker_timeout=rendezvous.TIMEOUT):
    """The `tf.distribute.Strategy` over all replicas.

    With several workers in TF_CONFIG: MultiWorkerMirroredStrategy over all their accelerators.
    Otherwise: MirroredStrategy over GPUs, or over logical CPU devices if there is no GPU.

    Args:
        replicas: number of replicas; 0: all GPUs, or one CPU device.
        worker_timeout: seconds to wait for the other workers.

    Raises:
        InputError: the machine has fewer devices, or a worker did not come in time.
    """
    if cluster()[1] > 1:
        if replicas:
            raise InputError(f"config.replicas is {replicas}, but several workers use all their devices: set it to 0")
        if not _multi_worker.cache_info().currsize:
            rendezvous.wait_for_all(cluster_lib.from_environment(), worker_timeout)
            with rendezvous.time_limit(worker_timeout, _NOT_CONNECTED.format(worker_timeout)):
                return _multi_worker()
        return _multi_worker()
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        # More than the GPUs if the caller divided one (tf.config.set_logical_device_configuration).
        available = len(tf.config.list_logical_devices("GPU"))
        if replicas > available:
            raise InputError(
                f"config.replicas is {replicas}, but this machine has {available} GPU(s): set it to at most {available}"
            )
        return _mirrored("GPU", replicas or available, shared=available > len(gpus))
    wanted = max(replicas, 1)
    try:
        if wanted > 1:
            cpu = tf.config.list_physical_devices("CPU")[0]
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * wanted)
    except RuntimeError:
        # TensorFlow is already initialised. That is correct if it has enough devices.
        pass
    available = len(tf.config.list_logical_devices("CPU"))
    if available < wanted:
        raise InputError(
            f"config.replicas is {wanted}, but this process already runs TensorFlow with {available} CPU device(s): "
            "set it to at most that number, or use a new process"
        )
    return _mirrored("CPU", wanted)


_NOT_CONNECTED = (
    "all workers came, but TensorFlow did not connect them within {:g} s (--worker_timeout): a worker has ended, or "
    "two workers cannot reach each other; start all workers again with the same command"
)


# Cached: a process can start only one server.
@functools.cache
def _multi_worker():
    # It opens this worker's server and waits for the other workers, so it must come first.
    return tf.distribute.MultiWorkerMirroredStrategy()


# Cached: every strategy numbers its all-reduces from the same start, and TensorFlow fails if a
# number is used again with another shape, as by a second network.
@functools.cache
def _mirrored(kind, replicas, shared=False):
    # NCCL refuses two devices of one GPU.
    across = tf.distribute.ReductionToOneDevice() if shared and replicas > 1 else None
    return tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(replicas)], across)


def choose_precision(requested):
    """The dtype policy for `config.precision`.

    "auto" is bfloat16 if the hardware computes in it, otherwise float32. Without such hardware,
    TensorFlow uses slow reference kernels: on a 2-core AVX2 CPU the DeepPose network trained
    11 times slower in bfloat16 than in float32 (1.1 and 12.1 images/s, batch size 64).

    Args:
        requested: "auto" or the name of a policy.
    """
    if requested == "auto":
        return "mixed_bfloat16" if _has_bfloat16() else "float32"
    if requested == "mixed_bfloat16" and not _has_bfloat16():
        logging.warning(
            "config.precision is mixed_bfloat16, but this hardware does not compute in bfloat16: training is slow "
            "(the DeepPose network on a 2-core AVX2 CPU: 1.1 images/s, in float32 12.1); set precision=auto"
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
        # Not Linux: the CPU's features are not known.
        return set()


@contextlib.contextmanager
def dtype_policy(precision):
    """A context in which new Keras layers get the dtype policy `precision`."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
