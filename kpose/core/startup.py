"""Imports TensorFlow without its start-up messages, which would hide a program's own lines."""

import contextlib
import ctypes
import os
import sys
import tempfile


def import_tensorflow():
    """Imports TensorFlow and looks for devices; what it writes to stderr meanwhile shows only if that fails.

    TF_CPP_MIN_LOG_LEVEL does not reach the messages of TensorFlow 2.21's import ("oneDNN custom operations are on",
    "Could not find cuda drivers"), so the file descriptor itself is turned aside. Setting that variable to 0
    brings everything back.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0" or "tensorflow" in sys.modules:
        return
    with stderr_aside():
        import tensorflow as tf

        tf.config.list_physical_devices()
        # Its Python side tells how long it took to plan a checkpoint.
        tf.get_logger().setLevel("WARNING")


def import_keras_cv():
    """Imports keras_cv, whose import takes seconds and may talk, when it is first needed; returns the module."""
    if "keras_cv" in sys.modules or os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        import keras_cv
    else:
        with stderr_aside():
            import keras_cv
    return keras_cv


@contextlib.contextmanager
def warnings():
    """TensorFlow's Python side says no more than errors meanwhile: parts of it warn of other parts of it."""
    import tensorflow as tf

    level = tf.get_logger().level
    tf.get_logger().setLevel("ERROR")
    try:
        yield
    finally:
        tf.get_logger().setLevel(level)


@contextlib.contextmanager
def stderr_aside():
    """What libraries write to stderr inside shows only if the block fails."""
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


# Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory():
    """Lets this process keep what it frees, for its next allocation; a no-op without glibc.

    A network's large tensors are above the size from which glibc maps fresh pages for each allocation, and unmaps them
    at once: the system clears them anew in every step. On a 2-core AVX2 CPU that was half of a small network's time
    (78 against 134 images/s in training). The peak stays the process' for its life.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_TOP_PAD, 64 * 2**20)
