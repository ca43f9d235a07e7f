"""The schema of a record, which holds one person. Only this module encodes and parses records.

A record is a `tf.train.Example` with the JPEG of the person's crop, the labels, and the geometry of
the crop in the original image. The shards of a split are `<split>-00000-of-00008` ..., with
`<split>.manifest.json` in the same folder.

Encoding does not need TensorFlow. It is imported when records are parsed.
"""

import contextlib
import dataclasses
import functools
import os
import re

import numpy as np
from absl import logging

from kpose.core import files, geometry, skeleton_files, skeletons
from kpose.core.errors import InputError
from kpose.data import record_checks, tfrecord

# Increased by changes after which a reader of one version would misread records of another.
SCHEMA_VERSION = 1
# In place of the offset of records that lack it.
NO_OFFSET = -9.0


@dataclasses.dataclass
class Person:
    """One person, as a record holds it.

    Attributes:
        jpeg: JPEG bytes of the crop: the pixels of `region`, resized to the size of the crop.
        image_id, annotation_id: ids in the source.
        file_name: name of the original image, relative to the image folder.
        image_size: (height, width) of the original image in pixels.
        box: [4] box of the person, xywh in pixels of the original image.
        padding: factor by which the box (or its rectangle of `aspect`) was enlarged to give
            `region`.
        aspect: width / height of the rectangle around the box that was enlarged; 0: the box itself.
        region: [4] what the crop shows, xywh in pixels of the original image.
        area: area of the person in square pixels (the scale of OKS).
        keypoints: [K, 3] x, y in the original frame (`kpose.core.geometry`) and the visibility
            flag: 0 unlabelled, 1 occluded, 2 visible.
        pixel_offset: what was added to the source's coordinates to give those in the original
            frame: 0.5 if they were pixel indices.
    """

    jpeg: bytes
    image_id: int
    annotation_id: int
    file_name: str
    image_size: tuple
    box: np.ndarray
    padding: float
    region: np.ndarray
    area: float
    keypoints: np.ndarray
    aspect: float = 0.0
    pixel_offset: float = geometry.HALF_PIXEL


def encode(person, skeleton):
    """The serialised record of a `Person`; equal persons give equal bytes.

    Args:
        person: `Person`.
        skeleton: the `Skeleton` of its keypoints.

    Raises:
        InputError: the keypoints are not those of the skeleton.
    """
    keypoints = np.asarray(person.keypoints, np.float32)
    if keypoints.shape != (skeleton.num_joints, 3):
        raise InputError(
            f"annotation {person.annotation_id}: keypoints of shape {keypoints.shape}, "
            f"but skeleton {skeleton.name!r} needs ({skeleton.num_joints}, 3)"
        )
    return tfrecord.encode_example(
        {
            "schema_version": [SCHEMA_VERSION],
            "skeleton": [skeleton.name.encode()],
            "image/id": [int(person.image_id)],
            "image/file_name": [person.file_name.encode()],
            "image/size": [int(side) for side in person.image_size],
            "annotation/id": [int(person.annotation_id)],
            "annotation/area": [float(person.area)],
            "annotation/box": np.asarray(person.box, np.float32).tolist(),
            "annotation/keypoints": keypoints.ravel().tolist(),
            "annotation/pixel_offset": [float(person.pixel_offset)],
            "crop/jpeg": [person.jpeg],
            "crop/padding": [float(person.padding)],
            **({"crop/aspect": [float(person.aspect)]} if person.aspect else {}),
            "crop/region": np.asarray(person.region, np.float32).tolist(),
        }
    )


