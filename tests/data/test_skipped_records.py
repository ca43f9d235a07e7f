"""Bad records that are left out: the rest is as if they had never been there."""

import functools
import json
import os
import shutil

import numpy as np
import pytest

from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.data import bad_records, records, tfrecord
from kpose.data.training_set import find_training_set
from kpose.train.trainer import train
from tests import helpers, tiny
from tests.data.test_bad_records import BAD, _record, _undecodable
from tests.train.test_trainer import assert_same_weights


def _good(count):
    """Records of different persons."""
    for number in range(count):
        joints = helpers.keypoints_in((10, 10, 40, 40), seed=number).ravel().tolist()
        yield _record(annotation__id=[number], annotation__keypoints=joints)


def _write(folder, shards, split="train"):
    """Writes shards, each a list of records or of bytes of the file."""
    os.makedirs(folder, exist_ok=True)
    for index, shard in enumerate(shards):
        with open(records.shard_path(str(folder), split, index, len(shards)), "wb") as file:
            file.write(b"".join(tfrecord.frame(one) for one in shard))
    return os.path.join(folder, f"{split}-*")


def _find(pattern, folder):
    find = functools.partial(bad_records.find, folder=str(folder))
    return find_training_set(pattern, skeletons.COCO, 1.0, find=find)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Five good records, the folder of their two shards, and the summary of their labels."""
    good, folder = list(_good(5)), tmp_path_factory.mktemp("clean")
    pattern = _write(folder, [good[:3], good[3:]])
    return good, folder, find_training_set(pattern, skeletons.COCO, 1.0).labels


# One of each check. That each kind is found is tested in test_bad_records.
FAST = ("no_example", "other_padding", "missing_jpeg", "short_keypoints", "nan", "cut_jpeg", "many_scans")


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        *((kind, 2) for kind in FAST),
        *(pytest.param(kind, 2, marks=pytest.mark.slow) for kind in BAD if kind not in FAST),
        *((kind, 0) for kind in ("other_skeleton", "undecodable")),
    ],
)
def test_the_others_are_as_if_it_had_never_been_there(kind, place, clean, tmp_path, caplog):
    bad = _undecodable() if kind == "undecodable" else BAD[kind][0]
    good, folder, expected = clean
    pattern = _write(tmp_path / "damaged", [[*good[:place], bad, *good[place:3]], good[3:]])
    with caplog.at_level("WARNING", logger="absl"):
        found = _find(pattern, tmp_path / "copies")
    assert found.labels.counts == expected.counts == (3, 2)
    np.testing.assert_array_equal(found.labels.mean_pose, expected.mean_pose)
    (files,) = found.files
    assert files.skipped == 1 and files.originals == tuple(sorted(map(str, (tmp_path / "damaged").iterdir())))
    # Only the shard with the bad record is copied.
    assert files.paths[1] == files.originals[1]
    first = (folder / "train-00000-of-00002").read_bytes()
    with open(files.paths[0], "rb") as copy:
        assert copy.read() == first
    assert f"{files.originals[0]}: record {place + 1}: " in caplog.text
    assert "1 bad records are left out of 6" in caplog.text


def test_changed_bytes_and_a_lost_end(tmp_path, caplog):
    """One record with a wrong checksum; a file that is cut short ends at the cut."""
    good = list(_good(9))
    pattern = _write(tmp_path / "damaged", [good[:3], good[3:6], good[6:]])
    paths = sorted((tmp_path / "damaged").iterdir())
    data = bytearray(paths[0].read_bytes())
    data[len(tfrecord.frame(good[0])) + 40] ^= 0xFF
    paths[0].write_bytes(data)
    paths[1].write_bytes(paths[1].read_bytes()[:-5])
    found = _find(pattern, tmp_path / "copies")
    assert found.labels.counts == (2, 2, 3) and found.files[0].skipped == 2
    assert list(tfrecord.read(found.files[0].paths[0])) == [good[0], good[2]]
    with pytest.raises(InputError, match="damaged or cut short"):
        find_training_set(pattern, skeletons.COCO, 1.0)


def test_data_sets_with_shards_of_the_same_names_are_kept_apart(tmp_path):
    good = list(_good(8))
    patterns = [_write(tmp_path / str(n), [[*good[4 * n : 4 * n + 4], BAD["nan"][0]]]) for n in range(2)]
    found = _find(",".join(patterns), tmp_path / "copies")
    assert [list(tfrecord.read(files.paths[0])) for files in found.files] == [good[:4], good[4:]]


def test_more_than_half_is_not_left_out(tmp_path):
    pattern = _write(tmp_path, [[next(_good(1)), *[BAD["nan"][0]] * 2]])
    with pytest.raises(InputError, match="2 of 3 records are bad, more than half; the first: .*record 2: .*not finite"):
        _find(pattern, tmp_path / "copies")


def test_without_any_good_record(tmp_path):
    with pytest.raises(InputError, match="start with bad records"):
        _find(_write(tmp_path, [[BAD["empty_jpeg"][0]]]), tmp_path / "copies")


def test_a_training_without_the_bad_records_is_that_of_clean_ones(tmp_path, caplog):
    good, bad = list(_good(12)), BAD["cut_jpeg"][0]
    patterns = {}
    for name, extra in (("clean", []), ("damaged", [bad, _undecodable()])):
        patterns[name] = _write(tmp_path / name, [[*extra, *good[:6]], [*good[6:8], *extra, *good[8:]]])
    _write(tmp_path / "damaged", [[*good[:4], *extra]], "val")
    for name, pattern in patterns.items():
        recipe = tiny.make_recipe(pattern, batch_size=4, **tiny.DEEPPOSE)
        recipe.steps, recipe.checkpoint_every = 5, 5
        if name == "damaged":
            # A validation changes no weight.
            recipe.data.val = pattern.replace("train-*", "val-*")
            with pytest.raises(InputError, match="record 1: its JPEG is cut short"):
                train(recipe, str(tmp_path / "run" / name))
            recipe.on_bad_record = "skip"
        with caplog.at_level("INFO", logger="absl"):
            train(recipe, str(tmp_path / "run" / name))
    assert_same_weights(*(str(tmp_path / "run" / name) for name in patterns))
    for line in (
        "4 bad records are left out of 16 (config.on_bad_record)",
        "2 bad records are left out of 6 (config.on_bad_record)",
        "epoch 1: 4 bad training records were left out",
        "4 bad training records were left out of each epoch",
    ):
        assert line in caplog.text
    assert not os.path.exists(tmp_path / "run" / "damaged" / "good_records")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"padding": 1.25}, "padding 1.25, but its records have 1.0"),
        ({"context": 1.5}, "padding 1.5, but its records have 1.0"),
        ({"stored_size": [96, 48]}, r"crop size \(96, 48\), but its records have \(48, 48\)"),
        ({"aspect": 0.75}, "aspect 0.75, but its records have 0.0"),
        ({"pixel_offset": 0.0}, "pixel offset 0.0, but its records have 0.5"),
        ({"schema_version": 2}, "schema version 2, but its records have 1"),
        ({"stored_size": "large"}, "not the manifest of a write|crop size"),
        ({"padding": None}, "not the manifest of a write"),
    ],
)
def test_a_manifest_of_other_records_is_refused_behind_the_first_data_set(changes, complaint, tiny_data, tmp_path):
    first = str(tmp_path / "first" / "train-*")
    shutil.copytree(os.path.dirname(tiny_data["train"]), tmp_path / "first")
    shutil.copytree(os.path.dirname(tiny_data["train"]), tmp_path / "second")
    path = tmp_path / "second" / "train.manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=complaint) as error:
        find_training_set(f"{first},{tmp_path / 'second' / 'train-*'}", skeletons.COCO, 1.0)
    assert helpers.one_line(error).startswith(f"{path}: ")
    find_training_set(first, skeletons.COCO, 1.0)
