"""Checks and decoding of a client's request inside the exported graph: image bytes, pixels, boxes.

The texts of the errors are part of the exported model.
"""

import tensorflow as tf

from kpose.core.limits import EMPTY, FARTHEST, MAX_BOXES, NOT_FINITE, TOO_FAR, WORK, WORK_PER_BYTE
from kpose.export import image_work

# Pixels of one image. A request holds at most DECODED_AT_ONCE images, of 150 MB each. A progressive
# JPEG needs up to 300 MB more for its coefficients while it is decoded, and cropping (224 rows) up
# to 54 MB. So a request takes at most 2 GB, and 0.8 GB without progressive JPEGs.
MAX_PIXELS = 50_000_000
# Pixels of the longer side of an image. A crop is resampled through an intermediate image of the
# crop's height and the image's width, in float32.
MAX_SIDE = 20_000
# The end marker of a file must be within its last TAIL bytes: some cameras append other data.
TAIL = 65536
END_OF_JPEG, END_OF_PNG = b"\xff\xd9", b"IEND"
# Bytes of a PNG up to the end of its width and height.
PNG_HEADER = 24
# The scans of a JPEG are counted exactly if they could be more than this share of what is served.
FEW = 16
# Side of the largest blocks of a JPEG, in pixels.
BLOCK = 16.0

_JPEG = {"channels": 3, "try_recover_truncated": True, "dct_method": "INTEGER_ACCURATE"}


def part_of(image, region, size):
    """The part of a decoded image that the crop of a region needs.

    Args:
        image: [H, W, 3] uint8.
        region, size: as for `decode_part`.

    Returns:
        part: [h, w, 3] uint8.
        corner: [2] float32, x and y of the part's upper left corner in the image.
    """
    first, length = _window(tf.shape(image)[:2], region, size)
    part = tf.slice(image, tf.pad(first, [[0, 1]]), tf.concat([length, [3]], 0))
    return tf.ensure_shape(part, [None, None, 3]), tf.cast(tf.reverse(first, [0]), tf.float32)


def _window(sides, region, size):
    """The first row and column that a crop needs, and their numbers: [2] int32 each.

    Args:
        sides: [2] int32, height and width of the image.
        region, size: as for `decode_part`.
    """
    most = tf.cast(sides, tf.float32)
    start, length = tf.reverse(region[:2], [0]), tf.reverse(region[2:], [0])
    # When the image shrinks, the kernel extends half a crop pixel beyond the region. Blocks of
    # chroma are 16 pixels wide.
    margin = BLOCK + tf.math.ceil(length / tf.cast(size, tf.float32))
    first = tf.clip_by_value(tf.floor(start - margin), 0.0, most - 1)
    last = tf.clip_by_value(tf.math.ceil(start + length + margin), first + 1, most)
    return tf.cast(first, tf.int32), tf.cast(last - first, tf.int32)


def check_work(image_bytes):
    """Checks the headers of encoded images, and the work that all of them announce.

    Args:
        image_bytes: [N] JPEG or PNG files.

    Returns:
        Operations that fail at the first invalid item, and name its number.
    """
    sizes = tf.strings.length(image_bytes)
    most = WORK + WORK_PER_BYTE * tf.reduce_sum(tf.cast(sizes, tf.int64))
    is_jpeg, is_png = _is_jpeg(image_bytes), tf.strings.substr(image_bytes, 0, 8) == b"\x89PNG\r\n\x1a\n"
    known = [_check_each(sizes > 0, "is empty"), _check_each(is_jpeg | is_png, "is neither JPEG nor PNG")]
    with tf.control_dependencies(known):
        known = [_check_each(_has_end(image_bytes, is_jpeg), "is cut short")]
    with tf.control_dependencies(known):
        image_bytes = tf.identity(image_bytes)
    known = [_check_each(is_jpeg | _starts_as_png(image_bytes), "has a damaged header")]
    with tf.control_dependencies(known):
        image_bytes = tf.identity(image_bytes)
    sides = tf.map_fn(
        lambda item: tf.cond(item[1], lambda: _jpeg_sides(item[0]), lambda: item[2]),
        (image_bytes, is_jpeg, _png_sides(image_bytes)),
        fn_output_signature=tf.TensorSpec([2], tf.int64),
        parallel_iterations=1,
    )
    pixels, longest = tf.reduce_prod(sides, 1), tf.reduce_max(sides, 1)
    enough = most // tf.maximum(pixels, 1) // FEW
    scans = image_work.scans_of_jpegs(tf.where(is_jpeg, image_bytes, b""), enough)
    fits = [
        _check_each(pixels > 0, "has no pixels"),
        _check_each(pixels <= MAX_PIXELS, "has more pixels than are served:", pixels),
        _check_each(longest <= MAX_SIDE, "has a side longer than is served:", longest),
    ]
    with tf.control_dependencies(fits):
        # Once more than the scans, because the pixels are cropped.
        work = pixels * (tf.where(is_jpeg, scans, 1) + 1)
    return [_check_sum(work, most, "image_bytes", "announces more pixels (times scans) than are served for its bytes")]


