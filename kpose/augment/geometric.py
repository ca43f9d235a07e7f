"""Geometric augmentation: one affine map an image, from the network's input back to the stored crop.

The crop is stretched, so angles are true only in original pixels: a sample's window is a rectangle of any size and
place, turned and perhaps mirrored, in the original image. Coordinates in it differ from original ones by a rigid motion
(and reflection), so lengths, and PCP with them, stay true.
"""

import math

import tensorflow as tf

# Half-body windows (Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", 2019, and
# others): of persons with this many labelled joints, round no fewer than this many, their box times this.
HALF_BODY_LABELLED = 8
HALF_BODY_JOINTS = 3
HALF_BODY_PADDING = 1.5


def windows(region, angle, scale, shift):
    """The window of each sample, in original pixels.

    Turned by `angle`, a box of w x h shows in a box as large as that of the turned ellipse in it: w' = sqrt((w cos)^2 +
    (h sin)^2), h' likewise.

    Args:
        region: [B, 4] xywh in original pixels: what is to be seen.
        angle: [B] in radians, clockwise as the image is seen.
        scale: [B] the window's size is multiplied by this.
        shift: [B, 2] its centre moves by this share of the region's sides.

    Returns:
        (centre [B, 2], size [B, 2]) in original pixels.
    """
    side = region[:, 2:]
    cos, sin = tf.cos(angle), tf.sin(angle)
    turned = tf.stack([side[:, 0] * cos, side[:, 1] * sin], -1), tf.stack([side[:, 0] * sin, side[:, 1] * cos], -1)
    size = tf.stack([tf.norm(part, axis=-1) for part in turned], -1) * scale[:, None]
    return region[:, :2] + (0.5 + shift) * side, size


def half_bodies(keypoints, region, upper, chosen, want_upper):
    """Regions round the upper or the lower body where `chosen`, else `region` itself.

    Args:
        keypoints: [B, K, 3] normalised in `region`, with flags.
        region: [B, 4] xywh in original pixels.
        upper: [K] bool: the joints of the upper body.
        chosen: [B] bool: whose turn it is.
        want_upper: [B] bool: upper, or else lower.

    Returns:
        [B, 4] xywh.
    """
    labelled = keypoints[..., 2] > 0
    part = tf.logical_and(labelled, tf.equal(upper[None], want_upper[:, None]))
    enough = tf.reduce_sum(tf.cast(labelled, tf.int32), -1) >= HALF_BODY_LABELLED
    enough = tf.logical_and(enough, tf.reduce_sum(tf.cast(part, tf.int32), -1) >= HALF_BODY_JOINTS)
    points = keypoints[..., :2]
    lowest = tf.reduce_min(tf.where(part[..., None], points, 9.0), axis=1)
    highest = tf.reduce_max(tf.where(part[..., None], points, -9.0), axis=1)
    # Not so small that a stretched arm fills the input with a line.
    side = tf.maximum((highest - lowest) * HALF_BODY_PADDING, 0.2)
    corner = (lowest + highest - side) / 2
    half = tf.concat([region[:, :2] + (corner + 0.5) * region[:, 2:], side * region[:, 2:]], -1)
    return tf.where(tf.logical_and(chosen, enough)[:, None], half, region)


def move_keypoints(keypoints, region, centre, size, angle, mirrored):
    """Labels normalised in `region` -> labels normalised in the windows; what leaves them loses its label.

    Args:
        keypoints: [B, K, 3].
        region: [B, 4].
        centre, size, angle: of the windows.
        mirrored: [B] bool; left and right joints are not yet swapped.

    Returns:
        [B, K, 3]; an unlabelled joint is (0, 0, 0).
    """
    points = region[:, None, :2] + (keypoints[..., :2] + 0.5) * region[:, None, 2:]
    turned = tf.einsum("bij,bkj->bki", _rotation(-angle), points - centre[:, None])
    points = turned * _sign(mirrored)[:, None] / size[:, None]
    flags = keypoints[..., 2:]
    seen = tf.logical_and(flags > 0, tf.reduce_all(tf.abs(points) <= 0.5, axis=-1, keepdims=True))
    return tf.where(seen, tf.concat([points, flags], -1), 0.0)


