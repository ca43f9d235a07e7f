"""Resampling of images with a triangle kernel, and crops of regions, in TensorFlow."""

import numpy as np
import tensorflow as tf

# Sides of the image beyond which the samples outside it are left out.
MOST_PADDING = 4


def resample(image, size, window=1.0):
    """The central window of images, stretched to a size.

    Args:
        image: [B, h, w, 3] uint8.
        size: (height, width) of the result in pixels.
        window: side of the window, as a fraction of the side of the image.

    Returns:
        [B, height, width, 3] uint8.
    """
    stored = np.array(image.shape[1:3])
    margin = (stored - size) / 2
    if np.abs(stored * window - size).max() < 1e-3 and (margin % 1 == 0).all():
        # The window has the right size: cut off the margin, do not resample.
        top, left = margin.astype(int)
        return image[:, top : top + size[0], left : left + size[1]]
    scale = np.float32(size) / np.float32(stored * window)
    return _sample_pixels(image, size, scale, np.float32(-scale * stored * (1 - window) / 2))


def crop_image(image, region, size):
    """The crop of a region of an image, in a graph: that of `kpose.data.crops`.

    Args:
        image: [H, W, 3] uint8.
        region: [4] float32 xywh in pixels; the part outside the image becomes black.
        size: (height, width) of the crop in pixels.

    Returns:
        [height, width, 3] uint8.
    """
    scale = tf.cast(size, tf.float32) / tf.reverse(region[2:], [0])
    translation = -scale * tf.reverse(region[:2], [0])
    first, last = _samples_inside(tf.cast(tf.shape(image)[:2], tf.float32), region, size)
    part = _sample_pixels(image[None], last - first, scale, translation - tf.cast(first, tf.float32))[0]
    part = tf.pad(part, tf.concat([tf.stack([first, size - last], 1), [[0, 0]]], 0))
    return tf.ensure_shape(part, [*size, 3])


def _samples_inside(sides, region, size):
    """The samples of a crop whose centres can be inside the image.

    The operation reads the whole image for each row of samples, also if it is outside. A region
    that is far larger than the image would take seconds. Smaller regions keep all samples.

    Args:
        sides: [2] float32, height and width of the image.
        region: [4] float32 xywh in pixels.
        size: (height, width) of the crop in pixels.

    Returns:
        first, last: [2] int32, on each axis: 0 <= first < last <= size.
    """
    start, length = tf.reverse(region[:2], [0]), tf.reverse(region[2:], [0])
    count = tf.cast(size, tf.float32)
    step = length / count
    # One more sample at each end, because of rounding.
    first = tf.clip_by_value(tf.floor(-start / step - 0.5) - 1, 0.0, count - 1)
    last = tf.clip_by_value(tf.math.ceil((sides - start) / step - 0.5) + 2, first + 1, count)
    large = length > MOST_PADDING * sides
    first, last = tf.where(large, first, 0.0), tf.where(large, last, count)
    return tf.cast(first, tf.int32), tf.cast(last, tf.int32)


def _sample_pixels(image, size, scale, translation):
    """Samples images [B, h, w, 3] bilinearly, with antialiasing, as the stored crops were made.

    Returns:
        [B, *size, 3] uint8.
    """
    image = tf.raw_ops.ScaleAndTranslate(
        images=image, size=size, scale=scale, translation=translation, kernel_type="triangle", antialias=True
    )
    # Weighted means of 0..255, so they are in this range. `rint` is faster than `round` and the same.
    return tf.cast(tf.math.rint(image), tf.uint8)
