"""OKS AP in the evaluations of a training: equal to COCOeval's on the same labels."""

import contextlib
import io
import json
import os

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kpose.core import skeletons
from kpose.evaluate import on_records
from kpose.metrics.coco import RecordsEvaluation
from kpose.runs.workdir import read_history, write_history
from kpose.train import trainer
from tests import helpers, tiny
from tfrecords_tools.write_coco import writer

SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000


def _coco_eval(annotations, results):
    """All figures of COCOeval, as its example computes them."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i} for i in sorted({a["image_id"] for a in annotations})],
            "categories": [{"id": 1}],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.params.kpt_oks_sigmas = SIGMAS
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def _crowded(rng, persons_of_images):
    """COCO annotations of persons that overlap in their images, some joints without labels."""
    annotations = []
    for number, persons in enumerate(persons_of_images):
        for _ in range(persons):
            box = [*np.round(rng.uniform(0, 30, 2), 2), *np.round(rng.uniform(30, 50, 2), 2)]
            joints = helpers.keypoints_in(box, seed=int(rng.integers(1 << 30)))
            joints[rng.uniform(size=17) < 0.3] = 0
            area = float(np.float32(rng.uniform(3, 40) * box[2] * box[3]))
            annotations.append(helpers.annotation(len(annotations) + 1, 10 + 7 * number, box, joints, area=area))
    return annotations


@pytest.mark.parametrize("seed", range(4))
def test_the_ap_is_that_of_pycocotools_for_crowded_images(seed):
    """Up to 25 persons in an image, of which COCOeval takes the 20 best; some without labels."""
    rng = np.random.default_rng(seed)
    annotations = _crowded(rng, [1, 2, 3, 25, 4])
    for person in annotations[2::9]:
        person["keypoints"], person["num_keypoints"] = [0.0] * 51, 0
    truth = np.array([a["keypoints"] for a in annotations]).reshape(-1, 17, 3)
    points = truth[..., :2] + rng.normal(0, 1, truth[..., :2].shape) * rng.uniform(1, 40, (len(truth), 1, 1))
    scores = rng.uniform(0, 1, len(truth)).round(1)
    ours = RecordsEvaluation(
        np.array([a["image_id"] for a in annotations]),
        np.array([a["bbox"] for a in annotations], np.float32),
        np.array([a["area"] for a in annotations]),
        truth,
        skeletons.COCO,
    )
    results = [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": np.c_[p, np.ones(17)].ravel().tolist(), "score": s}
        for a, p, s in zip(annotations, points, scores, strict=True)
    ]
    expected = _coco_eval(annotations, results)[0]
    assert 0.05 < expected < 0.95
    # Twice: the object is used for all evaluations of a training.
    for _ in range(2):
        assert ours.average_precision(points, scores) == pytest.approx(expected, abs=1e-9)
    assert ours.average_precision(np.full_like(points, np.nan), scores) == 0
    assert ours.average_precision(truth[..., :2], scores) > expected


def test_persons_without_labels_give_no_ap():
    nobody = RecordsEvaluation(np.zeros(2), np.ones((2, 4)), np.ones(2), np.zeros((2, 17, 3)), skeletons.COCO)
    assert nobody.average_precision(np.zeros((2, 17, 2)), np.ones(2)) is None


@pytest.fixture(scope="module")
def crowded_data(tmp_path_factory):
    """(glob of records, annotation file): 41 persons in 6 images."""
    folder = tmp_path_factory.mktemp("crowded")
    annotations = _crowded(np.random.default_rng(8), [1, 2, 24, 3, 5, 6])
    (folder / "photos").mkdir()
    images = []
    for number in sorted({a["image_id"] for a in annotations}):
        pixels = np.random.default_rng(number).integers(0, 256, (90, 90, 3), np.uint8)
        (folder / "photos" / f"{number}.png").write_bytes(helpers.png_bytes(pixels))
        images.append(helpers.image_entry(number, f"{number}.png", (90, 90)))
    path = helpers.write_coco(folder / "annotations.json", images, annotations)
    options = helpers.options(path, folder / "photos", folder / "records", split="val", crop_size=(48, 48), shards=3)
    writer.write_records(options)
    return str(folder / "records" / "val-*"), path


def _train(data, records, workdir, **fields):
    config = tiny.make_recipe(data["train"], records, steps=20, optimizer__learning_rate=0.01, **fields)
    trainer.train(config, workdir)


def _check_against_pycocotools(workdir, records, annotations, said):
    logged = read_history(workdir)[-1]["val_oks_ap"]
    # `evaluate` predicts separately and reads the labels from the annotation file.
    metrics = on_records.evaluate(workdir, records, annotations)
    assert metrics["num_persons"] == 41 and 0.05 < metrics["oks_ap"]["AP"] < 0.95
    assert logged == pytest.approx(metrics["oks_ap"]["AP"], abs=1e-6)
    with open(annotations) as file, open(os.path.join(workdir, "evaluation", "keypoints.json")) as results:
        expected = _coco_eval(json.load(file)["annotations"], json.load(results))[0]
    assert logged == pytest.approx(expected, abs=1e-6)
    assert f"OKS AP {100 * logged:.1f}" in said


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"loss__name": "laplace"}, {"replicas": 2, "xla": "on", "optimizer__ema": 0.9}])
def test_a_training_logs_the_ap_of_pycocotools(fields, crowded_data, tiny_data, tmp_path, capsys):
    """41 persons are five batches of 8, and one that is filled up."""
    _train(tiny_data, crowded_data[0], str(tmp_path), **fields)
    _check_against_pycocotools(str(tmp_path), *crowded_data, capsys.readouterr().err)


def test_the_ap_is_that_of_pycocotools_also_of_the_first_batches(crowded_data, tiny_data, tmp_path, capsys, caplog):
    """On two replicas; then the last evaluation again, with `evaluate_batches`."""
    (records, annotations), workdir = crowded_data, str(tmp_path)
    fields = {"replicas": 2, "steps_per_execution": 3, "evaluate_every": 100}
    _train(tiny_data, records, workdir, **fields)
    _check_against_pycocotools(workdir, records, annotations, capsys.readouterr().err)
    # As if a kill had prevented the last row.
    write_history(workdir, [row for row in read_history(workdir) if row["step"] < 20])
    with caplog.at_level("INFO", logger="absl"):
        _train(tiny_data, records, workdir, **fields, evaluate_batches=2)
    assert "evaluations use the first 16 of the 41 persons of data.val (config.evaluate_batches)" in caplog.text
    with open(annotations) as file, open(tmp_path / "evaluation" / "keypoints.json") as results:
        truth, found = json.load(file)["annotations"], json.load(results)[:16]
    boxes = [tuple(result["bbox"]) for result in found]
    first = [a for a in truth if any(np.allclose(a["bbox"], box, atol=1e-4) for box in boxes)]
    assert len(first) == 16
    logged = read_history(workdir)[-1]["val_oks_ap"]
    assert logged == pytest.approx(_coco_eval(first, found)[0], abs=1e-6)
