"""PCP, PDJ and spread, compared with plain loops."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.core import skeletons
from kpose.metrics import keras_metrics, pose, tables

COCO = skeletons.COCO


def persons(seed, count=40):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0, 200, (count, 17, 3))
    truth[..., 2] = rng.choice([0, 1, 2], (count, 17), p=[0.2, 0.2, 0.6])
    prediction = truth[..., :2] + rng.normal(0, rng.uniform(5, 60), (count, 17, 2))
    return truth.astype(np.float32), prediction.astype(np.float32)


def plain_pcp(truth, prediction, rule):
    """Limb by limb, in Python."""
    table = {}
    for group, limbs in COCO.limbs.items():
        right = seen = 0
        for true, predicted in zip(truth, prediction, strict=True):
            for a, b in limbs:
                if true[a, 2] == 0 or true[b, 2] == 0:
                    continue
                length = np.hypot(*(true[a, :2] - true[b, :2]))
                errors = [np.hypot(*(true[j, :2] - predicted[j])) for j in (a, b)]
                seen += 1
                right += (max(errors) if rule == "strict" else sum(errors) / 2) <= length / 2
        table[group] = right / seen if seen else None
    present = [value for value in table.values() if value is not None]
    return table | {"average": sum(present) / len(present) if present else None}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(pose.RULES))
def test_pcp_agrees_with_a_plain_loop_offline_and_streamed(seed, rule):
    truth, prediction = persons(seed)
    expected = plain_pcp(truth.astype(np.float64), prediction.astype(np.float64), rule)
    table = tables.pcp_table(truth, prediction, COCO)[rule]
    assert table.keys() == expected.keys()
    for group, value in expected.items():
        assert table[group] == pytest.approx(value, abs=1e-6)
    metric = keras_metrics.PCP("coco", rule)
    for start in range(0, len(truth), 7):
        metric.update_state(truth[start : start + 7], prediction[start : start + 7])
    assert float(metric.result()) == pytest.approx(expected["average"], abs=1e-6)

    one_limb = dataclasses.replace(COCO, limbs={"lower_arms": ((7, 9),)})
    correct, counted = pose.correct_limbs(truth, prediction, one_limb, rule)
    assert metric.by_limb()["left_lower_arm"] == pytest.approx(float(np.sum(correct) / np.sum(counted)))


def test_limbs_without_a_side_are_numbered():
    assert COCO.limb_names[:3] == ("left_upper_arm", "right_upper_arm", "left_lower_arm")
    spine = dataclasses.replace(COCO, limbs={"spines": ((5, 11), (5, 12)), "lower_legs": ((14, 16), (13, 15))})
    assert spine.limb_names == ("spine_1", "spine_2", "right_lower_leg", "left_lower_leg")


def test_a_limb_is_right_up_to_half_its_length_exactly():
    truth = np.zeros((1, 17, 3), np.float32)
    truth[0, 5] = [0, 0, 2]
    truth[0, 7] = [0, 100, 2]
    upper_arm = COCO.limb_list.index((5, 7))

    def correct(shoulder, elbow, rule):
        prediction = np.zeros((1, 17, 2), np.float32)
        prediction[0, 5], prediction[0, 7] = [shoulder, 0], [elbow, 100]
        right, counted = pose.correct_limbs(truth, prediction, COCO, rule)
        assert keras.ops.convert_to_numpy(counted).sum() == 1
        return bool(right[0, upper_arm])

    assert correct(50, 50, "strict") and not correct(50.5, 0, "strict")
    assert correct(99, 0, "mean") and not correct(99, 2, "mean")
    assert correct(60, 40, "mean") and not correct(60, 40, "strict")


def test_metrics_are_measured_in_original_pixels_not_in_the_stretched_crop():
    # A region four times as high as wide: an error that is small beside the true limb looks large
    # in the crop.
    region = np.array([[0, 0, 100, 400]], np.float32)
    truth = np.zeros((1, 17, 3), np.float32)
    truth[0, 11], truth[0, 13] = [0, 0.0, 2], [0, 0.25, 2]  # A thigh of 100 pixels, upright.
    prediction = truth[..., :2].copy()
    prediction[0, 13, 0] += 0.45  # 45 pixels aside: within half of it; in the square crop, 1.8 times its length.
    from kpose.models import decoding

    pixels, predicted = decoding.to_pixels({"keypoints": truth, "region": region}, prediction)
    assert tables.pcp_table(pixels, predicted, COCO)["strict"]["upper_legs"] == 1.0
    assert tables.pcp_table(truth, prediction, COCO)["strict"]["upper_legs"] == 0.0


def test_pdj_agrees_with_a_plain_loop():
    truth, prediction = persons(3)
    for threshold, value in tables.pdj_table(truth, prediction, COCO).items():
        right = seen = 0
        for true, predicted in zip(truth, prediction, strict=True):
            if true[5, 2] == 0 or true[12, 2] == 0:
                continue
            torso = np.hypot(*(true[5, :2] - true[12, :2]))
            for joint in range(17):
                if true[joint, 2] > 0:
                    seen += 1
                    right += np.hypot(*(true[joint, :2] - predicted[joint])) <= float(threshold) * torso
        assert value == pytest.approx(right / seen, abs=1e-6)


def test_weights_leave_samples_out_and_empty_groups_do_not_count():
    truth, prediction = persons(5)
    weight = (np.arange(len(truth)) % 3 > 0).astype(np.float32)
    metric = keras_metrics.PCP("coco", "strict")
    metric.update_state(truth, prediction, weight)
    kept = weight > 0
    expected = tables.pcp_table(truth[kept], prediction[kept], COCO)["strict"]["average"]
    assert float(metric.result()) == pytest.approx(expected, abs=1e-6)
    truth[:, [13, 14, 15, 16], 2] = 0
    table = tables.pcp_table(truth, prediction, COCO)["strict"]
    assert table["upper_legs"] is None and table["lower_legs"] is None
    assert table["average"] == pytest.approx((table["upper_arms"] + table["lower_arms"]) / 2)
    metric.reset_state()
    metric.update_state(truth, prediction)
    assert float(metric.result()) == pytest.approx(table["average"], abs=1e-6)


def test_without_labelled_joints_a_table_has_none():
    truth, prediction = persons(6)
    truth[..., 2] = 0
    assert tables.pcp_table(truth, prediction, COCO)["strict"]["average"] is None
    assert tables.pdj_table(truth, prediction, COCO) == {"0.1": None, "0.2": None}


def test_truth_scored_as_prediction_is_perfect():
    truth, _ = persons(7)
    table = tables.pcp_table(truth, truth[..., :2], COCO)
    assert all(value == 1.0 for rule in table.values() for value in rule.values())


def test_the_metric_works_in_a_stock_compile_and_survives_serialisation():
    metric = keras_metrics.PCP("coco", "mean")
    again = keras_metrics.PCP.from_config(metric.get_config())
    assert (again.rule, again.skeleton, again.name) == ("mean", COCO, "pcp_mean")
    with pytest.raises(ValueError, match="median"):
        keras_metrics.PCP("coco", "median")

    @tf.function(jit_compile=True)
    def compiled(truth, prediction):
        return pose.correct_limbs(truth, prediction, COCO)[0]

    truth, prediction = persons(8)
    np.testing.assert_array_equal(compiled(truth, prediction), pose.correct_limbs(truth, prediction, COCO)[0])


def spread(truth, prediction, weight=None, parts=1):
    metric = keras_metrics.SpreadRatio(truth.shape[1])
    for chunk in np.array_split(np.arange(len(truth)), parts):
        metric.update_state(truth[chunk], prediction[chunk], None if weight is None else weight[chunk])
    return float(metric.result())


def make_poses(persons=40, joints=5):
    rng = np.random.default_rng(0)
    mean = rng.uniform(-0.4, 0.4, (joints, 2))
    points = mean + 0.1 * rng.normal(size=(persons, joints, 2))
    return np.concatenate([points, rng.integers(0, 3, (persons, joints, 1))], -1).astype(np.float32)


def test_spread_is_zero_for_one_pose_one_for_the_truth_and_scales_between():
    truth = make_poses()
    points = truth[..., :2]
    assert spread(truth, np.broadcast_to(points[3], points.shape)) < 2e-3
    assert spread(truth, points) == pytest.approx(1, abs=1e-5)
    # A shift of all predictions does not change the spread.
    assert spread(truth, 0.3 * points + 0.2) == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("parts", [1, 3, 40])
def test_spread_is_that_of_the_labelled_joints_of_real_samples_in_any_batches(parts):
    truth = make_poses()
    rng = np.random.default_rng(1)
    prediction = rng.normal(size=(*truth.shape[:2], 2)).astype(np.float32)
    weight = (np.arange(len(truth)) < 33).astype(np.float32)
    labelled = (truth[..., 2] > 0) & (weight[:, None] > 0)

    def deviation(points):
        columns = [points[labelled[:, joint], joint] for joint in range(truth.shape[1])]
        return np.sqrt(sum(np.square(c - c.mean(0)).sum() for c in columns))

    expected = deviation(prediction.astype(np.float64)) / deviation(truth[..., :2].astype(np.float64))
    assert spread(truth, prediction, weight, parts) == pytest.approx(expected, rel=1e-4)


def test_spread_is_1_for_labels_that_do_not_vary():
    truth = make_poses()[:1]
    assert spread(truth, truth[..., :2]) == 1
    assert spread(truth * [1, 1, 0], truth[..., :2]) == 1


def test_spread_keeps_its_configuration():
    metric = keras_metrics.SpreadRatio(7, name="other")
    again = keras_metrics.SpreadRatio.from_config(metric.get_config())
    assert (again.num_joints, again.name) == (7, "other")


@pytest.mark.parametrize("threshold", [0.1, 0.2])
def test_pdj_is_the_same_streamed_and_comes_back_from_its_config(threshold):
    truth, prediction = persons(8)
    metric = keras_metrics.PDJ.from_config(keras_metrics.PDJ("coco", threshold).get_config())
    for start in range(0, len(truth), 7):
        metric.update_state(truth[start : start + 7], prediction[start : start + 7])
    expected = tables.pdj_table(truth, prediction, COCO)[str(threshold)]
    assert float(metric.result()) == pytest.approx(expected, abs=1e-6)
    metric.reset_state()
    weight = np.arange(len(truth)) % 2
    metric.update_state(truth, prediction, weight)
    expected = tables.pdj_table(truth[1::2], prediction[1::2], COCO)[str(threshold)]
    assert float(metric.result()) == pytest.approx(expected, abs=1e-6)
