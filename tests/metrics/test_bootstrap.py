"""Bootstrap intervals, compared with values known by construction."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.core import skeletons
from kpose.metrics import bootstrap, coco
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
    low, high = bootstrap.interval(bootstrap.average(bootstrap.resampled(counts, np.arange(400))))
    error = np.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert low < right.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.12)


def test_nothing_counted_has_no_interval():
    nothing = bootstrap.resampled(np.zeros((5, 1, 2)), np.arange(5))
    assert bootstrap.interval(bootstrap.average(nothing)) is None


def test_one_image_has_no_interval():
    """Its persons tell nothing about other images."""
    truth, prediction = persons(6, count=30)
    counts = bootstrap.person_counts(truth, prediction, COCO)
    found = bootstrap.intervals(counts, np.zeros(30, int), COCO)
    assert set(found["pdj"].values()) == {None} and found["pcp"]["strict"]["average"] is None


def plain_interval(correct, counted, image_ids, resamples=4000):
    """The image bootstrap of a pooled share, person by person and with another generator."""
    generator = np.random.RandomState(11)
    members = {image: [n for n, other in enumerate(image_ids) if other == image] for image in set(image_ids)}
    names, values = sorted(members), []
    for _ in range(resamples):
        drawn = [n for k in generator.randint(len(names), size=len(names)) for n in members[names[k]]]
        values.append(sum(correct[n] for n in drawn) / sum(counted[n] for n in drawn))
    values.sort()
    return values[round(0.025 * resamples)], values[round(0.975 * resamples)]


def test_the_interval_is_that_of_another_bootstrap_over_images():
    """80 images of 1 to 6 persons, whose success depends on the image."""
    random = np.random.default_rng(1)
    image_ids = np.repeat(random.permutation(80), random.integers(1, 7, 80)).tolist()
    ease = random.random(80)
    counted = random.integers(1, 9, len(image_ids))
    correct = random.binomial(counted, ease[image_ids])
    low, high = plain_interval(correct.tolist(), counted.tolist(), image_ids)
    counts = np.stack([correct, counted], -1).astype(float)[:, None]
    sums = bootstrap.resampled(counts, bootstrap.number_images(image_ids))
    found = bootstrap.interval(bootstrap.average(sums))
    assert found == pytest.approx([low, high], abs=0.12 * (high - low))
    # Over persons the interval is narrower by more than the errors of both bootstraps.
    alone = bootstrap.interval(bootstrap.average(bootstrap.resampled(counts, np.arange(len(counts)))))
    assert alone[1] - alone[0] < 0.8 * (high - low)


@settings(deadline=None, max_examples=20)
@given(copies=st.integers(2, 9), seed=st.integers(0, 999))
def test_copies_of_persons_in_their_image_change_no_interval(copies, seed):
    """One person per image, each `copies` times: the information stays, so the intervals stay.

    Resampling persons would take copies for new persons and give intervals narrower by the root of
    their number.
    """
    truth, prediction = persons(seed, count=60)
    alone = bootstrap.person_counts(truth, prediction, COCO)
    copied = bootstrap.person_counts(np.repeat(truth, copies, 0), np.repeat(prediction, copies, 0), COCO)
    numbers = np.repeat(np.arange(60), copies)
    expected = bootstrap.intervals(alone, np.arange(60), COCO)
    found = bootstrap.intervals(copied, numbers, COCO)
    assert found["pdj"]["0.2"] == pytest.approx(expected["pdj"]["0.2"], abs=1e-12)
    for rule in ("strict", "mean"):
        for group, interval in expected["pcp"][rule].items():
            assert found["pcp"][rule][group] == pytest.approx(interval, abs=1e-12)
    of_persons = bootstrap.intervals(copied, np.arange(60 * copies), COCO)
    widths = [np.diff(each["pdj"]["0.2"])[0] for each in (of_persons, expected)]
    assert widths[0] / widths[1] == pytest.approx(copies**-0.5, rel=0.15)


def test_images_are_told_apart_by_all_keys():
    """Ids of two sources collide; the file names do not."""
    ids, names = [7, 7, 3, 7, 3], ["a.jpg", "b.jpg", "a.jpg", "a.jpg", "a.jpg"]
    assert bootstrap.number_images(ids, names).tolist() == [0, 1, 2, 0, 2]
    assert bootstrap.number_images(ids).tolist() == [0, 0, 1, 0, 1]


def test_a_paired_difference_has_a_narrower_interval_than_one_run():
    truth, prediction = persons(4, count=200)
    better = truth[..., :2] + 0.9 * (prediction - truth[..., :2])
    one, other = (bootstrap.person_counts(truth, points, COCO) for points in (prediction, better))
    images = np.arange(200) // 2
    found = bootstrap.paired_differences(one, other, images)["pcp_strict"]
    low, high = found["interval"]
    assert 0 < low < found["difference"] < high
    alone = bootstrap.intervals(one, images, COCO)["pcp"]["strict"]["average"]
    assert high - low < 0.7 * (alone[1] - alone[0])
    same = bootstrap.paired_differences(one, one, images)["pdj"]
    assert same["difference"] == 0 and same["interval"] == [0, 0]


def test_a_paired_difference_resamples_images():
    """Copies of the persons in their images change nothing."""
    truth, prediction = persons(4, count=50)
    better = truth[..., :2] + 0.9 * (prediction - truth[..., :2])
    single = [bootstrap.person_counts(truth, points, COCO) for points in (prediction, better)]
    thrice = [{name: np.repeat(values, 3, 0) for name, values in counts.items()} for counts in single]
    expected = bootstrap.paired_differences(*single, np.arange(50))
    found = bootstrap.paired_differences(*thrice, np.repeat(np.arange(50), 3))
    for name, row in expected.items():
        assert found[name]["interval"] == pytest.approx(row["interval"], abs=1e-12)
        assert found[name]["difference"] == pytest.approx(row["difference"], abs=1e-12)


def test_the_interval_of_ap_is_that_of_another_bootstrap():
    """One person and one result an image, right or wrong at all thresholds, and equal scores: AP is the precision
    of the first hit onwards. The other bootstrap draws images one by one and ranks them with COCO's rules."""
    rng = np.random.default_rng(0)
    right = rng.random(60) < 0.6
    matches = coco.Matches(
        image=np.arange(60),
        correct=np.tile(right, (10, 1)),
        wrong=np.tile(~right, (10, 1)),
        persons=np.ones(60),
        recalls=np.linspace(0, 1, 101),
    )
    generator, values = np.random.RandomState(3), []
    for _ in range(1000):
        hits = right[np.sort(generator.randint(0, 60, 60))]
        precision, recall = np.cumsum(hits) / np.arange(1, 61), np.cumsum(hits) / 60
        values.append(np.mean([max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)]))
    found = bootstrap.ap_intervals(matches)
    assert found.keys() == {"AP", "AP50", "AP75"} and found["AP"] == found["AP50"]
    np.testing.assert_allclose(found["AP"], np.percentile(values, [2.5, 97.5]), atol=0.02)


