"""Augmentation: joints go where their pixels go, colours change as in Pillow, host and device agree."""

import colorsys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from kpose import config as config_lib
from kpose.augment import augmentation as augmentation_lib
from kpose.augment import geometric, numba_kernels, photometric
from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.metrics import keras_metrics
from kpose.models import decoding
from tests import helpers

COCO = skeletons.COCO
LEFT = [COCO.joints.index(name) for name in COCO.joints if name.startswith("left")]
RIGHT = [COCO.joints.index(COCO.joints[joint].replace("left", "right")) for joint in LEFT]
SIZE = (48, 64)


def augmentation(size=SIZE, stored_share=1.0, **fields):
    config = config_lib.default()
    config.augment.update(fields)
    config.model.input_size = size
    augmentation_lib.check_recipe(config)
    return augmentation_lib.build_augmentation(config, COCO, stored_share)


def _batch(count=6, seed=0):
    """Images with the dots of `helpers.PAINTED`; some joints unlabelled."""
    rng = np.random.default_rng(seed)
    keypoints = np.concatenate([rng.uniform(-0.35, 0.35, (count, 17, 2)), np.full((count, 17, 1), 2.0)], -1)
    keypoints[:, LEFT[0]] = 0
    keypoints[::2, RIGHT[3]] = 0
    keypoints[:, RIGHT[4], 2] = 1
    dots = (keypoints[:, list(helpers.PAINTED), :2] + 0.5) * SIZE[::-1]
    return {
        "image": tf.constant(np.stack([helpers.paint_dots(SIZE, person) for person in dots])),
        "keypoints": tf.constant(keypoints, tf.float32),
        "region": tf.constant(rng.uniform(1, 50, (count, 4)), tf.float32),
        "weight": tf.ones([count]),
        "draws": tf.constant(rng.uniform(0, 1, (count, augmentation_lib.NUM_DRAWS)), tf.float32),
    }


def _flip(batch, chosen=True, way="on_host"):
    """The batch with the chosen samples mirrored."""
    draws = np.asarray(batch["draws"]).copy()
    draws[:, augmentation_lib.COLUMNS.index("flip")] = np.where(chosen, 0.1, 0.9)
    flips = augmentation(flip=0.5)
    return getattr(flips, way)(batch | {"draws": tf.constant(draws)}) | {"draws": batch["draws"]}


WAYS = pytest.mark.parametrize("way", ["on_host", "on_device"])


def _numpy(batch):
    return {name: np.asarray(value) for name, value in batch.items()}


