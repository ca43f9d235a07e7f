"""Results with boxes of their own, compared with labels."""

import numpy as np
import pytest

from kpose.core import boxes as core_boxes
from kpose.core import skeleton_files
from kpose.core.errors import InputError
from kpose.core.skeletons import COCO
from kpose.data.coco_files import read_labels, read_results
from kpose.evaluate import on_detections
from kpose.metrics import coco, tables
from tests import helpers

BOXES = [[10.0, 10.0, 80.0, 160.0], [200.0, 20.0, 60.0, 120.0], [10.0, 10.0, 90.0, 150.0]]


@pytest.fixture
def labels(tmp_path):
    """Persons: two in image 1, one in image 2, one without labelled joints; none in image 3."""
    persons = [
        helpers.annotation(7 + i, image_id, box, helpers.keypoints_in(box, seed=i))
        for i, (image_id, box) in enumerate(zip((1, 1, 2), BOXES, strict=True))
    ]
    blank = helpers.annotation(99, 2, [300.0, 300.0, 50.0, 50.0], np.zeros((17, 3)))
    images = [helpers.image_entry(i, f"{i}.jpg", (400, 400)) for i in (1, 2, 3)]
    return str(helpers.write_coco(tmp_path / "labels.json", images, [*persons, blank])), persons


def answer(person, score=0.5, shift=0.0, **changes):
    points = np.reshape(person["keypoints"], (-1, 3)) + [0.0, 0.0, 0.0]
    points[:, 0] += shift
    fields = {name: person[name] for name in ("image_id", "bbox", "category_id")}
    return fields | {"keypoints": points.ravel().tolist(), "score": score} | changes


def write(tmp_path, some):
    helpers.write_json(tmp_path / "results.json", some)
    return str(tmp_path / "results.json")


def test_perfect_results_for_some_persons(labels, tmp_path):
    path, persons = labels
    table = on_detections.evaluate(write(tmp_path, [answer(p) for p in persons[:2]]), path, str(tmp_path))
    assert table["pcp"]["strict"]["average"] == 1 and table["pdj"]["0.1"] == 1
    assert (table["num_persons"], table["num_labelled_persons"], table["num_images_with_results"]) == (2, 3, 1)
    # One of three persons is not found, and all joints are labelled: a third of each limb. COCO's
    # recall agrees.
    assert table["pcp_of_all"]["strict"]["average"] == pytest.approx(2 / 3)
    assert table["oks_ap"]["AR"] == pytest.approx(2 / 3) and table["oks_ap"]["AP"] == pytest.approx(67 / 101, abs=0.01)
    # The keys that an evaluation on records writes too.
    keys = {
        "records",
        "flip_test",
        "checkpoint",
        "box_source",
        "intervals",
        "pdj_curve",
        "pck",
        "joint_errors",
        "subsets",
    }
    assert keys <= table.keys() and table["flip_test"] is None
    assert [subset["num_persons"] for subset in table["subsets"] if subset["name"] == "fully visible"] == [2]
    page = (tmp_path / "report.html").read_text()
    assert "results.json" in page and "persons not found counted as wrong" in page and "None" not in page
    lines = on_detections.describe(table)
    assert "of 3 labelled persons, 2 are found" in lines[0] and "66.7%" in lines[-1]
    assert 0 < table["mean_pose_pcp"]["strict"]["average"] < 1 or table["mean_pose_pcp"]["strict"]["average"] == 0


def test_results_in_the_labels_boxes_have_the_same_pcp_and_ap(labels, tmp_path):
    path, persons = labels
    some = [answer(p, shift=6.0) for p in persons]
    table = on_detections.evaluate(write(tmp_path, some), path, str(tmp_path))
    truth, prediction = (np.array([p["keypoints"] for p in x]).reshape(3, 17, 3) for x in (persons, some))
    assert table["pcp"] == table["pcp_of_all"] == tables.pcp_table(truth, prediction[..., :2], COCO)
    low, high = table["intervals"]["oks_ap"]["AP"]
    assert 0 <= low <= table["oks_ap"]["AP"] <= high <= 1
    assert f"[{100 * low:.1f}, {100 * high:.1f}]" in (tmp_path / "report.html").read_text()
    assert table["oks_ap"] == coco.oks_ap(read_labels(path, COCO), some, [p["id"] for p in persons], COCO)


def test_results_that_name_their_files_need_no_ids(labels, tmp_path):
    path, persons = labels
    named = [answer(p, image_id=50 + p["image_id"], file_name=f"some/folder/{p['image_id']}.jpg") for p in persons]
    table = on_detections.evaluate(write(tmp_path, named), path, str(tmp_path))
    assert table["num_persons"] == 3 and table["oks_ap"]["AP"] == pytest.approx(1)


