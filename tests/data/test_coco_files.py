"""Other tools' COCO files: each gives the right rows, or one clear line."""

import copy
import os
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kpose.core.errors import InputError
from kpose.core.skeletons import COCO
from kpose.data import coco_files, coco_names, problems
from kpose.evaluate import on_detections
from kpose.predict.boxes import read_boxes
from tests import helpers
from tfrecords_tools.write_coco.writer import write_records

BOX = (10.0, 20.0, 70.0, 90.0)
JOINTS = np.array([[20 + 3 * k, 30 + 4 * k, 2] for k in range(17)], float)
NAMES = list(COCO.joints)


def plain():
    """One person of an image of 120 x 140 pixels."""
    return {
        "images": [helpers.image_entry(1, "a.png", (140, 120))],
        "annotations": [helpers.annotation(1, 1, BOX, JOINTS) | {"keypoints": JOINTS.ravel().tolist()}],
        "categories": [{"id": 1, "name": "person"}],
    }


def changed(change):
    data = plain()
    change(data["annotations"][0], data)
    return data


def without(*fields):
    def change(person, data):
        for field in fields:
            person.pop(field)

    return change


def setting(**fields):
    return lambda person, data: person.update(fields)


def category(**fields):
    def change(person, data):
        data["categories"][0].update(fields)
        person["category_id"] = data["categories"][0]["id"]

    return change


