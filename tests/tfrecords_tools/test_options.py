"""The options of the writer: flags, bounds, manifest entries and the recorded command."""

import hashlib
import os
import shlex

import pytest

from kpose.core import cli, skeleton_files, skeletons
from kpose.core.errors import InputError
from tests import helpers
from tfrecords_tools.write_coco.options import OPTIONS, WriteOptions, define_flags


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"split": ""}, "split"),
        ({"split": f"a{os.sep}b"}, "split"),
        ({"padding": 0.5}, "--padding=0.5: give a number between 1 and 10$"),
        ({"padding": float("nan")}, "--padding=nan"),
        ({"context": 10.5}, "--context=10.5: give a number between 1 and 10$"),
        ({"shards": 0}, "--shards=0: give a number between 1 and 99,999$"),
        ({"workers": -1}, "--workers=-1: give a number at least 0$"),
        ({"crop_size": (4, 64)}, "--crop_size=4,64: give numbers between 8 and 4,096$"),
        ({"crop_size": (64, 5000)}, "--crop_size=64,5000"),
        ({"crop_size": (64,)}, "--crop_size=64: give a height and a width"),
        ({"aspect": 0.5}, "aspect is 0.5, but the size is 64 x 64"),
        ({"seed": -1}, "--seed=-1: give a number at least 0$"),
    ],
)
def test_bad_options(change, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        helpers.options("a.json", "photos", "records", **change)
    helpers.one_line(error)


def _parse(arguments):
    flag_values = cli.flag_set()
    define_flags(flag_values)
    flag_values(["write_coco", *arguments])
    return WriteOptions.from_flags(flag_values)


def test_flags_manifest_and_command_have_every_option():
    """The recorded command gives the options again; options that change shards are recorded."""
    given = {
        "annotations": os.devnull,
        "images": "folder",
        "output_dir": "out",
        "split": "val",
        "select": "labelled",
        "category": "horse",
        "padding": "1.25",
        "aspect": "0.75",
        "context": "1.5",
        "crop_size": "128,96",
        "shards": "3",
        "workers": "2",
        "seed": "5",
        "skeleton": "lsp",
        "pixel_offset": "0",
        "share": "0,0.8",
        "allow_outside": "True",
        "on_error": "skip",
    }
    assert set(given) == set(OPTIONS)
    options = _parse([f"--{name}={value}" for name, value in given.items()])
    assert options.crop_size == (128, 96) and options.skeleton is skeletons.LSP and options.padding == 1.25
    command = shlex.split(options.command())
    assert command[:3] == ["python", "-m", "tfrecords_tools.write_coco"]
    assert set(given.items()) - {tuple(flag[2:].split("=")) for flag in command[3:]} == {
        ("output_dir", "out"),
        ("workers", "2"),
    }
    assert _parse([*command[3:], "--output_dir=out", "--workers=2"]) == options
    assert options.manifest_entries() == {
        "annotations": "null",
        "annotations_sha256": hashlib.sha256(b"").hexdigest(),
        "images": "folder",
        "select": "labelled",
        "category": "horse",
        "padding": 1.25,
        "aspect": 0.75,
        "context": 1.5,
        "crop_size": [128, 96],
        "stored_size": [192, 144],
        "shard_count": 3,
        "seed": 5,
        "skeleton": skeleton_files.to_fields(skeletons.LSP),
        "pixel_offset": 0.0,
        "share": [0.0, 0.8],
        "on_error": "skip",
    }


def test_the_defaults_of_the_flags_are_those_of_the_options():
    options = _parse(["--annotations=a.json", "--images=folder", "--output_dir=out"])
    assert options == WriteOptions("a.json", "folder", "out")
    assert options.crop_size == (224, 224) and options.select == "fully_visible" and options.shards == 8
    # Options without an effect are not in the command.
    assert "--category" not in options.command() and "--aspect" not in options.command()
