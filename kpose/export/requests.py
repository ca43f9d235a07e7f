"""Checks and decoding of what a client of the exported graph sends: image bytes, pixels and boxes."""

import tensorflow as tf

# Of one photograph. A request holds at most DECODED_AT_ONCE of them, of 150 MB each; a progressive JPEG needs up to 300
# MB more for its coefficients while it is decoded, and cropping up to 54 MB (of 224 rows). So a request takes at most 2
# GB, and 0.8 GB without progressive ones.
MAX_PIXELS = 50_000_000


# Of its longer side: a crop is cut by way of a picture of the crop's height and the photograph's width, in float32.
MAX_SIDE = 20_000


# Pixels from the image's corner. Beyond it float32 has no room for fractions of a pixel.
FARTHEST = 1e6


# Within so many bytes of its end a file must say that it ends: some cameras append data of their own.
TAIL = 65536


# Bytes of a PNG to the end of its width and height.
PNG_HEADER = 24


# Pixels of a JPEG's largest blocks.
BLOCK = 16.0


_JPEG = {"channels": 3, "try_recover_truncated": True, "dct_method": "INTEGER_ACCURATE"}


def decode(index, image_bytes):
    """An encoded photograph as [H, W, 3] uint8; errors name the item `index`."""
    image_bytes, is_jpeg = _checked(index, image_bytes)
    image = tf.cond(
        is_jpeg,
        lambda: tf.io.decode_jpeg(image_bytes, **_JPEG),
        lambda: tf.io.decode_png(image_bytes, channels=3),
    )
    return tf.ensure_shape(image, [None, None, 3])


def decode_part(index, image_bytes, region, size):
    """What the crop of a region needs of an encoded photograph: the rest of a JPEG is not decoded to pixels.

    Args:
        index: what errors call the item.
        image_bytes: a JPEG or PNG file.
        region: [4] xywh in the photograph's pixels, anywhere.
        size: (height, width) of the crop.

    Returns:
        ([h, w, 3] uint8, its corner's place [2] (x, y) float32 in the photograph, the photograph's sides [2] (H, W)).
    """
    image_bytes, is_jpeg = _checked(index, image_bytes)

    def of_jpeg():
        sides = tf.io.extract_jpeg_shape(image_bytes)[:2]
        most = tf.cast(sides, tf.float32)
        start, length = tf.reverse(region[:2], [0]), tf.reverse(region[2:], [0])
        # Shrinking, the crop's pixels reach half a pixel of theirs beyond the region; chroma has blocks of 16.
        margin = BLOCK + tf.math.ceil(length / tf.cast(size, tf.float32))
        first = tf.clip_by_value(tf.floor(start - margin), 0.0, most - 1)
        last = tf.clip_by_value(tf.math.ceil(start + length + margin), first + 1, most)
        window = tf.cast(tf.concat([first, last - first], 0), tf.int32)
        return tf.image.decode_and_crop_jpeg(image_bytes, window, **_JPEG), tf.reverse(first, [0]), sides

    def of_png():
        image = tf.io.decode_png(image_bytes, channels=3)
        return image, tf.zeros([2]), tf.shape(image)[:2]

    part, corner, sides = tf.cond(is_jpeg, of_jpeg, of_png)
    return tf.ensure_shape(part, [None, None, 3]), tf.ensure_shape(corner, [2]), tf.ensure_shape(sides, [2])


