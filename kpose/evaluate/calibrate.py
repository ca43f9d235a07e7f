"""Fits the calibration of a run's scores, and measures scores against outcomes."""

from absl import logging

from kpose.core.errors import InputError
from kpose.data import records
from kpose.evaluate import crops
from kpose.metrics import calibration as metrics
from kpose.models import decoding
from kpose.runs import calibrations
from kpose.runs.workdir import load_trained


def calibrate(workdir, records_pattern, best=False):
    """Fits the calibration of a run and writes it into the run's folder.

    Predictions, evaluations and exports of this checkpoint then have calibrated scores.

    Args:
        workdir: folder of the training run.
        records_pattern: glob of the records. Other records should measure the calibrated scores.
        best: calibrate the checkpoint with the best validation score instead of the newest one.

    Returns:
        The `kpose.models.calibration.Calibration`.

    Raises:
        InputError: the run or the records do not exist, the model is shipped, the network gives no
            scores, or they cannot be calibrated.
    """
    trained = load_trained(workdir, best)
    if trained.folder is None:
        raise InputError(
            f"{workdir}: a shipped model cannot be changed: calibrate the run before python -m "
            "kpose.export.shipped_model, or give its --calibrate_on"
        )
    found = records.find(records_pattern, trained.skeleton)
    calibration = calibrations.fit(trained, crops.StoredCrops(found, trained.config), records_pattern)
    path = calibrations.write(trained, calibration)
    logging.info("wrote %s; earlier exports are not changed: export again", path)
    return calibration


def table(trained, persons):
    """The entry `calibration` of metrics.json: how well scores agree with outcomes.

    Args:
        trained: `workdir.Trained`.
        persons: arrays of `on_records._predict`, with `truth`, `area` and `annotation_id`.

    Returns:
        None if the network gives no scores or no joint is labelled; otherwise a dict: "calibrated",
        bool; "joints" and "persons", each the `metrics.reliability` of these scores; "uncalibrated",
        the same two without the calibration (None without one); "fitted_on", the records of the
        calibration; and "fitted_on_these_persons", whether it has seen all of these persons.
    """
    if not decoding.gives_scores(trained.network, trained.config.model.input_size):
        return None
    keypoints, calibration = persons["keypoints"], trained.calibration
    right, counted, oks = metrics.outcomes(persons["truth"], keypoints[..., :2], persons["area"], trained.skeleton)
    known = counted.any(1)
    if not known.any():
        return None

    def measured(joints, scores):
        return {
            "joints": metrics.reliability(joints[counted], right[counted]),
            "persons": metrics.reliability(scores[known], oks[known]),
        }

    found = {"calibrated": calibration is not None} | measured(keypoints[..., 2], persons["score"])
    found |= {"uncalibrated": None, "fitted_on": None, "fitted_on_these_persons": False}
    if calibration is not None:
        facts = calibration.facts
        same = facts.get("annotations") == calibrations.checksum_of_ids(persons["annotation_id"])
        found |= {"fitted_on": facts.get("records"), "fitted_on_these_persons": same}
        found["uncalibrated"] = measured(persons["raw"], persons["raw_score"])
        if same:
            logging.warning(
                "the scores were calibrated on these persons: their ECE and Brier score are too favourable; evaluate "
                "on other records"
            )
    return found
