"""Joints of COCO files are pixel indices; everything inside kpose is in the original frame.

A joint of a COCO file names a pixel. Its place is the middle of that pixel. Here a single bright
pixel stands at each joint, so half a pixel is seen.
"""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kpose import config as config_lib
from kpose.augment.augmentation import NUM_DRAWS, Augmentation
from kpose.core import skeletons
from kpose.data import coco_files, pipeline, records, training_set
from kpose.evaluate import on_detections
from kpose.metrics import coco
from kpose.models import decoding
from kpose.runs import workdir
from tests import helpers, tiny
from tfrecords_tools.inspect.sheets import inspect
from tfrecords_tools.write_coco import writer

COCO = skeletons.COCO
SIZE, BOX = (64, 64), [0, 0, 64, 64]
WRIST, ANKLE = (COCO.joints.index(name) for name in ("left_wrist", "right_ankle"))
# Columns and rows of the bright pixels, as a COCO file has them.
PIXELS = {WRIST: (9, 20), ANKLE: (50, 31)}


def write_pixels(folder, **changes):
    """An image with a bright pixel at each joint of `PIXELS`, its labels and its records.

    Returns (glob of the records, annotation file, image folder).
    """
    picture = np.zeros((*SIZE, 3), np.uint8)
    keypoints = np.zeros((17, 3))
    for joint, (column, row) in PIXELS.items():
        picture[row, column] = 255
        keypoints[joint] = column, row, 2
    photos = os.path.join(folder, "photos")
    os.makedirs(photos, exist_ok=True)
    Image.fromarray(picture).save(os.path.join(photos, "1.png"))
    person = helpers.annotation(5, 1, BOX, np.zeros((17, 3)))
    person |= {"keypoints": keypoints.ravel().tolist(), "num_keypoints": len(PIXELS)}
    path = helpers.write_coco(os.path.join(folder, "labels.json"), [helpers.image_entry(1, "1.png", SIZE)], [person])
    out = os.path.join(folder, "records")
    writer.write_records(helpers.options(path, photos, out, **({"shards": 1} | changes)))
    return os.path.join(out, "train-*"), path, photos


def bright_pixels(image):
    """{(column, row)} of the brightest pixels of [H, W, 3]."""
    grey = np.asarray(image, float).mean(-1)
    rows, columns = np.nonzero(grey > 0.6 * grey.max())
    return set(zip(columns.tolist(), rows.tolist(), strict=True))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("on", ["host", "device"])
def test_a_label_is_the_middle_of_its_pixel_also_when_mirrored(flip, on, tmp_path):
    pattern, *_ = write_pixels(tmp_path)
    config = tiny.make_recipe(pattern, model__input_size=SIZE, augment__flip=float(flip))
    (batch,) = pipeline.evaluation_batches(config, records.find(pattern), 1)
    batch = {k: v for k, v in batch.items()} | {"draws": tf.zeros([1, NUM_DRAWS])}
    augment = Augmentation(COCO, config.augment, SIZE)
    batch = (augment.on_device if on == "device" else augment.on_host)(batch) if flip else batch
    points = (np.asarray(batch["keypoints"])[0, :, :2] + 0.5) * SIZE[::-1]
    shown = np.asarray(batch["keypoints"])[0, :, 2] > 0
    pixels = {tuple(p) for p in np.floor(points[shown]).astype(int).tolist()}
    assert pixels == bright_pixels(batch["image"][0])
    np.testing.assert_allclose(points[shown] % 1, 0.5, atol=1e-4)


def test_results_are_pixel_indices_again(tmp_path):
    _, path, _ = write_pixels(tmp_path)
    data = json.loads((tmp_path / "labels.json").read_text())["annotations"][0]
    (person,) = coco_files.read_labels(path, COCO).persons
    (result,) = coco.coco_results([1], [person.box], person.keypoints[None], [0.9])
    labelled = np.reshape(data["keypoints"], (17, 3))[:, 2] > 0
    np.testing.assert_array_equal(
        np.reshape(result["keypoints"], (17, 3))[labelled], np.reshape(data["keypoints"], (17, 3))[labelled]
    )
    results = helpers.write_json(tmp_path / "results.json", [result])
    metrics = on_detections.evaluate(results, path, str(tmp_path / "out"))
    assert metrics["oks_ap"]["AP"] == pytest.approx(1)
    assert metrics["joint_errors"]["left_wrist"]["mean"] == 0


