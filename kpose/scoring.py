"""Predictions against labels, offline: the tables of metrics.json."""

import contextlib
import io

import numpy as np
from keras import ops

from kpose import metrics
from kpose.errors import InputError

PDJ_THRESHOLDS = (0.1, 0.2)
OKS_NAMES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


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
    for rule in metrics.RULES:
        correct, counted = _counts(metrics.correct_limbs(truth, prediction, skeleton, rule))
        groups, start = {}, 0
        for group, limbs in skeleton.limbs.items():
            span = slice(start, start + len(limbs))
            groups[group] = _fraction(correct[span].sum(), counted[span].sum())
            start += len(limbs)
        present = [value for value in groups.values() if value is not None]
        table[rule] = groups | {"average": _fraction(sum(present), len(present))}
    return table


def pdj_table(truth, prediction, skeleton):
    """PDJ by threshold: {"0.1": fraction of the joints, ...}, arguments as for `pcp_table`."""
    table = {}
    for threshold in PDJ_THRESHOLDS:
        correct, counted = _counts(metrics.detected_joints(truth, prediction, skeleton, threshold))
        table[str(threshold)] = _fraction(correct.sum(), counted.sum())
    return table


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


def coco_results(image_ids, boxes, keypoints, scores, category_id=1):
    """Predictions as COCO keypoint results, in the order given.

    Args:
        image_ids: N ids.
        boxes: N boxes, xywh in original pixels, as they were given.
        keypoints: [N, K, 3]: x, y in original pixels and the joint's score.
        scores: [N] the persons' scores.

    Returns:
        N dicts with image_id, category_id, bbox, keypoints (3K numbers) and score.
    """
    return [
        {
            "image_id": image_id,
            "category_id": category_id,
            "bbox": [float(value) for value in box],
            "keypoints": [round(float(value), 4) for value in np.ravel(person)],
            "score": float(score),
        }
        for image_id, box, person, score in zip(image_ids, boxes, keypoints, scores, strict=True)
    ]


def oks_ap(annotations_path, results, annotation_ids, skeleton):
    """COCO's keypoint AP and AR over the persons that were predicted for.

    Args:
        annotations_path: COCO keypoint JSON file, plain or .gz.
        results: COCO keypoint results, one for each person.
        annotation_ids: the persons' annotations. Others of the file are ignored, as COCO ignores crowds: nobody
            was asked about them.
        skeleton: whose sigmas to use.

    Returns:
        The ten figures of `pycocotools.cocoeval.COCOeval` by name; None for one that has no persons.

    Raises:
        InputError: the file does not hold those persons.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from kpose import files

    wanted = {int(i) for i in annotation_ids}
    data = files.read_json(annotations_path, "annotation file")
    found = wanted & {a.get("id") for a in data.get("annotations", ())}
    if found != wanted:
        raise InputError(
            f"{annotations_path}: {len(wanted - found)} of the {len(wanted)} persons in the records are not in it: "
            "give the annotations that the records were written from"
        )
    # COCOeval ignores persons without labelled joints; that is how the others are left out.
    persons = [a if a["id"] in wanted else a | {"num_keypoints": 0} for a in data["annotations"] if "keypoints" in a]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = data | {"annotations": persons}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        evaluation.params.imgIds = sorted({result["image_id"] for result in results})
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: None if value < 0 else float(value) for name, value in zip(OKS_NAMES, evaluation.stats, strict=True)}
