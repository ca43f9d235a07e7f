"""Worker that times a .onnx file in ONNX Runtime or a .tflite file in LiteRT (`workers.serve`).

It has a process of its own, so that it can be stopped while something else is timed.

Request: {"path", "batch_size", "size"}; answer: see `handle`.
"""

import functools
import time

from kpose.benchmark import workers


def handle(request):
    """Times one run of a file on constant crops.

    Args:
        request: dict of "path" of the file; "batch_size", the number of crops; "size", their
            [height, width].

    Returns:
        dict of "seconds".
    """
    import numpy as np

    run = _model(request["path"])
    shape = (request["batch_size"], *request["size"], 3)
    crops = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    started = time.perf_counter()
    run(crops)
    return {"seconds": time.perf_counter() - started}


@functools.lru_cache(maxsize=1)
def _model(path):
    """A function that runs a file on crops."""
    if path.endswith(".tflite"):
        from kpose.core import files, litert

        model = litert.LiteModel(files.read_bytes(path))
        return lambda crops: model(images=crops)
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda crops: session.run(None, {name: crops})


if __name__ == "__main__":
    workers.serve(handle)
