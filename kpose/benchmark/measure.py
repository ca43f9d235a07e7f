"""Speed, measured as ratios: each figure beside a baseline, in turn, in one run on one machine.

Without photographs of the caller's, people are drawn (`tfrecords_tools.figures`), so that anyone can repeat it.
"""

import contextlib
import os
import platform

import tensorflow as tf

from kpose.benchmark import data, serving, training


def measure(name, runs, annotations=None, images=None):
    """Runs one benchmark.

    Args:
        name: input, train, serve or write.
        runs: how often each of the compared things is timed; medians are reported.
        annotations, images: of input and write: COCO keypoint file and image folder (None: drawn people).

    Returns:
        dict of figures, with the machine they were measured on; null where a baseline's package is not installed.
    """
    machine = {"benchmark": name, "cpu": _cpu_name(), "cores": os.cpu_count(), "tensorflow": tf.__version__}
    if name in OF_DATA:
        with data.people(annotations, images) as people:
            return machine | {"people": "the caller's" if images else "drawn"} | OF_DATA[name](runs, *people)
    return machine | OF_NETWORKS[name](runs)


OF_DATA = {"input": data.input_batches, "write": data.write}
OF_NETWORKS = {"train": training.train, "serve": serving.serve}


def _cpu_name():
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        info = dict(line.split(":", 1) for line in file if ":" in line)
        names = {key.strip(): value.strip() for key, value in info.items()}
        flags = {"avx512_bf16", "avx512f", "avx2"} & set(names.get("flags", "").split())
        return f"{names.get('model name', platform.machine())} ({', '.join(sorted(flags))})"
    return platform.processor() or platform.machine()
