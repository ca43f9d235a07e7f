"""A bad record ends with one line that names its file, its number, and what is wrong."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.data import crops, pipeline, record_checks, records, tfrecord
from kpose.data.training_set import find_training_set
from kpose.train.trainer import train
from tests import attack_files, helpers, tiny
from tfrecords_tools.inspect.sheets import inspect

SIDE = 16


def _jpeg(size=(SIDE, SIDE)):
    pixels = np.kron(np.random.default_rng(0).integers(0, 255, (2, 2, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    return crops.encode_jpeg(Image.fromarray(pixels).resize(size[::-1]))


def _record(**changes):
    """A record, of which fields are replaced by lists, or removed by None."""
    person = records.Person(
        jpeg=_jpeg(),
        image_id=1,
        annotation_id=1,
        file_name="1.jpg",
        image_size=(60, 80),
        box=np.array([10.0, 10, 40, 40]),
        padding=1.0,
        region=np.array([10.0, 10, 40, 40]),
        area=900.0,
        keypoints=helpers.keypoints_in((10, 10, 40, 40)),
    )
    example = tf.train.Example.FromString(records.encode(person, skeletons.COCO))
    features = {
        name: list(getattr(feature, feature.WhichOneof("kind")).value)
        for name, feature in example.features.feature.items()
    }
    features |= {name.replace("__", "/"): values for name, values in changes.items()}
    return tfrecord.encode_example({name: values for name, values in features.items() if values is not None})


def _write(folder, *serialised):
    path = records.shard_path(str(folder), "train", 0, 1)
    with open(path, "wb") as file:
        file.write(b"".join(tfrecord.frame(one) for one in serialised))
    return path


def _with_size(jpeg, height, width):
    """A JPEG whose header has another size than its pixels."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]


BAD = {
    "no_example": (b"\xff\xffno protocol buffer", "not a tf.train.Example"),
    "other_schema": (_record(schema_version=[7]), "schema version 7, but"),
    "no_schema": (_record(schema_version=None), "without a kpose schema version"),
    "other_skeleton": (_record(skeleton=[b"hand"]), "'hand'.*but those of the first record.*'coco'"),
    "other_padding": (_record(crop__padding=[2.0]), r"2\.0, .*but those of the first record"),
    "other_aspect": (_record(crop__aspect=[0.75]), r"0\.75, .*but those of the first record"),
    "other_offset": (_record(annotation__pixel_offset=[0.0]), "but those of the first record"),
    "wrong_type": (_record(annotation__box=[1, 2, 3, 4]), "'annotation/box' has the type int64, not float"),
    "missing_field": (_record(crop__region=None), "no field 'crop/region'"),
    "missing_jpeg": (_record(crop__jpeg=None), "no field 'crop/jpeg'"),
    "short_keypoints": (_record(annotation__keypoints=[1.0] * 48), "48 keypoint numbers, but skeleton 'coco' needs 51"),
    "long_box": (_record(annotation__box=[1.0] * 5), "'annotation/box' has 5 values, not 4"),
    "nan": (_record(annotation__keypoints=[float("nan")] * 51), "not finite"),
    "infinite_box": (_record(annotation__box=[float("inf")] * 4), "not finite"),
    "empty_jpeg": (_record(crop__jpeg=[b""]), r"its JPEG is empty \(0 bytes\)"),
    "cut_jpeg": (_record(crop__jpeg=[_jpeg()[:-40]]), "its JPEG is cut short"),
    "no_jpeg": (_record(crop__jpeg=[b"GIF89a" + bytes(50)]), "not a JPEG"),
    "many_scans": (
        _record(crop__jpeg=[attack_files.jpeg_of_scans(SIDE * 2, 99)]),
        "its JPEG has more than 20 scans",
    ),
    "huge_jpeg": (_record(crop__jpeg=[_with_size(_jpeg(), 65500, 65500)]), "65500 x 65500 pixels: a side must be"),
    "wrong_size_jpeg": (_record(crop__jpeg=[_jpeg((24, 16))]), r"\(24, 16\).*but those of the first record"),
}


# Of the first record the values themselves cannot differ from those of others.
FIRST = [kind for kind, (_, complaint) in BAD.items() if "first record" not in complaint]


