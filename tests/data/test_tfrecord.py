"""Examples and TFRecord files written without TensorFlow have the same bytes as TensorFlow's."""

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.core.errors import InputError
from kpose.data import tfrecord
from tests import helpers

LISTS = st.one_of(
    st.lists(st.binary(max_size=300), min_size=1, max_size=4),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4),
)


def _tensorflows(features):
    made = {}
    for name, values in features.items():
        if isinstance(values[0], bytes):
            made[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        elif isinstance(values[0], int):
            made[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        else:
            made[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString(deterministic=True)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), LISTS, min_size=1, max_size=5))
def test_examples_have_the_bytes_of_tensorflow(features):
    # Protobuf sorts names in ASCII as Python does, but not other names.
    features = {f"n{index}": values for index, values in enumerate(features.values())}
    assert tfrecord.encode_example(features) == _tensorflows(features)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.binary(max_size=5000), max_size=5))
def test_files_are_read_by_tensorflow_and_back(tmp_path_factory, payloads):
    folder = tmp_path_factory.mktemp("files")
    ours, theirs = folder / "ours", folder / "theirs"
    ours.write_bytes(b"".join(tfrecord.frame(payload) for payload in payloads))
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for payload in payloads:
            writer.write(payload)
    assert ours.read_bytes() == theirs.read_bytes()
    assert [one.numpy() for one in tf.data.TFRecordDataset(str(ours))] == payloads
    assert list(tfrecord.read(str(theirs))) == payloads


@pytest.mark.parametrize("place", [2, 9, 14, -2])
def test_a_flipped_bit_is_found(place, tmp_path):
    data = bytearray(tfrecord.frame(b"a person") + tfrecord.frame(b"another"))
    data[place] ^= 4
    path = tmp_path / "bad"
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged or cut short") as error:
        list(tfrecord.read(str(path)))
    assert helpers.one_line(error).startswith(str(path))


def test_a_cut_file_is_found(tmp_path):
    path = tmp_path / "cut"
    data = tfrecord.frame(b"a person") + tfrecord.frame(b"another")
    for length in range(len(data) - 1, len(data) - 22, -1):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match="damaged or cut short"):
            list(tfrecord.read(str(path)))
