"""Freed memory is reused, not returned to the system."""

import subprocess
import sys

import pytest

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
