"""Geometric augmentation: one affine map for each image.

It maps the network's input to the stored crop. Crops are stretched, so angles are correct only in
original pixels. The window of a sample is therefore a rectangle in the original image, which can be
rotated and mirrored. Coordinates in the window differ from original coordinates by a rigid motion
and a reflection only, so lengths, and with them PCP, do not change.
"""

import math

import tensorflow as tf

# Half-body windows (Wang et al., "Deep High-Resolution Representation Learning for Visual
# Recognition", 2019, and others): smallest number of labelled joints of the person, smallest number
# of them in the half, and factor of the box around the joints of the half.
HALF_BODY_LABELLED = 8
HALF_BODY_JOINTS = 3
HALF_BODY_PADDING = 1.5


def windows(region, angle, scale, shift):
    """The window of each sample, in original pixels.

    For a region of w x h rotated by `angle`, the window is the bounding box of the rotated ellipse
    in the region: w' = sqrt((w cos)^2 + (h sin)^2), and h' = sqrt((w sin)^2 + (h cos)^2).

    Args:
        region: [B, 4] xywh in original pixels: the part of the image to show.
        angle: [B] in radians, clockwise in the image.
        scale: [B] factor of the size of the window.
        shift: [B, 2] shift of the centre, as a fraction of the sides of the region.

    Returns:
        (centre [B, 2], size [B, 2]) in original pixels.
    """
    side = region[:, 2:]
    cos, sin = tf.cos(angle), tf.sin(angle)
    turned = tf.stack([side[:, 0] * cos, side[:, 1] * sin], -1), tf.stack([side[:, 0] * sin, side[:, 1] * cos], -1)
    size = tf.stack([tf.norm(part, axis=-1) for part in turned], -1) * scale[:, None]
    return region[:, :2] + (0.5 + shift) * side, size


def shown(keypoints, stored_share):
    """[B, K] bool: whether a joint is labelled and in the stored crop.

    Args:
        keypoints: [B, K, 3] normalised in the region of the network's input, with visibility flags.
        stored_share: side of the region as a fraction of the side of the stored crop.
    """
    inside = tf.reduce_all(tf.abs(keypoints[..., :2]) * stored_share <= 0.5, axis=-1)
    return tf.logical_and(keypoints[..., 2] > 0, inside)


def half_bodies(keypoints, region, stored_share, upper, chosen, want_upper):
    """Regions around the upper or the lower body for samples that are `chosen`, otherwise `region`.

    Only joints that the stored crop shows count, because the window cannot show others. Samples
    with too few of them also keep `region`.

    Args:
        keypoints: [B, K, 3] normalised in `region`, with visibility flags.
        region: [B, 4] xywh in original pixels, in the middle of the stored crop.
        stored_share: as for `shown`.
        upper: [K] bool: whether a joint belongs to the upper body.
        chosen: [B] bool: whether to use a half-body region.
        want_upper: [B] bool: the upper body; otherwise the lower body.

    Returns:
        [B, 4] xywh in original pixels.
    """
    labelled = shown(keypoints, stored_share)
    part = tf.logical_and(labelled, tf.equal(upper[None], want_upper[:, None]))
    enough = tf.reduce_sum(tf.cast(labelled, tf.int32), -1) >= HALF_BODY_LABELLED
    enough = tf.logical_and(enough, tf.reduce_sum(tf.cast(part, tf.int32), -1) >= HALF_BODY_JOINTS)
    points = keypoints[..., :2]
    lowest = tf.reduce_min(tf.where(part[..., None], points, 9.0), axis=1)
    highest = tf.reduce_max(tf.where(part[..., None], points, -9.0), axis=1)
    # A lower limit: the box around a straight arm can be very thin.
    side = tf.maximum((highest - lowest) * HALF_BODY_PADDING, 0.2)
    corner = (lowest + highest - side) / 2
    half = tf.concat([region[:, :2] + (corner + 0.5) * region[:, 2:], side * region[:, 2:]], -1)
    return tf.where(tf.logical_and(chosen, enough)[:, None], half, region)


