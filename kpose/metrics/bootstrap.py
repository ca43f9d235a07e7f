"""Bootstrap confidence intervals (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).

The resampling unit is an image with all its persons. The limbs of one person are not independent,
and neither are the persons of one image: they share light, sharpness, size and activity. This is
the cluster bootstrap (Davison and Hinkley, "Bootstrap Methods and their Application", 1997,
section 3.8).
"""

import numpy as np

from kpose.metrics import pose

RESAMPLES = 1000
LEVEL = 0.95
# How many resamples are computed at a time; this bounds the memory.
_CHUNK = 50


def person_counts(truth, prediction, skeleton, boxes=None):
    """What each person adds to PCP and PDJ.

    Args:
        truth: [N, K, 3] in original pixels.
        prediction: [N, K, 2] in original pixels.
        skeleton: the `Skeleton`, with G limb groups.
        boxes: [N, 4] xywh in original pixels; only a skeleton without a torso needs them.

    Returns:
        {name: [N, M, 2] float64, the numbers of correct and of counted parts}: "pcp_strict" and
        "pcp_mean" by limb group (M = G), "limbs_strict" and "limbs_mean" by limb (M = L), "pdj" at
        0.2 and "pdj_0.1" at 0.1 (M = 1).
    """
    counts, sides = {}, None if boxes is None else pose.longer_sides(boxes)
    for rule in pose.RULES:
        pair = [np.asarray(a, np.float64) for a in pose.correct_limbs(truth, prediction, skeleton, rule)]
        counts[f"limbs_{rule}"] = np.stack(pair, -1)
        counts[f"pcp_{rule}"] = np.stack([pose.sum_by_group(limbs, skeleton, np) for limbs in pair], -1)
    for name, threshold in (("pdj", 0.2), ("pdj_0.1", 0.1)):
        pair = pose.detected_joints(truth, prediction, skeleton, threshold, sides)
        counts[name] = np.stack([np.asarray(a, np.float64).sum(1) for a in pair], -1)[:, None]
    return counts


def joint_counts(truth, prediction, boxes, threshold=0.2):
    """What each person adds to PCK and to the mean joint errors.

    Args:
        truth, prediction: as for `person_counts`.
        boxes: [N, 4] xywh in original pixels.
        threshold: of PCK, as a fraction of the box's longer side.

    Returns:
        {"pck": [N, K, 2] correct and counted, "joint_errors": [N, K, 2] error in pixels and
        counted}, float64.
    """
    errors, labelled = pose.joint_errors(truth, prediction)
    correct, _ = pose.correct_keypoints(truth, prediction, boxes, threshold)
    columns = {"pck": correct, "joint_errors": errors * labelled}
    return {name: np.stack([column, labelled], -1).astype(float) for name, column in columns.items()}


def average(sums):
    """The mean of the groups' fractions, over the groups that counted anything.

    Args:
        sums: [..., G, 2] correct and counted.

    Returns:
        [...] float64; NaN where no group counted.
    """
    mean, groups = pose.mean_of_groups(sums[..., 0], sums[..., 1], np)
    return np.where(groups > 0, mean, np.nan)


def number_images(*keys):
    """The number of each person's image, from 0, in the order of the first person of each image.

    Args:
        keys: one or several [N] arrays or lists, such as image ids and file names. Persons belong
            to the same image if all their keys are equal.

    Returns:
        [N] int64.
    """
    numbers = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in zip(*keys, strict=True)], np.int64)


def sum_by_image(counts, images):
    """The sums of the persons' counts in each image.

    Args:
        counts: [N, G, 2].
        images: [N] number of each person's image, from `number_images`.

    Returns:
        [I, G, 2] float64, for I images with at least one of the persons.
    """
    present, places = np.unique(images, return_inverse=True)
    sums = np.zeros((len(present), *counts.shape[1:]))
    np.add.at(sums, places, counts)
    return sums


def resampled(counts, images, seed=0):
    """Sums over the persons of images drawn with replacement, for each resample.

    Each resample draws as many images as there are. An image brings all its persons.

    Args:
        counts: [N, G, 2].
        images: [N] number of each person's image.
        seed: equal seeds draw equal images.

    Returns:
        [RESAMPLES, G, 2] float64; NaN with fewer than two images, which tell nothing about the
        variation between images.
    """
    sums_of_images = sum_by_image(counts, images)
    number = len(sums_of_images)
    if number < 2:
        return np.full((RESAMPLES, *counts.shape[1:]), np.nan)
    return np.concatenate([np.tensordot(weights, sums_of_images, 1) for weights in _weights(number, seed)])


