"""Bootstrap confidence intervals (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993): persons resampled.

Limbs of one person are right or wrong together, so whole persons are drawn, not limbs.
"""

import numpy as np

from kpose import metrics

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
        name -> [N, G or 1, 2] float64, right and counted: "pcp_strict" and "pcp_mean" by group, "pdj" at 0.2.
    """
    counts = {}
    for rule in metrics.RULES:
        pair = [np.asarray(a, np.float64) for a in metrics.correct_limbs(truth, prediction, skeleton, rule)]
        ends = np.cumsum([len(limbs) for limbs in skeleton.limbs.values()])[:-1]
        groups = [[part.sum(1) for part in np.split(a, ends, axis=1)] for a in pair]
        counts[f"pcp_{rule}"] = np.moveaxis(np.array(groups), (0, 1, 2), (2, 1, 0))
    pair = [np.asarray(a, np.float64).sum(1) for a in metrics.detected_joints(truth, prediction, skeleton, 0.2)]
    counts["pdj"] = np.stack(pair, -1)[:, None]
    return counts


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
    """The intervals of metrics.json: {"pcp": {rule: {group: [low, high], "average": ...}}, "pdj": {"0.2": ...}}."""
    found = {"pcp": {}}
    for rule in metrics.RULES:
        sums = resampled(counts[f"pcp_{rule}"])
        groups = {group: interval(average(sums[:, i : i + 1])) for i, group in enumerate(skeleton.limbs)}
        found["pcp"][rule] = groups | {"average": interval(average(sums))}
    return found | {"pdj": {"0.2": interval(average(resampled(counts["pdj"])))}}


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
