"""Files with boxes of persons."""

import json

import pytest

from kpose.core import skeleton_files
from kpose.core.errors import InputError
from kpose.predict.boxes import read_boxes
from tests import helpers


def _write(path, data):
    path.write_text(json.dumps(data))
    return str(path)


def test_other_categories_and_low_scores_of_a_detections_file_are_skipped(tmp_path):
    entries = [
        {"image_id": 7, "category_id": category, "bbox": [i, 0, 5, 5], "score": score}
        for i, (category, score) in enumerate([(1, 0.9), (18, 0.9), (1, 0.1), (1, 0.5)])
    ]
    entries.append({"image_id": 7, "bbox": [4, 0, 5, 5]})
    found = read_boxes(_write(tmp_path / "boxes.json", entries), ["x/0007.jpg"], 0.3)
    assert [(person.box[0], person.score) for person in found] == [(0, 0.9), (3, 0.5), (4, None)]
    named = {
        "images": [{"id": 7, "file_name": "0007.jpg"}],
        "categories": [{"id": 18, "name": "person"}, {"id": 1, "name": "dog"}],
        "annotations": entries[:2],
    }
    found = read_boxes(_write(tmp_path / "named.json", named), ["x/0007.jpg"])
    assert [person.box[0] for person in found] == [1]


@pytest.mark.parametrize(
    "data, message",
    [
        (
            [{"image_id": 1, "category_id": 18, "bbox": [0, 0, 5, 5]}],
            "none of its 1 entries for these images is a person with a box",
        ),
        ([{"image_id": 1, "category_id": 1, "score": 0.1, "bbox": [0, 0, 5, 5]}], "lower --min_score"),
        ([{"image_id": 1, "score": "high", "bbox": [0, 0, 5, 5]}], "result 0: 'score' must be a number"),
        ([3], "result 0 is not an object"),
        (
            {"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [0, 0, 5, 5]}]},
            "none of its 1 boxes belongs",
        ),
    ],
)
def test_bad_box_files_are_one_clear_error(tmp_path, data, message):
    with pytest.raises(InputError, match=message) as error:
        read_boxes(_write(tmp_path / "boxes.json", data), ["1.jpg"], 0.3)
    helpers.one_line(error)


def test_equal_names_in_two_folders_are_resolved_by_the_folder_or_refused(tmp_path):
    paths = ["a/1.jpg", "b/1.jpg"]
    box = {"image_id": 5, "bbox": [0, 0, 5, 5]}
    with_folder = {"images": [{"id": 5, "file_name": "b/1.jpg"}], "annotations": [box]}
    assert read_boxes(_write(tmp_path / "boxes.json", with_folder), paths)[0].path == "b/1.jpg"
    for data in ({"images": [{"id": 5, "file_name": "1.jpg"}], "annotations": [box]}, [box | {"image_id": 1}]):
        with pytest.raises(InputError, match=r"a box fits both a/1.jpg and b/1.jpg"):
            read_boxes(_write(tmp_path / "boxes.json", data), paths)


def test_boxes_for_a_model_that_is_not_of_persons(tmp_path):
    """The category with the skeleton's name; without it all; in detections any category."""
    hand = skeleton_files.from_fields({"joints": ["wrist", "thumb"], "name": "hand"})
    images = [{"id": 1, "file_name": "a.jpg", "width": 50, "height": 50}]
    entries = [{"id": k, "image_id": 1, "category_id": k, "bbox": [k, 0, 9, 9]} for k in (1, 2)]

    def found(*names):
        categories = [{"id": k, "name": name} for k, name in enumerate(names, 1)]
        data = {"images": images, "annotations": entries, "categories": categories}
        return [b.box[0] for b in read_boxes(_write(tmp_path / "b.json", data), ["a.jpg"], skeleton=hand)]

    assert found("person", "hand") == [2] and found("paw", "claw") == [1, 2]
    detections = [{"image_id": 1, "file_name": "a.jpg", "category_id": 7, "bbox": [3, 0, 9, 9], "score": 0.5}]
    path = _write(tmp_path / "d.json", detections)
    assert [b.box[0] for b in read_boxes(path, ["a.jpg"], skeleton=hand)] == [3]
    with pytest.raises(InputError, match="is a person with a box"):
        read_boxes(path, ["a.jpg"])
