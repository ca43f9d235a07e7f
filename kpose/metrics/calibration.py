"""How well scores agree with what they promise, and the fit of a map that makes them agree.

The outcome of a joint is whether its OKS alone is at least `RIGHT`; that of a person is the OKS. For a
wrist this is an error of at most 0.146 roots of the person's area, for an eye 0.059: the tolerance of
a joint grows with the spread of human labels, so one map fits all joints. A person without a labelled
torso counts too. Joints without a label do not count: nobody knows where they are.
"""

import numpy as np

from kpose.core.errors import InputError

# The least OKS of a joint that is right. COCO counts a person from this OKS on.
RIGHT = 0.5
BINS = 15
# Fewest joints, and persons, of a fit.
FEWEST = 50
_STEPS, _CLIP = 100, 1e-6


def outcomes(truth, prediction, areas, skeleton):
    """The outcomes of joints and persons.

    Args:
        truth: [N, K, 3]: x, y and the visibility flag, in original pixels.
        prediction: [N, K, 2] in original pixels.
        areas: [N] of the persons in square pixels.
        skeleton: the `Skeleton` that has the sigmas of OKS.

    Returns:
        (right [N, K] bool, counted [N, K] bool, oks [N] float64). A joint counts if it is labelled
        and the area is positive. The OKS of a person without such a joint is NaN.
    """
    counted = (truth[..., 2] > 0) & (np.asarray(areas)[:, None] > 0)
    squared = np.square(np.asarray(prediction, np.float64) - truth[..., :2]).sum(-1)
    variances = np.square(2 * np.asarray(skeleton.oks_sigmas))
    similarity = np.exp(-squared / (2 * variances * np.where(np.asarray(areas) > 0, areas, 1)[:, None]))
    with np.errstate(invalid="ignore"):
        oks = (similarity * counted).sum(1) / counted.sum(1)
    return (similarity >= RIGHT) & counted, counted, oks


def reliability(scores, outcomes, bins=BINS):
    """How well scores agree with outcomes.

    Args:
        scores: [M] in 0..1.
        outcomes: [M] in 0..1, such as 1 for a joint that is right.
        bins: number of bins; each has the same number of scores.

    Returns:
        None without a score, otherwise a dict: "ece", the expected calibration error (Guo et al., "On
        Calibration of Modern Neural Networks", ICML 2017; bins of equal mass), the mean over the
        scores of the distance between mean score and mean outcome of their bin; "brier", the mean
        squared difference of score and outcome (Brier, 1950); "count", which is M; and "bins", a list
        of {"score", "outcome", "count"}, the means, by increasing score.
    """
    scores, outcomes = np.asarray(scores, np.float64), np.asarray(outcomes, np.float64)
    if not len(scores):
        return None
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    rows = [
        {"score": float(scores[part].mean()), "outcome": float(outcomes[part].mean()), "count": len(part)}
        for part in parts
    ]
    return {
        "ece": sum(row["count"] * abs(row["score"] - row["outcome"]) for row in rows) / len(scores),
        "brier": float(np.square(scores - outcomes).mean()),
        "count": len(scores),
        "bins": rows,
    }


def fit(scores, outcomes, what="scores"):
    """The map sigmoid(slope * logit(score) + intercept) of highest likelihood.

    The outcomes are smoothed as by Platt ("Probabilistic outputs for support vector machines",
    1999), so that the map is finite if all scores on one side have the same outcome. Newton's method
    with step halving, as in Lin, Lin and Weng, "A note on Platt's probabilistic outputs", 2007. For
    outcomes between 0 and 1 it is the quasi-likelihood (Papke and Wooldridge, 1996).

    Args:
        scores: [M] in 0..1.
        outcomes: [M] in 0..1.
        what: the scores' name, for errors.

    Returns:
        (slope, intercept).

    Raises:
        InputError: there are fewer than `FEWEST` scores, all are equal, or higher scores do not mean
            better outcomes.
    """
    scores, outcomes = np.asarray(scores, np.float64), np.asarray(outcomes, np.float64)
    if len(scores) < FEWEST:
        raise InputError(f"calibration of {what}: {len(scores)} with labels, but it needs {FEWEST}: give more records")
    logits = np.clip(scores, _CLIP, 1 - _CLIP)
    logits = np.log(logits) - np.log1p(-logits)
    centre, spread = logits.mean(), logits.std()
    if spread < 1e-6:
        raise InputError(f"calibration of {what}: all are equal: the network gives no scores that can be calibrated")
    positives = outcomes.sum()
    high, low = (positives + 1) / (positives + 2), 1 / (len(outcomes) - positives + 2)
    slope, intercept = _maximum((logits - centre) / spread, low + (high - low) * outcomes)
    slope, intercept = float(slope / spread), float(intercept - slope * centre / spread)
    if not slope > 0:
        raise InputError(
            f"calibration of {what}: higher scores do not mean better joints (slope {slope:.3g}): train longer, or "
            "give records like those of the training"
        )
    return slope, intercept


def _maximum(logits, targets):
    """(slope, intercept) of the highest likelihood of targets [M]; `logits` have mean 0, deviation 1."""
    rows = np.stack([logits, np.ones_like(logits)])
    weights = np.zeros(2)

    def loss(weights):
        values = weights @ rows
        return np.sum(np.logaddexp(0, values) - targets * values)

    for _ in range(_STEPS):
        expected = 0.5 * (1 + np.tanh(weights @ rows / 2))
        gradient = rows @ (expected - targets)
        curvature = (rows * (expected * (1 - expected))) @ rows.T + 1e-12 * np.eye(2)
        step, before = np.linalg.solve(curvature, gradient), loss(weights)
        share = 1.0
        while share > 1e-9 and not loss(weights - share * step) <= before:
            share /= 2
        weights = weights - share * step
        if np.abs(share * step).max() < 1e-10:
            break
    return weights
