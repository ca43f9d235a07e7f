"""Imports of TensorFlow without its start-up messages, and settings of the memory allocator."""

import contextlib
import ctypes
import os
import sys
import tempfile

from kpose.core.errors import InputError

_OWN_PRODUCTS = "xla_gpu_enable_triton_gemm"
_NVIDIA = "/dev/nvidiactl"


def import_tensorflow():
    """Imports TensorFlow and finds its devices. Its messages are shown only if that fails.

    TF_CPP_MIN_LOG_LEVEL does not suppress the messages of TensorFlow 2.21's import ("oneDNN custom
    operations are on", "Could not find cuda drivers"), so the file descriptor of stderr is
    replaced. TF_CPP_MIN_LOG_LEVEL=0 shows all messages.

    Raises:
        InputError: TensorFlow is not installed, as on a machine that only predicts.
    """
    # BatchNorm in [B, H, W, C] on a GPU: without it TensorFlow transposes each 16-bit input and
    # gradient (ResNet-18 in bfloat16 on an H100: 10,128 images/s instead of 5,540).
    os.environ.setdefault("TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT", "1")
    # Matrix products of XLA on a card by its library alone: without it, XLA compiles and times its own
    # kernels for each of the hundreds of products of a MoveNet, whose first step then took 287 s and not 153.
    # XLA ends the process if it does not know a flag, so it is set only where it helps.
    flags = os.environ.get("XLA_FLAGS", "")
    if _OWN_PRODUCTS not in flags and os.path.exists(_NVIDIA):
        os.environ["XLA_FLAGS"] = f"{flags} --{_OWN_PRODUCTS}=false".strip()
    quiet = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "0"
    if "tensorflow" in sys.modules:
        return
    try:
        with stderr_aside() if quiet else contextlib.nullcontext():
            import tensorflow as tf

            if tf.config.list_physical_devices("GPU"):
                _page_lock_batches(tf)
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise InputError(
            "this needs TensorFlow, which is not installed: pip install tensorflow, or pip install . in a checkout"
        ) from None
    if quiet:
        # Its Python logger reports the planning time of every checkpoint.
        tf.get_logger().setLevel("WARNING")


def _page_lock_batches(tf):
    """Puts the tensors of the host into page-locked memory, which a card reads by itself.

    From other memory a batch of 512 images took 13 ms to an H200, and the step waited for it. TensorFlow 2
    has no public setting for this. After the first operation it has no effect.
    """
    from tensorflow.python.eager import context

    options = tf.compat.v1.GPUOptions(force_gpu_compatible=True)
    with contextlib.suppress(AttributeError):
        if context.context()._config is None:
            context.context()._config = tf.compat.v1.ConfigProto(gpu_options=options)


def import_keras_cv():
    """The module keras_cv, imported without its messages.

    The import takes seconds, so it is done only when the module is needed.
    """
    if "keras_cv" in sys.modules or os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        import keras_cv
    else:
        with stderr_aside():
            import keras_cv
    return keras_cv


@contextlib.contextmanager
def quiet_tensorflow():
    """A context in which TensorFlow's Python logger shows errors only, and no warnings.

    Some functions of TensorFlow warn about other functions of TensorFlow.
    """
    import tensorflow as tf

    level = tf.get_logger().level
    tf.get_logger().setLevel("ERROR")
    try:
        yield
    finally:
        tf.get_logger().setLevel(level)


@contextlib.contextmanager
def stderr_aside():
    """A context in which stderr is captured; the text is shown only if the block raises."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as aside:
        saved = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            aside.seek(0)
            os.write(saved, aside.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)


# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory():
    """Makes glibc keep freed memory for later allocations; without glibc does nothing.

    By default glibc maps new pages for every large tensor, and unmaps them when it is freed. The
    system must then clear the pages in every step. On a 2-core AVX2 CPU this took almost half of
    the time of a small network (training: 78 images/s, with this setting 134). The process keeps
    its peak memory until it exits.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_TOP_PAD, 64 * 2**20)
