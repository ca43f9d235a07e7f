"""Which detections are of one person, by their boxes and by their joints."""

import typing

import numpy as np

from kpose.core import boxes as core_boxes
from kpose.core.oks import joint_similarity

# Area of a person as a fraction of the area of the box: the mean of COCO's labels.
AREA = 0.53
# Two poses that agree by more (OKS) are of one person.
SAME_POSE = 0.65


class Detections(typing.NamedTuple):
    """What a detector returns for an image.

    Attributes:
        boxes: [N, 4] xywh in pixels of the image.
        scores: [N] in 0..1.
        keypoints: [N, 17, 3] COCO joints, if the detector predicts them: x, y in pixels and the
            joint's score; None: it does not.
    """

    boxes: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray | None = None


def suppress(boxes, scores, overlap):
    """Returns the numbers of the persons that remain after non-maximum suppression, best first.

    Args:
        boxes: [N, 4] xywh.
        scores: [N].
        overlap: largest intersection over union of two persons.
    """
    return _without_repeats(scores, lambda index, others: core_boxes.overlap(boxes[[index]], boxes[others])[0], overlap)


def distinct(keypoints, boxes, scores, sigmas, agreement=SAME_POSE):
    """Returns the numbers of persons whose poses do not agree with those of a better one, best first.

    Args:
        keypoints: [N, K, 2 or more] x, y in pixels.
        boxes: [N, 4] xywh.
        scores: [N].
        sigmas: K sigmas of the joints.
        agreement: largest OKS of two persons.
    """

    def similarity(index, others):
        boxes_of_pair = (boxes[index, 2:].prod() + boxes[others, 2:].prod(-1)) / 2
        return oks(keypoints[index], keypoints[others], AREA * boxes_of_pair, sigmas)

    return _without_repeats(scores, similarity, agreement)


def _without_repeats(scores, similarity, limit):
    """Returns the numbers of the persons that are not similar to one with a higher score.

    Args:
        scores: [N].
        similarity: function of a number and [M] others -> [M] similarities.
        limit: largest similarity.
    """
    kept = []
    for index in np.argsort(-scores, kind="stable"):
        if not kept or similarity(index, np.array(kept)).max() <= limit:
            kept.append(index)
    return np.array(kept, int)


def oks(first, second, areas, sigmas):
    """Object keypoint similarity of poses, all joints.

    Args:
        first, second: [..., K, 2 or more] x, y in pixels.
        areas: [...] areas of the persons in square pixels.
        sigmas: K sigmas of the joints.

    Returns:
        [...] in 0..1.
    """
    return joint_similarity(first, second, np.maximum(areas, 1), sigmas).mean(-1)


def agreement(keypoints, detections, sigmas):
    """Factors [N] of the persons' scores: 1/3 to 1, the more the detector's own joints agree.

    Args:
        keypoints: [N, K, 3] the joints of the model.
        detections: `Detections` with joints of the same skeleton.
        sigmas: K sigmas of the joints.
    """
    similarity = oks(keypoints, detections.keypoints, AREA * detections.boxes[:, 2:].prod(-1), sigmas)
    return ((0.5 + similarity) / 1.5).astype(np.float32)
