"""Evaluates a trained run on records or images: metrics.json, COCO results and pictures."""

import os

import numpy as np
from absl import logging

from kpose.core import files, geometry
from kpose.core.errors import InputError
from kpose.data import records
from kpose.drawing.persons import save_image
from kpose.evaluate import calibrate, crops, pictures, report, summary
from kpose.metrics import bootstrap, coco, tables
from kpose.models import decoding
from kpose.models.layers import OUTPUTS_OF_LOSS
from kpose.runs.workdir import load_trained


def evaluate(
    workdir,
    records_pattern=None,
    annotations=None,
    output_dir=None,
    flip_test=False,
    best=False,
    images=None,
    pixel_offset=None,
):
    """Evaluates a checkpoint of a run.

    All metrics are in original pixels. The same metrics of the training set's mean pose are beside
    them: they are what a model reaches that predicts the same pose for every person.

    Args:
        workdir: folder of the training run, or the name of a shipped model.
        records_pattern: glob of the records to evaluate on. None, only with `images`: all labelled
            persons of the annotations.
        annotations: the COCO file from which the records were written; adds OKS AP.
        output_dir: folder for metrics.json, keypoints.json (COCO results), report.html, pcp.png (if
            the skeleton has limbs), predictions.png and persons.npz (for `two_runs.compare`); None:
            the folder "evaluation" of the workdir.
        flip_test: average each prediction with that for the mirrored image.
        best: evaluate the checkpoint with the best validation score instead of the newest one.
        images: folder or .zip file of the images. The crops are cut from them, as in a user's
            predictions. None: the crops that are stored in the records.
        pixel_offset: of the annotations, as for `coco_files.read_labels`; None: that of COCO.
            Records have their own.

    Returns:
        The dict of metrics.json.

    Raises:
        InputError: the run, the records or some images do not exist, or the annotations are of
            other persons.
    """
    trained = load_trained(workdir, best)
    output_dir = trained.output_folder(output_dir, "evaluation")
    files.check_folder_for_output(output_dir)
    found = records.find(records_pattern, trained.skeleton) if records_pattern else None
    pixel_offset = found.pixel_offset if found else pixel_offset
    labels = summary.read_labels(annotations, trained.skeleton, pixel_offset) if annotations else None
    source = _crops(trained, found, labels, images)

    persons = _predict(trained, source, flip_test) | {"image": source.image}
    results = coco.coco_results(
        persons["image_id"].tolist(), persons["box"], persons["keypoints"], persons["score"].tolist()
    )
    counts = bootstrap.person_counts(persons["truth"], persons["keypoints"][..., :2], trained.skeleton, persons["box"])
    metrics, matches = _score(trained, persons, results, counts, labels)
    metrics |= {
        "num_persons": len(persons["truth"]),
        "num_images": len(np.unique(persons["image"])),
        "box_source": "ground truth",
        "pixels": source.pixels,
        "flip_test": flip_test,
        "records": records_pattern,
        "annotations": annotations,
        "checkpoint": trained.origin,
        "recipe": trained.config.name,
    }

    files.write_json(os.path.join(output_dir, summary.METRICS_FILE), metrics)
    files.write_json(os.path.join(output_dir, "keypoints.json"), results, indent=None)
    with files.replacing(os.path.join(output_dir, summary.PERSONS_FILE), "wb") as file:
        saved = counts | (matches.arrays() if matches else {})
        np.savez_compressed(file, annotation_id=persons["annotation_id"], image=persons["image"], **saved)
    first, extremes = pictures.draw(persons, source.read, trained.skeleton)
    save_image(os.path.join(output_dir, "predictions.png"), first)
    report.write(output_dir, metrics, persons, extremes, report.run_of(trained))
    for line in summary.describe(metrics):
        logging.info("%s", line)
    return metrics


def _crops(trained, found, labels, images):
    """The `crops.StoredCrops` or `crops.ImageCrops` of `evaluate`."""
    if found is None:
        if not images or labels is None:
            raise InputError("no persons to evaluate on: give records, or images and annotations")
        return crops.ImageCrops(images, crops.persons_of_labels(labels), trained.config)
    if images:
        return crops.ImageCrops(images, crops.persons_of_records(found), trained.config)
    return crops.StoredCrops(found, trained.config)


def _predict(trained, batches, flip_test):
    """The predictions for all persons, in order.

    Args:
        trained: `workdir.Trained`.
        batches: `crops.StoredCrops` or `crops.ImageCrops`.
        flip_test: as for `evaluate`.

    Returns:
        dict of arrays, as of `decoding.predict_batches`, with calibrated scores if the network has a
        calibration; and `raw` [N, K] and `raw_score` [N], the scores without it.
    """
    network, config, calibration = trained.network, trained.config, trained.calibration
    persons = decoding.predict_batches(network, config, trained.skeleton, batches, flip_test)
    points, joints, scores = persons["keypoints"][..., :2], persons["keypoints"][..., 2], persons["score"]
    inside = persons.pop("inside", np.ones(len(scores), bool)).astype(np.float32)
    persons |= {"raw": joints * inside[:, None], "raw_score": scores * inside}
    if calibration is not None:
        joints, scores = (
            np.asarray(of(s)) for of, s in ((calibration.of_joints, joints), (calibration.of_persons, scores))
        )
    persons["score"] = scores * inside
    persons["keypoints"] = np.concatenate([points, (joints * inside[:, None])[..., None]], -1)
    return persons


def _score(trained, persons, results, counts, labels):
    """(metrics of metrics.json without the facts about the evaluation itself, `coco.Matches` or None)."""
    skeleton, truth = trained.skeleton, persons["truth"]

    def ap_of(chosen):
        """OKS metrics of the chosen persons: labels and results of the others are left out."""
        if labels is None:
            return None
        chosen_results = [result for result, wanted in zip(results, chosen, strict=True) if wanted]
        return coco.oks_ap(labels, chosen_results, persons["annotation_id"][chosen], skeleton)

    mean_offset = geometry.HALF_PIXEL if trained.config.data.coordinates == geometry.INDICES else 0.0
    mean_points = decoding.place(trained.mean_pose, persons["region"], mean_offset)
    has_visibility = "visibility" in OUTPUTS_OF_LOSS.get(trained.config.loss.name, ())
    metrics = summary.compute_metrics(persons, mean_points, counts, skeleton, ap_of)
    oks_ap = matches = None
    if labels is not None:
        oks_ap, matches = coco.evaluate_oks(labels, results, persons["annotation_id"], skeleton)
        metrics["intervals"]["oks_ap"] = bootstrap.ap_intervals(matches)
    metrics |= {
        "oks_ap": oks_ap,
        "visibility": tables.visibility_table(truth, persons["raw"]) if has_visibility else None,
        "calibration": calibrate.table(trained, persons),
    }
    return metrics, matches