def _assert_same(first, second):
    assert set(first) == set(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@WAYS
def test_a_flip_mirrors_the_image_and_x_and_swaps_the_sides(way):
    before = _numpy(_batch())
    after = _numpy(_flip(_batch(), way=way))
    np.testing.assert_array_equal(after["image"], before["image"][:, :, ::-1])
    for joint in range(17):
        partner = dict(zip(LEFT + RIGHT, RIGHT + LEFT, strict=True)).get(joint, joint)
        np.testing.assert_array_equal(after["keypoints"][:, joint], before["keypoints"][:, partner] * [-1, 1, 1])
    for name in ("region", "weight", "draws"):
        np.testing.assert_array_equal(after[name], before[name])


def test_painted_dots_follow_their_joints():
    """The left wrist's dot is where the mirrored person's right wrist is labelled."""
    after = _numpy(_flip(_batch()))
    for person in range(6):
        for channel, joint in enumerate(helpers.PAINTED):
            name = COCO.joints[joint]
            mirrored = name.replace("left", "?").replace("right", "left").replace("?", "right")
            label = after["keypoints"][person, COCO.joints.index(mirrored), :2]
            dot = helpers.find_dot(after["image"][person, ..., channel])
            assert np.abs(dot - (label + 0.5) * SIZE[::-1]).max() < 0.3


def test_unlabelled_joints_stay_zeros_and_their_flags_change_sides():
    after = _numpy(_flip(_batch()))["keypoints"]
    assert not after[:, RIGHT[0]].any() and (after[:, LEFT[0], 2] == 2).all()
    assert not after[::2, LEFT[3]].any() and (after[::2, RIGHT[3], 2] == 2).all()
    assert (after[1::2, LEFT[3], 2] == 2).all()
    assert (after[:, LEFT[4], 2] == 1).all() and (after[:, RIGHT[4], 2] == 2).all()


def test_two_flips_undo_each_other():
    chosen = np.array([True, False, True, True, False, True])
    twice = _flip(_flip(_batch(), chosen), chosen)
    _assert_same(_numpy(twice), _numpy(_batch()))


@WAYS
def test_only_the_chosen_samples_are_flipped(way):
    chosen = np.array([True, False, True, False, False, True])
    before, after = _numpy(_batch()), _numpy(_flip(_batch(), chosen, way))
    for person in range(6):
        same = [np.array_equal(before[name][person], after[name][person]) for name in ("image", "keypoints")]
        assert same == [not chosen[person]] * 2


def test_dtypes_are_kept():
    before, after = _batch(), _flip(_batch())
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
    _assert_same(_numpy(getattr(augmentation(), way)(_batch())), _numpy(_batch()))
    assert augmentation(flip=0.1)


def test_host_and_graph_give_the_same_result():
    flips = augmentation(flip=0.5)
    batch = _batch(8)
    host = next(iter(tf.data.Dataset.from_tensors(batch).map(flips.on_host)))
    flipped = np.asarray(batch["draws"])[:, augmentation_lib.COLUMNS.index("flip")] < 0.5
    assert 0 < flipped.sum() < 8
    _assert_same(_numpy(host), _numpy(flips.on_device(batch)))
    _assert_same(_numpy(host), _numpy(tf.function(flips.on_device)(batch)))
    _assert_same(_numpy(host), _numpy(tf.function(flips.on_device, jit_compile=True)(batch)))


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


GEOMETRIC = {
    "turned": {"rotation": 60.0},
    "scaled": {"scale": (0.7, 1.4)},
    "shifted": {"shift": 0.3},
    "mirrored": {"flip": 0.5, "rotation": 1.0},
    "half": {"half_body": 1.0},
    "all": {"flip": 0.5, "rotation": 45.0, "scale": (0.7, 1.3), "shift": 0.1, "half_body": 0.3},
}
PHOTOMETRIC = dict.fromkeys(("grey", "jitter", "solarise", "posterise", "sharpness", "equalise"), 0.5)
# Labelled joints wherever they are needed, dots on three of them; crops show twice the box.
STORED = (160, 160)


def _stored_batch(count=12, seed=0):
    """Crops of 160 x 160 that show twice the region, each region with sides of its own."""
    rng = np.random.default_rng(seed)
    keypoints = np.concatenate([rng.uniform(-0.45, 0.45, (count, 17, 2)), np.full((count, 17, 1), 2.0)], -1)
    keypoints[:, 3] = 0
    dots = (keypoints[:, list(helpers.PAINTED), :2] / 2 + 0.5) * STORED[0]
    return {
        "image": tf.constant(np.stack([helpers.paint_dots(STORED, person, sigma=2.5) for person in dots])),
        "keypoints": tf.constant(keypoints, tf.float32),
        "region": tf.constant(
            np.concatenate([rng.uniform(0, 99, (count, 2)), rng.uniform(40, 160, (count, 2))], 1), tf.float32
        ),
        "weight": tf.ones([count]),
        "draws": tf.constant(rng.uniform(0, 1, (count, augmentation_lib.NUM_DRAWS)), tf.float32),
    }


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize(("size", "way"), [((96, 96), "on_host"), ((127, 97), "on_host"), ((128, 96), "on_device")])
def test_a_joint_s_pixel_is_where_its_label_says(name, size, way):
    warped = augmentation(size, stored_share=0.5, **GEOMETRIC[name])
    batch = _stored_batch()
    after = _numpy(getattr(warped, way)(batch))
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
    batch = _stored_batch()
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
    batch = _stored_batch(64)
    flags = np.random.default_rng(1).integers(0, 3, (64, 17))
    labels = np.concatenate([batch["keypoints"][..., :2] * (flags > 0)[..., None], flags[..., None]], -1)
    batch["keypoints"] = tf.constant(labels, tf.float32)
    after = _numpy(augmentation(stored_share=0.5, shift=0.5, rotation=90.0).on_host(batch))["keypoints"]
    assert (np.abs(after[..., :2]) <= 0.5).all()
    gone = (flags > 0) & (after[..., 2] == 0)
    assert 0.1 < gone.mean() < 0.6
    np.testing.assert_array_equal(after[..., 2][~gone], flags[~gone])
    assert (after[after[..., 2] == 0] == 0).all()


@WAYS
def test_a_turn_by_a_right_angle_is_numpy_s(way):
    batch = _stored_batch(1)
    batch["region"] = tf.constant([[10.0, 20.0, 80.0, 80.0]])
    batch["draws"] = tf.ones([1, augmentation_lib.NUM_DRAWS])
    noise = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    after = getattr(augmentation((64, 64), rotation=90.0), way)(batch | {"image": tf.constant(noise)})
    np.testing.assert_allclose(after["image"][0].numpy().astype(int), np.rot90(noise[0]).astype(int), atol=1)


def test_a_half_body_window_holds_one_half_and_little_else():
    batch = _stored_batch(200)
    keypoints = batch["keypoints"].numpy()
    keypoints[:, :11, 1] = np.random.default_rng(0).uniform(-0.45, -0.1, (200, 11))
    keypoints[:, 11:, 1] = np.random.default_rng(1).uniform(0.1, 0.45, (200, 6))
    keypoints[:, 3] = 0
    few = slice(0, 50)
    keypoints[few, 4:] = 0
    batch["keypoints"] = tf.constant(keypoints)
    after = _numpy(augmentation(stored_share=0.5, half_body=1.0).on_host(batch))
    labelled = after["keypoints"][..., 2] > 0
    whole_upper, whole_lower = labelled[50:, [0, 1, 2, *range(4, 11)]].all(1), labelled[50:, 11:].all(1)
    assert (whole_upper ^ whole_lower).mean() > 0.9 and 0.3 < whole_upper.mean() < 0.7
    # Of persons with few labelled joints all is seen.
    np.testing.assert_allclose(after["region"][few], batch["region"][few], rtol=1e-4, atol=1e-3)


def test_half_bodies_need_enough_labels_and_hold_all_of_the_half():
    region = np.float32([[10, 20, 100, 200]] * 4)
    keypoints = np.random.default_rng(0).uniform(-0.4, 0.4, (4, 17, 3)).astype(np.float32)
    upper = np.arange(17) < 11
    keypoints[..., 2] = 2
    # Eight joints, two of them of the lower body; seven, all of the upper.
    keypoints[2, 6:15] = 0
    keypoints[3, 7:] = 0
    for want_upper, halved in ((True, [True, True, True, False]), (False, [True, True, False, False])):
        choice = tf.fill([4], True), tf.fill([4], want_upper)
        seen = geometric.half_bodies(tf.constant(keypoints), region, upper, *choice).numpy()
        assert (seen != region).any(axis=1).tolist() == halved
        points = (keypoints[..., :2] + 0.5) * region[:, None, 2:] + region[:, None, :2]
        inside = ((points >= seen[:, None, :2]) & (points <= seen[:, None, :2] + seen[:, None, 2:])).all(-1)
        assert inside[(keypoints[..., 2] > 0) & (upper == want_upper) & np.array(halved)[:, None]].all()
    unchosen = geometric.half_bodies(tf.constant(keypoints), region, upper, tf.fill([4], False), tf.fill([4], True))
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
    """For any window: what its labels name in the stored crop is where the joint was, and distances stay."""
    region, angle = tf.constant([region], tf.float32), tf.constant([angle * np.pi / 180], tf.float32)
    joints = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 30, 3)).astype(np.float32)
    joints[..., 2] = 2
    centre, size = geometric.windows(region, angle, tf.constant([scale], tf.float32), tf.constant([shift], tf.float32))
    window = (centre, size, angle, tf.constant([mirrored]))
    moved = geometric.move_keypoints(tf.constant(joints), region, *window).numpy()[0]
    matrix, offset = (np.asarray(part)[0] for part in geometric.crop_transform(region, stored_share, *window))
    seen = moved[:, 2] > 0
    there = moved[seen, :2] @ matrix.T + offset
    np.testing.assert_allclose(there, joints[0, seen, :2] * stored_share, atol=1e-4)
    before = joints[0, seen, :2] * region.numpy()[0, 2:]
    after = moved[seen, :2] * size.numpy()[0]
    distances = [np.linalg.norm(points[:, None] - points[None], axis=-1) for points in (before, after)]
    np.testing.assert_allclose(*distances, rtol=1e-3, atol=0.02)
    # The window is as large as the box of the turned ellipse.
    turn = np.linspace(0, 2 * np.pi, 2000)
    ellipse = np.stack([np.cos(turn), np.sin(turn)], -1) * region.numpy()[0, 2:] / 2
    cos, sin = np.cos(-angle.numpy()[0]), np.sin(-angle.numpy()[0])
    extent = np.ptp(ellipse @ np.array([[cos, -sin], [sin, cos]]).T, axis=0)
    np.testing.assert_allclose(size[0], extent * scale, rtol=1e-3)


