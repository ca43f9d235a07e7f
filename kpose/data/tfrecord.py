"""Writes and reads TFRecord files and writes `tf.train.Example` messages, without TensorFlow.

The import of TensorFlow takes seconds and hundreds of megabytes in each process that writes
records. Both formats are small: a record is stored with its length and two checksums, an Example is
a protobuf map of lists.
"""

import functools
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
    with files.open_file(path, "rb") as file:
        while header := file.read(12):
            if len(header) < 12 or _masked_crc(header[:8]) != header[8:]:
                raise InputError(f"{path}: damaged or cut short")
            (length,) = _LENGTH.unpack(header[:8])
            record, checksum = file.read(length), file.read(4)
            if len(record) < length or _masked_crc(record) != checksum:
                raise InputError(f"{path}: damaged or cut short")
            yield record


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
