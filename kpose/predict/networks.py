"""Networks for prediction, from any source: pixels of an image and boxes in, keypoints out.

TensorFlow is imported only for a SavedModel without a .tflite file inside and for a run without an
export. A network has:

    name        what was loaded, for log lines
    skeleton    the `Skeleton` of the keypoints
    calibrated  whether the scores are calibrated (`kpose.models.calibration`)
    predict     (pixels uint8 [H, W, 3] RGB, boxes float32 [N, 4] xywh in pixels) -> keypoints float32
                [N, K, 3] (x, y in pixels of the image, the joint's score) and scores float32 [N];
                a box without a pixel of the image gets scores of 0; `InputError` for a bad box, and
                for an answer that is not finite
"""

import os

import numpy as np
from absl import logging

from kpose.core import files, geometry, limits, litert, skeleton_files, startup
from kpose.core.errors import InputError, first_line
from kpose.data import crops
from kpose.export import description as description_lib
from kpose.export import model_folder, run_exports
from kpose.runs import shipped_files

# Crops in one batch of the network. More at a time are not faster on CPUs, and take more memory.
CHUNK = 4
LITE, ONNX = ".tflite", ".onnx"
# In the folder of a run: its recipe, its exports and the calibration of its scores.
RUN_FILE, EXPORTS, CALIBRATION_FILE = "config.json", "serving", "calibration.json"


def open_network(source=None):
    """Returns the network of a source.

    Args:
        source: a .tflite or .onnx file, or the folder of a SavedModel or of its versions, all as
            `kpose.export` writes them; the folder of a run: its newest export in that folder, or
            without one its newest checkpoint; the name of a shipped model (`shipped_files.names`),
            or "fast" or "best". None: the default shipped model.

    Raises:
        InputError: there is no such model, it is damaged or lacks kpose's description, or a package
            that it needs is not installed.
    """
    if source is None or shipped_files.is_shipped(source):
        card = shipped_files.read_card(source)
        return _lite_network(shipped_files.read_checked(card, "tflite"), card["name"])
    source = os.fspath(source)
    if os.path.isdir(source):
        return _network_of_folder(source)
    if not source.endswith((LITE, ONNX)):
        what = "not a .tflite or .onnx file, nor a folder" if os.path.exists(source) else "no such model"
        raise InputError(
            f"{source}: {what}: give a file or folder that python -m kpose.export wrote, the folder of a run, or a "
            f"shipped model ({', '.join(shipped_files.names())})"
        )
    if not os.path.exists(source):
        raise InputError(f"{source}: no such model file")
    return _lite_network(files.read_bytes(source), source) if source.endswith(LITE) else _onnx_network(source)


class CropNetwork:
    """A network of crops, as in a .tflite or .onnx file; the crops are cut here.

    Args:
        run: function of the inputs of the file, by name -> dict with "keypoints" [n, K, 3] in pixels
            of the crop, and "scores" [n].
        description: the file's description (`kpose.export.description`).
        name: as the attribute.

    Attributes:
        name, skeleton, calibrated: see the module.

    Raises:
        InputError: the description is of another version of kpose.
    """

    def __init__(self, run, description, name):
        self.name = name
        self._run = run
        try:
            self.skeleton = skeleton_files.of_saved(description["skeleton"])
            self._size = tuple(int(side) for side in description["input_size"])
            self._padding, self._aspect = float(description["padding"]), float(description["aspect"])
            self._offset = np.float32(description["offset"])
            self._confident = description["scores"] == description_lib.CONFIDENCE
            self._takes_aspects = "aspects" in description["inputs"]
            self.calibrated = description.get("calibration") is not None
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{name}: its description lacks what predictions need ({first_line(error)}): export the model again "
                "with python -m kpose.export"
            ) from None

    def predict(self, pixels, boxes):
        """Returns keypoints and scores; see the module."""
        check_boxes(boxes)
        regions = geometry.region_of(np.asarray(boxes, np.float64), self._padding, self._aspect)
        keypoints = np.zeros((len(boxes), self.skeleton.num_joints, 3), np.float32)
        scores = np.zeros(len(boxes), np.float32)
        for start in range(0, len(boxes), CHUNK):
            chunk = slice(start, start + CHUNK)
            keypoints[chunk], scores[chunk] = self._predict_chunk(pixels, regions[chunk])
        outside = ~inside(pixels.shape[:2], boxes)
        keypoints[outside, :, 2], scores[outside] = 0, 0
        _check_answer(keypoints, scores, self.name)
        return keypoints, scores

    def _predict_chunk(self, pixels, regions):
        """Returns keypoints [n, K, 3] in pixels of the image and scores [n], for regions [n, 4]."""
        cut = np.stack([crops.crop_pixels(pixels, region, self._size) for region in regions])
        inputs = {"images": cut.astype(np.float32)}
        if self._takes_aspects:
            inputs["aspects"] = _aspects(regions)
        answer = self._run(**inputs)
        keypoints, scores = answer["keypoints"].copy(), answer["scores"]
        points = keypoints[..., :2] / np.float32(self._size[::-1])
        keypoints[..., :2] = points * regions[:, None, 2:] + regions[:, None, :2] + self._offset
        if not self._confident:
            scores = _resolution_scores(regions, self._size)
            keypoints[..., 2] = scores[:, None]
        return keypoints, scores