def _check_each(good, reason, values=None):
    """Returns an operation that fails at the first False of good [N] bool.

    Args:
        good: whether each file is valid.
        reason: text of the error.
        values: [N] int64; the error contains that of the invalid file. None: nothing.
    """
    place = _first_bad(good)
    # One more, because there is no place without an invalid file.
    shown = [] if values is None else [tf.concat([values, [0]], 0)[place]]
    return tf.debugging.Assert(tf.reduce_all(good), ["image_bytes item", place, reason, *shown], summarize=3)


def check_areas(boxes, image, size):
    """Returns operations that fail if boxes [N, 4] cover one image [H, W, 3] too often.

    Args:
        boxes: [N, 4] float32 xywh: the regions that are cropped.
        image: [H, W, 3] uint8.
        size: bytes of the request's image, int64.
    """
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    x, y, w, h = tf.unstack(boxes, axis=-1)
    inner_w = tf.minimum(x + w, width) - tf.maximum(x, 0.0)
    inner_h = tf.minimum(y + h, height) - tf.maximum(y, 0.0)
    areas = tf.cast(tf.maximum(inner_w, 0.0) * tf.maximum(inner_h, 0.0), tf.int64)
    most = WORK + WORK_PER_BYTE * size
    return [_check_sum(areas, most, "boxes", "and those before it cover more pixels than are served for one image")]


def _check_sum(work, most, what, reason):
    """Returns an operation that fails at the first item with which a sum exceeds `most`."""
    total = tf.cumsum(work)
    good = total <= most
    return tf.debugging.Assert(tf.reduce_all(good), [f"{what} item", _first_bad(good), reason, most])


def decode(image_bytes):
    """Returns an encoded image as [H, W, 3] uint8.

    Args:
        image_bytes: a JPEG or PNG file that `check_work` accepts.
    """
    image = tf.cond(
        _is_jpeg(image_bytes),
        lambda: tf.io.decode_jpeg(image_bytes, **_JPEG),
        lambda: _decode_png(image_bytes),
    )
    return tf.ensure_shape(image, [None, None, 3])


def decode_part(image_bytes, region, size):
    """Decodes the part of an encoded image that the crop of a region needs.

    A JPEG is decoded only in this part, a PNG completely.

    Args:
        image_bytes: a JPEG or PNG file that `check_work` accepts.
        region: [4] float32 xywh in pixels of the image; it may extend beyond the image.
        size: (height, width) of the crop in pixels.

    Returns:
        part: [h, w, 3] uint8.
        corner: [2] float32, x and y of the part's upper left corner in the image.
        sides: [2] int32, height and width of the image.
    """

    def of_jpeg():
        sides = tf.io.extract_jpeg_shape(image_bytes)[:2]
        first, length = _window(sides, region, size)
        part = tf.image.decode_and_crop_jpeg(image_bytes, tf.concat([first, length], 0), **_JPEG)
        return part, tf.cast(tf.reverse(first, [0]), tf.float32), sides

    def of_png():
        image = _decode_png(image_bytes)
        return image, tf.zeros([2]), tf.shape(image)[:2]

    part, corner, sides = tf.cond(_is_jpeg(image_bytes), of_jpeg, of_png)
    return tf.ensure_shape(part, [None, None, 3]), tf.ensure_shape(corner, [2]), tf.ensure_shape(sides, [2])


def _is_jpeg(image_bytes):
    """Returns whether files begin as JPEGs, bool of the shape of the files."""
    return tf.strings.substr(image_bytes, 0, 3) == b"\xff\xd8\xff"


def _decode_png(image_bytes):
    return tf.io.decode_png(image_work.without_other_chunks(image_bytes), channels=3)


def _has_end(image_bytes, is_jpeg):
    """Returns [N] bool: whether files [N] contain the end marker of their format near their end.

    Args:
        image_bytes: [N] JPEG or PNG files.
        is_jpeg: [N] bool.
    """
    sizes = tf.strings.length(image_bytes)

    def end(length):
        return tf.strings.substr(image_bytes, tf.maximum(sizes - length, 0), tf.fill(tf.shape(sizes), length))

    # A PNG ends with the name of its last chunk and a checksum of 4 bytes.
    at_end = tf.where(is_jpeg, end(2) == END_OF_JPEG, tf.strings.substr(end(8), 0, 4) == END_OF_PNG)

    # Some programs append bytes after it.
    def near_end(item):
        tail = tf.io.decode_raw(item[0], tf.uint8)
        return tf.cond(item[1], lambda: _holds(tail, END_OF_JPEG), lambda: _holds(tail, END_OF_PNG))

    return tf.cond(
        tf.reduce_all(at_end),
        lambda: at_end,
        lambda: tf.map_fn(near_end, (end(TAIL), is_jpeg), fn_output_signature=tf.bool, parallel_iterations=1),
    )


