"""What a training reads: one data set of records, or several that are mixed.

Data sets of other skeletons join in by the names of their joints: what they do not label counts as unlabelled. Which
data set a sample comes from is a function of its position alone, so a mixture resumes as a single set does, and each
batch holds the data sets by their weights.
"""

import dataclasses
import functools
import math

import numpy as np
import tensorflow as tf
from absl import logging

from kpose.core import geometry
from kpose.core.errors import InputError
from kpose.data import records
from kpose.data.resampling import resample

# The mixture repeats after so many samples; weights are kept to this precision.
PERIOD = 4096
# Share by which successive samples of a mixture differ: the golden ratio spreads every data set evenly.
_GOLDEN = (5**0.5 - 1) / 2


@dataclasses.dataclass(frozen=True)
class LabelSummary:
    """What one pass over the labels of a training set tells.

    Attributes:
        counts: records of each file.
        mean_pose: [K, 2] mean of the normalised labels of each joint, (0, 0) for a joint never labelled. Predicting
            it for everyone is the floor any model has to beat.
        spread: standard deviation of the labels around the mean pose, over all labelled joints.
    """

    counts: tuple
    mean_pose: np.ndarray
    spread: float

    @property
    def num_records(self):
        return sum(self.counts)


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """The records of a training.

    Attributes:
        files: a `records.RecordFiles` for each data set.
        skeleton: the `Skeleton` that the network learns.
        padding: what it sees: the box enlarged by this factor.
        weights: each data set's share of the samples; together 1.
        labels: `LabelSummary` of all records.
        crop_size, crop_padding: (height, width) and padding that all crops are brought to before they are batched:
            those of the first data set, as far as all others show as much.
    """

    files: tuple
    skeleton: object
    padding: float
    weights: tuple
    labels: LabelSummary
    crop_size: tuple
    crop_padding: float

    @property
    def num_records(self):
        return self.labels.num_records

    @property
    def counts(self):
        """Records of each data set."""
        starts = np.cumsum([0, *(len(files.paths) for files in self.files)])
        return [sum(self.labels.counts[a:b]) for a, b in zip(starts, starts[1:], strict=False)]

    @property
    def window(self):
        """The side of what the network sees, as a fraction of the crop's."""
        return self.padding / self.crop_padding

    @functools.cached_property
    def mixture(self):
        """[PERIOD] index of the data set of each sample, over and over."""
        places = (np.arange(PERIOD) * _GOLDEN) % 1.0
        return np.searchsorted(np.cumsum(self.weights)[:-1], places, side="right")

    def taken(self, position):
        """How many of the samples before `position` come from each data set."""
        periods, rest = divmod(position, PERIOD)
        sets = len(self.files)
        return periods * np.bincount(self.mixture, minlength=sets) + np.bincount(self.mixture[:rest], minlength=sets)


def check_shape(files, aspect):
    """Raises `InputError` unless crops show boxes, or rectangles of one shape round them, as the network sees them."""
    if not math.isclose(files.aspect, aspect, rel_tol=1e-6):
        shown = f"rectangles of aspect {files.aspect:g} round the boxes" if files.aspect else "the boxes themselves"
        raise InputError(
            f"{files.pattern!r}: the crops show {shown}, but config.data.aspect is {aspect:g}: write the "
            f"records with --aspect={aspect:g}, or set --config.data.aspect={files.aspect:g}"
        )


def find_training_set(patterns, skeleton, padding, weights=(), aspect=0.0):
    """The `TrainingSet` of records.

    Args:
        patterns: globs of the data sets, separated by commas.
        skeleton: the `Skeleton` that the network learns.
        padding: what it sees: the box enlarged by this factor.
        weights: each data set's share of the samples, in any unit; none: as many as it has records.
        aspect: width over height of the rectangles round the boxes that it sees; 0: the boxes themselves.

    Raises:
        InputError: no records, damaged ones, crops that show too little, joints that no data set labels, or weights
            that do not fit.
    """
    names = [name.strip() for name in patterns.split(",") if name.strip()]
    if not names:
        raise InputError("config.data.train is empty: name the records: --config.data.train='records/train-*'")
    numbers = all(isinstance(weight, (int, float)) and 0 < weight < float("inf") for weight in weights)
    if weights and (len(weights) != len(names) or not numbers):
        raise InputError(
            f"config.data.weights is {tuple(weights)}: give a positive number for each of the {len(names)} data sets"
        )
    found = tuple(records.find(name, None if len(names) > 1 else skeleton) for name in names)
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
        raise InputError(f"{found[int(np.argmin(counts))].pattern!r}: holds no records")
    crop_padding = min(files.padding for files in found)
    first = found[0]
    return TrainingSet(
        files=found,
        skeleton=skeleton,
        padding=padding,
        weights=tuple((shares / shares.sum()).tolist()),
        labels=_summary(sums),
        crop_size=tuple(round(side * crop_padding / first.padding) for side in first.crop_size),
        crop_padding=crop_padding,
    )


