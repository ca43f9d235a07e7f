"""Models for prediction in Python: images and boxes in, keypoints of persons out."""

import dataclasses
import os

import numpy as np
import tensorflow as tf

from kpose.core.errors import InputError
from kpose.data.image_files import open_image
from kpose.export import model_folder, tflite
from kpose.export.graph import KeypointServer
from kpose.predict import detectors
from kpose.runs import shipped


@dataclasses.dataclass(frozen=True)
class People:
    """The persons in one image.

    Attributes:
        keypoints: [N, K, 3] float32: x, y in pixels of the image, and the joint's score.
        scores: [N] float32: the persons' scores in 0..1, times `box_scores` if there are any.
        boxes: [N, 4] float32 xywh in pixels: the given boxes in their order, or the detected boxes,
            highest score first.
        box_scores: [N] float32: the detector's scores; None without a detector.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray | None = None


class InputImage:
    """An image for a model.

    Args:
        pixels: [H, W, 3] uint8 RGB.
        name: the image's name, for errors.

    Raises:
        InputError: the array has another shape or type.
    """

    def __init__(self, pixels, name="the image"):
        self.pixels = np.asarray(pixels)
        self.name = name
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or not self.pixels.size:
            raise InputError(
                f"{name} is {self.pixels.dtype} {list(self.pixels.shape)}: give a file name or uint8 [H, W, 3] in RGB"
            )

    @classmethod
    def read(cls, path, upright=True):
        """Returns the image of a file.

        Args:
            path: the file.
            upright: rotate the image by its EXIF orientation. False for boxes of a file, and COCO's
                labels: they are for the pixels as stored.

        Raises:
            InputError: the file is missing, is no image, or is cut short.
        """
        image = open_image(os.fspath(path))
        if upright:
            image.turn_upright()
        return cls(np.asarray(image.decode()), str(path))


class Model:
    """A model for prediction.

    Args:
        source: a folder that `kpose.export` wrote (the base folder, whose newest version is loaded,
            or the folder of a version), or the name of a shipped model (see `kpose.runs.shipped`).
            None: the default shipped model.

    Attributes:
        skeleton: the `Skeleton` of the keypoints.

    Raises:
        InputError: the model does not exist, or the files of a shipped model are damaged.
    """

    def __init__(self, source=None):
        if source is None or source in shipped.names():
            self._model, self.skeleton = load(source)
            self._serve = self._model.serve_pixels
        else:
            # The model must stay referenced: the signature does not keep its variables alive.
            self._model, self.skeleton = load_model(os.fspath(source))
            signatures = self._model.signatures
            if "serving_pixels" not in signatures:
                raise InputError(f"{source}: exported by an older kpose: export it again with python -m kpose.export")
            self._serve = signatures["serving_pixels"]

    def predict(self, images, boxes=None, detector=None):
        """Returns the keypoints of the persons in images.

        Args:
            images: a path, an array uint8 [H, W, 3] in RGB, an `InputImage`, or a list of these.
            boxes: [N, 4] xywh in pixels; for a list of images, a list of these. For a file they are
                in pixels as stored. Without boxes, a file is rotated by its EXIF orientation.
            detector: finds the boxes: a callable as described in `kpose.predict.detectors`, or one
                of its `NAMES`. None, without boxes: the whole image is one person's box.

        Returns:
            `People`; for a list of images, a list of `People`.

        Raises:
            InputError: an image is damaged, boxes are invalid, both boxes and a detector are given,
                or the detector is not for this skeleton.
        """
        if boxes is not None and detector is not None:
            raise InputError("boxes and a detector are given: leave one of them out")
        if isinstance(detector, str):
            detector = detectors.get(detectors.for_skeleton(detector, self.skeleton))
        if not isinstance(images, list | tuple):
            return self._predict_one(images, boxes, detector)
        boxes = [None] * len(images) if boxes is None else boxes
        if len(boxes) != len(images):
            raise InputError(f"there are boxes for {len(boxes)} images, and {len(images)} images")
        return [self._predict_one(image, some, detector) for image, some in zip(images, boxes, strict=True)]

    def _predict_one(self, image, boxes, detector):
        if isinstance(image, str | os.PathLike):
            image = InputImage.read(image, upright=boxes is None)
        elif not isinstance(image, InputImage):
            image = InputImage(image)
        box_scores = None
        if detector is not None:
            boxes, box_scores = detectors.checked(detector(image.pixels), image.pixels)
        elif boxes is None:
            boxes = [[0, 0, image.pixels.shape[1], image.pixels.shape[0]]]
        boxes = _as_boxes(boxes, image.name)
        if not len(boxes):
            keypoints, scores = np.zeros((0, self.skeleton.num_joints, 3), np.float32), np.zeros(0, np.float32)
        else:
            keypoints, scores = self._run(image, boxes)
        return People(keypoints, scores if box_scores is None else scores * box_scores, boxes, box_scores)

    def _run(self, image, boxes):
        """Returns keypoints [N, K, 3] and scores [N] of an `InputImage` and boxes [N, 4]."""
        try:
            answer = self._serve(image=tf.constant(image.pixels), boxes=tf.constant(boxes))
        except tf.errors.InvalidArgumentError as error:
            raise InputError(f"{image.name}: {_reason(error)}") from None
        return answer["keypoints"].numpy(), answer["scores"].numpy()


def _as_boxes(boxes, name):
    """Returns boxes as an array [N, 4] float32; `name` is the image's name, for the error."""
    try:
        boxes = np.asarray(boxes, np.float32)
        boxes = boxes.reshape(0, 4) if not boxes.size else boxes
    except (TypeError, ValueError):
        boxes = np.zeros(0)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"{name}: the boxes must be [N, 4]: x, y, width and height of each person, in pixels")
    return boxes


def _reason(error):
    """Returns the message of an error of the graph, without the names of the graph's nodes."""
    lines = error.message.splitlines()
    places = [index for index, line in enumerate(lines) if line.lstrip().startswith("[[{{node")]
    return lines[places[0] - 1] if places and places[0] else lines[0]


def load_model(path):
    """Returns an exported model, as `tf.saved_model.load` does, and its `Skeleton`.

    Args:
        path: the base folder, whose newest version is loaded, or the folder of a version.

    Raises:
        InputError: there is no exported model.
    """
    folder = model_folder.version_folder(path)
    skeleton = model_folder.read_skeleton(folder)
    return tf.saved_model.load(folder), skeleton


def load(name=None):
    """Returns a shipped model for prediction, as a `KeypointServer`, and its `Skeleton`.

    Its network runs in TensorFlow Lite, so the server cannot be exported. `shipped.load_network`
    returns the Keras network.

    Args:
        name: one of `shipped.names()`; None: the default model.

    Raises:
        InputError: the model does not exist, or its files are damaged.
    """
    card, config = shipped.read_card(name)
    network = tflite.LiteNetwork(shipped.read_checked(card, "tflite"), card["answers"])
    skeleton = shipped.skeleton_of(card, config)
    return KeypointServer.from_config(network, config, skeleton), skeleton
