"""Checks of a record: its fields, their types and lengths, and its JPEG; and of shards.

While records are read in batches, TensorFlow checks them (`records.parse_labels`). The functions
here say what is wrong with one record.
"""

import collections
import dataclasses
import glob
import os
import re

import numpy as np

from kpose.core.errors import InputError, first_line
from kpose.data import tfrecord

# Of each field: the list of `tf.train.Feature` that holds it, and its length. None: any length.
_BYTES, _INTS, _FLOATS = "bytes_list", "int64_list", "float_list"
_FIELDS = {
    "schema_version": (_INTS, 1),
    "skeleton": (_BYTES, 1),
    "image/id": (_INTS, 1),
    "image/file_name": (_BYTES, 1),
    "image/size": (_INTS, 2),
    "annotation/id": (_INTS, 1),
    "annotation/area": (_FLOATS, 1),
    "annotation/box": (_FLOATS, 4),
    "annotation/keypoints": (_FLOATS, None),
    "annotation/pixel_offset": (_FLOATS, 1),
    "crop/jpeg": (_BYTES, 1),
    "crop/padding": (_FLOATS, 1),
    "crop/aspect": (_FLOATS, 1),
    "crop/region": (_FLOATS, 4),
}
_OPTIONAL = ("annotation/pixel_offset", "crop/aspect")
_NAMES = {_BYTES: "bytes", _INTS: "int64", _FLOATS: "float"}
# Sides of crops beyond this are refused before they are decoded: 8192 x 8192 x 3 are 200 MB.
MAX_SIDE = 8192
# Scans of a crop's JPEG: `crops` writes 1. Each begins with this marker, and costs its decoder the
# time for all pixels.
SCAN, MAX_SCANS = b"\xff\xda", 20
# The size of a JPEG is within these bytes: the encoder of `crops` writes it after about 160.
HEADER_BYTES = 4096
# The markers of JPEG that are followed by the size: SOF0 to SOF15 without DHT, JPG and DAC.
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclasses.dataclass(frozen=True)
class Kind:
    """What all records of a data set have in common.

    Attributes:
        skeleton: name of the skeleton.
        padding: factor by which the boxes were enlarged.
        crop_size: (height, width) of the crops in pixels.
        aspect: width / height of the rectangles around the boxes; 0: the boxes themselves.
        pixel_offset: as for `records.Person`; None: records of kpose 0.1, which lack it.
    """

    skeleton: str
    padding: float
    crop_size: tuple
    aspect: float
    pixel_offset: float | None

    def __str__(self):
        return str(dataclasses.astuple(self))


def kind_of(serialised, version):
    """The `Kind` of a serialised record, whose fields are checked.

    Args:
        serialised: bytes of the record.
        version: the schema version that it must have.

    Raises:
        InputError: what is wrong with the record, without its place.
    """
    fields = _fields_of(serialised, version)
    try:
        skeleton = fields["skeleton"][0].decode()
    except UnicodeDecodeError:
        raise InputError("the name of its skeleton is not UTF-8") from None
    return Kind(
        skeleton=skeleton,
        padding=fields["crop/padding"][0],
        crop_size=_checked_size(fields["crop/jpeg"][0]),
        aspect=next(iter(fields["crop/aspect"]), 0.0),
        pixel_offset=next(iter(fields["annotation/pixel_offset"]), None),
    )


def check(serialised, version, kind, skeleton):
    """Checks a whole record; its JPEG is decoded.

    Args:
        serialised: bytes of the record.
        version: the schema version that it must have.
        kind: the `Kind` that it must have.
        skeleton: the `Skeleton` of its keypoints.

    Raises:
        InputError: what is wrong with the record, without its place.
    """
    import tensorflow as tf

    found = kind_of(serialised, version)
    if found != kind:
        raise InputError(
            f"its (skeleton, padding, crop size, aspect, pixel offset) are {found}, but those of the first record "
            f"are {kind}"
        )
    fields = _fields_of(serialised, version)
    keypoints = fields["annotation/keypoints"]
    if len(keypoints) != 3 * skeleton.num_joints:
        raise InputError(
            f"it has {len(keypoints)} keypoint numbers, but skeleton {skeleton.name!r} needs {3 * skeleton.num_joints}"
        )
    for name in ("annotation/keypoints", "annotation/box", "annotation/area", "crop/region"):
        if not np.isfinite(fields[name]).all():
            raise InputError(f"{name!r}: a label is not finite")
    try:
        tf.io.decode_jpeg(fields["crop/jpeg"][0], channels=3)
    except tf.errors.OpError as error:
        raise InputError(f"its JPEG cannot be decoded ({first_line(error)})") from None


