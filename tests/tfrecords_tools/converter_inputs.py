"""Images and random persons for the tests of the converters."""

import subprocess
import sys

import numpy as np
from PIL import Image

SIZE = (120, 90)  # of the images: width, height


def photos(folder, names, size=SIZE):
    """Writes one image of (width, height) pixels for each name; returns the folder."""
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", size, "grey").save(folder / name)
    return str(folder)


def persons(count, seed=0):
    """([N, 14, 2] joints inside an image of `SIZE`, to 0.1 pixels; [N, 14] marks 0 or 1)."""
    rng = np.random.default_rng(seed)
    points = np.round(rng.uniform((20, 20), (90, 70), (count, 14, 2)), 1)
    return points, rng.integers(0, 2, (count, 14))


def run(command, *arguments):
    """Runs a command of tfrecords_tools."""
    line = [sys.executable, "-m", f"tfrecords_tools.{command}", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)
