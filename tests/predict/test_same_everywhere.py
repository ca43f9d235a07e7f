"""The command, Python, the SavedModel and the evaluation of images give the same keypoints.

They share the model, but not the code: the command and Python cut crops in NumPy and run the shipped
TensorFlow Lite file, the SavedModel does both in a graph, and the evaluation runs the Keras network.
"""

import json
import os

import numpy as np
import pytest

import kpose
from kpose.core import files
from kpose.evaluate import on_records
from kpose.export import saved_model
from kpose.predict import files as predict_files
from kpose.runs import shipped_files
from tests import helpers
from tfrecords_tools.figures import dataset

MODEL = shipped_files.DEFAULT
INPUT_SIDE = 192
PERSONS = 50
# The calibrated score of a joint of which the model is sure: OKS of 0.5 or more with this probability.
SURE = 0.9


def drawn(folder):
    """(annotation file, image folder) of drawn figures."""
    annotations = dataset.render_dataset(folder, PERSONS, seed=3, split="val", workers=1)
    return annotations, os.path.join(folder, "images", "val")


def real(folder):
    """(annotation file, image folder) of photos of COCO: every 16th labelled person of devval."""
    data = files.read_json(str(helpers.real_data("coco", "annotations", "person_keypoints_devval.json")), "labels")
    persons = [a for a in data["annotations"] if a["num_keypoints"] and not a["iscrowd"]][::16][:PERSONS]
    wanted = {person["image_id"] for person in persons}
    data |= {"annotations": persons, "images": [image for image in data["images"] if image["id"] in wanted]}
    return helpers.write_json(os.path.join(folder, "some.json"), data), str(helpers.real_data("coco", "images"))


def by_person(path):
    """{(image id, box): [K, 3] keypoints as in COCO's files} of a file of results."""
    with open(path, encoding="utf-8") as file:
        rows = json.load(file)
    return {(row["image_id"], *np.round(row["bbox"], 2)): np.reshape(row["keypoints"], (-1, 3)) for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("persons", [drawn, real])
def test_four_ways_to_predict_agree(persons, tmp_path):
    annotations, images = persons(str(tmp_path))
    with open(annotations, encoding="utf-8") as file:
        labels = json.load(file)
    names = {image["id"]: os.path.join(images, image["file_name"]) for image in labels["images"]}
    on_records.evaluate(MODEL, None, annotations, str(tmp_path / "evaluation"), images=images)
    served = saved_model.export(MODEL, str(tmp_path / "serving"), lite=False)
    used = list(names.values())
    for name, source in (("command", None), ("saved_model", served)):
        predict_files.predict(source, used, annotations, str(tmp_path / name), overlays=False)
    found = {name: by_person(tmp_path / name / "keypoints.json") for name in ("evaluation", "command", "saved_model")}
    model, python = kpose.load(), {}
    for row in labels["annotations"]:
        people = model.predict(names[row["image_id"]], [row["bbox"]])
        key = row["image_id"], *np.round(row["bbox"], 2)
        # The files have pixel indices.
        python[key] = people.keypoints[0] - np.float32([0.5, 0.5, 0])
    keys = sorted(python)
    assert len(keys) >= PERSONS and all(sorted(some) == keys for some in found.values())
    sides = np.array([max(key[3:]) for key in keys])[:, None]
    expected = np.array([python[key] for key in keys])
    for name, some in found.items():
        points = np.array([some[key] for key in keys])
        distances = np.abs(points - expected)[..., :2].max(-1) / sides * INPUT_SIDE
        score = expected[..., 2]
        assert np.median(distances) < 0.05 and np.mean(distances <= 0.1) >= 0.9, name
        # Where the model is sure, a change of single grey levels moves no joint.
        assert np.mean(distances[score > SURE] <= 0.1) >= 0.99, name
        assert name != "command" or distances.max() < 1e-3