def check_shards(paths, pattern):
    """Raises `InputError` unless each split has all shards of one write."""
    counts, present = {}, collections.Counter()
    for path in paths:
        stem, count = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})", path).groups()
        if counts.setdefault(stem, count) != count:
            raise InputError(
                f"{stem}: there are shards of two writes, of {counts[stem]} and of {count}: remove those of one write"
            )
        present[stem] += 1
    for stem, count in counts.items():
        # Without a wildcard in the file name, single shards are allowed.
        if present[stem] != int(count) and glob.has_magic(os.path.basename(pattern)):
            raise InputError(
                f"{stem}-*-of-{count}: only {present[stem]} of {int(count)} shards exist: write them again"
            )


def first_kind(path, version):
    """The `Kind` of the first record of a file; None without records.

    Args:
        path: the file.
        version: the schema version that it must have.

    Raises:
        InputError: the file cannot be read, or the record is bad: with its place.
    """
    try:
        serialised = next(tfrecord.read(path), None)
        return None if serialised is None else kind_of(serialised, version)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except InputError as error:
        raise error if str(error).startswith(path) else InputError(f"{path}: record 1: {error}") from None


def check_manifest(manifest, kind, version, path):
    """Raises `InputError` if a manifest is not of the records beside it.

    Args:
        manifest: its data. Fields that it lacks are not compared: manifests of 0.1 lack some.
        version: the schema version of the records.
        kind: the `Kind` of the records.
        path: of the manifest.
    """
    if not isinstance(manifest, dict):
        raise InputError(f"{path}: not the manifest of a write")
    size = manifest.get("stored_size")
    try:
        stored = {
            "schema version": manifest.get("schema_version"),
            "padding": manifest["padding"] * manifest["context"] if "context" in manifest else None,
            "crop size": tuple(size) if size else None,
            "aspect": manifest.get("aspect"),
            "pixel offset": manifest.get("pixel_offset"),
        }
        values = (version, kind.padding, kind.crop_size, kind.aspect, kind.pixel_offset)
        for (name, value), theirs in zip(stored.items(), values, strict=True):
            if None not in (value, theirs) and not np.allclose(value, theirs, rtol=1e-4):
                raise InputError(
                    f"{path}: it says {name} {value}, but its records have {theirs}: it is of another write: write "
                    "the records again, or restore the manifest of these records"
                )
    except (TypeError, KeyError) as error:
        raise InputError(f"{path}: not the manifest of a write ({first_line(error)})") from None


def _fields_of(serialised, version):
    """dict of field name -> list of its values; () for optional fields that are missing."""
    import tensorflow as tf

    try:
        features = tf.train.Example.FromString(serialised).features.feature
    except Exception:
        raise InputError("not a tf.train.Example: not written by kpose") from None
    versions = list(features["schema_version"].int64_list.value) if "schema_version" in features else []
    if versions != [version]:
        found = f"schema version {versions[0]}" if versions else "a record without a kpose schema version"
        raise InputError(
            f"{found}, but this kpose reads version {version}: "
            "write the records again with python -m tfrecords_tools.write_coco"
        )
    fields = {}
    for name, (kind, length) in _FIELDS.items():
        if name not in features:
            if name not in _OPTIONAL:
                raise InputError(f"it has no field {name!r}")
            fields[name] = ()
            continue
        found = features[name].WhichOneof("kind")
        if found != kind:
            raise InputError(f"{name!r} has the type {_NAMES.get(found)}, not {_NAMES[kind]}")
        fields[name] = list(getattr(features[name], kind).value)
        if length is not None and len(fields[name]) != length:
            raise InputError(f"{name!r} has {len(fields[name])} values, not {length}")
    return fields


def jpeg_size(jpeg):
    """(height, width) in the first `HEADER_BYTES` of a JPEG; None if they are not there.

    Only the headers of the segments are read: a few microseconds.
    """
    jpeg = jpeg[:HEADER_BYTES]
    if jpeg[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 <= len(jpeg) and jpeg[place] == 0xFF:
        marker = jpeg[place + 1]
        if marker in _SIZES:
            return int.from_bytes(jpeg[place + 5 : place + 7], "big"), int.from_bytes(
                jpeg[place + 7 : place + 9], "big"
            )
        # 0xFF before a marker is padding.
        place += 1 if marker == 0xFF else 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    return None


def jpegs_fit(jpegs, size):
    """[N] bool: whether each JPEG has the size (height, width) in its header."""
    return np.array([jpeg_size(jpeg) == size for jpeg in jpegs], bool)


def _checked_size(jpeg):
    size = jpeg_size(jpeg)
    if size is None or jpeg[-2:] != b"\xff\xd9":
        reason = "empty" if not jpeg else "cut short, or not a JPEG"
        raise InputError(f"its JPEG is {reason} ({len(jpeg):,} bytes)")
    if not 0 < min(size) <= max(size) <= MAX_SIDE:
        raise InputError(f"its JPEG has {size[1]} x {size[0]} pixels: a side must be from 1 to {MAX_SIDE}")
    if jpeg.count(SCAN) > MAX_SCANS:
        raise InputError(f"its JPEG has more than {MAX_SCANS} scans")
    return size
