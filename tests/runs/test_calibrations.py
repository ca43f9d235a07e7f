"""Calibrated scores: fitted by one command, and the same in evaluation, prediction and exports."""

import dataclasses
import hashlib
import json
import os
import shutil

import numpy as np
import pytest

import kpose
from kpose.core.errors import InputError
from kpose.evaluate import calibrate, on_records
from kpose.export import converted, saved_model, shipped_model, tflite
from kpose.models import decoding
from kpose.models.calibration import Calibration
from kpose.predict import networks
from kpose.runs import calibrations, shipped_files
from kpose.runs.workdir import load_trained
from kpose.train import trainer
from tests import tiny
from tests.core.test_cli import run

MAPS = Calibration((2.0, 0.5, 1.0), (1.5, 1.0, 0.5), {"records": "some-*", "annotations": ""})
BOXES = [[10, 10, 80, 90], [0, 0, 40, 40], [-900, -900, 20, 20]]


@pytest.fixture(scope="module")
def plain(tiny_data, tmp_path_factory):
    """Workdir of a run whose network gives scores."""
    folder = str(tmp_path_factory.mktemp("plain"))
    trainer.train(tiny.make_recipe(tiny_data["train"], steps=2, loss__name="laplace"), folder)
    return folder


@pytest.fixture(scope="module")
def calibrated(plain, tmp_path_factory):
    """A copy of `plain` with the calibration `MAPS`."""
    folder = str(tmp_path_factory.mktemp("calibrated") / "run")
    shutil.copytree(plain, folder)
    calibrations.write(load_trained(folder), MAPS)
    return folder


def odds(scores, a, b, c):
    scores = np.asarray(scores, float)
    return scores**a / (1 - scores) ** b * np.exp(c)


def mapped(scores, numbers):
    return odds(scores, *numbers) / (1 + odds(scores, *numbers))


def photo(tiny_data):
    return os.path.join(tiny_data["folder"], "images", "val", "000000000001.jpg")


@pytest.fixture(scope="module")
def expected(plain, tiny_data):
    """`People` of the run without calibration."""
    return kpose.load(plain).predict(photo(tiny_data), BOXES)


@pytest.fixture(scope="module")
def converted_once():
    """List of the file that the TensorFlow Lite converter wrote for the weights of `plain`."""
    return []


@pytest.fixture(scope="module")
def shipped(calibrated, converted_once, tmp_path_factory):
    """Folder of the shipped model "first": `calibrated`, with a calibrated TensorFlow Lite file."""
    folder, convert = str(tmp_path_factory.mktemp("shipped")), tflite.convert
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tflite, "convert", lambda *arguments: converted_once.append(convert(*arguments)) or converted_once[0]
        )
        shipped_model.ship(calibrated, "first", output_dir=folder)
    return folder


@pytest.mark.parametrize(
    "kind", ["checkpoint", "saved_model", "graph", pytest.param("tflite", marks=pytest.mark.slow), "shipped"]
)
def test_all_predictions_have_the_calibrated_scores(
    kind, calibrated, shipped, expected, tiny_data, tmp_path, monkeypatch
):
    source = calibrated
    if kind in ("saved_model", "graph"):
        source = saved_model.export(calibrated, str(tmp_path / "serving"), lite=kind == "saved_model")
        with open(os.path.join(source, "assets.extra", "kpose.json")) as file:
            assert json.load(file)["calibration"]["joints"]["a"] == 2.0
    elif kind == "tflite":
        source = converted.export(calibrated, str(tmp_path), "tflite")["path"]
    elif kind == "shipped":
        monkeypatch.setattr(shipped_files, "FOLDER", shipped)
        source = "first"
    found = kpose.load(source).predict(photo(tiny_data), BOXES)
    assert found.calibrated and found[0].calibrated and not expected.calibrated
    # The shipped model has float16 weights.
    near = {"atol": 2e-3 if kind == "shipped" else 2e-5}
    np.testing.assert_allclose(found.keypoints[:2, :, 2], mapped(expected.keypoints[:2, :, 2], MAPS.joints), **near)
    np.testing.assert_allclose(found.scores[:2], mapped(expected.scores[:2], MAPS.persons), **near)
    np.testing.assert_allclose(found.keypoints[..., :2], expected.keypoints[..., :2], atol=0.1)
    # The last box is outside the image.
    assert found.scores[2] == 0 and not found.keypoints[2, :, 2].any()
    if kind == "shipped":
        assert load_trained("first").calibration == MAPS


