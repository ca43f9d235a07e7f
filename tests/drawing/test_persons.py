"""Drawn persons and boxes: positions, colours, confidence, invalid coordinates, image files."""

import dataclasses
import os

import numpy as np
import pytest
from PIL import Image

from kpose.drawing import colours, persons
from kpose.predict.people import People
from tests.drawing.samples import COCO, GREY, PERSON, flags

LEFT_WRIST, RIGHT_WRIST = COCO.joints.index("left_wrist"), COCO.joints.index("right_wrist")


def _pixel(picture, point):
    return picture[int(point[1]), int(point[0])].astype(int)


def _change(picture, point, before=GREY):
    return np.abs(_pixel(picture, point) - _pixel(before, point)).sum()


def test_joints_are_painted_where_they_are():
    picture = persons.draw_skeleton(GREY, PERSON, COCO)
    assert picture.shape == GREY.shape and picture.dtype == np.uint8
    for joint, point in enumerate(PERSON):
        assert np.abs(_pixel(picture, point) - colours.SIDES[COCO.sides[joint]]).max() < 30, COCO.joints[joint]
    rows, columns = np.nonzero((picture != GREY).any(2))
    low, high = PERSON.min(0) - 6, PERSON.max(0) + 6
    assert columns.min() > low[0] and rows.min() > low[1] and columns.max() < high[0] and rows.max() < high[1]


@pytest.mark.parametrize("joint", range(COCO.num_joints), ids=COCO.joints)
def test_a_joint_alone_is_centred_on_its_coordinates(joint):
    flags = np.zeros(COCO.num_joints)
    flags[joint] = 2
    rows, columns = np.nonzero((persons.draw_skeleton(GREY, PERSON + 0.5, COCO, flags) != GREY).any(2))
    assert len(rows) and max(np.ptp(rows), np.ptp(columns)) < 12
    assert np.abs([columns.mean() + 0.5, rows.mean() + 0.5] - (PERSON[joint] + 0.5)).max() < 0.4


def test_bones_are_painted_between_joints():
    picture = persons.draw_skeleton(GREY, PERSON, COCO)
    for a, b in COCO.bones:
        assert _change(picture, PERSON[[a, b]].mean(0)) > 60


def test_left_is_warm_and_right_is_cool():
    picture = persons.draw_skeleton(GREY, PERSON, COCO)
    left, right = _pixel(picture, PERSON[LEFT_WRIST]), _pixel(picture, PERSON[RIGHT_WRIST])
    assert left[0] > left[2] + 50 and right[2] > right[0] + 50
    nose = _pixel(picture, PERSON[0])
    assert nose[1] == max(nose)


def test_a_joint_without_label_is_not_drawn_nor_its_bone():
    picture = persons.draw_skeleton(GREY, PERSON, COCO, visibility=flags(left_wrist=0))
    assert _change(picture, PERSON[LEFT_WRIST]) == 0
    assert _change(picture, (PERSON[LEFT_WRIST] + PERSON[COCO.joints.index("left_elbow")]) / 2) == 0
    assert _change(picture, PERSON[RIGHT_WRIST]) > 60
    assert np.array_equal(persons.draw_skeleton(GREY, PERSON, COCO, visibility=np.zeros(17)), GREY)


def test_an_occluded_joint_is_hollow_and_its_bone_fainter():
    full = persons.draw_skeleton(GREY, PERSON, COCO, scale=300)
    hollow = persons.draw_skeleton(GREY, PERSON, COCO, visibility=flags(left_wrist=1), scale=300)
    assert _pixel(hollow, PERSON[LEFT_WRIST]).min() > 230 > _pixel(full, PERSON[LEFT_WRIST]).min()
    middle = PERSON[[COCO.joints.index("left_elbow"), LEFT_WRIST]].mean(0)
    assert 0 < _change(hollow, middle) < _change(full, middle)


def test_low_confidence_is_fainter():
    changes = []
    for confidence in (0.0, 0.3, 0.7, 1.0):
        values = np.ones(COCO.num_joints)
        values[LEFT_WRIST] = confidence
        picture = persons.draw_skeleton(GREY, PERSON, COCO, confidence=values)
        changes.append(_change(picture, PERSON[LEFT_WRIST]))
        assert _change(picture, PERSON[RIGHT_WRIST]) > 100
    assert changes == sorted(changes) and len(set(changes)) == 4 and changes[0] > 0


