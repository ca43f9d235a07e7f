"""Resampling of images with a triangle kernel, and crops of regions, in TensorFlow."""

import numpy as np
import tensorflow as tf


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
    return _sample_pixels(image[None], size, scale, -scale * tf.reverse(region[:2], [0]))[0]


def _sample_pixels(image, size, scale, translation):
    """Samples images [B, h, w, 3] bilinearly, with antialiasing, as the stored crops were made.

    Returns:
        [B, *size, 3] uint8.
    """
    image = tf.raw_ops.ScaleAndTranslate(
        images=image, size=size, scale=scale, translation=translation, kernel_type="triangle", antialias=True
    )
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
