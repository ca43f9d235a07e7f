"""Conversions between boxes, regions, crop pixels and normalised coordinates.

Coordinate frames, all with x to the right and y down:

    original    pixels of the stored image; pixel i covers [i, i + 1)
    crop        pixels of an image that shows the region, stretched to [height, width]
    normalised  origin at the region's centre; the region spans [-0.5, 0.5] in x and in y

COCO's files give a joint as the index of its pixel: whole numbers from 0 to width - 1. Its place in
the original frame is the middle of that pixel, half a pixel further (`from_indices`). Boxes are in
the original frame in COCO's files too.

A region is a rectangle xywh in original pixels: the person's box, or the smallest rectangle of a
fixed aspect around it, enlarged by the padding. It may exceed the image.

The functions use only arithmetic, so they accept NumPy arrays, TensorFlow and Keras tensors.
"""

from kpose.core.errors import InputError

# From the index of a pixel to its middle.
HALF_PIXEL = 0.5
# In place of `config.data.aspect`: that of the records.
OF_RECORDS = -1.0
# What labels of a training can be: points in the original frame, or pixel indices.
CONTINUOUS, INDICES = "continuous", "indices"


def from_indices(points):
    """Points in original pixels from pixel indices, of any shape."""
    return points + HALF_PIXEL


def to_indices(points):
    """Pixel indices, as COCO's files have them, of points in original pixels, of any shape."""
    return points - HALF_PIXEL


def pad_box(box, padding):
    """The box enlarged by a factor about its centre.

    Args:
        box: [..., 4] xywh in original pixels (a tensor: [N, 4]).
        padding: the factor; 1 gives the box itself.

    Returns:
        [..., 4] xywh.
    """
    # The region is linear in the box, so one matrix serves NumPy and TensorFlow.
    shift = (1.0 - padding) / 2.0
    return box @ [
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, 0.0, 0.0],
        [shift, 0.0, padding, 0.0],
        [0.0, shift, 0.0, padding],
    ]


def with_aspect(box, aspect):
    """The smallest rectangle of a given aspect that contains a box and has the same centre.

    Args:
        box: [..., 4] xywh in original pixels (a tensor: [N, 4]).
        aspect: width / height of the rectangle.

    Returns:
        [..., 4] xywh.
    """
    # By matrices, as in `pad_box`. `growth` is max(0, d) = (d + |d|) / 2, where d is aspect * h - w
    # for the width and w / aspect - h for the height.
    zeros = [0.0] * 4
    half = box @ [zeros, zeros, [0.0, 0.0, -0.5, 0.5 / aspect], [0.0, 0.0, 0.5 * aspect, -0.5]]
    growth = half + abs(half)
    return box + growth @ [zeros, zeros, [-0.5, 0.0, 1.0, 0.0], [0.0, -0.5, 0.0, 1.0]]


def check_aspect(aspect, size):
    """Raises `InputError` unless images of a size show rectangles of an aspect without stretching.

    Args:
        aspect: width / height of the rectangles; 0: stretching is intended.
        size: (height, width) of the images in pixels.
    """
    if aspect and not (0.1 <= aspect <= 10 and abs(size[1] / size[0] / aspect - 1) <= 0.02):
        raise InputError(
            f"aspect is {aspect:g}, but the size is {size[0]} x {size[1]} pixels (height x width): give a size "
            "whose width / height is the aspect, between 0.1 and 10, or the aspect 0 to stretch the boxes"
        )


def region_of(box, padding, aspect=0.0):
    """The region of the network's input for a box.

    Args:
        box: [..., 4] xywh in original pixels (a tensor: [N, 4]).
        padding: the factor of enlargement.
        aspect: width / height of the rectangle around the box that is enlarged, so that the crop is
            not stretched; 0: enlarge the box itself.

    Returns:
        [..., 4] xywh in original pixels.
    """
    return pad_box(with_aspect(box, aspect) if aspect else box, padding)


def normalise(points, region):
    """Normalised coordinates of points in original pixels.

    Args:
        points: [..., K, 2] xy in original pixels.
        region: [..., 4] xywh in original pixels.

    Returns:
        [..., K, 2]; -0.5 is the left or upper edge of the region, 0.5 the right or lower edge.
    """
    return (points - region[..., None, :2]) / region[..., None, 2:] - 0.5


def denormalise(points, region):
    """Original pixels of normalised points: the inverse of `normalise`, with the same shapes."""
    return (points + 0.5) * region[..., None, 2:] + region[..., None, :2]


def to_crop(points, size):
    """Crop pixels of normalised points.

    Args:
        points: [..., 2] normalised xy.
        size: (height, width) of the crop in pixels.

    Returns:
        [..., 2] xy.
    """
    return (points + 0.5) * [float(size[1]), float(size[0])]