def test_the_interval_of_an_ap_difference_draws_the_same_images_for_both():
    """One person and one result an image, as above; the second prediction is right where the first is, and more."""
    rng = np.random.default_rng(1)
    draws = rng.random(80)
    rights = [draws < 0.5, draws < 0.7]
    both = [
        coco.Matches(
            image=np.arange(80),
            correct=np.tile(right, (10, 1)),
            wrong=np.tile(~right, (10, 1)),
            persons=np.ones(80),
            recalls=np.linspace(0, 1, 101),
        )
        for right in rights
    ]
    generator, gaps = np.random.RandomState(4), []
    for _ in range(1000):
        drawn = np.sort(generator.randint(0, 80, 80))
        aps = []
        for hits in (right[drawn] for right in rights):
            precision, recall = np.cumsum(hits) / np.arange(1, 81), np.cumsum(hits) / 80
            aps.append(np.mean([max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)]))
        gaps.append(aps[1] - aps[0])
    np.testing.assert_allclose(bootstrap.ap_difference(*both), np.percentile(gaps, [2.5, 97.5]), atol=0.02)
    # Equal predictions differ in no resample: different images for each would give an interval.
    assert bootstrap.ap_difference(both[0], both[0]) == [0, 0]


def test_one_image_has_no_interval_of_ap():
    one = coco.Matches(np.zeros(1, int), np.ones((10, 1), bool), np.zeros((10, 1), bool), np.ones(1), np.ones(1))
    assert bootstrap.ap_intervals(one) == {"AP": None, "AP50": None, "AP75": None}
    assert bootstrap.ap_difference(one, one) is None