@WAYS
def test_what_lies_beyond_the_stored_crop_is_black(way):
    batch = _stored_batch(3) | {"image": tf.fill([3, *STORED, 3], tf.constant(255, tf.uint8))}
    doubled = augmentation((64, 64), scale=(2.0, 2.0))
    image = getattr(doubled, way)(batch)["image"].numpy().copy()
    assert (image[:, 17:47, 17:47] == 255).all()
    image[:, 15:49, 15:49] = 0
    assert not image.any()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_only_the_chosen_samples_change_colour(share):
    """On the host they alone are computed, on the device all are."""
    batch = _stored_batch(6)
    batch["image"] = tf.constant(np.random.default_rng(0).integers(0, 256, (6, 20, 24, 3), np.uint8))
    for name in PHOTOMETRIC:
        if name == "jitter":
            continue
        draws = np.full((6, augmentation_lib.NUM_DRAWS), 0.3, np.float32)
        draws[:, augmentation_lib.COLUMNS.index(name)] = np.where(np.arange(6) < 6 * share, 0.0, 0.9)
        ways = augmentation((20, 24), **{name: 0.5})
        batch = batch | {"draws": tf.constant(draws)}
        first, second = _numpy(ways.on_host(batch)), _numpy(ways.on_device(batch))
        np.testing.assert_allclose(first["image"].astype(int), second["image"].astype(int), atol=1)
        changed = (first["image"] != batch["image"].numpy()).any(axis=(1, 2, 3))
        assert changed.tolist() == (np.arange(6) < 6 * share).tolist(), name


