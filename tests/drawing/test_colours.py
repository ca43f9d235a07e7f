"""Colours of skeletons without left and right, and legends."""

import colorsys
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.core import skeleton_files, skeletons
from kpose.drawing import colours, persons, sheets
from tests import hands

HAND = skeleton_files.from_fields({"joints": list(hands.JOINTS), "skeleton": [list(b) for b in hands.BONES]}, "hand")


def hue(colour):
    return colorsys.rgb_to_hsv(*(value / 255 for value in colour))[0]


def test_persons_keep_the_colours_of_their_sides():
    for table in skeletons.SKELETONS.values():
        assert list(colours.of_joints(table)) == [colours.SIDES[side] for side in table.sides]
    assert colours.of_bone(skeletons.COCO, (5, 7)) == colours.SIDES["left"]
    assert colours.of_bone(skeletons.COCO, (5, 6)) == colours.SIDES["middle"]
    assert colours.of_bone(skeletons.COCO, (0, 2)) == colours.SIDES["right"]


def test_the_fingers_of_a_hand_have_hues_of_their_own():
    found = colours.of_joints(HAND)
    assert len(set(found)) == 21
    hues = [[hue(found[1 + 4 * finger + point]) for point in range(4)] for finger in range(5)]
    assert all(np.ptp(finger) < 0.02 for finger in hues)
    assert min(abs(a[0] - b[0]) for a, b in itertools.combinations(hues, 2)) > 0.08
    # A bone to the first point of a finger has the finger's colour, not the wrist's.
    assert colours.of_bone(HAND, (0, 5)) == found[5]


@pytest.mark.parametrize("names", [[f"p{i}" for i in range(9)], ["点 1", "线 2", "面 3"], ["1", "2", "3", "4"]])
def test_names_without_groups_go_along_the_wheel(names):
    found = [hue(colour) for colour in colours.of_joints(skeletons.Skeleton("x", tuple(names)))]
    assert found == sorted(found) and len(set(found)) == len(names) and found[-1] < 0.95


def test_left_and_right_stay_beside_groups():
    joints = ("left_eye", "right_eye", *(f"tail{i}" for i in range(3)), *(f"fin {i}" for i in range(3)))
    table = skeletons.Skeleton("fish", joints, pairs=((0, 1),))
    found = colours.of_joints(table)
    assert found[:2] == (colours.SIDES["left"], colours.SIDES["right"])
    assert abs(hue(found[2]) - hue(found[4])) < 0.02 < abs(hue(found[2]) - hue(found[5]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=60, unique=True))
def test_any_names_have_colours_and_a_legend(names):
    table = skeletons.Skeleton("any", tuple(names))
    found = colours.of_joints(table)
    assert len(found) == len(names) and all(0 <= v <= 255 for colour in found for v in colour)
    picture = sheets.legend(table, 204)
    assert picture.shape[1:] == (204, 3) and picture.dtype == np.uint8


def test_the_legend_shows_every_colour_and_is_below_the_sheet():
    tile = np.zeros((60, 40, 3), np.uint8)
    plain = sheets.contact_sheet([tile] * 4, 4, 192)
    sheet = sheets.contact_sheet([tile] * 4, 4, 192, skeleton=HAND)
    assert sheet.shape[1] == plain.shape[1] and (sheet[: len(plain)] == plain).all()
    below = sheet[len(plain) :].reshape(-1, 3)
    for colour in colours.of_joints(HAND):
        # A disc of radius 4 without its rim.
        assert (below == colour).all(1).sum() > 20


def test_a_long_legend_ends_with_the_number_of_the_other_joints():
    table = skeletons.Skeleton("many", tuple(f"p{i}" for i in range(500)))
    entries = colours.entries(table, 120)
    assert len(entries) == 120 and entries[0][1] == "0: p0" and entries[-1] == (None, "... and 381 more")
    assert len(sheets.legend(table, 800)) < 800


def test_a_skeleton_of_many_joints_has_smaller_joints():
    sizes = {}
    for count in (20, 500):
        table = skeletons.Skeleton("x", tuple(f"p{i}" for i in range(count)))
        points = np.full((count, 2), np.nan)
        points[:2] = [[20, 100], [180, 100]]
        picture = persons.draw_skeleton(np.zeros((200, 200, 3)), points, table)
        sizes[count] = (picture.max(-1) > 60).sum()
    assert 0 < sizes[500] < 0.6 * sizes[20]