def _holds(data, pattern):
    """Returns whether data [n] uint8 contains a sequence of bytes."""
    data = tf.concat([data, tf.zeros([len(pattern)], tf.uint8)], 0)
    places = tf.shape(data)[0] - len(pattern) + 1
    return tf.reduce_any(tf.reduce_all(tf.stack([data[i : places + i] == b for i, b in enumerate(pattern)]), 0))


def _jpeg_sides(image_bytes):
    """Returns [2] int64: height and width in a JPEG's header."""
    return tf.cast(tf.io.extract_jpeg_shape(image_bytes)[:2], tf.int64)


def _png_header(image_bytes, start, length):
    """Returns bytes [N] of the headers of PNGs.

    Length and type of the first chunk start at byte 8, width and height at byte 16.
    """
    # Padded, because a damaged file may be shorter.
    header = tf.strings.join([tf.strings.substr(image_bytes, 0, PNG_HEADER), tf.constant(b"\0" * PNG_HEADER)])
    return tf.strings.substr(header, start, length)


def _starts_as_png(image_bytes):
    """Returns [N] bool: whether the first chunk of a PNG is its header."""
    return _png_header(image_bytes, 8, 8) == b"\0\0\0\x0dIHDR"


def _png_sides(image_bytes):
    """Returns [N, 2] int64: height and width in the headers of PNGs."""
    values = tf.cast(tf.io.decode_raw(_png_header(image_bytes, 16, 8), tf.uint8), tf.int64)
    # The product of two sides of 2**32 would overflow.
    sides = tf.reduce_sum(tf.reshape(values, [-1, 2, 4]) * [2**24, 2**16, 2**8, 1], -1)
    return tf.minimum(tf.reverse(sides, [1]), 2**31)


def inside(sides, boxes):
    """Returns [N] bool: whether boxes [N, 4] overlap an image of sides [2] (height, width)."""
    height, width = tf.unstack(tf.cast(sides, tf.float32))
    x, y, w, h = tf.unstack(boxes, axis=-1)
    return (x < width) & (y < height) & (x + w > 0) & (y + h > 0)


def check_pixels(image):
    """Returns operations that fail if an image [H, W, 3] is empty or too large."""
    sides = tf.shape(image)
    return [
        tf.debugging.Assert(tf.size(image) > 0, ["image has no pixels:", sides]),
        tf.debugging.Assert(tf.reduce_max(sides) <= MAX_SIDE, ["image has a side longer than is served:", sides]),
    ]


def same_number(image_bytes, boxes):
    """Returns an operation that fails unless there are as many boxes [N, 4] as images [N]."""
    return tf.debugging.Assert(
        tf.equal(tf.shape(image_bytes)[0], tf.shape(boxes)[0]),
        ["image_bytes and boxes differ in number:", tf.shape(image_bytes)[0], tf.shape(boxes)[0]],
    )


def check_finite(values, what, reason):
    """Returns an operation that fails at the first item of values [N, ...] with a NaN or an infinity.

    Args:
        values: float32.
        what, reason: the error is "WHAT item I REASON".
    """
    values = tf.math.is_finite(values)
    good = tf.reduce_all(values, tf.range(1, tf.rank(values)))
    return tf.debugging.Assert(tf.reduce_all(good), [f"{what} item", _first_bad(good), reason])


def _first_bad(good):
    """Returns the number of the first False of good [N] bool."""
    # One more entry, because argmin of no items would fail.
    return tf.argmin(tf.concat([tf.cast(good, tf.int32), [0]], 0))


def check_boxes(boxes):
    """Returns operations that fail at the first invalid box of [N, 4], and name its number."""
    finite = tf.reduce_all(tf.math.is_finite(boxes), -1)
    near = tf.reduce_all(tf.abs(boxes) <= FARTHEST, -1)
    full = tf.reduce_all(boxes[:, 2:] > 0, -1)
    few = tf.debugging.Assert(
        tf.shape(boxes)[0] <= MAX_BOXES, ["more boxes than are served:", tf.shape(boxes)[0], "of at most", MAX_BOXES]
    )
    checks = (
        (finite, NOT_FINITE),
        (near | ~finite, TOO_FAR),
        (full | ~finite, EMPTY),
    )

    return [few] + [
        tf.debugging.Assert(tf.reduce_all(good), ["boxes item", _first_bad(good), f"{what} (x, y, width, height)"])
        for good, what in checks
    ]
