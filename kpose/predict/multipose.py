"""The built-in person detector: MoveNet MultiPose at several sizes of the image.

MoveNet MultiPose ("Next-Generation Pose Detection with MoveNet and TensorFlow.js", TensorFlow blog,
2021; weights Apache-2.0) predicts a map of centres of persons at stride 4. Each cell also has the
person's box and joints (Zhou et al., "Objects as Points", 2019). It finds large persons best in a
small image, and small persons in a large one, so the image is searched at several sizes.
"""

import dataclasses

import numpy as np
from PIL import Image

from kpose.core import litert
from kpose.data import crops
from kpose.predict import merging
from kpose.runs import shipped_files

# What `Settings.more` compares: the longer side of a box as a fraction of that of the image.
SMALL, MEDIUM = 0.15, 0.6


@dataclasses.dataclass(frozen=True)
class Settings:
    """At which sizes the image is searched.

    Attributes:
        sizes: longer sides in pixels.
        more: add a size by what was found at `sizes`: `SMALL_SIZE` if a person is smaller than
            `SMALL` of the image or nobody is sure, `MEDIUM_SIZE` if one is smaller than `MEDIUM`.
    """

    sizes: tuple
    more: bool = False


SMALL_SIZE, MEDIUM_SIZE = 640, 384
SETTINGS = {
    "multipose": Settings((256,), more=True),
    "multipose_fast": Settings((320,)),
    "multipose_best": Settings((256, 384, 512, 640)),
}
MIN_SCORE = 0.25

# Pixels of a cell of the maps, and the multiple of the sides of the network's input.
STRIDE, MULTIPLE = 4, 32
# Smallest value of the centre map at a peak, and above which a person is sure to be there.
MIN_CENTER, SURE_CENTER = 0.1, 0.25
# Peaks of one size that are decoded.
MOST_PEAKS = 40
# Joints of lower scores do not count (the value of the published graph).
JOINT_SCORE = 0.127
# Variance of the weights around the regressed joint, as a fraction of the shorter side of the map
# (the value of the published graph).
SPREAD = 0.3
# Boxes that overlap by more are of one person (intersection over union).
OVERLAP = 0.65
# The box is recut: a mean of the predicted box and the box of its joints, which is enlarged by
# `JOINT_MARGIN` on each side, with the weight `JOINT_WEIGHT`.
JOINT_WEIGHT, JOINT_MARGIN, FEWEST_JOINTS = 0.4, 0.05, 4
# An image with a side of more pixels is first reduced by a whole factor.
LARGE = 1280


class MultiPose:
    """The detector.

    A call takes an image, uint8 [H, W, 3] RGB, and returns `merging.Detections`. The score of a
    person is the root of the value of the centre map times the mean score of the joints.

    Args:
        min_score: persons with lower scores are left out.
        settings: the `Settings`.
        threads: as for `litert.LiteModel`.

    Raises:
        InputError: the network's file is missing or damaged.
    """

    def __init__(self, min_score=MIN_SCORE, settings=SETTINGS["multipose"], threads=None):
        self._network = litert.LiteModel(shipped_files.read_detector("movenet_multipose"), threads, "movenet_multipose")
        self._min_score, self._settings = min_score, settings

    def __call__(self, image):
        picture, factor = _reduced(Image.fromarray(image))
        found = [self._search(picture, size) for size in self._settings.sizes]
        if self._settings.more:
            size = _further_size(found, max(picture.size))
            found += [self._search(picture, size)] if size else []
        people = _Candidates.joined(found)
        people = people.chosen(people.scores >= self._min_score)
        people = people.chosen(merging.suppress(people.boxes, people.scores, OVERLAP))
        boxes = recut(people.boxes, people.keypoints)
        keypoints = people.keypoints * np.float32([factor, factor, 1])
        return merging.Detections(boxes * np.float32(factor), people.scores, keypoints)

    def _search(self, picture, size):
        """Returns the `_Candidates` at one size of the image, in pixels of `picture`."""
        scale = size / max(picture.size)
        # The sides are rounded up; below and at the right, the input is black.
        width, height = (int(np.ceil(round(side * scale, 3) / MULTIPLE)) * MULTIPLE for side in picture.size)
        pixels = crops.crop_image(picture, (0, 0, width / scale, height / scale), (height, width))
        maps = self._network(images=np.asarray(pixels, np.float32)[None])
        return decode({name: value[0] for name, value in maps.items()}, STRIDE / scale)


