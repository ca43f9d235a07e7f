"""The network alone for other runtimes: TensorFlow Lite and ONNX, checked against Keras before it is written.

Both take crops, images [1 or N, H, W, 3] float32 of 0..255, and give keypoints [N, K, 3] in pixels of the crop and
scores [N], as the signature `serving_images` does.
"""

import os

import numpy as np
import tensorflow as tf
from absl import logging

from kpose.core import files, skeletons
from kpose.core.errors import InputError, first_line
from kpose.data import pipeline, records, training_set
from kpose.export import tflite
from kpose.export.graph import KeypointServer
from kpose.metrics import tables
from kpose.models import decoding, folding
from kpose.runs.workdir import load_trained

FORMATS = ("tflite", "onnx")
QUANTIZATIONS = ("none", "float16", "int8")
# Crops that parity is checked on.
CHECKED = 16
# Pixels of a crop of 224 that two runtimes may differ by in float32.
TOLERANCE = 0.05


def export(workdir, output_dir, kind, quantize="none", records_pattern=None, flip_test=False, best=False):
    """Writes `output_dir/model.tflite` or `model.onnx`, checked against Keras on the same crops.

    Args:
        workdir: folder of the training run, or the name of a shipped model.
        output_dir: where it goes; None: into the workdir.
        kind: "tflite" or "onnx".
        quantize: of tflite, the weights: "none", "float16" or "int8". Activations stay in float: an expectation over a
            map of 8-bit numbers is no coordinate (strict PCP fell from 39% to 2%).
        records_pattern: glob of validation records, on which PCP before and after is told.
        flip_test: average each answer with that for the mirror image, in the graph.
        best: the checkpoint with the best validation score, instead of the newest.

    Returns:
        dict: path, bytes, largest_difference in pixels of the crop, and with records pcp and pcp_keras (strict).

    Raises:
        InputError: no such run, a shipped model without `output_dir`, a converter that is not installed or refuses, or
            an answer that is not Keras'.
    """
    if quantize != "none" and kind != "tflite":
        raise InputError(f"--quantize={quantize}: only tflite is quantised")
    trained = load_trained(workdir, best)
    if not (output_dir or trained.folder):
        raise InputError("--output_dir is missing: a shipped model has no folder of its own for the export")
    output_dir = output_dir or workdir
    config, data = trained.config, trained.config.data
    skeleton = skeletons.get(config.skeleton)
    network = folding.fold_batch_norm(trained.network)
    server = KeypointServer(network, skeleton, config.model.input_size, data.padding, flip_test, data.aspect)
    crops = _Crops(config, skeleton, records_pattern)
    if kind == "tflite":
        content, run = _tflite(server, crops, quantize)
    else:
        content, run = to_onnx(server, crops.size)
    largest = max(np.abs(run(c)[..., :2] - server.serve_images(c)["keypoints"][..., :2]).max() for c in crops.some())
    limit = TOLERANCE * max(crops.size) / 224
    if quantize == "none" and not largest <= limit:
        raise InputError(f"{kind}: its keypoints differ by {largest:.2f} pixels of the crop from Keras': not written")
    path = os.path.join(output_dir, f"model.{kind}")
    with files.replacing(path, "wb") as file:
        file.write(content)
    found = {"path": path, "bytes": len(content), "largest_difference": float(largest)}
    if records_pattern:
        found |= {"pcp": crops.pcp(run), "pcp_keras": crops.pcp(lambda c: server.serve_images(c)["keypoints"].numpy())}
        logging.info("strict PCP %.1f%%, of Keras %.1f%%", 100 * found["pcp"], 100 * found["pcp_keras"])
    elif quantize != "none":
        logging.warning(
            "what PCP the quantised weights cost was not measured: name validation records with --records='...'"
        )
    logging.info("%s: %.1f MB, differs by at most %.3g pixels of the crop", path, len(content) / 1e6, largest)
    return found


class _Crops:
    """Crops to check on: those of records, or noise."""

    def __init__(self, config, skeleton, pattern):
        self.size, self.skeleton = tuple(config.model.input_size), skeleton
        self.batches = None
        if pattern:
            found = records.find(pattern, skeleton)
            training_set.check_shape(found, config.data.aspect)
            self.count = training_set.summarise_labels(found, config.data.padding).num_records
            self.batches = pipeline.evaluation_batches(
                found, input_size=self.size, padding=config.data.padding, batch_size=1, num_records=self.count
            )

    def some(self, count=CHECKED):
        """Crops [1, H, W, 3] float32."""
        if self.batches is None:
            rng = np.random.default_rng(0)
            shape = (1, 8, 8, 3)
            noise = (rng.uniform(0, 255, shape).astype(np.float32) for _ in range(count))
            return [tf.image.resize(image, self.size) for image in noise]
        return [tf.cast(batch["image"], tf.float32) for batch in self.batches.take(count)]

    def pcp(self, run):
        """Strict PCP of keypoints [1, K, 3] in crop pixels, over all records."""
        truth, prediction = [], []
        for batch in self.batches:
            points = run(tf.cast(batch["image"], tf.float32))[..., :2] / np.float32(self.size[::-1]) - 0.5
            for column, value in zip((truth, prediction), decoding.to_pixels(batch, points), strict=True):
                column.append(value)
        table = tables.pcp_table(np.concatenate(truth), np.concatenate(prediction), self.skeleton)
        return table["strict"]["average"]


def _tflite(server, crops, quantize):
    function = server.serve_images.get_concrete_function(tf.TensorSpec([1, *crops.size, 3], tf.float32, name="images"))
    content = tflite.convert_function(function, server, quantize)
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (taken,), given = interpreter.get_input_details(), interpreter.get_output_details()
    (keypoints,) = (output["index"] for output in given if len(output["shape"]) == 3)

    def run(images):
        interpreter.set_tensor(taken["index"], np.asarray(images))
        interpreter.invoke()
        return interpreter.get_tensor(keypoints)

    return content, run


def to_onnx(server, size):
    """A server's `serve_images` in ONNX: (bytes, function from crops [N, H, W, 3] to keypoints [N, K, 3]).

    Raises:
        InputError: tf2onnx or onnxruntime is not installed, or the conversion fails.
    """
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise InputError(f"--format=onnx: {error.name} is not installed: pip install 'kpose[onnx]'") from None
    spec = [tf.TensorSpec([None, *size, 3], tf.float32, name="images")]
    try:
        model, _ = tf2onnx.convert.from_function(server.serve_images, input_signature=spec, opset=17)
    except Exception as error:
        raise InputError(f"tf2onnx cannot convert this network: {first_line(error)}") from None
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs() if len(output.shape) == 3]
    return content, lambda images: session.run(names, {session.get_inputs()[0].name: np.asarray(images)})[0]