def test_colours_and_cutout_leave_the_geometry_alone():
    batch = _stored_batch(32)
    moved = _numpy(augmentation(stored_share=0.5, **GEOMETRIC["all"]).on_host(batch))
    both = _numpy(augmentation(stored_share=0.5, **GEOMETRIC["all"], **PHOTOMETRIC, cutout=0.5).on_host(batch))
    for name in ("region", "weight", "draws"):
        np.testing.assert_array_equal(moved[name], both[name])
    np.testing.assert_array_equal(moved["keypoints"][..., :2], both["keypoints"][..., :2])
    flags, hidden = moved["keypoints"][..., 2], both["keypoints"][..., 2]
    assert ((hidden == flags) | ((flags == 2) & (hidden == 1))).all() and (hidden != flags).any()


@pytest.mark.parametrize("name", [*GEOMETRIC, "photometric"])
def test_host_and_device_agree_within_a_grey_level(name):
    fields = GEOMETRIC.get(name, PHOTOMETRIC) | {"cutout": 0.5}
    batch = _stored_batch(6)
    # Smooth, so that a rounding error of the place is none of the colour.
    smooth = tf.image.resize(np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3)), STORED, "bicubic")
    batch["image"] = tf.cast(tf.clip_by_value(smooth, 0, 255), tf.uint8)
    size = (80, 96) if name in GEOMETRIC else STORED
    ways = augmentation(size, stored_share=0.5, **fields)
    first = _numpy(next(iter(tf.data.Dataset.from_tensors(batch).map(ways.on_host))))
    second = _numpy(tf.function(ways.on_device, jit_compile=True)(batch))
    difference = np.abs(first["image"].astype(int) - second["image"].astype(int))
    # In rare pixels one level makes another, where it is the last of a step or a threshold.
    assert difference.max() <= 1 if name in GEOMETRIC else (difference > 1).mean() < 1e-3
    assert (difference > 0).mean() < 0.01
    np.testing.assert_array_equal(first["keypoints"][..., 2], second["keypoints"][..., 2])
    for key in ("keypoints", "region"):
        np.testing.assert_allclose(first[key], second[key], rtol=1e-4, atol=1e-4)


