"""Predictions compared with labels: the tables of metrics.json."""

import numpy as np
from keras import ops

from kpose.metrics import pose

# Thresholds of PDJ, in torso diameters: those of the table and those of the curve.
PDJ_THRESHOLDS = (0.1, 0.2)
CURVE_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 11))


def pcp_table(truth, prediction, skeleton):
    """PCP at 0.5 by rule and limb group.

    Args:
        truth: [N, K, 3] in original pixels.
        prediction: [N, K, 2] in original pixels.
        skeleton: the `Skeleton`.

    Returns:
        {"strict": {group: fraction, ..., "average": fraction}, "mean": the same}; None where
        nothing counted.
    """
    table = {}
    for rule in pose.RULES:
        limbs = _sums(pose.correct_limbs(truth, prediction, skeleton, rule))
        correct, counted = (pose.sum_by_group(values, skeleton, np) for values in limbs)
        groups = {group: _fraction(*pair) for group, *pair in zip(skeleton.limbs, correct, counted, strict=True)}
        average, present = pose.mean_of_groups(correct, counted, np)
        table[rule] = groups | {"average": float(average) if present else None}
    return table


def limb_table(truth, prediction, skeleton):
    """PCP at 0.5 by rule and limb: {"strict": {limb: fraction}, "mean": the same}.

    Arguments as for `pcp_table`.
    """
    table = {}
    for rule in pose.RULES:
        pairs = zip(*_sums(pose.correct_limbs(truth, prediction, skeleton, rule)), strict=True)
        table[rule] = {name: _fraction(*pair) for name, pair in zip(skeleton.limb_names, pairs, strict=True)}
    return table


def pdj_table(truth, prediction, skeleton, boxes=None):
    """PDJ by threshold: {"0.1": fraction of the joints, ...}.

    Args:
        truth, prediction, skeleton: as for `pcp_table`.
        boxes: [N, 4] xywh in original pixels; only a skeleton without a torso needs them.
    """
    return {str(threshold): _pdj(truth, prediction, skeleton, threshold, boxes) for threshold in PDJ_THRESHOLDS}


def pdj_curve(truth, prediction, skeleton, boxes=None):
    """PDJ by threshold, for a curve: {"thresholds": [...], "pdj": [...]}.

    Arguments as for `pdj_table`.
    """
    values = [_pdj(truth, prediction, skeleton, threshold, boxes) for threshold in CURVE_THRESHOLDS]
    return {"thresholds": list(CURVE_THRESHOLDS), "pdj": values}


def _pdj(truth, prediction, skeleton, threshold, boxes):
    sides = None if boxes is None else pose.longer_sides(boxes)
    correct, counted = _sums(pose.detected_joints(truth, prediction, skeleton, threshold, sides))
    return _fraction(correct.sum(), counted.sum())


def pck_table(truth, prediction, boxes, skeleton, threshold=0.2):
    """PCK by joint: joints within `threshold` times the longer side of the person's box.

    Args:
        truth, prediction: as for `pcp_table`.
        boxes: [N, 4] xywh in original pixels.
        skeleton: the `Skeleton`.
        threshold: fraction of the longer side.

    Returns:
        {"threshold": ..., "average": over all labelled joints, joint: fraction, ...}; None where
        nothing counted.
    """
    correct, labelled = pose.correct_keypoints(truth, prediction, boxes, threshold)
    by_joint = {joint: _fraction(correct[:, k].sum(), labelled[:, k].sum()) for k, joint in enumerate(skeleton.joints)}
    return {"threshold": threshold, "average": _fraction(correct.sum(), labelled.sum())} | by_joint


def joint_error_table(truth, prediction, skeleton):
    """Errors of the labelled joints, by joint; arguments as for `pcp_table`.

    Returns:
        {joint: {"mean", "median": in original pixels, "mean_of_torso": in torso diameters}}; None
        where nothing counted. The last counts only persons whose two torso joints are labelled;
        it is None if the skeleton has no torso.
    """
    errors, labelled = pose.joint_errors(truth, prediction)
    torso, has_torso = np.zeros(len(errors)), np.zeros(len(errors), bool)
    if skeleton.torso:
        one, other = skeleton.torso
        torso = np.linalg.norm(np.asarray(truth[:, one, :2] - truth[:, other, :2], np.float64), axis=-1)
        has_torso = labelled[:, one] & labelled[:, other] & (torso > 0)
    in_torsos = errors / np.where(has_torso, torso, 1)[:, None]
    table = {}
    for k, joint in enumerate(skeleton.joints):
        found, scaled = errors[labelled[:, k], k], in_torsos[labelled[:, k] & has_torso, k]
        table[joint] = {
            "mean": float(found.mean()) if len(found) else None,
            "median": float(np.median(found)) if len(found) else None,
            "mean_of_torso": float(scaled.mean()) if len(scaled) else None,
        }
    return table


def person_errors(truth, prediction, boxes):
    """Each person's mean error over the labelled joints, relative to the longer side of the box.

    Args:
        truth, prediction: as for `pcp_table`.
        boxes: [N, 4] xywh in original pixels.

    Returns:
        [N] float64; NaN for a person without a labelled joint.
    """
    errors, labelled = pose.joint_errors(truth, prediction)
    with np.errstate(invalid="ignore"):
        return (errors * labelled).sum(1) / labelled.sum(1) / pose.longer_sides(boxes)


def subsets(truth, area):
    """Subsets of the persons: fully visible, by COCO's sizes, by the number of labelled joints.

    Args:
        truth: [N, K, 3].
        area: [N] the persons' areas in square pixels.

    Returns:
        {name: [N] bool, whether each person belongs to the subset}.
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
    """How well the predicted visibility separates labelled joints from unlabelled joints.

    Args:
        truth: [N, K, 3]; a joint is positive where its flag is above 0, negative where it is 0. A
            joint with flag -1 does not count: the data set never labels it.
        scores: [N, K] the predicted visibility.

    Returns:
        {"auc": area under the ROC curve, "f1" and "accuracy" at 0.5, "labelled": the fraction of
        positives}; None for a metric that is not defined.
    """
    known = truth[..., 2] >= 0
    positive, scores = truth[known][..., 2] > 0, np.asarray(scores, np.float64)[known]
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
    """The probability that a positive scores above a negative; a tie counts half (Mann-Whitney)."""
    positives = int(positive.sum())
    negatives = positive.size - positives
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    above = ranks[positive].sum() - positives * (positives + 1) / 2
    return _fraction(above, positives * negatives)


def _sums(correct_and_counted):
    """Sums over persons: two float64 arrays, by limb or joint."""
    return [ops.convert_to_numpy(array).astype(np.float64).sum(0) for array in correct_and_counted]


def _fraction(part, total):
    return float(part / total) if total else None
