"""Training runs: the files of a run, resumption after a kill, errors."""

import csv
import glob
import json
import os
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kpose import config as config_lib
from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.data import records
from kpose.data.training_set import with_aspect
from kpose.evaluate import on_records, summary
from kpose.runs import checkpoints
from kpose.runs.workdir import load_config, load_mean_pose, read_history, resolve_recipe
from kpose.train import setup, trainer
from tests import tiny


def final_weights(workdir):
    """All variables of the newest checkpoint, with optimiser and seeds."""
    reader = tf.train.load_checkpoint(checkpoints.latest(workdir))
    others = ("save_counter", checkpoints.EPOCH_METRICS)
    names = [name for name in reader.get_variable_to_shape_map() if not name.startswith(others)]
    return {name: reader.get_tensor(name) for name in sorted(names) if name.endswith("VARIABLE_VALUE")}


def assert_same_weights(one, other):
    first, second = final_weights(one), final_weights(other)
    assert first.keys() == second.keys() and len(first) > 10
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


def test_a_run_leaves_config_history_mean_pose_pictures_and_tensorboard(tiny_run, tiny_data):
    assert config_lib.load(os.path.join(tiny_run, "config.json")).name == "tiny"
    with open(os.path.join(tiny_run, "history.csv")) as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["step"]) == 6
    assert {"loss", "val_loss", "val_pcp_strict", "val_pcp_mean", "val_spread", "learning_rate"} <= rows[-1].keys()
    assert Image.open(os.path.join(tiny_run, "learning_curve.png")).size[0] > 300
    mean_pose = load_mean_pose(tiny_run)
    assert mean_pose.shape == (17, 2) and np.abs(mean_pose).max() < 0.5

    train, validation, floor = (_summaries(tiny_run, name) for name in ("train", "validation", "mean_pose"))
    assert {"loss", "spread", "pcp_strict", "gradient_norm", "learning_rate", "images_per_second", "data_wait"} <= (
        train.keys()
    )
    picture = validation["truth and prediction"].string_val[2]
    assert tf.io.decode_png(picture).shape[-1] == 3

    # PCP by limb, for the model and the mean pose; the average is over the four groups.
    limbs = {name: float(tf.make_ndarray(value)) for name, value in floor.items() if "by_limb" in name}
    assert len(limbs) == 8 and {"left_lower_arm", "right_upper_leg"} <= {name.split("/")[1] for name in limbs}
    assert limbs.keys() <= validation.keys() and {"pcp_strict", "pcp_mean"} <= floor.keys() & validation.keys()
    last = float(rows[-1]["val_pcp_strict"])
    assert float(tf.make_ndarray(validation["pcp_strict"])) == pytest.approx(last, abs=1e-6)
    session = _summaries(tiny_run, ".")["_hparams_/session_start_info"]
    assert session is not None


def _summaries(workdir, run):
    """dict of a TensorBoard run: tag -> last tensor."""
    found = {}
    for path in sorted(glob.glob(os.path.join(workdir, "tensorboard", run, "events*"))):
        for event in tf.compat.v1.train.summary_iterator(path):
            found |= {value.tag: value.tensor for value in event.summary.value}
    return found


def test_the_log_says_what_runs_and_a_profile_is_kept_of_the_steps_that_were_asked_for(tiny_data, tmp_path, caplog):
    with caplog.at_level("INFO", logger="absl"):
        trainer.train(tiny.make_recipe(tiny_data["train"]), str(tmp_path), profile=(2, 4))
    for words in (
        r"1 replica on CPU:0, float32, not compiled",
        r"network integral: input 32 x 32, 0.0 million parameters, [\d.e-]+ GFLOP per image, about [\d.e-]+ per",
        r"24 training records|\d+ training records, batch 8 \(8 per replica\)",
        r"first step after [\d.]+ s",
        r"peak memory [\d.]+ GB of the process",
        r"profile of steps 2 to 4",
    ):
        assert re.search(words, caplog.text), words
    (trace,) = tmp_path.glob("tensorboard/train/plugins/profile/*/*.xplane.pb")
    assert trace.stat().st_size > 10_000
    with pytest.raises(InputError, match="--profile=4:4"):
        trainer.train(tiny.make_recipe(tiny_data["train"]), str(tmp_path / "other"), profile=(4, 4))


