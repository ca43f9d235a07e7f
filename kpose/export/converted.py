"""Exports a network to TensorFlow Lite or ONNX: crops in, keypoints in pixels of the crop out.

The file has the function of the signature `serving_images`: images [N, H, W, 3] float32 of 0..255
in, keypoints [N, K, 3] and scores [N] out, for any N. A cascade with stretched crops has a second
input, aspects [N]: width / height in pixels of the image of what each crop shows. The result is
compared with Keras before it is written. A description inside the file (`kpose.export.description`)
names the joints and what the crops must show.
"""

import os

import numpy as np
import tensorflow as tf
from absl import logging

import kpose
from kpose.core import files, litert, skeleton_files
from kpose.core.errors import InputError, first_line
from kpose.data import pipeline, records
from kpose.export import description, run_exports, tflite
from kpose.export.graph import KeypointServer
from kpose.metrics import tables
from kpose.models import decoding
from kpose.runs.workdir import load_trained

# Number of crops in the comparison with Keras.
CHECKED = 16
# Largest difference from Keras in float32, in pixels of a crop of 224 pixels.
TOLERANCE = 0.05


def export(workdir, output_dir, kind, quantize="none", records_pattern=None, flip_test=False, best=False):
    """Writes `output_dir/model.tflite` or `output_dir/model.onnx`.

    Args:
        workdir: folder of the training run, or the name of a shipped model.
        output_dir: folder for the file; None: the workdir.
        kind: "tflite" or "onnx".
        quantize: type of the weights of tflite: "none" (float32), "float16" or "int8". Activations
            stay in float: the expectation over a map of 8-bit numbers is too coarse (strict PCP
            fell from 39% to 2%).
        records_pattern: glob of validation records, to measure PCP before and after the conversion.
        flip_test: average each prediction with the prediction for the mirrored image, in the graph.
        best: take the checkpoint with the best validation score, not the newest one.

    Returns:
        dict: "path", "bytes", "largest_difference" in pixels of the crop, and with records "pcp"
        and "pcp_keras" (strict PCP in 0..1; None for a skeleton without limbs), "pdj" and
        "pdj_keras" (PDJ@0.2).

    Raises:
        InputError: the run does not exist; `output_dir` is missing for a shipped model; a converter
            is not installed or fails; the result differs from Keras.
    """
    if quantize != "none" and kind != "tflite":
        raise InputError(f"--quantize={quantize}: only tflite is quantised")
    trained = load_trained(workdir, best)
    output_dir = trained.output_folder(output_dir)
    files.check_file_for_output(os.path.join(output_dir, f"model.{kind}"), "--output_dir")
    content, run, crops, largest = _checked(trained, kind, quantize, records_pattern, flip_test)
    path = os.path.join(output_dir, f"model.{kind}")
    with files.replacing(path, "wb") as file:
        file.write(content)
    run_exports.add(trained.folder, path)
    found = {"path": path, "bytes": len(content), "largest_difference": float(largest)}
    if records_pattern:
        found |= crops.scores(run)
        of_keras = crops.scores(crops.keras)
        found |= {f"{name}_keras": value for name, value in of_keras.items()}
        key, title = ("pcp", "strict PCP") if trained.skeleton.limbs else ("pdj", "PDJ@0.2")
        texts = ["-" if found[name] is None else f"{100 * found[name]:.1f}%" for name in (key, f"{key}_keras")]
        logging.info("%s %s, with Keras %s", title, *texts)
    elif quantize != "none":
        logging.warning(
            "the change in PCP by the quantised weights was not measured: name validation records with --records='...'"
        )
    logging.info("%s: %.1f MB, differs by at most %.3g pixels of the crop", path, len(content) / 1e6, largest)
    return found


def lite(trained, flip_test=False):
    """Returns the .tflite file of a trained network with float32 weights, in bytes.

    Args:
        trained: `runs.workdir.Trained`.
        flip_test: average each prediction with the prediction for the mirrored image, in the graph.

    Raises:
        InputError: the converter fails, or the result differs from Keras.
    """
    return _checked(trained, "tflite", "none", None, flip_test)[0]


def _checked(trained, kind, quantize, records_pattern, flip_test):
    """Converts a network and compares it with Keras.

    Returns:
        The file in bytes; a function that runs it, as of `to_onnx`; the `_Crops` of the comparison;
        the largest difference, in pixels of the crop.
    """
    server, facts = network_server(trained, flip_test)
    crops = _Crops(server, trained.config, trained.skeleton, records_pattern, facts["offset"])
    content, run = _to_tflite(server, quantize) if kind == "tflite" else to_onnx(server)
    content = description.attach(content, kind, facts)
    largest = max(np.abs(run(*c)[..., :2] - crops.keras(*c)[..., :2]).max() for c in crops.some())
    limit = TOLERANCE * max(crops.size) / 224
    if quantize == "none" and not largest <= limit:
        raise InputError(
            f"{kind}: its keypoints differ from those of Keras by {largest:.2f} pixels of the crop, more than "
            f"{limit:.2f}: the file was not written"
        )
    return content, run, crops, largest


