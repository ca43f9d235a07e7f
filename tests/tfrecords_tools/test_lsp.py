"""Records, training and evaluation with the LSP skeleton, which only its name selects."""

import glob
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from kpose.core import skeletons
from kpose.data import records
from kpose.evaluate import on_records
from kpose.export import saved_model
from kpose.predict import files
from kpose.train import trainer
from tests import helpers, tiny
from tfrecords_tools.figures import dataset
from tfrecords_tools.write_coco import writer

COCO, LSP = skeletons.COCO, skeletons.LSP


def to_lsp(person):
    """A COCO annotation with LSP's joints: neck between the shoulders, head top above the nose."""
    points = np.array(person["keypoints"], float).reshape(-1, 3)
    named = dict(zip(COCO.joints, points, strict=True))
    shoulders = named["left_shoulder"], named["right_shoulder"]
    neck = (shoulders[0] + shoulders[1]) / 2
    neck[2] = min(shoulder[2] for shoulder in shoulders)
    head = 2 * named["nose"] - neck
    head[2] = min(named["nose"][2], neck[2])
    named |= {"neck": neck * (neck[2] > 0), "head_top": head * (head[2] > 0)}
    joints = np.array([named[name] for name in LSP.joints])
    return person | {"keypoints": joints.ravel().tolist(), "num_keypoints": int((joints[:, 2] > 0).sum())}


@pytest.fixture(scope="module")
def lsp_data(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("lsp"))
    path = dataset.render_dataset(folder, 24, seed=9, split="train", workers=1)
    with open(path) as file:
        data = json.load(file)
    data["annotations"] = [to_lsp(person) for person in data["annotations"]]
    data["categories"][0] |= {"keypoints": list(LSP.joints), "skeleton": []}
    with open(path, "w") as file:
        json.dump(data, file)
    images, output_dir = os.path.join(folder, "images", "train"), os.path.join(folder, "records")
    writer.write_records(
        helpers.options(path, images, output_dir, split="train", crop_size=(48, 48), skeleton=skeletons.LSP)
    )
    return {"records": os.path.join(output_dir, "train-*"), "annotations": path, "images": images}


@pytest.mark.slow
def test_lsp_goes_through_the_whole_chain_by_its_name(lsp_data, tmp_path):
    assert records.find(lsp_data["records"]).skeleton.name == "lsp"
    config = tiny.make_recipe(
        lsp_data["records"], lsp_data["records"], skeleton="lsp", loss__name="rle", augment__half_body=0.5, steps=3
    )
    run = str(tmp_path / "run")
    logs = trainer.train(config, run)
    assert np.isfinite(logs["val_loss"])
    table = on_records.evaluate(run, lsp_data["records"], lsp_data["annotations"], str(tmp_path / "evaluation"))
    assert table["oks_ap"] is not None and table["pcp"]["strict"]["average"] is not None
    serving = str(tmp_path / "serving")
    model = tf.saved_model.load(saved_model.export(run, serving))
    image = sorted(glob.glob(os.path.join(lsp_data["images"], "*.jpg")))[0]
    answer = model.signatures["serving_default"](
        image_bytes=tf.io.read_file(image)[None], boxes=tf.constant([[10.0, 10.0, 60.0, 120.0]])
    )
    assert tuple(answer["keypoints"].shape) == (1, 14, 3)
    files.predict(serving, image, lsp_data["annotations"], str(tmp_path / "predictions"))
    with open(tmp_path / "predictions" / "keypoints.json") as file:
        assert all(len(person["keypoints"]) == 42 for person in json.load(file))


def test_ground_truth_scores_ap_1_with_lsp_s_sigmas(lsp_data):
    from kpose.data import coco_files
    from kpose.metrics import coco

    with open(lsp_data["annotations"]) as file:
        persons = [p for p in json.load(file)["annotations"] if p["num_keypoints"]]
    keypoints = np.array([p["keypoints"] for p in persons]).reshape(-1, 14, 3)
    results = coco.coco_results(
        [p["image_id"] for p in persons],
        [p["bbox"] for p in persons],
        keypoints,
        np.linspace(1, 0.5, len(persons)).tolist(),
    )
    table = coco.oks_ap(coco_files.read_labels(lsp_data["annotations"], LSP), results, [p["id"] for p in persons], LSP)
    assert table["AP"] == pytest.approx(1.0)