def _reduced(picture):
    """Returns a picture that is not much larger than `LARGE`, and by what factor it was reduced."""
    factor = max(1, max(picture.size) // LARGE)
    return (picture.reduce(factor), factor) if factor > 1 else (picture, 1)


def _further_size(found, side):
    """Returns the size at which to search again; None: not at all.

    Args:
        found: list of `_Candidates`.
        side: longer side of the image in pixels.
    """
    people = _Candidates.joined(found)
    if not (people.centers >= SURE_CENTER).any():
        return SMALL_SIZE
    smallest = people.boxes[:, 2:].max(1).min() / side
    return SMALL_SIZE if smallest < SMALL else MEDIUM_SIZE if smallest < MEDIUM else None


@dataclasses.dataclass(frozen=True)
class _Candidates:
    """Persons from the maps of one or more sizes.

    Attributes:
        boxes: [N, 4] float32 xywh in pixels.
        keypoints: [N, K, 3] float32: x, y in pixels and the joint's score.
        centers: [N] float32 values of the centre map.
        scores: [N] float32.
    """

    boxes: np.ndarray
    keypoints: np.ndarray
    centers: np.ndarray
    scores: np.ndarray

    @classmethod
    def joined(cls, parts):
        """Returns the persons of all parts."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(cls)))

    def chosen(self, index):
        """Returns some of the persons, by mask or by number."""
        return _Candidates(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))


def decode(maps, cell):
    """Returns the `_Candidates` of the maps of one image.

    Args:
        maps: [h, w, C] float32 by name, from `kpose.models.movenet.multipose`.
        cell: side of a cell in pixels of the image.
    """
    center = _sigmoid(maps["center"][..., 0])
    height, width = center.shape
    rows, columns = _peaks(center)
    cells = np.stack([columns, rows], -1).astype(np.float32)
    middle = cells + maps["box_offset"][rows, columns][:, ::-1]
    half = np.maximum(maps["box_size"][rows, columns][:, ::-1], 0) / 2
    low, high = np.clip(middle - half, 0, [width, height]), np.clip(middle + half, 0, [width, height])
    joints = maps["heatmap"].shape[-1]
    expected = cells[:, None] + maps["regress"][rows, columns].reshape(-1, joints, 2)[..., ::-1]
    offsets = maps["offset"].reshape(height, width, joints, 2)[..., ::-1]
    heat = _sigmoid(maps["heatmap"])
    keypoints = np.zeros((len(rows), joints, 3), np.float32)
    for index in range(len(rows)):
        keypoints[index] = _joints(heat, offsets, expected[index], low[index], high[index])
    keypoints[..., :2] *= cell
    boxes = np.concatenate([low, high - low], -1).astype(np.float32) * np.float32(cell)
    centers = center[rows, columns]
    return _Candidates(boxes, keypoints, centers, _scores(centers, keypoints[..., 2]))


def _sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def _peaks(center):
    """Returns (rows, columns) of the highest peaks: the largest values within 5 x 5 cells."""
    height, width = center.shape
    padded = np.pad(center, 2)
    lines = np.max([padded[i : i + height] for i in range(5)], axis=0)
    largest = np.max([lines[:, i : i + width] for i in range(5)], axis=0)
    rows, columns = np.nonzero((center == largest) & (center > MIN_CENTER))
    order = np.argsort(-center[rows, columns], kind="stable")[:MOST_PEAKS]
    return rows[order], columns[order]


def _joints(heat, offsets, expected, low, high):
    """Returns the joints [K, 3] of one person: x, y in cells, and the score.

    Each is at the cell of its box where the joint's map is largest, after it is weighted by a normal
    distribution around the place that the centre regresses.

    Args:
        heat: [h, w, K] maps of the joints, in 0..1.
        offsets: [h, w, K, 2] xy in cells.
        expected: [K, 2] the regressed places, xy in cells.
        low, high: [2] xy of the corners of the box in cells.
    """
    height, width, joints = heat.shape
    # At least one cell.
    left, top = np.minimum(np.ceil(low).astype(int), [width - 1, height - 1])
    right, bottom = np.maximum(np.minimum(np.ceil(high).astype(int), [width, height]), [left + 1, top + 1])
    variance = SPREAD * min(height, width)
    across = np.exp(-np.square(np.arange(left, right)[:, None] - expected[:, 0]) / variance)
    down = np.exp(-np.square(np.arange(top, bottom)[:, None] - expected[:, 1]) / variance)
    weighted = (heat[top:bottom, left:right] * down[:, None] * across[None]).reshape(-1, joints)
    best, each = weighted.argmax(0), np.arange(joints)
    rows, columns = top + best // (right - left), left + best % (right - left)
    places = np.stack([columns, rows], -1) + offsets[rows, columns, each]
    return np.concatenate([places, weighted[best, each][:, None]], -1)


def _scores(centers, joint_scores):
    """Returns the scores [N] of persons: centers [N], joint_scores [N, K]."""
    counted = joint_scores > JOINT_SCORE
    mean = np.where(counted, joint_scores, 0).sum(1) / np.maximum(counted.sum(1), 1)
    return np.sqrt(centers * mean).astype(np.float32)


def recut(boxes, keypoints):
    """Returns boxes [N, 4] xywh that are nearer to the persons' outlines.

    A box is the weighted mean of the predicted one and of the one around the joints. It is at least
    two pixels wide and high.

    Args:
        boxes: [N, 4] xywh in pixels.
        keypoints: [N, K, 3] x, y in pixels and the joint's score.
    """
    counted = keypoints[..., 2] > JOINT_SCORE
    given = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], -1)
    around = given.copy()
    for index in np.flatnonzero(counted.sum(1) >= FEWEST_JOINTS):
        points = keypoints[index, counted[index], :2]
        low, high = points.min(0), points.max(0)
        margin = JOINT_MARGIN * (high - low)
        around[index] = np.concatenate([low - margin, high + margin])
    corners = (1 - JOINT_WEIGHT) * given + JOINT_WEIGHT * around
    sides = np.maximum(corners[:, 2:] - corners[:, :2], 2)
    return np.concatenate([corners[:, :2], sides], -1).astype(np.float32)
