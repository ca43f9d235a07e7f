"""COCO annotation files: the counts of the selections, and a one-line error for each bad file."""

import dataclasses
import functools
import gzip
import json

import numpy as np
import pytest

from kpose.core import geometry, skeletons
from kpose.core.errors import InputError
from kpose.data.coco_files import read_labels
from kpose.metrics import tables
from tests import helpers
from tfrecords_tools.write_coco.annotations import (
    CROWD,
    NO_BOX,
    NO_JOINT,
    OCCLUDED_JOINT,
    UNLABELLED_JOINT,
    ZERO_COORDINATE,
    select_persons,
)

BOX = (10, 10, 40, 60)


@functools.cache
def _real_labels(split):
    path = helpers.real_data("coco", "annotations", f"person_keypoints_{split}2017.labels.json.gz")
    return read_labels(str(path), skeletons.COCO)


@pytest.mark.parametrize(
    ("split", "persons", "zero_coordinate"), [pytest.param("train", 4037, 3, marks=pytest.mark.slow), ("val", 159, 0)]
)
def test_fully_visible_persons_of_coco(split, persons, zero_coordinate):
    annotations = _real_labels(split)
    selected, dropped = select_persons(annotations, "fully_visible")
    assert len(selected) == persons
    assert dropped[ZERO_COORDINATE] == zero_coordinate
    assert len(selected) + sum(dropped.values()) == len(annotations.persons)
    labels = np.array([person.keypoints for person in selected]).reshape(-1, 17, 3)
    assert (labels[..., 2] == 2).all() and (labels[..., :2] > 0).all()


@pytest.mark.slow
def test_mean_pose_of_cocos_fully_visible_persons():
    """Strict PCP of the mean pose of the training persons on the validation persons."""
    selected = {split: select_persons(_real_labels(split), "fully_visible")[0] for split in ("train", "val")}
    boxes = {split: np.array([p.box for p in persons]) for split, persons in selected.items()}
    truth = {split: np.array([p.keypoints for p in persons]) for split, persons in selected.items()}
    mean_pose = geometry.normalise(truth["train"][..., :2], boxes["train"]).mean(0)
    table = tables.pcp_table(truth["val"], geometry.denormalise(mean_pose[None], boxes["val"]), skeletons.COCO)
    assert table["strict"]["average"] == pytest.approx(0.447, abs=5e-4)


def _file(tmp_path, annotations, images=None):
    images = images or [helpers.image_entry(1, "a.jpg", (100, 100))]
    return helpers.write_coco(tmp_path / "labels.json", images, annotations)


def _made_file(tmp_path):
    """One person for each reason, and two good ones."""
    good = helpers.keypoints_in(BOX)
    unlabelled, occluded, zero, nobody = good.copy(), good.copy(), good.copy(), np.zeros_like(good)
    unlabelled[3] = 0
    occluded[4, 2] = 1
    zero[5, 0] = 0.5  # A 0 in the file.
    people = [
        helpers.annotation(1, 1, BOX, good),
        helpers.annotation(2, 1, BOX, good, iscrowd=1),
        helpers.annotation(3, 1, (10, 10, 0, 60), good),
        helpers.annotation(4, 1, BOX, good, bbox=[]),
        helpers.annotation(5, 1, BOX, nobody),
        helpers.annotation(6, 1, BOX, unlabelled),
        helpers.annotation(7, 1, BOX, occluded),
        helpers.annotation(8, 1, BOX, zero),
        helpers.annotation(9, 1, BOX, good),
        {key: value for key, value in helpers.annotation(10, 1, BOX, good).items() if key != "bbox"},
        helpers.annotation(11, 1, BOX, good, bbox=[1, 2, float("nan"), 4]),
    ]
    return read_labels(_file(tmp_path, people), skeletons.COCO)


def test_reasons_of_the_fully_visible_selection(tmp_path):
    selected, dropped = select_persons(_made_file(tmp_path), "fully_visible")
    assert [person.id for person in selected] == [1, 9]
    assert dropped == {
        CROWD: 1,
        NO_BOX: 4,
        NO_JOINT: 1,
        UNLABELLED_JOINT: 1,
        OCCLUDED_JOINT: 1,
        ZERO_COORDINATE: 1,
    }


def test_reasons_of_the_labelled_selection(tmp_path):
    selected, dropped = select_persons(_made_file(tmp_path), "labelled")
    assert [person.id for person in selected] == [1, 6, 7, 8, 9]
    assert dropped == {CROWD: 1, NO_BOX: 4, NO_JOINT: 1}


def test_an_unknown_selection_lists_the_known_ones(tmp_path):
    with pytest.raises(InputError, match="'best'.*fully_visible, labelled"):
        select_persons(_made_file(tmp_path), "best")


def test_plain_and_gzipped_files_read_alike(tmp_path):
    path = _file(tmp_path, [helpers.annotation(1, 1, BOX, helpers.keypoints_in(BOX))])
    with open(path, "rb") as plain, gzip.open(f"{path}.gz", "wb") as packed:
        packed.write(plain.read())
    first, second = (read_labels(name, skeletons.COCO) for name in (path, f"{path}.gz"))
    for one, other in zip(first.persons, second.persons, strict=True):
        np.testing.assert_equal(dataclasses.asdict(one), dataclasses.asdict(other))
    assert first.images == second.images
    assert list(first.images) == [1] and first.persons[0].id == 1