def _checked(index, image_bytes):
    """(the bytes of a photograph, if its header and its end are in order; whether it is a JPEG).

    JPEG and PNG alone, known by their first bytes: TensorFlow's own guess would also take GIF and BMP, whose headers
    do not bound what they decode to.
    """
    is_jpeg = tf.strings.substr(image_bytes, 0, 3) == b"\xff\xd8\xff"
    is_png = tf.strings.substr(image_bytes, 0, 8) == b"\x89PNG\r\n\x1a\n"
    size = tf.strings.length(image_bytes)
    # Both formats say where they end; some writers add bytes behind that.
    tail = tf.io.decode_raw(tf.strings.substr(image_bytes, tf.maximum(size - TAIL, 0), TAIL), tf.uint8)
    ends_jpeg, ends_png = _holds(tail, b"\xff\xd9"), _holds(tail, b"IEND")

    def check(condition, *what):
        return tf.debugging.Assert(condition, ["image_bytes item", index, *what], summarize=3)

    known = [
        check(size > 0, "is empty"),
        check(tf.logical_or(is_jpeg, is_png), "is neither JPEG nor PNG"),
        check(tf.logical_or(tf.where(is_jpeg, ends_jpeg, ends_png), size == 0), "is cut short"),
    ]
    with tf.control_dependencies([op for op in known if op is not None]):
        image_bytes = tf.identity(image_bytes)
    sides = tf.cond(is_jpeg, lambda: _jpeg_sides(image_bytes), lambda: _png_sides(image_bytes))
    sides = tf.ensure_shape(sides, [2])
    pixels = tf.reduce_prod(sides)
    fits = [
        check(tf.logical_or(is_jpeg, _starts_as_png(image_bytes)), "has a damaged header"),
        check(pixels > 0, "has no pixels"),
        check(pixels <= MAX_PIXELS, "has more pixels than are served:", pixels),
        check(tf.reduce_max(sides) <= MAX_SIDE, "has a side longer than is served:", tf.reduce_max(sides)),
    ]
    with tf.control_dependencies([op for op in fits if op is not None]):
        return tf.identity(image_bytes), is_jpeg


def _holds(data, pattern):
    """Whether bytes [n] hold some bytes next to each other."""
    data = tf.concat([data, tf.zeros([len(pattern)], tf.uint8)], 0)
    places = tf.shape(data)[0] - len(pattern) + 1
    return tf.reduce_any(tf.reduce_all(tf.stack([data[i : places + i] == b for i, b in enumerate(pattern)]), 0))


def _jpeg_sides(image_bytes):
    return tf.cast(tf.io.extract_jpeg_shape(image_bytes)[:2], tf.int64)


def _png_header(image_bytes, start, length):
    """Some of a PNG's first bytes: from 8 on the first chunk's length and kind, then width and height."""
    # There may be fewer than that.
    header = tf.strings.join([tf.strings.substr(image_bytes, 0, PNG_HEADER), tf.constant(b"\0" * PNG_HEADER)])
    return tf.strings.substr(header, start, length)


def _starts_as_png(image_bytes):
    return _png_header(image_bytes, 8, 8) == b"\0\0\0\x0dIHDR"


def _png_sides(image_bytes):
    values = tf.cast(tf.io.decode_raw(_png_header(image_bytes, 16, 8), tf.uint8), tf.int64)
    width, height = (tf.reduce_sum(values[i : i + 4] * [2**24, 2**16, 2**8, 1]) for i in (0, 4))
    # Two sides of 2**32 would overflow their product.
    return tf.minimum(tf.stack([height, width]), 2**31)


def inside(sides, boxes):
    """[N] whether boxes [N, 4] have any pixel of an image of sides [2] (height, width)."""
    height, width = tf.unstack(tf.cast(sides, tf.float32))
    x, y, w, h = tf.unstack(boxes, axis=-1)
    return (x < width) & (y < height) & (x + w > 0) & (y + h > 0)


def check_pixels(image):
    sides = tf.shape(image)
    return [
        tf.debugging.Assert(tf.size(image) > 0, ["image has no pixels:", sides]),
        tf.debugging.Assert(tf.reduce_max(sides) <= MAX_SIDE, ["image has a side longer than is served:", sides]),
    ]


def same_number(image_bytes, boxes):
    return tf.debugging.Assert(
        tf.equal(tf.shape(image_bytes)[0], tf.shape(boxes)[0]),
        ["image_bytes and boxes differ in number:", tf.shape(image_bytes)[0], tf.shape(boxes)[0]],
    )


def check_boxes(boxes):
    """Operations that fail at the first box that is none, with its number."""
    finite = tf.reduce_all(tf.math.is_finite(boxes), -1)
    near = tf.reduce_all(tf.abs(boxes) <= FARTHEST, -1)
    full = tf.reduce_all(boxes[:, 2:] > 0, -1)
    checks = (
        (finite, "holds a NaN or an infinity"),
        (near | ~finite, f"holds a number beyond {FARTHEST:.0f}"),
        (full | ~finite, "has no width or no height"),
    )

    def first_bad(good):
        # One more at the end: of no boxes there is no first.
        return tf.argmin(tf.concat([tf.cast(good, tf.int32), [0]], 0))

    return [
        tf.debugging.Assert(tf.reduce_all(good), ["boxes item", first_bad(good), f"{what} (x, y, width, height)"])
        for good, what in checks
    ]
