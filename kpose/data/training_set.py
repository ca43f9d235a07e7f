"""Training sets: one data set of records, or a mixture of several.

A data set may have another skeleton: joints are matched by name. A joint that the data set lacks, or
that none of its records labels, has the flag `NEVER_LABELLED` in all its samples. This differs from
the flag 0 of one person's missing label: only flag 0 says that the joint cannot be seen. The data
set of a sample depends only on the sample's position. A mixture can therefore
be resumed at any position, and every batch holds the data sets in proportion to their weights.
"""

import dataclasses
import functools
import math

import numpy as np
import tensorflow as tf
from absl import logging

from kpose.core import geometry, skeleton_files, skeletons
from kpose.core.errors import InputError
from kpose.data import bad_records, records

# The mixture repeats after this number of samples, so weights are exact to 1 / PERIOD.
PERIOD = 4096
# Visibility flag of a joint that a data set never labels. Labelled joints have flags above 0.
NEVER_LABELLED = -1.0
# Steps by the golden ratio spread the samples of every data set evenly over the period.
_GOLDEN = (5**0.5 - 1) / 2


@dataclasses.dataclass(frozen=True)
class LabelSummary:
    """Statistics of the labels of a training set.

    Attributes:
        counts: number of records of each file.
        mean_pose: [K, 2] float32, mean of the normalised labels of each joint; (0, 0) if a joint is
            never labelled. It is the baseline that a model must exceed.
        spread: standard deviation of the labels around the mean pose, over all labelled joints.
        labelled: [K] int64, number of labels of each joint.
    """

    counts: tuple
    mean_pose: np.ndarray
    spread: float
    labelled: np.ndarray

    @property
    def num_records(self):
        """Number of records of all files."""
        return sum(self.counts)


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """The records of a training run.

    Attributes:
        files: `records.RecordFiles` of each data set.
        skeleton: the `Skeleton` that the network learns.
        padding: factor by which the box is enlarged for the network's input.
        weights: share of the samples of each data set; the sum is 1.
        labels: `LabelSummary` of all records.
        crop_size: (height, width) in pixels to which all crops are resampled before batching, at
            the resolution of the first data set.
        crop_padding: the padding that these crops show: the smallest of all data sets.
        labelled: for each data set, [K] bool: whether any of its records labels the joint.
    """

    files: tuple
    skeleton: object
    padding: float
    weights: tuple
    labels: LabelSummary
    crop_size: tuple
    crop_padding: float
    labelled: tuple

    @property
    def num_records(self):
        """Number of records of all data sets."""
        return self.labels.num_records

    @property
    def counts(self):
        """Number of records of each data set."""
        starts = np.cumsum([0, *(len(files.paths) for files in self.files)])
        return [sum(self.labels.counts[a:b]) for a, b in zip(starts, starts[1:], strict=False)]

    @property
    def window(self):
        """Side of the region of the network's input, as a fraction of the side of the crop."""
        return self.padding / self.crop_padding

    @functools.cached_property
    def mixture(self):
        """[PERIOD] indices: the data set of each sample of a period."""
        places = (np.arange(PERIOD) * _GOLDEN) % 1.0
        return np.searchsorted(np.cumsum(self.weights)[:-1], places, side="right")

    def taken(self, position):
        """[data sets] number of samples of each data set before `position`."""
        periods, rest = divmod(position, PERIOD)
        sets = len(self.files)
        return periods * np.bincount(self.mixture, minlength=sets) + np.bincount(self.mixture[:rest], minlength=sets)


def check_shape(files, aspect):
    """Raises `InputError` if the aspect of the crops is not that of the network's input.

    Args:
        files: `records.RecordFiles`.
        aspect: `config.data.aspect`: width / height of the rectangles shown; 0: the boxes.
    """
    if not math.isclose(files.aspect, aspect, rel_tol=1e-6):
        shown = f"rectangles of aspect {files.aspect:g} around the boxes" if files.aspect else "the boxes themselves"
        raise InputError(
            f"{files.pattern!r}: the crops show {shown}, but config.data.aspect is {aspect:g}: write the "
            f"records with --aspect={aspect:g}, or set --config.data.aspect={files.aspect:g}"
        )