def test_evaluate_measures_scores_and_keeps_the_ranking(plain, calibrated, tiny_data, tmp_path, caplog):
    with caplog.at_level("INFO", logger="absl"):
        without, found = (
            on_records.evaluate(folder, tiny_data["val"], tiny_data["val_annotations"], str(tmp_path / name))
            for folder, name in ((plain, "without"), (calibrated, "with"))
        )
    assert without["calibration"]["calibrated"] is False and without["calibration"]["uncalibrated"] is None
    assert found["calibration"]["calibrated"] and found["calibration"]["fitted_on"] == "some-*"
    for what in ("joints", "persons"):
        assert found["calibration"]["uncalibrated"][what] == without["calibration"][what]
        assert found["calibration"][what]["brier"] != without["calibration"][what]["brier"]
    for name in ("pcp", "pdj", "oks_ap", "joint_errors"):
        assert found[name] == without[name]
    rows = [json.loads((tmp_path / name / "keypoints.json").read_text()) for name in ("without", "with")]
    raw, scores = (np.array([row["score"] for row in part]) for part in rows)
    np.testing.assert_allclose(scores, mapped(raw, MAPS.persons), atol=2e-5)
    texts = [(tmp_path / name / "report.html").read_text() for name in ("without", "with")]
    assert "uncalibrated, no probabilities" in texts[0] and "calibrated on some-*" in texts[1]
    assert all("Outcome of joints and persons by score" in text for text in texts)
    assert "scores: uncalibrated, so they are no probabilities; ECE" in caplog.text
    assert "scores: calibrated on some-*; ECE" in caplog.text


def test_a_model_without_scores_has_no_calibration(tiny_run, tiny_data, monkeypatch, capfd):
    assert calibrate.table(load_trained(tiny_run), predictions()) is None
    status, _, err = run(
        monkeypatch, capfd, "kpose.evaluate", f"--workdir={tiny_run}", f"--records={tiny_data['val']}", "--calibrate"
    )
    assert status == 1 and "gives no scores for joints" in err
    with pytest.raises(InputError, match="fast: a shipped model cannot be changed"):
        calibrate.calibrate("fast", tiny_data["val"])


def predictions(count=400, numbers=(1.6, 1.2, 1.0)):
    """Predictions whose joints are right as often as the map of three numbers says."""
    rng = np.random.default_rng(0)
    truth = np.concatenate([rng.uniform(0, 300, (count, 17, 2)), np.full((count, 17, 1), 2.0)], -1)
    scores = np.clip(rng.beta(4, 4, (count, 1)) + rng.normal(0, 0.15, (count, 17)), 0.02, 0.98)
    right = rng.random((count, 17)) < mapped(scores, numbers)
    points = truth[..., :2] + np.where(right, 0.0, 500.0)[..., None]
    return {
        "truth": truth,
        "keypoints": np.concatenate([points, scores[..., None]], -1),
        "score": scores.mean(1),
        "area": np.full(count, 5000.0),
        "image_id": np.arange(count) // 2,
        "annotation_id": np.arange(count),
    }


def test_the_command_fits_and_writes_the_calibration(plain, tiny_data, tmp_path, monkeypatch, capfd, caplog):
    folder = str(tmp_path / "run")
    shutil.copytree(plain, folder)
    monkeypatch.setattr(decoding, "predict_batches", lambda *_: predictions())
    arguments = (f"--workdir={folder}", f"--records={tiny_data['train']}", "--calibrate")
    with caplog.at_level("INFO", logger="absl"):
        status, _, err = run(monkeypatch, capfd, "kpose.evaluate", *arguments)
    assert status == 0, err
    assert "two folds of the images" in caplog.text and not os.path.exists(os.path.join(folder, "evaluation"))
    found = load_trained(folder).calibration
    grid = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(mapped(grid, found.joints), mapped(grid, (1.6, 1.2, 1.0)), atol=0.03)
    facts = found.facts
    assert (facts["num_persons"], facts["num_joints"], facts["num_images"]) == (400, 6800, 200)
    for what in ("joints", "persons"):
        assert facts["after"][what]["ece"] < 0.04 < facts["before"][what]["ece"]
        assert facts["after"][what]["brier"] < facts["before"][what]["brier"]
    # The mean OKS of a person is that of its score, too.
    persons = predictions()
    oks = (np.abs(persons["keypoints"][..., :2] - persons["truth"][..., :2]).max(-1) < 1).mean(1)
    assert np.abs(mapped(persons["score"], found.persons).mean() - oks.mean()) < 0.01