def test_a_file_that_counts_from_the_corner(tmp_path):
    pattern, path, _ = write_pixels(tmp_path, pixel_offset=0.0)
    found = records.find(pattern)
    assert found.pixel_offset == 0
    person = records.parse(next(iter(tf.data.TFRecordDataset(found.paths))), COCO)
    np.testing.assert_array_equal(person["keypoints"][WRIST], PIXELS[WRIST])
    (row,) = coco_files.read_labels(path, COCO, pixel_offset=0.0).persons
    np.testing.assert_array_equal(row.keypoints[WRIST, :2], PIXELS[WRIST])
    with open(os.path.join(tmp_path, "records", "train.manifest.json")) as file:
        assert json.load(file)["pixel_offset"] == 0
    assert any("file of labels plus 0" in line for line in inspect(pattern, str(tmp_path / "sheet.png"), 1))


def as_of_0_1(folder, pattern):
    """Records as kpose 0.1 wrote them: the file's own coordinates, and no word about them."""
    (path,) = records.find(pattern).paths
    old = []
    for serialised in tf.data.TFRecordDataset(path):
        example = tf.train.Example.FromString(serialised.numpy())
        features = example.features.feature
        values = np.reshape(features["annotation/keypoints"].float_list.value, (17, 3))
        values[values[:, 2] > 0, :2] -= features["annotation/pixel_offset"].float_list.value[0]
        features["annotation/keypoints"].float_list.value[:] = values.ravel().tolist()
        del features["annotation/pixel_offset"]
        old.append(example.SerializeToString())
    os.makedirs(os.path.join(folder, "old"))
    target = os.path.join(folder, "old", os.path.basename(path))
    with tf.io.TFRecordWriter(target) as file:
        for example in old:
            file.write(example)
    return target


def test_old_records_are_read_as_pixel_indices_and_say_so(tmp_path, caplog):
    pattern, *_ = write_pixels(tmp_path)
    old = as_of_0_1(tmp_path, pattern)
    with caplog.at_level("INFO", logger="absl"):
        found = records.find(old)
    assert found.pixel_offset is None and "records of kpose 0.1" in caplog.text
    new = records.parse([s.numpy() for s in tf.data.TFRecordDataset(records.find(pattern).paths)], COCO)
    was = records.parse([s.numpy() for s in tf.data.TFRecordDataset(found.paths)], COCO)
    np.testing.assert_array_equal(was["keypoints"], new["keypoints"])
    assert any("records of kpose 0.1" in line for line in inspect(old, str(tmp_path / "sheet.png"), 1))


def test_an_old_run_keeps_its_labels_and_its_predictions_are_corrected(tmp_path):
    pattern, *_ = write_pixels(tmp_path)
    config = tiny.make_recipe(pattern, model__input_size=SIZE)
    saved = config.to_dict()
    del saved["data"]["coordinates"]
    old = config_lib.from_fields(saved)
    assert old.data.coordinates == "indices"
    (batch,) = pipeline.evaluation_batches(old, records.find(pattern), 1)
    points = (np.asarray(batch["keypoints"])[0, :, :2] + 0.5) * SIZE[::-1]
    np.testing.assert_allclose(points[WRIST], PIXELS[WRIST], atol=1e-4)
    summary = training_set.find_training_set(pattern, COCO, 1.0, coordinates="indices").labels
    np.testing.assert_allclose((summary.mean_pose[WRIST] + 0.5) * 64, PIXELS[WRIST], atol=1e-4)

    # Such a network has learnt the index in y, and in x, with flips of half of the samples, the
    # mean of index + 0 and index + 1.
    def learnt(flip):
        column, row = PIXELS[WRIST]
        return np.full((1, 17, 2), [(column + flip) / 64 - 0.5, row / 64 - 0.5], np.float32)

    for flip in (0.0, 0.5):
        old.augment.flip = flip
        keypoints, _ = decoding.predict(
            lambda images, training, flip=flip: {"keypoints": tf.constant(learnt(flip))},
            np.zeros((1, *SIZE, 3)),
            np.float32([BOX]),
            COCO,
            offset=decoding.label_offset(old),
        )
        np.testing.assert_allclose(keypoints[0, WRIST, :2], np.add(PIXELS[WRIST], 0.5), atol=1e-4)
    assert decoding.label_offset(config) == (0.0, 0.0)


def test_a_resumed_old_run_goes_on_with_its_labels(tiny_run, tmp_path):
    folder = str(tmp_path / "run")
    shutil.copytree(tiny_run, folder)
    path = os.path.join(folder, "config.json")
    with open(path) as file:
        saved = json.load(file)
    assert saved["data"].pop("coordinates") == "continuous"
    helpers.write_json(path, saved)
    config = config_lib.load(os.path.join(tiny_run, "config.json"))
    config = workdir.resolve_recipe(config, folder)
    assert config.data.coordinates == "indices"
    assert not config_lib.differences(config, workdir.load_config(folder))
