"""The values of COCO-style files in any spelling: ids, numbers, flags, boxes, names."""

import math
import re

import numpy as np

from kpose.core import limits

# Coordinates beyond it and boxes with smaller sides are no labels: crops of them need unbounded
# memory, or have no pixel. In pixels.
MAX_COORDINATE, MIN_SIDE = limits.FARTHEST, 1e-3
_TRUE, _FALSE = {"1", "true", "yes"}, {"", "0", "false", "no", "none"}


def numbers_of(values):
    """Numbers, also as text or in nested lists, as a flat float64 array; None if they are something else."""
    try:
        array = np.asarray(values)
        if array.dtype.kind in "iufU":
            return array.astype(np.float64, copy=False).ravel()
        if array.dtype.kind == "O" and all(isinstance(value, int | float | str) for value in array.ravel()):
            return np.array([float(value) for value in array.ravel()])
    except (TypeError, ValueError, OverflowError):
        pass
    return None


def key_of(value):
    """An id in a form that is equal for 7, 7.0 and "7"; None for what is no id."""
    if type(value) is int:
        return value
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value == int(value) else None
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"-?\d{1,40}", value.strip()) else value
    return None


def number_of(value):
    """A finite float, also from text; None for what is none."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def flag_of(value):
    """A bool in any spelling; None for what is none."""
    if isinstance(value, bool):
        return value
    if value is None or (type(value) is int and value in (0, 1)):
        return bool(value)
    text = "" if value is None else str(int(value)) if isinstance(value, float) and value in (0.0, 1.0) else str(value)
    text = text.strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


def box_of(value):
    numbers = [number_of(side) for side in value] if isinstance(value, list) and len(value) == 4 else [None]
    if None in numbers or min(numbers[2:]) < MIN_SIDE or max(map(abs, numbers)) > MAX_COORDINATE:
        return None
    return np.array(numbers, np.float64)


def overlaps(box, size):
    """Whether a box overlaps an image; True if one of them is not known."""
    if box is None or size is None:
        return True
    return box[0] < size[0] and box[1] < size[1] and box[0] + box[2] > 0 and box[1] + box[3] > 0


def area_of(value, box):
    area = number_of(value)
    if area is not None and 0 < area <= MAX_COORDINATE**2:
        return area
    return 0.0 if box is None else float(box[2] * box[3])


def file_name_of(value):
    return value if isinstance(value, str) and value else None
