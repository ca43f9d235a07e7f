"""Photometric augmentation: each step gives the result of Pillow, on the host and on the device."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from kpose.augment import numba_kernels, photometric
from tests.augment.samples import WAYS


def _random_image(seed=0, size=(40, 52)):
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)).resize(
        size[::-1], Image.Resampling.BICUBIC
    )
    return image, np.asarray(image)[None]


def _one(value):
    return tf.constant([value], tf.float32)


NEUTRAL = {"grey": 0.0, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}


def _on_host(array, **columns):
    """The result of the kernels of the host for one image; `columns` are parameters by name."""
    row = np.zeros((1, numba_kernels.NUM_PARAMETERS), np.float32)
    row[0, [6, 10, 14]] = 1
    row[0, numba_kernels.THRESHOLD], row[0, numba_kernels.MASK], row[0, numba_kernels.SHARPNESS] = 256, 255, 1
    for name, value in columns.items():
        first = 6 if name == "COLOURS" else getattr(numba_kernels, name)
        place = slice(first, first + np.size(value))
        row[0, place] = np.ravel(value)
    return numba_kernels.augment(np.ascontiguousarray(array), row, array.shape[1:3], False, "COLOURS" in columns)


def _jitter(array, way="on_device", **parameters):
    parameters = {key: _one(value) for key, value in (NEUTRAL | parameters).items()}
    matrix, pivot = photometric.colour_matrix(**parameters)
    if way == "on_host":
        return _on_host(array, COLOURS=matrix, PIVOT=pivot)
    return photometric.recolour(array, matrix, pivot).numpy()


@WAYS
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "grey"])
def test_colours_change_as_in_pillow(name, factor, way):
    image, array = _random_image()
    enhancer = {"brightness": "Brightness", "contrast": "Contrast", "saturation": "Color", "grey": "Color"}[name]
    if name == "grey":
        factor = min(factor, 1.0)
    pillow = getattr(ImageEnhance, enhancer)(image).enhance(1 - factor if name == "grey" else factor)
    ours = _jitter(array, way, **{name: factor})
    np.testing.assert_allclose(ours[0].astype(int), np.asarray(pillow, int), atol=2)


@WAYS
def test_a_third_of_a_turn_of_the_hue_changes_the_channels_over(way):
    _, array = _random_image()
    np.testing.assert_array_equal(_jitter(array, way, hue=1 / 3), np.roll(array, 1, axis=-1))


@pytest.mark.parametrize("turn", [-0.3, -0.1, 0.05, 0.25])
def test_the_hue_turns_as_in_colorsys(turn):
    """The hue of HSV is an angle in a hexagon, here in a circle: up to 1.12 degrees at each end."""
    array = np.random.default_rng(0).integers(60, 190, (1, 20, 20, 3), np.uint8)
    turned = _jitter(array, hue=turn)
    seen = 0
    for before, after in zip(array.reshape(-1, 3), turned.reshape(-1, 3), strict=True):
        # Pale colours have no exact hue, and clipping changes the hue.
        if np.ptp(before) < 60 or after.min() == 0 or after.max() == 255:
            continue
        hues = [colorsys.rgb_to_hsv(*(colour / 255))[0] for colour in (before, after)]
        assert abs((hues[1] - hues[0] - turn + 0.5) % 1 - 0.5) < 2.3 / 360 + 0.006
        assert abs(before.mean() - after.mean()) < 1
        seen += 1
    assert seen > 200


def test_a_jitter_equals_its_parts_in_sequence():
    """Up to rounding and clipping between the parts."""
    image, array = _random_image()
    array = (array // 2 + 50).astype(np.uint8)
    image = Image.fromarray(array[0])
    for enhancer, factor in (("Brightness", 0.9), ("Contrast", 1.2), ("Color", 0.7), ("Color", 0.6)):
        image = getattr(ImageEnhance, enhancer)(image).enhance(factor)
    ours = _jitter(array, brightness=0.9, contrast=1.2, saturation=0.7, grey=0.4)
    np.testing.assert_allclose(ours[0].astype(int), np.asarray(image, int), atol=3)


@pytest.mark.parametrize("threshold", [0, 64, 128, 255])
def test_solarise_is_pillow_s(threshold):
    image, array = _random_image()
    for ours in (photometric.solarise(array, _one(threshold)), _on_host(array, THRESHOLD=threshold)):
        np.testing.assert_array_equal(ours[0], np.asarray(ImageOps.solarize(image, threshold)))


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterise_is_pillow_s(bits):
    image, array = _random_image()
    mask = photometric.bit_mask(_one(bits))
    for ours in (photometric.posterise(array, mask), _on_host(array, MASK=mask)):
        np.testing.assert_array_equal(ours[0], np.asarray(ImageOps.posterize(image, bits)))


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("size", [(40, 52), (33, 35), (3, 3)])
def test_sharpness_is_pillow_s(factor, size):
    image, array = _random_image(size=size)
    expected = np.asarray(ImageEnhance.Sharpness(image).enhance(factor), int)
    for ours in (photometric.sharpness(array, _one(factor)).numpy(), _on_host(array, SHARPNESS=factor)):
        assert ours.dtype == np.uint8
        np.testing.assert_allclose(ours[0].astype(int), expected, atol=1)


@pytest.mark.parametrize("kind", ["image", "flat", "two levels"])
def test_equalise_is_pillow_s(kind):
    image, array = _random_image(size=(64, 96))
    if kind != "image":
        array = np.where(array > (255 if kind == "flat" else 120), 200, 30).astype(np.uint8)
        image = Image.fromarray(array[0])
    for ours in (photometric.equalise(tf.constant(array)), _on_host(array, EQUALISE=1)):
        np.testing.assert_array_equal(ours[0], np.asarray(ImageOps.equalize(image)))
