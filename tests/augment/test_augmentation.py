"""Augmentation of batches: flips, random numbers, cutout, agreement of host and device, checks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose import config as config_lib
from kpose.augment import augmentation as augmentation_lib
from kpose.core.errors import InputError
from tests import helpers
from tests.augment.samples import (
    COCO,
    GEOMETRIC,
    LEFT,
    PHOTOMETRIC,
    RIGHT,
    SIZE,
    STORED,
    WAYS,
    as_arrays,
    augmentation,
    batch_of_dots,
    stored_batch,
)


def _flip(batch, chosen=True, way="on_host"):
    """The batch with the chosen samples mirrored."""
    draws = np.asarray(batch["draws"]).copy()
    draws[:, augmentation_lib.COLUMNS.index("flip")] = np.where(chosen, 0.1, 0.9)
    flips = augmentation(flip=0.5)
    return getattr(flips, way)(batch | {"draws": tf.constant(draws)}) | {"draws": batch["draws"]}


def _assert_same(first, second):
    assert set(first) == set(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@WAYS
def test_a_flip_mirrors_the_image_and_x_and_swaps_the_sides(way):
    before = as_arrays(batch_of_dots())
    after = as_arrays(_flip(batch_of_dots(), way=way))
    np.testing.assert_array_equal(after["image"], before["image"][:, :, ::-1])
    for joint in range(17):
        partner = dict(zip(LEFT + RIGHT, RIGHT + LEFT, strict=True)).get(joint, joint)
        np.testing.assert_array_equal(after["keypoints"][:, joint], before["keypoints"][:, partner] * [-1, 1, 1])
    for name in ("region", "weight", "draws"):
        np.testing.assert_array_equal(after[name], before[name])


def test_painted_dots_follow_their_joints():
    """The left wrist's dot is where the mirrored person's right wrist is labelled."""
    after = as_arrays(_flip(batch_of_dots()))
    for person in range(6):
        for channel, joint in enumerate(helpers.PAINTED):
            name = COCO.joints[joint]
            mirrored = name.replace("left", "?").replace("right", "left").replace("?", "right")
            label = after["keypoints"][person, COCO.joints.index(mirrored), :2]
            dot = helpers.find_dot(after["image"][person, ..., channel])
            assert np.abs(dot - (label + 0.5) * SIZE[::-1]).max() < 0.3


def test_unlabelled_joints_stay_zeros_and_their_flags_change_sides():
    after = as_arrays(_flip(batch_of_dots()))["keypoints"]
    assert not after[:, RIGHT[0]].any() and (after[:, LEFT[0], 2] == 2).all()
    assert not after[::2, LEFT[3]].any() and (after[::2, RIGHT[3], 2] == 2).all()
    assert (after[1::2, LEFT[3], 2] == 2).all()
    assert (after[:, LEFT[4], 2] == 1).all() and (after[:, RIGHT[4], 2] == 2).all()


def test_two_flips_undo_each_other():
    chosen = np.array([True, False, True, True, False, True])
    twice = _flip(_flip(batch_of_dots(), chosen), chosen)
    _assert_same(as_arrays(twice), as_arrays(batch_of_dots()))


@WAYS
def test_only_the_chosen_samples_are_flipped(way):
    chosen = np.array([True, False, True, False, False, True])
    before, after = as_arrays(batch_of_dots()), as_arrays(_flip(batch_of_dots(), chosen, way))
    for person in range(6):
        same = [np.array_equal(before[name][person], after[name][person]) for name in ("image", "keypoints")]
        assert same == [not chosen[person]] * 2


def test_dtypes_are_kept():
    before, after = batch_of_dots(), _flip(batch_of_dots())
    assert {name: value.dtype for name, value in after.items()} == {name: value.dtype for name, value in before.items()}


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_flip_rate_is_the_probability(probability):
    count = 500
    draws = augmentation_lib.draws(4, 0, count)
    keypoints = np.zeros((count, 17, 3), np.float32)
    keypoints[:, 0] = (0.25, 0, 2)
    batch = {"image": tf.zeros([count, 1, 1, 3], tf.uint8), "keypoints": tf.constant(keypoints), "draws": draws}
    batch["region"] = tf.ones([count, 4])
    after = np.asarray(augmentation(flip=probability).on_host(batch)["keypoints"])
    flipped = int((after[:, 0, 0] == -0.25).sum())
    assert flipped + int((after[:, 0, 0] == 0.25).sum()) == count
    # Within 3.5 standard deviations of the binomial distribution, which has none at 0 and 1.
    assert abs(flipped - probability * count) <= 3.5 * np.sqrt(count * probability * (1 - probability))


@WAYS
def test_no_flip_is_no_augmentation(way):
    assert not augmentation()
    _assert_same(as_arrays(getattr(augmentation(), way)(batch_of_dots())), as_arrays(batch_of_dots()))
    assert augmentation(flip=0.1)


def test_host_and_graph_give_the_same_result():
    flips = augmentation(flip=0.5)
    batch = batch_of_dots(8)
    host = next(iter(tf.data.Dataset.from_tensors(batch).map(flips.on_host)))
    flipped = np.asarray(batch["draws"])[:, augmentation_lib.COLUMNS.index("flip")] < 0.5
    assert 0 < flipped.sum() < 8
    _assert_same(as_arrays(host), as_arrays(flips.on_device(batch)))
    _assert_same(as_arrays(host), as_arrays(tf.function(flips.on_device)(batch)))
    _assert_same(as_arrays(host), as_arrays(tf.function(flips.on_device, jit_compile=True)(batch)))


def test_draws_depend_on_seed_and_position_alone():
    def draw(seed, position):
        return augmentation_lib.draws(seed, tf.constant(position, tf.int64), 1).numpy()[0]

    first = draw(3, 1000)
    assert first.shape == (augmentation_lib.NUM_DRAWS,) and first.dtype == np.float32
    keras.utils.set_random_seed(99)
    np.testing.assert_array_equal(draw(3, 1000), first)
    np.testing.assert_array_equal(tf.function(augmentation_lib.draws)(3, tf.constant(1000, tf.int64), 1)[0], first)
    assert len(set(augmentation_lib.COLUMNS)) == augmentation_lib.NUM_DRAWS
    assert len({float(draw(seed, position)[0]) for seed in range(4) for position in (0, 1, 2**40)}) == 12


@pytest.mark.parametrize(
    "share", [pytest.param(0.0, marks=pytest.mark.slow), 0.5, pytest.param(1.0, marks=pytest.mark.slow)]
)
def test_only_the_chosen_samples_change_colour(share):
    """The host computes the chosen samples only, the device computes all."""
    batch = stored_batch(6)
    batch["image"] = tf.constant(np.random.default_rng(0).integers(0, 256, (6, 20, 24, 3), np.uint8))
    for name in PHOTOMETRIC:
        if name == "jitter":
            continue
        draws = np.full((6, augmentation_lib.NUM_DRAWS), 0.3, np.float32)
        draws[:, augmentation_lib.COLUMNS.index(name)] = np.where(np.arange(6) < 6 * share, 0.0, 0.9)
        ways = augmentation((20, 24), **{name: 0.5})
        batch = batch | {"draws": tf.constant(draws)}
        first, second = as_arrays(ways.on_host(batch)), as_arrays(ways.on_device(batch))
        np.testing.assert_allclose(first["image"].astype(int), second["image"].astype(int), atol=1)
        changed = (first["image"] != batch["image"].numpy()).any(axis=(1, 2, 3))
        assert changed.tolist() == (np.arange(6) < 6 * share).tolist(), name


def test_colours_and_cutout_leave_the_geometry_alone():
    batch = stored_batch(32)
    moved = as_arrays(augmentation(stored_share=0.5, **GEOMETRIC["all"]).on_host(batch))
    both = as_arrays(augmentation(stored_share=0.5, **GEOMETRIC["all"], **PHOTOMETRIC, cutout=0.5).on_host(batch))
    for name in ("region", "weight", "draws"):
        np.testing.assert_array_equal(moved[name], both[name])
    np.testing.assert_array_equal(moved["keypoints"][..., :2], both["keypoints"][..., :2])
    flags, hidden = moved["keypoints"][..., 2], both["keypoints"][..., 2]
    assert ((hidden == flags) | ((flags == 2) & (hidden == 1))).all() and (hidden != flags).any()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "all" else pytest.mark.slow) for name in GEOMETRIC] + ["photometric"],
)
def test_host_and_device_agree_within_a_grey_level(name):
    fields = GEOMETRIC.get(name, PHOTOMETRIC) | {"cutout": 0.5}
    batch = stored_batch(6)
    # Smooth, so that a rounding error of a coordinate does not change the colour.
    smooth = tf.image.resize(np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3)), STORED, "bicubic")
    batch["image"] = tf.cast(tf.clip_by_value(smooth, 0, 255), tf.uint8)
    size = (80, 96) if name in GEOMETRIC else STORED
    ways = augmentation(size, stored_share=0.5, **fields)
    first = as_arrays(next(iter(tf.data.Dataset.from_tensors(batch).map(ways.on_host))))
    second = as_arrays(tf.function(ways.on_device, jit_compile=True)(batch))
    difference = np.abs(first["image"].astype(int) - second["image"].astype(int))
    # In rare pixels, a difference of one level is larger after a threshold or a step.
    assert difference.max() <= 1 if name in GEOMETRIC else (difference > 1).mean() < 1e-3
    assert (difference > 0).mean() < 0.01
    np.testing.assert_array_equal(first["keypoints"][..., 2], second["keypoints"][..., 2])
    for key in ("keypoints", "region"):
        np.testing.assert_allclose(first[key], second[key], rtol=1e-4, atol=1e-4)


@WAYS
def test_a_cutout_hides_a_rectangle_and_what_is_in_it(way):
    batch = batch_of_dots(64)
    batch["image"] = tf.constant(np.random.default_rng(0).integers(0, 256, (64, *SIZE, 3)).astype(np.uint8))
    after = as_arrays(getattr(augmentation(cutout=0.5), way)(batch))
    before = as_arrays(batch)
    hidden = (before["keypoints"][..., 2] == 2) & (after["keypoints"][..., 2] == 1)
    cut = (before["image"] != after["image"]).any(-1)
    chosen = before["draws"][:, augmentation_lib.COLUMNS.index("cutout")] < 0.5
    assert not cut[~chosen].any() and 0.02 < cut[chosen].mean() < 0.25
    pixels = ((before["keypoints"][..., :2] + 0.5) * SIZE[::-1]).astype(int)
    for person, joint in zip(*np.nonzero(hidden), strict=True):
        x, y = pixels[person, joint]
        assert cut[person, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].any()
    assert hidden.any()
    np.testing.assert_array_equal(before["keypoints"][..., :2], after["keypoints"][..., :2])
    same = before["keypoints"][..., 2] != 2
    np.testing.assert_array_equal(before["keypoints"][same], after["keypoints"][same])


@pytest.mark.parametrize("scale", [(1.2, 0.8), (0.0, 1.0), (1.0,), (1, 2)])
def test_an_impossible_scale_is_refused(scale):
    with pytest.raises(InputError, match="augment.scale"):
        augmentation(scale=scale)


@pytest.mark.parametrize(
    ("field", "value"),
    [("scale", (1.2, 0.8)), ("rotation", 181.0), ("rotation", -1.0), ("shift", 1.5), ("jitter", 1.1), ("grey", -0.1)],
)
def test_a_recipe_with_an_impossible_augmentation_is_refused_in_one_line(field, value):
    config = config_lib.default()
    config.augment[field] = value
    with pytest.raises(InputError, match=f"config.augment.{field} is ") as error:
        config_lib.check(config)
    helpers.one_line(error)
