"""Photometric augmentation: changes of colours, which do not move joints.

Pure functions of batches [B, H, W, 3] uint8 with parameters [B] float32, which return batches of
the same type. Each sample is processed independently. The operations are defined as in ImageEnhance
and ImageOps of Pillow. They run in tf.data and in compiled training steps.
"""

import math

import tensorflow as tf

# Rec. 601 luma, with which Pillow converts an image to grey.
LUMA = (0.299, 0.587, 0.114)
# A solarisation threshold above all levels.
NO_THRESHOLD = 256.0


def colour_matrix(grey, brightness, contrast, saturation, hue):
    """Changes of grey, brightness, contrast, saturation and hue, as one affine map.

    Each of the five is an affine function of the colour of a pixel, so together they are one matrix
    and one offset for each image.

    Args:
        grey: [B] 0: no change; 1: a grey image.
        brightness: [B] factor; below 1 towards black.
        contrast: [B] factor; below 1 towards the mean luma of the image.
        saturation: [B] factor; below 1 towards the luma of the pixel.
        hue: [B] rotation of the colours around the grey axis, as a fraction of a full turn. The hue
            of HSV, an angle in a hexagon, changes by the same angle to within 2.3 degrees. The
            rotation keeps the mean of the channels, not the value of HSV.

    Returns:
        (matrix [B, 3, 3], pivot [B]): a pixel c becomes matrix c + pivot times the mean luma of the
        image.
    """
    identity, luma = tf.eye(3), tf.constant([LUMA] * 3)
    matrix = _scaled(contrast * brightness, identity)
    for share in (saturation, 1.0 - grey):
        matrix = (_scaled(share, identity) + _scaled(1.0 - share, luma)) @ matrix
    # The offset of the contrast is grey, and the steps after it do not change grey.
    return _turn_round_grey(hue) @ matrix, (1.0 - contrast) * brightness


def recolour(images, matrix, pivot):
    """Images with changed colours: applies the map of `colour_matrix`.

    Args:
        images: [B, H, W, 3] uint8.
        matrix, pivot: [B, 3, 3] and [B], from `colour_matrix`.

    Returns:
        [B, H, W, 3] uint8.
    """
    # One row for each pixel: this matrix product is faster than one over the axes of the image.
    pixels = tf.reshape(tf.cast(images, tf.float32), [-1, images.shape[1] * images.shape[2], 3])
    mean_luma = tf.reduce_sum(tf.reduce_mean(pixels, axis=1) * tf.constant(LUMA), axis=1)
    offset = pivot * mean_luma
    pixels = tf.matmul(pixels, matrix, transpose_b=True) + offset[:, None, None]
    return tf.reshape(to_uint8(pixels), tf.shape(images))


def to_uint8(images):
    """Rounds to the nearest level of 0..255."""
    return tf.cast(tf.round(tf.clip_by_value(images, 0.0, 255.0)), tf.uint8)


def solarise(images, threshold):
    """Inverts levels that are at least `threshold` [B]."""
    return tf.where(tf.cast(images, tf.float32) < threshold[:, None, None, None], images, 255 - images)


def bit_mask(bits):
    """Masks [B] uint8 of the `bits` [B] highest bits, 1 to 8."""
    # Rounded, because a compiled power need not be exact.
    return tf.cast(tf.round(256.0 - tf.pow(2.0, 8.0 - bits)), tf.uint8)


def posterise(images, mask):
    """Sets the bits outside `mask` [B] uint8 to zero, in each channel."""
    return tf.bitwise.bitwise_and(images, mask[:, None, None, None])


def sharpness(images, factor):
    """Blurs if `factor` [B] is below 1, sharpens if it is above 1, except pixels at the border."""
    # The smoothing kernel of Pillow, ones around a 5, divided by 13, is a 3x3 box plus four times
    # the pixel.
    images = tf.cast(images, tf.float32)
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = images[:, 1:-1, 1:-1]
    change = tf.round((box + 4.0 * inner) / 13.0) - inner
    change = tf.pad(change, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return to_uint8(images + (1.0 - factor)[:, None, None, None] * change)


def equalise(images):
    """Equalises the histogram of each channel."""
    _, height, width, _ = images.shape
    channel = tf.reshape(tf.range(tf.shape(images)[0])[:, None] * 3 + tf.range(3), [-1, 1, 1, 3])
    places = tf.reshape(tf.cast(images, tf.int32) + 256 * channel, [-1])
    histogram = tf.math.unsorted_segment_sum(tf.ones_like(places), places, 256 * 3 * tf.shape(images)[0])
    histogram = tf.reshape(histogram, [-1, 256])
    # As in Pillow: all pixels but those of the brightest level are divided among 255 steps.
    brightest = 255 - tf.argmax(tf.cast(tf.reverse(histogram, [1]) > 0, tf.int32), axis=1, output_type=tf.int32)
    last = tf.gather(histogram, brightest, batch_dims=1)
    step = (height * width - last) // 255
    below = tf.cumsum(histogram, axis=1, exclusive=True)
    table = (step[:, None] // 2 + below) // tf.maximum(step, 1)[:, None]
    table = tf.where(step[:, None] > 0, tf.clip_by_value(table, 0, 255), tf.range(256))
    table = tf.reshape(tf.cast(table, tf.uint8), [-1])
    return tf.reshape(tf.gather(table, places), tf.shape(images))


def cut_out(images, rectangle):
    """Fills a rectangle of each image with the mean colour of the image.

    Args:
        images: [B, H, W, 3] uint8.
        rectangle: [B, 4] int32: left, top, right, bottom in pixels; right <= left: no change.
    """
    columns, rows = tf.range(images.shape[2])[None], tf.range(images.shape[1])[None]
    left, top, right, bottom = (rectangle[:, i, None] for i in range(4))
    in_columns = tf.logical_and(columns >= left, columns < right)
    in_rows = tf.logical_and(rows >= top, rows < bottom)
    hole = tf.logical_and(in_rows[:, :, None], in_columns[:, None, :])[..., None]
    mean = to_uint8(tf.reduce_mean(tf.cast(images, tf.float32), [1, 2], keepdims=True))
    return tf.where(hole, mean, images)


def _scaled(factor, matrix):
    return factor[:, None, None] * matrix


def _turn_round_grey(turns):
    """Rotations [B, 3, 3] around (1, 1, 1), by Rodrigues' formula."""
    angle = 2 * math.pi * turns[:, None, None]
    cross = tf.constant([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3.0)
    return tf.cos(angle) * tf.eye(3) + tf.sin(angle) * cross + (1.0 - tf.cos(angle)) * tf.ones((3, 3)) / 3.0