def _check_joints(found, skeleton):
    labelled = {joint for files in found for joint in files.skeleton.joints}
    missing = [joint for joint in skeleton.joints if joint not in labelled]
    if missing:
        raise InputError(f"no data set of config.data.train labels {', '.join(missing)} of skeleton {skeleton.name!r}")


def stored_share(files, padding):
    """The side of what the network sees with this padding, as a fraction of the stored crop's.

    Raises:
        InputError: the stored crop shows less than that.
    """
    if padding > files.padding * (1 + 1e-6):
        raise InputError(
            f"{files.pattern!r}: the crops show the box times {files.padding:g}, but the recipe's data.padding is "
            f"{padding:g}: write the records with --padding={padding:g}, or set --config.data.padding={files.padding:g}"
        )
    return padding / files.padding


def add_labels(features, files, skeleton, padding):
    """Adds to parsed features the region that the network sees and the labels normalised in it.

    Args:
        features: dict of `records.parse`, of one person or of many.
        files: the `records.RecordFiles` they are from.
        skeleton: the `Skeleton` of the result; joints that the files do not label are (0, 0, 0).
        padding: what the network sees.

    Returns:
        The dict with `region` [..., 4] and `keypoints` [..., K, 3]: normalised x, y and the visibility flag.
    """
    box = features["box"]
    region = tf.reshape(geometry.region_of(tf.reshape(box, [-1, 4]), padding, files.aspect), tf.shape(box))
    visibility = features["visibility"][..., None]
    points = geometry.normalise(features["keypoints"], region) * tf.cast(visibility > 0, tf.float32)
    keypoints = tf.concat([points, visibility], -1)
    if files.skeleton.joints != skeleton.joints:
        theirs = {joint: index for index, joint in enumerate(files.skeleton.joints)}
        absent = len(theirs)
        keypoints = tf.concat([keypoints, tf.zeros_like(keypoints[..., :1, :])], -2)
        keypoints = tf.gather(keypoints, [theirs.get(joint, absent) for joint in skeleton.joints], axis=-2)
    return features | {"region": region, "keypoints": keypoints}


def decode_record(training_set, source, serialised):
    """image, keypoints and region of one serialised record of data set `source`, its crop brought to the size of all."""

    def decode(files):
        features = add_labels(
            records.parse(serialised, files.skeleton), files, training_set.skeleton, training_set.padding
        )
        image = tf.ensure_shape(records.decode_jpeg(features["jpeg"]), [*files.crop_size, 3])
        share = training_set.crop_padding / files.padding
        return {
            "image": resample(image[None], training_set.crop_size, share)[0],
            "keypoints": features["keypoints"],
            "region": features["region"],
        }

    branches = [lambda files=files: decode(files) for files in training_set.files]
    return branches[0]() if len(branches) == 1 else tf.switch_case(tf.cast(source, tf.int32), branches)


def summarise_labels(files, padding):
    """`LabelSummary` of `records.RecordFiles` with regard to the box times `padding`; images are not decoded.

    Raises:
        InputError: a file is damaged.
    """
    return _summary([_sum_labels(files, files.skeleton, padding)])


@dataclasses.dataclass
class _LabelSums:
    counts: list
    labelled: np.ndarray
    total: np.ndarray
    squares: np.ndarray


def _sum_labels(files, skeleton, padding):
    counts, joints = [0] * len(files.paths), skeleton.num_joints
    sums = _LabelSums(counts, np.zeros((joints, 1)), np.zeros((joints, 2)), np.zeros((joints, 2)))
    dataset = tf.data.Dataset.from_tensor_slices(list(files.paths)).enumerate()
    # Per file, because the order in which files are read depends on how many records each of them has.
    dataset = dataset.interleave(
        lambda index, path: tf.data.TFRecordDataset(path).batch(512).map(lambda batch: (index, batch)),
        cycle_length=4,
        num_parallel_calls=4,
    )

    def labels(index, batch):
        parsed = records.parse(batch, files.skeleton, image=False)
        return index, add_labels(parsed, files, skeleton, padding)["keypoints"]

    with records.reading(files.pattern):
        for index, keypoints in dataset.map(labels).prefetch(2).as_numpy_iterator():
            keypoints = keypoints.astype(np.float64)
            if not np.isfinite(keypoints).all():
                raise InputError(f"{files.paths[index]}: labels that are not finite: write the records again")
            mask = (keypoints[..., 2:] > 0).astype(np.float64)
            counts[index] += len(keypoints)
            sums.labelled += mask.sum(0)
            sums.total += (keypoints[..., :2] * mask).sum(0)
            sums.squares += (keypoints[..., :2] ** 2 * mask).sum(0)
    return sums


def _summary(parts):
    labelled, total, squares = (sum(getattr(p, name) for p in parts) for name in ("labelled", "total", "squares"))
    seen = np.maximum(labelled, 1)
    mean = total / seen
    variance = (squares - seen * mean**2).clip(0) * (labelled > 0)
    spread = float(np.sqrt(variance.sum() / max(2 * labelled.sum(), 1)))
    return LabelSummary(tuple(count for part in parts for count in part.counts), mean.astype(np.float32), spread)
