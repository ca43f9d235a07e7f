"""Worker that times an ONNX file in ONNX Runtime (`workers.serve`).

It has a process of its own, so that it can be stopped while something else is timed.

Request: {"path", "batch_size", "size"} and optionally "repeats"; answer: see `handle`.
"""

import functools
import time

from kpose.benchmark import workers


def handle(request):
    """Times runs of a file on constant crops.

    Args:
        request: dict of "path" of the file; "batch_size", the number of crops; "size", their
            [height, width]; "repeats", the number of runs (default 1).

    Returns:
        dict of "seconds", a list: those of each run.
    """
    import numpy as np

    session = _session(request["path"])
    shape = (request["batch_size"], *request["size"], 3)
    crops = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    inputs = {session.get_inputs()[0].name: crops}
    seconds = []
    for _ in range(request.get("repeats", 1)):
        started = time.perf_counter()
        session.run(None, inputs)
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds}


@functools.lru_cache(maxsize=1)
def _session(path):
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    workers.serve(handle)