def find_training_set(
    patterns, skeleton, padding, weights=(), aspect=0.0, coordinates=geometry.CONTINUOUS, find=records.find
):
    """The `TrainingSet` of record files.

    Args:
        patterns: globs of the data sets, separated by commas.
        skeleton: the `Skeleton` that the network learns.
        padding: factor by which the box is enlarged for the network's input.
        weights: weight of each data set, of any sum; (): its number of records.
        aspect: width / height of the rectangles around the boxes for the network's input; 0: the
            boxes.
        coordinates: `config.data.coordinates`.
        find: `records.find`, or another function of `bad_records.finder`.

    Raises:
        InputError: records are missing or damaged, crops show too little or have another aspect, no
            data set labels a joint, or the weights are wrong.
    """
    names = _patterns(patterns)
    numbers = all(isinstance(weight, (int, float)) and 0 < weight < float("inf") for weight in weights)
    if weights and (len(weights) != len(names) or not numbers):
        raise InputError(
            f"config.data.weights is {tuple(weights)}: give a positive number for each of the {len(names)} data sets"
        )
    found = tuple(with_coordinates(find(name, None if len(names) > 1 else skeleton), coordinates) for name in names)
    _check_joints(found, skeleton)
    for files in found:
        stored_share(files, padding)
        check_shape(files, aspect)
    sums = [_sum_labels(files, skeleton, padding) for files in found]
    for files, part in zip(found, sums, strict=True):
        logging.info("%s: %d records", files.pattern, sum(part.counts))
    counts = np.array([sum(part.counts) for part in sums], float)
    shares = np.asarray(weights, float) if weights else counts
    if (counts == 0).any():
        raise InputError(f"{found[int(np.argmin(counts))].pattern!r}: the files hold no records: write them again")
    crop_padding = min(files.padding for files in found)
    first, labels = found[0], _summary(sums)
    never = [joint for joint, count in zip(skeleton.joints, labels.labelled, strict=True) if not count]
    if never:
        logging.warning("no record of %s labels %s: these outputs are not trained", patterns, ", ".join(never))
    return TrainingSet(
        files=found,
        skeleton=skeleton,
        padding=padding,
        weights=tuple((shares / shares.sum()).tolist()),
        labels=labels,
        crop_size=tuple(round(side * crop_padding / first.padding) for side in first.crop_size),
        crop_padding=crop_padding,
        labelled=tuple(part.labelled[:, 0] > 0 for part in sums),
    )


def skeleton_of(config, default=None):
    """The `Skeleton` that a recipe's network learns: `config.skeleton`, or that of its first data set.

    Args:
        config: the recipe.
        default: the `Skeleton` for "auto", if no records are to be read; None: that of the records.

    Raises:
        InputError: the skeleton or the records do not exist.
    """
    if config.skeleton != skeletons.AUTO:
        return skeleton_files.find(config.skeleton)
    if default is not None:
        return default
    return bad_records.finder(config)(_patterns(config.data.train)[0]).skeleton


def with_aspect(config):
    """A recipe whose `data.aspect` is that of its first data set, if it is `geometry.OF_RECORDS`.

    Args:
        config: the recipe; it is not changed.

    Raises:
        InputError: the records do not exist, or `model.input_size` has another aspect.
    """
    if config.data.aspect != geometry.OF_RECORDS:
        return config
    resolved = config.copy_and_resolve_references()
    files = bad_records.finder(config)(_patterns(config.data.train)[0])
    # Records hold 32-bit floats: 0.75 is exact, 0.7 is not.
    resolved.data.aspect = round(float(files.aspect), 6)
    try:
        geometry.check_aspect(resolved.data.aspect, resolved.model.input_size)
    except InputError as error:
        raise InputError(f"{files.pattern!r} and config.model.input_size: {error}") from None
    return resolved


