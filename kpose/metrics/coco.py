"""COCO keypoint results, and OKS AP by pycocotools."""

import contextlib
import io

import numpy as np

from kpose.core import files
from kpose.core.errors import InputError

# The id of the category "person" in COCO.
PERSON_CATEGORY = 1
OKS_NAMES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


def coco_results(image_ids, boxes, keypoints, scores):
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
            "category_id": PERSON_CATEGORY,
            "bbox": [float(value) for value in box],
            "keypoints": [round(float(value), 4) for value in np.ravel(person)],
            "score": float(score),
        }
        for image_id, box, person, score in zip(image_ids, boxes, keypoints, scores, strict=True)
    ]


def oks_ap(annotations_path, results, annotation_ids, skeleton, image_ids=None):
    """COCO's keypoint AP and AR over the chosen persons.

    Args:
        annotations_path: COCO keypoint JSON file, plain or .gz.
        results: COCO keypoint results.
        annotation_ids: ids of the persons' annotations. Other annotations of the file are ignored,
            as COCO ignores crowds.
        skeleton: the `Skeleton` that has the sigmas.
        image_ids: the images to evaluate on; None: those with results.

    Returns:
        The ten metrics of `pycocotools.cocoeval.COCOeval` by name; None for a metric without
        persons.

    Raises:
        InputError: the file lacks some of the persons.
    """
    # Imported here: pycocotools imports matplotlib, and prediction needs only `coco_results`.
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    wanted = {int(i) for i in annotation_ids}
    data = files.read_json(annotations_path, "annotation file")
    found = wanted & {a.get("id") for a in data.get("annotations", ())}
    if found != wanted:
        raise InputError(
            f"{annotations_path}: {len(wanted - found)} of the {len(wanted)} persons in the records are not in it: "
            "give the annotations that the records were written from"
        )
    # COCOeval ignores persons without labelled joints: 0 labelled joints leave the other persons
    # out.
    persons = [a if a["id"] in wanted else a | {"num_keypoints": 0} for a in data["annotations"] if "keypoints" in a]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = data | {"annotations": persons}
        truth.createIndex()
        # Copies, because loadRes adds fields to the results.
        evaluation = COCOeval(truth, truth.loadRes([dict(result) for result in results]), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        evaluation.params.imgIds = image_ids or sorted({result["image_id"] for result in results})
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: None if value < 0 else float(value) for name, value in zip(OKS_NAMES, evaluation.stats, strict=True)}