def test_below_the_threshold_nothing_is_drawn():
    confidence = np.where(np.arange(COCO.num_joints) == LEFT_WRIST, 0.2, 0.9)
    picture = persons.draw_skeleton(GREY, PERSON, COCO, confidence=confidence, threshold=0.3)
    assert _change(picture, PERSON[LEFT_WRIST]) == 0 and _change(picture, PERSON[RIGHT_WRIST]) > 60
    confidence[LEFT_WRIST] = np.nan
    assert _change(persons.draw_skeleton(GREY, PERSON, COCO, confidence=confidence), PERSON[LEFT_WRIST]) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e6, -1e6, 1e300])
def test_impossible_coordinates_are_left_out(bad):
    points = PERSON.copy()
    points[LEFT_WRIST] = (bad, 50)
    expected = persons.draw_skeleton(GREY, PERSON, COCO, visibility=flags(left_wrist=0))
    assert np.array_equal(persons.draw_skeleton(GREY, points, COCO), expected)
    assert np.array_equal(persons.draw_skeleton(GREY, np.full((17, 2), bad), COCO), GREY)


def test_a_bone_to_a_joint_just_outside_reaches_the_edge():
    points = PERSON.copy()
    points[LEFT_WRIST] = (120, 50)
    picture = persons.draw_skeleton(GREY, points, COCO)
    assert _change(picture, (99, 50)) > 60
    assert np.array_equal(persons.draw_skeleton(GREY, PERSON + (150, 0), COCO), GREY)


def test_lines_grow_with_the_person():
    def share(factor):
        image = np.full((120 * factor, 100 * factor, 3), 128, np.uint8)
        return (persons.draw_skeleton(image, PERSON * factor, COCO) != image).any(2).mean()

    assert share(8) == pytest.approx(share(2), rel=0.25)
    thin, thick = (persons.draw_skeleton(GREY, PERSON, COCO, scale=scale) for scale in (50, 400))
    assert (thick != GREY).sum() > 1.5 * (thin != GREY).sum()


def test_large_images_use_a_limited_layer():
    image = np.zeros((3000, 4000, 3), np.uint8)
    picture = persons.draw_skeleton(image, PERSON * 25, COCO)
    assert _pixel(picture, PERSON[LEFT_WRIST] * 25).tolist() == list(colours.SIDES["left"])


@pytest.mark.parametrize("image", [GREY[..., 0], GREY.astype(np.float32), GREY.astype(np.float64)[..., 0]])
def test_grey_and_float_images(image):
    before = image.copy()
    assert np.array_equal(persons.draw_skeleton(image, PERSON, COCO), persons.draw_skeleton(GREY, PERSON, COCO))
    assert np.array_equal(image, before)


def test_arguments_are_not_modified():
    image, points, visibility = GREY.copy(), PERSON.copy(), flags(nose=1)
    picture = persons.draw_skeleton(image, points, COCO, visibility=visibility)
    persons.draw_box(image, (10, 10, 50, 50))[:] = 0
    persons.draw_skeleton(image, points, COCO, visibility=np.zeros(17))[:] = 0
    picture[:] = 0
    assert np.array_equal(image, GREY) and np.array_equal(points, PERSON) and np.array_equal(visibility, flags(nose=1))


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="keypoints"):
        persons.draw_skeleton(GREY, np.ones((17, 3)), COCO)
    with pytest.raises(ValueError, match="visibility"):
        persons.draw_skeleton(GREY, PERSON, COCO, visibility=[2, 2])
    with pytest.raises(ValueError, match="image"):
        persons.draw_skeleton(np.zeros((4, 5, 4)), PERSON, COCO)


def test_box_is_a_thin_rectangle():
    picture = persons.draw_box(GREY, (20, 30, 40, 50), colour=(255, 0, 0))
    red = (picture == (255, 0, 0)).all(2)
    expected = np.zeros(red.shape, bool)
    expected[30:80, 20:60] = True
    expected[31:79, 21:59] = False
    assert np.array_equal(red, expected)
    assert np.array_equal(picture[33:77, 23:57], GREY[33:77, 23:57])


def test_box_of_the_whole_image_is_seen_and_a_larger_one_is_not():
    assert (persons.draw_box(GREY, (0, 0, 100, 120))[[0, -1]] == 255).all()
    assert np.array_equal(persons.draw_box(GREY, (-50, -50, 1e9, 1e9)), GREY)


