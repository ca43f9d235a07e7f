"""Imports TensorFlow without its start-up messages, which would hide a program's own lines."""

import contextlib
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
