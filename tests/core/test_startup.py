"""Memory: freed blocks are reused, and tensors for a card are page-locked."""

import os
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


_COMPILED = """
import os, sys
from kpose.core import startup
startup._NVIDIA = sys.argv[1]
startup.import_tensorflow()
import tensorflow as tf
tf.function(lambda x: x + 1, jit_compile=True)(tf.ones(2))
print(os.environ.get("XLA_FLAGS", ""))
"""


def test_xla_knows_the_flag_that_is_set_with_a_card(tmp_path):
    """XLA ends a process with a flag that it does not know. Flags of the user stay, and win."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}

    def flags(device, **variables):
        command = [sys.executable, "-c", _COMPILED, device]
        return subprocess.run(
            command, env=environment | variables, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert flags(str(tmp_path)) == "--xla_gpu_enable_triton_gemm=false"
    own = "--xla_gpu_enable_triton_gemm=true"
    assert flags(str(tmp_path), XLA_FLAGS=own) == own
    assert flags("/dev/none") == ""