def parse(serialised, skeleton, image=True):
    """The fields of a serialised record as a dict of tensors, in tf.data or eagerly.

    Args:
        serialised: scalar string tensor; or [N] strings, and then every field has a leading axis N.
        skeleton: the `Skeleton` of the records.
        image: whether to return the JPEG.

    Returns:
        `image_id`, `annotation_id` int64 []; `image_size` int64 [2] (height, width); `file_name`
        string []; `area` float32 []; `box`, `region` float32 [4] xywh and `keypoints` float32 [K, 2]
        in the original frame (`kpose.core.geometry`); `visibility` float32 [K]; and, if `image`,
        `jpeg` string []. In records of kpose 0.1 the keypoints are as in the file of labels; they
        are taken as pixel indices.
    """
    import tensorflow as tf

    spec = {
        "image/id": tf.io.FixedLenFeature([], tf.int64),
        "image/file_name": tf.io.FixedLenFeature([], tf.string),
        "image/size": tf.io.FixedLenFeature([2], tf.int64),
        "annotation/id": tf.io.FixedLenFeature([], tf.int64),
        "annotation/area": tf.io.FixedLenFeature([], tf.float32),
        "annotation/box": tf.io.FixedLenFeature([4], tf.float32),
        "annotation/keypoints": tf.io.FixedLenFeature([skeleton.num_joints, 3], tf.float32),
        "annotation/pixel_offset": tf.io.FixedLenFeature([], tf.float32, default_value=NO_OFFSET),
        "crop/region": tf.io.FixedLenFeature([4], tf.float32),
    }
    if image:
        spec["crop/jpeg"] = tf.io.FixedLenFeature([], tf.string)
    batched = tf.convert_to_tensor(serialised).shape.rank == 1
    features = (tf.io.parse_example if batched else tf.io.parse_single_example)(serialised, spec)
    visibility = features["annotation/keypoints"][..., 2]
    points = features["annotation/keypoints"][..., :2]
    as_in_file = tf.equal(features.pop("annotation/pixel_offset"), NO_OFFSET)[..., None]
    indices = tf.logical_and(as_in_file, visibility > 0)[..., None]
    features["annotation/visibility"] = visibility
    features["annotation/keypoints"] = tf.where(indices, geometry.from_indices(points), points)
    rename = {"image/id": "image_id", "image/size": "image_size", "annotation/id": "annotation_id"}
    return {rename.get(key, key.split("/")[1]): value for key, value in features.items()}


def parse_labels(serialised, found):
    """The fields of a batch of records without the JPEG, as `parse`; each record is checked.

    Args:
        serialised: [N] strings.
        found: the `RecordFiles` of the records.

    Raises:
        tf.errors.InvalidArgumentError: a record is not of the kind of the first one, has a number
            that is not finite, or a JPEG that is cut, has another size or many scans. `reading` says which.
    """
    import tensorflow as tf

    features = parse(serialised, found.skeleton, image=False)
    spec = {
        "schema_version": tf.io.FixedLenFeature([], tf.int64),
        "skeleton": tf.io.FixedLenFeature([], tf.string),
        "annotation/pixel_offset": tf.io.FixedLenFeature([], tf.float32, default_value=NO_OFFSET),
        "crop/padding": tf.io.FixedLenFeature([], tf.float32),
        "crop/aspect": tf.io.FixedLenFeature([], tf.float32, default_value=0.0),
        "crop/jpeg": tf.io.FixedLenFeature([], tf.string),
    }
    fields = tf.io.parse_example(serialised, spec)
    jpegs_fit = functools.partial(record_checks.jpegs_fit, size=found.crop_size)
    # Python gets the header alone: copies of whole JPEGs double the time of a pass over the labels.
    jpegs = fields["crop/jpeg"]
    ends = tf.strings.substr(jpegs, -2, 2) == b"\xff\xd9"
    headers = tf.strings.substr(jpegs, 0, record_checks.HEADER_BYTES)
    # One part more than there are scans.
    scans = tf.strings.split(jpegs, record_checks.SCAN).row_lengths() - 1
    wanted = {
        "schema_version": SCHEMA_VERSION,
        "skeleton": found.saved_name,
        "annotation/pixel_offset": NO_OFFSET if found.pixel_offset is None else found.pixel_offset,
        "crop/padding": found.padding,
        "crop/aspect": found.aspect,
    }
    good = [
        fields[name] == tf.constant(value, fields[name].dtype) for name, value in wanted.items() if value is not None
    ]
    good += [tf.math.is_finite(features[name]) for name in ("keypoints", "visibility", "box", "region", "area")]
    good += [ends, scans <= record_checks.MAX_SCANS, tf.numpy_function(jpegs_fit, [headers], tf.bool)]
    check = tf.debugging.Assert(tf.reduce_all([tf.reduce_all(each) for each in good]), ["a record is bad"])
    with tf.control_dependencies([] if check is None else [check]):
        return {name: tf.identity(value) for name, value in features.items()}


