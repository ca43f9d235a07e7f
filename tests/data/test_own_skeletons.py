"""Labels with joints of their own: from the COCO category through records to another reader."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kpose.core import skeleton_files, skeletons
from kpose.core.errors import InputError
from kpose.data import coco_files, records, training_set
from tests import helpers, tiny
from tfrecords_tools.inspect.sheets import inspect
from tfrecords_tools.write_coco import plan, writer

JOINTS = ["beak", "wing_l", "wing_r", "尾 巴"]
BOX = [10.0, 10.0, 60.0, 40.0]
POINTS = [20, 20, 2, 30, 25, 1, 50, 30, 2, 0, 0, 0]


def labels_of(*categories, points=POINTS):
    """A COCO file's data: one bird for each category."""
    persons = [
        helpers.annotation(number, 1, BOX, np.zeros((1, 3))) | {"category_id": c["id"], "keypoints": points}
        for number, c in enumerate(categories, 1)
    ]
    images = [helpers.image_entry(1, "a.png", (60, 80))]
    return {"images": images, "annotations": persons, "categories": list(categories)}


def bird(**changes):
    return {"id": 3, "name": "bird", "keypoints": JOINTS, "skeleton": [[1, 2], [1, 3]]} | changes


def write(folder, data, **changes):
    """Writes the labels, an image and the records; returns (glob of the records, labels)."""
    os.makedirs(folder, exist_ok=True)
    Image.new("RGB", (80, 60), "grey").save(os.path.join(folder, "a.png"))
    path = helpers.write_json(os.path.join(folder, "labels.json"), data)
    out = os.path.join(folder, "records")
    writer.write_records(helpers.options(path, folder, out, **({"shards": 1, "skeleton": "auto"} | changes)))
    return os.path.join(out, "train-*"), path


def test_the_category_of_the_labels_is_the_skeleton_of_the_records(tmp_path):
    pattern, path = write(tmp_path, labels_of(bird()))
    table = records.find(pattern).skeleton
    assert (table.name, table.joints, table.pairs, table.bones) == ("bird", tuple(JOINTS), ((1, 2),), ((0, 1), (0, 2)))
    with open(tmp_path / "records" / "train.manifest.json") as file:
        manifest = json.load(file)
    assert skeleton_files.of_saved(manifest["skeleton"]) == table and "--skeleton=auto" in manifest["command"]
    (row,) = coco_files.read_labels(path, "auto").persons
    person = records.parse(next(iter(tf.data.TFRecordDataset(records.find(pattern).paths))), table, image=False)
    np.testing.assert_array_equal(person["keypoints"], row.keypoints[:, :2])
    lines = inspect(pattern, str(tmp_path / "sheet.png"), 1)
    assert any("skeleton bird (4 joints)" in line for line in lines) and any("尾 巴" in line for line in lines)
    # A second write with the same labels changes nothing.
    before = os.stat(records.find(pattern).paths[0]).st_mtime_ns
    write(tmp_path, labels_of(bird()))
    assert os.stat(records.find(pattern).paths[0]).st_mtime_ns == before


def test_a_file_gives_what_the_category_lacks(tmp_path):
    table = {"joints": JOINTS[::-1], "sigmas": [0.1, 0.2, 0.3, 0.4], "torso": ["beak", "尾 巴"], "name": "kite"}
    path = helpers.write_json(tmp_path / "kite.json", table)
    pattern, _ = write(tmp_path, labels_of(bird()), skeleton=skeleton_files.find(path))
    found = records.find(pattern)
    assert (found.skeleton.name, found.skeleton.torso, found.skeleton.pairs) == ("kite", (3, 0), ((2, 1),))
    person = records.parse(next(iter(tf.data.TFRecordDataset(found.paths))), found.skeleton, image=False)
    np.testing.assert_array_equal(person["keypoints"][3], [20.5, 20.5])


def test_a_file_with_other_joints_than_the_labels_is_refused(tmp_path):
    table = skeleton_files.from_fields({"joints": ["a", "b", "c", "d"], "name": "other"})
    with pytest.raises(InputError, match="category 'bird' has 4 joints .* not those of skeleton 'other'") as error:
        write(tmp_path, labels_of(bird()), skeleton=table)
    helpers.one_line(error)


