"""Models for prediction in Python: images and boxes in, people out."""

import functools

import numpy as np
from absl import logging

from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.core.progress import Progress
from kpose.predict import detectors, inputs, merging
from kpose.predict.networks import open_network
from kpose.predict.people import People


class Model:
    """A model for prediction.

    Args:
        source: as for `kpose.predict.networks.open_network`; None: the default shipped model.
        detector: finds the boxes if `predict` gets none: one of `detectors.NAMES`, or a callable as
            described in `kpose.predict.detectors`. "none": the whole image is one person's box.
        min_score: persons with a lower score of the detector are left out; None: the detector's own
            default.

    Attributes:
        skeleton: the `Skeleton` of the keypoints.
        calibrated: whether the scores are calibrated, see `kpose.predict.people.People`.

    Raises:
        InputError: the model does not exist or cannot be used, or the detector is not for this
            skeleton. A detector that does not exist is an error of the first prediction.
    """

    def __init__(self, source=None, detector="auto", min_score=None):
        self._network = open_network(source)
        self.skeleton, self.calibrated = self._network.skeleton, self._network.calibrated
        self._defaults = detector, min_score
        # A name is looked up once a model, so that the choice is logged once.
        self._named_detector = functools.cache(self._make_detector)
        if isinstance(detector, str):
            detectors.for_skeleton(detector, self.skeleton)

    def predict(self, images, boxes=None, detector=None, min_score=None, progress=True, float_max=None):
        """Returns the keypoints of the persons in images.

        Args:
            images: one image, or several; see `kpose.predict.inputs.gather`.
            boxes: [N, 4] xywh in pixels; for several images, a list of these. For a file they are
                in pixels as stored. Without boxes, images are turned by their EXIF orientation.
            detector: as for the model; None: that of the model, or none with `boxes`.
            min_score: as for the model; None: that of the model.
            progress: show the progress with several images.
            float_max: the value of white in arrays of floats, 1 or 255; None: floats are refused.

        Returns:
            `People`; for several images, a list of `People`. If one of several images cannot be
            read, this is logged, and it has no persons and the attribute `error`.

        Raises:
            InputError: no image can be read, an argument is wrong, boxes are invalid, both boxes and
                a detector are given, or the detector is not for this skeleton.
        """
        sources, single = inputs.gather(images, float_max)
        if boxes is not None and (detector is not None or min_score is not None):
            raise InputError("boxes and a detector (or min_score) are given: leave one of them out")
        found = None if boxes is not None else self.find_detector(detector, min_score)
        if single:
            image = sources[0].read(upright=boxes is None)
            return self.predict_image(image, boxes, found, sources[0])
        boxes = [None] * len(sources) if boxes is None else boxes
        if len(boxes) != len(sources):
            raise InputError(f"there are boxes for {len(boxes)} images, and {len(sources)} images")
        return self._predict_several(list(zip(sources, boxes, strict=True)), found, progress)

    def _predict_several(self, pairs, detector, progress):
        """Returns a list of `People` for pairs of a `Source` and its boxes or None."""
        answers = []
        with Progress(len(pairs), "images", shown=progress and len(pairs) > 1) as shown:
            for (source, boxes), image, error in inputs.read_ahead(pairs, lambda pair: pair[0].read(pair[1] is None)):
                if error is None:
                    answers.append(self.predict_image(image, boxes, detector, source))
                else:
                    logging.error("skipped: %s", error)
                    answers.append(self._nobody(name=source.name, error=str(error), upright=boxes is None))
                shown.add(1)
        if answers and all(people.error for people in answers):
            raise InputError(f"none of the {len(answers)} images could be read: {answers[0].error}")
        return answers

    def find_detector(self, detector=None, min_score=None):
        """Returns a detector as a callable; None: the whole image is one box. Logs the choice.

        Args:
            detector, min_score: as for `predict`.

        Raises:
            InputError: it does not exist, or it finds persons and the skeleton is not a person's.
        """
        detector = self._defaults[0] if detector is None else detector
        min_score = self._defaults[1] if min_score is None else min_score
        if isinstance(detector, str):
            return self._named_detector(detector, min_score)
        if detector is not None and not callable(detector):
            raise InputError(f"the detector is {detector!r}: give a name or a function of an image")
        return detector if detector is None else detectors.at_least(min_score, detector)

    def _make_detector(self, name, min_score):
        if detectors.for_skeleton(name, self.skeleton) == "none" != name:
            logging.info(
                "the model predicts %r, for which there is no detector: each whole image is one box; give others as "
                "boxes",
                self.skeleton.name,
            )
            return None
        found = detectors.get(name, min_score)
        if found is None:
            logging.info("no boxes and no person detector: each whole image is one person's box")
        return found

    def predict_image(self, image, boxes=None, detector=None, source=None):
        """Returns the `People` of one `InputImage`.

        Args:
            image: the `InputImage`.
            boxes: [N, 4] xywh in pixels; None: use `detector`.
            detector: a callable, from `find_detector`; None: the whole image is one box.
            source: the `Source` of the image, for `People.draw`; None: it cannot be drawn.

        Raises:
            InputError: a box is invalid, or the detector returns something else.
        """
        found, given = None, boxes is not None
        if not given and detector is not None:
            found = detectors.checked(detector(image.pixels), image.pixels)
            boxes = found.boxes
        elif not given:
            boxes = [[0, 0, image.pixels.shape[1], image.pixels.shape[0]]]
        boxes = _as_boxes(boxes, image.name)
        facts = {"name": image.name, "size": image.pixels.shape[1::-1], "source": source, "upright": not given}
        facts["calibrated"] = self.calibrated
        if not len(boxes):
            return self._nobody(box_scores=None if found is None else found.scores, **facts)
        try:
            keypoints, scores = self._network.predict(image.pixels, boxes)
        except InputError as error:
            raise InputError(f"{image.name}: {error}") from None
        if found is None:
            return People(keypoints, scores, boxes, None, self.skeleton, **facts)
        return self._merged(keypoints, scores * found.scores, found, facts)

    def _merged(self, keypoints, scores, found, facts):
        """Returns the `People` of detections, each person once, in the order of the detections.

        Args:
            keypoints: [N, K, 3].
            scores: [N] the persons' scores times the detector's.
            found: the `Detections`.
            facts: further arguments of `People`.
        """
        if not self.skeleton.is_person:
            return People(keypoints, scores, found.boxes, found.scores, self.skeleton, **facts)
        sigmas = self.skeleton.oks_sigmas
        if found.keypoints is not None and self.skeleton.joints == skeletons.COCO.joints:
            scores = scores * merging.agreement(keypoints, found, sigmas)
        kept = np.sort(merging.distinct(keypoints, found.boxes, scores, sigmas))
        return People(keypoints[kept], scores[kept], found.boxes[kept], found.scores[kept], self.skeleton, **facts)

    def _nobody(self, **facts):
        """Returns `People` without a person."""
        keypoints = np.zeros((0, self.skeleton.num_joints, 3), np.float32)
        return People(keypoints, np.zeros(0, np.float32), np.zeros((0, 4), np.float32), skeleton=self.skeleton, **facts)


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