def _patterns(text):
    """The globs of `config.data.train`.

    Raises:
        InputError: there is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(
            "config.data.train is empty: set the glob of the records: --config.data.train='records/train-*'"
        )
    return names


def with_coordinates(files, coordinates):
    """`records.RecordFiles` whose labels are those of a recipe.

    Args:
        files: `records.RecordFiles`.
        coordinates: `config.data.coordinates`.
    """
    return dataclasses.replace(files, label_shift=0.0 if coordinates == geometry.CONTINUOUS else -geometry.HALF_PIXEL)


def _check_joints(found, skeleton):
    """Raises `InputError` if no data set labels some joint of the skeleton, or one labels none."""
    for files in found:
        if not set(files.skeleton.joints) & set(skeleton.joints):
            raise InputError(
                f"{files.pattern!r}: its skeleton {files.skeleton.name!r} ({', '.join(files.skeleton.joints[:3])} ...) "
                f"and {skeleton.name!r}, which is to be learnt ({', '.join(skeleton.joints[:3])} ...), have no joint "
                "in common: data sets are joined by the names of their joints; leave this one out"
            )
    labelled = {joint for files in found for joint in files.skeleton.joints}
    missing = [joint for joint in skeleton.joints if joint not in labelled]
    if missing:
        raise InputError(
            f"no data set of config.data.train labels {', '.join(missing)} of skeleton {skeleton.name!r}: "
            "add a data set that does, or use another skeleton"
        )


def stored_share(files, padding):
    """Side of the region of the network's input, as a fraction of the side of the stored crop.

    Args:
        files: `records.RecordFiles`.
        padding: factor by which the box is enlarged for the network's input.

    Raises:
        InputError: the stored crop shows less than the region.
    """
    if padding > files.padding * (1 + 1e-6):
        raise InputError(
            f"{files.pattern!r}: the crops show the box times {files.padding:g}, but the recipe's data.padding is "
            f"{padding:g}: write the records with --padding={padding:g}, or set --config.data.padding={files.padding:g}"
        )
    return padding / files.padding


def add_labels(features, files, skeleton, padding, labelled=None):
    """Parsed features with the region of the network's input and the normalised labels.

    Args:
        features: dict from `records.parse`, of one person or of a batch.
        files: the `records.RecordFiles` of the features.
        skeleton: the `Skeleton` of the result.
        padding: factor by which the box is enlarged for the network's input.
        labelled: [K] bool: whether any record of the files labels the joint; None: all joints that
            the files have.

    Returns:
        The dict with `region` [..., 4] float32 xywh in original pixels, and `keypoints` [..., K, 3]
        float32: normalised x, y and the visibility flag. Labels outside the region are kept. An
        unlabelled joint is (0, 0, 0), or (0, 0, -1) if the files lack it or never label it.
    """
    box = features["box"]
    region = tf.reshape(geometry.region_of(tf.reshape(box, [-1, 4]), padding, files.aspect), tf.shape(box))
    visibility = features["visibility"][..., None]
    points = features["keypoints"] + files.label_shift
    points = geometry.normalise(points, region) * tf.cast(visibility > 0, tf.float32)
    keypoints = tf.concat([points, visibility], -1)
    theirs = {joint: index for index, joint in enumerate(files.skeleton.joints)}
    known = np.array([joint in theirs for joint in skeleton.joints])
    if files.skeleton.joints != skeleton.joints:
        keypoints = tf.gather(keypoints, [theirs.get(joint, 0) for joint in skeleton.joints], axis=-2)
    known = known if labelled is None else known & labelled
    if not known.all():
        never = tf.constant([0.0, 0.0, NEVER_LABELLED])
        keypoints = tf.where(known[:, None], keypoints, never)
    return features | {"region": region, "keypoints": keypoints}


def summarise_labels(files, padding, skeleton=None):
    """`LabelSummary` of record files; images are not decoded.

    Args:
        files: `records.RecordFiles`.
        padding: labels are normalised in the box enlarged by this factor.
        skeleton: the `Skeleton` of the joints; None: that of the files.

    Raises:
        InputError: a file is damaged, or a label is not finite.
    """
    return _summary([_sum_labels(files, skeleton or files.skeleton, padding)])


@dataclasses.dataclass
class _LabelSums:
    """Records per file; per joint the number of labels, their sum and the sum of their squares."""

    counts: list
    labelled: np.ndarray
    total: np.ndarray
    squares: np.ndarray


def _sum_labels(files, skeleton, padding):
    """`_LabelSums` of the normalised labels of record files."""
    counts, joints = [0] * len(files.paths), skeleton.num_joints
    sums = _LabelSums(counts, np.zeros((joints, 1)), np.zeros((joints, 2)), np.zeros((joints, 2)))
    dataset = tf.data.Dataset.from_tensor_slices(list(files.paths)).enumerate()
    # Counts per file: `TrainingSet.counts` and the cache need them.
    dataset = dataset.interleave(
        lambda index, path: tf.data.TFRecordDataset(path).batch(512).map(lambda batch: (index, batch)),
        cycle_length=4,
        num_parallel_calls=4,
    )

    def labels(index, batch):
        parsed = records.parse_labels(batch, files)
        return index, add_labels(parsed, files, skeleton, padding)["keypoints"]

    with records.reading(files):
        for index, keypoints in dataset.map(labels).prefetch(2).as_numpy_iterator():
            keypoints = keypoints.astype(np.float64)
            mask = (keypoints[..., 2:] > 0).astype(np.float64)
            counts[index] += len(keypoints)
            sums.labelled += mask.sum(0)
            sums.total += (keypoints[..., :2] * mask).sum(0)
            sums.squares += (keypoints[..., :2] ** 2 * mask).sum(0)
    return sums


def _summary(parts):
    """`LabelSummary` of a list of `_LabelSums`."""
    labelled, total, squares = (sum(getattr(p, name) for p in parts) for name in ("labelled", "total", "squares"))
    seen = np.maximum(labelled, 1)
    mean = total / seen
    variance = (squares - seen * mean**2).clip(0) * (labelled > 0)
    spread = float(np.sqrt(variance.sum() / max(2 * labelled.sum(), 1)))
    counts = tuple(count for part in parts for count in part.counts)
    return LabelSummary(counts, mean.astype(np.float32), spread, labelled[:, 0].astype(np.int64))