@pytest.mark.parametrize("flag", ["--flip_test", "--images=x", "--output_dir=x"])
def test_flags_without_effect_are_refused(flag, plain, tiny_data, monkeypatch, capfd):
    arguments = (f"--workdir={plain}", f"--records={tiny_data['val']}", "--calibrate", flag)
    status, _, err = run(monkeypatch, capfd, "kpose.evaluate", *arguments)
    assert status != 0 and "has no effect with --calibrate" in err


@pytest.mark.parametrize("same", [True, False])
def test_an_evaluation_on_the_records_of_the_fit_warns(same, calibrated, caplog):
    persons = predictions()
    persons |= {"raw": persons["keypoints"][..., 2], "raw_score": persons["score"]}
    ids = persons["annotation_id"][::-1] if same else persons["annotation_id"][1:]
    calibration = Calibration(MAPS.joints, MAPS.persons, {"annotations": calibrations.checksum_of_ids(ids)})
    trained = dataclasses.replace(load_trained(calibrated), calibration=calibration)
    with caplog.at_level("WARNING", logger="absl"):
        assert calibrate.table(trained, persons)["fitted_on_these_persons"] == same
    assert ("the scores were calibrated on these persons" in caplog.text) == same


def test_a_calibration_of_other_weights_is_not_used(calibrated, expected, tiny_data, tmp_path, caplog):
    """As after a training that went on: the file says other weights, those of step 1."""
    folder = str(tmp_path / "run")
    shutil.copytree(calibrated, folder)
    path = tmp_path / "run" / "calibration.json"
    weights = hashlib.sha256(b"other weights").hexdigest()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"checkpoint": "step-1", "weights": weights}))
    with caplog.at_level("WARNING", logger="absl"):
        assert not kpose.load(folder).predict(photo(tiny_data), BOXES).calibrated
    assert "fitted on the weights of step-1, not on those of step-2: the scores are not calibrated" in caplog.text


def test_shipping_fits_the_calibration_of_the_shipped_weights(
    calibrated, shipped, tiny_data, tmp_path, monkeypatch, caplog
):
    folder = str(tmp_path / "models")
    shutil.copytree(shipped, folder)
    monkeypatch.setattr(shipped_files, "FOLDER", folder)
    monkeypatch.setattr(tflite, "convert", lambda *_: b"not read here: `shipped` has a real one")
    with caplog.at_level("WARNING", logger="absl"):
        shipped_model.ship(calibrated, "mean", output_dir=folder, average_with="first")
    assert load_trained("mean").calibration is None and "the scores of mean are not calibrated" in caplog.text
    monkeypatch.setattr(decoding, "predict_batches", lambda *_: predictions())
    shipped_model.ship(calibrated, "fitted", output_dir=folder, average_with="first", calibrate_on=tiny_data["train"])
    found = load_trained("fitted").calibration
    assert found.facts["records"] == "train-*" and found.joints != MAPS.joints
    with open(os.path.join(folder, "fitted.json")) as file:
        assert json.load(file)["calibration"]["joints"]["meaning"].startswith("probability that")


def test_an_export_before_the_calibration_warns(plain, shipped, converted_once, tmp_path, monkeypatch, caplog):
    folder = str(tmp_path / "run")
    shutil.copytree(plain, folder)
    monkeypatch.setattr(tflite, "convert", lambda *_: converted_once[0])
    converted.export(folder, None, "tflite")
    calibrations.write(load_trained(folder), MAPS)
    with caplog.at_level("WARNING", logger="absl"):
        assert not networks.open_network(folder).calibrated
    assert "the scores of this export are not calibrated as the run is: export it again" in caplog.text


def test_a_damaged_calibration_is_one_line(plain, tmp_path):
    folder = str(tmp_path / "run")
    shutil.copytree(plain, folder)
    (tmp_path / "run" / "calibration.json").write_text('{"joints": {"a": -1}}')
    with pytest.raises(InputError, match=r"calibration.json: damaged: it holds no calibration"):
        load_trained(folder)
