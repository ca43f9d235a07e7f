"""The schema of records: encoding, parsing, and one-line errors for bad records."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.data import crops, records
from tests import helpers

COCO = skeletons.COCO
PAIR = skeletons.Skeleton(
    name="pair", joints=("a", "b"), pairs=((0, 1),), limbs={}, torso=(0, 1), upper=(), bones=(), sigmas=(0.1, 0.1)
)


def _jpeg(size=(16, 24)):
    return crops.encode_jpeg(Image.fromarray(np.full((*size, 3), 99, np.uint8)))


def _person(**changes):
    person = records.Person(
        jpeg=_jpeg(),
        image_id=581929,
        annotation_id=900_100_581_929,
        file_name="träumer/000000581929.jpg",
        image_size=(480, 640),
        box=np.array([10.25, 20.5, 100.75, 200.125]),
        padding=1.25,
        region=np.array([-2.34, -4.5, 125.94, 250.16]),
        area=12345.67,
        keypoints=helpers.keypoints_in((10, 20, 100, 200)),
    )
    return dataclasses.replace(person, **changes)


def _write(directory, people=(), split="train", index=0, count=1, skeleton=COCO):
    path = records.shard_path(str(directory), split, index, count)
    with tf.io.TFRecordWriter(path) as writer:
        for person in people:
            writer.write(person if isinstance(person, bytes) else records.encode(person, skeleton))
    return path


def _find_fails(pattern, complaint, **arguments):
    with pytest.raises(InputError, match=complaint) as error:
        records.find(str(pattern), **arguments)
    return helpers.one_line(error)


def test_a_parsed_record_is_the_encoded_person():
    person = _person()
    read = records.parse(records.encode(person, COCO), COCO)
    expected = {
        "image_id": np.int64(person.image_id),
        "annotation_id": np.int64(person.annotation_id),
        "image_size": np.int64(person.image_size),
        "area": np.float32(person.area),
        "box": np.float32(person.box),
        "region": np.float32(person.region),
        "keypoints": np.float32(person.keypoints[:, :2]),
        "visibility": np.float32(person.keypoints[:, 2]),
    }
    for name, value in expected.items():
        assert read[name].dtype.as_numpy_dtype == value.dtype, name
        np.testing.assert_array_equal(read[name], value, err_msg=name)
    assert read["jpeg"].numpy() == person.jpeg
    assert read["file_name"].numpy().decode() == person.file_name
    assert set(read) == set(expected) | {"jpeg", "file_name"}


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**62),
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=10, max_size=10),
    st.lists(st.integers(0, 2), min_size=2, max_size=2),
)
def test_all_numbers_are_kept(number, values, flags):
    keypoints = np.column_stack([np.reshape(values[:4], (2, 2)), flags])
    person = _person(image_id=number, annotation_id=number, box=values[4:8], area=values[8], keypoints=keypoints)
    read = records.parse(records.encode(person, PAIR), PAIR, image=False)
    assert int(read["image_id"]) == int(read["annotation_id"]) == number
    np.testing.assert_array_equal(read["keypoints"], keypoints[:, :2])
    np.testing.assert_array_equal(read["visibility"], flags)
    np.testing.assert_array_equal(read["box"], values[4:8])
    assert float(read["area"]) == values[8]


def test_a_batch_of_records_is_parsed_as_single_records():
    people = [_person(image_id=i, keypoints=helpers.keypoints_in((0, 0, 50, 50), seed=i)) for i in range(3)]
    serialised = [records.encode(person, COCO) for person in people]
    together = records.parse(tf.constant(serialised), COCO)
    for index, one in enumerate(serialised):
        for name, value in records.parse(one, COCO).items():
            np.testing.assert_array_equal(together[name][index], value, err_msg=name)


def test_parsing_without_the_image_leaves_it_out():
    assert "jpeg" not in records.parse(records.encode(_person(), COCO), COCO, image=False)


def test_the_same_person_is_the_same_bytes():
    assert records.encode(_person(), COCO) == records.encode(_person(), COCO)


@pytest.mark.parametrize("joints", [16, 18])
def test_a_wrong_number_of_joints_is_refused(joints):
    with pytest.raises(InputError, match=rf"900100581929.*\({joints}, 3\).*'coco' needs \(17, 3\)") as error:
        records.encode(_person(keypoints=np.ones((joints, 3))), COCO)
    helpers.one_line(error)


def test_decoding_keeps_colour_and_order_of_rows():
    pixels = helpers.paint_dots((40, 60), [(10, 8), (30, 20), (50, 30)], sigma=4)
    decoded = records.decode_jpeg(crops.encode_jpeg(Image.fromarray(pixels))).numpy()
    assert decoded.shape == (40, 60, 3) and decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - pixels).max() < 24


def test_a_grey_jpeg_decodes_to_three_channels(tmp_path):
    path = tmp_path / "grey.jpg"
    Image.fromarray(np.full((8, 8), 120, np.uint8)).save(path)
    decoded = records.decode_jpeg(path.read_bytes()).numpy()
    assert decoded.shape == (8, 8, 3) and np.abs(decoded.astype(int) - 120).max() <= 1


def test_find_returns_the_kind_of_the_records(tmp_path):
    paths = [_write(tmp_path, [_person()] * 2, index=index, count=3) for index in range(3)]
    (tmp_path / "train-00000-of-00003.tmp").write_bytes(b"half a shard")
    (tmp_path / "train.manifest.json").write_text("{}")
    found = records.find(str(tmp_path / "train*"))
    assert list(found.paths) == paths
    assert found.skeleton is COCO
    assert found.padding == 1.25
    assert found.crop_size == (16, 24)
    assert records.find(str(tmp_path / "train-*"), wanted_skeleton=COCO) == dataclasses.replace(
        found, pattern=str(tmp_path / "train-*")
    )


def test_find_takes_several_splits_and_single_shards(tmp_path):
    for index in range(2):
        _write(tmp_path, [_person()], split="a", index=index, count=2)
    _write(tmp_path, [_person()], split="b")
    assert len(records.find(str(tmp_path / "*-of-*")).paths) == 3
    assert len(records.find(str(tmp_path / "a-00001-of-00002")).paths) == 1


def test_find_needs_a_pattern():
    _find_fails("", "--records=")


def test_nothing_matches(tmp_path):
    (tmp_path / "train.manifest.json").write_text("{}")
    message = _find_fails(tmp_path / "train*", "no records match.*write_coco")
    assert str(tmp_path) in message


def test_a_missing_shard(tmp_path):
    for index in (0, 2):
        _write(tmp_path, [_person()], index=index, count=3)
    _find_fails(tmp_path / "train-*", "only 2 of 3 shards exist")


def test_shards_of_two_writes(tmp_path):
    _write(tmp_path, [_person()], index=0, count=1)
    _write(tmp_path, [_person()], index=0, count=2)
    _find_fails(tmp_path / "train-*", "two writes.*00001.*00002")


def test_a_garbage_file(tmp_path):
    path = _write(tmp_path)
    with open(path, "wb") as file:
        file.write(b"this is no TFRecord file, but it is longer than a header")
    assert _find_fails(tmp_path / "train-*", "TFRecord").startswith(path)


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        (b"\xff\xff no protocol buffer", "record 1: not a tf.train.Example"),
        (tf.train.Example().SerializeToString(), "record 1: a record without a kpose schema version"),
    ],
)
def test_records_of_another_program(record, complaint, tmp_path):
    path = _write(tmp_path, [record])
    assert _find_fails(tmp_path / "train-*", complaint).startswith(path)


def test_records_of_another_schema_version(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(records, "SCHEMA_VERSION", 7)
        path = _write(tmp_path, [_person()])
    message = _find_fails(tmp_path / "train-*", f"schema version 7.*reads version {records.SCHEMA_VERSION}")
    assert message.startswith(path)


@pytest.mark.parametrize("other", [{"padding": 1.5}, {"jpeg": _jpeg((24, 24))}])
def test_records_of_two_kinds(other, tmp_path):
    _write(tmp_path, [_person()], index=0, count=2)
    _write(tmp_path, [_person(**other)], index=1, count=2)
    _find_fails(tmp_path / "train-*", "the records differ in")


def test_records_of_another_skeleton(tmp_path, monkeypatch):
    monkeypatch.setitem(skeletons.SKELETONS, "pair", PAIR)
    _write(tmp_path, [_person(keypoints=np.ones((2, 3)))], skeleton=PAIR)
    assert records.find(str(tmp_path / "train-*")).skeleton is PAIR
    _find_fails(tmp_path / "train-*", "'pair'.*'coco' .17. is needed", wanted_skeleton=COCO)


def test_empty_shards_are_allowed_if_others_have_records(tmp_path):
    _write(tmp_path, [], index=0, count=2)
    _write(tmp_path, [_person()], index=1, count=2)
    assert len(records.find(str(tmp_path / "train-*")).paths) == 2


def test_no_records(tmp_path):
    _write(tmp_path, [])
    _find_fails(tmp_path / "train-*", "the record files have no records")


def test_read_manifest(tmp_path):
    assert records.read_manifest(str(tmp_path), "train") is None
    path = records.manifest_path(str(tmp_path), "train")
    assert os.path.basename(path) == "train.manifest.json"
    helpers.write_json(path, {"persons": 3})
    assert records.read_manifest(str(tmp_path), "train") == {"persons": 3}
    with open(path, "w") as file:
        file.write('{"persons"')
    with pytest.raises(InputError, match="manifest is not JSON"):
        records.read_manifest(str(tmp_path), "train")
