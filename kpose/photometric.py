"""Photometric augmentation: colours change, joints do not.

Pure functions on batches [B, H, W, 3] of 0..255, float32 in and out, with parameters [B]. Their meaning is that of
Pillow's ImageEnhance and ImageOps. They run in tf.data and in the compiled step alike.
"""

import math

import tensorflow as tf

# Rec. 601 luma, by which Pillow greys an image.
LUMA = (0.299, 0.587, 0.114)


def colour_jitter(images, grey, brightness, contrast, saturation, hue):
    """A shift towards grey and a jitter of brightness, contrast, saturation and hue, in one pass.

    Each is affine in the colour of a pixel, so all five together are one matrix and one offset for each image.

    Args:
        images: [B, H, W, 3].
        grey: [B] 0 leaves the colours, 1 is a grey-scale image.
        brightness: [B] factor towards black (below 1) or away from it.
        contrast: [B] factor towards the image's mean luma or away from it.
        saturation: [B] factor towards the pixel's own luma or away from it.
        hue: [B] turn of the colours round the grey axis, as a fraction of a full one.

    Returns:
        [B, H, W, 3], clipped to 0..255.
    """
    identity, luma = tf.eye(3), tf.constant([LUMA] * 3)
    # A pixel is a column: c -> matrix c + offset.
    matrix = _scaled(brightness, identity)
    mean = tf.einsum("bij,bj->bi", matrix, tf.reduce_mean(images, [1, 2]))
    mean_luma = tf.linalg.matvec(luma, mean)
    matrix = _scaled(contrast, matrix)
    offset = (1.0 - contrast)[:, None] * mean_luma
    for share in (saturation, 1.0 - grey):
        step = _scaled(share, identity) + _scaled(1.0 - share, luma)
        matrix, offset = step @ matrix, tf.linalg.matvec(step, offset)
    turn = _turn_round_grey(hue)
    matrix, offset = turn @ matrix, tf.linalg.matvec(turn, offset)
    images = tf.einsum("bhwj,bij->bhwi", images, matrix) + offset[:, None, None]
    return tf.clip_by_value(images, 0.0, 255.0)


def _scaled(factor, matrix):
    return factor[:, None, None] * matrix


def _turn_round_grey(turns):
    """[B, 3, 3] rotations round (1, 1, 1), by Rodrigues' formula."""
    angle = 2 * math.pi * turns[:, None, None]
    cross = tf.constant([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3.0)
    return tf.cos(angle) * tf.eye(3) + tf.sin(angle) * cross + (1.0 - tf.cos(angle)) * tf.ones((3, 3)) / 3.0


def solarise(images, threshold):
    """Inverts what is at least `threshold` [B]."""
    return tf.where(images < threshold[:, None, None, None], images, 255.0 - images)


def posterise(images, bits):
    """Keeps the `bits` [B] highest bits of each channel."""
    step = tf.pow(2.0, 8.0 - bits)[:, None, None, None]
    return tf.floor(tf.round(images) / step) * step


def sharpness(images, factor):
    """Towards a smoothed image where `factor` [B] is below 1, away from it above; the outermost pixels stay."""
    # The smoothing kernel, ones round a 5 and all over 13, is a 3x3 box and four times the pixel itself.
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = images[:, 1:-1, 1:-1]
    change = tf.round((box + 4.0 * inner) / 13.0) - inner
    change = tf.pad(change, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return tf.clip_by_value(images + (1.0 - factor)[:, None, None, None] * change, 0.0, 255.0)


def equalise(images):
    """Spreads the histogram of each channel evenly over 0..255."""
    batch, height, width, _ = images.shape
    levels = tf.cast(tf.round(images), tf.int32)
    channel = tf.reshape(tf.range(tf.shape(images)[0])[:, None] * 3 + tf.range(3), [-1, 1, 1, 3])
    places = tf.reshape(levels + 256 * channel, [-1])
    histogram = tf.math.unsorted_segment_sum(tf.ones_like(places), places, 256 * 3 * tf.shape(images)[0])
    histogram = tf.reshape(histogram, [-1, 256])
    # All but the brightest level that occurs are shared out over 255 steps.
    brightest = 255 - tf.argmax(tf.cast(tf.reverse(histogram, [1]) > 0, tf.int32), axis=1, output_type=tf.int32)
    last = tf.gather(histogram, brightest, batch_dims=1)
    step = (height * width - last) // 255
    below = tf.cumsum(histogram, axis=1, exclusive=True)
    table = (step[:, None] // 2 + below) // tf.maximum(step, 1)[:, None]
    table = tf.where(step[:, None] > 0, tf.clip_by_value(table, 0, 255), tf.range(256))
    return tf.cast(tf.reshape(tf.gather(tf.reshape(table, [-1]), places), tf.shape(images)), tf.float32)
