"""Measures a trained run on records: metrics.json, COCO results and pictures."""

import os

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from kpose.core import files, geometry, skeletons
from kpose.core.errors import InputError
from kpose.data import pipeline, records, training_set
from kpose.drawing import charts, sheets
from kpose.drawing.persons import save_image
from kpose.evaluate import report, two_runs
from kpose.evaluate.figures import describe, figures
from kpose.metrics import bootstrap, coco, tables
from kpose.models import decoding
from kpose.models.layers import OUTPUTS_OF_LOSS
from kpose.runs.workdir import load_trained

BATCH_SIZE = 64
PICTURED_PERSONS = 24


def evaluate(workdir, records_pattern, annotations=None, output_dir=None, flip_test=False, best=False):
    """Measures a checkpoint of a run.

    Every figure is in original pixels, and beside PCP stands that of the training set's mean pose: what a model
    reaches that has learnt nothing but the average person.

    Args:
        workdir: folder of the training run, or the name of a shipped model.
        records_pattern: glob of the records to measure on.
        annotations: the COCO file the records were written from; adds OKS AP.
        output_dir: where metrics.json, keypoints.json (COCO results), report.html, pcp.png and predictions.png go, and
            persons.npz for `compare`; by default the folder "evaluation" of the workdir.
        flip_test: average each prediction with that for the mirror image.
        best: measure the checkpoint with the best validation score, instead of the newest.

    Returns:
        The dict of metrics.json.

    Raises:
        InputError: no such run, no such records, or annotations of other persons.
    """
    trained = load_trained(workdir, best)
    config = trained.config
    if not (output_dir or trained.folder):
        raise InputError("--output_dir is missing: a shipped model has no folder of its own for the evaluation")
    skeleton = skeletons.get(config.skeleton)
    found = records.find(records_pattern, skeleton)
    persons = _predict_records(trained.network, found, config, skeleton, flip_test)

    truth, prediction = persons["truth"], persons["keypoints"]
    mean_prediction = decoding.place(trained.mean_pose, persons["region"])
    results = coco.coco_results(persons["image_id"].tolist(), persons["box"], prediction, persons["score"].tolist())
    learned = "visibility" in OUTPUTS_OF_LOSS.get(config.loss.name, ())
    points, counts = prediction[..., :2], bootstrap.person_counts(truth, prediction[..., :2], skeleton)

    def ap_of(chosen):
        """OKS AP of some of the persons; the others are left out on both sides."""
        if not annotations:
            return None
        some = [result for result, wanted in zip(results, chosen, strict=True) if wanted]
        return coco.oks_ap(annotations, some, persons["annotation_id"][chosen], skeleton)

    table = figures(truth, points, mean_prediction, persons["box"], persons["area"], skeleton, ap_of) | {
        "oks_ap": ap_of(np.ones(len(truth), bool)),
        "visibility": tables.visibility_table(truth, prediction[..., 2]) if learned else None,
        "num_persons": len(truth),
        "box_source": "ground truth",
        "flip_test": flip_test,
        "records": records_pattern,
        "annotations": annotations,
        "checkpoint": trained.origin,
        "recipe": config.name,
    }
    output_dir = output_dir or os.path.join(workdir, "evaluation")
    files.write_json(os.path.join(output_dir, "metrics.json"), table)
    files.write_json(os.path.join(output_dir, "keypoints.json"), results, indent=None)
    with files.replacing(os.path.join(output_dir, two_runs.PERSONS_FILE), "wb") as file:
        np.savez_compressed(file, annotation_id=persons["annotation_id"], **counts)
    images = _images(found, config, len(truth))
    _draw_persons(images, persons, skeleton, os.path.join(output_dir, "predictions.png"))
    write_pictures(table, persons, report.extremes(persons, images, skeleton), skeleton, output_dir)
    for line in describe(table):
        logging.info("%s", line)
    return table


def write_pictures(table, persons, pictures, skeleton, output_dir):
    """Writes pcp.png and report.html; arguments as for `report.write`."""
    charts.pcp_bars(table, os.path.join(output_dir, "pcp.png"))
    report.write(os.path.join(output_dir, "report.html"), table, persons, pictures, skeleton)


def _predict_records(network, found, config, skeleton, flip_test):
    """Arrays over all persons of the records, in order.

    They are those of `evaluation_batches` (without the images; the normalised labels are called `labels`) and the
    prediction: `keypoints` [N, K, 3] in original pixels and `score` [N].
    """
    training_set.check_shape(found, config.data.aspect)
    count = training_set.summarise_labels(found, config.data.padding).num_records
    batches = _batches(found, config, count)

    @tf.function(autograph=False)
    def step(images, regions):
        return decoding.predict(network, images, regions, skeleton, flip_test)

    columns = {}
    progress = keras.utils.Progbar(len(batches), unit_name="batch") if os.isatty(2) else None
    for batch in batches:
        keypoints, scores = step(batch["image"], batch["region"])
        columns_of_batch = {name: value for name, value in batch.items() if name not in ("image", "keypoints")}
        columns_of_batch |= {"labels": batch["keypoints"], "keypoints": keypoints, "score": scores}
        for name, value in columns_of_batch.items():
            columns.setdefault(name, []).append(np.asarray(value))
        if progress:
            progress.add(1)
    return {name: np.concatenate(values)[:count] for name, values in columns.items()}


def _batches(found, config, count):
    return pipeline.evaluation_batches(
        found,
        input_size=tuple(config.model.input_size),
        padding=config.data.padding,
        batch_size=min(BATCH_SIZE, count),
        num_records=count,
        identity=True,
    )


def _images(found, config, count):
    """A function from person numbers to their crops [n, H, W, 3], which are read anew."""

    def images(numbers):
        wanted, crops = set(int(number) for number in numbers), {}
        start = 0
        for batch in _batches(found, config, count):
            for number in wanted.intersection(range(start, start + len(batch["image"]))):
                crops[number] = batch["image"][number - start].numpy()
            start += len(batch["image"])
            if len(crops) == len(wanted):
                break
        return np.stack([crops[int(number)] for number in numbers])

    return images


def _draw_persons(images_of, persons, skeleton, path):
    """The first persons, truth beside prediction, in the undistorted shape of their boxes."""
    count = min(PICTURED_PERSONS, len(persons["truth"]))
    images = images_of(range(count))
    regions = persons["region"][:count]
    prediction = geometry.normalise(persons["keypoints"][:count, :, :2], regions)
    picture = sheets.prediction_grid(images, persons["labels"][:count], prediction, skeleton, regions)
    save_image(path, picture)
