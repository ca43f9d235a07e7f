"""Bootstrap confidence intervals (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993): persons resampled.

Limbs of one person are right or wrong together, so whole persons are drawn, not limbs.
"""

import numpy as np

from kpose.metrics import pose

RESAMPLES = 1000
LEVEL = 0.95
# Persons are drawn for so many resamples at a time.
_AT_ONCE = 50


def person_counts(truth, prediction, skeleton):
    """What each person adds to the figures.

    Args:
        truth: [N, K, 3] in original pixels.
        prediction: [N, K, 2] in original pixels.
        skeleton: the `Skeleton`, with G limb groups.

    Returns:
        name -> [N, G, L or 1, 2] float64, right and counted: "pcp_strict" and "pcp_mean" by group, "limbs_strict" and
        "limbs_mean" by limb, "pdj" at 0.2 and "pdj_0.1".
    """
    counts = {}
    for rule in pose.RULES:
        pair = [np.asarray(a, np.float64) for a in pose.correct_limbs(truth, prediction, skeleton, rule)]
        counts[f"limbs_{rule}"] = np.stack(pair, -1)
        ends = np.cumsum([len(limbs) for limbs in skeleton.limbs.values()])[:-1]
        groups = [part.sum(1) for part in np.split(counts[f"limbs_{rule}"], ends, axis=1)]
        counts[f"pcp_{rule}"] = np.stack(groups, 1)
    for name, threshold in (("pdj", 0.2), ("pdj_0.1", 0.1)):
        pair = pose.detected_joints(truth, prediction, skeleton, threshold)
        counts[name] = np.stack([np.asarray(a, np.float64).sum(1) for a in pair], -1)[:, None]
    return counts


def joint_counts(truth, prediction, boxes, threshold=0.2):
    """What each person adds to the figures of joints.

    Args:
        truth, prediction: as for `person_counts`.
        boxes: [N, 4] xywh in original pixels.
        threshold: of PCK.

    Returns:
        "pck" -> [N, K, 2] right and counted, "joint_errors" -> [N, K, 2] error in pixels and counted.
    """
    labelled = truth[..., 2] > 0
    errors = np.linalg.norm(np.asarray(prediction, np.float64) - truth[..., :2], axis=-1) * labelled
    right = labelled & (errors <= threshold * np.max(boxes[:, 2:], axis=-1)[:, None])
    return {name: np.stack([a, labelled], -1).astype(float) for name, a in (("pck", right), ("joint_errors", errors))}


def average(sums):
    """[..., G, 2] sums -> [...] the mean over the groups that counted anything; NaN where none did."""
    with np.errstate(invalid="ignore", divide="ignore"):
        fractions = sums[..., 0] / sums[..., 1]
    present = sums[..., 1] > 0
    with np.errstate(invalid="ignore"):
        return np.where(present, fractions, 0).sum(-1) / present.sum(-1)


def resampled(counts, seed=0):
    """[RESAMPLES, G, 2] sums of as many persons, drawn with replacement; equal seeds draw equal persons."""
    rng, persons = np.random.default_rng(seed), len(counts)
    sums = []
    for start in range(0, RESAMPLES, _AT_ONCE):
        drawn = rng.integers(0, persons, (min(_AT_ONCE, RESAMPLES - start), persons))
        weights = np.array([np.bincount(row, minlength=persons) for row in drawn], np.float64)
        sums.append(np.tensordot(weights, counts, 1))
    return np.concatenate(sums)


def interval(values):
    """[low, high] that hold the middle 95% of resampled values; None where none is a number."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    edge = 100 * (1 - LEVEL) / 2
    return [float(value) for value in np.percentile(values, [edge, 100 - edge])]


def table(counts, skeleton):
    """The intervals of metrics.json, in the form of its figures, [low, high] in the place of each.

    Args:
        counts: of `person_counts`, for "pcp", "pcp_by_limb" and "pdj"; with those of `joint_counts` also "pck" and
            "joint_errors", the latter of the mean.
        skeleton: the `Skeleton`.
    """

    def each(sums, names):
        return {name: interval(average(sums[:, i : i + 1])) for i, name in enumerate(names)}

    found = {"pcp": {}, "pcp_by_limb": {}}
    for rule in pose.RULES:
        sums = resampled(counts[f"pcp_{rule}"])
        found["pcp"][rule] = each(sums, skeleton.limbs) | {"average": interval(average(sums))}
        found["pcp_by_limb"][rule] = each(resampled(counts[f"limbs_{rule}"]), skeleton.limb_names)
    names = {"0.1": "pdj_0.1", "0.2": "pdj"}
    found["pdj"] = {threshold: interval(average(resampled(counts[name]))) for threshold, name in names.items()}
    if "pck" in counts:
        sums = resampled(counts["pck"])
        # PCK's average is over joints, not over their fractions.
        over_all = interval(average(sums.sum(1, keepdims=True)))
        found["pck"] = {"average": over_all} | each(sums, skeleton.joints)
        found["joint_errors"] = each(resampled(counts["joint_errors"]), skeleton.joints)
    return found


def paired(first, second):
    """How much better the second of two predictions for the same persons is: figure -> {"difference", "interval"}.

    Both are resampled together: what makes a person hard for both does not widen the interval.

    Args:
        first, second: of `person_counts`, persons in the same order.
    """
    found = {}
    for name, one in first.items():
        other = second[name]
        gaps = average(resampled(other)) - average(resampled(one))
        found[name] = {"difference": float(average(other.sum(0)) - average(one.sum(0))), "interval": interval(gaps)}
    return found
