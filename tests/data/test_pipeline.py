"""Batches: images agree with labels; the order depends only on seed and position."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose import config as config_lib
from kpose.augment import augmentation
from kpose.core import geometry, skeletons
from kpose.core.errors import InputError
from kpose.data import crop_cache, pipeline, records, resampling
from kpose.data.training_set import find_training_set, stored_share, summarise_labels
from kpose.export import requests
from tests import helpers

BOXES = [(20 + 2 * index, 15 + index, 30 + 3 * index, 60 - index) for index in range(11)]
N = len(BOXES)
UNLABELLED = (2, 8)


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """(record files, [N, 17, 3] keypoints by image); two joints are unlabelled."""
    pattern, keypoints = helpers.painted_records(
        tmp_path_factory.mktemp("exact"), BOXES, unlabelled=UNLABELLED, shards=3
    )
    return records.find(pattern), keypoints


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    """The same with crops of the boxes times 1.6, some of which exceed their images."""
    pattern, keypoints = helpers.painted_records(
        tmp_path_factory.mktemp("padded"), BOXES, padding=1.6, unlabelled=UNLABELLED, shards=3, crop_size=(96, 72)
    )
    return records.find(pattern), keypoints


def _train(files, take, padding=1.0, cache=False, **changes):
    patterns = files if isinstance(files, str) else files.pattern
    training_set = find_training_set(patterns, skeletons.COCO, padding)
    settings = {"input_size": (64, 64), "batch_size": 4, "seed": 1}
    if cache:
        settings["cache"] = crop_cache.CropCache(training_set)
    return list(pipeline.shuffled_batches(training_set, **settings | changes).take(take).as_numpy_iterator())


def _evaluate(files, **changes):
    settings = {"input_size": (64, 64), "padding": 1.0, "batch_size": 4, "num_records": N, "identity": True}
    return pipeline.ordered_batches(files, **settings | changes)


def _persons(batches):
    """The samples of weight 1, one dict each."""
    for batch in batches:
        for index in np.flatnonzero(batch["weight"]):
            yield {name: value[index] for name, value in batch.items()}


def _who(batches):
    """Index of the person of every sample, found by its region: BOXES differ in x."""
    regions = np.concatenate([batch["region"] for batch in batches])
    return np.abs(regions[:, None, 0] - np.array(BOXES)[None, :, 0]).argmin(1).tolist()


def _same(first, second):
    return len(first) == len(second) and all(
        set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("padding", [1.0, 1.25, 1.6])
@pytest.mark.parametrize("input_size", [(96, 72), (64, 64), (48, 100)])
def test_painted_dots_are_where_the_labels_say(padded, padding, input_size):
    files, keypoints = padded
    seen = 0
    for person in _persons(_evaluate(files, padding=padding, input_size=input_size).as_numpy_iterator()):
        x, y, w, h = BOXES[person["image_id"] - 1]
        assert person["image"].shape == (*input_size, 3) and person["image"].dtype == np.uint8
        centre = np.array([x + w / 2, y + h / 2])
        sides = np.array([w * padding, h * padding])
        np.testing.assert_allclose(person["region"], [*(centre - sides / 2), *sides], rtol=1e-5, atol=1e-4)
        for channel, joint in enumerate(helpers.PAINTED):
            expected = (keypoints[person["image_id"] - 1, joint, :2] - centre) / sides
            np.testing.assert_allclose(person["keypoints"][joint, :2], expected, atol=1e-5)
            dot = helpers.find_dot(person["image"][..., channel])
            assert np.abs(dot - (expected + 0.5) * input_size[::-1]).max() < 1
            seen += 1
    assert seen == 3 * N


def test_a_crop_of_the_networks_size_is_not_touched(exact):
    files, _ = exact
    stored = [records.parse(one, files.skeleton) for one in tf.data.TFRecordDataset(files.paths)]
    images = np.concatenate([batch["image"] for batch in _evaluate(files, batch_size=1).as_numpy_iterator()])
    for image, record in zip(images, stored, strict=True):
        np.testing.assert_array_equal(image, records.decode_jpeg(record["jpeg"]))


@pytest.mark.parametrize("padding", [1.0, 1.4])
def test_unlabelled_joints_are_zeros_and_the_others_keep_their_flag(padded, padding):
    files, _ = padded
    for batch in _train(files, 3, padding=padding):
        # No record labels these two.
        assert (batch["keypoints"][:, UNLABELLED] == (0, 0, -1)).all()
        labelled = np.delete(batch["keypoints"], UNLABELLED, axis=1)
        assert (labelled[..., 2] == 2).all() and (labelled[..., :2] != 0).all()


def test_training_batches_have_the_documented_shapes(exact):
    (batch,) = _train(exact[0], 1, input_size=(32, 48))
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        "image": ((4, 32, 48, 3), "uint8"),
        "keypoints": ((4, 17, 3), "float32"),
        "region": ((4, 4), "float32"),
        "weight": ((4,), "float32"),
        "draws": ((4, augmentation.NUM_DRAWS), "float32"),
    }
    assert (batch["weight"] == 1).all() and (0 <= batch["draws"]).all() and (batch["draws"] < 1).all()


def test_the_same_seed_gives_the_same_batches_and_another_seed_others(exact):
    first = _train(exact[0], 8)
    assert _same(first, _train(exact[0], 8))
    other = _train(exact[0], 8, seed=2)
    assert _who(other) != _who(first)
    assert not np.array_equal(other[0]["draws"], first[0]["draws"])


@pytest.mark.parametrize("start_step", [*(pytest.param(step, marks=pytest.mark.slow) for step in (1, 3, 7)), 2, 11])
def test_a_resumed_stream_continues_where_it_stopped(exact, start_step):
    """An epoch of 11 records ends inside the third batch of 4; the fifth epoch starts at step 11."""
    whole = _train(exact[0], 14)
    assert _same(whole[start_step:], _train(exact[0], 14 - start_step, start_step=start_step))


@pytest.mark.parametrize("buffer", [3, 10_000])
def test_every_epoch_is_all_records_in_another_order(exact, buffer):
    order = _who(_train(exact[0], N, shuffle_buffer=buffer))
    epochs = [order[start : start + N] for start in range(0, 4 * N, N)]
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_draws_differ_between_samples_and_epochs(exact):
    draws = np.concatenate([batch["draws"] for batch in _train(exact[0], 20)])
    assert draws.shape == (80, augmentation.NUM_DRAWS)
    # Among 2,000 numbers of 23 bits, a few pairs may be equal.
    assert len(np.unique(draws)) > draws.size - 5 and len(np.unique(draws, axis=0)) == 80


def test_the_callers_seeds_do_not_matter(exact):
    streams = []
    for seed in (5, 6):
        keras.utils.set_random_seed(seed)
        tf.random.set_seed(seed + 10)
        streams.append(_train(exact[0], 6))
    assert _same(*streams)


def test_the_callers_seed_is_left_alone(exact):
    draws = []
    for build in (False, True):
        tf.random.set_seed(3)
        if build:
            _train(exact[0], 1)
        draws.append(tf.random.uniform([4]).numpy())
    np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize(("batch_size", "batches"), [(4, 3), (11, 1), (16, 1), (1, 11)])
def test_evaluation_reads_every_record_once_in_order(exact, batch_size, batches):
    files, keypoints = exact
    dataset = _evaluate(files, batch_size=batch_size)
    assert int(dataset.cardinality()) == batches
    read = list(dataset.as_numpy_iterator())
    assert len(read) == batches and all(len(value) == batch_size for batch in read for value in batch.values())
    weight = np.concatenate([batch["weight"] for batch in read])
    np.testing.assert_array_equal(weight, [1] * N + [0] * (batches * batch_size - N))
    stored = [records.parse(one, files.skeleton, image=False) for one in tf.data.TFRecordDataset(files.paths)]
    for person, record in zip(_persons(read), stored, strict=True):
        assert person["image_id"] == record["image_id"] and person["annotation_id"] == record["annotation_id"]
        np.testing.assert_allclose(person["truth"], keypoints[person["image_id"] - 1], rtol=1e-6)
        np.testing.assert_allclose(person["box"], BOXES[person["image_id"] - 1])
        assert person["area"] == record["area"]


def test_the_fill_of_the_last_batch_is_zeros(exact):
    last = list(_evaluate(exact[0]).as_numpy_iterator())[-1]
    assert last["weight"].tolist() == [1, 1, 1, 0]
    assert all(not value[3].any() for value in last.values())


def test_identity_is_left_out_unless_wanted(exact):
    (batch,) = _evaluate(exact[0], identity=False).take(1).as_numpy_iterator()
    assert set(batch) == {"image", "keypoints", "region", "weight"}


def test_a_wider_view_than_the_crops_show_is_refused(padded):
    files, _ = padded
    for build in (lambda: _train(files, 1, padding=1.7), lambda: _evaluate(files, padding=1.7)):
        with pytest.raises(InputError, match=r"box times 1\.6, .*data\.padding is 1\.7.*--padding=1\.7") as error:
            build()
        assert files.pattern in helpers.one_line(error)


@pytest.mark.parametrize("padding", [1.0, 1.5])
def test_the_summary_of_labels_is_that_of_numpy(padded, padding):
    files, keypoints = padded
    box = np.array(BOXES, float)
    centre, sides = box[:, None, :2] + box[:, None, 2:] / 2, box[:, None, 2:] * padding
    normalised = (keypoints[..., :2] - centre) / sides
    normalised[:, UNLABELLED] = np.nan
    labelled = np.delete(normalised, UNLABELLED, axis=1)
    summary = summarise_labels(files, padding)
    assert summary.num_records == N
    np.testing.assert_allclose(np.delete(summary.mean_pose, UNLABELLED, axis=0), labelled.mean(0), atol=1e-6)
    assert not summary.mean_pose[list(UNLABELLED)].any()
    np.testing.assert_allclose(summary.spread, np.sqrt(np.mean((labelled - labelled.mean(0)) ** 2)), rtol=1e-4)


def test_the_summary_averages_a_joint_over_those_who_have_it(tmp_path):
    """The nose is labelled for one of two persons, so its mean is that of this person."""
    box = np.array([10.0, 10, 40, 40])
    joints = np.full((2, 17, 3), (30.0, 30, 2))
    joints[0, 0] = (40, 20, 1)
    joints[1, 0] = 0
    path, jpeg = str(tmp_path / "train-00000-of-00001"), tf.io.encode_jpeg(np.zeros((8, 8, 3), np.uint8)).numpy()
    with tf.io.TFRecordWriter(path) as writer:
        for person in joints:
            made = records.Person(jpeg, 1, 1, "a", (90, 120), box, 1.0, box, 1.0, person)
            writer.write(records.encode(made, helpers.skeletons.COCO))
    files = records.RecordFiles(path, (path,), helpers.skeletons.COCO, 1.0, (8, 8))
    summary = summarise_labels(files, 1.0)
    np.testing.assert_allclose(summary.mean_pose[0], [0.25, -0.25], atol=1e-6)
    np.testing.assert_allclose(summary.mean_pose[1:], 0, atol=1e-6)
    np.testing.assert_allclose(summary.spread, 0, atol=1e-6)


def test_a_damaged_file_is_found_by_the_first_pass(exact, tmp_path):
    """The pass over the labels comes before any training or evaluation."""
    with open(exact[0].paths[0], "rb") as file:
        data = file.read()
    path = tmp_path / "train-00000-of-00001"
    path.write_bytes(data[:-20])
    with pytest.raises(InputError, match="train-.*damaged or cut short") as error:
        summarise_labels(records.find(str(tmp_path / "train-*")), 1.0)
    helpers.one_line(error)


def test_resample_shows_the_central_window():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 40, 60, 3), np.uint8)
    window = resampling.resample(tf.constant(image), (20, 30), 0.5).numpy()
    np.testing.assert_array_equal(window, image[:, 10:30, 15:45])
    halved = resampling.resample(tf.constant(np.full((1, 40, 60, 3), 77, np.uint8)), (20, 30)).numpy()
    assert halved.shape == (1, 20, 30, 3) and (halved == 77).all()


@pytest.mark.parametrize("input_size", [(96, 72), (36, 28), (48, 64)])
def test_stored_crops_warped_to_the_input_show_the_joints_where_the_labels_say(padded, input_size):
    """From record to batch, with and without a reduction of the stored crops."""
    files, keypoints = padded
    config = config_lib.default().augment
    config.update({"flip": 0.5, "rotation": 30.0, "scale": (0.9, 1.4), "shift": 0.1})
    warped = augmentation.Augmentation(files.skeleton, config, input_size, stored_share(files, 1.0))
    batches = _train(files, 5, input_size=input_size, stored_crops=True)
    assert batches[0]["image"].shape[1:3] == ((58, 45) if input_size == (36, 28) else files.crop_size)
    seen = set()
    for batch, who in ((batch, _who([batch])) for batch in batches):
        after = {name: np.asarray(value) for name, value in warped.on_host(batch).items()}
        assert after["image"].shape == (4, *input_size, 3)
        mirrored = batch["draws"][:, augmentation.COLUMNS.index("flip")] < 0.5
        for sample in range(4):
            for channel, joint in enumerate(helpers.PAINTED):
                place = files.skeleton.flip_order[joint] if mirrored[sample] else joint
                x, y, flag = after["keypoints"][sample, place]
                if flag == 0 or max(abs(x), abs(y)) > 0.35:
                    continue
                # Dots are large in such small images, and the stored crop's edge cuts some.
                dot = helpers.find_dot(after["image"][sample, ..., channel], threshold=80)
                assert np.abs(dot - (np.array([x, y]) + 0.5) * input_size[::-1]).max() < 1
                seen.add((who[sample], channel))
    assert len(seen) > 15


def test_photographs_of_either_kind_are_cropped_in_a_graph():
    pixels = helpers.paint_dots((60, 80), [(30.5, 20.5)] * 3, sigma=4)
    crop = tf.function(lambda data, region: resampling.crop_image(requests.decode(data), region, (48, 32)))
    region = np.float32([10, 5, 40, 40])
    expected = geometry.to_crop(geometry.normalise(np.array([[30.5, 20.5]]), region), (48, 32))[0]
    for data in (helpers.png_bytes(pixels), tf.io.encode_jpeg(pixels, quality=95)):
        cut = crop(data, region).numpy()
        assert cut.shape == (48, 32, 3) and cut.dtype == np.uint8
        assert np.abs(helpers.find_dot(cut[..., 0]) - expected).max() < 0.5


def test_the_order_of_files_changes_with_the_epoch(exact):
    """With a shuffle buffer of one record, the order of the files is the only difference."""
    order = _who(_train(exact[0], N, shuffle_buffer=1))
    assert len({tuple(order[start : start + N]) for start in range(0, 4 * N, N)}) > 1


def test_training_and_evaluation_see_a_person_alike(padded):
    """Both resample the stored crops to the narrower view in the same way."""
    files, _ = padded
    batches = _evaluate(files, padding=1.2, labelled=summarise_labels(files, 1.2).labelled > 0)
    evaluated = {p["region"].tobytes(): p for p in _persons(batches.as_numpy_iterator())}
    seen = set()
    for person in _persons(_train(files, 5, padding=1.2)):
        twin = evaluated[person["region"].tobytes()]
        np.testing.assert_array_equal(person["image"], twin["image"])
        np.testing.assert_array_equal(person["keypoints"], twin["keypoints"])
        seen.add(int(twin["image_id"]))
    assert len(seen) == N