def move_keypoints(keypoints, region, stored_share, centre, size, angle, mirrored):
    """Labels normalised in `region` -> labels normalised in the windows.

    This is the only place where a warp removes labels. A joint keeps its label if both are true:

    - The stored crop shows it. Pixels outside the stored crop are black.
    - It is in the window enlarged by 1 / `stored_share`: the window's share of context, as the
      stored crop is the region's. A joint in the context has coordinates beyond 0.5, as without a
      warp. So a window equal to the region keeps every joint that the stored crop shows.

    Args:
        keypoints: [B, K, 3].
        region: [B, 4] xywh in original pixels, in the middle of the stored crop.
        stored_share: as for `shown`.
        centre, size, angle: of the windows.
        mirrored: [B] bool; left and right joints are not swapped here.

    Returns:
        [B, K, 3]; a joint without a label is (0, 0, 0), or (0, 0, -1) if its flag was -1.
    """
    points = region[:, None, :2] + (keypoints[..., :2] + 0.5) * region[:, None, 2:]
    turned = tf.einsum("bij,bkj->bki", _rotation(-angle), points - centre[:, None])
    points = turned * _sign(mirrored)[:, None] / size[:, None]
    flags = keypoints[..., 2:]
    near = tf.reduce_all(tf.abs(points) * stored_share <= 0.5, axis=-1)
    kept = tf.logical_and(shown(keypoints, stored_share), near)[..., None]
    return tf.concat([tf.where(kept, points, 0.0), tf.where(kept, flags, tf.minimum(flags, 0.0))], -1)


def crop_transform(region, stored_share, centre, size, angle, mirrored):
    """The affine map from window coordinates to coordinates of the stored crop, both normalised.

    Args:
        region: [B, 4] xywh in original pixels, in the middle of the stored crop.
        stored_share: side of the region as a fraction of the side of the stored crop.
        centre, size, angle, mirrored: of the windows.

    Returns:
        (matrix [B, 2, 2], offset [B, 2]): a point u of the window is at matrix u + offset in the
        crop.
    """
    middle = region[:, :2] + region[:, 2:] / 2
    stored = region[:, 2:] / stored_share
    matrix = _rotation(angle) * (_sign(mirrored) * size)[:, None, :] / stored[:, :, None]
    return matrix, (centre - middle) / stored


def pixel_maps(matrix, offset, stored, size):
    """The map of `crop_transform` in pixels, from the result to the stored crop.

    Args:
        matrix, offset: the map in normalised coordinates.
        stored: (height, width) of the stored crop in pixels.
        size: (height, width) of the result in pixels.

    Returns:
        Two tensors [B, 3], for x and for y of the source pixel: factor of the target's column,
        factor of its row, constant.
    """
    height, width = size
    maps = []
    for axis, side in ((0, stored[1]), (1, stored[0])):
        of_column = side * matrix[:, axis, 0] / width
        of_row = side * matrix[:, axis, 1] / height
        # Pixel i covers [i, i + 1), so its centre is at i + 0.5.
        corner = matrix[:, axis, 0] * (0.5 / width - 0.5) + matrix[:, axis, 1] * (0.5 / height - 0.5)
        maps.append(tf.stack([of_column, of_row, side * (corner + offset[:, axis] + 0.5) - 0.5], -1))
    return maps


def sample(images, x, y, size):
    """Bilinear samples of images; pixels outside an image are black.

    Args:
        images: [B, h, w, 3] uint8.
        x, y: [B, 3] from `pixel_maps`.
        size: (height, width) of the result in pixels.

    Returns:
        [B, *size, 3] float32 of 0..255.
    """
    rows, columns = tf.meshgrid(*(tf.range(side, dtype=tf.float32) for side in size), indexing="ij")
    x, y = (c[:, 0, None, None] * columns + c[:, 1, None, None] * rows + c[:, 2, None, None] for c in (x, y))
    return _gather(tf.cast(images, tf.float32), x, y)


def radians(degrees):
    """An angle in radians."""
    return degrees * math.pi / 180.0


def _rotation(angle):
    cos, sin = tf.cos(angle), tf.sin(angle)
    return tf.stack([tf.stack([cos, -sin], -1), tf.stack([sin, cos], -1)], -2)


def _sign(mirrored):
    """[B, 2]: (-1, 1) if mirrored, otherwise (1, 1)."""
    return tf.where(mirrored[:, None], tf.constant([-1.0, 1.0]), tf.constant([1.0, 1.0]))


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
