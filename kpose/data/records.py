"""The record schema: what a person is in a TFRecord file, written and read by this module alone.

One record is one `tf.train.Example`: the JPEG of the person's crop and everything needed to go back to the
original image. Shards are `<split>-00000-of-00008`; beside them lies `<split>.manifest.json`.

Writing does without TensorFlow, which is imported when records are read.
"""

import collections
import contextlib
import dataclasses
import glob
import os
import re

import numpy as np

from kpose.core import files, skeletons
from kpose.core.errors import InputError
from kpose.data import tfrecord

# Raised whenever a reader of the old records would misread new ones, or the other way round.
SCHEMA_VERSION = 1


@dataclasses.dataclass
class Person:
    """One person, as a record holds it.

    Attributes:
        jpeg: the encoded crop: the pixels of `region`, stretched to the crop's size.
        image_id, annotation_id: the ids of the source.
        file_name: the original image's name, relative to the image folder.
        image_size: (height, width) of the original image in pixels.
        box: [4] the person's box, xywh in original pixels.
        padding: what the box was enlarged by to give `region`.
        aspect: width over height of the rectangle round the box that was enlarged; 0: the box itself.
        region: [4] what the crop shows, xywh in original pixels.
        area: the person's area in square pixels (the scale of OKS).
        keypoints: [K, 3] x, y in original pixels and the visibility flag: 0 unlabelled, 1 occluded, 2 visible.
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


def encode(person, skeleton):
    """One serialised record (deterministic bytes) of a `Person` with the joints of `skeleton`."""
    keypoints = np.asarray(person.keypoints, np.float32)
    if keypoints.shape != (skeleton.num_joints, 3):
        raise InputError(
            f"annotation {person.annotation_id}: keypoints of shape {keypoints.shape}, "
            f"but skeleton {skeleton.name!r} wants ({skeleton.num_joints}, 3)"
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
            "crop/jpeg": [person.jpeg],
            "crop/padding": [float(person.padding)],
            **({"crop/aspect": [float(person.aspect)]} if person.aspect else {}),
            "crop/region": np.asarray(person.region, np.float32).tolist(),
        }
    )


def parse(serialised, skeleton, image=True):
    """A serialised record -> dict of tensors, inside tf.data or eagerly.

    Args:
        serialised: scalar string tensor, or [N] strings (every feature then gains a leading N).
        skeleton: the `Skeleton` the records were written with.
        image: False leaves the JPEG out, for passes over the labels alone.

    Returns:
        `image_id`, `annotation_id` int64 []; `image_size` int64 [2] (height, width); `file_name` string [];
        `area` float32 []; `box`, `region` float32 [4] xywh in original pixels; `keypoints` float32 [K, 2] in
        original pixels; `visibility` float32 [K]; and, with `image`, `jpeg` string [].
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
        "crop/region": tf.io.FixedLenFeature([4], tf.float32),
    }
    if image:
        spec["crop/jpeg"] = tf.io.FixedLenFeature([], tf.string)
    batched = tf.convert_to_tensor(serialised).shape.rank == 1
    features = (tf.io.parse_example if batched else tf.io.parse_single_example)(serialised, spec)
    features["annotation/visibility"] = features["annotation/keypoints"][..., 2]
    features["annotation/keypoints"] = features["annotation/keypoints"][..., :2]
    rename = {"image/id": "image_id", "image/size": "image_size", "annotation/id": "annotation_id"}
    return {rename.get(key, key.split("/")[1]): value for key, value in features.items()}


def decode_jpeg(jpeg):
    """JPEG bytes -> uint8 [H, W, 3], by the accurate transform (TensorFlow's default trades quality for speed)."""
    import tensorflow as tf

    return tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")


def shard_path(directory, split, index, count):
    return os.path.join(directory, f"{split}-{index:05d}-of-{count:05d}")


def manifest_path(directory, split):
    return os.path.join(directory, f"{split}.manifest.json")


@dataclasses.dataclass(frozen=True)
class RecordFiles:
    """Record files that were checked: they exist, are of this schema version and of one kind.

    Attributes:
        pattern: the glob they were named by.
        paths: the files, sorted by name.
        skeleton: the `Skeleton` of their labels.
        padding: what the boxes were enlarged by when they were cropped.
        crop_size: (height, width) of the stored crops in pixels.
        aspect: width over height of the rectangles round the boxes that they show; 0: the boxes themselves.
    """

    pattern: str
    paths: tuple
    skeleton: skeletons.Skeleton
    padding: float
    crop_size: tuple
    aspect: float = 0.0


