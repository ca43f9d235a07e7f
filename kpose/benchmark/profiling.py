"""Profile of training steps: the time of each kind of operation."""

import collections
import glob
import os
import re
import tempfile
import time

import tensorflow as tf


def profile(engine, steps, rows):
    """Profiles training steps.

    Args:
        engine: `training.Engine` whose step is compiled.
        steps: number of steps.
        rows: number of operations in the result.

    Returns:
        dict of `gpu_worker.profile`.
    """
    with tempfile.TemporaryDirectory() as folder:
        engine.seconds(1)
        tf.profiler.experimental.start(folder)
        started = time.perf_counter()
        # With the first step, which `seconds` does not time.
        engine.seconds(steps)
        elapsed = time.perf_counter() - started
        tf.profiler.experimental.stop()
        path = glob.glob(os.path.join(folder, "**", "*.xplane.pb"), recursive=True)[0]
        times, on_card = _times(path)
    total = sum(seconds for seconds, _ in times.values())
    longest = sorted(times.items(), key=lambda item: -item[1][0])[:rows]
    count = steps + 1
    return {
        "seconds": elapsed / count,
        "busy": total / elapsed if on_card else None,
        "operations": [(name, 1e3 * seconds / count, number / count) for name, (seconds, number) in longest],
    }


def _times(path):
    """dict name -> (seconds, number) of the kernels of a card, and True; without them of operations, and False."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with open(path, "rb") as file:
        space = xplane_pb2.XSpace.FromString(file.read())
    planes = [plane for plane in space.planes if plane.name.startswith("/device:GPU")]
    on_card = bool(planes)
    planes = planes or [plane for plane in space.planes if plane.name.startswith("/host:CPU")]
    found = collections.defaultdict(lambda: (0.0, 0))
    for plane in planes:
        for line in plane.lines:
            # Derived lines repeat the time of the kernels.
            if on_card and not line.name.startswith("Stream"):
                continue
            for event in line.events:
                # Names of operations end with a number; those of kernels have long arguments.
                name = re.sub(r"_\d+$", "", plane.event_metadata[event.metadata_id].name)[:120]
                seconds, number = found[name]
                found[name] = seconds + event.duration_ps / 1e12, number + 1
    return dict(found), on_card
