"""Drawn persons and contact sheets: positions, colours, confidence, invalid coordinates, files."""

import os

import numpy as np
import pytest
from PIL import Image

from kpose.core import skeletons
from kpose.drawing import persons, sheets

COCO = skeletons.COCO
LEFT_WRIST, RIGHT_WRIST = COCO.joints.index("left_wrist"), COCO.joints.index("right_wrist")
GREY = np.full((120, 100, 3), 128, np.uint8)
# A person facing us, all joints well apart, in an image of GREY's size.
PERSON = np.array(
    [
        *[(50, 14), (56, 8), (44, 8), (62, 12), (38, 12)],
        *[(66, 32), (34, 32), (78, 50), (22, 50), (82, 68), (18, 68)],
        *[(60, 66), (40, 66), (62, 86), (38, 86), (64, 108), (36, 108)],
    ],
    np.float64,
)


def _pixel(picture, point):
    return picture[int(point[1]), int(point[0])].astype(int)


def _change(picture, point, before=GREY):
    return np.abs(_pixel(picture, point) - _pixel(before, point)).sum()


def _flags(**changes):
    flags = np.full(COCO.num_joints, 2)
    for joint, flag in changes.items():
        flags[COCO.joints.index(joint)] = flag
    return flags


def _dot(colour, size):
    return np.full((*size, 3), colour, np.uint8)


def test_joints_are_painted_where_they_are():
    picture = persons.draw_skeleton(GREY, PERSON, COCO)
    assert picture.shape == GREY.shape and picture.dtype == np.uint8
    for joint, point in enumerate(PERSON):
        assert np.abs(_pixel(picture, point) - persons.COLOURS[COCO.sides[joint]]).max() < 30, COCO.joints[joint]
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
    picture = persons.draw_skeleton(GREY, PERSON, COCO, visibility=_flags(left_wrist=0))
    assert _change(picture, PERSON[LEFT_WRIST]) == 0
    assert _change(picture, (PERSON[LEFT_WRIST] + PERSON[COCO.joints.index("left_elbow")]) / 2) == 0
    assert _change(picture, PERSON[RIGHT_WRIST]) > 60
    assert np.array_equal(persons.draw_skeleton(GREY, PERSON, COCO, visibility=np.zeros(17)), GREY)


def test_an_occluded_joint_is_hollow_and_its_bone_fainter():
    full = persons.draw_skeleton(GREY, PERSON, COCO, scale=300)
    hollow = persons.draw_skeleton(GREY, PERSON, COCO, visibility=_flags(left_wrist=1), scale=300)
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
    expected = persons.draw_skeleton(GREY, PERSON, COCO, visibility=_flags(left_wrist=0))
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
    assert _pixel(picture, PERSON[LEFT_WRIST] * 25).tolist() == list(persons.COLOURS["left"])


@pytest.mark.parametrize("image", [GREY[..., 0], GREY.astype(np.float32), GREY.astype(np.float64)[..., 0]])
def test_grey_and_float_images(image):
    before = image.copy()
    assert np.array_equal(persons.draw_skeleton(image, PERSON, COCO), persons.draw_skeleton(GREY, PERSON, COCO))
    assert np.array_equal(image, before)


def test_arguments_are_not_modified():
    image, points, flags = GREY.copy(), PERSON.copy(), _flags(nose=1)
    picture = persons.draw_skeleton(image, points, COCO, visibility=flags)
    persons.draw_box(image, (10, 10, 50, 50))[:] = 0
    persons.draw_skeleton(image, points, COCO, visibility=np.zeros(17))[:] = 0
    picture[:] = 0
    assert np.array_equal(image, GREY) and np.array_equal(points, PERSON) and np.array_equal(flags, _flags(nose=1))


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


@pytest.mark.parametrize(
    ("region", "shape"),
    [
        ((5, 5, 100, 200), (256, 128)),
        ((5, 5, 300, 100), (85, 256)),
        ((0, 0, 7, 7), (256, 256)),
        ((0, 0, 1, 900), (256, 1)),
    ],
)
def test_unstretching_gives_the_region_its_shape_back(region, shape):
    points = np.array([[-0.5, -0.5], [0.5, 0.5], [0.0, 0.25]])
    picture, pixels = sheets.unstretch(GREY, points, np.array(region, float))
    assert picture.shape == (*shape, 3) and picture.dtype == np.uint8
    height, width = shape
    np.testing.assert_allclose(pixels, [[0, 0], [width, height], [width / 2, 0.75 * height]])


def test_unstretching_moves_picture_and_points_together():
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:24, 40:48] = 255
    picture, pixels = sheets.unstretch(image, np.array([[44.0, 20.0]]) / 64 - 0.5, (0, 0, 50, 100))
    white = np.argwhere(picture[..., 0] > 127)
    np.testing.assert_allclose(pixels[0], white.mean(0)[::-1] + 0.5, atol=1)


