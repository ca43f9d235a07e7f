"""A skeleton without limbs, torso, upper body, pairs or sigmas, from drawn images to predictions."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from kpose.core import skeleton_files
from kpose.core.errors import InputError
from kpose.data import records
from kpose.evaluate import on_detections, on_records, summary, two_runs
from kpose.export import converted, saved_model
from kpose.models import cascade
from kpose.predict import files as predict_files
from kpose.runs import checkpoints
from kpose.runs.workdir import load_skeleton, read_history
from kpose.train import setup, trainer
from tests import hands, helpers, tiny


def chain(folder, caplog, kind, **figures):
    """Records, training, evaluation, export (`kind`) and predictions with boxes; returns a dict of results."""
    train, _, _ = hands.make_records(folder, "train", 16, **figures)
    val, annotations, images = hands.make_records(folder, "val", 8, **figures)
    workdir, exported = os.path.join(folder, "run"), {}
    config = tiny.make_recipe(train, f"手={val}", skeleton="auto", augment__half_body=0.5, stop_after=2)
    with caplog.at_level("INFO", logger="absl"):
        trainer.train(config, workdir)
        metrics = on_records.evaluate(workdir, val, annotations)
        if kind == "tflite":
            exported = converted.export(workdir, folder, kind, records_pattern=val)
            model = exported["path"]
        else:
            model = saved_model.export(workdir, os.path.join(folder, "serving"))
        predict_files.predict(model, images, annotations, os.path.join(folder, "predictions"))
        results = os.path.join(folder, "predictions", "keypoints.json")
        detected = on_detections.evaluate(results, annotations, os.path.join(folder, "results"))
    return {
        "workdir": workdir,
        "annotations": annotations,
        "metrics": metrics,
        "detected": detected,
        "text": caplog.text,
        "exported": exported,
    }


def test_a_hand_goes_from_drawn_images_to_predictions(tmp_path, caplog):
    found = chain(str(tmp_path), caplog, "tflite", sigmas=None)
    metrics, rows, text = found["metrics"], read_history(found["workdir"]), found["text"]
    assert load_skeleton(found["workdir"]).joints == hands.JOINTS

    # No table of limbs: no PCP, and the keys stay.
    assert metrics["pcp"] == {"strict": {"average": None}, "mean": {"average": None}}
    assert metrics["pcp_by_limb"] == {"strict": {}, "mean": {}} and not any("pcp" in name for name in rows[-1])
    lines = summary.describe(metrics)
    assert not any("PCP" in line for line in lines) and "longer sides of the box" in lines[1]

    # PDJ is relative to the box. In the training the box is the region without its padding.
    with open(found["annotations"]) as file:
        people = {a["image_id"]: a for a in json.load(file)["annotations"]}
    with open(os.path.join(found["workdir"], "evaluation", "keypoints.json")) as file:
        answers = json.load(file)
    correct = []
    assert len(answers) == len(people) == 8
    for answer in answers:
        person = people[answer["image_id"]]
        gap = np.reshape(answer["keypoints"], (-1, 3))[:, :2] - np.reshape(person["keypoints"], (-1, 3))[:, :2]
        correct.append(np.hypot(*gap.T) <= 0.2 * max(person["bbox"][2:]))
    assert metrics["pdj_unit"] == "longer sides of the box"
    assert metrics["pdj"]["0.2"] == pytest.approx(np.mean(correct)) == metrics["pck"]["average"]
    assert rows[-1]["val_pdj_0.2"] == pytest.approx(np.mean(correct), abs=0.02)

    # The sigma is said beside every figure of OKS.
    assert metrics["oks_sigmas"] == "default 0.067" == found["detected"]["oks_sigmas"]
    assert "(sigmas: default 0.067)" in lines[1]
    page = open(os.path.join(found["workdir"], "evaluation", "report.html"), encoding="utf-8").read()
    assert "Sigma of every joint: default 0.067" in page and "no limbs, so there is no PCP" in page
    assert "None" not in page and "PCP strict" not in page
    assert not os.path.exists(os.path.join(found["workdir"], "evaluation", "pcp.png"))

    # The best checkpoint has the highest OKS AP.
    with open(os.path.join(found["workdir"], checkpoints.BEST_FOLDER, "best.json")) as file:
        assert json.load(file)["score"] == pytest.approx(max(row["val_oks_ap"] for row in rows))
    for words in (
        "no limbs, so no PCP",
        "no torso, so PDJ is relative to the longer side of the box",
        "default 0.067",
        "the best checkpoint is that with the highest OKS AP",
        "config.augment.half_body has no effect: the skeleton 'hand' has no upper body",
    ):
        assert words in text, words

    # Predictions in the labels' boxes are those of the evaluation, up to the pixels of the crops.
    assert found["detected"]["num_persons"] == 8
    assert found["detected"]["pdj"]["0.2"] == pytest.approx(metrics["pdj"]["0.2"], abs=0.1)
    assert not any("PCP" in line for line in on_detections.describe(found["detected"]))

    # The comparison of two evaluations has no rows of PCP.
    table = two_runs.compare(found["workdir"], found["workdir"])
    lines = two_runs.describe(table)
    assert not any("PCP" in line for line in lines) and "OKS AP with sigmas: default 0.067" in lines
    exported = found["exported"]
    assert exported["pcp"] is None and exported["pdj"] == pytest.approx(exported["pdj_keras"], abs=1e-6)


NAMES = {
    1: ("指尖 the tip",),
    500: tuple(f"点 {number} of 500" for number in range(500)),
}


@pytest.mark.slow
@pytest.mark.parametrize("count", NAMES)
def test_one_point_and_five_hundred_points_work_with_any_names(count, tmp_path, caplog):
    def points(rng):
        turns = np.linspace(0, 6 * np.pi, count)
        spiral = np.stack([np.cos(turns), np.sin(turns)], -1) * np.linspace(6, 35, count)[:, None]
        return spiral + 48 + rng.uniform(-8, 8, 2)

    found = chain(str(tmp_path), caplog, "saved_model", joints=NAMES[count], bones=(), points=points)
    assert found["detected"]["num_persons"] == 8 and found["metrics"]["oks_ap"] is not None
    assert list(found["metrics"]["joint_errors"]) == list(NAMES[count])
    page = open(os.path.join(found["workdir"], "evaluation", "report.html"), encoding="utf-8").read()
    assert NAMES[count][-1] in page


def test_limbs_with_chinese_names_and_spaces_are_in_history_and_tensorboard(tmp_path):
    limbs = {"拇指 bones": [["thumb1", "thumb2"], ["thumb3", "thumb4"]], "$": [["pinky_finger1", "pinky_finger2"]]}
    train, _, _ = hands.make_records(str(tmp_path), "train", 8, limbs=limbs)
    workdir = str(tmp_path / "运行 1")
    trainer.train(tiny.make_recipe(train, train, skeleton="auto", steps=1), workdir)
    assert "val_pcp_strict" in read_history(workdir)[-1]
    tags = set()
    folder = os.path.join(workdir, "tensorboard", "validation")
    for name in os.listdir(folder):
        for event in tf.compat.v1.train.summary_iterator(os.path.join(folder, name)):
            tags |= {value.tag for value in event.summary.value}
    assert "pcp_strict_by_limb/拇指 bone_1" in tags


def test_a_metric_for_which_nothing_is_labelled_is_missing_and_not_zero(tmp_path, caplog):
    limbs = {"拇指 bones": [["thumb1", "thumb2"]], "$": [["thumb2", "thumb3"]]}
    unlabelled = [hands.JOINTS.index("thumb2")]
    train, annotations, _ = hands.make_records(str(tmp_path), "train", 8, limbs=limbs, unlabelled=unlabelled)
    workdir = str(tmp_path / "run")
    with caplog.at_level("INFO", logger="absl"):
        trainer.train(tiny.make_recipe(train, train, skeleton="auto", steps=1), workdir)
        metrics = on_records.evaluate(workdir, train, annotations)
    assert f"no record of {train} labels thumb2" in caplog.text
    row = read_history(workdir)[-1]
    assert "val_pcp_strict" not in row and {"val_oks_ap", "val_pdj_0.2"} <= row.keys()
    assert (
        metrics["pcp"]["strict"] == {"拇指 bones": None, "$": None, "average": None}
        and metrics["pck"]["thumb2"] is None
    )
    assert "0.0%" not in " ".join(line for line in summary.describe(metrics) if "PCP" in line)


def test_a_cascade_needs_a_torso(tmp_path):
    hand = skeleton_files.from_fields({"joints": list(hands.JOINTS)}, "hand")
    config = tiny.make_recipe("train-*", model__name="cascade", model__base=str(tmp_path))
    with pytest.raises(InputError, match="'hand' has no torso: add 'torso'") as error:
        setup.claim_workdir(config, str(tmp_path / "run"), hand)
    helpers.one_line(error)
    with pytest.raises(InputError, match="has no torso"):
        cascade.build_cascade(config.model, hand, (), False, None)


def test_data_sets_and_files_of_other_joints_are_one_line(tmp_path):
    hand, annotations, _ = hands.make_records(str(tmp_path / "hand"), "train", 4)
    leaf, others, _ = hands.make_records(
        str(tmp_path / "leaf"), "train", 4, joints=("base", "tip"), bones=((1, 2),), points=lambda rng: np.eye(2) * 50
    )
    config = tiny.make_recipe(f"{hand},{leaf}", skeleton="auto")
    with pytest.raises(InputError, match="leaf.*'hand'.*no joint in common") as error:
        trainer.train(config, str(tmp_path / "run"))
    helpers.one_line(error)
    for fields in ({"skeleton": "coco"}, {"data__val": leaf, "skeleton": "auto"}):
        with pytest.raises(InputError, match="labels of skeleton|no data set.*labels") as error:
            trainer.train(tiny.make_recipe(hand, **fields), str(tmp_path / "run"))
        helpers.one_line(error)
    table = {"joints": ["base", "tip"]}
    path = helpers.write_json(tmp_path / "leaf.json", table)
    with pytest.raises(InputError, match="joints") as error:
        trainer.train(tiny.make_recipe(hand, skeleton=path), str(tmp_path / "run"))
    helpers.one_line(error)
    results = [{"image_id": 1, "bbox": [0, 0, 9, 9], "keypoints": [1.0] * 6, "score": 0.5, "category_id": 1}]
    path = helpers.write_json(tmp_path / "results.json", results)
    with pytest.raises(InputError, match="2 joints for each person, but the skeleton 'hand' of .* has 21") as error:
        on_detections.evaluate(path, annotations, str(tmp_path))
    helpers.one_line(error)
    # Annotations of other joints than those of the records.
    with pytest.raises(InputError, match="leaf") as error:
        summary.read_labels(others, records.find(hand).skeleton)
    helpers.one_line(error)