def _aspects(regions):
    """`kpose.models.decoding.aspects_of` in NumPy."""
    return np.clip(regions[:, 2] / np.maximum(regions[:, 3], 1e-6), 0.01, 100).astype(np.float32)


def _resolution_scores(regions, input_size):
    """`kpose.models.decoding.resolution_score` in NumPy."""
    side = regions[:, 2:].max(-1)
    return (side / (side + max(input_size))).astype(np.float32)


def check_boxes(boxes):
    """Raises `InputError` at the first invalid box of [N, 4] and names its number, from 0."""
    boxes = np.asarray(boxes)
    finite = np.isfinite(boxes).all(-1)
    near = (np.abs(boxes) <= limits.FARTHEST).all(-1)
    full = (boxes[:, 2:] > 0).all(-1)
    for good, what in (
        (finite, limits.NOT_FINITE),
        (near | ~finite, limits.TOO_FAR),
        (full | ~finite, limits.EMPTY),
    ):
        if not good.all():
            raise InputError(f"boxes item {np.argmin(good)} {what} (x, y, width, height)")


def _check_answer(keypoints, scores, name):
    """Raises `InputError` at the first person with keypoints [N, K, 3] or scores [N] not finite."""
    finite = np.isfinite(keypoints).all((1, 2)) & np.isfinite(scores)
    if not finite.all():
        raise InputError(f"boxes item {np.argmin(finite)} {limits.NO_ANSWER} ({name})")


def inside(sides, boxes):
    """Returns [N] bool: whether boxes [N, 4] overlap an image of sides (height, width)."""
    x, y, w, h = np.asarray(boxes).T
    return (x < sides[1]) & (y < sides[0]) & (x + w > 0) & (y + h > 0)


def _lite_network(content, name):
    description = description_lib.of_tflite(content, name)
    # The description is at the end of the file.
    _check_description(description, name, "it is cut short")
    return CropNetwork(litert.LiteModel(content, name=name), description, name)


def _onnx_network(path):
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            f"{path}: .onnx files need the package onnxruntime: pip install onnxruntime (or pip install '.[onnx]' in a "
            "checkout)"
        ) from None
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    # Its exceptions have no base class of their own.
    except Exception as error:
        raise InputError(f"{path}: not an ONNX file, or damaged ({first_line(error)})") from None
    description = description_lib.of_onnx(session.get_modelmeta().custom_metadata_map, path)
    _check_description(description, path, "changed since")
    names = [output.name for output in session.get_outputs()]
    return CropNetwork(lambda **inputs: dict(zip(names, session.run(names, inputs), strict=True)), description, path)


def _check_description(description, name, other_reason):
    """Raises `InputError` if a file has no description."""
    if description is None:
        raise InputError(
            f"{name}: no description of a kpose model inside: it was not written by python -m kpose.export, or "
            f"{other_reason}"
        )


