"""Mixtures, workers and the cache: the same samples in all cases."""

import collections
import functools

import numpy as np
import pytest
import tensorflow as tf

from kpose import config as config_lib
from kpose.augment import augmentation
from kpose.core import geometry, skeletons
from kpose.core.errors import InputError
from kpose.data import crop_cache, pipeline, records
from kpose.data.training_set import find_training_set, with_aspect
from kpose.train import losses
from tests import helpers
from tfrecords_tools.write_coco import writer

COCO, LSP = skeletons.COCO, skeletons.LSP


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Globs of 9 and 6 persons of COCO's skeleton, with different crops, and of 5 of LSP's."""
    folder = tmp_path_factory.mktemp("three")
    sides = ((folder / "first", 9, 20, 1.0, (64, 64)), (folder / "second", 6, 22, 1.5, (96, 96)))
    patterns = []
    for place, count, left, padding, crop_size in sides:
        place.mkdir()
        boxes = [(left + 4 * index, 15, 40, 50) for index in range(count)]
        patterns.append(helpers.painted_records(place, boxes, padding=padding, crop_size=crop_size, shards=2)[0])
    path = folder / "lsp-00000-of-00001"
    with tf.io.TFRecordWriter(str(path)) as file:
        for index in range(5):
            joints = np.column_stack([np.full((14, 2), 40 + index), np.full(14, 2)]).astype(float)
            joints[:, 0] += np.arange(14)
            box = np.array([11.0 + 4 * index, 15, 40, 50])
            jpeg = tf.io.encode_jpeg(np.full((64, 64, 3), 100 + index, np.uint8)).numpy()
            person = records.Person(jpeg, index, index, "a", (90, 120), box, 1.0, box, 1.0, joints)
            file.write(records.encode(person, LSP))
    return [*patterns, str(folder / "lsp-*")]


def _batches(patterns, take, weights=(), cache=False, padding=1.0, **changes):
    return _cached_batches(tuple(patterns), take, weights, cache, padding, **changes)


@functools.lru_cache(maxsize=16)
def _cached_batches(patterns, take, weights, cache, padding, **changes):
    """Batches, which several tests read and none changes: the pipeline's graph takes seconds."""
    training_set = find_training_set(",".join(patterns), COCO, padding, weights)
    settings = {"input_size": (64, 64), "batch_size": 8, "seed": 1, "normals": True}
    if cache:
        settings["cache"] = crop_cache.CropCache(training_set)
    return list(pipeline.shuffled_batches(training_set, **settings | changes).take(take).as_numpy_iterator())


def _assert_same(first, second):
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        assert set(a) == set(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def _source(region):
    """Index of the data set of a region: x of the boxes is 20 + 4i, 22 + 4i or 11 + 4i."""
    return {0: 0, 2: 1, 3: 2}[round(float(region[0])) % 4]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((), (9, 6, 5)), pytest.param((1, 1, 2), (5, 5, 10), marks=pytest.mark.slow), ((0.1, 0.1, 0.8), (2, 2, 16))],
)
def test_every_batch_holds_the_data_sets_by_their_weights(three, weights, expected):
    counts = []
    for batch in _batches(three, 20, weights, batch_size=20):
        found = collections.Counter(_source(region) for region in batch["region"])
        counts.append([found[index] for index in range(3)])
    counts = np.array(counts)
    assert np.abs(counts - expected).max() <= 2
    assert np.abs(counts.mean(0) - expected).max() <= 0.2


def test_each_data_set_of_a_mixture_goes_through_its_own_epochs(three):
    regions = np.concatenate([batch["region"] for batch in _batches(three, 30)])
    for index, count in enumerate((9, 6, 5)):
        mine = [float(region[0]) for region in regions if _source(region) == index]
        assert len(mine) > 2 * count
        for start in range(0, len(mine) - count + 1, count):
            assert len(set(mine[start : start + count])) == count


@pytest.mark.parametrize(
    ("start_step", "cache"), [pytest.param(1, False, marks=pytest.mark.slow), (13, False), (5, True)]
)
def test_a_mixture_resumes_where_it_stopped(three, start_step, cache):
    whole = _batches(three, 16, (3, 2, 1), cache)
    _assert_same(whole[start_step:], _batches(three, 16 - start_step, (3, 2, 1), cache, start_step=start_step))


