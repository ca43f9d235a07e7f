"""The work that an encoded image announces, found in its bytes before it is decoded, in a graph.

A decoder's work depends on what a file claims, not on its size: a progressive JPEG may repeat a
scan, each of which visits all pixels, and a PNG may hold compressed texts. The functions walk the
markers of a JPEG (ITU-T T.81, B.1) and the chunks of a PNG (ISO/IEC 15948, 5.3) as the decoders do.

The length of each marker or chunk gives the place of the next. `_path` follows these places without
a loop over them: a file of n bytes takes time proportional to n log n, in whole-array operations.
"""

import numpy as np
import tensorflow as tf

# Chunks of a PNG that change its pixels. The others are not given to the decoder.
_DECODED_CHUNKS = ("IHDR", "PLTE", "tRNS", "IDAT", "IEND")
# Chunks whose content is compressed: 1 KB becomes up to 1 MB.
_COMPRESSED_CHUNKS = ("zTXt", "iTXt", "iCCP")
_PNG_SIGNATURE = 8
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# The two bytes of the marker of a scan are counted up to this number, which bounds the memory.
MOST_COUNTED = 100
# Second bytes of the markers that begin a segment or end the image. The others are entropy-coded
# data, restart markers or errors.
_IS_MARKER = np.array([code >= 0xC0 and not 0xD0 <= code <= 0xD7 and code != 0xFF for code in range(256)])


def scans_of_jpegs(files, enough):
    """The numbers of scans of JPEGs.

    Args:
        files: [N] strings.
        enough: [N] int64; numbers of scans that need no exact count.

    Returns:
        [N] int64. Up to `enough` (and `MOST_COUNTED`): an upper bound. Else the number of scans that
        the decoder reads: the file's thumbnails, and what follows its end marker, do not count.
    """
    # In entropy-coded data, a byte of 255 is followed by a 0: no scan is missed.
    places, _, _ = tf.raw_ops.StringSplitV2(input=files, sep=bytes([0xFF, _START_OF_SCAN]), maxsplit=MOST_COUNTED)
    parts = tf.math.bincount(tf.cast(places[:, 0], tf.int32), minlength=tf.shape(files)[0], dtype=tf.int64)
    most = parts - 1
    known = most <= tf.minimum(enough, MOST_COUNTED - 1)

    def exact():
        return tf.map_fn(
            lambda item: tf.cond(item[2], lambda: item[1], lambda: _walk_scans(tf.io.decode_raw(item[0], tf.uint8))),
            (files, most, known),
            fn_output_signature=tf.int64,
            parallel_iterations=1,
        )

    return tf.cond(tf.reduce_all(known), lambda: most, exact)


def _walk_scans(data):
    # Behind the start marker. A segment's length is in the two bytes behind its marker.
    padded = tf.concat([data, [0, 0, 0, 0]], 0)
    second = tf.cast(data[1:], tf.int32)
    markers = tf.where((data[:-1] == 0xFF) & tf.gather(tf.constant(_IS_MARKER), second))[:, 0]
    markers = tf.boolean_mask(markers, markers >= 2)
    codes = tf.gather(data, markers + 1)
    lengths = _number(padded, markers + 2, 2)
    ends = markers + 2 + tf.maximum(lengths, 2)
    following = tf.searchsorted(markers, ends, out_type=tf.int32)
    count = tf.shape(markers)[0]
    following = tf.where(codes == _END_OF_IMAGE, count, following)
    path = _path(following, tf.constant(0))
    return tf.shape(tf.where(tf.gather(codes, path) == _START_OF_SCAN), tf.int64)[0]


def without_other_chunks(image_bytes):
    """A PNG without the chunks that the decoder does not need.

    Args:
        image_bytes: the file, a string.

    Returns:
        The file itself if no chunk's content is compressed, except the pixels. Else it without all
        chunks that do not change its pixels.
    """
    # \C is any byte.
    found = tf.strings.regex_full_match(image_bytes, rf"\C*(?:{'|'.join(_COMPRESSED_CHUNKS)})\C*")
    return tf.cond(found, lambda: _keep_decoded_chunks(image_bytes), lambda: tf.identity(image_bytes))


def _keep_decoded_chunks(image_bytes):
    data = tf.io.decode_raw(image_bytes, tf.uint8)
    size = tf.shape(data)[0]
    # A chunk: length of its content (4 bytes), name (4 letters), content, checksum (4 bytes).
    letters = (data | 0x20) - ord("a") < 26
    named = letters[:-3] & letters[1:-2] & letters[2:-1] & letters[3:]
    starts = tf.where(named)[:, 0] - 4
    starts = tf.boolean_mask(starts, starts >= _PNG_SIGNATURE)
    ends = starts + 12 + _number(data, starts, 4)
    count = tf.shape(starts)[0]
    following = tf.searchsorted(starts, ends, out_type=tf.int32)
    # The next chunk begins exactly at the end, or the file is damaged.
    exact = tf.gather(tf.concat([starts, [-1]], 0), following) == ends
    following = tf.where(exact, following, count)
    path = _path(following, tf.searchsorted(starts, tf.constant([_PNG_SIGNATURE], tf.int64), out_type=tf.int32)[0])
    names = _number(data, tf.gather(starts, path) + 4, 4)
    wanted = [int.from_bytes(name.encode(), "big") for name in _DECODED_CHUNKS]
    path = tf.boolean_mask(path, tf.reduce_any(names[:, None] == tf.constant(wanted, tf.int64), 1))
    # +1 where a kept part begins, -1 where it ends. A cut file's last chunk ends behind the file.
    first = tf.concat([[0], tf.cast(tf.gather(starts, path), tf.int32)], 0)
    last = tf.concat(
        [[_PNG_SIGNATURE], tf.cast(tf.minimum(tf.gather(ends, path), tf.cast(size, tf.int64)), tf.int32)], 0
    )
    steps = tf.concat([tf.ones_like(first), -tf.ones_like(last)], 0)
    steps = tf.scatter_nd(tf.concat([first, last], 0)[:, None], steps, (size + 1)[None])
    kept = tf.boolean_mask(data, tf.cumsum(steps)[:-1] > 0)
    # No operation turns numbers into a string of bytes. A serialised tensor ends with its values.
    content = tf.io.serialize_tensor(kept)
    return tf.strings.substr(content, tf.strings.length(content) - tf.shape(kept)[0], tf.shape(kept)[0])


def _number(data, places, count):
    """Big-endian numbers of `count` bytes at places [n] int64 of data uint8, as int64 [n]."""
    digits = [tf.cast(tf.gather(data, places + i), tf.int64) * 256 ** (count - 1 - i) for i in range(count)]
    return tf.add_n(digits)


def _path(following, first):
    """The places from `first` on, in order.

    Each step doubles the known part of the path, by jumps that are twice as long as before.

    Args:
        following: [n] int32, the place that follows each; later ones, or n: none.
        first: int32, in 0..n.

    Returns:
        [m] int32, without n.
    """
    count = tf.shape(following)[0]
    # The end leads to itself.
    jumps = tf.concat([following, count[None]], 0)

    def longer(path, jumps):
        return tf.concat([path, tf.gather(jumps, path)], 0), tf.gather(jumps, jumps)

    path, _ = tf.while_loop(
        lambda path, jumps: path[-1] < count,
        longer,
        (first[None], jumps),
        shape_invariants=(tf.TensorShape([None]), tf.TensorShape([None])),
        parallel_iterations=1,
    )
    return tf.boolean_mask(path, path < count)
