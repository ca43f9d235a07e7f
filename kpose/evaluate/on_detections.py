"""COCO keypoint results of any source against labels: a detector's boxes, and a model's answers for them."""

import math
import os

import numpy as np
from absl import logging

from kpose.core import files, geometry, skeletons
from kpose.core.errors import InputError
from kpose.evaluate import figures, on_records
from kpose.metrics import coco, tables
from kpose.models import decoding

# A result answers for the person whose box it shares this much of (intersection over union), as COCO counts boxes.
MIN_OVERLAP = 0.5


def evaluate(results_path, annotations_path, output_dir):
    """Measures results whose boxes are not the labels', over all labelled persons of the annotations.

    Each person is answered for by at most one result: by score, the best first, each result takes the person it
    overlaps most among those that are left. PCP and PDJ are those of the persons found; with those who were not found
    counted as wrong, PCP stands under `pcp_of_all`. The mean pose is that of the labels themselves, in the same boxes.

    Args:
        results_path: COCO keypoint results with their `bbox`, as `kpose.predict` writes them. Their images are known by
            `file_name` where they have one, else by `image_id`.
        annotations_path: the COCO file of the images. Those without a result count as images where nobody was found.
        output_dir: where metrics.json, report.html and pcp.png go.

    Returns:
        The dict of metrics.json.

    Raises:
        InputError: files that are no results or annotations, of other images, or without anybody found.
    """
    results = files.read_json(results_path, "keypoint results")
    data = files.read_json(annotations_path, "annotation file")
    joints = _check(results, results_path)
    skeleton = next((table for table in skeletons.SKELETONS.values() if table.num_joints == joints), None)
    if skeleton is None:
        raise InputError(f"{results_path}: {joints} joints a person: no skeleton has as many")
    persons = [a for a in data.get("annotations", ()) if a.get("num_keypoints") and not a.get("iscrowd")]
    for person in persons:
        for field in ("id", "image_id", "bbox", "keypoints"):
            if field not in person:
                raise InputError(f"{annotations_path}: the person {person.get('id', '')} lacks {field!r}")
        if len(person["keypoints"]) != 3 * joints:
            raise InputError(
                f"{results_path} has {joints} joints a person, {annotations_path} {len(person['keypoints']) // 3}: "
                "give annotations of the same skeleton"
            )
    images = {image["id"] for image in data.get("images", ())}
    results = _with_ids_of(data, results)
    others = {result["image_id"] for result in results} - images
    if others:
        raise InputError(
            f"{results_path}: image {min(others)} is not in {annotations_path}: give the annotations of the same images"
        )
    pairs = match(persons, results)
    if not pairs:
        raise InputError(f"{results_path}: none of {len(results)} results overlaps a labelled person by {MIN_OVERLAP}")

    def labels_of(some):
        return np.array([a["keypoints"] for a in some], np.float32).reshape(len(some), joints, 3)

    found, answers = zip(*pairs, strict=True)
    truth = labels_of(found)
    prediction = np.array([r["keypoints"] for r in answers], np.float32).reshape(truth.shape)[..., :2]
    mean_prediction = decoding.place(_mean_pose(truth, _boxes(found)), _boxes(answers))
    missed = labels_of([person for person in persons if not any(person is other for other in found)])
    everyone = np.concatenate([truth, missed])
    # Nowhere near anything.
    far = np.full_like(missed[..., :2], -1e6)
    boxes = _boxes(found)
    areas = np.array([person.get("area", box[2] * box[3]) for person, box in zip(found, boxes, strict=True)])
    table = figures.figures(truth, prediction, mean_prediction, boxes, areas, skeleton) | {
        "pcp_of_all": tables.pcp_table(everyone, np.concatenate([prediction, far]), skeleton),
        "oks_ap": coco.oks_ap(annotations_path, results, [a["id"] for a in persons], skeleton, sorted(images)),
        "visibility": None,
        "num_persons": len(truth),
        "num_labelled_persons": len(persons),
        "num_results": len(results),
        "num_images": len(images),
        "num_images_with_results": len({result["image_id"] for result in results}),
        "min_overlap": MIN_OVERLAP,
        "box_source": f"those of {results_path}",
        "annotations": annotations_path,
        # The results do not say what they were made with.
        "flip_test": None,
        "records": None,
        "checkpoint": None,
        "recipe": os.path.basename(results_path),
    }
    files.write_json(os.path.join(output_dir, "metrics.json"), table)
    on_records.write_pictures(table, {"truth": truth, "keypoints": prediction, "box": boxes}, {}, skeleton, output_dir)
    for line in describe(table):
        logging.info("%s", line)
    return table


