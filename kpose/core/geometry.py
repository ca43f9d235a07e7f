"""Boxes, regions, crop pixels and normalised coordinates, with exact inverses.

Four frames, each x right and y down:

    original    pixels of the image as stored; pixel i covers [i, i + 1)
    region      a rectangle of the original image, xywh in its pixels: the person's box times a padding, or the
                rectangle of one shape for all round that. It may reach beyond the image
    crop        pixels of the picture that shows exactly the region, stretched to [height, width]
    normalised  origin at the region's centre; the region spans [-0.5, 0.5] in x and in y

The functions use arithmetic only, so NumPy arrays, TensorFlow tensors and Keras tensors all pass.
"""

from kpose.core.errors import InputError


def pad_box(box, padding):
    """The region `padding` times as wide and as high as a box, round the same centre.

    Args:
        box: [..., 4] xywh in original pixels (a tensor: [N, 4]).
        padding: the factor; 1 gives the box itself.

    Returns:
        [..., 4] xywh.
    """
    # The region is linear in the box: one matrix, which NumPy and TensorFlow multiply alike.
    shift = (1.0 - padding) / 2.0
    return box @ [
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, 0.0, 0.0],
        [shift, 0.0, padding, 0.0],
        [0.0, shift, 0.0, padding],
    ]


def with_aspect(box, aspect):
    """The smallest rectangle of a shape that holds a box, round the same centre.

    Args:
        box: [..., 4] xywh in original pixels (a tensor: [N, 4]).
        aspect: the rectangle's width over its height.

    Returns:
        [..., 4] xywh.
    """
    # By matrices, as in `pad_box`. `more` is what w lacks to a h and h to w / a, or nothing: (d + |d|) / 2.
    nothing = [0.0] * 4
    difference = box @ [nothing, nothing, [0.0, 0.0, -0.5, 0.5 / aspect], [0.0, 0.0, 0.5 * aspect, -0.5]]
    more = difference + abs(difference)
    return box + more @ [nothing, nothing, [-0.5, 0.0, 1.0, 0.0], [0.0, -0.5, 0.0, 1.0]]


def check_aspect(aspect, size):
    """Raises `InputError` unless pictures of `size` (height, width) show rectangles of `aspect` without stretching."""
    if aspect and not (0.1 <= aspect <= 10 and abs(size[1] / size[0] / aspect - 1) <= 0.02):
        raise InputError(
            f"aspect {aspect:g}, but {size[0]} x {size[1]} (height x width) pixels: give sizes of that shape, between "
            "0.1 and 10, or 0 for boxes that are stretched to any size"
        )


def region_of(box, padding, aspect=0.0):
    """What the network sees of a box: [..., 4] xywh -> the same.

    Args:
        box: [..., 4] xywh in original pixels (a tensor: [N, 4]).
        padding: the factor of enlargement.
        aspect: width over height of the rectangle round the box that is enlarged, so that nobody is stretched; 0: the
            box itself.
    """
    return pad_box(with_aspect(box, aspect) if aspect else box, padding)


def normalise(points, region):
    """Original pixels -> normalised.

    Args:
        points: [..., K, 2] xy in original pixels.
        region: [..., 4] xywh in original pixels.

    Returns:
        [..., K, 2]; -0.5 is the region's left or upper edge, 0.5 its right or lower one.
    """
    return (points - region[..., None, :2]) / region[..., None, 2:] - 0.5


def denormalise(points, region):
    """Normalised -> original pixels: the inverse of `normalise`, same shapes."""
    return (points + 0.5) * region[..., None, 2:] + region[..., None, :2]


def to_crop(points, size):
    """Normalised [..., 2] -> crop pixels, `size` being (height, width) of the crop."""
    return (points + 0.5) * [float(size[1]), float(size[0])]


def from_crop(points, size):
    """Crop pixels -> normalised: the inverse of `to_crop`."""
    return points / [float(size[1]), float(size[0])] - 0.5


def change_padding(points, old, new):
    """Normalised by a box padded by `old` -> normalised by the same box padded by `new`."""
    return points * (old / new)
