"""The tables of metrics.json, compared with plain loops."""

import numpy as np
import pytest

from kpose.core.skeletons import COCO
from kpose.metrics import tables
from kpose.metrics.tables import joint_error_table, pck_table, pcp_table, pdj_curve, pdj_table, person_errors, subsets
from tests.metrics.test_keras_metrics import persons


def test_the_tables_beside_pcp_agree_with_plain_loops():
    truth, prediction = persons(6)
    boxes = np.tile([10.0, 10.0, 50.0, 120.0], (len(truth), 1))
    pck, errors = pck_table(truth, prediction, boxes, COCO), joint_error_table(truth, prediction, COCO)
    for k, joint in enumerate(COCO.joints):
        gaps = [np.hypot(*(t[k, :2] - p[k])) for t, p in zip(truth, prediction, strict=True) if t[k, 2] > 0]
        assert pck[joint] == pytest.approx(sum(gap <= 24 for gap in gaps) / len(gaps))
        assert errors[joint]["mean"] == pytest.approx(sum(gaps) / len(gaps), rel=1e-5)
        assert errors[joint]["median"] == pytest.approx(sorted(gaps)[len(gaps) // 2], rel=0.3)
    curve = pdj_curve(truth, prediction, COCO)
    table = pdj_table(truth, prediction, COCO)
    assert dict(zip(curve["thresholds"], curve["pdj"], strict=True))[0.2] == table["0.2"]
    assert curve["pdj"] == sorted(curve["pdj"])
    chosen = subsets(truth, np.full(len(truth), 50.0**2))
    assert chosen["medium (under 96 x 96)"].all() and not chosen["large"].any()
    counts = (truth[..., 2] > 0).sum(1)
    assert (chosen["12 to 17 labelled joints"] == (counts >= 12)).all()
    assert (chosen["fully visible"] == np.array([(person[:, 2] == 2).all() for person in truth])).all()


def test_truth_scored_as_prediction_is_perfect():
    truth, _ = persons(7)
    boxes = np.tile([0.0, 0.0, 200.0, 200.0], (len(truth), 1))
    assert pcp_table(truth, truth[..., :2], COCO)["strict"]["average"] == 1
    assert pck_table(truth, truth[..., :2], boxes, COCO)["average"] == 1
    assert set(pdj_curve(truth, truth[..., :2], COCO)["pdj"]) == {1.0}
    assert (person_errors(truth, truth[..., :2], boxes) == 0).all()


def test_visibility_metrics_against_a_count_of_pairs():
    rng = np.random.default_rng(0)
    truth = np.zeros((20, 17, 3))
    truth[..., 2] = rng.integers(0, 3, (20, 17))
    # Rounded, so that there are ties.
    scores = np.round(0.3 * (truth[..., 2] > 0) + 0.7 * rng.uniform(0, 1, (20, 17)), 1)
    table = tables.visibility_table(truth, scores)
    positive, negative = scores[truth[..., 2] > 0], scores[truth[..., 2] == 0]
    wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert table["auc"] == pytest.approx(np.mean(wins))
    precision = (positive > 0.5).sum() / ((positive > 0.5).sum() + (negative > 0.5).sum())
    recall = (positive > 0.5).mean()
    assert table["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    right = (positive > 0.5).sum() + (negative <= 0.5).sum()
    assert table["accuracy"] == pytest.approx(right / 340) and table["labelled"] == pytest.approx(len(positive) / 340)


def test_visibility_metrics_where_every_joint_is_labelled():
    truth = np.full((2, 17, 3), 2.0)
    table = tables.visibility_table(truth, np.ones((2, 17)))
    assert table == {"auc": None, "f1": 1.0, "accuracy": 1.0, "labelled": 1.0}


def test_visibility_leaves_out_joints_that_are_never_labelled():
    rng = np.random.default_rng(0)
    truth, scores = rng.uniform(0, 100, (40, 6, 3)), rng.uniform(0, 1, (40, 6))
    truth[..., 2] = rng.integers(0, 3, (40, 6))
    expected = tables.visibility_table(truth, scores)
    wider = np.concatenate([truth, np.tile([0.0, 0.0, -1.0], (40, 2, 1))], 1)
    assert tables.visibility_table(wider, np.concatenate([scores, np.ones((40, 2))], 1)) == expected
    assert 0 < expected["auc"] < 1