def test_a_person_gets_one_result_the_one_with_the_highest_score(labels, tmp_path):
    path, persons = labels
    x, y, w, h = persons[0]["bbox"]
    sure, doubtful = answer(persons[0], 0.9, bbox=[x + 5, y, w, h]), answer(persons[0], 0.4)
    elsewhere, beside = answer(persons[0], 0.8, image_id=2, bbox=[150, 150, 40, 40]), answer(persons[1], 0.7)
    rows, _ = read_results(write(tmp_path, [doubtful, sure, elsewhere, beside]))
    people = [person for person in read_labels(path, COCO).persons if person.num_labelled]
    pairs, missed = on_detections.match(people, rows)
    assert [(person.id, result.score) for person, result in pairs] == [(7, 0.9), (8, 0.7)]
    assert [person.id for person in missed] == [9]


def test_overlap_agrees_with_a_count_of_cells():
    random = np.random.default_rng(0)
    boxes = random.integers(0, 12, (12, 4)) + [0, 0, 1, 1]
    masks = np.zeros((12, 30, 30), bool)
    for mask, (x, y, w, h) in zip(masks, boxes, strict=True):
        mask[y : y + h, x : x + w] = True
    expected = [[(a & b).sum() / (a | b).sum() for b in masks[7:]] for a in masks[:7]]
    np.testing.assert_allclose(core_boxes.overlap(boxes[:7].astype(float), boxes[7:].astype(float)), expected)


def test_joints_without_names_are_those_of_the_skeleton_file(tmp_path):
    box = [10.0, 20.0, 50.0, 100.0]
    truth = np.array([[20, 30, 2], [40, 60, 2], [25, 90, 2]], float)
    person = helpers.annotation(5, 1, box, truth)
    path = str(helpers.write_coco(tmp_path / "labels.json", [helpers.image_entry(1, "1.jpg", (200, 200))], [person]))
    results = write(tmp_path, [answer(person, shift=12.0)])
    with pytest.raises(InputError, match="lists the names of its joints: give them with --skeleton=FILE.json"):
        on_detections.evaluate(results, path, str(tmp_path))
    skeleton = skeleton_files.from_fields({"joints": ["top", "middle", "low"], "torso": ["top", "low"]}, "part")
    table = on_detections.evaluate(results, path, str(tmp_path), skeleton=skeleton)
    # The torso is 60 pixels long, the longer side of the box 100; all errors are 12 pixels.
    assert (table["pdj"]["0.1"], table["pdj"]["0.2"], table["pck"]["average"]) == (0.0, 1.0, 1.0)
    assert table["pck"].keys() >= {"top", "middle", "low"} and table["oks_ap"] is not None
    with pytest.raises(InputError, match="3 joints for each person, but the skeleton 'coco' has 17"):
        on_detections.evaluate(results, path, str(tmp_path), skeleton=COCO)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda some: [], "it holds no results"),
        (lambda some: [{k: v for k, v in some[0].items() if k != "bbox"}], "result 0 lacks 'bbox'"),
        (lambda some: [some[0] | {"keypoints": [1.0] * 30}], "10 joints for each person"),
        (lambda some: [some[0] | {"keypoints": [1.0] * 50}], "'keypoints' is not a list of three numbers"),
        (lambda some: [some[0] | {"keypoints": [1.0] * 42}], "has 51 keypoint numbers, but skeleton 'lsp' needs 42"),
        (lambda some: [some[0] | {"keypoints": ["x"] * 51}], "result 0: 'keypoints' is not a list of three numbers"),
        (lambda some: [some[0] | {"bbox": [1, 2, None, 4]}], "result 0: 'bbox' must be four numbers"),
        (lambda some: [some[0] | {"bbox": [1, 2, 3]}], "'bbox' must be four numbers"),
        (lambda some: [some[0] | {"score": "high"}], "'score' must be a number"),
        (lambda some: [some[0] | {"image_id": 77}], "image 77 is not in"),
        (lambda some: [some[0] | {"bbox": [390, 390, 5, 5]}], "no box of 1 results overlaps"),
    ],
)
def test_bad_results_are_one_line(labels, tmp_path, change, message):
    path, persons = labels
    with pytest.raises(InputError, match=message) as error:
        on_detections.evaluate(write(tmp_path, change([answer(persons[0])])), path, str(tmp_path))
    helpers.one_line(error)