def crop_transform(region, stored_share, centre, size, angle, mirrored):
    """The affine map from normalised window coordinates to normalised coordinates of the stored crop.

    Args:
        region: [B, 4] what the stored crop shows `stored_share` of.
        stored_share: the region's side as a fraction of the stored crop's.
        centre, size, angle, mirrored: of the windows.

    Returns:
        (matrix [B, 2, 2], offset [B, 2]): v = matrix u + offset.
    """
    middle = region[:, :2] + region[:, 2:] / 2
    stored = region[:, 2:] / stored_share
    matrix = _rotation(angle) * (_sign(mirrored) * size)[:, None, :] / stored[:, :, None]
    return matrix, (centre - middle) / stored


def _rotation(angle):
    cos, sin = tf.cos(angle), tf.sin(angle)
    return tf.stack([tf.stack([cos, -sin], -1), tf.stack([sin, cos], -1)], -2)


def _sign(mirrored):
    """[B, 2]: (-1, 1) where mirrored, else (1, 1)."""
    return tf.where(mirrored[:, None], tf.constant([-1.0, 1.0]), tf.constant([1.0, 1.0]))


def pixel_maps(matrix, offset, stored, size):
    """Where the pixels of the result lie in the stored crop, from `crop_transform`.

    Args:
        matrix, offset: the map in normalised coordinates.
        stored: (height, width) of the stored crop.
        size: (height, width) of the result.

    Returns:
        Two [B, 3]: x and y of the source pixel as (of column, of row, constant) of the target's.
    """
    height, width = size
    maps = []
    for axis, side in ((0, stored[1]), (1, stored[0])):
        of_column = side * matrix[:, axis, 0] / width
        of_row = side * matrix[:, axis, 1] / height
        # Pixel i covers [i, i + 1): its centre is half a pixel further.
        corner = matrix[:, axis, 0] * (0.5 / width - 0.5) + matrix[:, axis, 1] * (0.5 / height - 0.5)
        maps.append(tf.stack([of_column, of_row, side * (corner + offset[:, axis] + 0.5) - 0.5], -1))
    return maps


def sample(images, x, y, size):
    """Bilinear samples of images; black beyond them.

    Args:
        images: [B, h, w, 3] uint8.
        x, y: [B, 3] from `pixel_maps`.
        size: (height, width) of the result.

    Returns:
        [B, *size, 3] float32 of 0..255.
    """
    rows, columns = tf.meshgrid(*(tf.range(side, dtype=tf.float32) for side in size), indexing="ij")
    x, y = (c[:, 0, None, None] * columns + c[:, 1, None, None] * rows + c[:, 2, None, None] for c in (x, y))
    return _gather(tf.cast(images, tf.float32), x, y)


def _gather(images, x, y):
    _, height, width, _ = images.shape
    left, top = tf.floor(x), tf.floor(y)
    flat = tf.reshape(images, [-1, height * width, 3])
    total = 0.0
    for dy in (0.0, 1.0):
        for dx in (0.0, 1.0):
            column, row = left + dx, top + dy
            weight = (1.0 - tf.abs(x - column)) * (1.0 - tf.abs(y - row))
            inside = tf.logical_and(
                tf.abs(column - (width - 1) / 2) < width / 2, tf.abs(row - (height - 1) / 2) < height / 2
            )
            weight = tf.where(inside, weight, 0.0)
            place = tf.clip_by_value(row, 0.0, height - 1.0) * width + tf.clip_by_value(column, 0.0, width - 1.0)
            shape = tf.shape(place)
            pixels = tf.gather(flat, tf.cast(tf.reshape(place, [shape[0], -1]), tf.int32), batch_dims=1)
            total += tf.reshape(pixels, [shape[0], shape[1], shape[2], 3]) * weight[..., None]
    return total


def degrees(value):
    return value * math.pi / 180.0
