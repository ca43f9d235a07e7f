"""Writes and reads TFRecord files and writes `tf.train.Example` messages, without TensorFlow.

The import of TensorFlow takes seconds and hundreds of megabytes in each process that writes
records. Both formats are small: a record is stored with its length and two checksums, an Example is
a protobuf map of lists.
"""

import functools
import os
import struct

import google_crc32c

from kpose.core import files
from kpose.core.errors import InputError

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")


def frame(record):
    """The bytes of a record in a TFRecord file: length, its checksum, record, its checksum."""
    length = _LENGTH.pack(len(record))
    return b"".join((length, _masked_crc(length), record, _masked_crc(record)))


def _masked_crc(data):
    # TFRecord rotates the checksum and adds a constant, because a checksum of data with checksums
    # would be weak.
    crc = google_crc32c.value(data)
    return _CHECKSUM.pack((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def read(path):
    """Yields the records of a TFRecord file as bytes, and checks their checksums.

    Raises:
        InputError: the file is damaged or cut short.
    """
    for number, record in scan(path):
        if record is None:
            raise _damaged(path, number)
        yield record


def scan(path):
    """Yields (number from 1, bytes) of the records of a TFRecord file; None for a damaged record.

    If the length of a record is damaged, it is the last one: where the next one starts is unknown.
    """
    size, end, number = files.size(path), 0, 0
    with files.open_file(path, "rb") as file:
        while header := file.read(12):
            number += 1
            length = _length(header)
            # A length beyond the file would reserve as much memory.
            if length is None or end + 16 + length > size:
                yield number, None
                return
            end += 16 + length
            record, checksum = file.read(length), file.read(4)
            yield number, record if _masked_crc(record) == checksum else None


def check_lengths(path):
    """Checks that a local TFRecord file ends with its last record; the records are not read.

    TensorFlow reserves the memory of a record before it reads it: with a large wrong length the
    process ends in a segmentation fault.

    Args:
        path: the file. A URL is not checked: each record would be one request.

    Raises:
        InputError: the file is damaged or cut short.
    """
    if files.is_url(path):
        return
    number, place, size = 0, 0, files.size(path)
    with open(path, "rb", buffering=0) as file:
        while place < size:
            number += 1
            length = _length(os.pread(file.fileno(), 12, place))
            if length is None:
                raise _damaged(path, number)
            place += 16 + length
    if place > size:
        raise _damaged(path, number)


def _length(header):
    """The length of a record from its first 12 bytes; None if they are damaged."""
    if len(header) < 12 or _masked_crc(header[:8]) != header[8:]:
        return None
    return _LENGTH.unpack(header[:8])[0]


def _damaged(path, number):
    return InputError(
        f"{path}: record {number}: damaged or cut short, or not a TFRecord file: write the records again with "
        "python -m tfrecords_tools.write_coco"
    )


def encode_example(features):
    """A serialised `tf.train.Example`, sorted by name, so that equal features give equal bytes.

    Args:
        features: dict of name -> non-empty list of bytes, of integers or of floats.
    """
    entries = []
    for name in sorted(features):
        feature = _feature(features[name])
        entries.append(_field(1, b"".join((_key(name), b"\x12", _varint(len(feature)), feature))))
    return _field(1, b"".join(entries))


# Cached: every record has the same names.
@functools.cache
def _key(name):
    return _field(1, name.encode())


def _feature(values):
    if isinstance(values[0], bytes):
        return _field(1, b"".join([_field(1, value) for value in values]))
    if isinstance(values[0], int):
        # A negative int64 is stored as its two's complement.
        return _field(3, _field(1, b"".join([_varint(value & 0xFFFFFFFFFFFFFFFF) for value in values])))
    return _field(2, _field(1, struct.pack(f"<{len(values)}f", *values)))


def _field(number, data):
    """A length-delimited protobuf field."""
    return b"".join((_BYTES[number << 3 | 2], _varint(len(data)), data))


_BYTES = [bytes([value]) for value in range(128)]


def _varint(value):
    if value < 128:
        return _BYTES[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
