"""The people of an image: a sequence, arrays, tables, pictures and files."""

import copy
import json
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

import kpose
from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.drawing import persons
from kpose.predict import inputs
from kpose.predict.people import People, Person
from tests import helpers

WRIST = skeletons.COCO.joints.index("left_wrist")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo_0042.png"
    Image.fromarray(np.full((200, 300, 3), 128, np.uint8)).save(path)
    return path


@pytest.fixture
def people(photo):
    """Three persons in an image."""
    random = np.random.default_rng(0)
    keypoints = random.uniform(20, 180, (3, 17, 3)).astype(np.float32)
    keypoints[..., 2] = random.uniform(0, 1, (3, 17))
    boxes = np.float32([[10, 20, 100, 150], [120, 20, 50, 150], [180, 20, 60, 70]])
    scores, box_scores = np.float32([0.8, 0.5, 0.25]), np.float32([0.9, 0.8, 0.7])
    source = inputs.gather(photo)[0][0]
    return People(keypoints, scores, boxes, box_scores, skeletons.COCO, source.name, (300, 200), source=source)


@pytest.fixture
def nobody(people):
    return people[:0]


def test_people_are_a_sequence_of_persons(people):
    assert len(people) == 3 and people and [person.score for person in people] == pytest.approx([0.8, 0.5, 0.25])
    person = people[-1]
    assert isinstance(person, Person) and person.box_score == pytest.approx(0.7)
    np.testing.assert_array_equal(person.keypoints, people.keypoints[2])
    np.testing.assert_array_equal(person.box, people.boxes[2])
    joint = person.joint("left_wrist")
    assert joint == (joint.x, joint.y, joint.score) == tuple(people.keypoints[2, WRIST].tolist())
    with pytest.raises(IndexError):
        people[3]


@pytest.mark.parametrize("index", [slice(1, None), [1, 2], np.array([False, True, True])])
def test_a_part_of_the_people(people, index):
    part = people[index]
    assert isinstance(part, People) and part.name == people.name and len(part.draw().size) == 2
    for name in ("keypoints", "scores", "boxes", "box_scores"):
        np.testing.assert_array_equal(getattr(part, name), getattr(people, name)[1:])


def test_a_joint_that_does_not_exist_is_one_line(people):
    with pytest.raises(InputError, match="no joint 'left_wirst': did you mean 'left_wrist'") as error:
        people[0].joint("left_wirst")
    helpers.one_line(error)


def test_coco_results_are_those_of_the_file(people):
    results = people.to_coco()
    assert [r["image_id"] for r in results] == [42] * 3 and people.to_coco(image_id=7)[0]["image_id"] == 7
    assert results[0]["file_name"] == people.name and results[0]["score"] == pytest.approx(0.8)
    # Pixel indices: half a pixel less.
    np.testing.assert_allclose(
        np.reshape(results[1]["keypoints"], (17, 3)) + [0.5, 0.5, 0], people.keypoints[1], atol=1e-4
    )
    json.dumps(results)


def test_a_table_has_one_row_per_person(people):
    pandas = pytest.importorskip("pandas")
    table = people.to_dataframe()
    assert table.shape == (3, 7 + 3 * 17) and table.file_name.tolist() == [people.name] * 3
    np.testing.assert_array_equal(table.left_wrist_y, people.keypoints[:, WRIST, 1])
    np.testing.assert_array_equal(table[["box_x", "box_y", "box_width", "box_height"]], people.boxes)
    both = pandas.concat([table, people[:0].to_dataframe()])
    assert len(both) == 3 and list(both.columns) == list(table.columns)


def test_without_pandas_a_table_is_one_clear_error(people, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="needs the package pandas: pip install pandas"):
        people.to_dataframe()


def test_arrays_by_name(people):
    arrays = people.to_numpy()
    assert set(arrays) == {"keypoints", "scores", "boxes", "box_scores"}
    assert arrays["keypoints"] is people.keypoints


def test_the_drawn_image_is_that_of_the_command(people, photo):
    picture = people.draw()
    expected = persons.draw_people(np.asarray(Image.open(photo)), people, skeletons.COCO)
    np.testing.assert_array_equal(picture, expected)
    np.testing.assert_array_equal(kpose.draw(photo, people), expected)
    np.testing.assert_array_equal(people.draw(Image.open(photo)), expected)


@pytest.mark.parametrize("name", ["out.jpg", "out.png", "new/out.JPG"])
def test_save_writes_the_drawn_image(people, tmp_path, name):
    people.save(tmp_path / name)
    with Image.open(tmp_path / name) as saved:
        assert saved.format == ("PNG" if name.endswith("png") else "JPEG")
        assert np.abs(np.asarray(saved).astype(int) - np.asarray(people.draw())).mean() < 3


def test_save_writes_coco_results(people, tmp_path):
    people.save(tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == people.to_coco()


def test_save_does_not_replace_the_image(people, photo):
    before = photo.read_bytes()
    with pytest.raises(InputError, match="this is the predicted image") as error:
        people.save(photo)
    helpers.one_line(error)
    assert photo.read_bytes() == before


@pytest.mark.parametrize("name", ["out.txt", "out", "photo_0042.png/out.jpg"])
def test_a_file_that_cannot_be_written_is_one_line(people, tmp_path, name):
    with pytest.raises(InputError, match="give a name that ends in|cannot be written") as error:
        people.save(tmp_path / name)
    helpers.one_line(error)


def test_a_drawing_needs_the_image(people, tmp_path):
    with pytest.raises(InputError, match="200 x 100 pixels, and the people are in an image of 300 x 200"):
        people.draw(np.zeros((100, 200, 3), np.uint8))
    alone = People(people.keypoints, people.scores, people.boxes, skeleton=skeletons.COCO)
    with pytest.raises(InputError, match="the image of these people is not known"):
        alone.draw()
    with pytest.raises(InputError, match="draw takes one image"):
        people.draw([np.zeros((200, 300, 3), np.uint8)])


def test_the_text_names_the_image_and_the_persons(people, nobody):
    lines = repr(people).splitlines()
    assert lines[0] == f"People(3 in {people.name}, 300 x 200 pixels)" and len(lines) == 4
    assert "1: score 0.50, box x 120 y 20 width 50 height 150" in lines[2]
    assert repr(people[0]).startswith("Person(score 0.80, ")
    assert repr(nobody) == f"People(0 in {people.name}, 300 x 200 pixels)"
    many = people[np.zeros(25, int)]
    assert len(repr(many).splitlines()) == 12 and "and 15 more" in repr(many)


def test_people_can_be_copied_and_pickled(people):
    for other in (copy.deepcopy(people), pickle.loads(pickle.dumps(people))):
        assert repr(other) == repr(people)
        np.testing.assert_array_equal(other.draw(), people.draw())


def test_nobody_works_everywhere(nobody, tmp_path):
    assert len(nobody) == 0 and not nobody and list(nobody) == [] and nobody.to_coco() == []
    assert nobody.to_numpy()["keypoints"].shape == (0, 17, 3)
    assert np.asarray(nobody.draw()).max() == 128
    for name in ("a.jpg", "a.json"):
        nobody.save(tmp_path / name)
    assert len(nobody[np.zeros(0, bool)]) == len(nobody[[]]) == 0
    pytest.importorskip("pandas")
    assert len(nobody.to_dataframe()) == 0