def network_server(trained, flip_test=False):
    """The server of a trained network whose `serve_images` is converted, and its description.

    The keypoints of `serve_images` are in pixels of the crop. The offset of the recipe is in pixels of
    the image, so it is in the description, not in the graph.

    Args:
        trained: `runs.workdir.Trained`.
        flip_test: average each prediction with the prediction for the mirrored image, in the graph.

    Returns:
        (`KeypointServer`, dict of JSON values).
    """
    network, data = trained.folded, trained.config.data
    size = tuple(trained.config.model.input_size)
    server = KeypointServer(
        network, trained.skeleton, size, data.padding, flip_test, data.aspect, calibration=trained.calibration
    )
    dx, dy = decoding.label_offset(trained.config)
    return server, {
        "kpose_version": kpose.__version__,
        "recipe": trained.config.name,
        "checkpoint": os.path.basename(trained.origin),
        "skeleton": skeleton_files.to_fields(trained.skeleton),
        "inputs": [spec.name for spec in server.crop_inputs(None)],
        "outputs": ["keypoints", "scores"],
        # The crops: [N, height, width, 3].
        "input_size": list(size),
        "input_range": [0, 255],
        "channel_order": "RGB",
        # What the crops must show: the box, extended to the aspect (0: not), times the padding.
        "padding": data.padding,
        "aspect": data.aspect,
        # To be added to the keypoints in pixels of the image. The mean with the mirrored crops needs none in x.
        "offset": [0.0 if flip_test else dx, dy],
        "scores": description.CONFIDENCE if decoding.gives_scores(network, size) else description.RESOLUTION,
        # The map that the scores have gone through; None: they are not calibrated.
        "calibration": trained.calibration and trained.calibration.to_fields(),
        "flip_test": flip_test,
    }


class _Crops:
    """The crops on which a conversion is compared with Keras.

    Args:
        server: the `KeypointServer`.
        config: the recipe.
        skeleton: the `Skeleton` of the keypoints.
        pattern: glob of records; None: the crops are noise.
        offset: [2] to be added to the predictions, in pixels of the image.
    """

    def __init__(self, server, config, skeleton, pattern, offset):
        self.size, self._server, self._skeleton = tuple(config.model.input_size), server, skeleton
        self._offset = np.float32(offset)
        self._batches = None
        if pattern:
            self._batches = pipeline.evaluation_batches(
                config, records.find(pattern, skeleton), batch_size=1, identity=True
            )

    def some(self, count=CHECKED):
        """Returns a list of the inputs of the network for one crop each (`_inputs`)."""
        if self._batches is None:
            rng = np.random.default_rng(0)
            shape = (1, 8, 8, 3)
            noise = (rng.uniform(0, 255, shape).astype(np.float32) for _ in range(count))
            regions = (np.float32([[0, 0, rng.uniform(0.5, 2), 1]]) for _ in range(count))
            return [
                self._inputs(tf.image.resize(image, self.size), region)
                for image, region in zip(noise, regions, strict=True)
            ]
        return [self._inputs(batch["image"], batch["region"]) for batch in self._batches.take(count)]

    def _inputs(self, images, regions):
        """Returns (crops [1, H, W, 3] float32 of 0..255, and if the network takes it, aspects [1])."""
        aspects = (decoding.aspects_of(regions),) if self._server.takes_aspects else ()
        return tf.cast(images, tf.float32), *aspects

    def keras(self, *inputs):
        """Returns the keypoints [1, K, 3] of Keras for inputs of the network, in pixels of the crop."""
        return self._server.serve_images(*inputs)["keypoints"].numpy()

    def scores(self, run):
        """Returns strict PCP ("pcp") and PDJ@0.2 ("pdj") over all records, in 0..1, or None.

        Args:
            run: function of the inputs of the network -> keypoints [1, K, 3] in pixels of the crop.
        """
        columns = [], [], []
        for batch in self._batches:
            points = run(*self._inputs(batch["image"], batch["region"]))[..., :2] / np.float32(self.size[::-1]) - 0.5
            truth, prediction = decoding.to_pixels(batch, points)
            for column, value in zip(columns, (truth, prediction + self._offset, batch["box"]), strict=True):
                column.append(value)
        truth, prediction, boxes = map(np.concatenate, columns)
        return {
            "pcp": tables.pcp_table(truth, prediction, self._skeleton)["strict"]["average"],
            "pdj": tables.pdj_table(truth, prediction, self._skeleton, boxes)["0.2"],
        }


def _to_tflite(server, quantize):
    """Returns `serve_images` as a .tflite file (bytes), and a function that runs it.

    The function maps crops [N, H, W, 3], and aspects [N] if the server takes them, to keypoints
    [N, K, 3].
    """
    content = tflite.convert(server, quantize)
    model = litert.LiteModel(content)
    names = [spec.name for spec in server.crop_inputs(None)]
    return content, lambda *values: model(**dict(zip(names, values, strict=True)))["keypoints"]


def to_onnx(server):
    """Converts a server's `serve_images` to ONNX.

    Args:
        server: the `KeypointServer`.

    Returns:
        The .onnx file as bytes, and a function that runs it: crops [N, H, W, 3], and aspects [N] if
        the server takes them -> keypoints [N, K, 3].

    Raises:
        InputError: tf2onnx or onnxruntime is not installed, or the conversion fails.
    """
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise InputError(
            f"--format=onnx needs the packages tf2onnx and onnxruntime, and {error.name} is not installed: "
            "pip install tf2onnx onnxruntime (or pip install '.[onnx]' in a checkout)"
        ) from None
    try:
        model, _ = tf2onnx.convert.from_function(server.serve_images, server.crop_inputs(None), opset=17)
    except Exception as error:
        raise InputError(f"tf2onnx cannot convert this network: {first_line(error)}") from None
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs() if len(output.shape) == 3]
    inputs = [entry.name for entry in sorted(session.get_inputs(), key=lambda entry: -len(entry.shape))]

    def run(*values):
        return session.run(names, dict(zip(inputs, map(np.asarray, values), strict=True)))[0]

    return content, run
