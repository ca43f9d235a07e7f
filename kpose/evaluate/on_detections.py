"""Evaluates COCO keypoint results whose boxes are not the labels', such as those of a detector."""

import math
import os

import numpy as np
from absl import logging

from kpose.core import files, geometry, skeletons
from kpose.core.errors import InputError
from kpose.evaluate import report, summary
from kpose.metrics import bootstrap, coco, tables
from kpose.models import decoding

# The smallest overlap (intersection over union) of a result's box and a person's box that makes
# them a match. COCO evaluates boxes with the same threshold.
MIN_OVERLAP = 0.5

# The prediction for a person without a result: no limb is correct with it.
FAR_AWAY = -1e6


def evaluate(results_path, annotations_path, output_dir):
    """Evaluates keypoint results on all labelled persons of the annotations.

    `match` assigns at most one result to each person. PCP and PDJ are those of the persons found.
    `pcp_of_all` also counts the persons that were not found, as wrong. The mean pose is that of the
    labels, placed in the results' boxes.

    Args:
        results_path: file of COCO keypoint results with `bbox`, as `kpose.predict` writes it. A
            result names its image by `file_name`, or else by `image_id`.
        annotations_path: COCO file of the images. An image without a result counts as one where no
            person was found.
        output_dir: folder for metrics.json, report.html and pcp.png.

    Returns:
        The dict of metrics.json.

    Raises:
        InputError: a file does not hold results or annotations, the files are of different images,
            or no person was found.
    """
    results = files.read_json(results_path, "keypoint results")
    data = files.read_json(annotations_path, "annotation file")
    skeleton = _check_results(results, results_path)
    labelled = _labelled_persons(data, annotations_path, skeleton, results_path)
    images = {image["id"] for image in data.get("images", ())}
    results = _with_image_ids(results, data)
    _check_images(results, images, results_path, annotations_path)
    pairs, missed = match(labelled, results)
    if not pairs:
        raise InputError(
            f"{results_path}: no box of {len(results)} results overlaps a labelled person by {MIN_OVERLAP} or more"
        )
    metrics = _score(pairs, missed, skeleton) | {
        "oks_ap": coco.oks_ap(annotations_path, results, [p["id"] for p in labelled], skeleton, sorted(images)),
        "visibility": None,
        "num_persons": len(pairs),
        "num_labelled_persons": len(labelled),
        "num_results": len(results),
        "num_images": len(images),
        "num_images_with_results": len({result["image_id"] for result in results}),
        "min_overlap": MIN_OVERLAP,
        "box_source": f"those of {results_path}",
        "annotations": annotations_path,
        # The file of results does not contain these facts.
        "flip_test": None,
        "records": None,
        "checkpoint": None,
        "recipe": os.path.basename(results_path),
    }
    files.write_json(os.path.join(output_dir, summary.METRICS_FILE), metrics)
    report.write(output_dir, metrics, _persons(pairs, skeleton), pictures={})
    for line in describe(metrics):
        logging.info("%s", line)
    return metrics


def describe(metrics):
    """The lines that an evaluation of results prints."""
    first, *lines = summary.describe(metrics)
    everyone = metrics["pcp_of_all"]["strict"]["average"]
    return [
        f"{metrics['num_results']} results in {metrics['num_images_with_results']} of {metrics['num_images']} images; "
        f"of {metrics['num_labelled_persons']} labelled persons, {metrics['num_persons']} are found by a box (IoU >= "
        f"{metrics['min_overlap']}); of these:",
        *lines,
        f"PCP, strict, those not found counted as wrong: {100 * everyone:.1f}%",
    ]


def match(persons, results):
    """Assigns results to persons, at most one to each.

    The results are assigned by score, the highest first. Each gets the person in its image whose
    box it overlaps most, among those that have no result yet, if they overlap by `MIN_OVERLAP` or
    more.

    Args:
        persons: COCO annotations.
        results: COCO results with `bbox`, `image_id` and `score`.

    Returns:
        ([(person, result)], [person without a result]).
    """
    left = {}
    for person in persons:
        left.setdefault(person["image_id"], []).append(person)
    pairs = []
    for result in sorted(results, key=lambda r: -r["score"]):
        candidates = left.get(result["image_id"])
        if not candidates:
            continue
        overlaps = overlap(_boxes(candidates), _boxes([result]))[:, 0]
        best = int(np.argmax(overlaps))
        if overlaps[best] >= MIN_OVERLAP:
            pairs.append((candidates.pop(best), result))
    return pairs, [person for candidates in left.values() for person in candidates]


