"""A model for prediction from Python: images and boxes in, persons' keypoints out."""

import dataclasses
import os

import numpy as np
import tensorflow as tf

from kpose.core import files, skeletons
from kpose.core.errors import InputError
from kpose.data.image_files import open_image
from kpose.export import saved_model
from kpose.predict import detectors
from kpose.runs import shipped
from kpose.runs.shipped import read_card, read_checked


@dataclasses.dataclass(frozen=True)
class People:
    """The people of one photograph.

    Attributes:
        keypoints: [N, K, 3] float32: x, y in pixels of the photograph and the joint's score.
        scores: [N] float32 the persons' scores in 0..1; those of detected persons hold the detector's as a factor.
        boxes: [N, 4] float32 xywh in pixels: the boxes asked for, in that order, or detected ones, best first.
        box_scores: [N] float32 the detector's scores; None where there are none.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray | None = None


class Photograph:
    """One picture for a model.

    Args:
        pixels: uint8 [H, W, 3] RGB.
        name: what to call it in errors.
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
        """The photograph of a file.

        Args:
            path: the file.
            upright: turn it as EXIF says. COCO's labels, and boxes from a file, are for the stored pixels.

        Raises:
            InputError: the file is missing, no image, or cut short.
        """
        image = open_image(os.fspath(path))
        if upright:
            image.turn_upright()
        return cls(np.asarray(image.decode()), str(path))


class Model:
    """A model, ready to answer for photographs.

    Args:
        source: what `kpose.export` wrote, the base folder (its newest version is taken) or a version; or the name of a
            model that kpose ships (`kpose.runs.shipped`). None: the default of those.

    Attributes:
        skeleton: the `Skeleton` whose joints it predicts.

    Raises:
        InputError: no such model, or a damaged one.
    """

    def __init__(self, source=None):
        if source is None or source in shipped.names():
            self._model, self.skeleton = load(source)
            self._serve = self._model.serve_pixels
        else:
            # The signature alone does not keep the variables alive; its object does.
            self._model, self.skeleton = load_model(os.fspath(source))
            signatures = self._model.signatures
            if "serving_pixels" not in signatures:
                raise InputError(f"{source}: exported by an older kpose: export it again with python -m kpose.export")
            self._serve = signatures["serving_pixels"]

    def predict(self, images, boxes=None, detector=None):
        """The keypoints of the people in photographs.

        Args:
            images: a path, an array uint8 [H, W, 3] in RGB, a `Photograph`, or a list of these.
            boxes: [N, 4] xywh in pixels, for a list of images a list of these. Of a file, they are for the pixels as
                stored; without boxes, a file is turned as its EXIF data say.
            detector: finds the boxes instead: a callable as `kpose.predict.detectors` describes, or one of its names. None,
                with no boxes either: the whole image is one person's box.

        Returns:
            `People`; for a list of images a list of them.

        Raises:
            InputError: a damaged image, boxes that are no boxes, or boxes and a detector.
        """
        if boxes is not None and detector is not None:
            raise InputError("boxes and a detector are given: leave one of them out")
        if isinstance(detector, str):
            detector = detectors.get(detector)
        if not isinstance(images, list | tuple):
            return self._predict_one(images, boxes, detector)
        boxes = [None] * len(images) if boxes is None else boxes
        if len(boxes) != len(images):
            raise InputError(f"there are boxes for {len(boxes)} images, and {len(images)} images")
        return [self._predict_one(image, some, detector) for image, some in zip(images, boxes, strict=True)]

    def _predict_one(self, image, boxes, detector):
        if isinstance(image, str | os.PathLike):
            image = Photograph.read(image, upright=boxes is None)
        elif not isinstance(image, Photograph):
            image = Photograph(image)
        box_scores = None
        if detector is not None:
            boxes, box_scores = detectors.checked(detector(image.pixels), image.pixels)
        elif boxes is None:
            boxes = [[0, 0, image.pixels.shape[1], image.pixels.shape[0]]]
        boxes = _as_boxes(boxes, image.name)
        if not len(boxes):
            keypoints, scores = np.zeros((0, self.skeleton.num_joints, 3), np.float32), np.zeros(0, np.float32)
        else:
            keypoints, scores = self._ask(image, boxes)
        return People(keypoints, scores if box_scores is None else scores * box_scores, boxes, box_scores)

    def _ask(self, image, boxes):
        """[N, K, 3] keypoints and [N] scores."""
        try:
            answer = self._serve(image=tf.constant(image.pixels), boxes=tf.constant(boxes))
        except tf.errors.InvalidArgumentError as error:
            raise InputError(f"{image.name}: {_reason(error)}") from None
        return answer["keypoints"].numpy(), answer["scores"].numpy()


def _as_boxes(boxes, name):
    try:
        boxes = np.asarray(boxes, np.float32)
        boxes = boxes.reshape(0, 4) if not boxes.size else boxes
    except (TypeError, ValueError):
        boxes = np.zeros(0)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"{name}: the boxes must be [N, 4]: x, y, width and height of each person, in pixels")
    return boxes


def load_model(model_dir):
    """An exported model and its `Skeleton`."""
    folder = model_dir
    if not os.path.exists(os.path.join(folder, "saved_model.pb")):
        versions = [name for name in (os.listdir(folder) if os.path.isdir(folder) else ()) if name.isdigit()]
        if not versions:
            raise InputError(f"{model_dir}: no exported model: write one with python -m kpose.export")
        folder = os.path.join(folder, max(versions, key=int))
    description = files.read_json(os.path.join(folder, saved_model.DESCRIPTION_FILE), "description of a kpose model")
    return tf.saved_model.load(folder), skeletons.get(description["skeleton"])


def _reason(error):
    """What an error of the graph says, without where in the graph it was said."""
    lines = error.message.splitlines()
    places = [index for index, line in enumerate(lines) if line.lstrip().startswith("[[{{node")]
    return lines[places[0] - 1] if places and places[0] else lines[0]


def load(name=None):
    """A shipped model for predictions: (`serving.KeypointServer`, `Skeleton`).

    Its network runs in TensorFlow Lite, which is not to be exported; `load_network` gives the one of Keras.

    Args:
        name: one of `names()`; None: the default.

    Raises:
        InputError: no such model, or its files are damaged.
    """
    from kpose.export import graph, tflite

    card, config = read_card(name)
    network = tflite.LiteNetwork(read_checked(card, "tflite"), card["answers"])
    skeleton = skeletons.get(config.skeleton)
    data = config.data
    server = graph.KeypointServer(network, skeleton, config.model.input_size, data.padding, aspect=data.aspect)
    return server, skeleton