def test_side_by_side_pads_or_resizes():
    images = [_dot((255, 0, 0), (20, 30)), _dot((0, 0, 255), (40, 10))]
    joined = sheets.side_by_side(images)
    assert joined.shape == (40, 40 + sheets.GUTTER, 3)
    assert joined[20, 5].tolist() == [255, 0, 0] and joined[20, -1].tolist() == [0, 0, 255]
    assert joined[2, 5].tolist() == list(sheets.BACKGROUND)
    assert sheets.side_by_side(images, height=80).shape == (80, 120 + sheets.GUTTER + 20, 3)
    labelled = sheets.side_by_side(images, labels=["one", "a label far too long for its picture"])
    assert labelled.shape == (40 + sheets.CAPTION_HEIGHT, *joined.shape[1:])
    assert labelled[40:, :30].min() < 100 and np.array_equal(labelled[:40], joined)
    with pytest.raises(ValueError, match="labels"):
        sheets.side_by_side(images, labels=["one"])


def test_contact_sheet_places_tiles():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    tiles = [_dot(colour, (30, 30)) for colour in colours]
    sheet = sheets.contact_sheet(tiles, 3, 60, captions=["caption"] * 5, title="five colours")
    step_x, step_y = 60 + sheets.GUTTER, 60 + sheets.GUTTER + sheets.CAPTION_HEIGHT
    top = sheets.TITLE_HEIGHT + sheets.GUTTER
    assert sheet.dtype == np.uint8 and sheet.shape == (top + 2 * step_y, sheets.GUTTER + 3 * step_x, 3)
    for index, colour in enumerate(colours):
        x, y = sheets.GUTTER + index % 3 * step_x, top + index // 3 * step_y
        assert (sheet[y : y + 60, x : x + 60] == colour).all()
        assert sheet[y + 60 : y + step_y, x : x + 60].min() < 100, "its caption"
    assert (sheet[top + step_y :, sheets.GUTTER + 2 * step_x :] == sheets.BACKGROUND).all()
    assert sheet[: sheets.TITLE_HEIGHT].min() < 100


def test_contact_sheet_keeps_shapes():
    tall, wide = _dot((255, 0, 0), (40, 10)), _dot((0, 0, 255), (25, 100))
    sheet = sheets.contact_sheet([tall, wide], 2, 80)
    assert sheet.shape == (80 + 2 * sheets.GUTTER, 2 * 80 + 3 * sheets.GUTTER, 3)
    assert (sheet == (255, 0, 0)).all(2).sum() == 80 * 20 and (sheet == (0, 0, 255)).all(2).sum() == 20 * 80
    # Wide pictures alone make low rows.
    assert sheets.contact_sheet([wide], 1, 80).shape[0] == 20 + 2 * sheets.GUTTER


def test_contact_sheet_of_nothing_and_of_nonsense():
    assert sheets.contact_sheet([], 2, 32, title="none").shape[2] == 3
    with pytest.raises(ValueError, match="captions"):
        sheets.contact_sheet([GREY], 1, 32, captions=["a", "b"])
    with pytest.raises(ValueError, match="columns"):
        sheets.contact_sheet([GREY], 0, 32)


def test_truth_is_left_and_prediction_right():
    flags = _flags(left_wrist=0)
    tile = sheets.truth_and_prediction(GREY, PERSON, PERSON + 3, COCO, truth_visibility=flags)
    assert tile.shape == (120, 200 + sheets.GUTTER, 3)
    scale = np.ptp(PERSON[flags > 0], axis=0).max()
    truth = persons.draw_skeleton(GREY, PERSON, COCO, visibility=flags, scale=scale)
    assert np.array_equal(tile[:, :100], truth)
    assert np.array_equal(tile[:, -100:], persons.draw_skeleton(GREY, PERSON + 3, COCO, scale=scale))
    nothing = sheets.truth_and_prediction(GREY, PERSON * np.nan, PERSON, COCO, labels=["truth", "prediction"])
    assert np.array_equal(nothing[:120, :100], GREY) and len(nothing) == 120 + sheets.CAPTION_HEIGHT


def test_prediction_grid_shows_persons_in_their_own_shape():
    normalised = PERSON / (100, 120) - 0.5
    truth = np.concatenate([normalised, _flags()[:, None]], axis=1)
    images = np.full((3, 64, 64, 3), 128, np.uint8)
    grid = sheets.prediction_grid(images, [truth] * 3, [normalised] * 3, COCO, np.array([[0, 0, 50, 100]] * 3), 2)
    assert grid.shape[1] == 2 * 256 + 3 * sheets.GUTTER
    left, right = grid[:, : 256 // 2 + sheets.GUTTER], grid[:, 256 // 2 + sheets.GUTTER : 256 + sheets.GUTTER]
    for half in (left, right):
        assert (np.ptp(half.astype(int), axis=2) > 100).sum() > 200, "a coloured skeleton"


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
