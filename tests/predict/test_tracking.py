"""Tracks of persons: an id stays with its person."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.predict import tracking

RATE = 25
# A standing person in a box of 1 x 1: COCO's joints from nose to ankles.
STANDING = np.array(
    [[0.5, 0.1], [0.55, 0.07], [0.45, 0.07], [0.6, 0.09], [0.4, 0.09], [0.75, 0.22], [0.25, 0.22], [0.85, 0.38]]
    + [[0.15, 0.38], [0.9, 0.52], [0.1, 0.52], [0.65, 0.52], [0.35, 0.52], [0.66, 0.75], [0.34, 0.75]]
    + [[0.67, 0.97], [0.33, 0.97]]
)


def _person(x, y=50.0, height=200.0):
    """Joints [17, 3] and the box of a standing person whose box begins at x, y."""
    box = np.array([x, y, 0.4 * height, height])
    return np.c_[box[:2] + STANDING * box[2:], np.full(17, 0.8)], box


def _walk(frames, seed=0):
    """Two persons who cross, with noise: a list of [(true id, joints, box)] for each frame.

    The second person, behind the first one, is not found while the first one hides it.
    """
    random = np.random.default_rng(seed)
    film = []
    for frame in range(frames):
        people = []
        first, second = 20 + 4.0 * frame, 420 - 4.0 * frame
        for key, x, height in ((1, first, 220.0), (2, second, 180.0)):
            if key == 2 and abs(first - second) < 45:
                continue
            joints, box = _person(x, 260 - height, height)
            joints[:, :2] += random.normal(0, 2, (17, 2))
            people.append((key, joints, box + random.normal(0, 3, 4)))
        film.append(people)
    return film


def _ids(film, order=None, scale=1.0, shift=0.0, rate=RATE):
    """The ids of the tracker, for each frame {true id: id}."""
    tracker, answers = tracking.Tracker(skeletons.COCO.oks_sigmas), []
    for number, people in enumerate(film):
        people = people if order is None else [people[k] for k in np.argsort(order.random(len(people)))]
        joints = np.array([joints for _, joints, _ in people]).reshape(-1, 17, 3)
        joints[..., :2] = joints[..., :2] * scale + shift
        boxes = np.array([box for _, _, box in people]).reshape(-1, 4) * scale + [shift, shift, 0, 0]
        ids = tracker.update(joints, boxes, number / rate)
        answers.append({key: int(found) for (key, _, _), found in zip(people, ids, strict=True)})
    return answers


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("every", [1, 3])
def test_two_persons_who_cross_keep_their_ids(seed, every):
    film = _walk(100, seed)[::every]
    hidden = sum(len(people) == 1 for people in film)
    assert hidden * every > 8, "one is hidden for a while"
    answers = _ids(film, rate=RATE / every)
    assert {found[1] for found in answers} == {1} and {found[2] for found in answers if 2 in found} == {2}


@given(st.integers(0, 1000), st.floats(0.3, 5), st.floats(-500, 500))
@settings(max_examples=20, deadline=None)
def test_ids_depend_on_neither_the_order_nor_the_scale_nor_the_place(seed, scale, shift):
    film = _walk(70, seed)
    plain = _ids(film)
    assert _ids(film, scale=scale, shift=shift) == plain
    shuffled = _ids(film, order=np.random.default_rng(seed))
    names = {}
    for one, other in zip(plain, shuffled, strict=True):
        for key, found in one.items():
            assert names.setdefault(found, other[key]) == other[key]


@pytest.mark.parametrize(("seconds", "same"), [(0.4, True), (tracking.LOST - 0.2, True), (tracking.LOST + 0.2, False)])
def test_a_person_who_is_away_for_long_gets_a_new_id(seconds, same):
    tracker = tracking.Tracker(skeletons.COCO.oks_sigmas)
    joints, box = _person(100)
    first = tracker.update(joints[None], box[None], 0.0)
    nobody = tracker.update(np.zeros((0, 17, 3)), np.zeros((0, 4)), seconds / 2)
    again = tracker.update(joints[None], box[None], seconds)
    assert first.tolist() == [1] and nobody.shape == (0,) and again.tolist() == [1 if same else 2]


def test_a_person_elsewhere_is_another_person():
    tracker = tracking.Tracker(skeletons.COCO.oks_sigmas)
    for time, x in ((0.0, 0), (0.04, 1000)):
        joints, box = _person(x)
        ids = tracker.update(joints[None], box[None], time)
    assert ids.tolist() == [2]


def test_without_scipy_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(
        InputError, match=r"--track needs the package scipy: pip install scipy \(or pip install '.\[vid"
    ):
        tracking.check()
