"""Tracking: which persons of a frame are those of earlier frames.

Each track is moved to the new frame with its mean velocity. Tracks and persons are then paired so
that the sum of their similarities is highest (Kuhn, "The Hungarian method", 1955). The similarity
uses the boxes and the poses. BUILD.md has the comparison with libraries.
"""

import dataclasses

import numpy as np

from kpose.core import boxes as core_boxes
from kpose.core.errors import InputError
from kpose.drawing import persons
from kpose.predict import merging

# Seconds without a person after which a track ends.
LOST = 2.0
# Pairs with a lower similarity are never of one person.
LEAST = 0.1
# The similarity of poses is OKS with sigmas larger by this factor: limbs move between frames. The
# factor grows by `SPREAD` a second without a person, because the prediction becomes uncertain.
LOOSENESS, SPREAD = 2.0, 5.0
# Seconds over which the velocity is averaged.
MEMORY = 0.6
# Seconds over which a velocity is used: people stop and turn.
COASTING = 0.6
# Joints with a low score count only if fewer than this number of others are left.
MIN_JOINTS = 3


@dataclasses.dataclass
class _Track:
    """A person over time.

    Attributes:
        number: its id.
        box: [4] xywh, the last one.
        keypoints: [K, 3], the last ones.
        time: of these, in seconds.
        velocity: [2] pixels a second.
        age: seconds between its first and its last person.
    """

    number: int
    box: np.ndarray
    keypoints: np.ndarray
    time: float
    velocity: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2))
    age: float = 0.0

    def shift(self, time):
        """The expected movement [2] in pixels until a time."""
        return self.velocity * min(time - self.time, COASTING)

    def add(self, box, keypoints, time, min_score):
        """Adds the person of a later frame; joints with a score below `min_score` do not count."""
        elapsed = time - self.time
        known = (keypoints[:, 2] >= min_score) & (self.keypoints[:, 2] >= min_score)
        known = known if known.sum() >= MIN_JOINTS else slice(None)
        # The median of the joints: a box that another person hides in part moves otherwise.
        moved = np.median((keypoints - self.keypoints)[known, :2], axis=0) / elapsed
        share = elapsed / (elapsed + min(self.age, MEMORY))
        self.velocity = self.velocity + share * (moved - self.velocity)
        self.age += elapsed
        self.box, self.keypoints, self.time = box, keypoints, time


class Tracker:
    """Gives persons in successive frames their ids.

    Args:
        sigmas: [K] sigmas of the joints, for OKS.
        min_score: joints with a lower score do not count for the velocity.

    Raises:
        InputError: SciPy is not installed.
    """

    def __init__(self, sigmas, min_score=persons.JOINT_THRESHOLD):
        self._min_score = min_score
        self._sigmas = np.asarray(sigmas, np.float64)
        self._assign = _import_assignment()
        self._tracks = []
        self._last = 0
        self._time = -np.inf

    def update(self, keypoints, boxes, time):
        """Returns the ids of the persons in the next frame, [N] int64, from 1.

        Args:
            keypoints: [N, K, 3] x, y in pixels and score.
            boxes: [N, 4] xywh in pixels.
            time: of the frame in seconds; later than that of the frame before.
        """
        time = max(float(time), np.nextafter(self._time, np.inf))
        self._time = time
        keypoints, boxes = np.asarray(keypoints, np.float64), np.asarray(boxes, np.float64)
        self._tracks = [track for track in self._tracks if time - track.time <= LOST]
        ids = np.zeros(len(boxes), np.int64)
        if len(boxes) and self._tracks:
            similarity = np.stack([self._similarity(track, keypoints, boxes, time) for track in self._tracks])
            for row, column in zip(*self._assign(-np.where(similarity >= LEAST, similarity, 0)), strict=True):
                if similarity[row, column] >= LEAST:
                    self._tracks[row].add(boxes[column], keypoints[column], time, self._min_score)
                    ids[column] = self._tracks[row].number
        for index in np.flatnonzero(ids == 0):
            self._last += 1
            ids[index] = self._last
            self._tracks.append(_Track(self._last, boxes[index], keypoints[index], time))
        return ids

    def _similarity(self, track, keypoints, boxes, time):
        """[N] in 0..1: the mean of IoU and OKS of a track and persons."""
        shift = track.shift(time)
        moved = track.keypoints.copy()
        moved[:, :2] += shift
        factor = LOOSENESS + SPREAD * (time - track.time)
        areas = merging.AREA * (boxes[:, 2:].prod(1) + track.box[2:].prod()) / 2
        poses = merging.oks(moved, keypoints, areas, factor * self._sigmas)
        box = track.box + [*shift, 0, 0]
        return (poses + core_boxes.overlap(box[None], boxes)[0]) / 2


def check():
    """Raises `InputError` if SciPy is not installed."""
    _import_assignment()


def _import_assignment():
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise InputError(
            "--track needs the package scipy: pip install scipy (or pip install '.[video]' in a checkout)"
        ) from None
    return linear_sum_assignment