@pytest.mark.parametrize(("kind", "first"), [*((kind, False) for kind in BAD), *((kind, True) for kind in FIRST)])
def test_a_bad_record_is_named(kind, first, tmp_path):
    bad, complaint = BAD[kind]
    good = _record()
    path = _write(tmp_path, *([bad, good] if first else [good, good, bad, good]))
    with pytest.raises(InputError, match=complaint) as error:
        find_training_set(str(tmp_path / "train-*"), skeletons.COCO, 1.0)
    assert helpers.one_line(error).startswith(f"{path}: record {1 if first else 3}: ")


@pytest.mark.parametrize("kind", ["other_skeleton", "short_keypoints", "cut_jpeg"])
def test_inspect_names_a_bad_record(kind, tmp_path):
    path = _write(tmp_path, _record(), BAD[kind][0])
    with pytest.raises(InputError, match=BAD[kind][1]) as error:
        inspect(str(tmp_path / "train-*"), str(tmp_path / "sheet.png"))
    assert helpers.one_line(error).startswith(f"{path}: record 2: ")


@pytest.mark.parametrize("length", [2**40, 2**62, 2**64 - 1, 100_000])
def test_a_length_beyond_the_file_with_a_valid_checksum(length, tmp_path):
    """TensorFlow alone reserves the memory: a segmentation fault at 2^40."""
    path = _write(tmp_path, _record(), _record())
    header = struct.pack("<Q", length)
    checksum = tfrecord.frame(header)[12:20]
    assert checksum == header
    with open(path, "ab") as file:
        file.write(header + tfrecord._masked_crc(header) + b"a short record")
    with pytest.raises(InputError, match="record 3: damaged or cut short") as error:
        records.find(str(tmp_path / "train-*"))
    assert helpers.one_line(error).startswith(path)
    with pytest.raises(InputError, match="record 3: damaged or cut short"):
        list(tfrecord.read(path))


def test_checking_lengths_accepts_every_whole_file(tmp_path):
    for count in range(3):
        tfrecord.check_lengths(_write(tmp_path, *[b"", b"a", bytes(5000)][:count]))


def test_the_size_of_a_jpeg_is_that_of_a_decoder():
    for size in ((1, 1), (16, 24), (200, 7)):
        for options in ({}, {"progressive": True}, {"optimize": True}):
            image = Image.new("L" if size[0] == 1 else "RGB", size[::-1])
            path = tf.io.encode_jpeg(np.asarray(image.convert("RGB")), **_tensorflows(options)).numpy()
            assert record_checks.jpeg_size(path) == size == tuple(tf.io.extract_jpeg_shape(path)[:2].numpy())


def _tensorflows(options):
    return {{"optimize": "optimize_size"}.get(name, name): value for name, value in options.items()}


def _undecodable():
    """A record that passes the checks of its headers, but has no quantization tables."""
    return _record(crop__jpeg=[_jpeg().replace(b"\xff\xdb", b"\xff\xef")])


def test_a_jpeg_that_cannot_be_decoded_is_named_when_it_is_read(tmp_path):
    path = _write(tmp_path, _record(), _undecodable())
    files = records.find(str(tmp_path / "train-*"))
    batches = pipeline.ordered_batches(files, input_size=(SIDE, SIDE), padding=1.0, batch_size=2, num_records=2)
    with pytest.raises(InputError, match="its JPEG cannot be decoded") as error, records.reading(files):
        list(batches)
    assert helpers.one_line(error).startswith(f"{path}: record 2: ")


@pytest.mark.parametrize("cache", [False, True])
def test_a_training_names_a_jpeg_that_cannot_be_decoded(cache, tmp_path):
    path = _write(tmp_path, *[_record()] * 3, _undecodable())
    recipe = tiny.make_recipe(str(tmp_path / "train-*"), batch_size=2)
    recipe.data.cache, recipe.data.padding = cache, 1.0
    with pytest.raises(InputError, match="its JPEG cannot be decoded") as error:
        train(recipe, str(tmp_path / "run"))
    assert helpers.one_line(error).startswith(f"{path}: record 4: ")


def test_another_error_is_raised_as_it_is(tmp_path):
    _write(tmp_path, _record())
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="of another cause"),
        records.reading(records.find(str(tmp_path / "train-*"))),
    ):
        raise tf.errors.InvalidArgumentError(None, None, "of another cause")
