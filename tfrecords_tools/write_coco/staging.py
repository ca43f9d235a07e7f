"""Where the shards of a write lie until all are whole: OUTPUT_DIR/SPLIT.partial.

The folder holds `inputs.json` (what the write depends on), the shards that are done and, beside each, a summary that is
written after it. A write with the same inputs goes on with them; one with others starts anew.
"""

import contextlib
import fcntl
import os

from kpose.core import files
from kpose.core.errors import InputError

INPUTS_FILE = "inputs.json"
LOCK_FILE = "lock"


def folder(options):
    return os.path.join(options.output_dir, f"{options.split}.partial")


def exists(options):
    return files.is_folder(folder(options))


@contextlib.contextmanager
def open_staging(options, inputs):
    """The `Staging` of a write; it vanishes when the write is finished and stays when it is not.

    Raises:
        InputError: another write to it is under way.
    """
    path = folder(options)
    files.make_folder(path)
    stage = Staging(path, options.output_dir)
    with _locked(path):
        stage.claim(inputs)
        try:
            yield stage
        finally:
            if stage.is_empty():
                files.remove(path)


@contextlib.contextmanager
def _locked(path):
    if files.is_url(path):
        # No object store has locks.
        yield
        return
    with open(os.path.join(path, LOCK_FILE), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{path}: another write of this split is under way: wait for it or end it") from None
        yield


class Staging:
    """The shards of one write."""

    def __init__(self, path, output_dir):
        self._path = path
        self._output_dir = output_dir

    def claim(self, inputs):
        """Throws away what a write with other inputs left, and what was half written."""
        path = os.path.join(self._path, INPUTS_FILE)
        same = False
        if files.is_file(path):
            with contextlib.suppress(InputError):
                same = files.read_json(path, "staging file") == inputs
        for name in files.names_in(self._path):
            if name != LOCK_FILE and (not same or name.endswith(".tmp")):
                files.remove(os.path.join(self._path, name))
        if not same:
            files.write_json(path, inputs)

    def path(self, name):
        return os.path.join(self._path, name)

    def keep(self, name, summary):
        """Notes that a shard is whole."""
        files.write_json(self.path(f"{name}.json"), summary)

    def summary(self, name):
        """What `keep` noted, where the shard is still there, here or in place already; else None."""
        path = self.path(f"{name}.json")
        if not files.is_file(path):
            return None
        summary = files.read_json(path, "summary of a shard")
        for place in (self.path(name), os.path.join(self._output_dir, name)):
            if files.size(place) == summary["bytes"]:
                return summary
        return None

    def move_into_place(self, names):
        for name in names:
            if files.is_file(self.path(name)):
                files.move(self.path(name), os.path.join(self._output_dir, name))

    def clear(self):
        for name in files.names_in(self._path):
            if name != LOCK_FILE:
                files.remove(self.path(name))

    def is_empty(self):
        return not set(files.names_in(self._path)) - {LOCK_FILE, INPUTS_FILE}
