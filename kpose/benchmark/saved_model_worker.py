"""Worker that times a SavedModel on constant crops (`workers.serve`).

It has a process of its own, because oneDNN's settings hold for a process (`FROZEN`).

Request: {"path", "batch_size", "size"}; answer: see `handle`.
"""

import functools
import time

from kpose.benchmark import workers
from kpose.core import startup

# TensorFlow keeps the kernels of convolutions and matrix products in the order that oneDNN chose for the
# first request, and does not look at the variables again.
FROZEN = {"TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": "1"}


def handle(request):
    """Times one request of `serving_images`.

    Args:
        request: dict of "path" of the SavedModel; "batch_size", the number of crops; "size", their
            [height, width].

    Returns:
        dict of "seconds".
    """
    startup.import_tensorflow()
    import numpy as np
    import tensorflow as tf

    model = _model(request["path"])
    shape = (request["batch_size"], *request["size"], 3)
    crops = tf.constant(np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32))
    started = time.perf_counter()
    model.signatures["serving_images"](images=crops)["scores"].numpy()
    return {"seconds": time.perf_counter() - started}


@functools.lru_cache(maxsize=1)
def _model(path):
    import tensorflow as tf

    return tf.saved_model.load(path)


if __name__ == "__main__":
    startup.keep_freed_memory()
    workers.serve(handle)