def test_annotations_without_keypoints_are_ignored(tmp_path):
    """A file of several categories: a dog has a box and no keypoints."""
    person = helpers.annotation(1, 1, BOX, helpers.keypoints_in(BOX))
    dog = {"id": 2, "image_id": 1, "category_id": 18, "bbox": list(BOX), "area": 1.0}
    read = read_labels(_file(tmp_path, [dog, person]), skeletons.COCO)
    assert [person.id for person in read.persons] == [1]


def test_keypoints_become_x_y_flag(tmp_path):
    joints = helpers.keypoints_in(BOX, seed=3)
    read = read_labels(_file(tmp_path, [helpers.annotation(1, 1, BOX, joints)]), skeletons.COCO)
    np.testing.assert_array_equal(read.persons[0].keypoints, joints)


def test_one_category_of_several_with_keypoints(tmp_path):
    """Horses have 20 other keypoints: only the given category is read."""
    person = helpers.annotation(1, 1, BOX, helpers.keypoints_in(BOX))
    horse = helpers.annotation(2, 1, BOX, np.ones((20, 3))) | {"category_id": 19}
    categories = [{"id": 1, "name": "person"}, {"id": 19, "name": "horse"}]
    path = helpers.write_json(
        tmp_path / "two.json", {"images": [IMAGE], "annotations": [person, horse], "categories": categories}
    )
    with pytest.raises(InputError, match="annotation 2: it has 60 keypoint numbers"):
        read_labels(path, skeletons.COCO)
    assert [p.id for p in read_labels(path, skeletons.COCO, category="person").persons] == [1]
    with pytest.raises(InputError, match="no category is named 'dog': the file has 'person', 'horse'"):
        read_labels(path, skeletons.COCO, category="dog")


def _person(**fields):
    return helpers.annotation(7, 1, BOX, helpers.keypoints_in(BOX)) | fields


def _without(entry, field):
    return {key: value for key, value in entry.items() if key != field}


IMAGE = helpers.image_entry(1, "a.jpg", (100, 100))
BAD_CONTENTS = {
    "empty": (b"", "empty"),
    "not JSON": (b"<html>404</html>", "not JSON"),
    "binary": (bytes(range(256)), "not JSON"),
    "cut short": (b'{"images": [', "not JSON"),
    "a list": (b"[1, 2]", "not a COCO annotation file"),
    "no annotations": (b'{"images": []}', "'annotations'"),
    "annotations no list": (b'{"images": [], "annotations": {}}', "'annotations'"),
    "instances": (
        json.dumps({"images": [IMAGE], "annotations": [_without(_person(), "keypoints")] * 3}).encode(),
        "none of its 3 annotations has keypoints",
    ),
    "too few keypoints": (
        json.dumps({"images": [IMAGE], "annotations": [_person(keypoints=[1, 2, 2] * 14)]}).encode(),
        "annotation 7: it has 42 keypoint numbers.*needs 51",
    ),
    "orphan": (
        json.dumps({"images": [IMAGE], "annotations": [_person(image_id=5)]}).encode(),
        "annotation 7: its image 5 is not in the file",
    ),
    "image without id": (
        json.dumps({"images": [_without(IMAGE, "id")], "annotations": [_person()]}).encode(),
        "annotation 7: its image 1 is not in the file",
    ),
    "one of two persons without id": (
        json.dumps({"images": [IMAGE], "annotations": [_person(), _without(_person(), "id")]}).encode(),
        "the id None is no whole number, as others are",
    ),
    "person without image": (
        json.dumps({"images": [IMAGE], "annotations": [_without(_person(), "image_id")]}).encode(),
        "annotation 7: its image None is not in the file",
    ),
}


@pytest.mark.parametrize("kind", BAD_CONTENTS)
def test_a_bad_file_is_one_line_that_names_it(kind, tmp_path):
    contents, complaint = BAD_CONTENTS[kind]
    path = tmp_path / "bad.json"
    path.write_bytes(contents)
    with pytest.raises(InputError, match=complaint) as error:
        read_labels(str(path), skeletons.COCO)
    assert helpers.one_line(error).startswith(f"{path}: ")


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match="no such annotation file") as error:
            read_labels(str(path), skeletons.COCO)
        assert helpers.one_line(error).startswith(f"{path}: ")


@pytest.mark.parametrize("damage", ["cut", "flipped", "plain"])
def test_a_damaged_gzip_file_is_one_line_that_names_it(damage, tmp_path):
    text = json.dumps({"images": [IMAGE], "annotations": [_person()]}).encode()
    packed = gzip.compress(text)
    middle = len(packed) // 2
    contents = {
        "cut": packed[:middle],
        "flipped": packed[:middle] + bytes(255 - byte for byte in packed[middle:]),
        "plain": text,
    }
    path = tmp_path / "bad.json.gz"
    path.write_bytes(contents[damage])
    with pytest.raises(InputError, match="gzip|JSON") as error:
        read_labels(str(path), skeletons.COCO)
    assert helpers.one_line(error).startswith(f"{path}: ")
