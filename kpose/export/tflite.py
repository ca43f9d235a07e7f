"""Conversion to TensorFlow Lite, and a TensorFlow Lite file as a network.

For one person at a time on a CPU, TensorFlow Lite is faster than TensorFlow, which starts its
threads for each of the many small operations.
"""

import os
import threading
import warnings

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kpose.core import startup
from kpose.core.errors import InputError, first_line
from kpose.models import folding

# With more threads, small networks are slower: the threads wait for each other.
MOST_THREADS = 4


def convert(network):
    """Returns a Keras network as a .tflite file with float16 weights, in bytes.

    Args:
        network: images [B, H, W, 3] -> dict of outputs. The file has the outputs in the order of
            their names.

    Raises:
        InputError: the converter fails.
    """
    network = folding.fold_batch_norm(network)
    images = tf.TensorSpec([1, *network.input_shape[1:]], tf.float32, name="images")
    names = sorted(network.output)
    function = tf.function(lambda images: [network(images, training=False)[n] for n in names], autograph=False)
    return convert_function(function.get_concrete_function(images), network, "float16")


def convert_function(function, owner, quantize="none"):
    """Returns a concrete function as a .tflite file, in bytes.

    Args:
        function: the concrete function of a `tf.function`.
        owner: the object that holds its variables.
        quantize: type of the weights: "none" (float32), "float16" or "int8".

    Raises:
        InputError: the converter fails.
    """
    # The converter does not read the values of Keras 3's variables.
    frozen = convert_variables_to_constants_v2(function)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen], owner)
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        return converter.convert()
    except Exception as error:
        raise InputError(f"TensorFlow Lite cannot convert this network: {first_line(error)}") from None


def interpreter(content, threads=None):
    """Returns a `tf.lite.Interpreter`, ready to run.

    Args:
        content: the bytes of the .tflite file.
        threads: number of threads; None: TensorFlow Lite's default.
    """
    # It warns that it will move to another package, and prints each of its delegates.
    with warnings.catch_warnings(), startup.stderr_aside():
        warnings.simplefilter("ignore")
        made = tf.lite.Interpreter(model_content=content, num_threads=threads)
        made.allocate_tensors()
    return made


class LiteNetwork:
    """A file from `convert` with the interface of a Keras network, for `graph.KeypointServer`.

    Args:
        content: the bytes of the .tflite file.
        outputs: the names of its outputs, sorted.
    """

    # `KeypointServer` tracks the variables of its network. Here the weights are in the file.
    variables = ()

    def __init__(self, content, outputs):
        self._interpreter = interpreter(content, threads=min(MOST_THREADS, os.cpu_count() or 1))
        (self._input,) = (entry["index"] for entry in self._interpreter.get_input_details())
        # The interpreter's names of the outputs are numbered in the order of the function's
        # outputs.
        details = sorted(self._interpreter.get_output_details(), key=lambda entry: entry["name"])
        self._outputs = {
            name: (entry["index"], entry["shape"][1:]) for name, entry in zip(outputs, details, strict=True)
        }
        self._lock = threading.Lock()

    def __call__(self, images, training=False):
        """Returns the outputs by name, [B, ...] float32, for images [B, H, W, 3] of 0..255."""
        values = tf.numpy_function(self._run, [tf.cast(images, tf.float32)], [tf.float32] * len(self._outputs))
        shapes = [shape for _, shape in self._outputs.values()]
        return {
            name: tf.ensure_shape(value, [None, *shape])
            for name, value, shape in zip(self._outputs, values, shapes, strict=True)
        }

    def _run(self, images):
        """Returns the outputs as a list of arrays; the file takes one image at a time."""
        rows = []
        # An interpreter is not safe for threads.
        with self._lock:
            for image in images:
                self._interpreter.set_tensor(self._input, image[None])
                self._interpreter.invoke()
                rows.append([self._interpreter.get_tensor(index)[0] for index, _ in self._outputs.values()])
        if not rows:
            return [np.zeros((0, *shape), np.float32) for _, shape in self._outputs.values()]
        return [np.stack(column).astype(np.float32) for column in zip(*rows, strict=True)]
