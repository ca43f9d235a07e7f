"""Memory: freed blocks are reused, and tensors for a card are page-locked."""

import subprocess
import sys

import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from kpose.core import startup

SCRIPT = """
import resource
import numpy as np
from kpose.core import startup

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.empty(48 * 2**20, np.uint8)[::4096] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

fresh = faults()
startup.keep_freed_memory()
faults()
print(fresh, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_large_blocks_are_used_again():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    fresh, kept = map(int, done.stdout.split())
    assert fresh > 100 and kept < fresh / 10


def test_the_setting_for_page_locked_memory_reaches_tensorflow_and_keeps_what_is_set(monkeypatch):
    """With a GPU `import_tensorflow` sets it. The setting is private: this fails if TensorFlow moves it."""
    monkeypatch.setattr(context.context(), "_config", None)
    startup._page_lock_batches(tf)
    assert context.context().config.gpu_options.force_gpu_compatible
    own = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=3)
    monkeypatch.setattr(context.context(), "_config", own)
    startup._page_lock_batches(tf)
    assert context.context()._config is own
