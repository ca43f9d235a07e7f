"""Smoothing of the joints of tracked persons with the one-euro filter.

Casiez, Roussel and Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
Interactive Systems", CHI 2012. It is a low-pass filter whose cutoff frequency rises with the speed:
joints at rest do not tremble, and fast joints lag little.
"""

import dataclasses
import math

import numpy as np

# Cutoff frequency at rest in Hz (the paper's fcmin), and its increase for a speed of one person's
# size a second (beta), where the size is the square root of the area of the box. BUILD.md has the
# measurement.
MIN_CUTOFF, BETA = 1.5, 8.0
# Cutoff frequency of the speed in Hz.
SPEED_CUTOFF = 1.0
# Seconds without a person after which its filter starts again.
LOST = 0.5


@dataclasses.dataclass
class _State:
    """A person's filter: the smoothed joints [K, 2], their smoothed speed [K, 2] and the time."""

    points: np.ndarray
    speed: np.ndarray
    time: float


class Smoother:
    """The filters of all persons of a video."""

    def __init__(self):
        self._states = {}

    def update(self, ids, keypoints, boxes, time):
        """Returns the smoothed joints of the next frame, [N, K, 3] float32; the scores are unchanged.

        Args:
            ids: [N] of the persons' tracks.
            keypoints: [N, K, 3] x, y in pixels and score.
            boxes: [N, 4] xywh in pixels.
            time: of the frame in seconds; later than that of the frame before.
        """
        self._states = {key: state for key, state in self._states.items() if time - state.time <= LOST}
        smoothed = np.array(keypoints, np.float32)
        for index, key in enumerate(map(int, ids)):
            size = math.sqrt(max(float(np.prod(boxes[index][2:])), 1.0))
            smoothed[index, :, :2] = self._add(key, np.asarray(keypoints[index][:, :2], np.float64), size, time)
        return smoothed

    def _add(self, key, points, size, time):
        """Adds joints [K, 2] of a person to its filter; returns the smoothed ones."""
        state = self._states.get(key)
        if state is None or time <= state.time:
            self._states[key] = _State(points, np.zeros_like(points), time)
            return points
        elapsed = time - state.time
        # As in the paper, the speed is that of the new joints against the last smoothed ones.
        speed = state.speed + _share(SPEED_CUTOFF, elapsed) * ((points - state.points) / elapsed - state.speed)
        # Both directions of a joint have the same cutoff: otherwise the result would depend on the
        # direction of the axes.
        cutoff = MIN_CUTOFF + BETA * np.linalg.norm(speed, axis=-1, keepdims=True) / size
        smoothed = state.points + _share(cutoff, elapsed) * (points - state.points)
        self._states[key] = _State(smoothed, speed, time)
        return smoothed


def _share(cutoff, elapsed):
    """The weight of the new value in exponential smoothing, alpha of the paper.

    Args:
        cutoff: in Hz.
        elapsed: seconds since the last value.
    """
    return 1 / (1 + 1 / (2 * math.pi * cutoff * elapsed))