def _weights(number, seed):
    """Yields how often each image is drawn, [at most _CHUNK, number] float64, `RESAMPLES` rows in all."""
    rng = np.random.default_rng(seed)
    for start in range(0, RESAMPLES, _CHUNK):
        drawn = rng.integers(0, number, (min(_CHUNK, RESAMPLES - start), number))
        yield np.array([np.bincount(row, minlength=number) for row in drawn], np.float64)


def ap_intervals(matches, seed=0):
    """The intervals of OKS AP: the results of an image keep their matches, and are ranked anew.

    Args:
        matches: `coco.Matches`.
        seed: equal seeds draw equal images.

    Returns:
        {"AP", "AP50", "AP75": [low, high]}; None instead of an interval with fewer than two images.
    """
    number = len(matches.persons)
    if number < 2:
        return {"AP": None, "AP50": None, "AP75": None}
    values = np.array([matches.average_precision(row) for weights in _weights(number, seed) for row in weights])
    # COCO's OKS thresholds are 0.5, 0.55, ..., 0.95.
    columns = {"AP": values.mean(1), "AP50": values[:, 0], "AP75": values[:, 5]}
    return {name: interval(column) for name, column in columns.items()}


def ap_difference(first, second, seed=0):
    """The 95% interval of the difference of two OKS APs, both over the same resampled images.

    Args:
        first, second: `coco.Matches` of two predictions for the persons of the same images.
        seed: equal seeds draw equal images.

    Returns:
        [low, high] of the second AP minus the first; None with fewer than two images.
    """
    number = len(first.persons)
    if number < 2:
        return None
    rows = (row for weights in _weights(number, seed) for row in weights)
    gaps = [second.average_precision(row).mean() - first.average_precision(row).mean() for row in rows]
    return interval(np.array(gaps))


def describe(images):
    """The entry `bootstrap` of metrics.json: what was resampled, and how often.

    Args:
        images: [N] number of each person's image.
    """
    return {"unit": "image", "num_images": len(np.unique(images)), "resamples": RESAMPLES, "level": LEVEL}


def interval(values):
    """[low, high] of the middle 95% of resampled values; None if none of them is finite."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    edge = 100 * (1 - LEVEL) / 2
    return [float(value) for value in np.percentile(values, [edge, 100 - edge])]


def intervals(counts, images, skeleton):
    """The intervals of metrics.json.

    Args:
        counts: from `person_counts`, and optionally also from `joint_counts`.
        images: [N] number of each person's image; the images are resampled.
        skeleton: the `Skeleton`.

    Returns:
        A dict with the structure of the metrics, with [low, high] for each value: "pcp",
        "pcp_by_limb" and "pdj"; with the counts of `joint_counts` also "pck" and "joint_errors" (of
        the mean error). None instead of an interval where nothing counted, or with one image.
    """

    def each(sums, names):
        return {name: interval(average(sums[:, i : i + 1])) for i, name in enumerate(names)}

    found = {"pcp": {}, "pcp_by_limb": {}}
    for rule in pose.RULES:
        sums = resampled(counts[f"pcp_{rule}"], images)
        found["pcp"][rule] = each(sums, skeleton.limbs) | {"average": interval(average(sums))}
        found["pcp_by_limb"][rule] = each(resampled(counts[f"limbs_{rule}"], images), skeleton.limb_names)
    names = {"0.1": "pdj_0.1", "0.2": "pdj"}
    found["pdj"] = {threshold: interval(average(resampled(counts[name], images))) for threshold, name in names.items()}
    if "pck" in counts:
        sums = resampled(counts["pck"], images)
        # The average PCK is that of all joints together, not the mean of the joints' fractions.
        over_all = interval(average(sums.sum(1, keepdims=True)))
        found["pck"] = {"average": over_all} | each(sums, skeleton.joints)
        found["joint_errors"] = each(resampled(counts["joint_errors"], images), skeleton.joints)
    return found


def paired_differences(first, second, images):
    """The gain of the second of two predictions for the same persons.

    Both are resampled with the same images. So an image that is hard for both does not widen the
    interval.

    Args:
        first, second: from `person_counts`, with the persons in the same order.
        images: [N] number of each person's image.

    Returns:
        {metric: {"difference": second minus first, "interval": [low, high] or None}}.
    """
    found = {}
    for name, one in first.items():
        other = second[name]
        gaps = average(resampled(other, images)) - average(resampled(one, images))
        found[name] = {"difference": float(average(other.sum(0)) - average(one.sum(0))), "interval": interval(gaps)}
    return found