def _network_of_folder(folder):
    """Returns the network of a SavedModel, or of a run."""
    if not os.path.exists(os.path.join(folder, RUN_FILE)):
        return _network_of_version(model_folder.version_folder(folder))
    bases = [os.path.join(folder, EXPORTS)]
    bases += [os.path.join(bases[0], name) for name in model_folder.named_models(bases[0])]
    exports = [model_folder.version_folder(base) for base in bases if model_folder.versions(base)]
    exports += [
        path for path in (os.path.join(folder, f"model{suffix}") for suffix in (LITE, ONNX)) if os.path.exists(path)
    ]
    if not exports:
        return GraphNetwork.of_run(folder)
    newest, outdated = run_exports.newest(folder, exports)
    logging.info("%s: a run: its newest export is used, %s", folder, newest)
    if outdated:
        logging.warning("%s: the run has newer checkpoints than this export: export it again to use them", folder)
    network = open_network(newest)
    if os.path.exists(os.path.join(folder, CALIBRATION_FILE)) and not network.calibrated:
        logging.warning("%s: the scores of this export are not calibrated as the run is: export it again", folder)
    return network


def _network_of_version(folder):
    """Returns the network of the folder of one version of a SavedModel.

    The .tflite file inside starts in a tenth of the time, and is faster with few crops (docs/speed.md).
    """
    lite = os.path.join(folder, model_folder.LITE_FILE)
    if not os.path.exists(lite):
        return GraphNetwork.of_export(folder)
    network = _lite_network(files.read_bytes(lite), lite)
    network.name = folder
    return network


class GraphNetwork:
    """A network in a graph of TensorFlow that takes the pixels of an image and boxes.

    Args:
        serve: function of image [H, W, 3] uint8 and boxes [N, 4] -> dict of tensors.
        skeleton, name, calibrated: as the attributes.
        owner: an object that must live as long as `serve`.

    Attributes:
        name, skeleton, calibrated: see the module.
    """

    def __init__(self, serve, skeleton, name, owner, calibrated=False):
        self._serve, self._owner = serve, owner
        self.skeleton, self.name, self.calibrated = skeleton, name, calibrated

    @classmethod
    def of_export(cls, folder):
        """Returns the network of the folder of one version of a SavedModel."""
        skeleton = model_folder.read_skeleton(folder)
        calibrated = model_folder.read_description(folder).get("calibration") is not None
        tf = _tensorflow()
        try:
            model = tf.saved_model.load(folder)
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise InputError(f"{folder}: the SavedModel is damaged ({first_line(error)})") from None
        if "serving_pixels" not in model.signatures:
            raise InputError(f"{folder}: exported by an older kpose: export it again with python -m kpose.export")
        # The signature does not keep the variables of the model alive.
        return cls(model.signatures["serving_pixels"], skeleton, folder, model, calibrated)

    @classmethod
    def of_run(cls, workdir):
        """Returns the network of the newest checkpoint of a run."""
        _tensorflow()
        from kpose.export.graph import KeypointServer
        from kpose.runs.workdir import load_trained

        trained = load_trained(workdir)
        logging.info("%s: a run without an export: its checkpoint is used, %s", workdir, trained.origin)
        calibration = trained.calibration
        server = KeypointServer.from_config(trained.network, trained.config, trained.skeleton, calibration=calibration)
        return cls(server.serve_pixels, trained.skeleton, trained.origin, server, calibration is not None)

    def predict(self, pixels, boxes):
        """Returns keypoints and scores; see the module."""
        check_boxes(boxes)
        tf = _tensorflow()
        try:
            answer = self._serve(image=tf.constant(pixels), boxes=tf.constant(boxes, tf.float32))
        except tf.errors.InvalidArgumentError as error:
            raise InputError(_reason(error)) from None
        keypoints, scores = answer["keypoints"].numpy(), answer["scores"].numpy()
        # Exports of older versions do not check it themselves.
        _check_answer(keypoints, scores, self.name)
        return keypoints, scores


def _tensorflow():
    """Returns the module tensorflow, imported without its messages."""
    startup.import_tensorflow()
    import tensorflow

    return tensorflow


def _reason(error):
    """Returns the message of an error of the graph, without the names of the graph's nodes."""
    lines = error.message.splitlines()
    places = [index for index, line in enumerate(lines) if line.lstrip().startswith("[[{{node")]
    return lines[places[0] - 1] if places and places[0] else lines[0]
