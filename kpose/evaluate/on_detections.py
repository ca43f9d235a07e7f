"""Evaluates COCO keypoint results whose boxes are not the labels', such as those of a detector."""

import dataclasses
import os

import numpy as np
from absl import logging

from kpose.core import boxes as core_boxes
from kpose.core import files, geometry, skeletons
from kpose.core.errors import InputError
from kpose.data import coco_files, coco_names, coco_skeleton
from kpose.evaluate import report, summary
from kpose.metrics import bootstrap, coco, tables
from kpose.models import decoding

# The smallest overlap (intersection over union) of a result's box and a person's box that makes
# them a match. COCO evaluates boxes with the same threshold.
MIN_OVERLAP = 0.5

# The prediction for a person without a result: no limb is correct with it.
FAR_AWAY = -1e6


def evaluate(results_path, annotations_path, output_dir, pixel_offset=None, skeleton=skeletons.AUTO):
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
        pixel_offset: of the annotations, as for `coco_files.read_labels`; None: that of COCO.
        skeleton: the `Skeleton` of the results' keypoints, in its order; or "auto": that of the
            annotations.

    Returns:
        The dict of metrics.json.

    Raises:
        InputError: a file does not hold results or annotations, the files are of different images,
            or no person was found.
    """
    files.check_folder_for_output(output_dir)
    rows, names = coco_files.read_results(results_path)
    num_joints = _joints_of(rows, results_path)
    data = coco_files.load(annotations_path, "annotation file")
    if skeleton == skeletons.AUTO:
        skeleton = _skeleton_of(num_joints, results_path, annotations_path, data)
    elif skeleton.num_joints != num_joints:
        raise InputError(
            f"{results_path}: {num_joints} joints for each person, but the skeleton {skeleton.name!r} has "
            f"{skeleton.num_joints}: give the skeleton of the model that predicted them"
        )
    labels = summary.read_labels(annotations_path, skeleton, pixel_offset, data)
    results = _in_images_of(labels, rows, names, results_path)
    labelled = [p for p in labels.persons if p.num_labelled and not p.crowd and p.box is not None]
    pairs, missed = match(labelled, results)
    if not pairs:
        raise InputError(
            f"{results_path}: no box of {len(results)} results overlaps a labelled person by {MIN_OVERLAP} or more"
        )
    oks_ap, matches = coco.evaluate_oks(
        labels, _coco_results(results), [p.id for p in labelled], skeleton, list(labels.images)
    )
    metrics = _score(pairs, missed, skeleton)
    metrics["intervals"]["oks_ap"] = bootstrap.ap_intervals(matches)
    metrics |= {
        "oks_ap": oks_ap,
        "visibility": None,
        "calibration": None,
        "num_persons": len(pairs),
        "num_labelled_persons": len(labelled),
        "num_results": len(results),
        "num_images": len(labels.images),
        "num_images_with_results": len({result.image_id for result in results}),
        "min_overlap": MIN_OVERLAP,
        "box_source": f"those of {results_path}",
        "annotations": annotations_path,
        # The file of results does not contain these facts.
        "flip_test": None,
        "pixels": None,
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
    of_all = f"PCP, strict, those not found counted as wrong: {summary.percent(everyone)}"
    return [
        f"{metrics['num_results']} results in {metrics['num_images_with_results']} of {metrics['num_images']} images; "
        f"of {metrics['num_labelled_persons']} labelled persons, {metrics['num_persons']} are found by a box (IoU >= "
        f"{metrics['min_overlap']}); of these:",
        *lines,
        *([of_all] if summary.has_limbs(metrics) else ()),
    ]


def match(persons, results):
    """Assigns results to persons, at most one to each.

    The results are assigned by score, the highest first. Each gets the person in its image whose
    box it overlaps most, among those that have no result yet, if they overlap by `MIN_OVERLAP` or
    more.

    Args:
        persons: list of `coco_files.Person` with a box.
        results: the same, with a score.

    Returns:
        ([(person, result)], [person without a result]).
    """
    left = {}
    for person in persons:
        left.setdefault(person.image_id, []).append(person)
    pairs = []
    for result in sorted(results, key=lambda r: -r.score):
        candidates = left.get(result.image_id)
        if not candidates:
            continue
        overlaps = core_boxes.overlap(_boxes(candidates), _boxes([result]))[:, 0]
        best = int(np.argmax(overlaps))
        if overlaps[best] >= MIN_OVERLAP:
            pairs.append((candidates.pop(best), result))
    return pairs, [person for candidates in left.values() for person in candidates]


def _score(pairs, missed, skeleton):
    """The metrics of metrics.json that need no COCO evaluation."""
    persons = _persons(pairs, skeleton)
    truth, prediction = persons["truth"], persons["keypoints"]
    mean_points = decoding.place(_mean_pose(truth, persons["box"]), _boxes([result for _, result in pairs]))
    counts = bootstrap.person_counts(truth, prediction, skeleton, persons["box"])
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
        "image": bootstrap.number_images([person.image_id for person in found]),
        "area": np.array([person.area for person in found]),
    }


def _keypoints(rows, skeleton):
    """[N, K, 3] float32: the keypoints of rows."""
    return np.array([row.keypoints for row in rows], np.float32).reshape(len(rows), skeleton.num_joints, 3)


def _boxes(rows):
    """[N, 4] float64 xywh: the boxes of rows."""
    return np.array([row.box for row in rows], np.float64).reshape(-1, 4)


def _mean_pose(truth, boxes):
    """[K, 2]: the mean position of each labelled joint, normalised by the boxes."""
    labelled = truth[..., 2:] > 0
    boxes = np.maximum(boxes, [-np.inf, -np.inf, 1e-3, 1e-3])
    points = np.where(labelled, geometry.normalise(truth[..., :2], boxes), 0)
    return points.sum(0) / np.maximum(labelled.sum(0), 1)


def _joints_of(rows, path):
    """The number of joints of keypoint results. Checks that each result is complete.

    Raises:
        InputError: no results, results without box, keypoints or score, or with different numbers.
    """
    if not rows:
        raise InputError(f"{path}: it holds no results: no person was found in any image")
    for row in rows:
        for field, value in (("bbox", row.box), ("keypoints", row.keypoints), ("score", row.score)):
            if value is None:
                raise InputError(f"{path}: result {row.place} lacks {field!r}, which kpose.predict writes")
    counts = sorted({len(row.keypoints) for row in rows})
    if len(counts) > 1:
        raise InputError(f"{path}: 'keypoints' has {' or '.join(str(3 * count) for count in counts)} numbers")
    return counts[0]


def _skeleton_of(num_joints, path, annotations_path, data):
    """The `Skeleton` of keypoint results: that of the annotations.

    If no category of the annotations lists its joints, the number of joints decides.

    Raises:
        InputError: the annotations have other joints.
    """
    categories = data.get("categories") if isinstance(data, dict) else None
    named = any(isinstance(c, dict) and c.get("keypoints") for c in categories or ())
    if named and isinstance(data.get("annotations"), list):
        skeleton = coco_skeleton.skeleton_of(annotations_path, data)
        if skeleton.num_joints != num_joints:
            raise InputError(
                f"{path}: {num_joints} joints for each person, but the skeleton {skeleton.name!r} of "
                f"{annotations_path} has {skeleton.num_joints}: give the annotations of these joints"
            )
        return skeleton
    skeleton = next((table for table in skeletons.SKELETONS.values() if table.num_joints == num_joints), None)
    if skeleton is None:
        raise InputError(
            f"{path}: {num_joints} joints for each person, and no category of {annotations_path} lists the names of "
            "its joints: give them with --skeleton=FILE.json, or add them as 'keypoints' to the category"
        )
    return skeleton


def _in_images_of(labels, rows, names, path):
    """The rows of results with the ids of the labels' images.

    Raises:
        InputError: a result is of an image that the labels do not have.
    """
    ids = coco_names.match_images(labels, rows, names)
    for row, name, image_id in zip(rows, names, ids, strict=True):
        if image_id is None:
            raise InputError(
                f"{path}: image {name or row.image_id} is not in {labels.path}: give the annotations of the same images"
            )
    return [dataclasses.replace(row, image_id=image_id) for row, image_id in zip(rows, ids, strict=True)]


def _coco_results(rows):
    """Rows of results as `coco.oks_ap` takes them."""
    keypoints, scores = np.array([r.keypoints for r in rows]), [r.score for r in rows]
    return coco.coco_results([r.image_id for r in rows], [r.box for r in rows], keypoints, scores)
