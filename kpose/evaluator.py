"""Measures a trained run on records: metrics.json, COCO results and pictures."""

import os

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from kpose import (
    comparison_of_runs,
    datasets,
    drawing,
    files,
    geometry,
    inference,
    input_pipeline,
    intervals,
    losses,
    plots,
    records,
    report,
    runs,
    scoring,
    skeletons,
)
from kpose.errors import InputError

BATCH_SIZE = 64
PICTURED_PERSONS = 24
VISIBILITY_NAMES = {"auc": "AUC", "f1": "F1", "accuracy": "accuracy"}


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
    trained = runs.load_trained(workdir, best)
    config = trained.config
    if not (output_dir or trained.folder):
        raise InputError("--output_dir is missing: a shipped model has no folder of its own for the evaluation")
    skeleton = skeletons.get(config.skeleton)
    found = records.find(records_pattern, skeleton)
    persons = _predict_records(trained.network, found, config, skeleton, flip_test)

    truth, prediction = persons["truth"], persons["keypoints"]
    mean_prediction = inference.place(trained.mean_pose, persons["region"])
    results = scoring.coco_results(persons["image_id"].tolist(), persons["box"], prediction, persons["score"].tolist())
    learned = "visibility" in losses.build(config.loss).outputs
    points, counts = prediction[..., :2], intervals.person_counts(truth, prediction[..., :2], skeleton)

    def ap_of(chosen):
        """OKS AP of some of the persons; the others are left out on both sides."""
        if not annotations:
            return None
        some = [result for result, wanted in zip(results, chosen, strict=True) if wanted]
        return scoring.oks_ap(annotations, some, persons["annotation_id"][chosen], skeleton)

    table = figures(truth, points, mean_prediction, persons["box"], persons["area"], skeleton, ap_of) | {
        "oks_ap": ap_of(np.ones(len(truth), bool)),
        "visibility": scoring.visibility_table(truth, prediction[..., 2]) if learned else None,
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
    with files.replacing(os.path.join(output_dir, comparison_of_runs.PERSONS_FILE), "wb") as file:
        np.savez_compressed(file, annotation_id=persons["annotation_id"], **counts)
    images = _images(found, config, len(truth))
    _draw_persons(images, persons, skeleton, os.path.join(output_dir, "predictions.png"))
    write_pictures(table, persons, report.extremes(persons, images, skeleton), skeleton, output_dir)
    for line in describe(table):
        logging.info("%s", line)
    return table


def figures(truth, points, mean_points, boxes, areas, skeleton, ap_of=None):
    """What metrics.json says of predictions for N persons, wherever they are from.

    Args:
        truth: [N, K, 3] in original pixels.
        points: [N, K, 2] the prediction.
        mean_points: [N, K, 2] the mean pose in each person's place.
        boxes: [N, 4] the persons' boxes, xywh.
        areas: [N] their areas in square pixels.
        skeleton: the `Skeleton`.
        ap_of: function from [N] whether a person is meant to the OKS figures of these; None: there are none by subset.

    Returns:
        dict of the figures, those of the mean pose under `mean_pose_...`, their intervals, and the subsets.
    """

    def of(points):
        return {
            "pcp": scoring.pcp_table(truth, points, skeleton),
            "pcp_by_limb": scoring.limb_table(truth, points, skeleton),
            "pdj": scoring.pdj_table(truth, points, skeleton),
            "pdj_curve": scoring.pdj_curve(truth, points, skeleton),
            "pck": scoring.pck_table(truth, points, boxes, skeleton),
            "joint_errors": scoring.joint_errors(truth, points, skeleton),
        }

    counts = intervals.person_counts(truth, points, skeleton)
    subsets = [
        {
            "name": name,
            "num_persons": int(chosen.sum()),
            "pcp": scoring.pcp_table(truth[chosen], points[chosen], skeleton),
            "mean_pose_pcp": scoring.pcp_table(truth[chosen], mean_points[chosen], skeleton),
            "pdj": scoring.pdj_table(truth[chosen], points[chosen], skeleton),
            "mean_pose_pdj": scoring.pdj_table(truth[chosen], mean_points[chosen], skeleton),
            "intervals": intervals.table({key: value[chosen] for key, value in counts.items()}, skeleton),
            "oks_ap": ap_of(chosen) if ap_of else None,
        }
        for name, chosen in scoring.subsets(truth, areas).items()
        if chosen.any()
    ]
    mean_pose = {f"mean_pose_{name}": value for name, value in of(mean_points).items()}
    found = intervals.table(counts | intervals.joint_counts(truth, points, boxes), skeleton)
    return of(points) | mean_pose | {"intervals": found, "subsets": subsets}


def write_pictures(table, persons, pictures, skeleton, output_dir):
    """Writes pcp.png and report.html; arguments as for `report.write`."""
    plots.pcp_bars(table, os.path.join(output_dir, "pcp.png"))
    report.write(os.path.join(output_dir, "report.html"), table, persons, pictures, skeleton)


def describe(table):
    """The lines that an evaluation prints: PCP by group beside the mean pose, PDJ, AP."""
    groups = list(table["pcp"]["strict"])
    lines = [f"{table['num_persons']} persons, boxes: {table['box_source']}, checkpoint {table['checkpoint']}"]
    lines.append(" " * 24 + "".join(f"{group.replace('_', ' '):>12}" for group in groups))
    for rule in table["pcp"]:
        for key, name in (("pcp", "PCP"), ("mean_pose_pcp", "mean pose PCP")):
            figures = "".join(f"{_percent(table[key][rule][group]):>12}" for group in groups)
            lines.append(f"{f'{name}, {rule}':<24}{figures}")
    pdj = ", ".join(f"PDJ@{threshold} {_percent(value)}" for threshold, value in table["pdj"].items())
    ap, visibility = table["oks_ap"], table["visibility"]
    lines.append(pdj + (f", OKS AP {_percent(ap['AP'])}" if ap else ""))
    if visibility:
        figures = ", ".join(f"{name} {_percent(visibility[key])}" for key, name in VISIBILITY_NAMES.items())
        lines.append(f"visibility: {figures} ({_percent(visibility['labelled'])} of the joints are labelled)")
    return lines


def _percent(value):
    return "-" if value is None else f"{100 * value:.1f}%"


def _predict_records(network, found, config, skeleton, flip_test):
    """Arrays over all persons of the records, in order.

    They are those of `evaluation_batches` (without the images; the normalised labels are called `labels`) and the
    prediction: `keypoints` [N, K, 3] in original pixels and `score` [N].
    """
    datasets.check_shape(found, config.data.aspect)
    count = datasets.summarise_labels(found, config.data.padding).num_records
    batches = _batches(found, config, count)

    @tf.function(autograph=False)
    def step(images, regions):
        return inference.predict(network, images, regions, skeleton, flip_test)

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
    return input_pipeline.evaluation_batches(
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
    picture = drawing.prediction_grid(images, persons["labels"][:count], prediction, skeleton, regions)
    drawing.save_image(path, picture)