def decode_jpeg(jpeg):
    """The uint8 [H, W, 3] pixels of JPEG bytes.

    They are decoded with the accurate DCT; TensorFlow's default is faster and less accurate.
    """
    import tensorflow as tf

    return tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")


def shard_path(directory, split, index, count):
    """The path of shard number `index` of `count`."""
    return os.path.join(directory, f"{split}-{index:05d}-of-{count:05d}")


def manifest_path(directory, split):
    """The path of the manifest of a split."""
    return os.path.join(directory, f"{split}.manifest.json")


@dataclasses.dataclass(frozen=True)
class RecordFiles:
    """Record files that exist, have this schema version, and agree in the fields below.

    Attributes:
        pattern: the glob.
        paths: the files, sorted by name.
        skeleton: the `Skeleton` of the labels.
        padding: factor by which the boxes were enlarged.
        crop_size: (height, width) of the stored crops in pixels.
        aspect: width / height of the rectangles around the boxes that were enlarged; 0: the boxes
            themselves.
        pixel_offset: as for `Person`; None: records of kpose 0.1, which lack it.
        label_shift: what `training_set.add_labels` adds to the labelled joints, in pixels.
        saved_name: name of the skeleton in each record; None: any.
        originals: the shards, if some of `paths` are copies of them without bad records; else ().
        skipped: number of bad records that the copies lack.
    """

    pattern: str
    paths: tuple
    skeleton: skeletons.Skeleton
    padding: float
    crop_size: tuple
    aspect: float = 0.0
    pixel_offset: float | None = geometry.HALF_PIXEL
    label_shift: float = 0.0
    saved_name: str | None = None
    originals: tuple = ()
    skipped: int = 0


def find(pattern, wanted_skeleton=None):
    """The `RecordFiles` of a glob, checked by the lengths of all records and the first of each file.

    Args:
        pattern: the glob.
        wanted_skeleton: the `Skeleton` that the labels must have; None: any.

    Raises:
        InputError: no file matches, a shard is missing, a file is not TFRecord, all files are
            empty, another schema version, another skeleton, files that differ in skeleton, padding,
            crop size, aspect or pixel offset, or a manifest that is not of these records.
    """
    paths = shards_of(pattern)
    for path in paths:
        tfrecord.check_lengths(path)
    heads = {path: record_checks.first_kind(path, SCHEMA_VERSION) for path in paths}
    kinds = {head for head in heads.values() if head is not None}
    if not kinds:
        raise InputError(f"{pattern!r}: the record files have no records")
    if len(kinds) > 1:
        first, second = sorted(kinds, key=str)[:2]
        raise InputError(
            f"{pattern!r}: the records differ in (skeleton, padding, crop size, aspect, pixel offset): {first} and "
            f"{second}: give records of one kind"
        )
    return of_kind(pattern, paths, *kinds, wanted_skeleton)


def shards_of(pattern):
    """The record files of a glob, sorted by name; none of a write is missing.

    Raises:
        InputError: no file matches, or a shard is missing.
    """
    if not pattern:
        raise InputError("no records given: give a glob, such as --records='records/val-*'")
    paths = tuple(p for p in files.matching(pattern) if re.search(r"-\d{5}-of-\d{5}$", p))
    if not paths:
        raise InputError(f"no records match {pattern!r}: write some with python -m tfrecords_tools.write_coco")
    record_checks.check_shards(paths, pattern)
    return paths


