"""Geometric augmentation: labels and pixels move together, lengths do not change."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.augment import augmentation as augmentation_lib
from kpose.augment import geometric
from kpose.metrics import keras_metrics
from kpose.models import decoding
from tests import helpers
from tests.augment.samples import COCO, GEOMETRIC, STORED, WAYS, as_arrays, augmentation, stored_batch


@pytest.mark.parametrize(
    ("size", "way", "name"),
    [
        # On the device, each is an XLA program.
        pytest.param(*case, name, marks=pytest.mark.slow if case[1] == "on_device" and name != "all" else ())
        for case in (((96, 96), "on_host"), ((127, 97), "on_host"), ((128, 96), "on_device"))
        for name in GEOMETRIC
    ],
)
def test_a_joint_s_pixel_is_where_its_label_says(name, size, way):
    warped = augmentation(size, stored_share=0.5, **GEOMETRIC[name])
    batch = stored_batch()
    after = as_arrays(getattr(warped, way)(batch))
    assert after["image"].shape == (12, *size, 3) and after["image"].dtype == np.uint8
    drawn = np.asarray(batch["draws"])
    mirrored = drawn[:, augmentation_lib.COLUMNS.index("flip")] < warped.config.flip
    found = 0
    for person in range(12):
        for channel, joint in enumerate(helpers.PAINTED):
            place = COCO.flip_order[joint] if mirrored[person] else joint
            x, y, flag = after["keypoints"][person, place]
            if flag == 0 or max(abs(x), abs(y)) > 0.42:
                continue
            found += 1
            dot = helpers.find_dot(after["image"][person, ..., channel])
            assert np.abs(dot - (np.array([x, y]) + 0.5) * size[::-1]).max() < 0.5
    assert found > 8


@pytest.mark.parametrize("name", GEOMETRIC)
def test_lengths_in_pixels_stay_true(name):
    batch = stored_batch()
    before = np.array(decoding.to_pixels(batch, batch["keypoints"][..., :2])[0])
    warped = augmentation(stored_share=0.5, **GEOMETRIC[name])
    after_batch = warped.on_host(batch)
    after = np.asarray(decoding.to_pixels(after_batch, after_batch["keypoints"][..., :2])[0])
    drawn = np.asarray(batch["draws"])
    mirrored = drawn[:, augmentation_lib.COLUMNS.index("flip")] < warped.config.flip
    before[mirrored] = before[mirrored][:, list(COCO.flip_order)]
    both = after[..., 2] > 0
    assert both.any(axis=1).all()
    for person in range(12):
        joints = np.flatnonzero(both[person])
        for one, other in zip(joints, np.roll(joints, 1), strict=True):
            lengths = [np.linalg.norm(p[person, one, :2] - p[person, other, :2]) for p in (before, after)]
            assert lengths[0] == pytest.approx(lengths[1], rel=1e-3, abs=1e-2)
    metric = keras_metrics.PCP(COCO, "strict")
    metric.update_state(*decoding.to_pixels(after_batch, after_batch["keypoints"][..., :2]))
    assert float(metric.result()) == 1.0


def test_a_joint_that_leaves_what_is_seen_loses_its_label_and_others_keep_their_flags():
    batch = stored_batch(64)
    flags = np.random.default_rng(1).integers(-1, 3, (64, 17))
    labels = np.concatenate([batch["keypoints"][..., :2] * (flags > 0)[..., None], flags[..., None]], -1)
    batch["keypoints"] = tf.constant(labels, tf.float32)
    after = as_arrays(augmentation(stored_share=0.8, shift=0.5, rotation=90.0).on_host(batch))["keypoints"]
    assert (np.abs(after[..., :2]) <= 0.625).all()
    gone = (flags > 0) & (after[..., 2] == 0)
    assert 0.05 < gone.mean() < 0.4
    np.testing.assert_array_equal(after[..., 2][~gone], flags[~gone])
    assert (after[after[..., 2] <= 0][..., :2] == 0).all()


@WAYS
def test_a_turn_by_a_right_angle_is_numpy_s(way):
    batch = stored_batch(1)
    batch["region"] = tf.constant([[10.0, 20.0, 80.0, 80.0]])
    batch["draws"] = tf.ones([1, augmentation_lib.NUM_DRAWS])
    noise = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    after = getattr(augmentation((64, 64), rotation=90.0), way)(batch | {"image": tf.constant(noise)})
    np.testing.assert_allclose(after["image"][0].numpy().astype(int), np.rot90(noise[0]).astype(int), atol=1)


def test_a_half_body_window_holds_one_half_and_little_else():
    batch = stored_batch(200)
    keypoints = batch["keypoints"].numpy()
    keypoints[:, :11, 1] = np.random.default_rng(0).uniform(-0.45, -0.1, (200, 11))
    keypoints[:, 11:, 1] = np.random.default_rng(1).uniform(0.1, 0.45, (200, 6))
    keypoints[:, 3] = 0
    few = slice(0, 50)
    keypoints[few, 4:] = 0
    batch["keypoints"] = tf.constant(keypoints)
    after = as_arrays(augmentation(stored_share=0.95, half_body=1.0).on_host(batch))
    labelled = after["keypoints"][..., 2] > 0
    whole_upper, whole_lower = labelled[50:, [0, 1, 2, *range(4, 11)]].all(1), labelled[50:, 11:].all(1)
    assert (whole_upper ^ whole_lower).mean() > 0.9 and 0.3 < whole_upper.mean() < 0.7
    # Persons with few labelled joints keep their region.
    np.testing.assert_allclose(after["region"][few], batch["region"][few], rtol=1e-4, atol=1e-3)


def test_half_bodies_need_enough_labels_and_hold_all_of_the_half():
    region = np.float32([[10, 20, 100, 200]] * 4)
    keypoints = np.random.default_rng(0).uniform(-0.4, 0.4, (4, 17, 3)).astype(np.float32)
    upper = np.arange(17) < 11
    keypoints[..., 2] = 2
    # Person 2: eight joints, two of them in the lower body. Person 3: seven joints, all in the upper.
    keypoints[2, 6:15] = 0
    keypoints[3, 7:] = 0
    for want_upper, halved in ((True, [True, True, True, False]), (False, [True, True, False, False])):
        choice = tf.fill([4], True), tf.fill([4], want_upper)
        seen = geometric.half_bodies(tf.constant(keypoints), region, 0.5, upper, *choice).numpy()
        assert (seen != region).any(axis=1).tolist() == halved
        points = (keypoints[..., :2] + 0.5) * region[:, None, 2:] + region[:, None, :2]
        inside = ((points >= seen[:, None, :2]) & (points <= seen[:, None, :2] + seen[:, None, 2:])).all(-1)
        assert inside[(keypoints[..., 2] > 0) & (upper == want_upper) & np.array(halved)[:, None]].all()
    unchosen = tf.fill([4], False), tf.fill([4], True)
    unchosen = geometric.half_bodies(tf.constant(keypoints), region, 0.5, upper, *unchosen)
    np.testing.assert_array_equal(unchosen, region)


SIDES = st.floats(20, 400)
SHARES = st.floats(-0.5, 0.5)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.floats(-100, 500), st.floats(-100, 500), SIDES, SIDES),
    st.floats(-180, 180),
    st.floats(0.5, 2),
    st.tuples(SHARES, SHARES),
    st.booleans(),
    st.floats(0.4, 1),
)
def test_labels_and_pixels_move_alike_and_rigidly(region, angle, scale, shift, mirrored, stored_share):
    """For any window, labels map back to the joints in the stored crop, and distances are equal."""
    region, angle = tf.constant([region], tf.float32), tf.constant([angle * np.pi / 180], tf.float32)
    joints = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 30, 3)).astype(np.float32)
    joints[..., 2] = 2
    centre, size = geometric.windows(region, angle, tf.constant([scale], tf.float32), tf.constant([shift], tf.float32))
    window = (centre, size, angle, tf.constant([mirrored]))
    moved = geometric.move_keypoints(tf.constant(joints), region, stored_share, *window).numpy()[0]
    matrix, offset = (np.asarray(part)[0] for part in geometric.crop_transform(region, stored_share, *window))
    seen = moved[:, 2] > 0
    there = moved[seen, :2] @ matrix.T + offset
    np.testing.assert_allclose(there, joints[0, seen, :2] * stored_share, atol=1e-4)
    before = joints[0, seen, :2] * region.numpy()[0, 2:]
    after = moved[seen, :2] * size.numpy()[0]
    distances = [np.linalg.norm(points[:, None] - points[None], axis=-1) for points in (before, after)]
    np.testing.assert_allclose(*distances, rtol=1e-3, atol=0.02)
    # The window has the size of the box of the rotated ellipse.
    turn = np.linspace(0, 2 * np.pi, 2000)
    ellipse = np.stack([np.cos(turn), np.sin(turn)], -1) * region.numpy()[0, 2:] / 2
    cos, sin = np.cos(-angle.numpy()[0]), np.sin(-angle.numpy()[0])
    extent = np.ptp(ellipse @ np.array([[cos, -sin], [sin, cos]]).T, axis=0)
    np.testing.assert_allclose(size[0], extent * scale, rtol=1e-3)


@functools.cache
def _wild(stored_share):
    """An augmentation with every geometric step, for images of 8 x 8 pixels; compiled once."""
    fields = {"flip": 0.5, "rotation": 180.0, "scale": (0.6, 1.8), "shift": 0.4}
    return augmentation((8, 8), stored_share=stored_share, **fields)


@pytest.mark.parametrize("stored_share", [1.0, pytest.param(0.8, marks=pytest.mark.slow), 0.5])
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_label_stays_where_the_stored_crop_shows_the_joint_in_or_near_the_window(stored_share, seed):
    """Each joint in NumPy, in original pixels, on host and device."""
    rng, count = np.random.default_rng(seed), 16
    batch = {
        "image": tf.zeros([count, 8, 8, 3], tf.uint8),
        "region": np.column_stack([rng.uniform(-50, 50, (count, 2)), rng.uniform(20, 200, (count, 2))]),
        "keypoints": np.concatenate([rng.uniform(-1.2, 1.2, (count, 17, 2)), rng.integers(-1, 3, (count, 17, 1))], -1),
        "draws": rng.uniform(0, 1, (count, augmentation_lib.NUM_DRAWS)),
    }
    batch = {name: tf.cast(value, tf.uint8 if name == "image" else tf.float32) for name, value in batch.items()}
    ways = [as_arrays(getattr(_wild(stored_share), way)(batch))["keypoints"] for way in ("on_host", "on_device")]
    drawn = dict(zip(augmentation_lib.COLUMNS, batch["draws"].numpy().T.astype(float), strict=True))
    for person, (_, _, width, height) in enumerate(batch["region"].numpy().astype(float)):
        turn = np.radians(180) * (2 * drawn["angle"][person] - 1)
        cos, sin = np.cos(turn), np.sin(turn)
        scale = 0.6 + 1.2 * drawn["scale"][person]
        sides = np.hypot(width * cos, height * sin) * scale, np.hypot(width * sin, height * cos) * scale
        shift = [0.4 * (2 * drawn[name][person] - 1) for name in ("shift_x", "shift_y")]
        mirrored = drawn["flip"][person] < 0.5
        for joint, (x, y, flag) in enumerate(batch["keypoints"].numpy()[person].astype(float)):
            from_middle = x * width, y * height
            dx, dy = from_middle[0] - shift[0] * width, from_middle[1] - shift[1] * height
            u, v = (cos * dx + sin * dy) / sides[0], (cos * dy - sin * dx) / sides[1]
            # Distances from the edges of the stored crop and of the window with its context.
            reach = np.array([abs(x), abs(y), abs(u), abs(v)]) * stored_share
            if np.abs(reach - 0.5).min() < 1e-3:
                continue
            place = COCO.flip_order[joint] if mirrored else joint
            expected = (-u if mirrored else u, v, flag) if flag > 0 and reach.max() < 0.5 else (0, 0, min(flag, 0))
            for after in ways:
                np.testing.assert_allclose(after[person, place], expected, atol=2e-4)


def test_the_smallest_shift_keeps_the_labels_that_the_stored_crop_shows():
    batch = stored_batch(64)
    spread = batch["keypoints"].numpy() * [2.6, 2.6, 1.0]
    batch["keypoints"] = tf.constant(spread, tf.float32)
    after = as_arrays(augmentation(stored_share=0.5, shift=1e-6).on_host(batch))["keypoints"]
    in_crop = (spread[..., 2] > 0) & (np.abs(spread[..., :2]) <= 1).all(-1)
    outside_the_input = in_crop & (np.abs(spread[..., :2]) > 0.5).any(-1)
    assert outside_the_input.mean() > 0.2 and (~in_crop).mean() > 0.1
    np.testing.assert_array_equal(after[..., 2] > 0, in_crop)
    np.testing.assert_allclose(after[in_crop], spread[in_crop], atol=1e-4)


def test_half_bodies_count_only_joints_that_the_stored_crop_shows():
    keypoints = np.zeros((1, 17, 3), np.float32)
    keypoints[0, :, 1], keypoints[0, :, 2] = np.linspace(-0.4, 0.4, 17), 2
    keypoints[0, :10, 0] = 0.8
    region, upper = np.float32([[10, 20, 100, 200]]), np.arange(17) < 11
    choice = tf.constant([True]), tf.constant([False])
    for stored_share, halved in ((0.6, True), (0.9, False)):
        seen = geometric.half_bodies(tf.constant(keypoints), region, stored_share, upper, *choice).numpy()
        assert (seen != region).any() == halved


@WAYS
def test_what_lies_beyond_the_stored_crop_is_black(way):
    batch = stored_batch(3) | {"image": tf.fill([3, *STORED, 3], tf.constant(255, tf.uint8))}
    doubled = augmentation((64, 64), scale=(2.0, 2.0))
    image = getattr(doubled, way)(batch)["image"].numpy().copy()
    assert (image[:, 17:47, 17:47] == 255).all()
    image[:, 15:49, 15:49] = 0
    assert not image.any()
