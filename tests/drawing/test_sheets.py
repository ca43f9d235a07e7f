"""Contact sheets and grids: places, sizes, captions, labels."""

import numpy as np
import pytest

from kpose.drawing import persons, sheets
from tests.drawing.samples import COCO, GREY, PERSON, flags


def _dot(colour, size):
    return np.full((*size, 3), colour, np.uint8)


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
    visibility = flags(left_wrist=0)
    tile = sheets.truth_and_prediction(GREY, PERSON, PERSON + 3, COCO, truth_visibility=visibility)
    assert tile.shape == (120, 200 + sheets.GUTTER, 3)
    scale = np.ptp(PERSON[visibility > 0], axis=0).max()
    truth = persons.draw_skeleton(GREY, PERSON, COCO, visibility=visibility, scale=scale)
    assert np.array_equal(tile[:, :100], truth)
    assert np.array_equal(tile[:, -100:], persons.draw_skeleton(GREY, PERSON + 3, COCO, scale=scale))
    nothing = sheets.truth_and_prediction(GREY, PERSON * np.nan, PERSON, COCO, labels=["truth", "prediction"])
    assert np.array_equal(nothing[:120, :100], GREY) and len(nothing) == 120 + sheets.CAPTION_HEIGHT


def test_prediction_grid_shows_persons_in_their_own_shape():
    normalised = PERSON / (100, 120) - 0.5
    truth = np.concatenate([normalised, flags()[:, None]], axis=1)
    images = np.full((3, 64, 64, 3), 128, np.uint8)
    grid = sheets.prediction_grid(images, [truth] * 3, [normalised] * 3, COCO, np.array([[0, 0, 50, 100]] * 3), 2)
    assert grid.shape[1] == 2 * 256 + 3 * sheets.GUTTER
    left, right = grid[:, : 256 // 2 + sheets.GUTTER], grid[:, 256 // 2 + sheets.GUTTER : 256 + sheets.GUTTER]
    for half in (left, right):
        assert (np.ptp(half.astype(int), axis=2) > 100).sum() > 200, "a coloured skeleton"
