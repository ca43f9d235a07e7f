"""Crops: painted dots are at the right place, and the crop equals that of the graph."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from kpose.core import geometry
from kpose.data import crops, resampling
from tests import helpers

SIZE = (120, 160)  # of the images: height, width
CROP = (96, 64)  # height, width


@pytest.mark.parametrize(
    "region",
    [
        (30, 20, 80, 70),  # inside
        (30.4, 19.7, 80.3, 70.9),  # inside, not on whole pixels
        (-40, 10, 160, 80),  # beyond the left edge
        (50, -30, 90, 120),  # beyond the upper edge
        (80, 45, 130, 110),  # beyond the lower right corner
        (-60, -50, 280, 230),  # all around the image
        (85, 50, 20, 30),  # small: enlarged
    ],
)
def test_painted_dots_are_where_geometry_says(region):
    middle = np.array([[95.3, 65.2], [98.0, 60.5], [92.1, 70.8]])
    image = Image.fromarray(helpers.paint_dots(SIZE, middle, sigma=1.5))
    crop = np.asarray(crops.crop_image(image, region, CROP))
    assert crop.shape == (*CROP, 3) and crop.dtype == np.uint8
    expected = geometry.to_crop(geometry.normalise(middle, np.array(region, float)), CROP)
    for channel, point in enumerate(expected):
        assert np.abs(helpers.find_dot(crop[..., channel], 20) - point).max() < 0.4


def test_the_region_is_stretched_to_the_crop():
    """A white rectangle of 1/2 of the region's width and 1/4 of its height keeps these shares."""
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[40:60, 40:80] = 255
    crop = np.asarray(crops.crop_image(Image.fromarray(pixels), (20, 10, 80, 80), (80, 40)))
    white = np.argwhere(crop[..., 0] > 127)
    assert white.min(0).tolist() == [30, 10] and white.max(0).tolist() == [49, 29]


def test_a_region_of_the_crops_own_size_is_copied():
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    crop = np.asarray(crops.crop_image(Image.fromarray(pixels), (30, 20, 64, 96), CROP))
    np.testing.assert_array_equal(crop, pixels[20:116, 30:94])


def test_outside_is_black_and_inside_is_not_darkened():
    white = Image.fromarray(np.full((*SIZE, 3), 255, np.uint8))
    # One pixel of the crop is one pixel of the image, which covers columns 20... and rows 10... of
    # the crop.
    crop = np.asarray(crops.crop_image(white, (-20, -10, 64, 96), CROP))
    expected = np.zeros((*CROP, 3), np.uint8)
    expected[10:, 20:] = 255
    np.testing.assert_array_equal(crop, expected)


def test_a_region_wholly_outside_is_black():
    white = np.full((*SIZE, 3), 255, np.uint8)
    for region in ((300, 300, 50, 50), (-90, 20, 50, 50), (20, -500, 50, 50)):
        assert not np.asarray(crops.crop_image(Image.fromarray(white), region, CROP)).any()
        assert not crops.crop_pixels(white, region, CROP).any()


def test_shrinking_averages_instead_of_skipping_pixels():
    stripes = np.zeros((*SIZE, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = np.asarray(crops.crop_image(Image.fromarray(stripes), (0, 0, 160, 120), (12, 16))).astype(int)
    assert np.abs(crop[:, 1:-1] - 127.5).max() < 15


def _clear_of(edges, centres):
    return all(np.abs(centres - edge).min() > 1e-2 for edge in edges)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(16, 70), st.integers(16, 70)),
    st.tuples(st.floats(-0.9, 1), st.floats(-0.9, 1), st.floats(0.06, 2), st.floats(0.06, 2)),
    st.tuples(st.integers(8, 80), st.integers(8, 80)),
)
@example(1, (40, 50), (0, 0, 1, 1), (40, 50))  # the whole image
@example(2, (40, 50), (0, 0, 1, 1), (9, 11))  # shrunk
@example(3, (40, 50), (0.3, 0.3, 0.1, 0.1), (80, 80))  # enlarged
@example(4, (40, 50), (-0.9, -0.9, 1.2, 1.2), (64, 64))  # a corner
@example(5, (40, 50), (-0.5, -0.5, 2, 2), (64, 64))  # all around
def test_the_same_crop_as_inside_the_graph(seed, size, shares, crop_size):
    height, width = size
    region = np.float32(np.array(shares) * [width, height, width, height])
    x, y, w, h = region.astype(float)
    # Rounding decides whether a sample exactly on the edge of the image is inside.
    assume(_clear_of((0, width), x + (np.arange(crop_size[1]) + 0.5) * w / crop_size[1]))
    assume(_clear_of((0, height), y + (np.arange(crop_size[0]) + 0.5) * h / crop_size[0]))
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    ours = np.asarray(crops.crop_image(Image.fromarray(pixels), region, crop_size)).astype(int)
    graph = resampling.crop_image(tf.constant(pixels), tf.constant(region), crop_size).numpy()
    exact = np.abs(crops.crop_pixels(pixels, region, crop_size).astype(int) - graph)
    # Between powers of two, means are often exactly a half, which the two ways may round differently.
    scales = {w / crop_size[1], h / crop_size[0]}
    halves = scales != {1.0} and all(np.log2(scale).is_integer() for scale in scales)
    assert exact.max() <= 1 and exact.mean() < (0.2 if halves else 0.01)
    inside = x >= 0 and y >= 0 and x + w <= width and y + h <= height
    # At the corners a small share of the kernel is inside, and dividing by it increases the
    # rounding error.
    assert np.abs(ours - graph.astype(int)).max() <= (1 if inside else 4)
    assert np.abs(ours - graph.astype(int)).mean() < 0.5


@pytest.mark.parametrize(
    "region", [(-1e6, -1e6, 2e6, 2e6), (-500, -8000, 1000, 17000), (-40, -3000, 90, 9000), (2000, 5, 1e6, 3)]
)
def test_a_region_far_beyond_the_image_takes_little_memory_and_is_that_of_the_graph(region, monkeypatch):
    monkeypatch.setattr(crops, "EXACT_PIXELS", 10_000)
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    graph = resampling.crop_image(tf.constant(pixels), tf.constant(np.float32(region)), CROP).numpy()
    assert np.abs(crops.crop_pixels(pixels, region, CROP).astype(int) - graph).max() <= 1


def test_a_large_part_of_an_image_is_resampled_with_8_bits(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    exact = crops.crop_pixels(pixels, (10, 10, 130, 100), CROP).astype(int)
    monkeypatch.setattr(crops, "EXACT_PIXELS", 1000)
    coarse = crops.crop_pixels(pixels, (10, 10, 130, 100), CROP)
    assert 0 < np.abs(exact - coarse).max() <= 2


def test_encoded_crops_keep_colours_close():
    pixels = helpers.paint_dots(CROP, [(20, 30), (40, 50), (30, 70)], sigma=4)
    with Image.open(io.BytesIO(crops.encode_jpeg(Image.fromarray(pixels)))) as decoded:
        assert decoded.format == "JPEG" and decoded.size == (64, 96)
        assert np.abs(np.asarray(decoded).astype(int) - pixels).max() < 16
