"""How well scores agree with what they promise, and the fit of a map that makes them agree.

The outcome of a joint is whether its OKS alone is at least `RIGHT`; that of a person is the OKS. For a
wrist this is an error of at most 0.146 roots of the person's area, for an eye 0.059: the tolerance of
a joint grows with the spread of human labels, so one map fits all joints. A person without a labelled
torso counts too. Joints without a label do not count: nobody knows where they are.
"""

import numpy as np

from kpose.core.errors import InputError
from kpose.core.oks import joint_similarity

# The least OKS of a joint that is right. COCO counts a person from this OKS on.
RIGHT = 0.5
BINS = 15
# Fewest joints, and persons, of a fit.
FEWEST = 20
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
    areas = np.asarray(areas)
    counted = (truth[..., 2] > 0) & (areas[:, None] > 0)
    prediction = np.asarray(prediction, np.float64)
    similarity = joint_similarity(prediction, truth, np.where(areas > 0, areas, 1), skeleton.oks_sigmas)
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
    """The map sigmoid(a log(s) - b log(1 - s) + c) of highest likelihood, with a and b of at least 0.

    Beta calibration (Kull, Silva Filho and Flach, AISTATS 2017). The outcomes are smoothed as by
    Platt ("Probabilistic outputs for support vector machines", 1999), so that the map is finite if
    all scores on one side have the same outcome. For outcomes between 0 and 1 it is the
    quasi-likelihood (Papke and Wooldridge, 1996).

    Args:
        scores: [M] in 0..1.
        outcomes: [M] in 0..1.
        what: the scores' name, for errors.

    Returns:
        (a, b, c); the map is strictly increasing.

    Raises:
        InputError: there are fewer than `FEWEST` scores, all are equal, or higher scores do not mean
            better outcomes.
    """
    scores, outcomes = np.asarray(scores, np.float64), np.asarray(outcomes, np.float64)
    if len(scores) < FEWEST:
        raise InputError(f"calibration of {what}: {len(scores)} with labels, but it needs {FEWEST}: give more records")
    scores = np.clip(scores, _CLIP, 1 - _CLIP)
    columns = np.stack([np.log(scores), -np.log1p(-scores)])
    if columns.std(1).min() < 1e-6:
        raise InputError(f"calibration of {what}: all are equal: the network gives no scores that can be calibrated")
    positives = outcomes.sum()
    high, low = (positives + 1) / (positives + 2), 1 / (len(outcomes) - positives + 2)
    targets = low + (high - low) * outcomes
    # As the authors do: a column with a negative weight is left out.
    used = [0, 1]
    while used:
        weights, intercept = _maximum(columns[used], targets)
        if (weights >= 0).all() and weights.any():
            found = np.zeros(2)
            found[used] = weights
            return (*found.tolist(), intercept)
        used.remove(used[int(np.argmin(weights))])
    raise InputError(
        f"calibration of {what}: higher scores do not mean better joints: train longer, or give records like those of "
        "the training"
    )


def _maximum(columns, targets):
    """Logistic regression of targets [M] in 0..1 by Newton's method with step halving.

    Args:
        columns: [C, M].
        targets: [M].

    Returns:
        (weights [C], intercept).
    """
    centres, spreads = columns.mean(1, keepdims=True), columns.std(1, keepdims=True)
    rows = np.concatenate([(columns - centres) / spreads, np.ones((1, len(targets)))])
    weights = np.zeros(len(rows))

    def loss(weights):
        values = weights @ rows
        return np.sum(np.logaddexp(0, values) - targets * values)

    for _ in range(_STEPS):
        expected = 0.5 * (1 + np.tanh(weights @ rows / 2))
        gradient = rows @ (expected - targets)
        # The addition is for columns that are multiples of each other, as with two different scores.
        curvature = (rows * (expected * (1 - expected))) @ rows.T
        step = np.linalg.solve(curvature + 1e-9 * np.trace(curvature) * np.eye(len(rows)), gradient)
        share, before = 1.0, loss(weights)
        while share > 1e-9 and not loss(weights - share * step) <= before:
            share /= 2
        weights = weights - share * step
        if np.abs(share * step).max() < 1e-10:
            break
    slopes = weights[:-1] / spreads[:, 0]
    return slopes, float(weights[-1] - slopes @ centres[:, 0])
