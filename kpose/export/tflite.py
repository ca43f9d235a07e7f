"""Conversion of a graph to TensorFlow Lite; `kpose.core.litert` runs the file."""

import tempfile

import tensorflow as tf

from kpose.core import startup
from kpose.core.errors import InputError, first_line


def convert(server, quantize="none"):
    """Returns `serve_images` of a server as a .tflite file, in bytes.

    The number of crops is open. The signature names the inputs and outputs.

    Args:
        server: the `KeypointServer`.
        quantize: type of the weights: "none" (float32), "float16" or "int8".

    Raises:
        InputError: the converter fails.
    """
    # Not the server itself: with it, the graphs of its other signatures would be traced and written too.
    owner = tf.Module()
    owner.variables_of_network = server.variables_of_network
    return convert_function(owner, server.serve_images.get_concrete_function(*server.crop_inputs(None)), quantize)


def convert_function(owner, function, quantize="none"):
    """Returns a function of a graph as a .tflite file, in bytes.

    Args:
        owner: the `tf.Module` that holds its variables.
        function: the concrete function; the signature has the names of its arguments and outputs.
        quantize: as for `convert`.

    Raises:
        InputError: the converter fails, or the folder for temporary files is full.
    """
    # By way of a SavedModel: the converter does not read the values of Keras 3's variables.
    with tempfile.TemporaryDirectory() as folder:
        try:
            tf.saved_model.save(owner, folder, signatures={"serving_default": function})
        except tf.errors.OpError as error:
            reason = first_line(error.message)
            raise InputError(f"{folder}: cannot be written ({reason}): free some space, or set TMPDIR") from None
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if quantize != "none":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        try:
            # It prints each of its steps.
            with startup.stderr_aside():
                return converter.convert()
        except Exception as error:
            raise InputError(f"TensorFlow Lite cannot convert this network: {first_line(error)}") from None