@WAYS
def test_a_cutout_hides_a_rectangle_and_what_is_in_it(way):
    batch = _batch(64)
    batch["image"] = tf.constant(np.random.default_rng(0).integers(0, 256, (64, *SIZE, 3)).astype(np.uint8))
    after = _numpy(getattr(augmentation(cutout=0.5), way)(batch))
    before = _numpy(batch)
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


def _photograph(seed=0, size=(40, 52)):
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)).resize(
        size[::-1], Image.Resampling.BICUBIC
    )
    return image, np.asarray(image)[None]


def _one(value):
    return tf.constant([value], tf.float32)


NEUTRAL = {"grey": 0.0, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}


def _on_host(array, **columns):
    """What the host's kernels make of one image; `columns` are those of a row of parameters."""
    row = np.zeros((1, numba_kernels.NUM_PARAMETERS), np.float32)
    row[0, [6, 10, 14]] = 1
    row[0, numba_kernels.THRESHOLD], row[0, numba_kernels.MASK], row[0, numba_kernels.SHARPNESS] = 256, 255, 1
    for name, value in columns.items():
        first = 6 if name == "COLOURS" else getattr(numba_kernels, name)
        place = slice(first, first + np.size(value))
        row[0, place] = np.ravel(value)
    return numba_kernels.augment(np.ascontiguousarray(array), row, array.shape[1:3], False, "COLOURS" in columns)


def _jitter(array, way="on_device", **parameters):
    parameters = {key: _one(value) for key, value in (NEUTRAL | parameters).items()}
    matrix, pivot = photometric.colour_matrix(**parameters)
    if way == "on_host":
        return _on_host(array, COLOURS=matrix, PIVOT=pivot)
    return photometric.recolour(array, matrix, pivot).numpy()


@WAYS
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "grey"])
def test_colours_change_as_in_pillow(name, factor, way):
    image, array = _photograph()
    enhancer = {"brightness": "Brightness", "contrast": "Contrast", "saturation": "Color", "grey": "Color"}[name]
    if name == "grey":
        factor = min(factor, 1.0)
    pillow = getattr(ImageEnhance, enhancer)(image).enhance(1 - factor if name == "grey" else factor)
    ours = _jitter(array, way, **{name: factor})
    np.testing.assert_allclose(ours[0].astype(int), np.asarray(pillow, int), atol=2)


@WAYS
def test_a_third_of_a_turn_of_the_hue_changes_the_channels_over(way):
    _, array = _photograph()
    np.testing.assert_array_equal(_jitter(array, way, hue=1 / 3), np.roll(array, 1, axis=-1))


@pytest.mark.parametrize("turn", [-0.3, -0.1, 0.05, 0.25])
def test_the_hue_turns_as_in_colorsys(turn):
    """HSV's hue is an angle in a hexagon, ours in a circle: they differ by up to 1.12 degrees at either end."""
    array = np.random.default_rng(0).integers(60, 190, (1, 20, 20, 3), np.uint8)
    turned = _jitter(array, hue=turn)
    seen = 0
    for before, after in zip(array.reshape(-1, 3), turned.reshape(-1, 3), strict=True):
        # Pale colours have no hue to speak of, cut ones another.
        if np.ptp(before) < 60 or after.min() == 0 or after.max() == 255:
            continue
        hues = [colorsys.rgb_to_hsv(*(colour / 255))[0] for colour in (before, after)]
        assert abs((hues[1] - hues[0] - turn + 0.5) % 1 - 0.5) < 2.3 / 360 + 0.006
        assert abs(before.mean() - after.mean()) < 1
        seen += 1
    assert seen > 200