def test_joints_of_other_skeletons_go_by_their_names(three):
    seen = 0
    for batch in _batches(three, 8):
        for region, keypoints in zip(batch["region"], batch["keypoints"], strict=True):
            if _source(region) != 2:
                continue
            seen += 1
            place = (float(region[0]) - 11) / 4
            for joint, (x, y, flag) in zip(COCO.joints, keypoints, strict=True):
                if joint not in LSP.joints:
                    assert (x, y, flag) == (0, 0, -1)
                    continue
                expected = (40 + place + LSP.joints.index(joint) - region[0]) / 40 - 0.5
                assert flag == 2 and x == pytest.approx(expected, abs=1e-5)
    assert seen >= 5


def test_crops_of_different_kinds_show_the_same_region(three):
    """The second set's crops have padding 1.5: in the mixture they give the same images as alone."""
    alone = {b["region"][i].tobytes(): b["image"][i] for b in _batches(three[1:2], 3) for i in range(8)}
    compared = 0
    for batch in _batches(three, 8):
        for region, image in zip(batch["region"], batch["image"], strict=True):
            if _source(region) == 1:
                assert np.abs(image.astype(int) - alone[region.tobytes()]).max() <= 2
                compared += 1
    assert compared > 10


def test_the_mean_pose_is_over_all_records(three):
    parts = [find_training_set(pattern, COCO, 1.0).labels for pattern in three[:2]]
    both = find_training_set(",".join(three[:2]), COCO, 1.0, (1, 100)).labels
    expected = (9 * parts[0].mean_pose + 6 * parts[1].mean_pose) / 15
    np.testing.assert_allclose(both.mean_pose, expected, atol=1e-6)
    assert both.num_records == 15 and len(both.counts) == 4


@pytest.mark.parametrize(
    ("workers", "cache"),
    [(2, True), pytest.param(2, False, marks=pytest.mark.slow), pytest.param(4, False, marks=pytest.mark.slow)],
)
def test_workers_share_the_global_batches_without_loss_or_repetition(three, workers, cache):
    whole = _batches(three, 8, cache=cache)
    parts = [_batches(three, 8, cache=cache, worker=index, workers=workers) for index in range(workers)]
    together = [
        {name: np.concatenate([part[step][name] for part in parts]) for name in whole[step]} for step in range(8)
    ]
    _assert_same(whole, together)


def test_a_batch_that_workers_cannot_share_is_refused(three):
    with pytest.raises(InputError, match="batch_size 8 cannot be divided among 3 workers"):
        _batches(three, 1, workers=3)


@pytest.mark.parametrize(
    ("sets", "stored_crops"),
    [pytest.param(slice(0, 1), False, marks=pytest.mark.slow), (slice(1, 2), True), (slice(0, 3), False)],
)
def test_the_cache_changes_nothing(three, sets, stored_crops):
    changes = {"stored_crops": True} if stored_crops else {}
    plain, cached = (_batches(three[sets], 8, cache=cache, **changes) for cache in (False, True))
    _assert_same(plain, cached)


def test_a_cache_larger_than_memory_is_refused_before_it_is_filled(three, monkeypatch):
    monkeypatch.setattr(crop_cache, "_available_memory", lambda: 50_000)
    with pytest.raises(InputError, match=r"data\.cache: 0\.0 GB of decoded crops do not fit"):
        _batches(three, 1, cache=True)


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("width", [4, 25, 34])
def test_random_rows_depend_on_their_position_alone(rows, width):
    for operation in (tf.raw_ops.StatelessRandomUniformV2, tf.raw_ops.StatelessRandomNormalV2):
        whole = augmentation.numbered(operation, 5, tf.constant(1000, tf.int64), 24, width).numpy()
        parts = [
            augmentation.numbered(operation, 5, tf.constant(1000 + start, tf.int64), rows, width).numpy()
            for start in range(0, 24, rows)
        ]
        np.testing.assert_array_equal(whole, np.concatenate(parts))
        assert len(np.unique(whole, axis=0)) == 24
        assert not np.array_equal(whole, augmentation.numbered(operation, 6, tf.constant(1000, tf.int64), 24, width))