def find(pattern, wanted_skeleton=None):
    """The record files that a glob names, checked by the first record of each.

    Args:
        pattern: the glob.
        wanted_skeleton: the `Skeleton` their labels must be of; None: any.

    Raises:
        InputError: nothing matches, a shard is missing, a file is not TFRecord, all are empty, another schema
            version, another skeleton, or files that do not belong together.
    """
    if not pattern:
        raise InputError("no records given: name them by a glob, as in --records='records/val-*'")
    paths = tuple(p for p in files.matching(pattern) if re.search(r"-\d{5}-of-\d{5}$", p))
    if not paths:
        raise InputError(f"no records match {pattern!r}: write some with python -m tfrecords_tools.write_coco")
    _check_shards(paths, pattern)
    heads = {path: _head(path) for path in paths}
    kinds = {head for head in heads.values() if head is not None}
    if not kinds:
        raise InputError(f"{pattern!r}: the record files hold no record at all")
    if len(kinds) > 1:
        first, second = sorted(kinds, key=str)[:2]
        raise InputError(
            f"{pattern!r} mixes records that do not belong together: (skeleton, padding, crop size, aspect) "
            f"{first} and {second}: name one kind"
        )
    skeleton, padding, crop_size, aspect = kinds.pop()
    if wanted_skeleton is not None and skeleton != wanted_skeleton.name:
        raise InputError(f"{pattern!r}: labels of skeleton {skeleton!r}, but {wanted_skeleton.name!r} is wanted")
    return RecordFiles(pattern, paths, skeletons.get(skeleton), padding, crop_size, aspect)


def _check_shards(paths, pattern):
    """Each split must be there once and whole."""
    counts, present = {}, collections.Counter()
    for path in paths:
        stem, count = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})", path).groups()
        if counts.setdefault(stem, count) != count:
            raise InputError(
                f"{stem}: shards of two writes lie there, of {counts[stem]} and of {count}: remove one set"
            )
        present[stem] += 1
    for stem, count in counts.items():
        # Whoever names single shards means them.
        if present[stem] != int(count) and glob.has_magic(os.path.basename(pattern)):
            raise InputError(f"{stem}-*-of-{count}: {present[stem]} of {int(count)} shards are there: write them again")


def _head(path):
    """(skeleton, padding, crop size, aspect) by a file's first record; None for a file without any."""
    import tensorflow as tf

    try:
        serialised = next(iter(tf.data.TFRecordDataset(path).take(1)), None)
    except tf.errors.OpError as error:
        raise InputError(f"{path}: cannot be read as a TFRecord file ({_first_line(error)})") from None
    if serialised is None:
        return None
    try:
        features = tf.train.Example.FromString(serialised.numpy()).features.feature
    except Exception:
        raise InputError(f"{path}: its records are no tf.train.Example: not written by kpose") from None
    versions = features["schema_version"].int64_list.value
    if list(versions) != [SCHEMA_VERSION]:
        found = f"schema version {versions[0]}" if versions else "records of no kpose schema"
        raise InputError(
            f"{path}: {found}, but this kpose reads version {SCHEMA_VERSION}: "
            "write the records again with python -m tfrecords_tools.write_coco"
        )
    height, width, _ = tf.io.decode_jpeg(features["crop/jpeg"].bytes_list.value[0]).shape
    name = features["skeleton"].bytes_list.value[0].decode()
    aspect = next(iter(features["crop/aspect"].float_list.value), 0.0)
    return name, features["crop/padding"].float_list.value[0], (height, width), aspect


@contextlib.contextmanager
def reading(name):
    """Turns TensorFlow's error about a damaged record file, read in the block, into an `InputError` with its name."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.DataLossError:
        raise InputError(
            f"{name}: damaged or cut short: write the records again with python -m tfrecords_tools.write_coco"
        ) from None


def _first_line(error):
    return str(getattr(error, "message", error)).split("\n")[0]


def read_manifest(directory, split):
    """The manifest of a split as a dict, or None where there is none."""
    path = manifest_path(directory, split)
    return files.read_json(path, "manifest") if files.is_file(path) else None