def test_the_whole_jitter_is_its_parts_one_after_another():
    """But for the rounding, and the cutting, between them."""
    image, array = _photograph()
    array = (array // 2 + 50).astype(np.uint8)
    image = Image.fromarray(array[0])
    for enhancer, factor in (("Brightness", 0.9), ("Contrast", 1.2), ("Color", 0.7), ("Color", 0.6)):
        image = getattr(ImageEnhance, enhancer)(image).enhance(factor)
    ours = _jitter(array, brightness=0.9, contrast=1.2, saturation=0.7, grey=0.4)
    np.testing.assert_allclose(ours[0].astype(int), np.asarray(image, int), atol=3)


@pytest.mark.parametrize("threshold", [0, 64, 128, 255])
def test_solarise_is_pillow_s(threshold):
    image, array = _photograph()
    for ours in (photometric.solarise(array, _one(threshold)), _on_host(array, THRESHOLD=threshold)):
        np.testing.assert_array_equal(ours[0], np.asarray(ImageOps.solarize(image, threshold)))


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterise_is_pillow_s(bits):
    image, array = _photograph()
    mask = photometric.bit_mask(_one(bits))
    for ours in (photometric.posterise(array, mask), _on_host(array, MASK=mask)):
        np.testing.assert_array_equal(ours[0], np.asarray(ImageOps.posterize(image, bits)))


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("size", [(40, 52), (33, 35), (3, 3)])
def test_sharpness_is_pillow_s(factor, size):
    image, array = _photograph(size=size)
    expected = np.asarray(ImageEnhance.Sharpness(image).enhance(factor), int)
    for ours in (photometric.sharpness(array, _one(factor)).numpy(), _on_host(array, SHARPNESS=factor)):
        assert ours.dtype == np.uint8
        np.testing.assert_allclose(ours[0].astype(int), expected, atol=1)


@pytest.mark.parametrize("kind", ["photograph", "flat", "two levels"])
def test_equalise_is_pillow_s(kind):
    image, array = _photograph(size=(64, 96))
    if kind != "photograph":
        array = np.where(array > (255 if kind == "flat" else 120), 200, 30).astype(np.uint8)
        image = Image.fromarray(array[0])
    for ours in (photometric.equalise(tf.constant(array)), _on_host(array, EQUALISE=1)):
        np.testing.assert_array_equal(ours[0], np.asarray(ImageOps.equalize(image)))


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4),
    st.tuples(st.floats(-40, 60, width=32), st.floats(-40, 60, width=32)),
)
def test_the_host_s_warp_is_bilinear_interpolation_for_any_map(stored, size, matrix, corner):
    """Against plain NumPy, pixel by pixel; whatever the map, nothing beyond the image is read."""
    image = np.random.default_rng(0).integers(0, 256, (*stored, 3), np.uint8)
    row = np.zeros((1, numba_kernels.NUM_PARAMETERS), np.float32)
    row[0, :6] = matrix[0], matrix[1], corner[0], matrix[2], matrix[3], corner[1]
    row[0, numba_kernels.THRESHOLD], row[0, numba_kernels.MASK], row[0, numba_kernels.SHARPNESS] = 256, 255, 1
    ours = numba_kernels.augment(image[None], row, size, True, False)[0].astype(float)
    framed = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)))
    for r in range(size[0]):
        for c in range(size[1]):
            x = matrix[0] * c + (matrix[1] * r + corner[0]) + 1
            y = matrix[2] * c + (matrix[3] * r + corner[1]) + 1
            left, top = int(np.floor(x)), int(np.floor(y))
            if not (0 <= left <= stored[1] and 0 <= top <= stored[0]):
                # Some rounding away from the frame, a pixel at its very edge may be in or out: it is nearly black.
                assert ours[r, c].max() <= 1
                continue
            fx, fy = x - left, y - top
            window = framed[top : top + 2, left : left + 2]
            expected = (window[0] * (1 - fy) + window[1] * fy).T @ [1 - fx, fx]
            np.testing.assert_allclose(ours[r, c], expected, atol=0.6)


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
