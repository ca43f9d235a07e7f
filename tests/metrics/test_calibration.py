"""The fit of calibrations against closed forms, SciPy and pycocotools."""

import contextlib
import io

import numpy as np
import pytest
import scipy.optimize
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.metrics import calibration


def mapped(scores, a, b, c):
    return 1 / (1 + np.exp(-(a * np.log(scores) - b * np.log(1 - scores) + c)))


@pytest.mark.parametrize("values", [(0.2, 0.6), (0.1, 0.3, 0.9)])
def test_few_scores_get_their_smoothed_frequencies(values):
    """With two or three values of the score, the map goes through the frequency of each."""
    rights = {0.1: 2, 0.2: 10, 0.3: 12, 0.6: 30, 0.9: 35}
    scores, total = np.repeat(values, 40), sum(rights[v] for v in values)
    right = np.concatenate([np.arange(40) < rights[v] for v in values]).astype(float)
    # Platt: with N right joints of M the targets are (N + 1) / (N + 2) and 1 / (M - N + 2).
    high, low = (total + 1) / (total + 2), 1 / (len(scores) - total + 2)
    wanted = [(rights[v] * high + (40 - rights[v]) * low) / 40 for v in values]
    np.testing.assert_allclose(mapped(np.array(values), *calibration.fit(scores, right)), wanted, rtol=1e-6)


@pytest.mark.parametrize("kind", ["right or wrong", "between"])
@pytest.mark.parametrize("true", [(1.7, 1.2, 0.9), (1.5, 0.0, 3.0), (0.0, 1.0, 0.5)])
def test_the_fit_is_the_maximum_that_scipy_finds(kind, true):
    rng = np.random.default_rng(3)
    scores = rng.beta(2, 2, 4000)
    wanted = mapped(scores, *true)
    outcomes = wanted if kind == "between" else rng.random(4000) < wanted
    outcomes = outcomes.astype(float)
    total, count = outcomes.sum(), len(outcomes)
    targets = 1 / (count - total + 2) + ((total + 1) / (total + 2) - 1 / (count - total + 2)) * outcomes

    def minus_likelihood(values):
        p = np.clip(mapped(scores, *values), 1e-12, 1 - 1e-12)
        return -np.mean(targets * np.log(p) + (1 - targets) * np.log(1 - p))

    limits = [(0, None), (0, None), (None, None)]
    best = scipy.optimize.minimize(minus_likelihood, [1, 1, 0], bounds=limits, tol=1e-12)
    found = calibration.fit(scores, outcomes)
    assert min(found[:2]) >= 0 and minus_likelihood(found) <= best.fun + 1e-9
    grid = np.linspace(0.02, 0.98, 49)
    np.testing.assert_allclose(mapped(grid, *found), mapped(grid, *best.x), atol=2e-3)
    np.testing.assert_allclose(mapped(grid, *found), mapped(grid, *true), atol=0.04)


def test_separable_outcomes_have_a_finite_map():
    scores = np.linspace(0.05, 0.95, 40)
    a, b, c = calibration.fit(scores, scores > 0.5)
    assert 0 < a + b < 1000 and np.isfinite(c)
    a, b, c = calibration.fit(np.r_[np.zeros(20), np.ones(20)], np.r_[np.zeros(20), np.ones(20)])
    assert 0 < a + b < 10 and np.isfinite(c)


@pytest.mark.parametrize(
    ("scores", "outcomes", "message"),
    [
        (np.full(50, 0.3), np.arange(50) % 2, "all are equal"),
        (np.linspace(0.1, 0.9, 50), np.arange(50) < 25, "higher scores do not mean better joints"),
        (np.linspace(0.1, 0.9, 5), np.arange(5) % 2, "5 with labels, but it needs"),
    ],
)
def test_scores_that_cannot_be_calibrated_are_refused(scores, outcomes, message):
    with pytest.raises(InputError, match=f"the scores of joints: {message}"):
        calibration.fit(scores, outcomes, "the scores of joints")


def test_reliability_is_a_weighted_mean_over_bins_of_equal_size():
    rng = np.random.default_rng(0)
    scores, right = rng.random(1003), rng.integers(0, 2, 1003)
    found = calibration.reliability(scores, right, bins=15)
    pairs, gap = sorted(zip(scores.tolist(), right.tolist(), strict=True)), 0.0
    sizes = [row["count"] for row in found["bins"]]
    assert sum(sizes) == found["count"] == 1003 and max(sizes) - min(sizes) <= 1 and len(sizes) == 15
    for row in found["bins"]:
        part, pairs = pairs[: row["count"]], pairs[row["count"] :]
        means = [sum(column) / len(part) for column in zip(*part, strict=True)]
        np.testing.assert_allclose([row["score"], row["outcome"]], means)
        gap += abs(means[0] - means[1]) * len(part)
    assert found["ece"] == pytest.approx(gap / 1003)
    assert found["brier"] == pytest.approx(sum((s - y) ** 2 for s, y in zip(scores, right, strict=True)) / 1003)
    assert calibration.reliability([], []) is None and len(calibration.reliability([0.5], [1])["bins"]) == 1


def test_outcomes_are_those_of_pycocotools():
    """OKS of persons, and of joints alone, each as a person with this joint only."""
    rng = np.random.default_rng(1)
    count, skeleton = 6, skeletons.COCO
    truth = np.concatenate([rng.uniform(20, 200, (count, 17, 2)), rng.integers(0, 3, (count, 17, 1))], -1)
    truth[0, :, 2] = 0
    areas = rng.uniform(2000, 20000, count)
    predicted = truth[..., :2] + rng.normal(0, 8, (count, 17, 2))
    right, counted, oks = calibration.outcomes(truth, predicted, areas, skeleton)
    assert (counted == (truth[..., 2] > 0)).all() and not right[~counted].any() and np.isnan(oks[0])
    for k in range(1, count):
        assert oks[k] == pytest.approx(_oks(truth[k], predicted[k], areas[k]), abs=1e-6)
        joint = int(np.flatnonzero(counted[k])[0])
        alone = np.where(np.arange(17)[:, None] == joint, truth[k], 0)
        assert right[k, joint] == (_oks(alone, predicted[k], areas[k]) >= 0.5)
    no_area = calibration.outcomes(truth, predicted, np.zeros(count), skeleton)
    assert not no_area[1].any() and np.isnan(no_area[2]).all()


def _oks(truth, predicted, area):
    with contextlib.redirect_stdout(io.StringIO()):
        labels = COCO()
        labels.dataset = {
            "images": [{"id": 1}],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": float(area), "bbox": [0, 0, 1, 1]}
                | {"keypoints": truth.ravel().tolist(), "num_keypoints": int((truth[:, 2] > 0).sum())}
            ],
        }
        labels.createIndex()
        flat = np.concatenate([predicted, np.ones((17, 1))], -1).ravel().tolist()
        result = {"image_id": 1, "category_id": 1, "keypoints": flat, "score": 1.0}
        evaluation = COCOeval(labels, labels.loadRes([result]), "keypoints")
        evaluation.params.imgIds = [1]
        evaluation.evaluate()
    return float(evaluation.ious[1, 1][0, 0])
