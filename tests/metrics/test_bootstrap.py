"""Bootstrap intervals, compared with values known by construction."""

import numpy as np
import pytest

from kpose.core import skeletons
from kpose.metrics import bootstrap
from kpose.metrics.tables import limb_table, pdj_table
from tests.metrics.test_keras_metrics import persons, plain_pcp

COCO = skeletons.COCO


def test_the_persons_counts_add_up_to_the_tables():
    truth, prediction = persons(3)
    counts = bootstrap.person_counts(truth, prediction, COCO)
    for rule in ("strict", "mean"):
        expected = plain_pcp(truth.astype(np.float64), prediction.astype(np.float64), rule)
        sums = counts[f"pcp_{rule}"].sum(0)
        assert bootstrap.average(sums) == pytest.approx(expected["average"])
        np.testing.assert_allclose(sums[:, 0] / sums[:, 1], [expected[group] for group in COCO.limbs])
        limbs = counts[f"limbs_{rule}"].sum(0)
        table = limb_table(truth, prediction, COCO)[rule]
        np.testing.assert_allclose(limbs[:, 0] / limbs[:, 1], list(table.values()))
        assert list(table) == list(COCO.limb_names)
    for name, threshold in (("pdj", "0.2"), ("pdj_0.1", "0.1")):
        expected = pdj_table(truth, prediction, COCO)[threshold]
        assert bootstrap.average(counts[name].sum(0)) == pytest.approx(expected, abs=1e-6)


def test_an_interval_is_as_wide_as_the_binomial_says():
    """400 persons with one limb each, right with probability 0.3: a standard error of 0.0229."""
    right = (np.random.default_rng(0).random(400) < 0.3).astype(float)
    counts = np.stack([right, np.ones(400)], -1)[:, None]
    low, high = bootstrap.interval(bootstrap.average(bootstrap.resampled(counts)))
    error = np.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert low < right.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.12)


def test_nothing_counted_has_no_interval():
    assert bootstrap.interval(bootstrap.average(bootstrap.resampled(np.zeros((5, 1, 2))))) is None


def test_a_paired_difference_has_a_narrower_interval_than_one_run():
    truth, prediction = persons(4, count=200)
    better = truth[..., :2] + 0.9 * (prediction - truth[..., :2])
    one, other = (bootstrap.person_counts(truth, points, COCO) for points in (prediction, better))
    found = bootstrap.paired_differences(one, other)["pcp_strict"]
    low, high = found["interval"]
    assert 0 < low < found["difference"] < high
    alone = bootstrap.intervals(one, COCO)["pcp"]["strict"]["average"]
    assert high - low < 0.7 * (alone[1] - alone[0])
    same = bootstrap.paired_differences(one, one)["pdj"]
    assert same["difference"] == 0 and same["interval"] == [0, 0]
