"""Predictions against labels, offline: the tables of metrics.json."""

import numpy as np
from keras import ops

from kpose.metrics import pose

PDJ_THRESHOLDS = (0.1, 0.2)
# Of the torso diameter.
CURVE = tuple(round(0.05 * step, 2) for step in range(1, 11))


def pcp_table(truth, prediction, skeleton):
    """PCP at 0.5 by rule and limb group.

    Args:
        truth: [N, K, 3] in original pixels.
        prediction: [N, K, 2] in original pixels.
        skeleton: the `Skeleton`.

    Returns:
        {"strict": {group: fraction, ..., "average": fraction}, "mean": the same}; None where nothing counted.
    """
    table = {}
    for rule in pose.RULES:
        correct, counted = _counts(pose.correct_limbs(truth, prediction, skeleton, rule))
        groups, start = {}, 0
        for group, limbs in skeleton.limbs.items():
            span = slice(start, start + len(limbs))
            groups[group] = _fraction(correct[span].sum(), counted[span].sum())
            start += len(limbs)
        present = [value for value in groups.values() if value is not None]
        table[rule] = groups | {"average": _fraction(sum(present), len(present))}
    return table


def limb_table(truth, prediction, skeleton):
    """PCP at 0.5 by rule and limb: {"strict": {limb: fraction}, "mean": the same}, arguments as for `pcp_table`."""
    table = {}
    for rule in pose.RULES:
        pairs = zip(*_counts(pose.correct_limbs(truth, prediction, skeleton, rule)), strict=True)
        table[rule] = {name: _fraction(*pair) for name, pair in zip(skeleton.limb_names, pairs, strict=True)}
    return table


def pdj_table(truth, prediction, skeleton):
    """PDJ by threshold: {"0.1": fraction of the joints, ...}, arguments as for `pcp_table`."""
    table = {}
    for threshold in PDJ_THRESHOLDS:
        correct, counted = _counts(pose.detected_joints(truth, prediction, skeleton, threshold))
        table[str(threshold)] = _fraction(correct.sum(), counted.sum())
    return table


def pdj_curve(truth, prediction, skeleton):
    """PDJ at every threshold of `CURVE`: {"thresholds": [...], "pdj": [...]}, arguments as for `pcp_table`."""
    pairs = [_counts(pose.detected_joints(truth, prediction, skeleton, threshold)) for threshold in CURVE]
    return {"thresholds": list(CURVE), "pdj": [_fraction(correct.sum(), counted.sum()) for correct, counted in pairs]}


def pck_table(truth, prediction, boxes, skeleton, threshold=0.2):
    """PCK: joints within `threshold` times the longer side of the person's box (Yang and Ramanan, TPAMI 2013).

    Args:
        truth, prediction: as for `pcp_table`.
        boxes: [N, 4] xywh in original pixels.

    Returns:
        {"threshold": ..., "average": over all labelled joints, joint: fraction, ...}; None where nothing counted.
    """
    labelled = truth[..., 2] > 0
    errors = np.linalg.norm(np.asarray(prediction, np.float64) - truth[..., :2], axis=-1)
    correct = labelled & (errors <= threshold * np.max(boxes[:, 2:], axis=-1)[:, None])
    by_joint = {joint: _fraction(correct[:, k].sum(), labelled[:, k].sum()) for k, joint in enumerate(skeleton.joints)}
    return {"threshold": threshold, "average": _fraction(correct.sum(), labelled.sum())} | by_joint


def joint_errors(truth, prediction, skeleton):
    """joint -> {"mean", "median"} error in original pixels and the "mean_of_torso", in torso diameters; None: no joint.

    Arguments as for `pcp_table`.
    """
    labelled = truth[..., 2] > 0
    errors = np.linalg.norm(np.asarray(prediction, np.float64) - truth[..., :2], axis=-1)
    one, other = skeleton.torso
    torso = np.linalg.norm(np.asarray(truth[:, one, :2] - truth[:, other, :2], np.float64), axis=-1)
    whole = labelled[:, one] & labelled[:, other] & (torso > 0)
    table = {}
    for k, joint in enumerate(skeleton.joints):
        found, scaled = errors[labelled[:, k], k], (errors[:, k] / np.where(whole, torso, 1))[labelled[:, k] & whole]
        table[joint] = {
            "mean": float(found.mean()) if len(found) else None,
            "median": float(np.median(found)) if len(found) else None,
            "mean_of_torso": float(scaled.mean()) if len(scaled) else None,
        }
    return table


def person_errors(truth, prediction, boxes):
    """[N] the mean error over a person's labelled joints, in sides of the box (the longer); NaN without any."""
    labelled = truth[..., 2] > 0
    errors = np.linalg.norm(np.asarray(prediction, np.float64) - truth[..., :2], axis=-1)
    with np.errstate(invalid="ignore"):
        return (errors * labelled).sum(1) / labelled.sum(1) / np.max(boxes[:, 2:], axis=-1)


def subsets(truth, area):
    """name -> [N] whether a person belongs to it: fully visible, by COCO's sizes, by how many joints are labelled.

    Args:
        truth: [N, K, 3].
        area: [N] the persons' areas in square pixels.
    """
    count, joints = (truth[..., 2] > 0).sum(1), truth.shape[1]
    first, second = joints // 3, 2 * joints // 3
    return {
        "fully visible": (truth[..., 2] == 2).all(1),
        "small (area under 32 x 32)": area < 32**2,
        "medium (under 96 x 96)": (area >= 32**2) & (area < 96**2),
        "large": area >= 96**2,
        f"1 to {first} labelled joints": (count >= 1) & (count <= first),
        f"{first + 1} to {second} labelled joints": (count > first) & (count <= second),
        f"{second + 1} to {joints} labelled joints": count > second,
    }


def visibility_table(truth, scores):
    """How well predicted visibility tells labelled joints from the others.

    Args:
        truth: [N, K, 3]; a joint is positive where its flag is above 0.
        scores: [N, K] the predicted visibility.

    Returns:
        {"auc": area under the ROC curve, "f1" and "accuracy" at 0.5, "labelled": the fraction of positives}; None for a
        figure that is not defined.
    """
    positive, scores = np.ravel(truth[..., 2] > 0), np.ravel(scores).astype(np.float64)
    total, positives = positive.size, int(positive.sum())
    chosen = scores > 0.5
    hits = int((chosen & positive).sum())
    return {
        "auc": _area_under_roc(positive, scores),
        "f1": _fraction(2 * hits, int(chosen.sum()) + positives),
        "accuracy": _fraction(int((chosen == positive).sum()), total),
        "labelled": _fraction(positives, total),
    }


def _area_under_roc(positive, scores):
    """The probability that a positive scores above a negative, a tie counting half (Mann and Whitney)."""
    positives = int(positive.sum())
    negatives = positive.size - positives
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    above = ranks[positive].sum() - positives * (positives + 1) / 2
    return _fraction(above, positives * negatives)


def _counts(correct_and_counted):
    """Sums over persons: two float64 arrays, by limb or joint."""
    return [ops.convert_to_numpy(array).astype(np.float64).sum(0) for array in correct_and_counted]


def _fraction(part, whole):
    return float(part / whole) if whole else None
