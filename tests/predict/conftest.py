"""Fixtures of the tests of prediction."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path):
    """A folder with two images of 120 x 90 pixels."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in ("a.jpg", "b.png"):
        pixels = random.integers(0, 256, (9, 12, 3), np.uint8).repeat(10, 0).repeat(10, 1)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def left_half():
    """A detector: a person in the left half and, with a lower score, one in the right half."""

    def detect(image):
        height, width = image.shape[:2]
        return [[0, 0, width // 2, height], [width // 2, 0, width // 2, height]], [0.9, 0.5]

    return detect