@pytest.mark.slow
def test_stopped_and_started_again_a_run_ends_bit_for_bit_as_the_uninterrupted_one(tiny_data, tmp_path):
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    recipe = {"steps_per_execution": 2, **tiny.DEEPPOSE}
    trainer.train(tiny.make_recipe(tiny_data["train"], steps=9, **recipe), whole)
    for steps in (3, 4, 9):
        trainer.train(tiny.make_recipe(tiny_data["train"], steps=steps, **recipe), parts)
    assert_same_weights(whole, parts)
    assert any("seeds" in name for name in final_weights(whole)), "the state of dropout is saved too"


def test_a_finished_run_started_again_changes_nothing(tiny_data, tiny_run):
    before, rows = final_weights(tiny_run), read_history(tiny_run)
    logs = trainer.train(tiny.make_recipe(tiny_data["train"], tiny_data["val"]), tiny_run)
    assert logs["step"] == 6 and "val_pcp_strict" in logs
    after = final_weights(tiny_run)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert read_history(tiny_run) == rows


@pytest.mark.slow
def test_two_replicas_train_as_one(tiny_data, tmp_path):
    logs = {}
    for replicas in (1, 2):
        config = tiny.make_recipe(tiny_data["train"], tiny_data["val"], replicas=replicas)
        logs[replicas] = trainer.train(config, str(tmp_path / str(replicas)))
    for name in ("loss", "val_loss", "val_pcp_mean", "gradient_norm"):
        assert logs[2][name] == pytest.approx(logs[1][name], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [{}, {"augment__rotation": 40.0, "augment__scale": (0.8, 1.2), "augment__jitter": 0.3}]
)
def test_augmentation_on_the_device_is_the_one_on_the_host(tiny_data, tmp_path, fields):
    logs = {}
    for place in ("host", "device"):
        config = tiny.make_recipe(tiny_data["train"], steps=4, augment__on=place, xla="on", **fields)
        logs[place] = trainer.train(config, str(tmp_path / place))
    for name in ("loss", "pcp_mean", "gradient_norm"):
        # Pixel values are rounded at different points.
        assert logs["device"][name] == pytest.approx(logs["host"][name], rel=1e-2 if fields else 1e-4)


@pytest.mark.slow
def test_a_visibility_recipe_reports_how_well_it_tells_what_is_labelled(tiny_data, tmp_path):
    config = tiny.make_recipe(tiny_data["train"], loss__name="masked_l2", optimizer__ema=0.9, **tiny.DEEPPOSE)
    trainer.train(config, str(tmp_path))
    table = on_records.evaluate(str(tmp_path), tiny_data["val"])
    assert 0 <= table["visibility"]["auc"] <= 1 and 0 < table["visibility"]["labelled"] < 1
    assert any(line.startswith("visibility: AUC") for line in summary.describe(table))


def test_training_learns(tiny_data, tmp_path):
    recipe = {
        "model__name": "integral",
        "model__filters": (16, 24, 32),
        "model__head_filters": 16,
        "augment__flip": 0.0,
    }
    config = tiny.make_recipe(tiny_data["train"], steps=150, optimizer__learning_rate=0.01, **recipe)
    config.checkpoint_every = config.log_every = 1000
    logs = trainer.train(config, str(tmp_path / "run"))
    # A small network can fit these few persons; the mean pose has a PCP of 10 to 15 percent.
    assert logs["pcp_strict"] > 0.5