def in_another_order(person, data):
    order = [16, 3, 0, 5, 1, 2, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    data["categories"][0]["keypoints"] = [NAMES[k] for k in order]
    person["keypoints"] = JOINTS[order].ravel().tolist()


# What other tools write, of the same person.
SAME = {
    "plain": lambda person, data: None,
    "id 0": setting(id=0),
    "negative id": setting(id=-5),
    "id of 63 bits": setting(id=2**63 - 1),
    "id as text": setting(id="7"),
    "id with a decimal point": setting(id=7.0),
    "UUID": setting(id="1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"),
    "no id": without("id"),
    "category 0": category(id=0),
    "category 3": category(id=3),
    "category as text": category(id="1"),
    "category by another spelling": lambda person, data: person.update(category_id="1"),
    "no area": without("area"),
    "no iscrowd": without("iscrowd"),
    "no category": without("category_id"),
    "no categories": lambda person, data: data.pop("categories"),
    "categories null": lambda person, data: data.update(categories=None),
    "no num_keypoints": without("num_keypoints"),
    "null fields": setting(area=None, iscrowd=None, num_keypoints=None, category_id=None, score=None),
    "iscrowd as text": setting(iscrowd="0"),
    "iscrowd false": setting(iscrowd=False),
    "iscrowd False as text": setting(iscrowd="False"),
    "iscrowd 0.0": setting(iscrowd=0.0),
    "box as text": setting(bbox=["10", "20", "70", "90"]),
    "keypoints as text": setting(keypoints=[str(value) for value in JOINTS.ravel()]),
    "nested keypoints": setting(keypoints=JOINTS.tolist()),
    "joints by name": in_another_order,
    "joints in other spelling": category(keypoints=[name.replace("_", " ").title() for name in NAMES]),
    "area as text": setting(area="3780"),
    "image id as text": lambda person, data: (data["images"][0].update(id="1"), person.update(image_id=1)),
    "text ids": lambda person, data: (data["images"][0].update(id="img-1"), person.update(image_id="img-1")),
}


def write(folder, data, name="labels.json"):
    return helpers.write_json(os.path.join(folder, name), data)


def results_of(data, **fields):
    """The labels given back as results."""
    person = data["annotations"][0]
    return [
        {"image_id": person["image_id"], "bbox": list(BOX), "score": 0.9, "keypoints": JOINTS.ravel().tolist()} | fields
    ]


@pytest.mark.parametrize("kind", SAME)
def test_the_same_person_however_it_is_written(kind, tmp_path):
    path = write(tmp_path, changed(SAME[kind]))
    labels = coco_files.read_labels(path, COCO)
    (person,) = labels.persons
    # The file has pixel indices, a row the middles of these pixels.
    np.testing.assert_array_equal(person.keypoints, JOINTS + [0.5, 0.5, 0])
    np.testing.assert_array_equal(person.box, BOX)
    assert not person.crowd and person.num_labelled == 17 and person.area > 0
    assert labels.images[person.image_id].size == (120, 140)


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize("kind", SAME)
def test_perfect_results_have_an_ap_of_1_whatever_the_ids(kind, tmp_path):
    data = changed(SAME[kind])
    results = write(tmp_path, results_of(data), "results.json")
    metrics = on_detections.evaluate(results, write(tmp_path, data), str(tmp_path / "out"))
    assert metrics["oks_ap"]["AP"] == pytest.approx(1) and metrics["pcp"]["strict"]["average"] == 1


@pytest.mark.parametrize("kind", ["plain", "UUID", "joints by name", "category 3", "nested keypoints"])
def test_the_same_record_is_written(kind, tmp_path):
    Image.new("RGB", (120, 140), "grey").save(tmp_path / "a.png")
    digests = []
    for name, change in (("plain", SAME["plain"]), (kind, SAME[kind])):
        path = write(tmp_path, changed(change), f"{len(digests)}.json")
        output_dir = str(tmp_path / f"records{len(digests)}")
        manifest = write_records(helpers.options(path, tmp_path, output_dir, shards=1))
        digests.append(manifest["shards"][0]["sha256"])
        assert manifest["persons"] == 1, name
    assert digests[0] == digests[1]


ANIMAL = [f"paw_{k}" for k in range(17)]
BAD = {
    "id beyond 63 bits": (setting(id=2**64 + 5), "more than 63 bits"),
    "joints of an animal": (category(name="dog", keypoints=ANIMAL), "category 'dog' has 17 joints .* not those"),
    "other joints": (category(keypoints=[f"a_{k}" for k in range(17)]), "not those of skeleton 'coco'"),
    "iscrowd": (setting(iscrowd="perhaps"), "iscrowd is 'perhaps': it must be 0 or 1"),
    "NaN": (setting(keypoints=[float("nan")] * 51), "must be finite"),
    "too large for a float": (setting(keypoints=[10**400] * 51), "not a list of numbers"),
    "text": (setting(keypoints=["left"] * 51), "not a list of numbers"),
    "flag 3": (setting(keypoints=[1, 1, 3] * 17), "flags 0, 1 or 2"),
    "another image": (setting(image_id=2), "image 2 is not in the file"),
    "no image": (without("image_id"), "image None is not in the file"),
    "true as an image": (setting(image_id=True), "image True is not in the file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_read_is_one_line_or_counted(kind, tmp_path):
    change, message = BAD[kind]
    path = write(tmp_path, changed(change))
    with pytest.raises(InputError, match=message) as error:
        coco_files.read_labels(path, COCO)
    assert helpers.one_line(error).startswith(f"{path}: ")
    found = problems.Problems("skip")
    assert coco_files.read_labels(path, COCO, found).persons == [] and sum(found.counts.values()) == 1
    if kind in ("joints of an animal", "other joints"):
        # With the skeleton of the category, they are what they say.
        assert coco_files.read_labels(path, "auto").skeleton.joints[0] in ("paw_0", "a_0")
        return
    results = write(tmp_path, results_of(plain()), "results.json")
    with pytest.raises(InputError, match=message) as error:
        on_detections.evaluate(results, path, str(tmp_path / "out"))
    helpers.one_line(error)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e300, "1e999", None, [], {}])
def test_a_box_that_is_none_is_no_box(number, tmp_path):
    path = write(tmp_path, changed(setting(bbox=[number, 20, 70, 90])))
    (person,) = coco_files.read_labels(path, COCO).persons
    assert person.box is None or person.box[0] == 1e300


def test_deep_nesting_is_one_line(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 1_000_000)
    with pytest.raises(InputError, match="too many levels of nesting") as error:
        coco_files.read_labels(str(path), COCO)
    helpers.one_line(error)


def test_joints_far_outside_become_unlabelled_and_are_counted(tmp_path):
    joints = JOINTS.copy()
    # Pixel 0 reaches half a pixel to the left of its middle.
    joints[3, :2], joints[4, :2], joints[5, :2], joints[6, :2] = (1e6, 5), (120, 140), (-0.51, 3), (-0.5, 3)
    labels = coco_files.read_labels(write(tmp_path, changed(setting(keypoints=joints.ravel().tolist()))), COCO)
    expected = joints + [0.5, 0.5, 0]
    expected[[3, 5]] = 0
    np.testing.assert_array_equal(labels.persons[0].keypoints, expected)
    assert labels.counts["labelled joints outside their image, now unlabelled"] == 2


def test_animals_beside_persons_are_left_out_by_the_category(tmp_path):
    data = plain()
    data["categories"].append({"id": 18, "name": "dog", "keypoints": ANIMAL})
    data["annotations"].append(helpers.annotation(2, 1, BOX, JOINTS, category_id=18))
    path = write(tmp_path, data)
    with pytest.raises(InputError, match="category 'dog'.*--category"):
        coco_files.read_labels(path, COCO)
    assert [p.id for p in coco_files.read_labels(path, COCO, category="person").persons] == [1]


def two_folders():
    data = plain()
    data["images"] = [helpers.image_entry(i, name, (140, 120)) for i, name in ((1, "A/f.png"), (2, "B/f.png"))]
    data["annotations"].append(
        helpers.annotation(2, 2, (40.0, 50.0, 60.0, 80.0), np.minimum(JOINTS + 20, [120, 140, 2]))
    )
    return data


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize("name", ["{}/f.png", "data/{}/f.png", "C:\\photos\\{}\\f.png", "http://host/{}/%66.png"])
def test_names_match_by_as_much_of_the_path_as_both_have(name, tmp_path):
    data = two_folders()
    rows = [
        {"image_id": 50, "file_name": name.format(folder), "bbox": p["bbox"], "keypoints": p["keypoints"], "score": 0.9}
        for folder, p in zip("AB", data["annotations"], strict=True)
    ]
    metrics = on_detections.evaluate(
        write(tmp_path, rows, "results.json"), write(tmp_path, data), str(tmp_path / "out")
    )
    assert metrics["num_persons"] == 2 and metrics["oks_ap"]["AP"] == pytest.approx(1)


def test_an_ambiguous_name_is_refused_unless_the_id_decides(tmp_path):
    labels = coco_files.read_labels(write(tmp_path, two_folders()), COCO)
    for image_id, expected in ((2, [2]), ("2", [2])):
        rows, names = coco_files.read_results(
            write(tmp_path, results_of(plain(), image_id=image_id, file_name="f.png"), "r.json")
        )
        assert coco_names.match_images(labels, rows, names) == expected
    rows, names = coco_files.read_results(write(tmp_path, results_of(plain(), image_id=9, file_name="f.png"), "r.json"))
    with pytest.raises(InputError, match="fits both A/f.png and B/f.png") as error:
        coco_names.match_images(labels, rows, names)
    helpers.one_line(error)


def test_an_id_that_is_another_image_by_chance_does_not_win_over_the_name(tmp_path):
    """kpose.predict numbers the files of a call from 1."""
    labels = coco_files.read_labels(write(tmp_path, two_folders()), COCO)
    rows, names = coco_files.read_results(
        write(tmp_path, results_of(plain(), image_id=1, file_name="B/f.png"), "r.json")
    )
    assert coco_names.match_images(labels, rows, names) == [2]


def test_images_without_names_match_by_id(tmp_path):
    data = two_folders()
    for image in data["images"]:
        del image["file_name"]
    labels = coco_files.read_labels(write(tmp_path, data), COCO)
    results = [r for p in (2, 1) for r in results_of(plain(), image_id=p, file_name="whatever.jpg")]
    rows, names = coco_files.read_results(write(tmp_path, results, "r.json"))
    assert coco_names.match_images(labels, rows, names) == [2, 1]


def test_boxes_of_crowds_are_left_out_and_images_without_boxes_are_said(tmp_path, caplog):
    data = two_folders()
    data["annotations"].append(helpers.annotation(3, 1, BOX, JOINTS, iscrowd="1"))
    path = write(tmp_path, data)
    with caplog.at_level("INFO", logger="absl"):
        found = read_boxes(path, ["x/A/f.png", "x/C/g.png"])
    assert [(box.path, box.image_id, box.box) for box in found] == [("x/A/f.png", 1, list(BOX))]
    assert "no box for 1 of the 2 images" in caplog.text
    with pytest.raises(InputError, match="x/f.png fits both its images A/f.png and B/f.png"):
        read_boxes(path, ["x/f.png"])


def test_boxes_that_name_only_their_file(tmp_path):
    rows = [{"file_name": "B/f.png", "bbox": [1, 2, 3, 4], "score": 0.5}]
    (found,) = read_boxes(write(tmp_path, rows), ["x/A/f.png", "x/B/f.png"])
    assert (found.path, found.box, found.image_id) == ("x/B/f.png", [1, 2, 3, 4], None)


def test_digits_in_a_name_are_no_id_where_the_file_is_named(tmp_path):
    rows = [{"image_id": 139, "file_name": "other.png", "bbox": [1, 2, 3, 4]}]
    with pytest.raises(InputError, match="none of its 1 boxes belongs"):
        read_boxes(write(tmp_path, rows), ["000000000139.jpg"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "num_keypoints", "keypoints", "score")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_value_of_any_field_does_more_than_a_one_line_error(data):
    content = copy.deepcopy(plain())
    for _ in range(data.draw(st.integers(1, 3))):
        target = data.draw(st.sampled_from(["images", "annotations", "categories"]))
        names = FIELDS if target == "annotations" else ("id", "file_name", "width", "height", "name", "keypoints")
        content[target][0][data.draw(st.sampled_from(names))] = data.draw(JSON)
    with tempfile.TemporaryDirectory() as folder:
        path = write(folder, content)
        try:
            labels = coco_files.read_labels(path, COCO, problems.Problems("skip"))
        except InputError as error:
            assert "\n" not in str(error)
            return
    for person in labels.persons:
        assert isinstance(person.id, int) and np.isfinite(person.keypoints).all() and person.area >= 0
        assert person.image_id in labels.images
