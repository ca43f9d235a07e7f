"""OKS AP through pycocotools, and COCO results."""

import json

import numpy as np
import pytest

from kpose import scoring, skeletons
from kpose.errors import InputError
from tfrecords_tools import figures

COCO = skeletons.COCO


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    return figures.render_dataset(str(tmp_path_factory.mktemp("figures")), 12, seed=3, split="val", workers=1)


def load(path):
    with open(path) as file:
        return json.load(file)


def results_of(persons, noise=0.0):
    rng = np.random.default_rng(0)
    keypoints = np.array([p["keypoints"] for p in persons], float).reshape(-1, 17, 3)
    keypoints[..., :2] += rng.normal(0, 1, keypoints[..., :2].shape) * noise
    keypoints[..., 2] = 0.5
    scores = np.linspace(0.9, 0.1, len(persons))
    return scoring.coco_results(
        [p["image_id"] for p in persons], [p["bbox"] for p in persons], keypoints, scores.tolist()
    )


def test_ground_truth_scored_as_predictions_gives_ap_1(annotations):
    persons = load(annotations)["annotations"]
    table = scoring.oks_ap(annotations, results_of(persons), [p["id"] for p in persons], COCO)
    assert list(table) == list(scoring.OKS_NAMES)
    assert table["AP"] == pytest.approx(1.0) and table["AR"] == pytest.approx(1.0)


def test_ap_falls_with_noise(annotations):
    persons = load(annotations)["annotations"]
    ids = [p["id"] for p in persons]
    aps = [scoring.oks_ap(annotations, results_of(persons, noise), ids, COCO)["AP"] for noise in (1, 8, 60)]
    assert 1 >= aps[0] > aps[1] > aps[2]


def test_persons_nobody_was_asked_about_do_not_lower_recall(annotations):
    persons = load(annotations)["annotations"]
    asked = persons[::2]
    table = scoring.oks_ap(annotations, results_of(asked), [p["id"] for p in asked], COCO)
    assert table["AP"] == pytest.approx(1.0)


def test_annotations_of_other_persons_are_refused(annotations):
    persons = load(annotations)["annotations"]
    with pytest.raises(InputError, match="1 of the 2 persons"):
        scoring.oks_ap(annotations, results_of(persons[:2]), [persons[0]["id"], 10**9], COCO)


def test_results_repeat_image_and_box_and_are_plain_json(annotations):
    persons = load(annotations)["annotations"]
    results = json.loads(json.dumps(results_of(persons)))
    assert [r["image_id"] for r in results] == [p["image_id"] for p in persons]
    assert [r["bbox"] for r in results] == [p["bbox"] for p in persons]
    assert all(len(r["keypoints"]) == 51 and 0 < r["score"] < 1 for r in results)


def test_visibility_figures_against_a_count_of_pairs():
    rng = np.random.default_rng(0)
    truth = np.zeros((20, 17, 3))
    truth[..., 2] = rng.integers(0, 3, (20, 17))
    # Rounded, so that there are ties.
    scores = np.round(0.3 * (truth[..., 2] > 0) + 0.7 * rng.uniform(0, 1, (20, 17)), 1)
    table = scoring.visibility_table(truth, scores)
    positive, negative = scores[truth[..., 2] > 0], scores[truth[..., 2] == 0]
    wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert table["auc"] == pytest.approx(np.mean(wins))
    precision = (positive > 0.5).sum() / ((positive > 0.5).sum() + (negative > 0.5).sum())
    recall = (positive > 0.5).mean()
    assert table["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    right = (positive > 0.5).sum() + (negative <= 0.5).sum()
    assert table["accuracy"] == pytest.approx(right / 340) and table["labelled"] == pytest.approx(len(positive) / 340)


def test_visibility_figures_where_every_joint_is_labelled():
    truth = np.full((2, 17, 3), 2.0)
    table = scoring.visibility_table(truth, np.ones((2, 17)))
    assert table == {"auc": None, "f1": 1.0, "accuracy": 1.0, "labelled": 1.0}