def describe(table):
    """The lines that an evaluation of results prints."""
    first, *lines = figures.describe(table)
    everyone = table["pcp_of_all"]["strict"]["average"]
    return [
        f"{table['num_results']} results in {table['num_images_with_results']} of {table['num_images']} images; of "
        f"{table['num_labelled_persons']} labelled persons, {table['num_persons']} are found by a box (IoU >= "
        f"{table['min_overlap']}); of these:",
        *lines,
        f"PCP, strict, those not found counted as wrong: {100 * everyone:.1f}%",
    ]


def match(persons, results):
    """[(person, result)], for the persons found, by the rule that `evaluate` states.

    Args:
        persons: COCO annotations.
        results: COCO results with `bbox`, `image_id` and `score`.
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
    return pairs


def overlap(first, second):
    """Intersection over union of boxes [N, 4] and [M, 4], xywh: [N, M]; 0 where both are empty."""
    first, second = first[:, None], second[None]
    start = np.maximum(first[..., :2], second[..., :2])
    end = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    shared = np.maximum(end - start, 0).prod(-1)
    union = first[..., 2:].prod(-1) + second[..., 2:].prod(-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _with_ids_of(data, results):
    """The results with the annotations' image ids, where they name their files: a detector knows no ids."""
    ids = {os.path.basename(str(image.get("file_name"))): image["id"] for image in data.get("images", ())}
    names = [os.path.basename(str(result.get("file_name"))) for result in results]
    return [
        result | {"image_id": ids.get(name, result["image_id"])} for name, result in zip(names, results, strict=True)
    ]


def _boxes(entries):
    return np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)


def _mean_pose(truth, boxes):
    """[K, 2]: each joint's mean place in its person's box, over the persons who have it labelled."""
    labelled = truth[..., 2:] > 0
    boxes = np.maximum(boxes, [-np.inf, -np.inf, 1e-3, 1e-3])
    places = np.where(labelled, geometry.normalise(truth[..., :2], boxes), 0)
    return places.sum(0) / np.maximum(labelled.sum(0), 1)


def _check(results, path):
    """The number of joints of the results; an error unless they are COCO keypoint results with boxes."""
    if not isinstance(results, list) or not results:
        raise InputError(f"{path}: no list of COCO keypoint results, or an empty one")
    for number, result in enumerate(results):
        for field in ("image_id", "bbox", "keypoints", "score"):
            if not isinstance(result, dict) or field not in result:
                raise InputError(f"{path}: result {number} lacks {field!r}: kpose.predict writes it")
        for field in ("bbox", "keypoints"):
            if not (isinstance(result[field], list) and all(_is_number(value) for value in result[field])):
                raise InputError(f"{path}: result {number} has {field!r} that is no list of numbers")
        if len(result["bbox"]) != 4 or not _is_number(result["score"]):
            raise InputError(f"{path}: result {number}: 'bbox' must be four numbers, and 'score' a number")
    lengths = {len(result["keypoints"]) for result in results}
    if len(lengths) > 1 or min(lengths) % 3:
        raise InputError(f"{path}: {sorted(lengths)} numbers a person: COCO has three for each joint")
    return min(lengths) // 3


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
