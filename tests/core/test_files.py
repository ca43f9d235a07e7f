"""Atomic writing of files."""

import os

from kpose.core import files


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    """Workers that share a folder write the same file at the same time; the last one replaces it."""
    path = str(tmp_path / "folder" / "errors.json")
    with files.replacing(path) as one:
        with files.replacing(path) as other:
            one.write("one")
            other.write("other")
        assert files.read_bytes(path) == b"other"
    assert files.read_bytes(path) == b"one"
    assert os.listdir(tmp_path / "folder") == ["errors.json"]