def test_the_mean_pose_is_that_of_the_labelled_joints(tiny_data, tiny_run):
    with open(tiny_data["train_annotations"]) as file:
        persons = json.load(file)["annotations"]
    sums, counts = np.zeros((17, 2)), np.zeros((17, 1))
    for person in persons:
        x, y, w, h = person["bbox"]
        for joint in range(17):
            px, py, flag = person["keypoints"][3 * joint : 3 * joint + 3]
            if flag:
                # The file has pixel indices.
                sums[joint] += [(px + 0.5 - x) / w - 0.5, (py + 0.5 - y) / h - 0.5]
                counts[joint] += 1
    np.testing.assert_allclose(load_mean_pose(tiny_run), sums / counts, atol=1e-5)


def test_a_workdir_of_another_recipe_is_refused(tiny_data, tiny_run, tmp_path):
    with pytest.raises(InputError, match="another recipe.*optimizer.learning_rate: 0.001 -> 0.1"):
        trainer.train(tiny.make_recipe(tiny_data["train"], optimizer__learning_rate=0.1), tiny_run)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="not their recipe config.json"):
        trainer.train(tiny.make_recipe(tiny_data["train"]), str(tmp_path))


def test_bad_records_and_recipes_are_refused_before_the_workdir_is_touched(tiny_data, tmp_path):
    workdir = str(tmp_path / "run")
    cases = [
        ({"train": ""}, {}, "data.train is empty"),
        ({"train": "nowhere/train-*"}, {}, "no records match"),
        ({"train": tiny_data["train"]}, {"batch_size": 7, "replicas": 2}, "cannot be divided"),
        ({"train": tiny_data["train"]}, {"loss__name": "l17"}, "loss.name"),
    ]
    for patterns, fields, message in cases:
        with pytest.raises(InputError, match=message):
            trainer.train(tiny.make_recipe(**patterns, **fields), workdir)
    assert not os.path.exists(workdir)


def test_records_without_the_recipe_s_padding_are_refused(tiny_data, tmp_path):
    with pytest.raises(InputError, match="data.padding is 1.25"):
        trainer.train(tiny.make_recipe(tiny_data["train"], data__padding=1.25), str(tmp_path))


def test_a_run_of_an_older_version_keeps_its_weighting_of_rle(tiny_data, tmp_path):
    """`loss.weighting` is "auto" in the recipe; config.json of a run holds what the run uses."""
    path, workdir = tmp_path / "config.json", str(tmp_path)

    def start(**fields):
        """What a training does with config.json before its first step."""
        recipe = tiny.make_recipe(tiny_data["train"], loss__name="rle", loss__flow_units=4, **fields)
        config = with_aspect(resolve_recipe(recipe, workdir))
        setup.claim_workdir(config, workdir, skeletons.COCO)
        setup.write_start(config, setup.training_set_of(config, skeletons.COCO), {}, workdir)
        return json.loads(path.read_text())

    saved = start(steps=2)
    assert saved["loss"]["weighting"] == "authors"
    del saved["loss"]["weighting"]
    path.write_text(json.dumps(saved))
    assert load_config(workdir).loss.weighting == "kpose_0.1"
    with pytest.raises(InputError, match="loss.weighting: 'kpose_0.1' -> 'authors'"):
        start(steps=4, loss__weighting="authors")
    assert start(steps=4)["loss"]["weighting"] == "kpose_0.1"


def test_a_training_that_diverges_ends_with_a_clear_error_and_no_bad_checkpoint(tiny_data, tmp_path):
    config = tiny.make_recipe(
        tiny_data["train"], steps=40, optimizer__name="sgd", optimizer__learning_rate=1e2, **tiny.DEEPPOSE
    )
    with pytest.raises(InputError, match="loss is .* at step .*learning_rate"):
        trainer.train(config, str(tmp_path))
    assert not os.path.exists(tmp_path / "checkpoints" / "checkpoint")


def test_fully_visible_and_labelled_records_name_their_kind(tiny_data):
    found = records.find(tiny_data["train"])
    assert (found.skeleton.name, found.padding, found.crop_size) == ("coco", 1.0, (48, 48))