def test_a_box_s_label_is_above_it_and_inside_where_the_picture_ends():
    for top, rows in ((60, range(40, 60)), (0, range(0, 20))):
        box = (20, top, 60, 40)
        labelled, plain = persons.draw_box(GREY, box, label="0.87"), persons.draw_box(GREY, box)
        changed = np.nonzero((labelled != plain).any(2))
        assert (
            len(changed[0]) > 60 and set(changed[0]) <= set(rows) and changed[1].min() >= 20 and changed[1].max() < 60
        )


@pytest.mark.parametrize("box", [(np.nan, 0, 5, 5), (0, 0, np.inf, 5), (0, 0, 0, 5), (5, 5, -3, 4), (1e12, 0, 5, 5)])
def test_impossible_boxes_draw_nothing(box):
    assert np.array_equal(persons.draw_box(GREY, box), GREY)


@pytest.mark.parametrize(("name", "kind"), [("picture.png", "PNG"), ("picture.jpg", "JPEG"), ("picture", "PNG")])
def test_save_image(tmp_path, name, kind):
    path = str(tmp_path / "new" / "folder" / name)
    for _ in range(2):
        persons.save_image(path, GREY)
    with Image.open(path) as saved:
        assert saved.format == kind and saved.size == (100, 120)
        assert np.abs(np.asarray(saved).astype(int) - GREY).max() <= 2
    assert os.listdir(tmp_path / "new" / "folder") == [name]


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = str(tmp_path / "picture.png")
    persons.save_image(path, GREY)
    with pytest.raises(ValueError):
        persons.save_image(path, np.zeros((3, 3, 7)))
    assert os.listdir(tmp_path) == ["picture.png"] and Image.open(path).size == (100, 120)


def test_a_save_that_breaks_off_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    persons.save_image(str(path), GREY)
    before = path.read_bytes()

    def full_disk(picture, file, *args, **named):
        file.write(b"half a picture")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        persons.save_image(str(path), GREY[:8])
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["picture.png"]


def _people_at(score, box=(20, 10, 60, 100), box_scores=None):
    points = np.stack([np.linspace(25, 75, 17), np.linspace(15, 105, 17), np.full(17, score)], axis=1)
    # The nose has another score: equal scores of all joints are not drawn as transparency.
    points[0, 2] = 1.0
    return People(points[None].astype(np.float32), np.float32([0.5]), np.float32([box]), box_scores)


def test_the_less_sure_the_fainter_and_below_the_threshold_not_at_all():
    bare = persons.draw_people(GREY, _people_at(0.0), COCO).astype(int)
    change = [
        np.abs(persons.draw_people(GREY, _people_at(score), COCO).astype(int) - bare).sum()
        for score in (0.1, 0.3, 0.6, 1.0)
    ]
    assert change[0] == 0 and 0 < change[1] < 0.35 * change[3] < change[2] < change[3]


@pytest.mark.parametrize(("calibrated", "least"), [(False, 0.15), (True, 0.4)])
def test_calibrated_scores_have_a_threshold_of_their_own(calibrated, least):
    def drawn(score):
        return persons.draw_people(GREY, dataclasses.replace(_people_at(score), calibrated=calibrated), COCO)

    assert (drawn(least - 0.01) == drawn(0.0)).all() and (drawn(least + 0.01) != drawn(0.0)).any()
    person = dataclasses.replace(_people_at(0.3), calibrated=calibrated, skeleton=COCO)[0]
    assert f"{1 if calibrated else 17} of 17 joints with a score of {least:g} or more" in str(person)


def test_joints_that_a_model_does_not_tell_apart_are_not_faded():
    people = [_people_at(score) for score in (0.1, 1.0)]
    people[0].keypoints[:, :, 2] = 0.1
    faint, sure = (persons.draw_people(GREY, some, COCO) for some in people)
    np.testing.assert_array_equal(faint, sure)


def test_the_label_is_the_person_s_score():
    box = (20, 40, 60, 60)
    image = np.full((300, 300, 3), 128, np.uint8)
    for people in (_people_at(0.0, box), _people_at(0.0, box, np.float32([0.9]))):
        people.keypoints[:, 0, 2] = 0.01
        np.testing.assert_array_equal(
            persons.draw_people(image, people, COCO), persons.draw_box(image, box, label="0.50")
        )


