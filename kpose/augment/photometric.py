"""Photometric augmentation: colours change, joints do not.

Pure functions on batches [B, H, W, 3] uint8, in and out, with parameters [B] float32; each sample depends on itself
alone. Their meaning is that of Pillow's ImageEnhance and ImageOps. They run in tf.data and in the compiled step alike.
"""

import math

import tensorflow as tf

# Rec. 601 luma, by which Pillow greys an image.
LUMA = (0.299, 0.587, 0.114)


# No level reaches it.
NO_THRESHOLD = 256.0


def colour_matrix(grey, brightness, contrast, saturation, hue):
    """A shift towards grey and a jitter of brightness, contrast, saturation and hue, all in one.

    Each is affine in the colour of a pixel, so all five together are one matrix and one offset for each image.

    Args:
        grey: [B] 0 leaves the colours, 1 is a grey-scale image.
        brightness: [B] factor towards black (below 1) or away from it.
        contrast: [B] factor towards the image's mean luma or away from it.
        saturation: [B] factor towards the pixel's own luma or away from it.
        hue: [B] turn of the colours round the grey axis, as a fraction of a full one. HSV's hue, an angle in a
            hexagon, turns by as much to within 2.3 degrees; what stays is the mean of the channels, not HSV's value.

    Returns:
        (matrix [B, 3, 3], pivot [B]): a pixel c becomes matrix c + pivot times the image's mean luma.
    """
    identity, luma = tf.eye(3), tf.constant([LUMA] * 3)
    matrix = _scaled(contrast * brightness, identity)
    for share in (saturation, 1.0 - grey):
        matrix = (_scaled(share, identity) + _scaled(1.0 - share, luma)) @ matrix
    # What contrast adds is a shade of grey, which none of the steps after it changes.
    return _turn_round_grey(hue) @ matrix, (1.0 - contrast) * brightness


def recolour(images, matrix, pivot):
    """Applies what `colour_matrix` gave to images [B, H, W, 3] uint8."""
    # One row a pixel: a matrix product is faster so than over the picture's axes.
    pixels = tf.reshape(tf.cast(images, tf.float32), [-1, images.shape[1] * images.shape[2], 3])
    mean_luma = tf.reduce_sum(tf.reduce_mean(pixels, axis=1) * tf.constant(LUMA), axis=1)
    offset = pivot * mean_luma
    pixels = tf.matmul(pixels, matrix, transpose_b=True) + offset[:, None, None]
    return tf.reshape(to_uint8(pixels), tf.shape(images))


def to_uint8(images):
    """The nearest of 0..255."""
    return tf.cast(tf.round(tf.clip_by_value(images, 0.0, 255.0)), tf.uint8)


def _scaled(factor, matrix):
    return factor[:, None, None] * matrix


def _turn_round_grey(turns):
    """[B, 3, 3] rotations round (1, 1, 1), by Rodrigues' formula."""
    angle = 2 * math.pi * turns[:, None, None]
    cross = tf.constant([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3.0)
    return tf.cos(angle) * tf.eye(3) + tf.sin(angle) * cross + (1.0 - tf.cos(angle)) * tf.ones((3, 3)) / 3.0


def solarise(images, threshold):
    """Inverts what is at least `threshold` [B]."""
    return tf.where(tf.cast(images, tf.float32) < threshold[:, None, None, None], images, 255 - images)


def bit_mask(bits):
    """[B] uint8: the `bits` [B] highest bits, 1 to 8."""
    # Rounded: a compiled power need not be exact, and a mask must be.
    return tf.cast(tf.round(256.0 - tf.pow(2.0, 8.0 - bits)), tf.uint8)


def posterise(images, mask):
    """Keeps the bits of `mask` [B] uint8 in each channel."""
    return tf.bitwise.bitwise_and(images, mask[:, None, None, None])


def sharpness(images, factor):
    """Towards a smoothed image where `factor` [B] is below 1, away from it above; the outermost pixels stay."""
    # The smoothing kernel, ones round a 5 and all over 13, is a 3x3 box and four times the pixel itself.
    images = tf.cast(images, tf.float32)
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = images[:, 1:-1, 1:-1]
    change = tf.round((box + 4.0 * inner) / 13.0) - inner
    change = tf.pad(change, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return to_uint8(images + (1.0 - factor)[:, None, None, None] * change)


def equalise(images):
    """Spreads the histogram of each channel evenly over 0..255."""
    _, height, width, _ = images.shape
    channel = tf.reshape(tf.range(tf.shape(images)[0])[:, None] * 3 + tf.range(3), [-1, 1, 1, 3])
    places = tf.reshape(tf.cast(images, tf.int32) + 256 * channel, [-1])
    histogram = tf.math.unsorted_segment_sum(tf.ones_like(places), places, 256 * 3 * tf.shape(images)[0])
    histogram = tf.reshape(histogram, [-1, 256])
    # All but the brightest level that occurs are shared out over 255 steps.
    brightest = 255 - tf.argmax(tf.cast(tf.reverse(histogram, [1]) > 0, tf.int32), axis=1, output_type=tf.int32)
    last = tf.gather(histogram, brightest, batch_dims=1)
    step = (height * width - last) // 255
    below = tf.cumsum(histogram, axis=1, exclusive=True)
    table = (step[:, None] // 2 + below) // tf.maximum(step, 1)[:, None]
    table = tf.where(step[:, None] > 0, tf.clip_by_value(table, 0, 255), tf.range(256))
    table = tf.reshape(tf.cast(table, tf.uint8), [-1])
    return tf.reshape(tf.gather(table, places), tf.shape(images))


def cut_out(images, rectangle):
    """The mean colour in `rectangle` [B, 4] int32: left, top, right, bottom in pixels; right <= left: nowhere."""
    columns, rows = tf.range(images.shape[2])[None], tf.range(images.shape[1])[None]
    left, top, right, bottom = (rectangle[:, i, None] for i in range(4))
    in_columns = tf.logical_and(columns >= left, columns < right)
    in_rows = tf.logical_and(rows >= top, rows < bottom)
    hole = tf.logical_and(in_rows[:, :, None], in_columns[:, None, :])[..., None]
    mean = to_uint8(tf.reduce_mean(tf.cast(images, tf.float32), [1, 2], keepdims=True))
    return tf.where(hole, mean, images)
