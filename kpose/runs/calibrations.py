"""The calibration of a run's scores.

RUN/calibration.json    the two maps (`kpose.models.calibration`), the checkpoint and a checksum of its
                        weights, what they were fitted on, and how well they fit

It belongs to the weights of one checkpoint. With other weights, such as those of a training that went
on, it is not used, and this is logged.
"""

import hashlib
import os

import numpy as np
from absl import logging

from kpose.core import files
from kpose.core.errors import InputError
from kpose.metrics import calibration as metrics
from kpose.models import calibration as calibration_lib
from kpose.models import decoding

CALIBRATION_FILE = "calibration.json"


def _check(trained):
    """Raises `InputError` if the network of a `kpose.runs.workdir.Trained` gives no scores of joints."""
    config = trained.config
    if not decoding.gives_scores(trained.network, config.model.input_size):
        raise InputError(
            f"{trained.origin}: its network (model.name={config.model.name}, loss.name={config.loss.name}) gives no "
            "scores for joints, so there is nothing to calibrate: model.name=movenet and the losses laplace, rle and "
            "masked_l2 give scores"
        )


def fit(trained, batches, pattern):
    """The `Calibration` of a trained network, fitted on records. Logs how well it fits.

    Args:
        trained: `kpose.runs.workdir.Trained`.
        batches: those of `kpose.data.pipeline.evaluation_batches`, with the annotations (`identity`).
        pattern: the records' glob, for the facts.

    Raises:
        InputError: the network gives no scores, or they cannot be calibrated.
    """
    _check(trained)
    persons = decoding.predict_batches(trained.network, trained.config, trained.skeleton, batches)
    calibration = _fitted(persons, trained.skeleton, pattern)
    for line in _describe(calibration):
        logging.info("%s", line)
    return calibration


def _fitted(persons, skeleton, pattern):
    """The `Calibration` of a network for its predictions.

    Args:
        persons: arrays of `kpose.models.decoding.predict_batches`, with `image_id`, `annotation_id`,
            `truth` and `area`.
        skeleton: the `Skeleton`.
        pattern: the records' glob, for the facts.

    Returns:
        The `Calibration`. Its facts hold the records, the numbers of images, persons and joints, and
        `before` and `after`: the ECE and the Brier score of both kinds of scores. `after` is that of
        two folds of the images, each with the map that was fitted on the other; None for one image.

    Raises:
        InputError: as for `kpose.metrics.calibration.fit`.
    """
    keypoints = persons["keypoints"]
    right, counted, oks = metrics.outcomes(persons["truth"], keypoints[..., :2], persons["area"], skeleton)
    image, places = np.unique(persons["image_id"], return_inverse=True)[1], np.nonzero(counted)[0]
    known = np.isfinite(oks)
    kinds = {
        "joints": (keypoints[..., 2][counted], right[counted], image[places] % 2),
        "persons": (persons["score"][known], oks[known], image[known] % 2),
    }
    maps, before, after = {}, {}, {}
    for what, (scores, outcomes, folds) in kinds.items():
        maps[what] = metrics.fit(scores, outcomes, f"the scores of {what}")
        before[what] = _summary(scores, outcomes)
        after[what] = _of_two_folds(scores, outcomes, folds)
    return calibration_lib.Calibration(
        **maps,
        facts={
            # Without folders: cards of shipped models hold it.
            "records": ",".join(os.path.basename(part) for part in pattern.split(",")),
            "annotations": checksum_of_ids(persons["annotation_id"]),
            "num_images": len(np.unique(image)),
            "num_persons": int(known.sum()),
            "num_joints": int(counted.sum()),
            "before": before,
            "after": after,
        },
    )


def _of_two_folds(scores, outcomes, folds):
    """ECE and Brier score of each fold with the map of the other; None if a fold has no map."""
    mapped = np.zeros(len(scores))
    for fold in (0, 1):
        others = folds != fold
        try:
            found = metrics.fit(scores[others], outcomes[others])
        except InputError:
            return None
        mapped[~others] = calibration_lib.Calibration(found, found).of_joints(scores[~others])
    return _summary(mapped, outcomes)


def _summary(scores, outcomes):
    found = metrics.reliability(scores, outcomes)
    return {name: round(found[name], 5) for name in ("ece", "brier")}


def _describe(calibration):
    """The lines that a fit prints."""
    facts = calibration.facts
    lines = [
        f"calibrated on {facts['num_joints']} labelled joints of {facts['num_persons']} persons in "
        f"{facts['num_images']} images"
    ]
    for what, (a, b, c) in (("joints", calibration.joints), ("persons", calibration.persons)):
        before, after = (facts[when][what] for when in ("before", "after"))
        texts = [
            f"ECE {100 * found['ece']:.1f}%, Brier score {found['brier']:.3f}"
            for found in (before, after or {})
            if found
        ]
        then = f", after {texts[1]} (two folds of the images)" if after else ""
        lines.append(f"{what}: a {a:.3f}, b {b:.3f}, c {c:.3f}; before {texts[0]}{then}")
    return lines


def checksum_of_ids(annotation_ids):
    """A text that is equal for equal sets of persons."""
    return hashlib.sha256(np.unique(np.asarray(annotation_ids, np.int64)).tobytes()).hexdigest()


def write(trained, calibration):
    """Writes the calibration of a run into its folder and returns the file.

    Args:
        trained: `kpose.runs.workdir.Trained` of a run.
        calibration: the `Calibration` of its network.
    """
    path = os.path.join(trained.folder, CALIBRATION_FILE)
    of_weights = {"checkpoint": os.path.basename(trained.origin), "weights": _checksum(trained.network)}
    files.write_json(path, of_weights | calibration.to_fields())
    return path


def read(workdir, checkpoint, network):
    """The `Calibration` of a run; None if there is none for these weights.

    Args:
        workdir: the run's folder.
        checkpoint: path of the checkpoint of the weights, for the log.
        network: the network with these weights.

    Raises:
        InputError: the file is damaged.
    """
    path = os.path.join(workdir, CALIBRATION_FILE)
    if not os.path.lexists(path):
        return None
    fields = files.read_json(path, "calibration of a training run")
    found = calibration_lib.of_fields(fields, path)
    if fields.get("weights") == _checksum(network):
        return found
    logging.warning(
        "%s: fitted on the weights of %s, not on those of %s: the scores are not calibrated; fit again with python -m "
        "kpose.evaluate --calibrate",
        path,
        fields.get("checkpoint"),
        os.path.basename(checkpoint),
    )
    return None


def _checksum(network):
    """A checksum of the weights of a network."""
    found = hashlib.sha256()
    for array in network.get_weights():
        found.update(np.ascontiguousarray(array, np.float32).tobytes())
    return found.hexdigest()
