"""A network in TensorFlow Lite, called as the Keras network is.

For one person at a time it is the quicker one on CPUs: TensorFlow wakes its threads for each of a network's many small
operations.
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

# Of small networks, more threads wait for each other.
MOST_THREADS = 4


def convert(network):
    """A Keras network, images [B, H, W, 3] -> dict of outputs, as the bytes of a .tflite file with float16 weights."""
    network = folding.fold_batch_norm(network)
    images = tf.TensorSpec([1, *network.input_shape[1:]], tf.float32, name="images")
    names = sorted(network.output)
    function = tf.function(lambda images: [network(images, training=False)[n] for n in names], autograph=False)
    return convert_function(function.get_concrete_function(images), network, "float16")


def convert_function(function, owner, quantize="none"):
    """A concrete function as the bytes of a .tflite file.

    Args:
        function: the `tf.function`'s concrete function.
        owner: what holds its variables.
        quantize: of the weights: "none", "float16" or "int8".

    Raises:
        InputError: the converter refuses.
    """
    # The converter would leave Keras 3's variables as variables, without their values.
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


class LiteNetwork:
    """What `convert` made, as a callable for the graph of `serving.KeypointServer`.

    Args:
        content: the bytes of the .tflite file.
        outputs: the names of its outputs, sorted.
    """

    # A `KeypointServer` holds its network's; here they are in the file.
    variables = ()

    def __init__(self, content, outputs):
        threads = min(MOST_THREADS, os.cpu_count() or 1)
        # It tells of each of its delegates.
        with warnings.catch_warnings(), startup.stderr_aside():
            # Of where the interpreter will be found in later versions.
            warnings.simplefilter("ignore")
            self._interpreter = tf.lite.Interpreter(model_content=content, num_threads=threads)
            self._interpreter.allocate_tensors()
        (self._taken,) = (entry["index"] for entry in self._interpreter.get_input_details())
        # In the order in which the function gave them, which their names tell.
        given = sorted(self._interpreter.get_output_details(), key=lambda entry: entry["name"])
        self._given = {name: (entry["index"], entry["shape"][1:]) for name, entry in zip(outputs, given, strict=True)}
        self._lock = threading.Lock()

    def __call__(self, images, training=False):
        """images [B, H, W, 3] -> {output: [B, ...] float32}."""
        values = tf.numpy_function(self._run, [tf.cast(images, tf.float32)], [tf.float32] * len(self._given))
        shapes = [shape for _, shape in self._given.values()]
        return {
            name: tf.ensure_shape(value, [None, *shape])
            for name, value, shape in zip(self._given, values, shapes, strict=True)
        }

    def _run(self, images):
        rows = []
        with self._lock:
            for image in images:
                self._interpreter.set_tensor(self._taken, image[None])
                self._interpreter.invoke()
                rows.append([self._interpreter.get_tensor(index)[0] for index, _ in self._given.values()])
        if not rows:
            return [np.zeros((0, *shape), np.float32) for _, shape in self._given.values()]
        return [np.stack(column).astype(np.float32) for column in zip(*rows, strict=True)]
