"""Models for prediction in Python: images and boxes in, keypoints of persons out."""

import dataclasses
import os

import numpy as np

from kpose.core.errors import InputError
from kpose.data.image_files import open_image
from kpose.predict import detectors
from kpose.predict.networks import open_network


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
        source: as for `kpose.predict.networks.open_network`; None: the default shipped model.

    Attributes:
        skeleton: the `Skeleton` of the keypoints.

    Raises:
        InputError: the model does not exist or cannot be used.
    """

    def __init__(self, source=None):
        self._network = open_network(source)
        self.skeleton = self._network.skeleton

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
        try:
            keypoints, scores = self._network.predict(image.pixels, boxes)
        except InputError as error:
            raise InputError(f"{image.name}: {error}") from None
        return People(keypoints, scores if box_scores is None else scores * box_scores, boxes, box_scores)


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
