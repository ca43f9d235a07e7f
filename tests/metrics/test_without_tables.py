"""Metrics of a skeleton without limbs and torso, against closed forms."""

import numpy as np
import pytest

from kpose.core import skeletons
from kpose.metrics import bootstrap, coco, keras_metrics, pose, tables

HAND = skeletons.Skeleton("hand", joints=("wrist", "thumb", "index"))
RNG = np.random.default_rng(0)
BOXES = np.concatenate([RNG.uniform(0, 50, (20, 2)), RNG.uniform(20, 90, (20, 2))], -1)
POINTS = RNG.uniform(0, 100, (20, 3, 2))
TRUTH = np.concatenate([POINTS, RNG.integers(0, 3, (20, 3, 1))], -1).astype(np.float32)
PREDICTION = (POINTS + RNG.normal(0, 8, POINTS.shape)).astype(np.float32)


def share_within(threshold):
    """The share of labelled joints with an error of at most `threshold` longer sides of the box."""
    counted, correct = 0, 0
    for truth, prediction, (_, _, width, height) in zip(TRUTH, PREDICTION, BOXES, strict=True):
        for (x, y, flag), (u, v) in zip(truth, prediction, strict=True):
            counted += flag > 0
            correct += flag > 0 and (x - u) ** 2 + (y - v) ** 2 <= (threshold * max(width, height)) ** 2
    return correct / counted


def test_pdj_is_relative_to_the_box():
    assert pose.pdj_unit(HAND) == "longer sides of the box" and pose.pdj_unit(skeletons.LSP) == "torso diameters"
    table = tables.pdj_table(TRUTH, PREDICTION, HAND, BOXES)
    assert 0.2 < table["0.1"] < table["0.2"] < 1
    for threshold in (0.1, 0.2):
        assert table[str(threshold)] == pytest.approx(share_within(threshold))
    curve = tables.pdj_curve(TRUTH, PREDICTION, HAND, BOXES)
    assert curve["pdj"][3] == table["0.2"] == tables.pck_table(TRUTH, PREDICTION, BOXES, HAND)["average"]
    metric = keras_metrics.PDJ(HAND, 0.1)
    assert not metric.defined
    weight = np.float32(np.arange(20) < 20)
    metric.update_state(TRUTH, PREDICTION, weight, sides=BOXES[:, 2:].max(1))
    assert metric.defined and float(metric.result()) == pytest.approx(share_within(0.1))
    again = keras_metrics.PDJ.from_config(metric.get_config())
    assert again.skeleton == HAND and keras_metrics.PCP("lsp").get_config()["skeleton"] == "lsp"
    with pytest.raises(ValueError, match="has no torso"):
        pose.detected_joints(TRUTH, PREDICTION, HAND, 0.1)


def test_there_is_no_pcp_and_every_key_stays():
    nothing = {"strict": {"average": None}, "mean": {"average": None}}
    assert tables.pcp_table(TRUTH, PREDICTION, HAND) == nothing
    assert tables.limb_table(TRUTH, PREDICTION, HAND) == {"strict": {}, "mean": {}}
    errors = tables.joint_error_table(TRUTH, PREDICTION, HAND)
    assert {row["mean_of_torso"] for row in errors.values()} == {None} and errors["wrist"]["mean"] > 0
    counts = bootstrap.person_counts(TRUTH, PREDICTION, HAND, BOXES)
    assert counts["pcp_strict"].shape == counts["limbs_mean"].shape == (20, 0, 2)
    found = bootstrap.intervals(counts, np.arange(20), HAND)
    assert found["pcp"] == nothing and found["pcp_by_limb"] == {"strict": {}, "mean": {}}
    low, high = found["pdj"]["0.2"]
    assert low <= share_within(0.2) <= high
    # Longer than any box: every labelled joint is correct.
    assert (
        pose.detected_joints(TRUTH, PREDICTION, HAND, 9, BOXES[:, 2:].max(1))[0].numpy().sum()
        == (TRUTH[..., 2] > 0).sum()
    )


def test_pcp_is_undefined_until_a_limb_counts():
    metric = keras_metrics.PCP(skeletons.COCO, "strict")
    assert not metric.defined
    truth = np.zeros((2, 17, 3), np.float32)
    metric.update_state(truth, truth[..., :2])
    assert not metric.defined
    truth[..., 2] = 2
    metric.update_state(truth, truth[..., :2])
    assert metric.defined


def test_the_sigmas_are_the_list_or_what_the_default_is():
    assert coco.sigmas_of(HAND) == "default 0.067" and coco.sigmas_of(skeletons.COCO) == list(skeletons.COCO.sigmas)
    assert coco.note_on_sigmas("default 0.067") == " (sigmas: default 0.067)"
    assert coco.note_on_sigmas([0.1]) == coco.note_on_sigmas(None) == ""
