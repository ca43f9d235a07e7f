"""OKS AP by pycocotools, and COCO results."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest

from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.data.coco_files import read_labels
from kpose.metrics import coco, tables
from tests import helpers
from tfrecords_tools.figures import dataset

COCO = skeletons.COCO


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    return dataset.render_dataset(str(tmp_path_factory.mktemp("figures")), 12, seed=3, split="val", workers=1)


def load(path):
    with open(path) as file:
        return json.load(file)


def results_of(persons, noise=0.0):
    rng = np.random.default_rng(0)
    keypoints = np.array([p["keypoints"] for p in persons], float).reshape(-1, 17, 3)
    # Labels of a file are pixel indices.
    keypoints[..., :2] += 0.5 + rng.normal(0, 1, keypoints[..., :2].shape) * noise
    keypoints[..., 2] = 0.5
    scores = np.linspace(0.9, 0.1, len(persons))
    return coco.coco_results([p["image_id"] for p in persons], [p["bbox"] for p in persons], keypoints, scores.tolist())


def test_ground_truth_scored_as_predictions_gives_ap_1(annotations):
    persons = load(annotations)["annotations"]
    results = results_of(persons)
    table = coco.oks_ap(read_labels(annotations, COCO), results, [p["id"] for p in persons], COCO)
    assert all(result.keys() == {"image_id", "category_id", "bbox", "keypoints", "score"} for result in results)
    assert list(table) == list(coco.OKS_NAMES)
    assert table["AP"] == pytest.approx(1.0) and table["AR"] == pytest.approx(1.0)


def test_ap_falls_with_noise(annotations):
    persons = load(annotations)["annotations"]
    ids = [p["id"] for p in persons]
    aps = [
        coco.oks_ap(read_labels(annotations, COCO), results_of(persons, noise), ids, COCO)["AP"] for noise in (1, 8, 60)
    ]
    assert 1 >= aps[0] > aps[1] > aps[2]


def test_persons_that_are_not_chosen_do_not_lower_recall(annotations):
    persons = load(annotations)["annotations"]
    chosen = persons[::2]
    table = coco.oks_ap(read_labels(annotations, COCO), results_of(chosen), [p["id"] for p in chosen], COCO)
    assert table["AP"] == pytest.approx(1.0)


def plain_average_precision(truth, areas, prediction, scores, images):
    """COCO's AP over all thresholds, AP50 and AP75, from the definition, in plain loops."""
    variances = (2 * np.array(COCO.sigmas)) ** 2
    similarity = np.zeros((len(prediction), len(truth)))
    for i, j in np.ndindex(similarity.shape):
        if images[i] == images[j]:
            known = truth[j, :, 2] > 0
            squares = ((prediction[i] - truth[j, :, :2]) ** 2).sum(-1)[known]
            similarity[i, j] = np.exp(-squares / (2 * areas[j] * variances[known])).mean()
    precisions = []
    for threshold in np.arange(0.5, 0.96, 0.05):
        left, hits = set(range(len(truth))), []
        for i in sorted(range(len(prediction)), key=lambda i: -scores[i]):
            best = max(left, key=lambda j: similarity[i, j], default=None)
            hits.append(best is not None and similarity[i, best] >= threshold)
            left -= {best} if hits[-1] else set()
        right = np.cumsum(hits)
        precision, recall = right / np.arange(1, len(hits) + 1), right / len(truth)
        # At each of 101 recalls the best precision at that recall or a higher one.
        at = [max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)]
        precisions.append(np.mean(at))
    return np.mean(precisions), precisions[0], precisions[5]