def test_categories_with_different_joints_need_a_choice(tmp_path):
    fish = {"id": 9, "name": "fish", "keypoints": ["eye", "fin_l", "fin_r", "tail"]}
    data = labels_of(bird(), fish)
    with pytest.raises(InputError, match="'bird', 'fish' have different joints: choose one with --category") as error:
        write(tmp_path, data)
    helpers.one_line(error)
    pattern, _ = write(tmp_path, data, category="fish")
    assert records.find(pattern).skeleton.name == "fish"
    # A category that no annotation uses does not matter.
    data["annotations"] = data["annotations"][:1]
    pattern, _ = write(tmp_path / "used", data)
    assert records.find(pattern).skeleton.name == "bird"


def test_joints_without_names_are_cocos_or_an_error(tmp_path):
    with pytest.raises(InputError, match="no category lists the names of its 4 joints.*--skeleton") as error:
        write(tmp_path, labels_of({"id": 1, "name": "thing"}))
    helpers.one_line(error)
    data = labels_of({"id": 1, "name": "thing"}, points=[5, 5, 2] * 17)
    assert coco_files.read_labels(helpers.write_json(tmp_path / "x.json", data), "auto").skeleton is skeletons.COCO


def test_a_joint_named_twice_is_one_line(tmp_path):
    with pytest.raises(InputError, match="category 'bird': .*two joints have the same name, 'beak'") as error:
        write(tmp_path, labels_of(bird(keypoints=["beak", "beak", "c", "d"])))
    helpers.one_line(error)


def test_records_of_another_skeleton_than_their_neighbours(tmp_path):
    pattern, _ = write(tmp_path, labels_of(bird()))
    with pytest.raises(InputError, match=r"'bird' \(4 joints\), but 'coco' \(17\) is needed"):
        records.find(pattern, skeletons.COCO)
    # The same name, other joints.
    write(tmp_path / "b", labels_of(bird(keypoints=["a", "b", "c", "d"])), split="more")
    both = tmp_path / "both"
    os.makedirs(both)
    for folder in (tmp_path / "records", tmp_path / "b" / "records"):
        for name in os.listdir(folder):
            os.link(folder / name, both / name)
    with pytest.raises(InputError, match="skeletons, both named 'bird', differ") as error:
        records.find(str(both / "*"))
    helpers.one_line(error)


def test_records_without_their_manifest_say_what_is_missing(tmp_path):
    pattern, _ = write(tmp_path, labels_of(bird()))
    os.remove(tmp_path / "records" / "train.manifest.json")
    with pytest.raises(InputError, match="train.manifest.json: missing, .* joints of skeleton 'bird'") as error:
        records.find(pattern)
    helpers.one_line(error)


def test_a_recipe_takes_the_skeleton_of_its_first_data_set(tmp_path):
    pattern, _ = write(tmp_path, labels_of(bird()))
    assert training_set.skeleton_of(tiny.make_recipe(pattern)).name == "bird"
    assert training_set.skeleton_of(tiny.make_recipe(pattern, skeleton="coco")) is skeletons.COCO


def test_two_shares_of_one_file_have_all_images_and_none_in_common(tmp_path):
    """For training and validation records of one file of labels."""
    images = [helpers.image_entry(k, f"{k}.png", (60, 80)) for k in range(1, 61)]
    persons = [helpers.annotation(k, k, BOX, helpers.keypoints_in(BOX, seed=k)) for k in range(1, 61)]
    path = helpers.write_coco(tmp_path / "labels.json", images, persons)

    def ids(*share):
        _, selected, dropped, _ = plan.select(helpers.options(path, tmp_path, tmp_path, share=share))
        assert sum(dropped.values()) == 60 - len(selected)
        return {person.image_id for person in selected}

    train, val = ids(0.0, 0.8), ids(0.8, 1.0)
    assert not train & val and len(train | val) == 60 and 3 <= len(val) <= 25
    assert ids(0.0, 1.0) == train | val
    for share in ((0.5, 0.5), (0.8, 0.2), (0.0, 1.5)):
        with pytest.raises(InputError, match="--share="):
            ids(*share)
