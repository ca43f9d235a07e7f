"""Runs one benchmark: measurements of kpose and of baselines, in alternation on one machine.

If no images are given, synthetic images are rendered (`tfrecords_tools.figures`), so anyone can
repeat the measurements.
"""

import contextlib
import os
import platform

import tensorflow as tf

from kpose.benchmark import data, serving, training

# Name of the benchmark -> its function.
WITH_IMAGES = {"input": data.input_batches, "write": data.write}
WITHOUT_IMAGES = {"train": training.train, "serve": serving.serve}


def measure(name, runs, annotations=None, images=None, batch_size=None):
    """Runs one benchmark.

    Args:
        name: input, train, serve or write.
        runs: how often each of the compared functions is timed; medians are reported.
        annotations, images: for input and write: COCO keypoint file and image folder (None:
            synthetic images).
        batch_size: for train: images of a step (None: its default).

    Returns:
        dict of measurements, with the machine; None where the package of a baseline is not
        installed.
    """
    machine = {"benchmark": name, "cpu": _cpu_name(), "cores": os.cpu_count(), "tensorflow": tf.__version__}
    if name in WITHOUT_IMAGES:
        sizes = {"batch_size": batch_size} if batch_size else {}
        return machine | WITHOUT_IMAGES[name](runs, **sizes)
    with data.people(annotations, images) as people:
        return machine | {"people": "the caller's" if images else "drawn"} | WITH_IMAGES[name](runs, *people)


def _cpu_name():
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        info = dict(line.split(":", 1) for line in file if ":" in line)
        names = {key.strip(): value.strip() for key, value in info.items()}
        flags = {"avx512_bf16", "avx512f", "avx2"} & set(names.get("flags", "").split())
        return f"{names.get('model name', platform.machine())} ({', '.join(sorted(flags))})"
    return platform.processor() or platform.machine()