@pytest.mark.parametrize("seed", range(3))
def test_ap_agrees_with_plain_loops(tmp_path, seed):
    rng = np.random.default_rng(seed)
    count = 30
    images = np.repeat(np.arange(1, count // 3 + 1), 3)
    truth, boxes = np.zeros((count, 17, 3)), rng.uniform([0, 0, 40, 60], [300, 300, 150, 200], (count, 4))
    persons = []
    for i, box in enumerate(boxes):
        truth[i] = helpers.keypoints_in(box, seed=100 * seed + i)
        truth[i, rng.permutation(17)[: rng.integers(0, 12)]] = 0
        persons.append(helpers.annotation(i + 1, int(images[i]), box.tolist(), truth[i]))
    path = helpers.write_coco(
        tmp_path / "a.json", [helpers.image_entry(i, f"{i}.jpg", (500, 500)) for i in set(images.tolist())], persons
    )
    prediction = truth[..., :2] + rng.normal(0, 1, (count, 17, 2)) * rng.uniform(0.5, 12, (count, 1, 1))
    scores = rng.permutation(np.linspace(0.1, 0.9, count))
    results = coco.coco_results(images.tolist(), boxes, np.concatenate([prediction, truth[..., 2:]], -1), scores)
    table = coco.oks_ap(read_labels(path, COCO), results, range(1, count + 1), COCO)
    expected = plain_average_precision(truth, [p["area"] for p in persons], prediction, scores, images)
    assert 0.2 < expected[0] < 0.95
    assert (table["AP"], table["AP50"], table["AP75"]) == pytest.approx(expected, abs=1e-9)


def test_truth_as_prediction_is_perfect_through_records_regions_and_pixels(tiny_data):
    """Normalised labels, mapped back to pixels in the same way as a network's output."""
    from kpose.core import geometry
    from kpose.data import pipeline, records

    found = records.find(tiny_data["val"], COCO)
    persons = load(tiny_data["val_annotations"])["annotations"]
    batches = pipeline.ordered_batches(
        found, input_size=(32, 32), padding=1.0, batch_size=len(persons), num_records=len(persons), identity=True
    )
    (batch,) = ({name: value.numpy() for name, value in batch.items()} for batch in batches)
    points = geometry.denormalise(batch["keypoints"][..., :2], batch["region"])
    # The file has pixel indices.
    truth = {p["id"]: np.reshape(p["keypoints"], (17, 3)) + [0.5, 0.5, 0] for p in persons}
    truth = np.array([truth[i] for i in batch["annotation_id"]])
    for rule in tables.pcp_table(truth, points, COCO).values():
        assert set(rule.values()) == {1.0}
    keypoints = np.concatenate([points, np.ones((len(persons), 17, 1))], -1)
    scores = np.linspace(0.9, 0.1, len(persons))
    results = coco.coco_results(batch["image_id"].tolist(), batch["box"], keypoints, scores)
    table = coco.oks_ap(read_labels(tiny_data["val_annotations"], COCO), results, batch["annotation_id"], COCO)
    assert table["AP"] == pytest.approx(1.0, abs=1e-9) and table["AR"] == pytest.approx(1.0, abs=1e-9)


def test_annotations_of_other_persons_are_refused(annotations):
    persons = load(annotations)["annotations"]
    with pytest.raises(InputError, match="1 of the 2 persons"):
        coco.oks_ap(read_labels(annotations, COCO), results_of(persons[:2]), [persons[0]["id"], 10**9], COCO)


def test_results_repeat_image_and_box_and_are_plain_json(annotations):
    persons = load(annotations)["annotations"]
    results = json.loads(json.dumps(results_of(persons)))
    assert [r["image_id"] for r in results] == [p["image_id"] for p in persons]
    assert [r["bbox"] for r in results] == [p["bbox"] for p in persons]
    assert all(len(r["keypoints"]) == 51 and 0 < r["score"] < 1 for r in results)


@pytest.mark.parametrize("seed", range(3))
def test_ap_of_repeated_images_is_that_of_cocoeval_on_a_file_that_repeats_them(seed):
    """Crowds, persons without labels, results on no person, images without either."""
    from pycocotools.coco import COCO as Labels
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(seed)
    number, persons, results = 12, [], []
    for i in range(30):
        image, box = int(rng.integers(1, number - 1)), rng.uniform([0, 0, 40, 60], [300, 300, 150, 200])
        points = helpers.keypoints_in(box, seed=100 * seed + i)
        points[rng.permutation(17)[: rng.integers(0, 12)]] = 0
        persons.append(helpers.annotation(i + 1, image, box.tolist(), points, iscrowd=int(i % 9 == 0)))
        persons[-1]["num_keypoints"] = 0 if i % 7 == 0 else int((points[:, 2] > 0).sum())
        moved = points + np.concatenate([rng.normal(0, 1, (17, 2)) * rng.uniform(0.5, 14), np.zeros((17, 1))], -1)
        if i % 5:
            results.append({"image_id": image, "category_id": 1, "keypoints": moved.ravel().tolist()})
            results[-1] |= {"bbox": box.tolist(), "score": float(rng.uniform())}

    def evaluation(images, persons, results):
        with contextlib.redirect_stdout(io.StringIO()):
            truth = Labels()
            truth.dataset = {"images": [{"id": i} for i in images], "annotations": persons}
            truth.dataset["categories"] = [{"id": 1, "name": "person"}]
            truth.createIndex()
            found = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "keypoints")
            found.evaluate()
            found.accumulate()
        return found

    once = evaluation(range(1, number + 1), persons, results)
    matches = coco.Matches.of(once)
    for weights in (np.ones(number), *rng.integers(0, 4, (4, number)).astype(float)):
        copies = [(image + 1, 100 * k + image + 1) for image, w in enumerate(weights) for k in range(int(w))]
        repeated = [p | {"image_id": new} for old, new in copies for p in persons if p["image_id"] == old]
        repeated = [p | {"id": i} for i, p in enumerate(repeated, 1)]
        again = [r | {"image_id": new} for old, new in copies for r in results if r["image_id"] == old]
        precision = evaluation([new for _, new in copies], repeated, again).eval["precision"][:, :, 0, 0, 0]
        np.testing.assert_allclose(matches.average_precision(weights), precision.mean(1), atol=1e-9)
    assert 0.1 < matches.average_precision(np.ones(number)).mean() < 0.95
    assert np.isnan(matches.average_precision(np.zeros(number))).all()