def of_kind(pattern, paths, kind, wanted_skeleton=None):
    """The `RecordFiles` of files whose records are of a `record_checks.Kind`.

    Args:
        pattern: the glob.
        paths: its files.
        kind: the `Kind`.
        wanted_skeleton: as for `find`.

    Raises:
        InputError: another skeleton, or a manifest that is not of these records.
    """
    if kind.pixel_offset is None:
        logging.info(
            "%s: records of kpose 0.1, whose joints are as in the file of labels: they are taken as pixel indices",
            pattern,
        )
    skeleton = _skeleton(paths, kind)
    if wanted_skeleton is not None and skeleton.joints != wanted_skeleton.joints:
        raise InputError(
            f"{pattern!r}: labels of skeleton {skeleton.name!r} ({skeleton.num_joints} joints), but "
            f"{wanted_skeleton.name!r} ({wanted_skeleton.num_joints}) is needed"
        )
    return RecordFiles(
        pattern, paths, skeleton, kind.padding, kind.crop_size, kind.aspect, kind.pixel_offset, saved_name=kind.skeleton
    )


def _skeleton(paths, kind):
    """The `Skeleton` of record files: that of their manifests, or in older records a name.

    Args:
        paths: the files.
        kind: the `record_checks.Kind` of their records.

    Raises:
        InputError: the manifests have different skeletons or are of other records, or there is none
            and the name is unknown.
    """
    found, name = {}, kind.skeleton
    for stem in dict.fromkeys(re.fullmatch(r"(.*)-\d{5}-of-\d{5}", path)[1] for path in paths):
        manifest = read_manifest(os.path.dirname(stem), os.path.basename(stem)) or {}
        saved = manifest.get("skeleton") if isinstance(manifest, dict) else None
        path = manifest_path(os.path.dirname(stem), os.path.basename(stem))
        record_checks.check_manifest(manifest, kind, SCHEMA_VERSION, path)
        if saved is None or name in skeletons.SKELETONS:
            saved = name
        found[stem] = _table(saved, path)
    (first, table), *others = found.items()
    for stem, other in others:
        if other != table:
            raise InputError(
                f"{first}-* and {stem}-*: their skeletons, both named {name!r}, differ: write the records again from "
                "annotations with one skeleton"
            )
    return table


def _table(saved, path):
    if isinstance(saved, str) and saved not in skeletons.SKELETONS:
        raise InputError(f"{path}: missing, and with it the joints of skeleton {saved!r}: copy it beside its shards")
    try:
        return skeleton_files.of_saved(saved)
    except InputError as error:
        raise InputError(f"{path}: its skeleton cannot be read: {error}") from None


@contextlib.contextmanager
def reading(*found):
    """A context that turns TensorFlow's error about a record into an `InputError` with its place.

    Args:
        found: the `RecordFiles` that are read in the context.

    Raises:
        InputError: the first bad record: its file, its number from 1, and what is wrong; or a file
            that was removed meanwhile.
    """
    import tensorflow as tf

    try:
        yield
    # UnicodeDecodeError: TensorFlow's message quotes bytes that are no text.
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError, UnicodeDecodeError):
        for record_files in found:
            check_records(record_files)
        # Each record is right: the error has another cause.
        raise


def check_records(found):
    """Reads and decodes all records of `RecordFiles`, one after another.

    Raises:
        InputError: the first bad record: its file, its number from 1, and what is wrong.
    """
    kind = None
    for path in found.paths:
        if not files.is_file(path):
            raise InputError(f"{path}: removed while it was read: restore the file and run the same command again")
    for path in found.paths:
        for number, serialised in enumerate(tfrecord.read(path), 1):
            try:
                kind = kind or record_checks.kind_of(serialised, SCHEMA_VERSION)
                record_checks.check(serialised, SCHEMA_VERSION, kind, found.skeleton)
            except InputError as error:
                raise InputError(f"{path}: record {number}: {error}") from None


def read_manifest(directory, split):
    """The manifest of a split as a dict; None if it does not exist."""
    path = manifest_path(directory, split)
    return files.read_json(path, "manifest") if files.is_file(path) else None