def overlap(first, second):
    """Intersection over union of boxes.

    Args:
        first, second: [N, 4] and [M, 4] xywh.

    Returns:
        [N, M]; 0 where both boxes are empty.
    """
    first, second = first[:, None], second[None]
    start = np.maximum(first[..., :2], second[..., :2])
    end = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    shared = np.maximum(end - start, 0).prod(-1)
    union = first[..., 2:].prod(-1) + second[..., 2:].prod(-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _score(pairs, missed, skeleton):
    """The metrics of metrics.json that need no COCO evaluation."""
    persons = _persons(pairs, skeleton)
    truth, prediction = persons["truth"], persons["keypoints"]
    mean_points = decoding.place(_mean_pose(truth, persons["box"]), _boxes([result for _, result in pairs]))
    counts = bootstrap.person_counts(truth, prediction, skeleton)
    missed_truth = _keypoints(missed, skeleton)
    all_truth = np.concatenate([truth, missed_truth])
    all_predictions = np.concatenate([prediction, np.full_like(missed_truth[..., :2], FAR_AWAY)])
    return summary.compute_metrics(persons, mean_points, counts, skeleton) | {
        "pcp_of_all": tables.pcp_table(all_truth, all_predictions, skeleton)
    }


def _persons(pairs, skeleton):
    """The found persons as the arrays that `summary.compute_metrics` takes."""
    found, results = zip(*pairs, strict=True)
    boxes = _boxes(found)
    return {
        "truth": _keypoints(found, skeleton),
        "keypoints": _keypoints(results, skeleton)[..., :2],
        "box": boxes,
        "area": np.array([person.get("area", box[2] * box[3]) for person, box in zip(found, boxes, strict=True)]),
    }


def _keypoints(entries, skeleton):
    """[N, K, 3] float32: the `keypoints` of COCO annotations or results."""
    return np.array([entry["keypoints"] for entry in entries], np.float32).reshape(len(entries), skeleton.num_joints, 3)


def _boxes(entries):
    """[N, 4] float64 xywh: the `bbox` of COCO annotations or results."""
    return np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)


def _mean_pose(truth, boxes):
    """[K, 2]: the mean position of each labelled joint, normalised by the boxes."""
    labelled = truth[..., 2:] > 0
    boxes = np.maximum(boxes, [-np.inf, -np.inf, 1e-3, 1e-3])
    points = np.where(labelled, geometry.normalise(truth[..., :2], boxes), 0)
    return points.sum(0) / np.maximum(labelled.sum(0), 1)


def _check_results(results, path):
    """Checks that these are COCO keypoint results with boxes; returns their `Skeleton`."""
    if not isinstance(results, list) or not results:
        raise InputError(f"{path}: not a list of COCO keypoint results, or an empty one")
    for number, result in enumerate(results):
        for field in ("image_id", "bbox", "keypoints", "score"):
            if not isinstance(result, dict) or field not in result:
                raise InputError(f"{path}: result {number} lacks {field!r}, which kpose.predict writes")
        for field in ("bbox", "keypoints"):
            if not (isinstance(result[field], list) and all(_is_number(value) for value in result[field])):
                raise InputError(f"{path}: result {number}: {field!r} is not a list of numbers")
        if len(result["bbox"]) != 4 or not _is_number(result["score"]):
            raise InputError(f"{path}: result {number}: 'bbox' must be four numbers, and 'score' a number")
    lengths = {len(result["keypoints"]) for result in results}
    if len(lengths) > 1 or min(lengths) % 3:
        raise InputError(
            f"{path}: 'keypoints' has {' or '.join(map(str, sorted(lengths)))} numbers: COCO has three for each joint"
        )
    joints = min(lengths) // 3
    skeleton = next((table for table in skeletons.SKELETONS.values() if table.num_joints == joints), None)
    if skeleton is None:
        raise InputError(f"{path}: {joints} joints for each person: no skeleton has this number of joints")
    return skeleton


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _labelled_persons(data, path, skeleton, results_path):
    """The annotations of persons with a labelled joint, without crowds; checks their joints."""
    persons = [a for a in data.get("annotations", ()) if a.get("num_keypoints") and not a.get("iscrowd")]
    for person in persons:
        for field in ("id", "image_id", "bbox", "keypoints"):
            if field not in person:
                raise InputError(f"{path}: the person {person.get('id', '')} lacks {field!r}")
        if len(person["keypoints"]) != 3 * skeleton.num_joints:
            raise InputError(
                f"{results_path} has {skeleton.num_joints} joints for each person, {path} has "
                f"{len(person['keypoints']) // 3}: give annotations of the same skeleton"
            )
    return persons


def _with_image_ids(results, data):
    """The results, with the image ids of the annotations where a result names its file."""
    ids = {os.path.basename(str(image.get("file_name"))): image["id"] for image in data.get("images", ())}
    names = [os.path.basename(str(result.get("file_name"))) for result in results]
    return [
        result | {"image_id": ids.get(name, result["image_id"])} for name, result in zip(names, results, strict=True)
    ]


def _check_images(results, images, results_path, annotations_path):
    """Raises `InputError` unless the image of each result is one of the annotations' images."""
    unknown = {result["image_id"] for result in results} - images
    if unknown:
        raise InputError(
            f"{results_path}: image {min(unknown)} is not in {annotations_path}: give the annotations of the same "
            "images"
        )