def test_the_box_of_a_low_score_is_fainter():
    people = _people_at(0.0, (20, 40, 60, 40))
    people.keypoints[:, 0, 2] = 0.01
    changes = []
    for score in (0.02, 0.12, 0.2, 0.9):
        picture = persons.draw_people(GREY[:100], dataclasses.replace(people, scores=np.float32([score])), COCO)
        changes.append(_change(picture, (50, 40)))
    assert 0 < changes[0] < changes[1] < changes[2] == changes[3]


def test_small_images_have_no_labels():
    people = _people_at(0.0, (20, 40, 60, 40))
    people.keypoints[:, 0, 2] = 0.01
    expected = persons.draw_box(GREY[:100], (20, 40, 60, 40))
    np.testing.assert_array_equal(persons.draw_people(GREY[:100], people, COCO), expected)


def _crowd(count):
    """People side by side, each 300 pixels wide, and their image."""
    points = 3 * np.stack([PERSON + (100 * number, 40) for number in range(count)])
    keypoints = np.concatenate([points, np.full((count, 17, 1), 0.99)], 2).astype(np.float32)
    # The score of one joint differs: equal scores of all joints are not drawn as transparency.
    keypoints[:, 0, 2] = 1.0
    boxes = 3 * np.float32([(100 * number + 5, 45, 90, 110) for number in range(count)])
    image = np.full((600, 300 * count, 3), 128, np.uint8)
    return image, People(keypoints, np.full(count, 0.5, np.float32), boxes)


def test_up_to_three_people_have_the_colours_of_left_and_right():
    image, people = _crowd(3)
    picture = persons.draw_people(image, people, COCO)
    for person in people.keypoints:
        left, right = _pixel(picture, person[LEFT_WRIST]), _pixel(picture, person[RIGHT_WRIST])
        assert left[0] > left[2] + 50 and right[2] > right[0] + 50


def test_more_people_have_a_colour_each_from_left_to_right():
    image, people = _crowd(5)
    # The order of the people is that of their scores, not of their places.
    order = [3, 0, 4, 2, 1]
    people = People(people.keypoints[order], people.scores, people.boxes[order])
    picture = persons.draw_people(image, people, COCO)
    for person, place in zip(people.keypoints, order, strict=True):
        middle = person[[LEFT_WRIST, COCO.joints.index("left_elbow")], :2].mean(0)
        other = person[[RIGHT_WRIST, COCO.joints.index("right_elbow")], :2].mean(0)
        for point in (middle, other):
            distances = [np.abs(_pixel(picture, point) - colour).sum() for colour in colours.PERSONS]
            assert np.argmin(distances) == place
    tracked = persons.draw_people(image, people, COCO, ids=[7] * 5)
    assert (tracked == colours.of_person(7)).all(2).sum() > 1000 > (picture == colours.of_person(7)).all(2).sum()


def test_the_colours_of_people_differ_most_from_the_next_ones():
    table = np.array(colours.PERSONS, float)
    distances = np.linalg.norm(table[:, None] - table[None], axis=2)
    following = np.roll(distances, -1, axis=1).diagonal()
    assert distances[~np.eye(len(table), dtype=bool)].min() > 50 and following.min() > 100


@pytest.mark.parametrize(("size", "person"), [((6000, 9000), 4500), ((6000, 9000), 300), ((480, 640), 300)])
def test_lines_are_seen_when_a_large_image_is_viewed_reduced(size, person):
    image = np.full((*size, 3), 128, np.uint8)
    picture = persons.draw_skeleton(image, PERSON * (person / 120), COCO)
    shown = np.asarray(Image.fromarray(picture).reduce(max(1, max(size) // 1200))).astype(int)
    scale = person / 120 / max(1, max(size) // 1200)
    middle = PERSON[[LEFT_WRIST, COCO.joints.index("left_elbow")]].mean(0) * scale
    assert np.abs(_pixel(shown, middle) - 128).sum() > 100
    # A line never hides its person.
    drawn = (picture != 128).any(2).sum()
    assert drawn < 0.45 * (person * person * 0.8)


def test_nobody_is_drawn_as_the_image():
    nobody = People(np.zeros((0, 17, 3), np.float32), np.zeros(0, np.float32), np.zeros((0, 4), np.float32))
    assert np.array_equal(persons.draw_people(GREY, nobody, COCO), GREY)
