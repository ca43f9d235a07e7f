"""Leaves out bad records (`config.on_bad_record` "skip").

Shards with bad records are copied without them, and the copies are read. So the number and the
order of the records are known before the training, as for shards without bad records.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import os
import shutil
import zlib

import tensorflow as tf
from absl import logging

from kpose.core import files
from kpose.core.errors import InputError
from kpose.data import record_checks, records, tfrecord

# Number of bad records that are logged one by one.
_LOGGED = 3
# Number of records of each file that decide which kind is the right one.
_SAMPLED = 20


def finder(config, folder=None):
    """The function (glob, wanted skeleton) -> `records.RecordFiles` for the data sets of a recipe.

    Args:
        config: the recipe; `on_bad_record` decides.
        folder: as for `find`.
    """
    return functools.partial(find, folder=folder) if config.on_bad_record == "skip" else records.find


@contextlib.contextmanager
def copies_in(folder):
    """A context with the path of a folder for copies; it is removed at both ends, for a kill leaves it."""
    path = os.path.join(folder, "good_records")
    shutil.rmtree(path, ignore_errors=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def find(pattern, wanted_skeleton=None, folder=None):
    """The `records.RecordFiles` of a glob, without its bad records.

    All records are read and decoded once. A record is bad if `record_checks.check` refuses it. The
    kind that it must have is the most frequent one at the start of the files.

    Args:
        pattern, wanted_skeleton: as for `records.find`.
        folder: folder for the copies; None: records are not checked and bad ones not left out, for a
            caller that needs the kind of the records only.

    Raises:
        InputError: as for `records.find`, or more than half of the records are bad.
    """
    paths = records.shards_of(pattern)
    kind = _most_frequent_kind(pattern, paths)
    found = records.of_kind(pattern, paths, kind, wanted_skeleton)
    if folder is None:
        return found
    # Data sets may have shards of the same names.
    folder = os.path.join(folder, f"{zlib.crc32(pattern.encode()):08x}")
    read, total, bad = [], 0, []
    for path in paths:
        good = _count_if_good(path, found)
        read.append(path)
        if good is None:
            read[-1] = os.path.join(folder, os.path.basename(path))
            good, faults = _copy_good(path, read[-1], kind, found.skeleton)
            bad += faults
        total += good
    for fault in bad[:_LOGGED]:
        logging.warning("%s: left out", fault)
    if len(bad) > total:
        raise InputError(
            f"{pattern!r}: {len(bad):,} of {len(bad) + total:,} records are bad, more than half; the first: {bad[0]}"
        )
    if bad:
        logging.warning(
            "%s: %d bad records are left out of %d (config.on_bad_record)", pattern, len(bad), len(bad) + total
        )
    return dataclasses.replace(found, paths=tuple(read), originals=paths, skipped=len(bad))


def _most_frequent_kind(pattern, paths):
    """The most frequent `record_checks.Kind` of the first `_SAMPLED` records of each file."""
    kinds = collections.Counter()
    for path in paths:
        for _, serialised in itertools.islice(tfrecord.scan(path), _SAMPLED):
            with contextlib.suppress(InputError):
                if serialised is not None:
                    kinds[record_checks.kind_of(serialised, records.SCHEMA_VERSION)] += 1
    if not kinds:
        raise InputError(f"{pattern!r}: the record files start with bad records, or have none")
    return kinds.most_common(1)[0][0]


def _count_if_good(path, found):
    """The number of records of a file; None if one is bad."""
    raw, count = tf.data.TFRecordDataset(path), 0
    labels = raw.batch(512).map(lambda some: records.parse_labels(some, found)["area"])
    shapes = raw.map(lambda one: tf.shape(_decoded(one, found)), num_parallel_calls=tf.data.AUTOTUNE).batch(512)
    try:
        tfrecord.check_lengths(path)
        for areas in labels.as_numpy_iterator():
            count += len(areas)
        for _ in shapes.as_numpy_iterator():
            pass
    except (InputError, tf.errors.DataLossError, tf.errors.InvalidArgumentError, UnicodeDecodeError):
        return None
    return count


def _decoded(serialised, found):
    return records.decode_jpeg(records.parse(serialised, found.skeleton)["jpeg"])


def _copy_good(path, copy, kind, skeleton):
    """Copies the good records of a file; returns their number, and one line for each bad record."""
    good, faults = 0, []
    with files.replacing(copy, "wb") as file:
        for number, serialised in tfrecord.scan(path):
            try:
                if serialised is None:
                    raise InputError("damaged or cut short")
                record_checks.check(serialised, records.SCHEMA_VERSION, kind, skeleton)
            except InputError as error:
                faults.append(f"{path}: record {number}: {error}")
                continue
            file.write(tfrecord.frame(serialised))
            good += 1
    return good, faults