@pytest.mark.parametrize(
    ("patterns", "weights", "complaint"),
    [
        (["{0}", "{1}"], (1,), r"data\.weights is \(1,\): give a positive number for each of the 2 data sets"),
        (["{0}", "{1}"], (1, 0), "give a positive number"),
        (["{0}", "{1}"], (1, float("nan")), "give a positive number"),
        (["{0}", "none-*"], (), "no records match 'none-"),
        (["{2}"], (), r"labels of skeleton 'lsp' \(14 joints\), but 'coco' \(17\) is needed"),
        (["{2}", "{2}"], (), "no data set of config.data.train labels nose, left_eye"),
        ([""], (), "data.train is empty"),
    ],
)
def test_what_cannot_be_mixed_is_one_line(three, patterns, weights, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        _batches([pattern.format(*three) for pattern in patterns], 1, weights)
    helpers.one_line(error)


def test_a_margin_of_whole_pixels_is_cut_off_and_nothing_resampled(tmp_path):
    """The surroundings that --context stores do not change the pixels of the published crop."""
    annotations, photos, _ = helpers.painted_dataset(str(tmp_path), [(30, 20, 40, 50), (40, 25, 30, 45)])
    writer.write_records(helpers.options(annotations, photos, tmp_path / "records", context=1.5))
    pattern = str(tmp_path / "records" / "train-*")
    found = records.find(pattern)
    assert found.crop_size == (96, 96) and found.padding == 1.5
    stored = [
        records.decode_jpeg(records.parse(r, COCO)["jpeg"]).numpy()[16:80, 16:80]
        for r in tf.data.TFRecordDataset(found.paths)
    ]
    for batch in _batches([pattern], 2, batch_size=2):
        for image in batch["image"]:
            assert any(np.array_equal(image, crop) for crop in stored)


def _write_coco_records(path, people):
    """Writes records of COCO's skeleton, with the box (10, 10, 40, 40) in gray crops."""
    box, jpeg = np.array([10.0, 10, 40, 40]), tf.io.encode_jpeg(np.full((64, 64, 3), 100, np.uint8)).numpy()
    with tf.io.TFRecordWriter(str(path)) as file:
        for number, joints in enumerate(people):
            person = records.Person(jpeg, number, number, "a", (90, 120), box, 1.0, box, 1.0, joints)
            file.write(records.encode(person, COCO))


@pytest.fixture
def with_and_without_faces(tmp_path):
    """Globs of records that label all joints, but not the nose of every person, and of records
    that never label the face, as COCO files made from LSP's labels do."""
    full, no_face = np.full((2, 17, 3), (20.0, 30.0, 2.0)), np.full((2, 17, 3), (40.0, 30.0, 1.0))
    full[1, 0] = 0
    no_face[:, :5] = 0
    no_face[0, 9] = 0
    _write_coco_records(tmp_path / "full-00000-of-00001", full)
    _write_coco_records(tmp_path / "bare-00000-of-00001", no_face)
    return [str(tmp_path / "full-*"), str(tmp_path / "bare-*")]


@pytest.mark.parametrize("cache", [False, True])
def test_a_mixture_trains_the_visibility_only_where_the_data_set_labels_the_joint(with_and_without_faces, cache):
    (batch,) = _batches(with_and_without_faces, 1, (1, 1), cache, batch_size=16)
    outputs = {"keypoints": tf.Variable(tf.fill([16, 17, 2], 0.1)), "visibility": tf.Variable(tf.fill([16, 17], 0.3))}
    with tf.GradientTape() as tape:
        value = losses.MaskedL2Loss()(batch["keypoints"], outputs)
    gradients = {name: g.numpy() for name, g in tape.gradient(value, outputs).items()}
    kinds = collections.Counter()
    for person, of_person in enumerate(batch["keypoints"]):
        bare = of_person[5, 2] == 1
        for joint, (x, y, flag) in enumerate(of_person):
            never = bare and joint < 5
            expected = 0.0 if never else 2 * (0.3 - (flag > 0))
            np.testing.assert_allclose(gradients["visibility"][person, joint], expected, rtol=1e-6, atol=0)
            assert gradients["keypoints"][person, joint].any() == (flag > 0)
            assert (flag == -1) == never and (flag > 0 or (x, y) == (0, 0))
            kinds[bool(bare), int(flag)] += 1
    assert set(kinds) == {(False, 0), (False, 2), (True, -1), (True, 0), (True, 1)}


def test_an_evaluation_marks_what_its_records_never_label(with_and_without_faces):
    config = config_lib.default()
    config.model.input_size = (64, 64)
    found = records.find(with_and_without_faces[1])
    (batch,) = pipeline.evaluation_batches(config, found, batch_size=2, identity=True)
    for name in ("keypoints", "truth"):
        assert (batch[name].numpy()[:, :5] == (0, 0, -1)).all()
        assert batch[name].numpy()[:, 9, 2].tolist() == [0, 1]


def _members(counts, take, buffer, **changes):
    """The file of each of the first samples of an epoch order."""
    order = pipeline._shuffled(
        ["f"] * len(counts), counts, **{"seed": 1, "first": 0} | changes, shuffle_buffer=buffer, cached=True
    )
    order = np.concatenate(list(order.batch(64).take(-(-take // 64)).as_numpy_iterator()))[:take]
    return np.repeat(np.arange(len(counts)), counts)[order], order


@pytest.mark.parametrize("counts", [(40,) * 32, (100,) * 6 + (20,) * 10, (30, 170, 1, 64, 0)])
def test_each_part_of_an_epoch_holds_every_file_in_proportion(counts):
    total = sum(counts)
    files, order = _members(counts, 2 * total, buffer=1)
    assert sorted(order[:total]) == sorted(order[total:]) == list(range(total))
    assert (order[:total] != order[total:]).any()
    for start in range(0, 2 * total, total // 10):
        part = files[start : start + total // 10]
        if len(part) == total // 10:
            # A part that crosses the end of an epoch can be off by one record for each of the two.
            expected = np.array(counts) * len(part) / total
            assert np.abs(np.bincount(part, minlength=len(counts)) - expected).max() <= 4


def test_no_file_is_missing_from_a_tenth_of_an_epoch_with_a_small_buffer():
    counts = [40] * 64
    files, _ = _members(counts, sum(counts), buffer=sum(counts) // 10)
    missing = [set(range(64)) - set(part) for part in np.array_split(files, 10)]
    assert np.mean([len(part) for part in missing]) < 2


@pytest.mark.parametrize("open_files", [128, 3, 1])
def test_files_and_cache_give_one_order_that_can_be_resumed(open_files, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "OPEN_FILES", open_files)
    counts, paths, number = [7, 3, 12, 1, 9], [], 0
    for index, count in enumerate(counts):
        paths.append(str(tmp_path / f"{index}"))
        with tf.io.TFRecordWriter(paths[-1]) as file:
            for _ in range(count):
                file.write(b"%d" % number)
                number += 1

    def order(first, cached):
        found = pipeline._shuffled(paths, counts, 5, first, 4, cached).take(100)
        return [int(value) for value in found.as_numpy_iterator()]

    whole = order(0, cached=False)
    assert sorted(whole[:32]) == list(range(32)) and whole == order(0, cached=True)
    assert order(45, cached=False)[:55] == whole[45:]


def test_the_aspect_can_be_that_of_the_records(tmp_path):
    config = config_lib.default()
    config.data.aspect = geometry.OF_RECORDS
    config_lib.check(config)
    for aspect, size in ((0.0, (64, 64)), (0.7, (100, 70))):
        folder = tmp_path / f"aspect{aspect}"
        config.data.train, _ = helpers.painted_records(folder, [[20, 10, 60, 70]], aspect=aspect, crop_size=size)
        config.model.input_size = size
        resolved = with_aspect(config)
        assert resolved.data.aspect == aspect and config.data.aspect == geometry.OF_RECORDS
        config_lib.check(resolved)
    config.model.input_size = (64, 64)
    with pytest.raises(InputError, match=r"train-\*' and config.model.input_size: aspect is 0.7.*64 x 64") as error:
        with_aspect(config)
    helpers.one_line(error)
    config.data.aspect = -0.5
    with pytest.raises(InputError, match="aspect is -0.5"):
        config_lib.check(config)
